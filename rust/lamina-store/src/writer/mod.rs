//! A writer's life: it stages on the caller's thread and writes on its own.
//!
//! [`Writer::append`] copies into pooled staging and returns a [`Ticket`]. The writer's thread cuts row groups,
//! writes them, and makes durable points: data, sync, frame, sync, acknowledge.

mod column;
mod declare;
mod group;
mod journal;
mod metrics;
mod pack;
mod segment;
mod stage;
mod ticket;
mod worker;

pub use column::{ColumnInput, Values};
pub use ticket::{State, Ticket};

use crate::clock;
use crate::storage::{Log, Storage};
use declare::Names;
use journal::Journal;
use lamina_format::record::{Op, Open, Table, TensorSpec};
use lamina_format::segment::WIDEST;
use lamina_format::{DType, Error, ErrorKind, Result};
use stage::{Job, SaveJob, SavePart, Shared};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
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

/// One owner of one log.
pub struct Writer {
    ordinal: u32,
    shared: Arc<Shared>,
    names: Names,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Opens the first free log of the run.
    pub fn open(storage: Arc<dyn Storage>, rank: Option<i64>) -> Result<Self> {
        lamina_format::runfile::RunFile::decode(&storage.run_json()?).map_err(|error| error.in_file("run.json"))?;
        let (ordinal, log) = claim(storage.as_ref())?;
        let mut journal = Journal::new(log);
        let open =
            Open { host: clock::host(), pid: std::process::id(), rank, time: clock::now(), uuid: clock::unique() };
        journal.append(vec![Op::Open(open)])?;
        let names = Names::read(storage.as_ref(), ordinal)?;
        let shared = Arc::new(Shared::default());
        let worker = worker::Worker::new(storage, ordinal, names.declared(), journal, Arc::clone(&shared));
        let thread =
            std::thread::Builder::new()
                .name(format!("lamina-writer-{ordinal}"))
                .spawn(move || worker.run())
                .map_err(|error| Error::new(ErrorKind::Writer, format!("cannot start the writer's thread: {error}")))?;
        Ok(Self { ordinal, shared, names, thread: Mutex::new(Some(thread)) })
    }

    /// Which writer of the run this is; the upper bits of its row names.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Whether it was closed.
    pub fn closed(&self) -> bool {
        self.shared.lock().closing.is_some()
    }

    /// Stages `rows` rows of every site; all share the metadata columns.
    pub fn append(
        &self,
        storage: &dyn Storage,
        rows: u64,
        sites: &[SiteInput],
        columns: &[ColumnInput],
    ) -> Result<Ticket> {
        self.shared.check()?;
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
        let ids = self.names.resolve(storage, Table::Rows, sites, columns)?;
        self.stage(Table::Rows, rows, sites, columns, &ids)
    }

    /// Stages rows of the examples table.
    pub fn examples(&self, storage: &dyn Storage, rows: u64, columns: &[ColumnInput]) -> Result<Ticket> {
        self.shared.check()?;
        column::check(rows, columns)?;
        let ids = self.names.resolve(storage, Table::Examples, &[], columns)?;
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
        let mut stage = self.shared.lock();
        let mut from = 0;
        while from < rows {
            stage = self.shared.with_room(stage, 0)?;
            from += stage.fill(table, from, rows, sites, columns, ids);
            self.shared.work.notify_one();
        }
        stage.staged += 1;
        stage.note();
        let number = stage.staged;
        drop(stage);
        self.shared.work.notify_one();
        Ok(Ticket::new(Arc::clone(&self.shared), number))
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
        self.shared.check()?;
        let mut stage = self.shared.lock();
        for (name, value) in values {
            stage.metrics.push(step, time, *value, name, site, source);
        }
        stage.staged += 1;
        stage.note();
        drop(stage);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Stages a checkpoint.
    pub fn save(&self, step: i64, parts: &[PartInput]) -> Result<Ticket> {
        self.shared.check()?;
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
        drop(self.shared.with_room(self.shared.lock(), size)?);
        let copy = |part: &PartInput| SavePart {
            name: part.name.to_owned(),
            tree: part.tree.to_owned(),
            scalars: part.scalars.to_owned(),
            tensors: part.tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.to_vec())).collect(),
        };
        let job = SaveJob { step, time: clock::now(), parts: parts.iter().map(copy).collect() };
        let mut stage = self.shared.lock();
        stage.queued += size;
        stage.queue.push_back(Job::Save(job));
        stage.staged += 1;
        stage.note();
        let number = stage.staged;
        drop(stage);
        self.shared.work.notify_one();
        Ok(Ticket::new(Arc::clone(&self.shared), number))
    }

    /// A ticket for everything staged so far.
    pub fn flush(&self) -> Ticket {
        let number = self.shared.lock().staged;
        Ticket::new(Arc::clone(&self.shared), number)
    }

    /// Makes everything durable, seals, writes the close record and ends the thread.
    pub fn close(&self, error: Option<String>) -> Result<()> {
        {
            let mut stage = self.shared.lock();
            stage.closing.get_or_insert(error);
        }
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            None => Ok(()),
            Some(thread) => {
                let panicked = thread.join().is_err();
                let failure = self.shared.lock().failure.clone();
                let lost = || Error::new(ErrorKind::Writer, "the writer's thread ended unexpectedly");
                failure.or_else(|| panicked.then(lost)).map_or(Ok(()), Err)
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // nobody is left to tell; what was acknowledged stays
        let _ = self.close(Some("the writer was dropped before it was closed".to_owned()));
    }
}

/// How long a ticket's wait sleeps before it lets the caller look for interrupts.
pub const PATIENCE: Duration = Duration::from_millis(50);

fn claim(storage: &dyn Storage) -> Result<(u32, Box<dyn Log>)> {
    let mut ordinal = storage.logs()?.last().map_or(0, |&(writer, _)| writer + 1);
    loop {
        if let Some(log) = storage.create_log(ordinal, 0)? {
            return Ok((ordinal, log));
        }
        ordinal += 1;
    }
}
