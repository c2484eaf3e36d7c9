//! A part while it is put together.

use super::{Entry, Part};
use crate::dtype::DType;
use crate::histogram::{self, Counter};
use crate::posting;

/// Lists, table and histograms of consecutive features while they are put together.
#[derive(Default)]
pub struct PartWriter {
    lists: Vec<u8>,
    entries: Vec<Entry>,
    bins: Vec<u8>,
}

/// What a part holds of a feature, beside its units and bins.
#[derive(Clone, Copy)]
pub struct Sums {
    /// Sum of the values.
    pub sum: f64,
    /// Bits of the greatest.
    pub greatest: u32,
    /// Least step, and greatest.
    pub steps: (i64, i64),
}

impl PartWriter {
    /// Adds a feature, greater than those before: its units and the bins of their values.
    pub fn push(&mut self, feature: u32, units: &[u64], dtype: DType, sums: Sums, bins: &mut Counter) {
        let start = self.lists.len();
        posting::write(units, dtype, &mut self.lists);
        histogram::write(bins, &mut self.bins);
        self.entries.push(Entry {
            feature,
            units: units.len() as u32,
            list: start as u64,
            crc: crc32c::crc32c(&self.lists[start..]),
            bins: self.bins.len() as u32,
            sum: sums.sum,
            greatest: sums.greatest,
            first_step: sums.steps.0,
            last_step: sums.steps.1,
        });
    }

    /// Its bytes, to stand at `offset`, and what describes it; None if no feature was added.
    pub fn finish(self, offset: u64) -> Option<(Part, [Vec<u8>; 3])> {
        let (first, last) = (self.entries.first()?.feature, self.entries.last()?.feature);
        let placed = |entry: &Entry| Entry { list: entry.list + offset, ..*entry }.encode();
        let table: Vec<u8> = self.entries.iter().flat_map(placed).collect();
        let part = Part {
            first,
            last,
            features: self.entries.len() as u32,
            lists: offset,
            table: offset + self.lists.len() as u64,
            table_crc: crc32c::crc32c(&table),
            bins: self.bins.len() as u32,
            bins_crc: crc32c::crc32c(&self.bins),
        };
        Some((part, [self.lists, table, self.bins]))
    }
}
