//! What checkpoints hold alone.

use super::keys;
use crate::Snapshot;
use lamina_format::chunk::Key;
use std::collections::HashSet;

impl Snapshot {
    /// Bytes of the chunks, as they lie in their packs, that nothing needs but these parts of checkpoints: step and name.
    pub fn held_alone(&self, parts: &HashSet<(i64, String)>) -> u64 {
        let store = &self.checkpoints;
        let (mut going, mut staying): (HashSet<&Key>, HashSet<&Key>) = Default::default();
        for (_, save) in &store.saves {
            for part in &save.parts {
                // saves of the same step that no longer count are hidden with it
                let goes = parts.contains(&(save.step, part.name.clone()));
                if goes { &mut going } else { &mut staying }.extend(keys(part));
            }
        }
        let places = |key: &Key| store.chunks.get(key).into_iter().flatten().map(|place| &place.chunk);
        let bases: Vec<&Key> = staying.iter().flat_map(|key| places(key)).filter_map(|chunk| chunk.base()).collect();
        staying.extend(bases);
        let size = |key: &Key| places(key).map(|chunk| chunk.stored).sum::<u64>();
        going.difference(&staying).map(|key| size(key)).sum()
    }
}
