//! What became of something that was staged.

use super::shared::Shared;
use super::stage::Stage;
use lamina_format::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// Where something staged has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Copied; the caller's buffers are free.
    Staged,
    /// Handed to the operating system.
    Written,
    /// There after a power cut.
    Durable,
    /// Lost, with the writer.
    Failed,
    /// Never staged: the queue was full.
    Dropped,
}

/// Told once: that something is durable, or why it never will be.
pub type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// The ticket of one call: everything staged up to it becomes durable together.
#[derive(Clone)]
pub struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    dropped: bool,
}

impl Ticket {
    pub(super) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self { shared, number, dropped: false }
    }

    /// That of a call whose rows were dropped.
    pub(super) fn dropped(self) -> Self {
        Self { dropped: true, ..self }
    }

    fn outcome(&self, stage: &Stage) -> Option<Result<()>> {
        if self.dropped {
            let error = Error::new(ErrorKind::QueueFull, "the rows were dropped: the writer's queue was full");
            return Some(Err(error.hint("full=\"block\" waits for the disk; run.status counts what was dropped")));
        }
        stage.outcome(self.number)
    }

    /// Where it has got to.
    pub fn state(&self) -> State {
        if self.dropped {
            return State::Dropped;
        }
        if self.shared.inherited() {
            return State::Failed;
        }
        let stage = self.shared.lock();
        match stage.outcome(self.number) {
            Some(Ok(())) => State::Durable,
            Some(Err(_)) => State::Failed,
            None if stage.written >= self.number => State::Written,
            None => State::Staged,
        }
    }

    /// Why it was lost.
    pub fn error(&self) -> Option<Error> {
        if let Err(error) = self.shared.check_process() {
            return Some(error);
        }
        self.outcome(&self.shared.lock()).and_then(Result::err)
    }

    /// Asks for a durable point and waits at most so long: true when durable.
    pub fn wait(&self, patience: Duration) -> Result<bool> {
        self.shared.check_process()?;
        let mut stage = self.shared.lock();
        if self.outcome(&stage).is_none() {
            stage.request(self.number);
            self.shared.work.notify_all();
            stage = self.shared.wait_done(stage, patience, |stage| self.outcome(stage).is_none());
        }
        self.outcome(&stage).map_or(Ok(false), |outcome| outcome.map(|()| true))
    }

    /// Asks for a durable point; `call` is told, by a thread that does nothing else.
    pub fn on_done(&self, call: Callback) -> Result<()> {
        self.shared.check_process()?;
        let mut stage = self.shared.lock();
        if let Some(outcome) = self.outcome(&stage) {
            drop(stage);
            call(outcome);
            return Ok(());
        }
        stage.request(self.number);
        self.shared.work.notify_all();
        stage.watchers.waiting.push((self.number, call));
        if !stage.watchers.running {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("lamina-tickets".to_owned());
            thread
                .spawn(move || tell_watchers(&shared))
                .map_err(|error| Error::new(ErrorKind::Writer, format!("cannot start a thread: {error}")))?;
            stage.watchers.running = true;
        }
        Ok(())
    }
}

/// Who is to be told of what became durable. One thread a committer tells them all; it starts with the first.
#[derive(Default)]
pub struct Watchers {
    waiting: Vec<(u64, Callback)>,
    running: bool,
}

impl Stage {
    fn settled(&mut self) -> Vec<(Callback, Result<()>)> {
        let (mut settled, mut waiting) = (Vec::new(), Vec::new());
        for (number, call) in std::mem::take(&mut self.watchers.waiting) {
            match self.outcome(number) {
                Some(outcome) => settled.push((call, outcome)),
                None => waiting.push((number, call)),
            }
        }
        self.watchers.waiting = waiting;
        settled
    }
}

/// Sleeps until something is settled and tells it; ends with the committer.
fn tell_watchers(shared: &Shared) {
    let over = |stage: &Stage| stage.failure.is_some() || (stage.closing && stage.durable >= stage.staged);
    let idle = |stage: &Stage| {
        !over(stage) && stage.watchers.waiting.iter().all(|(number, _)| stage.outcome(*number).is_none())
    };
    loop {
        let mut stage = shared.wait_done(shared.lock(), Duration::from_secs(3600), idle);
        let settled = stage.settled();
        if settled.is_empty() && over(&stage) {
            stage.watchers.running = false;
            return;
        }
        drop(stage);
        settled.into_iter().for_each(|(call, outcome)| call(outcome));
    }
}
