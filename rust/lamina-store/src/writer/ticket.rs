//! What became of something that was staged.

use super::stage::Shared;
use lamina_format::{Error, Result};
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
}

/// The ticket of one call: everything staged up to it becomes durable together.
#[derive(Clone)]
pub struct Ticket {
    shared: Arc<Shared>,
    number: u64,
}

impl Ticket {
    pub(super) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self { shared, number }
    }

    /// Where it has got to.
    pub fn state(&self) -> State {
        let stage = self.shared.lock();
        match () {
            () if stage.durable >= self.number => State::Durable,
            () if stage.failure.is_some() => State::Failed,
            () if stage.written >= self.number => State::Written,
            () => State::Staged,
        }
    }

    /// Why it was lost.
    pub fn error(&self) -> Option<Error> {
        let stage = self.shared.lock();
        (stage.durable < self.number).then(|| stage.failure.clone()).flatten()
    }

    /// Asks for a durable point and waits at most so long: true when durable.
    pub fn wait(&self, patience: Duration) -> Result<bool> {
        let mut stage = self.shared.lock();
        stage.requested = stage.requested.max(self.number);
        self.shared.work.notify_all();
        let reached = |stage: &super::stage::Stage| stage.durable >= self.number;
        if !reached(&stage) && stage.failure.is_none() {
            stage = self.shared.wait_done(stage, patience, |stage| !reached(stage) && stage.failure.is_none());
        }
        if reached(&stage) {
            return Ok(true);
        }
        stage.failure.clone().map_or(Ok(false), Err)
    }
}
