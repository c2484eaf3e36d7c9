//! The units of some features, in order of rows.
//!
//! Threads read the lists of some features each, and deal their units out to shares of rows, each small enough to be sorted in
//! the processor's own memory. In a share, deals follow each other, so that features ascend in it.

use super::file::Index;
use super::sorted::{column, sorted};
use super::transpose::cut;
use super::{Held, Segment};
use crate::crew;
use crate::reader::{Mask, Snapshot};
use crate::storage::will_fill;
use lamina_format::Result;
use lamina_format::packing::BLOCK;
use lamina_format::posting::unit;
use lamina_format::record::Site;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Units of a share: as many as are sorted in the processor's own memory.
const SHARE: usize = 1 << 14;
/// Units that a feature should have in a share, so that finding them is little work beside sorting them.
const OF_FEATURE: usize = 16;
/// Rows of a share.
const MOST_ROWS: u64 = 1 << 20;
/// Deals of a thread: one takes longer than another.
const DEALS: usize = 8;
/// The most deals, so that what a share has of each is not tiny.
const MOST_DEALS: usize = 32;

/// Active units, in order of group, of place there and of feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Units {
    /// The groups of the snapshot that an index answers for, ascending, and how many units each has.
    pub groups: Vec<(i64, usize)>,
    /// The name of each unit's row.
    pub rows: Vec<i64>,
    /// Features.
    pub features: Vec<i64>,
    /// Values, as they are stored.
    pub values: Vec<u8>,
}

/// The units of the features in a segment.
pub struct Dealt<'a> {
    pub segment: &'a Segment,
    pub shares: Vec<Share>,
    /// Some features each, in order.
    pub deals: Vec<Deal>,
}

/// Rows of groups that follow each other in the snapshot too.
pub struct Share {
    /// The number of the first group.
    pub number: usize,
    /// These groups of the segment.
    pub groups: Range<usize>,
    /// These rows of the index.
    pub rows: Range<u32>,
}

/// The units of some features, share by share.
pub struct Deal {
    /// Units as [`unit`] makes them: in a share feature by feature, in order of rows.
    units: Vec<u64>,
    /// Where each share's begin, and those of the next.
    starts: Vec<usize>,
    /// Each feature's units in each share: share by share, as many as there are features.
    ends: Vec<usize>,
    features: Vec<u32>,
}

impl Snapshot {
    /// All units of some features, of the groups that an index answers for. What is hidden is left out.
    pub fn indexed_units(&self, site: &Site, features: &[i64], threads: usize) -> Result<Units> {
        self.check_codes(site)?;
        let within = features.iter().filter(|feature| (0..site.width() as i64).contains(feature));
        let mut wanted: Vec<u32> = within.map(|&feature| feature as u32).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let segments = self.indexes().of(self, site);
        let unseen = self.unseen(&segments, site)?;
        let mut found = Vec::new();
        for segment in &segments.segments {
            found.extend(self.dealt(segment, site, &wanted, unseen, threads)?);
        }
        sorted(self, &found, site, threads)
    }

    /// How many units some features have, of the groups that an index answers for, those of hidden rows included.
    pub fn indexed_count(&self, site: &Site, features: &[i64]) -> Result<u64> {
        self.check_codes(site)?;
        let mut count = 0;
        for segment in &self.indexes().of(self, site).segments {
            let of_segment = self.ask(segment, site, |index| {
                features.iter().filter_map(|&feature| u32::try_from(feature).ok()).try_fold(0, |sum, feature| {
                    Ok(sum + index.entry(feature)?.map_or(0, |entry| u64::from(entry.units)))
                })
            })?;
            count += of_segment.unwrap_or(0);
        }
        Ok(count)
    }

    /// The units of the features in a segment; None if no index answers.
    fn dealt<'a>(
        &self,
        segment: &'a Segment,
        site: &Site,
        wanted: &[u32],
        unseen: &HashMap<usize, Mask>,
        threads: usize,
    ) -> Result<Option<Dealt<'a>>> {
        let hides = |held: &Held| held.number().is_none_or(|number| unseen.contains_key(&number));
        let hides = segment.groups.iter().any(hides);
        self.ask(segment, site, |index| {
            let mut sizes = Vec::new();
            for &feature in wanted {
                sizes.extend(index.entry(feature)?.map(|entry| (feature, entry.units as usize)));
            }
            let total: usize = sizes.iter().map(|(_, units)| units).sum();
            let shares = segment.shares(total / SHARE.max(OF_FEATURE * sizes.len()));
            let most = total / (DEALS * threads.max(1)).min(MOST_DEALS) + 1;
            let stretches = cut(sizes.iter().map(|(_, units)| *units as u64), most as u64);
            let deals = stretches.into_iter().map(|stretch| Deal::of(&sizes[stretch]));
            let mut deals = deals.collect::<Result<Vec<Deal>>>()?;
            will_fill(deals.iter_mut().map(|deal| &*deal.units.spare_capacity_mut()));
            let lists = Mutex::new(Vec::new());
            let lists = || lists.lock().unwrap_or_else(PoisonError::into_inner);
            crew::each(threads.max(1) - 1, deals.iter_mut(), |deal| {
                let mut all: Vec<u64> = lists().pop().unwrap_or_default();
                all.clear();
                let mut ends = Vec::with_capacity(deal.features.len());
                for &feature in &deal.features {
                    read(index, site, feature, &mut all)?;
                    if hides {
                        let from = ends.last().copied().unwrap_or(0);
                        segment.retain_shown(&mut all, from, unseen);
                    }
                    ends.push(all.len());
                }
                deal.fill(&all, &ends, &shares);
                lists().push(all);
                Ok(())
            })?;
            Ok(Dealt { segment, shares, deals })
        })
    }
}

/// Adds the units of a feature to a list.
fn read(index: &Index, site: &Site, feature: u32, units: &mut Vec<u64>) -> Result<()> {
    let Some(found) = index.find(feature)? else { return Ok(()) };
    let list = found.postings()?;
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
    Ok(())
}

impl Segment {
    /// Leaves out units, from one on, of rows that show none.
    fn retain_shown(&self, units: &mut Vec<u64>, from: usize, unseen: &HashMap<usize, Mask>) {
        let shown = |unit: u64| {
            let (at, position) = self.place((unit >> 32) as u32);
            let hides = |number| unseen.get(&number).is_some_and(|mask| mask.hides(position));
            self.groups[at].number().is_some_and(|number| !hides(number))
        };
        let mut kept = from;
        for at in from..units.len() {
            units[kept] = units[at];
            kept += usize::from(shown(units[at]));
        }
        units.truncate(kept);
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

impl Deal {
    /// Of features with so many units.
    fn of(features: &[(u32, usize)]) -> Result<Self> {
        let units = column(features.iter().map(|(_, units)| units).sum())?;
        let features = features.iter().map(|(feature, _)| *feature).collect();
        Ok(Self { units, starts: Vec::new(), ends: Vec::new(), features })
    }

    /// Deals out the units of its features, which end at `ends`. Between shares lie rows that show nothing, and no units.
    fn fill(&mut self, all: &[u64], ends: &[usize], shares: &[Share]) {
        let mut rest: Vec<&[u64]> =
            (0..ends.len()).map(|at| &all[at.checked_sub(1).map_or(0, |at| ends[at])..ends[at]]).collect();
        self.ends.reserve_exact(shares.len() * ends.len());
        for share in shares {
            self.starts.push(self.units.len());
            for list in &mut rest {
                let before = |unit: &&u64| ((**unit >> 32) as u32) < share.rows.end;
                let few = list.iter().take(4 * OF_FEATURE).take_while(before).count();
                let count = if few < 4 * OF_FEATURE { few } else { list.partition_point(|unit| before(&unit)) };
                let (here, behind) = list.split_at(count);
                self.units.extend_from_slice(here);
                self.ends.push(self.units.len());
                *list = behind;
            }
        }
        self.starts.push(self.units.len());
    }

    /// The units of a share.
    pub fn units(&self, share: usize) -> &[u64] {
        &self.units[self.starts[share]..self.starts[share + 1]]
    }

    /// The same feature by feature.
    pub fn lists(&self, share: usize) -> impl Iterator<Item = (u32, &[u64])> {
        let ends = &self.ends[share * self.features.len()..][..self.features.len()];
        let starts = std::iter::once(&self.starts[share]).chain(ends);
        self.features.iter().zip(starts.zip(ends)).map(|(&feature, (&start, &end))| (feature, &self.units[start..end]))
    }
}
