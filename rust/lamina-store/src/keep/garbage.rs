//! Which files of a run nothing needs any more.

use super::inventory::{Inventory, Trust};
use crate::places::readable;
use crate::storage::Storage;
use crate::{Opening, Snapshot};
use lamina_format::chunk::Key;
use lamina_format::record::Chunk;
use lamina_format::{Error, Result, names};
use std::collections::HashSet;
use std::sync::Arc;

/// Why a file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Rows or chunks of it count, or its writer may be at work.
    Needed,
    /// Nobody can tell what of it counts.
    Doubtful(&'static str),
}

/// A run as it was at commit `inventory.head`, or later.
pub struct Survey<'a> {
    pub inventory: Inventory,
    settled: &'a HashSet<u32>,
    /// Chunks of checkpoints that are not hidden.
    live: HashSet<Key>,
    /// Chunks that others, which checkpoints name, are the difference from.
    bases: HashSet<Key>,
    /// Chunks that can be read from packs that nobody condemned.
    safe: HashSet<Key>,
    /// Those of them that are no differences there.
    whole: HashSet<Key>,
}

impl<'a> Survey<'a> {
    /// Reads every commit and log. `settled` are writers that are done, as of before.
    pub fn of(storage: &Arc<dyn Storage>, settled: &'a HashSet<u32>) -> Result<Self> {
        let inventory = Inventory::read(storage.as_ref())?;
        let hint = "restore it from a copy; until then nothing can be told to be without need";
        if let Some(problem) = inventory.problems.first() {
            return Err(problem.clone().hint(hint));
        }
        let there = storage.commits()?;
        if let Some(&lost) = inventory.copied.iter().find(|n| !there.contains(n)) {
            return Err(Error::damaged(format!("commit {lost} is missing")).in_file(names::commit(lost)).hint(hint));
        }
        let live = Snapshot::open(Arc::clone(storage), Opening::default())?.needed_chunks();
        let there = inventory.packs.iter().filter(|(pack, _)| !inventory.doomed.dropped.contains(*pack));
        let there: Vec<(bool, &Chunk)> = there
            .flat_map(|(pack, chunks)| chunks.iter().map(|chunk| (!inventory.doomed.holds(pack), chunk)))
            .collect();
        let standing = there.iter().filter(|(stands, _)| *stands).map(|(_, chunk)| *chunk);
        let safe = readable(standing.clone());
        // a difference in a condemned pack counts only if it stands nowhere else
        let counts =
            |(stands, chunk): &&(bool, &Chunk)| live.contains(&chunk.key) && (*stands || !safe.contains(&chunk.key));
        let bases = there.iter().filter(counts).filter_map(|(_, chunk)| chunk.base().copied()).collect();
        let whole = standing.filter(|chunk| chunk.base.is_none()).map(|chunk| chunk.key).collect();
        Ok(Self { inventory, settled, live, bases, safe, whole })
    }

    /// Chunks of checkpoints that are not hidden.
    pub fn live(&self) -> &HashSet<Key> {
        &self.live
    }

    /// Whether a checkpoint, or a difference that a checkpoint names, needs a chunk.
    pub fn needs(&self, key: &Key) -> bool {
        self.live.contains(key) || self.bases.contains(key)
    }

    /// Why a file stays; None if nothing needs it.
    pub fn stays(&self, file: &str) -> Option<Stays> {
        // an index stays as long as its segment does
        let segment = names::parse_feature_index(file).map(|(segment, _)| segment);
        let file = segment.as_deref().unwrap_or(file);
        // a draft is nothing yet, and who makes one makes another if it is gone
        let writer = names::owner(file)?;
        let (inventory, doubtful) = (&self.inventory, |why| Some(Stays::Doubtful(why)));
        let trust = match inventory.logs.get(&writer) {
            None => return doubtful("its writer's log is missing"),
            Some(_) if !self.settled.contains(&writer) => return Some(Stays::Needed),
            Some(Trust::Damaged) => return doubtful("its writer's log is damaged"),
            Some(trust) => *trust,
        };
        if inventory.doubtful.contains(file) {
            return doubtful("a record that names it cannot be true");
        }
        if !inventory.named.contains(file) {
            let why = "no record names it, and its writer's log ends in bytes that are no record";
            return if trust == Trust::Torn { doubtful(why) } else { None };
        }
        if inventory.groups.get(file).is_some_and(|groups| groups.iter().any(|group| inventory.counts(group))) {
            return Some(Stays::Needed);
        }
        let chunks = inventory.packs.get(file)?;
        if inventory.logs.values().any(|trust| *trust == Trust::Damaged) {
            return doubtful("a log is damaged, which may have named its chunks");
        }
        // who finds a pack condemned that a save leans on writes the chunk again
        let condemned = inventory.doomed.holds(file);
        let elsewhere = |keys: &HashSet<Key>, chunk: &Chunk| condemned && keys.contains(&chunk.key);
        let needed = |chunk: &Chunk| {
            self.live.contains(&chunk.key) && !elsewhere(&self.safe, chunk)
                || self.bases.contains(&chunk.key) && !elsewhere(&self.whole, chunk)
        };
        chunks.iter().any(needed).then_some(Stays::Needed)
    }
}
