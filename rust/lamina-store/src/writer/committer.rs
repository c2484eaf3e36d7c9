//! The owner of one log: its thread, and what all handles on it share.
//!
//! Two syncs can be shared only by what stands in one log, so all writers of a process that agree in their options are
//! handles on one committer. While it makes a durable point, what the others stage and wait for gathers, and shares the
//! next one.

use super::attach::Attaching;
use super::declare::Names;
use super::journal::Journal;
use super::options::Options;
use super::shared::Shared;
use super::worker::Worker;
use crate::clock;
use crate::storage::{Log, Storage};
use lamina_format::record::{Op, Open};
use lamina_format::runfile::RunFile;
use lamina_format::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What the handles on one log share.
pub struct Committer {
    pub ordinal: u32,
    pub shared: Arc<Shared>,
    pub names: Names,
    pub storage: Arc<dyn Storage>,
    attaching: Mutex<Attaching>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Opens the first free log of the run, with one handle on it.
    pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Self> {
        RunFile::decode(&storage.run_json()?).map_err(|error| error.in_file("run.json"))?;
        let (ordinal, log) = claim(storage.as_ref())?;
        let mut journal = Journal::new(Arc::clone(&storage), ordinal, log);
        let (host, pid, rank) = (clock::host(), std::process::id(), options.rank);
        journal.append(vec![Op::Open(Open {
            host,
            pid,
            rank,
            time: clock::now(),
            uuid: clock::unique(),
            work: None,
        })])?;
        let names = Names::read(storage.as_ref(), ordinal)?;
        let shared = Arc::new(Shared::new(options));
        let worker = Worker::new(Arc::clone(&storage), ordinal, names.declared(), journal, Arc::clone(&shared));
        let guard = Guard(Arc::clone(&shared));
        let work = move || {
            let guard = guard;
            worker.run();
            drop(guard);
        };
        let thread = std::thread::Builder::new().name(format!("lamina-writer-{ordinal}")).spawn(work);
        let thread = thread
            .map_err(|error| Error::new(ErrorKind::Writer, format!("cannot start the writer's thread: {error}")))?;
        let attaching = Mutex::default();
        Ok(Self { ordinal, shared, names, storage, attaching, thread: Mutex::new(Some(thread)) })
    }

    /// What is known of rows that sites may be attached to.
    pub fn attaching(&self) -> MutexGuard<'_, Attaching> {
        self.attaching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more handle; false if the log is closed or can take nothing any more.
    pub fn join(&self) -> bool {
        if self.shared.inherited() {
            return false;
        }
        let mut stage = self.shared.lock();
        let open = stage.check().is_ok();
        stage.handles += usize::from(open);
        open
    }

    /// Ends one handle: makes everything durable and, with the last handle, seals and ends the log.
    pub fn leave(&self, error: Option<String>) -> Result<()> {
        let (last, staged) = {
            let mut stage = self.shared.lock();
            stage.errors.extend(error);
            stage.handles -= 1;
            stage.closing |= stage.handles == 0;
            (stage.closing, stage.staged)
        };
        if !last {
            return self.shared.wait_durable(staged);
        }
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // a panic of the thread has become the failure
            let _ = thread.join();
        }
        self.shared.lock().failure.clone().map_or(Ok(()), Err)
    }
}

/// Tells those who wait if the thread ends as nobody planned.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().fail(Error::new(ErrorKind::Writer, "the writer's thread ended unexpectedly"));
            self.0.tell();
        }
    }
}

/// The first free log of the run.
pub(crate) fn claim(storage: &dyn Storage) -> Result<(u32, Box<dyn Log>)> {
    let mut ordinal = storage.logs()?.last().map_or(0, |&(writer, _)| writer + 1);
    loop {
        // a power cut may leave a fence and take the log
        if !storage.fenced(ordinal)?
            && let Some(log) = storage.create_log(ordinal, 0)?
        {
            return Ok((ordinal, log));
        }
        ordinal += 1;
    }
}
