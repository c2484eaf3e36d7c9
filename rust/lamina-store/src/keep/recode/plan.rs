//! Which chunks are coded anew, and which of them as the difference from which.
//!
//! A tensor's chunks at one place, save after save, change little from one to the next. They are taken in windows: the middle
//! of each is coded by itself, the others as differences from it, so that reading one never takes more than two.

use super::standing::Standing;
use crate::reader::checkpoint::Kept;
use lamina_format::DType;
use lamina_format::chunk::Key;
use lamina_format::record::TensorSpec;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Saves from the middle of a window to its ends.
const REACH: usize = 4;

/// A chunk that is to be read.
#[derive(Clone)]
pub struct Item<'a> {
    pub key: Key,
    pub spec: &'a TensorSpec,
    pub length: usize,
    /// The writer whose save names it.
    pub writer: u32,
}

/// A chunk, and those that become differences from it.
pub struct Family<'a> {
    pub base: Item<'a>,
    /// Whether the base itself is coded anew.
    pub whole: bool,
    pub members: Vec<Item<'a>>,
}

impl Family<'_> {
    /// Bytes that are coded.
    pub fn bytes(&self) -> u64 {
        let base = if self.whole { self.base.length } else { 0 };
        (base + self.members.iter().map(|item| item.length).sum::<usize>()) as u64
    }
}

/// The chunks at one place of a tensor, in order of their steps, each once.
type Series<'a> = Vec<Item<'a>>;

fn series<'a>(kept: &'a [Kept<'a>]) -> Vec<Series<'a>> {
    let mut order: Vec<&Kept> = kept.iter().collect();
    order.sort_by_key(|part| (part.step, part.time));
    let mut numbers: HashMap<(&str, &str, u64, DType, usize), usize> = HashMap::new();
    let mut all: Vec<Series> = Vec::new();
    for part in order {
        // the pieces of a tensor that several processes stored follow each other, under its name
        let (mut before, mut at): (Option<&str>, u64) = (None, 0);
        for (key, spec, length) in part.chunks() {
            at = if before == Some(&spec.name) { at + 1 } else { 0 };
            before = Some(&spec.name);
            let place = (part.part.name.as_str(), spec.name.as_str(), at, spec.dtype, length);
            let number = *numbers.entry(place).or_insert_with(|| {
                all.push(Vec::new());
                all.len() - 1
            });
            if all[number].last().is_none_or(|last| last.key != *key) {
                all[number].push(Item { key: *key, spec, length, writer: part.writer });
            }
        }
    }
    all
}

/// What became of a chunk in earlier compactions.
pub struct Done<'s, 'a> {
    pub standing: &'s Standing<'a>,
    /// Chunks of checkpoints that are not hidden.
    pub live: &'s HashSet<Key>,
    /// Packs that hold little else that counts.
    pub stale: &'s HashSet<&'a str>,
    /// Packs of writers that may be at work.
    pub working: &'s HashSet<&'a str>,
    /// Chunks that are left as they are: damaged.
    pub left: &'s HashSet<Key>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It stands well, by itself.
    Whole,
    /// It stands well, as a difference from another.
    Difference,
    /// It is to be coded.
    Due,
    /// It is to be coded, by itself: others that stand well are differences from it.
    DueWhole,
    /// Nothing is done to it.
    Left,
}

impl Done<'_, '_> {
    fn stands(&self, key: &Key) -> bool {
        let good = |pack| !self.stale.contains(pack);
        let Some(place) = self.standing.place(key).filter(|place| place.compacted && good(place.pack)) else {
            return false;
        };
        // a base that no checkpoint holds any more is kept for others alone: they get another
        place.chunk.base().is_none_or(|base| self.live.contains(base))
    }

    fn state(&self, key: &Key, bases: &HashSet<Key>) -> State {
        let Some(place) = self.standing.place(key).filter(|_| !self.left.contains(key)) else { return State::Left };
        match self.stands(key) {
            true if place.chunk.base.is_none() => State::Whole,
            true if !bases.contains(key) => State::Difference,
            _ if self.working.contains(place.pack) => State::Left,
            _ if bases.contains(key) => State::DueWhole,
            _ => State::Due,
        }
    }
}

/// The families of all chunks that are due; each chunk is coded once.
pub fn plan<'a>(kept: &'a [Kept<'a>], done: &Done) -> Vec<Family<'a>> {
    let base_of = |key: &Key| done.standing.place(key)?.chunk.base().copied();
    let bases: HashSet<Key> = done.live.iter().filter(|key| done.stands(key)).filter_map(base_of).collect();
    let (mut taken, mut families): (HashSet<Key>, Vec<Family>) = Default::default();
    for series in series(kept) {
        let states: Vec<State> = series.iter().map(|item| done.state(&item.key, &bases)).collect();
        let due = |at: usize, taken: &HashSet<Key>| states[at] == State::Due && !taken.contains(&series[at].key);
        let mut middles: BTreeSet<usize> = BTreeSet::new();
        let mut families_at: HashMap<usize, usize> = HashMap::new();
        let mut family = |at: usize, whole: bool, families: &mut Vec<Family<'a>>| {
            *families_at.entry(at).or_insert_with(|| {
                families.push(Family { base: series[at].clone(), whole, members: Vec::new() });
                families.len() - 1
            })
        };
        for at in 0..series.len() {
            match states[at] {
                State::Whole => drop(middles.insert(at)),
                State::DueWhole => {
                    middles.insert(at);
                    if taken.insert(series[at].key) {
                        family(at, true, &mut families);
                    }
                }
                _ => {}
            }
        }
        let last = (0..series.len()).rev().find(|&at| states[at] == State::Due).unwrap_or(0);
        for at in 0..series.len() {
            if !due(at, &taken) {
                continue;
            }
            let near = middles.range(at.saturating_sub(REACH)..=at + REACH);
            let middle = match near.min_by_key(|middle| middle.abs_diff(at)) {
                Some(&middle) => middle,
                None => {
                    // two windows that are as long as each other are better than a long and a short one
                    let half = if last - at <= 2 * REACH { (last - at) / 2 } else { REACH };
                    let Some(middle) = (at..=at + half).rev().find(|&middle| due(middle, &taken)) else { continue };
                    middles.insert(middle);
                    taken.insert(series[middle].key);
                    family(middle, true, &mut families);
                    middle
                }
            };
            if taken.insert(series[at].key) {
                let whole = states[middle] != State::Whole;
                let number = family(middle, whole, &mut families);
                families[number].members.push(series[at].clone());
            }
        }
    }
    families.retain(|family| family.bytes() > 0);
    families
}
