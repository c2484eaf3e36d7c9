//! Some consecutive features of codes: their units, feature by feature.

use super::visit::{Input, Visit, changed, within};
use crate::crew;
use lamina_format::Result;
use lamina_format::packing::BLOCK;
use lamina_format::posting::unit;
use lamina_format::sparse::Stored;
use std::ops::Range;

/// Some rows that follow each other, their units a counter, and those of a range of features in order.
pub struct Share {
    pub rows: Range<u32>,
    pub counts: Vec<u32>,
    /// The units of one counter behind those of another, in order of rows.
    pub units: Vec<u64>,
    /// Where each counter's end.
    ends: Vec<u32>,
    /// Where features share counters: feature and row, and the value.
    pub loose: Vec<(u64, u32)>,
}

/// Some consecutive features.
pub struct Part<'a> {
    pub input: &'a Input<'a>,
    pub counters: Range<usize>,
    pub units: Units<'a>,
}

/// Where the units of a part are.
pub enum Units<'a> {
    /// Sorted, in shares that hold those of the counters from this one on.
    Sorted(&'a [Share], usize),
    /// Of one feature, so many: where the codes are. They are read so many rows at a time, by several threads.
    Unsorted { count: u64, rows: u32, threads: usize },
}

impl Share {
    pub fn new(rows: Range<u32>, counters: usize) -> Self {
        Self { rows, counts: vec![0; counters], units: Vec::new(), ends: Vec::new(), loose: Vec::new() }
    }

    /// Sorts the units that the features of some counters have in its rows.
    pub fn sort(&mut self, input: &Input, counters: &Range<usize>) -> Result<()> {
        let Self { rows, counts, units, ends, loose } = self;
        let features = input.of(counters);
        if input.shift > 0 {
            loose.clear();
            let take =
                |feature: u32, row: u32, value: u32| loose.push((u64::from(feature) << 32 | u64::from(row), value));
            input.visit(rows, &mut Collect { features, take })?;
            // no two units have the same feature and row
            loose.sort_unstable();
            return Ok(());
        }
        let counts = &counts[counters.clone()];
        let mut sum = 0;
        ends.clear();
        ends.extend(counts.iter().map(|&count| {
            sum += count;
            sum - count
        }));
        input.visit(rows, &mut Sort { features, places: &mut ends[..], units: &mut units[..] })?;
        // now each place is the end, unless units went where others belong
        sum = 0;
        let in_place = |(&end, &count): (&u32, &u32)| {
            sum += count;
            end == sum
        };
        if ends.iter().zip(counts).all(in_place) { Ok(()) } else { Err(changed()) }
    }
}

/// Puts those of some features into order.
struct Sort<'a> {
    features: Range<u32>,
    /// Where the next unit of each goes.
    places: &'a mut [u32],
    units: &'a mut [u64],
}

impl Visit for Sort<'_> {
    #[inline]
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize> {
        within(ids, &self.features)
    }

    #[inline]
    fn row<Id: Stored>(&mut self, row: u32, ids: &[Id], values: &[impl Stored]) -> Option<()> {
        let (first, places, units) = (self.features.start, &mut *self.places, &mut *self.units);
        for (id, value) in ids.iter().zip(values) {
            let place = places.get_mut(id.number().wrapping_sub(first) as usize)?;
            *units.get_mut(*place as usize)? = unit(row, value.number());
            *place += 1;
        }
        Some(())
    }
}

/// Takes those of some features as they come: feature, row, and bits of the value.
struct Collect<F> {
    features: Range<u32>,
    take: F,
}

impl<F: FnMut(u32, u32, u32)> Visit for Collect<F> {
    #[inline]
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize> {
        within(ids, &self.features)
    }

    #[inline]
    fn row<Id: Stored>(&mut self, row: u32, ids: &[Id], values: &[impl Stored]) -> Option<()> {
        ids.iter().zip(values).for_each(|(id, value)| (self.take)(id.number(), row, value.number()));
        Some(())
    }
}

impl Part<'_> {
    /// Hands on each feature that has some units, in order: which, how many it has, and these, whose rows ascend; or some of
    /// them after another, whole blocks but for the last.
    pub fn features(&self, mut each: impl FnMut(u32, u64, &[u64])) -> Result<()> {
        let features = self.input.of(&self.counters);
        match self.units {
            Units::Sorted(shares, _) if self.input.shift > 0 => each_loose(shares, &features, each),
            Units::Sorted(shares, first) => {
                let mut units = Vec::new();
                for (feature, counter) in features.zip(self.counters.start - first..) {
                    units.clear();
                    for share in shares {
                        let start = counter.checked_sub(1).map_or(0, |before| share.ends[before]);
                        units.extend_from_slice(&share.units[start as usize..share.ends[counter] as usize]);
                    }
                    if !units.is_empty() {
                        each(feature, units.len() as u64, &units);
                    }
                }
            }
            Units::Unsorted { count, rows, threads } => return self.in_pieces(&features, count, rows, threads, each),
        }
        Ok(())
    }

    /// Reads the units of one feature, some rows at a time.
    fn in_pieces(
        &self,
        feature: &Range<u32>,
        count: u64,
        rows: u32,
        threads: usize,
        mut each: impl FnMut(u32, u64, &[u64]),
    ) -> Result<()> {
        let all = self.input.rows();
        let (mut units, mut left) = (Vec::new(), count);
        let mut hand_on = |units: &mut Vec<u64>, whole: usize| {
            each(feature.start, count, &units[..whole]);
            units.drain(..whole);
            left = left.checked_sub(whole as u64).ok_or_else(changed)?;
            Ok(())
        };
        for from in all.clone().step_by(rows as usize) {
            let some = from..all.end.min(from.saturating_add(rows));
            let each = some.len().div_ceil(threads) as u32;
            let share = |from: u32| (from..some.end.min(from + each), Vec::new());
            let mut shares: Vec<(Range<u32>, Vec<u64>)> = some.clone().step_by(each as usize).map(share).collect();
            crew::each(threads - 1, shares.iter_mut(), |(rows, units)| {
                let take = |_, row, value| units.push(unit(row, value));
                self.input.visit(rows, &mut Collect { features: feature.clone(), take })
            })?;
            shares.iter().for_each(|(_, some)| units.extend_from_slice(some));
            let whole = units.len() / BLOCK * BLOCK;
            if whole > 0 {
                hand_on(&mut units, whole)?;
            }
        }
        let rest = units.len();
        if rest > 0 {
            hand_on(&mut units, rest)?;
        }
        if left == 0 { Ok(()) } else { Err(changed()) }
    }
}

/// Hands on features whose units were sorted one by one.
fn each_loose(shares: &[Share], features: &Range<u32>, mut each: impl FnMut(u32, u64, &[u64])) {
    let mut loose = Vec::new();
    for Share { loose: of_share, .. } in shares {
        let before = |feature: u32| of_share.partition_point(|&(key, _)| key < u64::from(feature) << 32);
        loose.extend_from_slice(&of_share[before(features.start)..before(features.end)]);
    }
    // runs that ascend already are merged
    loose.sort();
    let mut units = Vec::new();
    for of_feature in loose.chunk_by(|a, b| a.0 >> 32 == b.0 >> 32) {
        units.clear();
        units.extend(of_feature.iter().map(|&(key, value)| unit(key as u32, value)));
        each((of_feature[0].0 >> 32) as u32, units.len() as u64, &units);
    }
}
