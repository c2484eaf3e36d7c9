//! The units of some features, in order of rows.

use super::Segment;
use crate::crew;
use crate::reader::{Mask, Snapshot};
use lamina_format::packing::BLOCK;
use lamina_format::posting::{stored, unit};
use lamina_format::record::Site;
use lamina_format::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Units of a share: as many as are sorted in the processor's own memory.
const SHARE: usize = 1 << 14;
/// Units that a feature should have in a share, so that finding them is little work beside sorting them.
const OF_FEATURE: usize = 16;

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

/// A feature and its units, as [`unit`] makes them.
type List = (u32, Vec<u64>);

/// The units of the features in a segment, feature by feature.
struct Lists<'a> {
    segment: &'a Segment,
    lists: Vec<List>,
}

/// Rows of a group.
struct Share<'a> {
    number: usize,
    lists: &'a [List],
    /// Rows of the index: the group's first, and those of the share.
    start: u32,
    from: u32,
    to: u32,
    units: usize,
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
        let mut answered: Vec<i64> = found
            .iter()
            .flat_map(|lists| &lists.segment.groups)
            .filter_map(|held| held.number())
            .map(|n| n as i64)
            .collect();
        answered.sort_unstable();
        let mut shares: Vec<Share> = found.iter().flat_map(Lists::shares).collect();
        shares.sort_by_key(|share| (share.number, share.from));
        let units = put_together(&mut shares, site, threads)?;
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
        let hides = |held: &super::Held| held.number().is_none_or(|number| unseen.contains_key(&number));
        let hides = segment.groups.iter().any(hides);
        self.ask(segment, site, |index| {
            let next = AtomicUsize::new(0);
            let found: Mutex<Result<Vec<List>>> = Mutex::new(Ok(Vec::new()));
            crew::together(threads.max(1) - 1, &|| {
                let mut mine = Vec::new();
                let mut failed = None;
                while let Some(&feature) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let list = index.find(feature).and_then(|found| {
                        let Some(found) = found else { return Ok(Vec::new()) };
                        let mut list = Vec::with_capacity(found.entry.units as usize);
                        let mut rows = [0; BLOCK];
                        for block in found.postings()?.blocks() {
                            let rows = block.rows(&mut rows).map_err(|error| index.damaged(error, found.entry.list))?;
                            let values = rows.iter().enumerate().map(|(at, _)| stored(block.values, site.dtype, at));
                            list.extend(rows.iter().zip(values).map(|(&row, value)| unit(row, value)));
                        }
                        Ok(list)
                    });
                    match list {
                        Ok(list) => mine.push((feature, list)),
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                if hides {
                    mine.iter_mut().for_each(|(_, list)| segment.retain_shown(list, unseen));
                }
                mine.retain(|(_, list)| !list.is_empty());
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *found, failed) {
                    (Ok(found), None) => found.append(&mut mine),
                    (Ok(_), Some(error)) => *found = Err(error),
                    _ => {}
                }
            });
            let mut lists = found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
            lists.sort_unstable_by_key(|(feature, _)| *feature);
            Ok(Lists { segment, lists })
        })
    }
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
}

fn before(list: &[u64], row: u64) -> usize {
    list.partition_point(|&unit| unit >> 32 < row)
}

impl Lists<'_> {
    /// The rows of the groups that show something, in shares.
    fn shares(&self) -> Vec<Share<'_>> {
        let units: usize = self.lists.iter().map(|(_, list)| list.len()).sum();
        let count = (units / SHARE.max(OF_FEATURE * self.lists.len())).max(1) as u64;
        let rows = self.segment.rows().div_ceil(count).max(1);
        let mut shares = Vec::new();
        for held in &self.segment.groups {
            let Some(number) = held.number() else { continue };
            let end = held.start + held.rows;
            for from in (held.start..end).step_by(rows as usize) {
                let to = end.min(from + rows);
                let of_list = |(_, list): &List| {
                    let start = before(list, from);
                    before(&list[start..], to)
                };
                let units = self.lists.iter().map(of_list).sum();
                let (start, from, to) = (held.start as u32, from as u32, to as u32);
                shares.push(Share { number, lists: &self.lists, start, from, to, units });
            }
        }
        shares
    }
}

/// Where the units of a share go.
struct Out<'a> {
    groups: &'a mut [i64],
    positions: &'a mut [i64],
    features: &'a mut [i64],
    values: &'a mut [u8],
}

fn put_together(shares: &mut Vec<Share>, site: &Site, threads: usize) -> Result<Units> {
    let size = site.dtype.size() as usize;
    let total: usize = shares.iter().map(|share| share.units).sum();
    let mut units = Units::default();
    let long =
        |_| Error::schema(format!("{total} units do not fit in memory")).hint("ask for fewer features at a time");
    for column in [&mut units.groups, &mut units.positions, &mut units.features] {
        column.try_reserve_exact(total).map_err(long)?;
        column.resize(total, 0);
    }
    units.values.try_reserve_exact(total * size).map_err(long)?;
    units.values.resize(total * size, 0);
    let mut rest = Out {
        groups: &mut units.groups,
        positions: &mut units.positions,
        features: &mut units.features,
        values: &mut units.values,
    };
    let mut work = Vec::new();
    for share in shares.iter() {
        let (groups, later) = std::mem::take(&mut rest.groups).split_at_mut(share.units);
        rest.groups = later;
        let (positions, later) = std::mem::take(&mut rest.positions).split_at_mut(share.units);
        rest.positions = later;
        let (features, later) = std::mem::take(&mut rest.features).split_at_mut(share.units);
        rest.features = later;
        let (values, later) = std::mem::take(&mut rest.values).split_at_mut(share.units * size);
        rest.values = later;
        work.push((share, Out { groups, positions, features, values }));
    }
    let work = Mutex::new(work.into_iter());
    crew::together(threads.max(1) - 1, &|| {
        let mut next = Vec::new();
        loop {
            let Some((share, out)) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            share.sort(out, size, &mut next);
        }
    });
    Ok(units)
}

impl Share<'_> {
    /// Sorts its units by row, and by feature within a row: lists come in order of their features.
    fn sort(&self, out: Out, size: usize, next: &mut Vec<u32>) {
        out.groups.fill(self.number as i64);
        let slices = || {
            self.lists.iter().map(|(feature, list)| {
                let start = before(list, self.from.into());
                (*feature, &list[start..start + before(&list[start..], self.to.into())])
            })
        };
        next.clear();
        next.resize((self.to - self.from) as usize + 1, 0);
        for (_, list) in slices() {
            list.iter().for_each(|unit| next[((unit >> 32) as u32 - self.from) as usize + 1] += 1);
        }
        let mut sum = 0;
        next.iter_mut().for_each(|count| {
            sum += *count;
            *count = sum;
        });
        for (feature, list) in slices() {
            for &unit in list {
                let row = (unit >> 32) as u32;
                let place = &mut next[(row - self.from) as usize];
                let at = *place as usize;
                *place += 1;
                out.positions[at] = (row - self.start).into();
                out.features[at] = feature.into();
                out.values[at * size..(at + 1) * size].copy_from_slice(&(unit as u32).to_le_bytes()[..size]);
            }
        }
    }
}
