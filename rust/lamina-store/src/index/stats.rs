//! What each feature does over all rows: from indexes where they answer, from the codes elsewhere, with the same bins.

use super::Segment;
use super::rows::Steps;
use super::transpose::{Limits, Transposer};
use super::visit::Source;
use crate::reader::{Mask, Snapshot};
use lamina_format::feature_index::Sums;
use lamina_format::histogram::{self, Counter};
use lamina_format::posting::{of_rank, ranks, value};
use lamina_format::record::Site;
use lamina_format::{DType, Error, Result};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The parts of the values up to which quantiles are told.
pub const QUANTILES: [f64; 4] = [0.1, 0.5, 0.9, 0.99];
/// A row a feature, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureStats {
    /// In how many rows it is active.
    pub counts: Vec<i64>,
    /// Mean of its values there; null if there are none. NaN where a value is.
    pub means: Vec<Option<f64>>,
    /// The greatest of them, likewise.
    pub greatest: Vec<Option<f64>>,
    /// Their [`QUANTILES`]: middles of bins, infinities and NaN left out.
    pub quantiles: [Vec<Option<f64>>; 4],
    /// Least step at which it is active; null if its rows have none.
    pub first_steps: Vec<Option<i64>>,
    /// Greatest.
    pub last_steps: Vec<Option<i64>>,
}

/// What is told of the values of a feature, while units of it come whose rows ascend.
pub struct Summing {
    count: u64,
    /// Eight sums side by side, so that none waits for another.
    sums: [f64; 8],
    /// Least and greatest.
    ranks: (u32, u32),
    steps: (i64, i64),
}

impl Default for Summing {
    fn default() -> Self {
        Self { count: 0, sums: [0.0; 8], ranks: (u32::MAX, 0), steps: (i64::MAX, i64::MIN) }
    }
}

impl Summing {
    /// Adds units, as many as whole eights unless they are the last; their bins go to `counter`. Returns how many there were.
    pub fn add(&mut self, dtype: DType, units: &[u64], steps: &Steps, counter: &mut Counter) -> u64 {
        counter.add(dtype, units);
        let (ranks, steps) = (ranks(dtype, units), steps.bounds(units));
        self.ranks = (self.ranks.0.min(ranks.0), self.ranks.1.max(ranks.1));
        self.steps = (self.steps.0.min(steps.0), self.steps.1.max(steps.1));
        match dtype {
            DType::F16 => self.sum(units, |bits| value(DType::F16, bits)),
            DType::Bf16 => self.sum(units, |bits| value(DType::Bf16, bits)),
            _ => self.sum(units, |bits| value(dtype, bits)),
        }
        self.count += units.len() as u64;
        self.count
    }

    fn sum(&mut self, units: &[u64], value: impl Fn(u32) -> f32) {
        let (eights, rest) = units.as_chunks::<8>();
        let mut sums = self.sums;
        for eight in eights {
            sums.iter_mut().zip(eight).for_each(|(sum, &unit)| *sum += f64::from(value(unit as u32)));
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &unit)| *sum += f64::from(value(unit as u32)));
        self.sums = sums;
    }

    /// What is told of them all; the next units are those of another feature.
    pub fn take(&mut self, dtype: DType) -> Sums {
        let Self { count, sums, ranks, steps } = std::mem::take(self);
        // the least rank is that of NaN, which one is enough for
        let greatest = of_rank(dtype, if ranks.0 == 0 { 0 } else { ranks.1 });
        Sums { units: count as u32, sum: sums.iter().sum(), greatest, steps }
    }
}

/// What is known of a feature.
#[derive(Clone, Copy)]
struct Summary {
    feature: u32,
    count: u64,
    sum: f64,
    /// NaN if a value is.
    greatest: f32,
    steps: (i64, i64),
    /// Where its bins end among all.
    bins: usize,
}

/// What is known of some features, in order.
#[derive(Default)]
struct Summaries {
    features: Vec<Summary>,
    bins: Vec<(u16, u64)>,
}

impl Summaries {
    fn bins_of(&self, at: usize) -> &[(u16, u64)] {
        let start = at.checked_sub(1).map_or(0, |before| self.features[before].bins);
        &self.bins[start..self.features[at].bins]
    }

    fn push(&mut self, feature: u32, dtype: DType, sums: Sums) {
        let (greatest, bins) = (value(dtype, sums.greatest), self.bins.len());
        self.features.push(Summary {
            feature,
            count: sums.units.into(),
            sum: sums.sum,
            greatest,
            steps: sums.steps,
            bins,
        });
    }

    fn append(&mut self, other: Self) {
        let before = self.bins.len();
        self.bins.extend(other.bins);
        self.features.extend(other.features.into_iter().map(|one| Summary { bins: one.bins + before, ..one }));
    }

    /// Both together.
    fn merged(self, other: Self) -> Self {
        if self.features.is_empty() {
            return other;
        }
        let mut all = Self::default();
        let (mut a, mut b) = (0, 0);
        loop {
            let (one, two) = (self.features.get(a), other.features.get(b));
            let feature = match (one, two) {
                (None, None) => return all,
                (one, two) => one.into_iter().chain(two).map(|summary| summary.feature).min().unwrap_or(0),
            };
            let (one, two) = (one.filter(|s| s.feature == feature), two.filter(|s| s.feature == feature));
            let bins = (one.map_or(&[][..], |_| self.bins_of(a)), two.map_or(&[][..], |_| other.bins_of(b)));
            (a, b) = (a + usize::from(one.is_some()), b + usize::from(two.is_some()));
            all.join(bins.0, bins.1);
            let both = match (one, two) {
                (Some(one), Some(two)) => one.and(two),
                (Some(one), None) | (None, Some(one)) => *one,
                (None, None) => return all,
            };
            all.features.push(Summary { bins: all.bins.len(), ..both });
        }
    }

    /// Adds the bins of both, which ascend.
    fn join(&mut self, mut a: &[(u16, u64)], mut b: &[(u16, u64)]) {
        while let (Some(one), Some(two)) = (a.first(), b.first()) {
            let (first, second) = (one.0 <= two.0, two.0 <= one.0);
            let count = if first { one.1 } else { 0 } + if second { two.1 } else { 0 };
            self.bins.push((one.0.min(two.0), count));
            (a, b) = (&a[usize::from(first)..], &b[usize::from(second)..]);
        }
        self.bins.extend_from_slice(a);
        self.bins.extend_from_slice(b);
    }
}

impl Summary {
    fn and(&self, other: &Self) -> Self {
        let nan = self.greatest.is_nan() || other.greatest.is_nan();
        let greatest = if nan { f32::NAN } else { self.greatest.max(other.greatest) };
        let steps = (self.steps.0.min(other.steps.0), self.steps.1.max(other.steps.1));
        Self { count: self.count + other.count, sum: self.sum + other.sum, greatest, steps, ..*self }
    }
}

impl Snapshot {
    /// What each feature of a site does.
    pub fn feature_stats(&self, site: &Site, threads: usize) -> Result<FeatureStats> {
        self.check_codes(site)?;
        check_room(site.width())?;
        let segments = self.indexes().of(self, site);
        let unseen = self.unseen(&segments, site)?;
        let (mut all, mut left) = (Summaries::default(), Vec::new());
        for segment in &segments.segments {
            let whole = |number: Option<usize>| number.is_some_and(|number| !unseen.contains_key(&number));
            let shown = segment.groups.iter().all(|held| whole(held.number()));
            match if shown { self.summaries(segment, site)? } else { None } {
                Some(found) => all = all.merged(found),
                None => left.push(segment),
            }
        }
        for batch in batches(self, &left, unseen) {
            all = all.merged(self.scanned(site, batch, threads)?);
        }
        Ok(table(&all, site.width() as usize))
    }

    /// What the index of a segment says, if it answers and knows all steps.
    fn summaries(&self, segment: &Segment, site: &Site) -> Result<Option<Summaries>> {
        let found = self.ask(segment, site, |index| {
            let mut found = Summaries::default();
            if !index.description().steps {
                return Ok(None);
            }
            for part in 0..index.description().parts.len() {
                index.entries(part, |entry, bins| {
                    histogram::read(bins, entry.units, |bin, count| found.bins.push((bin, count.into())))?;
                    let steps = (entry.first_step, entry.last_step);
                    let sums = Sums { units: entry.units, sum: entry.sum, greatest: entry.greatest, steps };
                    found.push(entry.feature, site.dtype, sums);
                    Ok(())
                })?;
            }
            Ok(Some(found))
        })?;
        Ok(found.flatten())
    }

    /// What the codes of some groups say.
    fn scanned(&self, site: &Site, groups: Vec<Source<'_>>, threads: usize) -> Result<Summaries> {
        let mut steps = Steps::default();
        for source in &groups {
            steps.extend(self, source.group)?;
        }
        let found = Mutex::new(Vec::new());
        Transposer::new(self, site, &groups, threads, Limits::default())?.each_part(|number, part| {
            let (mut some, mut counter) = (Summaries::default(), Counter::default());
            let mut summing = Summing::default();
            part.features(|feature, count, units| {
                if summing.add(site.dtype, units, &steps, &mut counter) == count {
                    counter.take(|bin, count| some.bins.push((bin, count.into())));
                    some.push(feature, site.dtype, summing.take(site.dtype));
                }
            })?;
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, some));
            Ok(())
        })?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        let mut all = Summaries::default();
        found.into_iter().for_each(|(_, some)| all.append(some));
        Ok(all)
    }
}

/// The groups of segments that show something, as many together as rows can be counted.
fn batches<'a>(
    snapshot: &'a Snapshot,
    segments: &[&'a Segment],
    unseen: &HashMap<usize, Mask>,
) -> Vec<Vec<Source<'a>>> {
    let mut batches: Vec<Vec<Source>> = Vec::new();
    let mut start = u32::MAX;
    for held in segments.iter().flat_map(|segment| &segment.groups) {
        let Some(number) = held.number() else { continue };
        let rows = held.rows as u32;
        match start.checked_add(rows).filter(|_| !batches.is_empty()) {
            Some(_) => {}
            None => {
                batches.push(Vec::new());
                start = 0;
            }
        }
        let unseen = unseen.get(&number).cloned().unwrap_or_default();
        if let Some(batch) = batches.last_mut() {
            batch.push(Source { group: held.group(snapshot), start, unseen });
        }
        start += rows;
    }
    batches
}

/// Whether there is memory for a row of [`FeatureStats`] a feature, before codes are read for it.
fn check_room(width: u64) -> Result<()> {
    let mut rows: Vec<[Option<f64>; 9]> = Vec::new();
    let long = |_| Error::schema(format!("statistics of {width} features do not fit in memory"));
    rows.try_reserve_exact(width as usize).map_err(long)?;
    // what nobody looks at might not be asked for
    std::hint::black_box(&rows);
    Ok(())
}

fn table(all: &Summaries, width: usize) -> FeatureStats {
    let mut stats = FeatureStats::default();
    let FeatureStats { counts, means, greatest, quantiles, first_steps, last_steps } = &mut stats;
    counts.reserve_exact(width);
    [means, greatest].into_iter().chain(quantiles).for_each(|column| column.reserve_exact(width));
    [first_steps, last_steps].into_iter().for_each(|column| column.reserve_exact(width));
    let mut features = (0..all.features.len()).peekable();
    for feature in 0..width as u32 {
        let at = features.next_if(|&at| all.features[at].feature == feature);
        let of = at.map(|at| &all.features[at]);
        let bins = at.map_or(&[][..], |at| all.bins_of(at));
        stats.counts.push(of.map_or(0, |of| of.count as i64));
        stats.means.push(of.map(|of| of.sum / of.count as f64));
        stats.greatest.push(of.map(|of| f64::from(of.greatest)));
        for (column, part) in stats.quantiles.iter_mut().zip(QUANTILES) {
            column.push(histogram::quantile(bins, part));
        }
        let steps = of.map(|of| of.steps).filter(|(first, last)| first <= last);
        stats.first_steps.push(steps.map(|steps| steps.0));
        stats.last_steps.push(steps.map(|steps| steps.1));
    }
    stats
}
