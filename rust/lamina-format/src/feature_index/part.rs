//! A part while it is put together.

use super::{Entry, Part};
use crate::dtype::DType;
use crate::histogram::{self, Counter};
use crate::posting::ListWriter;

/// Bytes that are not copied behind others to be written with them.
const LARGE: usize = 1 << 20;

/// Lists, table and histograms of consecutive features while they are put together.
#[derive(Default)]
pub struct PartWriter {
    /// The lists, and behind which of their bytes the last ones begin.
    lists: Vec<Vec<u8>>,
    before: usize,
    last: Vec<u8>,
    /// The list that is being added to, and where it begins.
    open: Option<(ListWriter, usize)>,
    entries: Vec<Entry>,
    bins: Vec<u8>,
}

/// What a part holds of a feature, beside its units and bins.
#[derive(Clone, Copy)]
pub struct Sums {
    /// How many units.
    pub units: u32,
    /// Sum of the values.
    pub sum: f64,
    /// Bits of the greatest.
    pub greatest: u32,
    /// Least step, and greatest.
    pub steps: (i64, i64),
}

impl PartWriter {
    /// Adds units of a feature that has `count` in all, greater than those that were ended: rows ascend, and units come in
    /// whole blocks, but for the last.
    pub fn add(&mut self, count: u64, units: &[u64], dtype: DType) {
        let last = &mut self.last;
        let (list, _) = self.open.get_or_insert_with(|| {
            let start = last.len();
            (ListWriter::new(count as usize, dtype, last), start)
        });
        list.add(units, last);
    }

    /// Ends a feature whose units were added: what they are, and the bins of their values.
    pub fn end(&mut self, feature: u32, sums: Sums, bins: &mut Counter) {
        let Some((list, start)) = self.open.take() else { return };
        let values = list.end();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.last[start..]), &values);
        let begin = self.before + start;
        if values.len() < LARGE {
            self.last.extend_from_slice(&values);
        } else {
            let heads = std::mem::take(&mut self.last);
            self.before += heads.len() + values.len();
            self.lists.extend([heads, values]);
        }
        histogram::write(bins, &mut self.bins);
        self.entries.push(Entry {
            feature,
            units: sums.units,
            list: begin as u64,
            crc,
            bins: self.bins.len() as u32,
            sum: sums.sum,
            greatest: sums.greatest,
            first_step: sums.steps.0,
            last_step: sums.steps.1,
        });
    }

    /// Its bytes, to stand at `offset`, and what describes it; None if no feature was added.
    pub fn finish(mut self, offset: u64) -> Option<(Part, Vec<Vec<u8>>)> {
        let (first, last) = (self.entries.first()?.feature, self.entries.last()?.feature);
        let placed = |entry: &Entry| Entry { list: entry.list + offset, ..*entry }.encode();
        let table: Vec<u8> = self.entries.iter().flat_map(placed).collect();
        let part = Part {
            first,
            last,
            features: self.entries.len() as u32,
            lists: offset,
            table: offset + (self.before + self.last.len()) as u64,
            table_crc: crc32c::crc32c(&table),
            bins: self.bins.len() as u32,
            bins_crc: crc32c::crc32c(&self.bins),
        };
        self.lists.extend([self.last, table, self.bins]);
        Some((part, self.lists))
    }
}
