//! Which place of each chunk counts, and which packs are needed for that.

use crate::keep::inventory::Inventory;
use lamina_format::chunk::Key;
use lamina_format::names;
use lamina_format::record::Chunk;
use std::collections::{HashMap, HashSet};

/// A chunk in a pack.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub pack: &'a str,
    pub chunk: &'a Chunk,
    /// Whether compaction put it there.
    pub compacted: bool,
}

/// The places in packs that are there and that nobody condemned. What compaction wrote counts before all else, and of that what it
/// wrote last.
pub struct Standing<'a> {
    places: HashMap<&'a Key, Place<'a>>,
    /// Those where a chunk is no difference from another.
    wholes: HashMap<&'a Key, Place<'a>>,
}

impl<'a> Standing<'a> {
    /// `compactors` are the writers that compact.
    pub fn of(inventory: &'a Inventory, there: &HashSet<String>, compactors: &HashSet<u32>) -> Self {
        let packs = inventory.packs.iter().filter(|(pack, _)| there.contains(*pack) && !inventory.doomed.holds(pack));
        let mut all: Vec<Place> = packs
            .flat_map(|(pack, chunks)| {
                let compacted = names::owner(pack).is_some_and(|owner| compactors.contains(&owner));
                chunks.iter().map(move |chunk| Place { pack, chunk, compacted })
            })
            .filter(|place| place.chunk.check().is_ok())
            .collect();
        // packs come in order of their writers: the last is the latest
        all.sort_by_key(|place| place.compacted);
        let whole = all.iter().filter(|place| place.chunk.base.is_none()).map(|place| (&place.chunk.key, *place));
        let wholes: HashMap<&Key, Place> = whole.collect();
        let fits = |place: &&Place| {
            let base = place.chunk.base().map(|base| wholes.get(base));
            base.is_none_or(|base| base.is_some_and(|base| base.chunk.raw == place.chunk.raw))
        };
        let places = all.iter().filter(fits).map(|place| (&place.chunk.key, *place)).collect();
        Self { places, wholes }
    }

    pub fn place(&self, key: &Key) -> Option<Place<'a>> {
        self.places.get(key).copied()
    }

    pub fn whole(&self, key: &Key) -> Option<Place<'a>> {
        self.wholes.get(key).copied()
    }

    /// The packs that reading these chunks touches, and the bytes of each that it needs.
    pub fn needed<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> HashMap<&'a str, u64> {
        let mut needed: HashMap<&str, HashMap<u64, u64>> = HashMap::new();
        for place in keys.filter_map(|key| self.place(key)) {
            let base = place.chunk.base().and_then(|base| self.whole(base));
            for place in [Some(place), base].into_iter().flatten() {
                needed.entry(place.pack).or_default().insert(place.chunk.offset, place.chunk.stored);
            }
        }
        needed.into_iter().map(|(pack, chunks)| (pack, chunks.into_values().sum())).collect()
    }
}
