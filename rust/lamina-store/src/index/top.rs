//! The strongest units of a feature: blocks are read in order of their greatest value, until no other can hold one.

use super::file::Index;
use super::{Held, Segment};
use crate::reader::{Mask, Snapshot};
use lamina_format::Result;
use lamina_format::packing::BLOCK;
use lamina_format::posting::{Postable, rank, stored};
use lamina_format::record::Site;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// An active unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strongest {
    /// Number of the group in the snapshot.
    pub group: usize,
    /// Position there.
    pub position: usize,
    /// Name of the row.
    pub row: i64,
    /// Bits of the value as it is stored.
    pub bits: u32,
}

/// What orders units, the weakest first: the rank of the value, and of equal ones the greatest name.
type Key = (u32, Reverse<i64>);

/// The strongest units so far; the weakest of them is at hand.
#[derive(Clone)]
struct Best {
    most: usize,
    heap: BinaryHeap<Reverse<(Key, usize, usize, u32)>>,
}

impl Best {
    /// Whether a unit of this rank may be one of the strongest.
    fn may_take(&self, rank: u32) -> bool {
        self.heap.len() < self.most || self.heap.peek().is_some_and(|Reverse((weakest, ..))| rank >= weakest.0)
    }

    fn take(&mut self, rank: u32, unit: Strongest) {
        self.heap.push(Reverse(((rank, Reverse(unit.row)), unit.group, unit.position, unit.bits)));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn units(self) -> Vec<Strongest> {
        let unit = |Reverse(((_, Reverse(row)), group, position, bits))| Strongest { group, position, row, bits };
        self.heap.into_sorted_vec().into_iter().map(unit).collect()
    }
}

impl Snapshot {
    /// The `most` strongest units of a feature, of the groups that an index answers for: these groups, and the units. NaN
    /// comes last, and of equal values the row of the least name first.
    pub fn top_units(&self, site: &Site, feature: i64, most: usize) -> Result<(Vec<i64>, Vec<Strongest>)> {
        self.check_codes(site)?;
        let segments = self.indexes().of(self, site);
        let unseen = self.unseen(&segments, site)?;
        let feature = u32::try_from(feature).ok().filter(|&feature| u64::from(feature) < site.width() && most > 0);
        let mut best = Best { most, heap: BinaryHeap::new() };
        let mut answered = Vec::new();
        for segment in &segments.segments {
            let search = Search { snapshot: self, site, segment, unseen };
            let more = self.ask(segment, site, |index| match feature {
                Some(feature) => search.strongest(index, feature, best.clone()),
                None => Ok(best.clone()),
            })?;
            if let Some(more) = more {
                best = more;
                answered.extend(segment.groups.iter().filter_map(Held::number).map(|number| number as i64));
            }
        }
        answered.sort_unstable();
        Ok((answered, best.units()))
    }
}

/// A segment that is searched.
struct Search<'a> {
    snapshot: &'a Snapshot,
    site: &'a Site,
    segment: &'a Segment,
    unseen: &'a HashMap<usize, Mask>,
}

impl Search<'_> {
    /// What is best with the segment's units of a feature.
    fn strongest(&self, index: &Index, feature: u32, mut best: Best) -> Result<Best> {
        let Some(found) = index.find(feature)? else { return Ok(best) };
        let list = found.postings()?;
        let rank_of = |block: &Postable| rank(self.site.dtype, block.greatest);
        let blocks: Vec<Postable> = list.blocks().collect();
        let ranked = blocks.iter().enumerate().map(|(at, block)| (rank_of(block), Reverse(at)));
        let mut ranked: BinaryHeap<(u32, Reverse<usize>)> = ranked.filter(|(rank, _)| best.may_take(*rank)).collect();
        while let Some((greatest, Reverse(at))) = ranked.pop() {
            if !best.may_take(greatest) {
                break;
            }
            let (block, mut rows) = (&blocks[at], [0; BLOCK]);
            let rows = block.rows(&mut rows).map_err(|error| index.damaged(error, found.entry.list))?;
            for (at, &row) in rows.iter().enumerate() {
                let bits = stored(block.values, self.site.dtype, at);
                let rank = rank(self.site.dtype, bits);
                if best.may_take(rank)
                    && let Some(unit) = self.unit(row, bits)?
                {
                    best.take(rank, unit);
                }
            }
        }
        Ok(best)
    }

    /// A unit, unless its row does not show it.
    fn unit(&self, row: u32, bits: u32) -> Result<Option<Strongest>> {
        let (at, position) = self.segment.place(row);
        let held = &self.segment.groups[at];
        let Some(group) = held.number() else { return Ok(None) };
        if self.unseen.get(&group).is_some_and(|mask| mask.hides(position)) {
            return Ok(None);
        }
        let row = self.snapshot.name_at(held.group(self.snapshot), position)?;
        Ok(Some(Strongest { group, position, row, bits }))
    }
}
