//! A writer that rewrites instead of recording: it has a log and segments of its own, and publishes by commits.

use crate::chain::Chain;
use crate::clock;
use crate::storage::Storage;
use crate::writer::committer::claim;
use crate::writer::journal::Journal;
use crate::writer::segment::SegmentWriter;
use lamina_format::record::{Close, Op, Open};
use lamina_format::{Error, ErrorKind, Result, commit};
use std::sync::Arc;

/// Its log, and the segment that it fills.
pub struct Compactor {
    storage: Arc<dyn Storage>,
    ordinal: u32,
    journal: Journal,
    pub segments: SegmentWriter,
}

impl Compactor {
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let (ordinal, log) = claim(storage.as_ref())?;
        let mut journal = Journal::new(Arc::clone(&storage), ordinal, log);
        let (host, pid, work) = (clock::host(), std::process::id(), Some("compact".to_owned()));
        let open = Open { host, pid, rank: None, time: clock::now(), uuid: clock::unique(), work };
        journal.append(vec![Op::Open(open)])?;
        Ok(Self { storage, ordinal, journal, segments: SegmentWriter::new(ordinal) })
    }

    /// Publishes what was made from the run as it was at commit `base`, unless `spoils` finds an operation of a later
    /// commit that it does not hold after. Returns whether it did.
    pub fn publish(&mut self, base: Option<u64>, ops: &[Op], spoils: impl Fn(&Op) -> bool) -> Result<bool> {
        let later = |n: u64| base.is_none_or(|base| n > base);
        loop {
            let chain = Chain::read(self.storage.as_ref())?;
            if self.storage.fenced(self.ordinal)? {
                let error = Error::new(ErrorKind::Writer, "the compaction was fenced by somebody who took it for dead");
                return Err(error.hint("start it again"));
            }
            let since = chain.commits.iter().filter(|(commit, _)| later(commit.n)).flat_map(|(commit, _)| &commit.ops);
            // what an unreadable commit says is not known
            if chain.unreadable.iter().any(|&n| later(n)) || since.into_iter().any(&spoils) {
                return Ok(false);
            }
            let commit = chain.next(Some(self.ordinal), ops.to_vec());
            if self.storage.publish(commit.n, &commit::encode(&commit).0)? {
                return self.copy(commit.n, ops).map(|()| true);
            }
        }
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
