//! What is staged and waits for the committer's thread.

use super::RowSet;
use super::declare::Ids;
use super::group::OpenGroup;
use super::metrics::MetricStage;
use super::options::{Durability, Fresh};
use super::shards::{CompleteJob, ShardJob};
use super::spare::{self, SMALL};
use super::staged::SaveJob;
use super::ticket::Watchers;
use lamina_format::record::{Dropped, Table};
use lamina_format::segment::MOST_ROWS;
use lamina_format::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes at which a row group is cut.
pub const GROUP: usize = 16 << 20;
/// Bytes of staged rows beyond which callers wait.
const MOST_QUEUED: usize = 4 * GROUP;
/// Bytes of staging buffers that are kept: what may wait, and a group that grows.
const MOST_POOLED: usize = MOST_QUEUED + GROUP;
/// Bytes of staged checkpoints beyond which another one waits; rows do not wait for checkpoints.
const MOST_SAVING: usize = 256 << 20;

/// Work for the committer's thread.
pub enum Job {
    /// A full row group.
    Group(OpenGroup),
    /// A checkpoint.
    Save(SaveJob),
    /// A tensor that no checkpoint holds yet.
    Shard(ShardJob),
    /// A checkpoint of such tensors.
    Complete(CompleteJob),
}

/// Everything behind the lock.
pub struct Stage {
    durable_when: Durability,
    /// Handles that are open.
    pub handles: usize,
    /// Groups that still grow, one a set of sites and columns.
    pub open: Vec<OpenGroup>,
    /// Full groups and checkpoints.
    pub queue: VecDeque<Job>,
    /// Bytes of rows in `queue` and in the thread's hands.
    pub queued: usize,
    /// Bytes of checkpoints there.
    pub saving: usize,
    /// Metric values.
    pub metrics: MetricStage,
    /// Calls so far.
    pub staged: u64,
    /// Calls up to which somebody waits for durability.
    pub requested: u64,
    /// Calls handed to the operating system.
    pub written: u64,
    /// Calls that are durable.
    pub durable: u64,
    /// What was staged since the last durable point.
    fresh: Fresh,
    /// The thread knows that there is something to be made durable.
    told: bool,
    /// What ended the committer.
    pub failure: Option<Error>,
    /// The last handle was closed.
    pub closing: bool,
    /// Why handles were closed, if not as planned.
    pub errors: Vec<String>,
    /// What was dropped since the last durable point.
    pub dropped: Dropped,
    /// Who is to be told of what became durable.
    pub watchers: Watchers,
    pool: Vec<Vec<u8>>,
}

impl Stage {
    pub fn new(durable_when: Durability) -> Self {
        Self {
            durable_when,
            handles: 1,
            open: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            saving: 0,
            metrics: MetricStage::default(),
            staged: 0,
            requested: 0,
            written: 0,
            durable: 0,
            fresh: Fresh::default(),
            told: false,
            failure: None,
            closing: false,
            errors: Vec::new(),
            dropped: Dropped::default(),
            watchers: Watchers::default(),
            pool: Vec::new(),
        }
    }

    /// Remembers that something waits for a durable point.
    pub fn note(&mut self, rows: u64, bytes: u64) {
        self.fresh.rows += rows;
        self.fresh.bytes += bytes;
        self.fresh.since.get_or_insert_with(Instant::now);
    }

    /// How long the next durable point has time; zero if it is due, None if there is nothing to make durable.
    pub fn patience(&self) -> Option<Duration> {
        let asked = self.requested > self.durable || self.closing;
        (self.staged > self.durable).then(|| {
            let unasked = self.fresh.patience(&self.durable_when);
            if asked { Duration::ZERO } else { unasked.unwrap_or(Duration::MAX) }
        })
    }

    /// Whether the thread has something to do, or must be told when it will have: to wake it for each small append would
    /// hold up the caller, whose core it may take. Where no limit makes a durable point, who asks for one wakes it.
    pub fn must_wake(&mut self) -> bool {
        let due = self.patience();
        let news = !self.told && due != Some(Duration::MAX);
        self.told |= news;
        news || !self.queue.is_empty() || due == Some(Duration::ZERO)
    }

    /// Asks for a durable point of everything up to `number`.
    pub fn request(&mut self, number: u64) {
        self.requested = self.requested.max(number);
    }

    /// What became of everything up to `number`; None if that is not known yet.
    pub fn outcome(&self, number: u64) -> Option<Result<()>> {
        if self.durable >= number { Some(Ok(())) } else { self.failure.clone().map(Err) }
    }

    /// Ends it: what is not durable is lost.
    pub fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        self.queue.clear();
        self.open.clear();
        (self.queued, self.saving) = (0, 0);
    }

    /// Whether `more` bytes of rows must wait. What is larger than the whole queue is let in when that is empty.
    pub fn is_full(&self, more: usize) -> bool {
        self.queued > 0 && self.queued + more > MOST_QUEUED
    }

    /// Whether a checkpoint of `more` bytes must wait, likewise.
    pub fn is_saving(&self, more: usize) -> bool {
        self.saving > 0 && self.saving + more > MOST_SAVING
    }

    /// Puts as many of the rows from `from` into an open group as it takes, and cuts it if it is full.
    pub fn fill(&mut self, table: Table, from: u64, set: &RowSet, ids: &Ids) -> u64 {
        let at = match self.open.iter().position(|group| group.holds(table, ids)) {
            Some(at) => at,
            None => {
                self.open.push(OpenGroup::new(table, set, ids, GROUP));
                self.open.len() - 1
            }
        };
        let (group, pool) = (&mut self.open[at], &mut self.pool);
        let room = (GROUP.saturating_sub(group.bytes()) / group.row_bytes().max(1)) as u64;
        let taken = (set.rows - from).min(room.max(1)).min(MOST_ROWS - group.rows());
        let before = group.bytes();
        let taken = group.push(from, from + taken, set, GROUP, |capacity| take_from(pool, capacity));
        let bytes = (group.bytes() - before) as u64;
        if group.bytes() + group.row_bytes() > GROUP || group.rows() >= MOST_ROWS {
            let full = self.open.swap_remove(at);
            self.queued += full.bytes();
            self.queue.push_back(Job::Group(full));
        }
        self.note(taken, bytes);
        taken
    }

    /// Takes out everything, for a durable point.
    pub fn take(&mut self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.queue.drain(..).collect();
        for group in self.open.drain(..) {
            self.queued += group.bytes();
            jobs.push(Job::Group(group));
        }
        self.fresh = Fresh::default();
        self.told = false;
        jobs
    }

    /// Gives staging buffers back; they stay mapped, which saves their page faults. Small ones are the allocator's.
    pub fn recycle(&mut self, buffers: Vec<Vec<u8>>) {
        for mut buffer in buffers.into_iter().filter(|buffer| buffer.capacity() > SMALL) {
            let pooled: usize = self.pool.iter().map(Vec::capacity).sum();
            if pooled + buffer.capacity() <= MOST_POOLED {
                buffer.clear();
                self.pool.push(buffer);
            }
        }
    }
}

fn take_from(pool: &mut Vec<Vec<u8>>, capacity: usize) -> Vec<u8> {
    let fits = pool.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= capacity);
    match fits.min_by_key(|(_, buffer)| buffer.capacity()).map(|(at, _)| at) {
        Some(at) => pool.swap_remove(at),
        None => spare::fresh(capacity).unwrap_or_else(|| Vec::with_capacity(capacity)),
    }
}

impl Stage {
    /// An error if nothing can be staged any more.
    pub fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            let text = format!("the writer stopped: {}", failure.message);
            let error = Error { kind: ErrorKind::Writer, message: text, ..failure.clone() };
            return Err(error.hint("what was acknowledged is there; open a new writer once the cause is removed"));
        }
        if self.closing {
            return Err(closed());
        }
        Ok(())
    }
}

/// The error of a call after `close`.
pub fn closed() -> Error {
    Error::new(ErrorKind::Writer, "the writer is closed").hint("open another with run.writer()")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_buffers_are_kept_and_no_more_than_may_wait() {
        let mut stage = Stage::new(Durability::default());
        for _ in 0..1000 {
            stage.recycle(vec![vec![1; 512], vec![1; SMALL]]);
        }
        assert!(stage.pool.is_empty(), "they would be looked through at each durable point");
        let mut buffers: Vec<_> = (0..8).map(|_| take_from(&mut stage.pool, GROUP)).collect();
        buffers[0].push(1);
        let first = buffers[0].as_ptr();
        stage.recycle(buffers);
        assert_eq!(stage.pool.len(), MOST_POOLED / GROUP);
        let mut again: Vec<_> = (0..stage.pool.len()).map(|_| take_from(&mut stage.pool, GROUP)).collect();
        assert!(again.iter().all(Vec::is_empty) && again.iter_mut().any(|buffer| buffer.as_ptr() == first));
    }
}
