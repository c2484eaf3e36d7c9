//! Codes by feature: a counting sort of the units of some features at a time, so that memory does not grow with the rows.
//!
//! Ids ascend in a row, so consecutive features are consecutive in each. A first pass counts the units of every feature and
//! checks the codes; then each range of features takes a pass that looks at nothing else. Rows are cut into shares that have
//! counters and lists of their own, so that several threads count and sort at once; what the shares have of a feature is put
//! together when it is handed on.

use crate::crew;
use crate::reader::{Mask, Snapshot, StoredGroup};
use crate::storage::{prefetch, will_fill};
use lamina_format::posting::unit;
use lamina_format::record::Site;
use lamina_format::sparse::{Stored, flaw_of_row};
use lamina_format::{Error, Result};
use std::ops::Range;

/// Counters of a share; where there are more features they share them, and are sorted in another way.
const COUNTERS: u64 = 1 << 20;
/// Units that are sorted at once, 8 bytes each.
const AT_ONCE: u64 = 12 << 20;
/// Ranges that codes are cut into at least: the sooner the first is done, the sooner a disk has work.
const RANGES: u64 = 4;
/// Units of a part, at most, and if there are several parts at least.
const PART: Range<u64> = 1 << 16..1 << 19;
/// Shares of rows a thread, so that none waits long for another.
const SHARES: usize = 2;
/// Rows of a share, at least.
const LEAST: u32 = 1 << 12;
/// Rows of which places are known before their values are looked at.
const AHEAD: usize = 32;

/// The codes of a site in some groups, counted.
pub struct Transposer<'a> {
    input: Input<'a>,
    shares: Vec<Share>,
    /// Units of each counter's features.
    counts: Vec<u64>,
}

struct Input<'a> {
    snapshot: &'a Snapshot,
    site: &'a Site,
    groups: Vec<Source<'a>>,
    /// Features that share a counter, as a power of two.
    shift: u32,
}

/// A group, the row of the index that its first is, and which of its rows are left out. Groups follow each other.
pub struct Source<'a> {
    pub group: &'a StoredGroup,
    pub start: u32,
    pub unseen: Mask,
}

/// Some rows that follow each other, their units a counter, and those of a range of features in order.
struct Share {
    rows: Range<u32>,
    counts: Vec<u32>,
    /// The units of one counter behind those of another, in order of rows.
    units: Vec<u64>,
    /// Where each counter's end.
    ends: Vec<u32>,
    /// Where features share counters: feature and row, and the value.
    loose: Vec<(u64, u32)>,
}

/// Some consecutive features.
pub struct Part<'a> {
    counters: Range<usize>,
    /// The first counter of which shares hold units.
    first: usize,
    input: &'a Input<'a>,
    shares: &'a [Share],
}

impl<'a> Transposer<'a> {
    /// Counts the units of every feature, and checks all codes.
    pub fn new(snapshot: &'a Snapshot, site: &'a Site, groups: Vec<Source<'a>>, threads: usize) -> Result<Self> {
        let shift = (0..).find(|shift| site.width() >> shift <= COUNTERS).unwrap_or(0);
        let counters = site.width().div_ceil(1 << shift) as usize;
        let rows = groups.first().map_or(0, |first| first.start)..groups.last().map_or(0, Source::end);
        let each = ((rows.len() / (SHARES * threads.max(1))) as u32 + 1).max(LEAST);
        let share = |start: u32| {
            let rows = start..rows.end.min(start.saturating_add(each));
            Share { rows, counts: vec![0; counters], units: Vec::new(), ends: Vec::new(), loose: Vec::new() }
        };
        let mut shares: Vec<Share> = rows.clone().step_by(each as usize).map(share).collect();
        let input = Input { snapshot, site, groups, shift };
        crew::each(threads.max(1) - 1, shares.iter_mut(), |share| {
            input.visit(&share.rows, &mut Count { counts: &mut share.counts, shift, width: site.width() })
        })?;
        let mut counts = vec![0; counters];
        for share in &shares {
            counts.iter_mut().zip(&share.counts).for_each(|(count, &of_share)| *count += u64::from(of_share));
        }
        Ok(Self { input, shares, counts })
    }

    /// Hands on all parts that have units, several at once but each begun behind the one before, with its number. Which there
    /// are follows from the codes alone.
    pub fn each_part(mut self, threads: usize, work: impl Fn(usize, &Part) -> Result<()> + Sync) -> Result<()> {
        let total: u64 = self.counts.iter().sum();
        let units = |counters: &Range<usize>| self.counts[counters.clone()].iter().sum();
        let parts = cut(self.counts.iter().copied(), (total / 32).clamp(PART.start, PART.end));
        // units that are sorted one by one take twice the memory
        let most = if self.input.shift == 0 { AT_ONCE } else { AT_ONCE / 2 };
        let ranges = cut(parts.iter().map(units), (total / RANGES).clamp(PART.start, most));
        let counters = |range: &Range<usize>| parts[range.start].start..parts[range.end - 1].end;
        if self.input.shift == 0 {
            for share in &mut self.shares {
                let units = |range| share.counts[counters(range)].iter().map(|&count| count as usize).sum();
                share.units = vec![0; ranges.iter().map(units).max().unwrap_or(0)];
                will_fill(std::iter::once(&share.units[..]));
            }
        }
        let (helpers, input) = (threads.max(1) - 1, &self.input);
        for range in ranges {
            let counters = counters(&range);
            crew::each(helpers, self.shares.iter_mut(), |share| input.sort(share, &counters))?;
            let (shares, first) = (&self.shares[..], counters.start);
            crew::each(helpers, range, |number| {
                work(number, &Part { counters: parts[number].clone(), first, input, shares })
            })?;
        }
        Ok(())
    }
}

/// Cuts things into runs that have at most so many units, or are one thing.
pub fn cut(units: impl Iterator<Item = u64>, most: u64) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut end, mut sum) = (Vec::new(), 0, 0, 0);
    for (at, units) in units.enumerate() {
        if sum > 0 && sum + units > most {
            runs.push(start..at);
            (start, sum) = (at, 0);
        }
        (sum, end) = (sum + units, at + 1);
    }
    if sum > 0 {
        runs.push(start..end);
    }
    runs
}

impl Source<'_> {
    fn end(&self) -> u32 {
        self.start + self.group.record.rows as u32
    }
}

fn changed() -> Error {
    Error::damaged("codes changed while they were read")
}

impl Input<'_> {
    /// Sorts the units that the features of some counters have in the rows of a share.
    fn sort(&self, share: &mut Share, counters: &Range<usize>) -> Result<()> {
        let Share { rows, counts, units, ends, loose } = share;
        let first = ((counters.start as u64) << self.shift) as u32;
        let end = ((counters.end as u64) << self.shift).min(self.site.width()) as u32;
        if self.shift > 0 {
            loose.clear();
            self.visit(rows, &mut Collect { features: first..end, loose })?;
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
        self.visit(rows, &mut Sort { features: first..end, places: &mut ends[..], units: &mut units[..] })?;
        // now each place is the end, unless units went where others belong
        sum = 0;
        let in_place = |(&end, &count): (&u32, &u32)| {
            sum += count;
            end == sum
        };
        if ends.iter().zip(counts).all(in_place) { Ok(()) } else { Err(changed()) }
    }

    /// Shows a visitor the rows that are not left out.
    fn visit(&self, rows: &Range<u32>, visitor: &mut impl Visit) -> Result<()> {
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
trait Visit {
    /// Which of the row's units are looked at.
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize>;

    /// Looks at these units of a row of the index; None if they cannot be.
    fn row<Id: Stored>(&mut self, row: u32, ids: &[Id], values: &[impl Stored]) -> Option<()>;
}

/// Checks and counts all.
struct Count<'a> {
    counts: &'a mut [u32],
    shift: u32,
    width: u64,
}

impl Visit for Count<'_> {
    #[inline]
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize> {
        0..ids.len()
    }

    #[inline]
    fn row<Id: Stored>(&mut self, _: u32, ids: &[Id], _: &[impl Stored]) -> Option<()> {
        if flaw_of_row(ids, self.width).is_some() {
            return None;
        }
        for id in ids {
            *self.counts.get_mut((id.number() >> self.shift) as usize)? += 1;
        }
        Some(())
    }
}

/// Which units of a row are of some features.
#[inline]
fn within<Id: Stored>(ids: &[Id], features: &Range<u32>) -> Range<usize> {
    let first = Id::below(ids, features.start);
    first..Id::below(ids, features.end).max(first)
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

/// Collects those of some features, to be put into order later.
struct Collect<'a> {
    features: Range<u32>,
    loose: &'a mut Vec<(u64, u32)>,
}

impl Visit for Collect<'_> {
    #[inline]
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize> {
        within(ids, &self.features)
    }

    #[inline]
    fn row<Id: Stored>(&mut self, row: u32, ids: &[Id], values: &[impl Stored]) -> Option<()> {
        let of_unit = |(id, value): (&Id, _)| (u64::from(id.number()) << 32 | u64::from(row), Stored::number(value));
        self.loose.extend(ids.iter().zip(values.iter().copied()).map(of_unit));
        Some(())
    }
}

impl Part<'_> {
    /// Hands on the units of each feature that has some, in order: rows ascend.
    pub fn features(&self, mut each: impl FnMut(u32, &[u64])) {
        let mut units = Vec::new();
        if self.input.shift > 0 {
            return self.loose_features(&mut units, each);
        }
        for counter in self.counters.clone() {
            let at = counter - self.first;
            units.clear();
            for share in self.shares {
                let start = at.checked_sub(1).map_or(0, |before| share.ends[before]);
                units.extend_from_slice(&share.units[start as usize..share.ends[at] as usize]);
            }
            if !units.is_empty() {
                each(counter as u32, &units);
            }
        }
    }

    fn loose_features(&self, units: &mut Vec<u64>, mut each: impl FnMut(u32, &[u64])) {
        let key = |counter: usize| (counter as u64) << self.input.shift << 32;
        let (start, end) = (key(self.counters.start), key(self.counters.end));
        let mut loose = Vec::new();
        for Share { loose: of_share, .. } in self.shares {
            let before = |bound: u64| of_share.partition_point(|&(key, _)| key < bound);
            loose.extend_from_slice(&of_share[before(start)..before(end)]);
        }
        // runs that ascend already are merged
        loose.sort();
        for of_feature in loose.chunk_by(|a, b| a.0 >> 32 == b.0 >> 32) {
            units.clear();
            units.extend(of_feature.iter().map(|&(key, value)| unit(key as u32, value)));
            each((of_feature[0].0 >> 32) as u32, units);
        }
    }
}
