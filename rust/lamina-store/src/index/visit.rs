//! Passes over the codes of some rows: which units of each are looked at, and what is done with them.

use crate::reader::{Mask, Snapshot, StoredGroup};
use crate::storage::prefetch;
use lamina_format::record::Site;
use lamina_format::sparse::Stored;
use lamina_format::{Error, Result};
use std::ops::Range;

/// Rows of which places are known before their values are looked at.
const AHEAD: usize = 32;

/// A group, the row of the index that its first is, and which of its rows are left out. Groups follow each other.
pub struct Source<'a> {
    pub group: &'a StoredGroup,
    pub start: u32,
    pub unseen: Mask,
}

impl Source<'_> {
    pub fn end(&self) -> u32 {
        self.start + self.group.record.rows as u32
    }
}

/// The codes of a site in some groups, as far as they are of some consecutive features, which are counted.
#[derive(Clone)]
pub struct Input<'a> {
    pub snapshot: &'a Snapshot,
    pub site: &'a Site,
    pub groups: &'a [Source<'a>],
    pub features: Range<u32>,
    /// Features that share a counter, as a power of two.
    pub shift: u32,
}

impl<'a> Input<'a> {
    /// The rows of the index.
    pub fn rows(&self) -> Range<u32> {
        self.groups.first().map_or(0, |first| first.start)..self.groups.last().map_or(0, Source::end)
    }

    /// How many counters there are.
    pub fn counters(&self) -> usize {
        self.features.len().div_ceil(1 << self.shift)
    }

    /// The features of some counters.
    pub fn of(&self, counters: &Range<usize>) -> Range<u32> {
        let feature = |counter: usize| u64::from(self.features.start) + ((counter as u64) << self.shift);
        feature(counters.start) as u32..feature(counters.end).min(self.features.end.into()) as u32
    }

    /// Shows a visitor the rows that are not left out.
    pub fn visit(&self, rows: &Range<u32>, visitor: &mut impl Visit) -> Result<()> {
        let first = self.groups.partition_point(|source| source.end() <= rows.start);
        for source in self.groups[first..].iter().take_while(|source| source.start < rows.end) {
            let codes = self.snapshot.codes_of(source.group, self.site)?;
            let from = rows.start.saturating_sub(source.start) as usize;
            let to = codes.rows().min((rows.end - source.start) as usize);
            let pointers = codes.pointers(from..to)?;
            let Some((ids, values)) = codes.stored(&pointers)? else {
                codes.each_stretch(from..to, |from, some| {
                    let rows = Rows { source, from, indptr: &some.indptr };
                    match self.site.dtype.size() {
                        2 => rows.visit(&some.ids, some.values.as_chunks::<2>().0, visitor),
                        _ => rows.visit(&some.ids, some.values.as_chunks::<4>().0, visitor),
                    }
                    .ok_or_else(changed)
                    .map(|()| true)
                })?;
                continue;
            };
            let rows = Rows { source, from, indptr: &pointers };
            let visited = match (self.site.id_dtype().size(), self.site.dtype.size()) {
                (2, 2) => rows.visit(ids.as_chunks::<2>().0, values.as_chunks::<2>().0, visitor),
                (2, _) => rows.visit(ids.as_chunks::<2>().0, values.as_chunks::<4>().0, visitor),
                (_, 2) => rows.visit(ids.as_chunks::<4>().0, values.as_chunks::<2>().0, visitor),
                _ => rows.visit(ids.as_chunks::<4>().0, values.as_chunks::<4>().0, visitor),
            };
            if visited.is_none() {
                // who reads them with care can tell what is wrong
                codes.read(from, to)?;
                return Err(changed());
            }
        }
        Ok(())
    }
}

/// What is told of codes that are not what they were when they were looked at before.
pub fn changed() -> Error {
    Error::damaged("codes changed while they were read")
}

/// Rows of a group that follow each other.
struct Rows<'a> {
    source: &'a Source<'a>,
    /// The position of the first.
    from: usize,
    /// Their row pointers, of which the first is that of the first unit at hand.
    indptr: &'a [u32],
}

impl Rows<'_> {
    /// Shows a visitor their units; None if it, or a row pointer, finds something wrong.
    fn visit<const SIZE: usize>(
        &self,
        ids: &[impl Stored],
        values: &[[u8; SIZE]],
        visitor: &mut impl Visit,
    ) -> Option<()>
    where
        [u8; SIZE]: Stored,
    {
        let base = *self.indptr.first()?;
        let mut chosen = [const { 0..0 }; AHEAD];
        let mut from = self.from;
        for some in self.indptr[1..].chunks(AHEAD) {
            // the values of a row lie far from those of the next: they are asked for ahead
            for (at, (chosen, end)) in chosen.iter_mut().zip(some).enumerate() {
                let position = from + at;
                *chosen = 0..0;
                if !self.source.unseen.hides(position) {
                    let start = self.indptr[position - self.from].checked_sub(base)? as usize;
                    let of_row = visitor.choose(ids.get(start..end.checked_sub(base)? as usize)?);
                    *chosen = start + of_row.start..start + of_row.end;
                    prefetch(values.get(chosen.clone())?.as_flattened());
                }
            }
            for (at, chosen) in chosen.iter().enumerate().take(some.len()) {
                let row = self.source.start + (from + at) as u32;
                visitor.row(row, ids.get(chosen.clone())?, values.get(chosen.clone())?)?;
            }
            from += some.len();
        }
        Some(())
    }
}

/// What is done with the units of a row.
pub trait Visit {
    /// Which of the row's units are looked at.
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize>;

    /// Looks at these units of a row of the index; None if they cannot be.
    fn row<Id: Stored>(&mut self, row: u32, ids: &[Id], values: &[impl Stored]) -> Option<()>;
}

/// Which units of a row are of some features.
#[inline]
pub fn within<Id: Stored>(ids: &[Id], features: &Range<u32>) -> Range<usize> {
    let first = Id::below(ids, features.start);
    first..Id::below(ids, features.end).max(first)
}
