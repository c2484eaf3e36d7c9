//! The units of some features, in order of rows.

use super::file::Index;
use super::{Held, Segment};
use crate::crew;
use crate::reader::{Mask, Snapshot};
use crate::storage::will_fill;
use lamina_format::packing::BLOCK;
use lamina_format::posting::unit;
use lamina_format::record::Site;
use lamina_format::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Units of a share: as many as are sorted in the processor's own memory.
const SHARE: usize = 1 << 14;
/// Units that a feature should have in a share, so that finding them is little work beside sorting them.
const OF_FEATURE: usize = 16;
/// Rows of a share.
const MOST_ROWS: u64 = 1 << 20;

/// Active units: a group of the snapshot, a position there, a feature, and the value as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Units {
    /// Groups.
    pub groups: Vec<i64>,
    /// Positions.
    pub positions: Vec<i64>,
    /// Features.
    pub features: Vec<i64>,
    /// Values.
    pub values: Vec<u8>,
}

/// A feature's units, as [`unit`] makes them.
struct List {
    feature: u32,
    units: Vec<u64>,
    /// How many of them lie before each share, and in the end all.
    cuts: Vec<usize>,
}

/// The units of the features in a segment, feature by feature.
struct Lists<'a> {
    segment: &'a Segment,
    lists: Vec<List>,
    shares: Vec<Share>,
}

/// Rows of groups that follow each other in the snapshot too.
struct Share {
    /// The number of the first group.
    number: usize,
    /// These groups of the segment.
    groups: Range<usize>,
    /// These rows of the index.
    rows: Range<u32>,
}

impl Snapshot {
    /// All units of some features, of the groups that an index answers for: these groups, and the units in order of group,
    /// position and feature. What is hidden is left out.
    pub fn indexed_units(&self, site: &Site, features: &[i64], threads: usize) -> Result<(Vec<i64>, Units)> {
        self.check_codes(site)?;
        let within = features.iter().filter(|feature| (0..site.width() as i64).contains(feature));
        let mut wanted: Vec<u32> = within.map(|&feature| feature as u32).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let segments = self.indexes().of(self, site);
        let unseen = self.unseen(&segments, site)?;
        let mut found = Vec::new();
        for segment in &segments.segments {
            found.extend(self.lists(segment, site, &wanted, unseen, threads)?);
        }
        let numbers = found.iter().flat_map(|lists| &lists.segment.groups).filter_map(Held::number);
        let mut answered: Vec<i64> = numbers.map(|number| number as i64).collect();
        answered.sort_unstable();
        let units = put_together(&mut found, site, threads)?;
        Ok((answered, units))
    }

    /// The lists of the features in a segment; None if no index answers.
    fn lists<'a>(
        &self,
        segment: &'a Segment,
        site: &Site,
        wanted: &[u32],
        unseen: &HashMap<usize, Mask>,
        threads: usize,
    ) -> Result<Option<Lists<'a>>> {
        let hides = |held: &Held| held.number().is_none_or(|number| unseen.contains_key(&number));
        let hides = segment.groups.iter().any(hides);
        self.ask(segment, site, |index| {
            let next = AtomicUsize::new(0);
            let found: Mutex<Result<Vec<List>>> = Mutex::new(Ok(Vec::new()));
            crew::together(threads.max(1) - 1, &|| {
                let mut mine = Vec::new();
                let mut failed = None;
                while let Some(&feature) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match read(index, site, feature) {
                        Ok(units) => mine.push(List { feature, units, cuts: Vec::new() }),
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                if hides {
                    mine.iter_mut().for_each(|list| segment.retain_shown(&mut list.units, unseen));
                }
                mine.retain(|list| !list.units.is_empty());
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *found, failed) {
                    (Ok(found), None) => found.append(&mut mine),
                    (Ok(_), Some(error)) => *found = Err(error),
                    _ => {}
                }
            });
            let mut lists = found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
            lists.sort_unstable_by_key(|list| list.feature);
            let units: usize = lists.iter().map(|list| list.units.len()).sum();
            let shares = segment.shares(units / SHARE.max(OF_FEATURE * lists.len()));
            Ok(Lists { segment, lists, shares })
        })
    }
}

/// The units of a feature.
fn read(index: &Index, site: &Site, feature: u32) -> Result<Vec<u64>> {
    let Some(found) = index.find(feature)? else { return Ok(Vec::new()) };
    let list = found.postings()?;
    let mut units = Vec::with_capacity(found.entry.units as usize);
    let mut rows = [0; BLOCK];
    for block in list.blocks() {
        let rows = block.rows(&mut rows).map_err(|error| index.damaged(error, found.entry.list))?;
        match site.dtype.size() {
            2 => {
                let values = block.values.as_chunks().0.iter().map(|&value| u16::from_le_bytes(value).into());
                units.extend(rows.iter().zip(values).map(|(&row, value)| unit(row, value)));
            }
            _ => {
                let values = block.values.as_chunks().0.iter().map(|&value| u32::from_le_bytes(value));
                units.extend(rows.iter().zip(values).map(|(&row, value)| unit(row, value)));
            }
        }
    }
    Ok(units)
}

impl Segment {
    /// Leaves out units of rows that show none.
    fn retain_shown(&self, list: &mut Vec<u64>, unseen: &HashMap<usize, Mask>) {
        list.retain(|&unit| {
            let (at, position) = self.place((unit >> 32) as u32);
            let hides = |number| unseen.get(&number).is_some_and(|mask| mask.hides(position));
            self.groups[at].number().is_some_and(|number| !hides(number))
        });
    }

    /// The rows of the groups that show something, in about so many shares, or more where groups do not follow each other.
    fn shares(&self, count: usize) -> Vec<Share> {
        let most = self.rows().div_ceil(count.max(1) as u64).clamp(1, MOST_ROWS);
        let mut shares: Vec<Share> = Vec::new();
        for (at, held) in self.groups.iter().enumerate() {
            let Some(number) = held.number() else { continue };
            let end = held.start + held.rows;
            if let Some(last) = shares.last_mut()
                && last.groups.end == at
                && self.groups[at - 1].number().is_some_and(|before| before + 1 == number)
                && end - u64::from(last.rows.start) <= most
            {
                (last.groups.end, last.rows.end) = (at + 1, end as u32);
                continue;
            }
            for from in (held.start..end).step_by(most as usize) {
                let rows = from as u32..end.min(from + most) as u32;
                shares.push(Share { number, groups: at..at + 1, rows });
            }
        }
        shares
    }
}

impl List {
    /// Finds its units of each share. Between shares lie rows that show nothing, and none of its units.
    fn cut(&mut self, shares: &[Share]) {
        let mut at = 0;
        for share in shares {
            self.cuts.push(at);
            let rest = &self.units[at..];
            let before = |unit: &&u64| ((**unit >> 32) as u32) < share.rows.end;
            let few = rest.iter().take(4 * OF_FEATURE).take_while(before).count();
            at += if few < 4 * OF_FEATURE { few } else { rest.partition_point(|unit| before(&unit)) };
        }
        self.cuts.push(at);
    }
}

/// Where the units of a share go.
struct Out<'a> {
    groups: &'a mut [i64],
    positions: &'a mut [i64],
    features: &'a mut [i64],
    values: &'a mut [u8],
}

impl<'a> Out<'a> {
    /// The first so many, whose values take `size` bytes each; the others stay.
    fn take(&mut self, units: usize, size: usize) -> Self {
        fn split<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
            let (taken, later) = std::mem::take(rest).split_at_mut(count);
            *rest = later;
            taken
        }
        Self {
            groups: split(&mut self.groups, units),
            positions: split(&mut self.positions, units),
            features: split(&mut self.features, units),
            values: split(&mut self.values, units * size),
        }
    }
}

/// The units of all segments, by group.
fn put_together(found: &mut [Lists], site: &Site, threads: usize) -> Result<Units> {
    for Lists { lists, shares, .. } in found.iter_mut() {
        let work = Mutex::new(lists.chunks_mut(64));
        crew::together(threads.max(1) - 1, &|| {
            while let Some(some) = { work.lock().unwrap_or_else(PoisonError::into_inner).next() } {
                some.iter_mut().for_each(|list| list.cut(shares));
            }
        });
    }
    let size = site.dtype.size() as usize;
    let mut shares: Vec<(&Lists, usize)> =
        found.iter().flat_map(|lists| (0..lists.shares.len()).map(move |share| (lists, share))).collect();
    shares.sort_by_key(|(lists, share)| (lists.shares[*share].number, lists.shares[*share].rows.start));
    let total = found.iter().flat_map(|lists| &lists.lists).map(|list| list.units.len()).sum();
    let fits = Vec::<[u8; 32]>::new().try_reserve_exact(total).is_ok();
    if !fits {
        let error = Error::schema(format!("{total} units do not fit in memory"));
        return Err(error.hint("ask for fewer features at a time"));
    }
    // memory that is zero already costs nothing until it is filled, by the threads below
    let column = || vec![0; total];
    let mut units = Units { groups: column(), positions: column(), features: column(), values: vec![0; total * size] };
    will_fill([&units.groups[..], &units.positions, &units.features].into_iter());
    will_fill(std::iter::once(&units.values[..]));
    let Units { groups, positions, features, values } = &mut units;
    let mut rest = Out { groups, positions, features, values };
    let mut work = Vec::new();
    for (lists, share) in shares {
        let count = lists.lists.iter().map(|list| list.cuts[share + 1] - list.cuts[share]).sum();
        work.push((lists, share, rest.take(count, size)));
    }
    let work = Mutex::new(work.into_iter());
    crew::together(threads.max(1) - 1, &|| {
        let mut next = Vec::new();
        while let Some((lists, share, out)) = { work.lock().unwrap_or_else(PoisonError::into_inner).next() } {
            match size {
                2 => lists.sort(share, out, &mut next, |unit| (unit as u16).to_le_bytes()),
                _ => lists.sort(share, out, &mut next, |unit| (unit as u32).to_le_bytes()),
            }
        }
    });
    Ok(units)
}

impl Lists<'_> {
    /// Sorts the units of a share by row, and by feature within a row: lists come in order of their features.
    fn sort<const SIZE: usize>(&self, share: usize, out: Out, next: &mut Vec<u32>, value: impl Fn(u64) -> [u8; SIZE]) {
        let rows = &self.shares[share].rows;
        let row = |unit: u64| ((unit >> 32) as u32 - rows.start) as usize;
        let units =
            || self.lists.iter().map(|list| (list.feature, &list.units[list.cuts[share]..list.cuts[share + 1]]));
        next.clear();
        next.resize(rows.len() + 1, 0);
        units().for_each(|(_, of_feature)| of_feature.iter().for_each(|&unit| next[row(unit) + 1] += 1));
        let mut sum = 0;
        next.iter_mut().for_each(|count| {
            sum += *count;
            *count = sum;
        });
        let values = out.values.as_chunks_mut().0;
        for (feature, of_feature) in units() {
            for &unit in of_feature {
                let place = &mut next[row(unit)];
                let at = *place as usize;
                *place += 1;
                out.positions[at] = (unit >> 32) as i64;
                out.features[at] = feature.into();
                values[at] = value(unit);
            }
        }
        // now each row's place is where the next one begins
        let mut from = 0;
        for (number, held) in (self.shares[share].number..).zip(&self.segment.groups[self.shares[share].groups.clone()])
        {
            let last = (held.start + held.rows).min(rows.end.into()) as usize - rows.start as usize;
            let to = next[last - 1] as usize;
            out.groups[from..to].fill(number as i64);
            out.positions[from..to].iter_mut().for_each(|position| *position -= held.start as i64);
            from = to;
        }
    }
}
