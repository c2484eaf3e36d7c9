//! Codes by feature: a counting sort of the units of some features at a time, so that memory does not grow with the rows.
//!
//! Ids ascend in a row, so consecutive features are consecutive in each. A first pass counts the units of every feature and
//! checks the codes; then each range of features takes a pass that looks at nothing else. Rows are cut into shares that have
//! counters and lists of their own, so that several threads count and sort at once; what the shares have of a feature is put
//! together when it is handed on. A feature that alone has more units than are sorted at once is read when it is handed on,
//! some rows at a time; and where several that share a counter have, they are counted again, each for itself.

use super::part::{Part, Share, Units};
use super::visit::{Input, Source, Visit, within};
use crate::crew;
use crate::reader::Snapshot;
use crate::storage::will_fill;
use lamina_format::Result;
use lamina_format::record::Site;
use lamina_format::sparse::{Stored, flaw_of_row};
use std::ops::Range;

/// How much is taken at once.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Counters of a share; where there are more features they share them, and are sorted in another way.
    pub counters: u64,
    /// Units that are sorted at once, 8 bytes each.
    pub units: u64,
    /// Rows of which the units of one feature are handed on together.
    pub rows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { counters: 1 << 20, units: 12 << 20, rows: 1 << 20 }
    }
}

/// Ranges that codes are cut into at least: the sooner the first is done, the sooner a disk has work.
const RANGES: u64 = 4;
/// Units of a part, at most, and if there are several parts at least.
const PART: Range<u64> = 1 << 16..1 << 19;
/// Shares of rows a thread, so that none waits long for another.
const SHARES: usize = 2;
/// Rows of a share, at least.
const LEAST: u32 = 1 << 12;

/// The codes of a site in some groups, counted.
pub struct Transposer<'a> {
    input: Input<'a>,
    limits: Limits,
    threads: usize,
    shares: Vec<Share>,
    /// Units of each counter's features.
    counts: Vec<u64>,
}

impl<'a> Transposer<'a> {
    /// Counts the units of every feature, and checks all codes.
    pub fn new(
        snapshot: &'a Snapshot,
        site: &'a Site,
        groups: &'a [Source<'a>],
        threads: usize,
        limits: Limits,
    ) -> Result<Self> {
        let shift = (0..).find(|shift| site.width() >> shift <= limits.counters).unwrap_or(0);
        Self::of(Input { snapshot, site, groups, features: 0..site.width() as u32, shift }, threads.max(1), limits)
    }

    fn of(input: Input<'a>, threads: usize, limits: Limits) -> Result<Self> {
        let (rows, counters) = (input.rows(), input.counters());
        let each = ((rows.len() / (SHARES * threads)) as u32 + 1).max(LEAST);
        let share = |start: u32| Share::new(start..rows.end.min(start.saturating_add(each)), counters);
        let mut shares: Vec<Share> = rows.clone().step_by(each as usize).map(share).collect();
        crew::each(threads - 1, shares.iter_mut(), |share| {
            input.visit(&share.rows, &mut Count { counts: &mut share.counts, input: &input })
        })?;
        let mut counts = vec![0; counters];
        for share in &shares {
            counts.iter_mut().zip(&share.counts).for_each(|(count, &of_share)| *count += u64::from(of_share));
        }
        Ok(Self { input, limits, threads, shares, counts })
    }

    /// Hands on all parts that have units, several at once but each begun behind the one before, with its number. Which there
    /// are follows from the codes alone.
    pub fn each_part(self, work: impl Fn(usize, &Part) -> Result<()> + Sync) -> Result<()> {
        self.parts_from(0, &work).map(drop)
    }

    /// The same with numbers from one on; returns that of the next part.
    fn parts_from(mut self, mut number: usize, work: &(impl Fn(usize, &Part) -> Result<()> + Sync)) -> Result<usize> {
        let total: u64 = self.counts.iter().sum();
        let units = |counters: &Range<usize>| self.counts[counters.clone()].iter().sum::<u64>();
        // units that are sorted one by one take twice the memory
        let most = if self.input.shift == 0 { self.limits.units } else { self.limits.units / 2 };
        let parts = cut(self.counts.iter().copied(), (total / 32).clamp(PART.start, PART.end).min(most));
        let ranges = cut(parts.iter().map(units), (total / RANGES).max(PART.start).min(most));
        let counters = |range: &Range<usize>| parts[range.start].start..parts[range.end - 1].end;
        let are_few = |range: &Range<usize>| units(&counters(range)) <= most;
        if self.input.shift == 0 {
            for share in &mut self.shares {
                let units =
                    |range: &Range<usize>| share.counts[counters(range)].iter().map(|&count| count as usize).sum();
                share.units = vec![0; ranges.iter().filter(|range| are_few(range)).map(units).max().unwrap_or(0)];
                will_fill(std::iter::once(&share.units[..]));
            }
        }
        for range in ranges {
            let counters = counters(&range);
            if are_few(&range) {
                crew::each(self.threads - 1, self.shares.iter_mut(), |share| share.sort(&self.input, &counters))?;
                let (shares, first) = (&self.shares[..], number - range.start);
                number += range.len();
                crew::each(self.threads - 1, range, |part| {
                    let units = Units::Sorted(shares, counters.start);
                    work(first + part, &Part { input: &self.input, counters: parts[part].clone(), units })
                })?;
            } else if self.input.shift == 0 {
                let units = Units::Unsorted { count: units(&counters), rows: self.limits.rows, threads: self.threads };
                work(number, &Part { input: &self.input, counters, units })?;
                number += 1;
            } else {
                self.shares.iter_mut().for_each(|share| share.loose = Vec::new());
                let input = Input { features: self.input.of(&counters), shift: 0, ..self.input.clone() };
                number = Transposer::of(input, self.threads, self.limits)?.parts_from(number, work)?;
            }
        }
        Ok(number)
    }
}

/// Cuts things into runs that have at most so many units, or are one thing.
pub fn cut(units: impl Iterator<Item = u64>, most: u64) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut end, mut sum) = (Vec::new(), 0, 0, 0);
    for (at, units) in units.enumerate() {
        if sum > 0 && sum + units > most {
            runs.push(start..at);
            sum = 0;
        }
        if sum == 0 {
            start = at;
        }
        (sum, end) = (sum + units, at + 1);
    }
    if sum > 0 {
        runs.push(start..end);
    }
    runs
}

/// Checks and counts all.
struct Count<'a> {
    counts: &'a mut [u32],
    input: &'a Input<'a>,
}

impl Visit for Count<'_> {
    #[inline]
    fn choose<Id: Stored>(&self, ids: &[Id]) -> Range<usize> {
        0..ids.len()
    }

    #[inline]
    fn row<Id: Stored>(&mut self, _: u32, ids: &[Id], _: &[impl Stored]) -> Option<()> {
        let Input { site, features, shift, .. } = self.input;
        if flaw_of_row(ids, site.width()).is_some() {
            return None;
        }
        let are_all = features.len() as u64 == site.width();
        for id in &ids[if are_all { 0..ids.len() } else { within(ids, features) }] {
            *self.counts.get_mut(((id.number() - features.start) >> shift) as usize)? += 1;
        }
        Some(())
    }
}
