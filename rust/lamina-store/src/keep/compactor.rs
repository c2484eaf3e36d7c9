//! A writer that rewrites instead of recording: it has a log and segments of its own, and publishes by commits.

use crate::chain;
use crate::clock;
use crate::storage::{Log, Storage};
use crate::writer::committer::claim;
use crate::writer::journal::Journal;
use crate::writer::pack::PackWriter;
use crate::writer::segment::SegmentWriter;
use lamina_format::Result;
use lamina_format::record::{Close, Op, Open};
use std::sync::Arc;

/// Its log, and the segment and the pack that it fills.
pub struct Compactor {
    storage: Arc<dyn Storage>,
    ordinal: u32,
    journal: Journal,
    pub segments: SegmentWriter,
    pub packs: PackWriter,
}

impl Compactor {
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let (ordinal, log) = claim(storage.as_ref())?;
        Self::begin(storage, ordinal, log)
    }

    /// One that has claimed its log already.
    pub fn begin(storage: Arc<dyn Storage>, ordinal: u32, log: Box<dyn Log>) -> Result<Self> {
        let mut journal = Journal::new(Arc::clone(&storage), ordinal, log);
        let (host, pid, work) = (clock::host(), std::process::id(), Some("compact".to_owned()));
        let open = Open { host, pid, rank: None, time: clock::now(), uuid: clock::unique(), work };
        journal.append(vec![Op::Open(open)])?;
        let (segments, packs) = (SegmentWriter::new(ordinal), PackWriter::new(ordinal));
        Ok(Self { storage, ordinal, journal, segments, packs })
    }

    /// Publishes what was made from the run as it was at commit `base`, unless `spoils` finds an operation of a later
    /// commit that it does not hold after. Returns whether it did.
    pub fn publish(&mut self, base: Option<u64>, ops: &[Op], spoils: impl Fn(&Op) -> bool) -> Result<bool> {
        match chain::publish_after(self.storage.as_ref(), Some(self.ordinal), base, 0, ops, spoils)? {
            Some(n) => self.copy(n, ops).map(|()| true),
            None => Ok(false),
        }
    }

    /// Makes the chunks that it wrote durable, and then these records of them.
    pub fn log(&mut self, ops: Vec<Op>) -> Result<()> {
        self.packs.sync()?;
        self.journal.append(ops)
    }

    /// Repeats a commit in the log, so that nothing is lost if the commit is damaged.
    fn copy(&mut self, n: u64, ops: &[Op]) -> Result<()> {
        let copied = ops.iter().map(|op| match op {
            Op::Replace(replace) => {
                let mut copy = replace.clone();
                copy.commit = Some(n);
                Op::Replace(copy)
            }
            other => other.clone(),
        });
        self.journal.append(copied.collect())
    }

    pub fn close(mut self, error: Option<String>) -> Result<()> {
        self.journal.append(vec![Op::Close(Close { error, time: clock::now() })])
    }
}
