//! A writer's life: it stages on the caller's thread and writes on its own.
//!
//! [`Writer::append`] copies into pooled staging and returns a [`Ticket`]. The committer's thread cuts row groups,
//! writes them, and makes durable points: data, sync, frame, sync, acknowledge.

mod attach;
mod codes;
pub(crate) mod column;
pub(crate) mod committer;
mod declare;
pub(crate) mod group;
mod input;
pub(crate) mod journal;
mod known;
pub(crate) mod metrics;
mod options;
mod pace;
pub(crate) mod pack;
pub(crate) mod rows;
pub(crate) mod segment;
mod shards;
mod shared;
mod spare;
mod stage;
mod staged;
mod stream;
mod ticket;
mod worker;

pub use codes::{Bounds, Entries, Twice};
pub use column::{ColumnInput, Values};
pub use input::{PartInput, RowSet, SiteInput};
pub use options::{Durability, Full, Options};
pub use rows::Lent;
pub use shards::{CompletePart, Keys, ShardInput, WholeInput};
pub use staged::TensorBytes;
pub use stream::{CheckpointStream, StreamedPart};
pub use ticket::{Callback, State, Ticket};

use crate::clock;
use crate::storage::Storage;
use committer::Committer;
use lamina_format::record::Table;
use lamina_format::{Error, ErrorKind, Result};
use stage::{Job, Stage};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A handle on the log that all writers of this process share, if they agree in their options.
pub struct Writer {
    committer: Arc<Committer>,
    closed: AtomicBool,
    dropped: Mutex<Lost>,
}

/// Rows that a handle has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// In all.
    pub rows: u64,
    /// Of each site.
    pub sites: BTreeMap<String, u64>,
}

/// A way to the log of a writer that may be closed by now.
#[derive(Clone)]
pub struct WeakWriter(Weak<Committer>);

impl WeakWriter {
    /// Whether some handle is there still.
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// One more handle on that log; None if it is closed or failed.
    pub fn join(&self) -> Option<Writer> {
        self.0.upgrade().filter(|committer| committer.join()).map(Writer::on)
    }
}

impl Writer {
    /// Opens the first free log of the run.
    pub fn open(storage: Arc<dyn Storage>, rank: Option<i64>) -> Result<Self> {
        Self::open_with(storage, Options { rank, ..Options::default() })
    }

    /// Opens the first free log of the run, with these options.
    pub fn open_with(storage: Arc<dyn Storage>, options: Options) -> Result<Self> {
        Committer::open(storage, options).map(|committer| Self::on(Arc::new(committer)))
    }

    fn on(committer: Arc<Committer>) -> Self {
        Self { committer, closed: AtomicBool::new(false), dropped: Mutex::default() }
    }

    /// A way to this log that does not keep it open.
    pub fn downgrade(&self) -> WeakWriter {
        WeakWriter(Arc::downgrade(&self.committer))
    }

    /// Which writer of the run this is; the upper bits of its row names.
    pub fn ordinal(&self) -> u32 {
        self.committer.ordinal
    }

    /// Whether this handle was closed; in a fork none is open.
    pub fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.committer.shared.inherited()
    }

    /// An error if nothing can be staged: this handle is closed, the log has failed, or the process was forked.
    pub fn check(&self) -> Result<()> {
        self.committer.shared.check_process()?;
        if self.closed() {
            return Err(stage::closed());
        }
        self.committer.shared.check()
    }

    /// Stages `rows` rows of every site; all share the metadata columns.
    pub fn append(
        &self,
        storage: &dyn Storage,
        rows: u64,
        sites: &[SiteInput],
        columns: &[ColumnInput],
    ) -> Result<Ticket> {
        self.append_sets(storage, &[RowSet { rows, sites, columns, names: None }])
    }

    /// Stages sets of rows: all of them, or none.
    pub fn append_sets(&self, storage: &dyn Storage, sets: &[RowSet]) -> Result<Ticket> {
        self.check()?;
        sets.iter().try_for_each(RowSet::check)?;
        let names = &self.committer.names;
        let ids = |set: &RowSet| names.resolve(storage, Table::Rows, set.sites, set.columns);
        let ids = sets.iter().map(ids).collect::<Result<Vec<_>>>()?;
        // held until the rows are staged, so that of two threads that attach to one row the second is told
        let mut attaching = sets.iter().any(|set| set.names.is_some()).then(|| self.committer.attaching());
        if let Some(attaching) = &mut attaching {
            for (set, ids) in sets.iter().zip(&ids) {
                let sites = ids.sites.iter().copied().zip(set.sites.iter().map(|site| site.name));
                attaching.check(&self.committer.storage, self.ordinal(), set.names.unwrap_or_default(), sites)?;
            }
        }
        let shared = &self.committer.shared;
        let mut stage = shared.lock();
        stage.check()?;
        if shared.options.full != Full::Block && stage.is_full(sets.iter().map(RowSet::bytes).sum()) {
            return self.refuse(stage, sets, &ids);
        }
        for (set, ids) in sets.iter().zip(&ids) {
            stage = self.stage(stage, set.table(), set, ids, shared.options.full == Full::Block)?;
        }
        if let Some(attaching) = &mut attaching {
            sets.iter().zip(&ids).for_each(|(set, ids)| attaching.take(set.names.unwrap_or_default(), &ids.sites));
        }
        Ok(self.staged(stage))
    }

    /// What becomes of an append that finds the queue full and must not wait.
    fn refuse(&self, mut stage: MutexGuard<'_, Stage>, sets: &[RowSet], ids: &[declare::Ids]) -> Result<Ticket> {
        if self.committer.shared.options.full == Full::Raise {
            let text = format!("the writer's queue is full: {} MiB wait for the disk", stage.queued >> 20);
            let hint = "append again later; full=\"block\" waits, full=\"drop\" leaves rows out and counts them";
            return Err(Error::new(ErrorKind::QueueFull, text).hint(hint));
        }
        let mut mine = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        for (set, ids) in sets.iter().zip(ids) {
            stage.dropped.add(set.rows, ids.sites.iter().map(|&id| (id, set.rows)));
            mine.rows += set.rows;
            for site in set.sites {
                *mine.sites.entry(site.name.to_owned()).or_default() += set.rows;
            }
        }
        // the count becomes durable as rows do
        Ok(self.staged(stage).dropped())
    }

    /// What this handle has dropped.
    pub fn dropped(&self) -> Lost {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stages rows of the examples table.
    pub fn examples(&self, storage: &dyn Storage, rows: u64, columns: &[ColumnInput]) -> Result<Ticket> {
        self.check()?;
        let set = RowSet { rows, sites: &[], columns, names: None };
        set.check()?;
        let ids = self.committer.names.resolve(storage, Table::Examples, &[], columns)?;
        let stage = self.stage(self.committer.shared.lock(), Table::Examples, &set, &ids, true)?;
        Ok(self.staged(stage))
    }

    /// Copies rows into open groups, waiting for room between them if it may.
    fn stage<'a>(
        &'a self,
        mut stage: MutexGuard<'a, Stage>,
        table: Table,
        set: &RowSet,
        ids: &declare::Ids,
        wait: bool,
    ) -> Result<MutexGuard<'a, Stage>> {
        let shared = &self.committer.shared;
        let mut from = 0;
        while from < set.rows {
            if wait {
                if stage.is_full(0) {
                    // only now: as long as there is room the thread would take from the memory what the copy needs
                    shared.work.notify_one();
                }
                stage = shared.with_room(stage, |stage| stage.is_full(0))?;
            }
            from += stage.fill(table, from, set, ids);
        }
        Ok(stage)
    }

    /// Stages metric values of one step and time.
    pub fn log(
        &self,
        step: i64,
        time: i64,
        values: &[(String, f64)],
        site: Option<&str>,
        source: Option<&str>,
    ) -> Result<()> {
        self.check()?;
        let mut stage = self.committer.shared.lock();
        for (name, value) in values {
            stage.metrics.push(step, time, *value, name, site, source);
        }
        self.staged(stage);
        Ok(())
    }

    /// Stages a checkpoint.
    pub fn save(&self, step: i64, parts: &[PartInput]) -> Result<Ticket> {
        self.check()?;
        for part in parts {
            for (spec, bytes) in &part.tensors {
                if spec.bytes() != Some(bytes.len() as u64) {
                    let text =
                        format!("tensor {:?} has {} bytes, its shape takes another number", spec.name, bytes.len());
                    return Err(Error::schema(text));
                }
            }
        }
        let (shared, size) = (&self.committer.shared, staged::size(parts));
        // the room is taken before the bytes are copied, which takes a while
        shared.with_room(shared.lock(), |stage| stage.is_saving(size))?.saving += size;
        let copied = staged::stage(step, clock::now(), parts, &shared.spare);
        let mut stage = shared.lock();
        stage.check()?;
        match copied {
            Ok(job) => stage.queue.push_back(Job::Save(job)),
            Err(error) => {
                stage.saving -= size;
                shared.room.notify_all();
                return Err(error);
            }
        }
        stage.note(0, size as u64);
        Ok(self.staged(stage))
    }

    /// The ticket of what was just staged.
    fn staged(&self, mut stage: MutexGuard<'_, Stage>) -> Ticket {
        stage.staged += 1;
        stage.note(0, 0);
        let (number, wake) = (stage.staged, stage.must_wake());
        drop(stage);
        if wake {
            self.committer.shared.work.notify_one();
        }
        Ticket::new(Arc::clone(&self.committer.shared), number)
    }

    /// A ticket for everything staged so far.
    pub fn flush(&self) -> Ticket {
        let shared = &self.committer.shared;
        let number = if shared.inherited() { 0 } else { shared.lock().staged };
        Ticket::new(Arc::clone(shared), number)
    }

    /// Makes everything durable; the last handle seals, writes the close record, which holds the errors of all handles,
    /// and ends the thread. In a fork it does nothing.
    pub fn close(&self, error: Option<String>) -> Result<()> {
        if self.closed() || self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.committer.leave(error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.committer.shared.inherited() {
            // nothing of it works here, and dropping a lock that may be held or a thread that is not there is no good
            std::mem::forget(Arc::clone(&self.committer));
            return;
        }
        // nobody is left to tell; what was acknowledged stays
        let _ = self.close(Some("the writer was dropped before it was closed".to_owned()));
    }
}

/// How long a ticket's wait sleeps before it lets the caller look for interrupts.
pub const PATIENCE: Duration = Duration::from_millis(50);
