//! A writer's life: it stages on the caller's thread and writes on its own.
//!
//! [`Writer::append`] copies into pooled staging and returns a [`Ticket`]. The committer's thread cuts row groups,
//! writes them, and makes durable points: data, sync, frame, sync, acknowledge.

mod column;
mod committer;
mod declare;
mod group;
mod journal;
mod metrics;
mod options;
mod pack;
mod segment;
mod shared;
mod stage;
mod ticket;
mod worker;

pub use column::{ColumnInput, Values};
pub use options::{Durability, Full, Options};
pub use ticket::{Callback, State, Ticket};

use crate::clock;
use crate::storage::Storage;
use committer::Committer;
use lamina_format::record::{Table, TensorSpec};
use lamina_format::segment::WIDEST;
use lamina_format::{DType, Error, Result};
use stage::{Job, SaveJob, SavePart, Stage};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

/// Rows of one site: `bytes` holds as many items of `shape` as the append has rows.
pub struct SiteInput<'a> {
    /// Name.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Shape of one row's item.
    pub shape: Vec<u64>,
    /// The rows.
    pub bytes: &'a [u8],
}

/// A part of a checkpoint.
pub struct PartInput<'a> {
    /// Name.
    pub name: &'a str,
    /// JSON of the nested state.
    pub tree: &'a str,
    /// JSON of the scalars.
    pub scalars: &'a str,
    /// Tensors in order, with their bytes.
    pub tensors: Vec<(TensorSpec, &'a [u8])>,
}

/// A handle on the log that all writers of this process share, if they agree in their options.
pub struct Writer {
    committer: Arc<Committer>,
    closed: AtomicBool,
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
        Self { committer, closed: AtomicBool::new(false) }
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
        self.check()?;
        for site in sites {
            let width = site.shape.iter().try_fold(1u64, |width, &length| width.checked_mul(length));
            let Some(item) = width.filter(|&width| width <= WIDEST).map(|width| width * site.dtype.size()) else {
                let text = format!("site {:?} has rows of more than {WIDEST} elements", site.name);
                return Err(Error::schema(text).hint("record its parts as sites of their own"));
            };
            if item == 0 {
                return Err(Error::schema(format!("site {:?} has rows of no elements", site.name)));
            }
            if site.bytes.len() as u64 != rows * item {
                let text =
                    format!("site {:?} has {} bytes, {rows} rows take {}", site.name, site.bytes.len(), rows * item);
                return Err(Error::schema(text));
            }
        }
        column::check(rows, columns)?;
        let ids = self.committer.names.resolve(storage, Table::Rows, sites, columns)?;
        self.stage(Table::Rows, rows, sites, columns, &ids)
    }

    /// Stages rows of the examples table.
    pub fn examples(&self, storage: &dyn Storage, rows: u64, columns: &[ColumnInput]) -> Result<Ticket> {
        self.check()?;
        column::check(rows, columns)?;
        let ids = self.committer.names.resolve(storage, Table::Examples, &[], columns)?;
        self.stage(Table::Examples, rows, &[], columns, &ids)
    }

    fn stage(
        &self,
        table: Table,
        rows: u64,
        sites: &[SiteInput],
        columns: &[ColumnInput],
        ids: &declare::Ids,
    ) -> Result<Ticket> {
        let shared = &self.committer.shared;
        let mut stage = shared.lock();
        let mut from = 0;
        while from < rows {
            stage = shared.with_room(stage, 0)?;
            from += stage.fill(table, from, rows, sites, columns, ids);
            shared.work.notify_one();
        }
        Ok(self.staged(stage))
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
        let size: usize = parts.iter().flat_map(|part| &part.tensors).map(|(_, bytes)| bytes.len()).sum();
        let shared = &self.committer.shared;
        // the room is taken before the bytes are copied, which takes a while
        shared.with_room(shared.lock(), size)?.queued += size;
        let copy = |part: &PartInput| SavePart {
            name: part.name.to_owned(),
            tree: part.tree.to_owned(),
            scalars: part.scalars.to_owned(),
            tensors: part.tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.to_vec())).collect(),
        };
        let job = SaveJob { step, time: clock::now(), parts: parts.iter().map(copy).collect() };
        let mut stage = shared.lock();
        stage.check()?;
        stage.queue.push_back(Job::Save(job));
        stage.note(0, size as u64);
        Ok(self.staged(stage))
    }

    /// The ticket of what was just staged.
    fn staged(&self, mut stage: MutexGuard<'_, Stage>) -> Ticket {
        stage.staged += 1;
        stage.note(0, 0);
        let number = stage.staged;
        drop(stage);
        self.committer.shared.work.notify_one();
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
