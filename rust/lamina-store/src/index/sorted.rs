//! Units in order of rows: a counting sort a share, in the processor's own memory, and columns that are written once.
#![allow(unsafe_code)]

use super::Held;
use super::find::{Dealt, Units};
use crate::crew;
use crate::reader::Snapshot;
use crate::storage::will_fill;
use lamina_format::record::{Role, Site};
use lamina_format::{Error, Result};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the units of a share go.
struct Out<'a> {
    rows: &'a mut [MaybeUninit<i64>],
    features: &'a mut [MaybeUninit<i64>],
    values: &'a mut [MaybeUninit<u8>],
}

impl Out<'_> {
    /// The first so many, whose values take `size` bytes each; the others stay.
    fn take(&mut self, units: usize, size: usize) -> Self {
        fn split<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
            let (taken, later) = std::mem::take(rest).split_at_mut(count);
            *rest = later;
            taken
        }
        Self {
            rows: split(&mut self.rows, units),
            features: split(&mut self.features, units),
            values: split(&mut self.values, units * size),
        }
    }
}

/// The units of all segments, by group.
pub fn sorted(snapshot: &Snapshot, found: &[Dealt], site: &Site, threads: usize) -> Result<Units> {
    let mut shares: Vec<(&Dealt, usize)> =
        found.iter().flat_map(|dealt| (0..dealt.shares.len()).map(move |share| (dealt, share))).collect();
    shares.sort_by_key(|(dealt, share)| (dealt.shares[*share].number, dealt.shares[*share].rows.start));
    let units =
        |&(dealt, share): &(&Dealt, usize)| dealt.deals.iter().map(|deal| deal.units(share).len()).sum::<usize>();
    let total = shares.iter().map(units).sum();
    let size = site.dtype.size() as usize;
    // zeros would be written by one thread before these are, by all
    let (mut rows, mut features, mut values) = (column(total)?, column(total)?, column(total * size)?);
    let mut rest = Out {
        rows: &mut rows.spare_capacity_mut()[..total],
        features: &mut features.spare_capacity_mut()[..total],
        values: &mut values.spare_capacity_mut()[..total * size],
    };
    will_fill([&*rest.rows, &*rest.features].into_iter());
    will_fill(std::iter::once(&*rest.values));
    let work = shares.iter().map(|share| (share, rest.take(units(share), size)));
    let (counts, sorters) = (Mutex::new(HashMap::new()), Mutex::new(Vec::new()));
    crew::each(threads.max(1) - 1, work, |(&(dealt, share), out)| {
        let mut sorter: Sorter = lock(&sorters).pop().unwrap_or_default();
        sorter.sort(dealt, share);
        let ends = match size {
            2 => sorter.write(snapshot, dealt, share, out, |unit| (unit as u16).to_le_bytes()),
            _ => sorter.write(snapshot, dealt, share, out, |unit| (unit as u32).to_le_bytes()),
        }?;
        let mut counts = lock(&counts);
        ends.into_iter().for_each(|(number, units)| *counts.entry(number).or_insert(0) += units);
        lock(&sorters).push(sorter);
        Ok(())
    })?;
    // SAFETY: every share was written whole, or there was an error or a panic; together they are all units.
    unsafe {
        rows.set_len(total);
        features.set_len(total);
        values.set_len(total * size);
    }
    let numbers = found.iter().flat_map(|dealt| &dealt.segment.groups).filter_map(Held::number);
    let counts = lock(&counts);
    let mut groups: Vec<(i64, usize)> =
        numbers.map(|number| (number as i64, counts.get(&number).copied().unwrap_or(0))).collect();
    groups.sort_unstable();
    Ok(Units { groups, rows, features, values })
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for so many; an error if there is not as much.
pub fn column<T>(length: usize) -> Result<Vec<T>> {
    let mut column = Vec::new();
    if column.try_reserve_exact(length).is_err() {
        let error = Error::schema(format!("{length} units do not fit in memory"));
        return Err(error.hint("ask for fewer features at a time"));
    }
    Ok(column)
}

fn fill<T>(out: &mut [MaybeUninit<T>], of: impl ExactSizeIterator<Item = T>) {
    assert_eq!(out.len(), of.len());
    out.iter_mut().zip(of).for_each(|(out, one)| _ = out.write(one));
}

/// The memory of a thread.
#[derive(Default)]
struct Sorter {
    /// Where the next unit of each row goes.
    next: Vec<u32>,
    units: Vec<u64>,
    features: Vec<u32>,
    /// The names of a group's rows: the next share may be of the same group.
    names: Option<(usize, Vec<i64>)>,
}

impl Sorter {
    /// Sorts the units of a share by row. Deals come in order of their features, so that these ascend in a row.
    fn sort(&mut self, dealt: &Dealt, share: usize) {
        let rows = &dealt.shares[share].rows;
        let row = |unit: u64| ((unit >> 32) as u32 - rows.start) as usize;
        self.next.clear();
        self.next.resize(rows.len() + 1, 0);
        for deal in &dealt.deals {
            deal.units(share).iter().for_each(|&unit| self.next[row(unit) + 1] += 1);
        }
        let mut sum = 0;
        self.next.iter_mut().for_each(|count| {
            sum += *count;
            *count = sum;
        });
        self.units.resize(sum as usize, 0);
        self.features.resize(sum as usize, 0);
        for (feature, units) in dealt.deals.iter().flat_map(|deal| deal.lists(share)) {
            for &unit in units {
                let place = &mut self.next[row(unit)];
                let at = *place as usize;
                *place += 1;
                self.units[at] = unit;
                self.features[at] = feature;
            }
        }
    }

    /// Writes what was sorted, all of it, and returns how many units each group has.
    fn write<const SIZE: usize>(
        &mut self,
        snapshot: &Snapshot,
        dealt: &Dealt,
        share: usize,
        mut out: Out,
        value: impl Fn(u64) -> [u8; SIZE],
    ) -> Result<Vec<(usize, usize)>> {
        let share = &dealt.shares[share];
        let of_share = (share.number..).zip(&dealt.segment.groups[share.groups.clone()]);
        let mut counts = Vec::with_capacity(share.groups.len());
        let mut from = 0;
        for (number, held) in of_share {
            let last = (held.start + held.rows).min(share.rows.end.into()) as usize - share.rows.start as usize;
            // each row's place is where the next one begins
            let to = self.next[last - 1] as usize;
            let (units, out) = (&self.units[from..to], out.take(to - from, SIZE));
            let row = |unit: u64| (unit >> 32) as i64 - held.start as i64;
            let group = held.group(snapshot);
            if group.find(Role::Names, 0).is_none() {
                let first = group.record.first;
                fill(out.rows, units.iter().map(|&unit| first + row(unit)));
            } else {
                if self.names.as_ref().is_none_or(|names| names.0 != number) {
                    self.names = Some((number, snapshot.names_of(group)?));
                }
                let names = self.names.as_ref().map_or(&[][..], |names| &names.1);
                fill(out.rows, units.iter().map(|&unit| names[row(unit) as usize]));
            }
            fill(out.features, self.features[from..to].iter().map(|&feature| feature.into()));
            let values = out.values.as_chunks_mut::<SIZE>().0;
            values.iter_mut().zip(units).for_each(|(out, &unit)| *out = value(unit).map(MaybeUninit::new));
            counts.push((number, to - from));
            from = to;
        }
        assert!(out.rows.is_empty() && from == self.units.len(), "a share has units of no group");
        Ok(counts)
    }
}
