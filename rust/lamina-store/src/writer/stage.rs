//! What is staged, and how the callers and the writer's thread share it.

use super::SiteInput;
use super::column::ColumnInput;
use super::declare::Ids;
use super::group::OpenGroup;
use super::metrics::MetricStage;
use lamina_format::record::{Table, TensorSpec};
use lamina_format::segment::MOST_ROWS;
use lamina_format::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes at which a row group is cut.
pub const GROUP: usize = 16 << 20;
/// Staged bytes beyond which callers wait.
const MOST_QUEUED: usize = 2 * GROUP;
/// How long something may stay staged before a durable point is made.
pub const DURABLE_EVERY: Duration = Duration::from_secs(1);

/// Work for the writer's thread.
pub enum Job {
    /// A full row group.
    Group(OpenGroup),
    /// A checkpoint.
    Save(SaveJob),
}

/// A staged checkpoint.
pub struct SaveJob {
    pub step: i64,
    pub time: i64,
    pub parts: Vec<SavePart>,
}

/// A staged part.
pub struct SavePart {
    pub name: String,
    pub tree: String,
    pub scalars: String,
    pub tensors: Vec<(TensorSpec, Vec<u8>)>,
}

/// Everything behind the lock.
#[derive(Default)]
pub struct Stage {
    /// Groups that still grow, one a set of sites and columns.
    pub open: Vec<OpenGroup>,
    /// Full groups and checkpoints.
    pub queue: VecDeque<Job>,
    /// Bytes in `queue` and in the thread's hands.
    pub queued: usize,
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
    /// When the oldest call that is not durable was staged.
    pub since: Option<Instant>,
    /// What ended the writer.
    pub failure: Option<Error>,
    /// Set when it is to close; the inner text says why, if not as planned.
    pub closing: Option<Option<String>>,
    pool: Vec<Vec<u8>>,
}

impl Stage {
    /// Remembers that something waits.
    pub fn note(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Puts as many of the rows from `from` into an open group as it takes, and cuts it if it is full.
    pub fn fill(
        &mut self,
        table: Table,
        from: u64,
        rows: u64,
        sites: &[SiteInput],
        columns: &[ColumnInput],
        ids: &Ids,
    ) -> u64 {
        let at = match self.open.iter().position(|group| group.holds(table, ids)) {
            Some(at) => at,
            None => {
                let pool = &mut self.pool;
                let take = |capacity: usize| take_from(pool, capacity);
                let group = OpenGroup::new(table, sites, columns, ids, GROUP, take);
                self.open.push(group);
                self.open.len() - 1
            }
        };
        let group = &mut self.open[at];
        let room = (GROUP.saturating_sub(group.bytes()) / group.row_bytes().max(1)) as u64;
        let taken = (rows - from).min(room.max(1)).min(MOST_ROWS - group.rows());
        let taken = group.push(from, from + taken, sites, columns, GROUP);
        if group.bytes() + group.row_bytes() > GROUP || group.rows() >= MOST_ROWS {
            let full = self.open.swap_remove(at);
            self.queued += full.bytes();
            self.queue.push_back(Job::Group(full));
        }
        self.note();
        taken
    }

    /// Takes out everything, for a durable point.
    pub fn take(&mut self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.queue.drain(..).collect();
        for group in self.open.drain(..) {
            self.queued += group.bytes();
            jobs.push(Job::Group(group));
        }
        self.since = None;
        jobs
    }

    /// Gives staging buffers back; they stay mapped, which saves their page faults.
    pub fn recycle(&mut self, buffers: Vec<Vec<u8>>) {
        for mut buffer in buffers {
            let pooled: usize = self.pool.iter().map(Vec::capacity).sum();
            if pooled + buffer.capacity() <= MOST_QUEUED {
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
        None => Vec::with_capacity(capacity),
    }
}

/// The stage and the conditions on it.
#[derive(Default)]
pub struct Shared {
    stage: Mutex<Stage>,
    /// There is work, or a request.
    pub work: Condvar,
    /// The queue became shorter.
    pub room: Condvar,
    done: Condvar,
}

impl Shared {
    /// The stage. A caller that panicked while it held the lock cannot have left it half changed in a way that
    /// matters: every field is valid at every time.
    pub fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if nothing can be staged any more.
    pub fn check(&self) -> Result<()> {
        self.lock().check()
    }

    /// Waits until `more` bytes fit beside what is queued.
    pub fn with_room<'a>(&self, stage: MutexGuard<'a, Stage>, more: usize) -> Result<MutexGuard<'a, Stage>> {
        let full = |stage: &mut Stage| {
            stage.failure.is_none() && stage.closing.is_none() && stage.queued > 0 && stage.queued + more > MOST_QUEUED
        };
        let stage = self.room.wait_while(stage, full).unwrap_or_else(PoisonError::into_inner);
        stage.check()?;
        Ok(stage)
    }

    /// Waits for durable points, at most so long.
    pub fn wait_done<'a>(
        &self,
        stage: MutexGuard<'a, Stage>,
        patience: Duration,
        unfinished: impl Fn(&Stage) -> bool,
    ) -> MutexGuard<'a, Stage> {
        let waited = self.done.wait_timeout_while(stage, patience, |stage| unfinished(stage));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells everybody who waits that something changed.
    pub fn tell(&self) {
        self.done.notify_all();
        self.room.notify_all();
    }
}

impl Stage {
    fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            let text = format!("the writer stopped: {}", failure.message);
            let error = Error { kind: ErrorKind::Writer, message: text, ..failure.clone() };
            return Err(error.hint("what was acknowledged is there; open a new writer once the cause is removed"));
        }
        if self.closing.is_some() {
            return Err(Error::new(ErrorKind::Writer, "the writer is closed").hint("open another with run.writer()"));
        }
        Ok(())
    }
}
