//! The stage behind its lock, and the conditions on it.

use super::options::Options;
use super::spare::Spare;
use super::stage::Stage;
use lamina_format::{Error, ErrorKind, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the callers, the committer's thread and the tickets share.
pub struct Shared {
    process: u32,
    pub options: Options,
    stage: Mutex<Stage>,
    /// Memory for checkpoints.
    pub spare: Mutex<Spare>,
    /// There is work, or a request.
    pub work: Condvar,
    /// The queue became shorter.
    pub room: Condvar,
    /// Something became durable, failed or ended.
    done: Condvar,
}

impl Shared {
    pub fn new(options: Options) -> Self {
        let stage = Mutex::new(Stage::new(options.durable));
        let (spare, work, room, done) = Default::default();
        Self { process: std::process::id(), options, stage, spare, work, room, done }
    }

    /// Whether this process is a fork of the one that opened the log. It has no thread that works, and a thread that is
    /// not there may hold the lock: nothing may be touched.
    pub fn inherited(&self) -> bool {
        std::process::id() != self.process
    }

    /// An error in a fork.
    pub fn check_process(&self) -> Result<()> {
        if self.inherited() {
            let text = "the writer was opened before this process was forked";
            return Err(Error::new(ErrorKind::Writer, text).hint("open one in each process, with run.writer()"));
        }
        Ok(())
    }

    /// The stage. A caller that panicked while it held the lock cannot have left it half changed in a way that
    /// matters: every field is valid at every time.
    pub fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if nothing can be staged any more.
    pub fn check(&self) -> Result<()> {
        self.lock().check()
    }

    /// Waits as long as the queue is too full.
    pub fn with_room<'a>(
        &self,
        stage: MutexGuard<'a, Stage>,
        full: impl Fn(&Stage) -> bool,
    ) -> Result<MutexGuard<'a, Stage>> {
        let must_wait = |stage: &mut Stage| stage.failure.is_none() && !stage.closing && full(stage);
        let stage = self.room.wait_while(stage, must_wait).unwrap_or_else(PoisonError::into_inner);
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

    /// Asks for a durable point of everything up to `number` and waits for it.
    pub fn wait_durable(&self, number: u64) -> Result<()> {
        let mut stage = self.lock();
        stage.request(number);
        self.work.notify_all();
        while stage.outcome(number).is_none() {
            stage = self.done.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        stage.outcome(number).unwrap_or(Ok(()))
    }

    /// Tells everybody who waits that something changed.
    pub fn tell(&self) {
        self.done.notify_all();
        self.room.notify_all();
    }
}
