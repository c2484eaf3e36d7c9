//! Where chunks stand.

use lamina_format::chunk::Key;
use lamina_format::record::Chunk;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Each chunk's packs, and its record in each.
pub type Places = HashMap<Key, Vec<(Arc<str>, Chunk)>>;

/// The chunks that these records are enough to read: a delta only if its base is among them, and no delta there.
pub fn readable<'a>(chunks: impl Iterator<Item = &'a Chunk> + Clone) -> HashSet<Key> {
    let mut keys: HashSet<Key> = chunks.clone().filter(|chunk| chunk.base().is_none()).map(|chunk| chunk.key).collect();
    let deltas: Vec<Key> =
        chunks.filter(|chunk| chunk.base().is_some_and(|base| keys.contains(base))).map(|chunk| chunk.key).collect();
    keys.extend(deltas);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_format::record::Codec;

    fn chunk(key: u8, base: Option<u8>) -> Chunk {
        let codec = if base.is_some() { Codec::Delta } else { Codec::Planes };
        let base = base.map(|base| [base; 32].into());
        Chunk { key: [key; 32], offset: 0, stored: 0, raw: 0, codec, crcs: vec![], lengths: None, base }
    }

    #[test]
    fn a_delta_needs_its_base_and_a_delta_is_no_base() {
        let chunks = [chunk(1, None), chunk(2, Some(1)), chunk(3, Some(2)), chunk(4, Some(9)), chunk(5, Some(4))];
        assert_eq!(readable(chunks.iter()), HashSet::from([[1; 32], [2; 32]]));
        let both = [chunk(2, None), chunk(2, Some(1)), chunk(3, Some(2))];
        assert_eq!(readable(both.iter()), HashSet::from([[2; 32], [3; 32]]));
    }
}
