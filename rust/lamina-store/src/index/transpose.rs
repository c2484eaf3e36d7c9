//! Codes by feature: a counting sort of the units of some features at a time, so that memory does not grow with the rows.
//!
//! Ids ascend in a row, so consecutive features are consecutive in each. A first pass counts the units of every feature and
//! checks the codes; then each range of features takes a pass that looks at nothing else.

use crate::crew;
use crate::reader::{GroupCodes, Mask, Snapshot, StoredGroup};
use lamina_format::posting::unit;
use lamina_format::record::Site;
use lamina_format::{Error, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of the first pass; where there are more features they share them, and are sorted in another way.
const COUNTERS: u64 = 1 << 20;
/// Active units that are read at once.
const SHARE: usize = 1 << 16;

/// The codes of a site in some groups.
pub struct Transposer<'a> {
    snapshot: &'a Snapshot,
    site: &'a Site,
    groups: Vec<Source<'a>>,
    /// Features that share a counter, as a power of two.
    shift: u32,
}

/// A group, the row of the index that its first is, and which of its rows are left out.
pub struct Source<'a> {
    pub group: &'a StoredGroup,
    pub start: u32,
    pub unseen: Mask,
}

/// What a thread keeps from range to range.
#[derive(Default)]
pub struct Buffers {
    units: Vec<u64>,
    next: Vec<usize>,
    loose: Vec<(u64, u32)>,
}

impl<'a> Transposer<'a> {
    pub fn new(snapshot: &'a Snapshot, site: &'a Site, groups: Vec<Source<'a>>) -> Self {
        let shift = (0..).find(|shift| site.width() >> shift <= COUNTERS).unwrap_or(0);
        Self { snapshot, site, groups, shift }
    }

    /// Counts the units that each counter's features have, and checks all codes.
    pub fn count(&self, threads: usize) -> Result<Vec<u64>> {
        let counters = || vec![0u64; (self.site.width().div_ceil(1 << self.shift)) as usize];
        let (next, total) = (AtomicUsize::new(0), Mutex::new(Ok(counters())));
        crew::together(threads.max(1) - 1, &|| {
            let mut counts = counters();
            let mut failed = None;
            while let Some(source) = self.groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.count_group(source, &mut counts) {
                    failed = Some(error);
                    break;
                }
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *total, failed) {
                (Ok(total), None) => total.iter_mut().zip(counts).for_each(|(total, count)| *total += count),
                (Ok(_), Some(error)) => *total = Err(error),
                _ => {}
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_group(&self, source: &Source, counts: &mut [u64]) -> Result<()> {
        let codes = self.snapshot.codes_of(source.group, self.site)?;
        each_share(&codes, |from, to| {
            let some = codes.read(from, to)?;
            match &source.unseen {
                Mask::None => some.ids.iter().for_each(|&id| counts[(id >> self.shift) as usize] += 1),
                unseen => {
                    for row in (0..some.rows()).filter(|row| !unseen.hides(from + row)) {
                        some.ids_of(row).iter().for_each(|&id| counts[(id >> self.shift) as usize] += 1);
                    }
                }
            }
            Ok(())
        })
    }

    /// Ranges of counters that have about `most` units each, or one counter.
    pub fn ranges(&self, counts: &[u64], most: u64) -> Vec<Range<usize>> {
        // units that are sorted one by one take three times the memory
        let most = if self.shift == 0 { most } else { most / 3 };
        let (mut ranges, mut start, mut units) = (Vec::new(), 0, 0);
        for (at, &count) in counts.iter().enumerate() {
            if units > 0 && units + count > most {
                ranges.push(start..at);
                (start, units) = (at, 0);
            }
            units += count;
        }
        if units > 0 {
            ranges.push(start..counts.len());
        }
        ranges
    }

    /// Hands on the units of each feature of a range that has some, in order: rows ascend.
    pub fn features(
        &self,
        counts: &[u64],
        range: Range<usize>,
        buffers: &mut Buffers,
        mut each: impl FnMut(u32, &[u64]),
    ) -> Result<()> {
        let total = counts[range.clone()].iter().sum::<u64>() as usize;
        let changed = || Error::damaged("codes changed while they were read");
        let first = (range.start as u64) << self.shift;
        let end = ((range.end as u64) << self.shift).min(self.site.width());
        if self.shift > 0 {
            let loose = &mut buffers.loose;
            loose.clear();
            self.pass(first as u32, end as u32, |id, unit| {
                loose.push((u64::from(id) << 32 | unit >> 32, unit as u32));
                Some(())
            })?;
            // no two units have the same feature and row
            loose.sort_unstable();
            for of_feature in loose.chunk_by(|a, b| a.0 >> 32 == b.0 >> 32) {
                buffers.units.clear();
                buffers.units.extend(of_feature.iter().map(|&(key, value)| unit(key as u32, value)));
                each((of_feature[0].0 >> 32) as u32, &buffers.units);
            }
            return Ok(());
        }
        let Buffers { units, next, .. } = buffers;
        if units.len() < total {
            units.resize(total, 0);
        }
        let mut at = 0;
        next.clear();
        next.extend(counts[range.clone()].iter().map(|&count| {
            at += count as usize;
            at - count as usize
        }));
        let first = first as u32;
        self.pass(first, end as u32, |id, unit| {
            let place = next.get_mut((id - first) as usize)?;
            *units.get_mut(*place)? = unit;
            *place += 1;
            Some(())
        })?;
        let mut start = 0;
        for (at, &stop) in next.iter().enumerate() {
            let count = counts[range.start + at] as usize;
            if stop != start + count {
                return Err(changed());
            }
            if count > 0 {
                each(first + at as u32, &units[start..stop]);
            }
            start = stop;
        }
        Ok(())
    }

    /// Hands on the units of the features from `first` to before `end`, in order of rows.
    fn pass(&self, first: u32, end: u32, mut each: impl FnMut(u32, u64) -> Option<()>) -> Result<()> {
        let changed = || Error::damaged("codes changed while they were read");
        for source in &self.groups {
            let codes = self.snapshot.codes_of(source.group, self.site)?;
            let size = self.site.dtype.size() as usize;
            if let Some((ids, values)) = codes.mapped() {
                let take = Take { indptr: codes.indptr(), source, offset: 0, first, end };
                match (self.site.id_dtype().size(), size) {
                    (2, 2) => take.units(ids.as_chunks::<2>().0, values.as_chunks::<2>().0, &mut each),
                    (2, _) => take.units(ids.as_chunks::<2>().0, values.as_chunks::<4>().0, &mut each),
                    (_, 2) => take.units(ids.as_chunks::<4>().0, values.as_chunks::<2>().0, &mut each),
                    _ => take.units(ids.as_chunks::<4>().0, values.as_chunks::<4>().0, &mut each),
                }
                .ok_or_else(changed)?;
                continue;
            }
            each_share(&codes, |from, to| {
                let some = codes.read(from, to)?;
                let take = Take { indptr: &some.indptr, source, offset: from, first, end };
                match size {
                    2 => take.units(&some.ids, some.values.as_chunks::<2>().0, &mut each),
                    _ => take.units(&some.ids, some.values.as_chunks::<4>().0, &mut each),
                }
                .ok_or_else(changed)
            })?;
        }
        Ok(())
    }
}

/// Stretches of rows that have no more than so many units, or one row.
fn each_share(codes: &GroupCodes, mut each: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
    let indptr = codes.indptr();
    let mut from = 0;
    while from < codes.rows() {
        let most = u64::from(indptr[from]) + SHARE as u64;
        let to = indptr.partition_point(|&end| u64::from(end) <= most).saturating_sub(1).clamp(from + 1, codes.rows());
        each(from, to)?;
        from = to;
    }
    Ok(())
}

/// A number as it lies in a file, or in memory.
trait Stored: Copy {
    fn number(self) -> u32;
}

impl Stored for u32 {
    #[inline]
    fn number(self) -> u32 {
        self
    }
}

impl Stored for [u8; 2] {
    #[inline]
    fn number(self) -> u32 {
        u16::from_le_bytes(self).into()
    }
}

impl Stored for [u8; 4] {
    #[inline]
    fn number(self) -> u32 {
        u32::from_le_bytes(self)
    }
}

/// Which units to take of some rows.
struct Take<'a> {
    indptr: &'a [u32],
    source: &'a Source<'a>,
    /// The first of the rows.
    offset: usize,
    first: u32,
    end: u32,
}

impl Take<'_> {
    #[inline]
    fn units(
        &self,
        ids: &[impl Stored],
        values: &[impl Stored],
        each: &mut impl FnMut(u32, u64) -> Option<()>,
    ) -> Option<()> {
        for (row, ends) in self.indptr.windows(2).enumerate() {
            let row = self.offset + row;
            if self.source.unseen.hides(row) {
                continue;
            }
            let of_row = ids.get(ends[0] as usize..ends[1] as usize)?;
            let before = match of_row.len() {
                _ if self.first == 0 => 0,
                // counted without a branch, many at a time
                0..=256 => of_row.iter().map(|id| usize::from(id.number() < self.first)).sum(),
                _ => of_row.partition_point(|id| id.number() < self.first),
            };
            let values = values.get(ends[0] as usize + before..ends[1] as usize)?;
            let row = self.source.start + row as u32;
            for (id, value) in of_row[before..].iter().zip(values) {
                let id = id.number();
                if id >= self.end {
                    break;
                }
                each(id, unit(row, value.number()))?;
            }
        }
        Some(())
    }
}
