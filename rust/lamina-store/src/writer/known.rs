//! Which chunks the run already holds: a save names them and need not store them again.
//!
//! Garbage collection may condemn a pack while a save that leans on it is being written. It reads all logs again before it
//! removes anything, and a writer looks for what was condemned after its save is durable: one of the two finds out.

use crate::chain::Chain;
use crate::places::{Places, readable};
use crate::storage::Storage;
use lamina_format::chunk::Key;
use lamina_format::record::{Chunk, Op};
use lamina_format::{Error, ErrorKind, Result, frame};
use std::collections::HashSet;
use std::sync::Arc;

/// The chunks that a writer may lean on.
pub struct Known {
    /// In packs of its own, which nobody condemns while it lives.
    own: HashSet<Key>,
    /// In packs of others that are there and not condemned.
    others: HashSet<Key>,
    /// Those of others that saves since the last durable point name.
    leaned: HashSet<Key>,
    /// The commits, as of the last look.
    head: Option<u64>,
    condemned: usize,
    /// The greatest time of a save that the run held at first.
    pub latest: i64,
}

impl Known {
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let (own, others, leaned) = Default::default();
        let mut known = Self { own, others, leaned, head: None, condemned: 0, latest: 0 };
        let doomed = Chain::read(storage)?;
        known.head = doomed.highest;
        let (places, latest) = read_places(storage)?;
        (known.others, known.latest) = (known.standing(storage, &doomed, &places)?, latest);
        Ok(known)
    }

    /// Keys with a place in a pack that is there and not condemned.
    fn standing(&mut self, storage: &dyn Storage, chain: &Chain, places: &Places) -> Result<HashSet<Key>> {
        let doomed = chain.doomed();
        self.condemned = doomed.condemned.len();
        let there: HashSet<String> = storage.files()?.into_iter().collect();
        let stands = |(pack, _): &&(Arc<str>, Chunk)| there.contains(pack.as_ref()) && !doomed.holds(pack);
        Ok(readable(places.values().flatten().filter(stands).map(|(_, chunk)| chunk)))
    }

    /// The run's chunks, if something was condemned since the last look.
    fn look(&mut self, storage: &dyn Storage) -> Result<Option<Places>> {
        if storage.commits()?.first().copied() == self.head {
            return Ok(None);
        }
        let chain = Chain::read(storage)?;
        self.head = chain.highest;
        if chain.doomed().condemned.len() == self.condemned {
            return Ok(None);
        }
        let places = read_places(storage)?.0;
        self.others = self.standing(storage, &chain, &places)?;
        Ok(Some(places))
    }

    /// Forgets what was condemned since the last look; before a save is written.
    pub fn refresh(&mut self, storage: &dyn Storage) -> Result<()> {
        self.look(storage).map(drop)
    }

    /// Whether a chunk is there and need not be stored; if not, its owner stores it now.
    pub fn lean(&mut self, key: Key) -> bool {
        if self.others.contains(&key) {
            self.leaned.insert(key);
            return true;
        }
        !self.own.insert(key)
    }

    /// Leans on chunks that others stored, all of which stood when `condemned` files were condemned in all. What must be
    /// stored again since it was condemned meanwhile: each chunk's record, and its bytes as they lie in a pack.
    pub fn rely(&mut self, storage: &dyn Storage, keys: &[Key], condemned: usize) -> Result<Vec<(Chunk, Vec<u8>)>> {
        let leaned: HashSet<Key> = keys.iter().filter(|key| !self.own.contains(*key)).copied().collect();
        self.leaned.extend(&leaned);
        if self.condemned == condemned {
            return Ok(Vec::new());
        }
        let chain = Chain::read(storage)?;
        self.head = chain.highest;
        let places = read_places(storage)?.0;
        self.others = self.standing(storage, &chain, &places)?;
        self.copies(storage, leaned, &places)
    }

    /// What must be stored after all, after a save became durable: each chunk's record, and its bytes as they lie in a pack.
    pub fn lost(&mut self, storage: &dyn Storage) -> Result<Vec<(Chunk, Vec<u8>)>> {
        let leaned = std::mem::take(&mut self.leaned);
        if leaned.is_empty() {
            return Ok(Vec::new());
        }
        let Some(places) = self.look(storage)? else { return Ok(Vec::new()) };
        self.copies(storage, leaned, &places)
    }

    /// Those of these chunks that stand nowhere.
    fn copies(
        &mut self,
        storage: &dyn Storage,
        leaned: HashSet<Key>,
        places: &Places,
    ) -> Result<Vec<(Chunk, Vec<u8>)>> {
        let mut copies = Vec::new();
        for key in leaned.into_iter().filter(|key| !self.others.contains(key)) {
            self.own.insert(key);
            copies.extend(copy(storage, places, &key)?);
        }
        Ok(copies)
    }
}

/// A chunk in a pack that is condemned, and with luck still there; of a delta the base as well.
fn copy(storage: &dyn Storage, places: &Places, key: &Key) -> Result<Vec<(Chunk, Vec<u8>)>> {
    let of = |key: &Key| places.get(key).map_or(&[][..], Vec::as_slice);
    let read = |(pack, chunk): &(Arc<str>, Chunk)| {
        chunk.check().ok()?;
        let mut bytes = vec![0; chunk.stored as usize];
        storage.open_blob(pack).and_then(|file| file.read(chunk.offset, &mut bytes)).ok()?;
        chunk.verify(&bytes).ok()?;
        Some((chunk.clone(), bytes))
    };
    for place in of(key) {
        let base = place.1.base().map(|base| of(base).iter().filter(|(_, chunk)| chunk.base.is_none()).find_map(read));
        match (read(place), base) {
            (Some(chunk), None) => return Ok(vec![chunk]),
            (Some(chunk), Some(Some(base))) => return Ok(vec![base, chunk]),
            _ => {}
        }
    }
    let text = "a chunk was collected as garbage while a save that names it was being written";
    Err(Error::new(ErrorKind::Writer, text)
        .hint("save again; while somebody writes, give gc a grace of minutes or more"))
}

/// The chunks that the logs name, durably, and the greatest time of a save.
fn read_places(storage: &dyn Storage) -> Result<(Places, i64)> {
    let (mut places, mut latest) = (Places::new(), 0);
    for (writer, generation) in storage.logs()? {
        let (bytes, mut names) = (storage.read_log(writer, generation)?, false);
        for op in frame::scan(&bytes, generation)?.frames.into_iter().flat_map(|frame| frame.ops) {
            match op {
                Op::Chunks(chunks) => {
                    names = true;
                    let pack: Arc<str> = Arc::from(chunks.pack);
                    for chunk in chunks.chunks {
                        places.entry(chunk.key).or_default().push((Arc::clone(&pack), chunk));
                    }
                }
                Op::Save(save) => latest = latest.max(save.time),
                _ => {}
            }
        }
        if names {
            storage.settle_log(writer, generation)?;
        }
    }
    Ok((places, latest))
}
