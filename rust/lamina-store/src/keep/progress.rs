//! How far long work has got, seen from another thread, and how it is asked to stop.

use lamina_format::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by whoever works and whoever watches.
#[derive(Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// Bytes done, and bytes to do as far as that is known.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Asks the work to stop at the next safe place.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An error if it was asked to stop.
    pub(super) fn check(&self) -> Result<()> {
        let stopped = || Error::new(ErrorKind::Storage, "the work was stopped before its end");
        if self.stopped() { Err(stopped().hint("start it again; what was done stays done")) } else { Ok(()) }
    }
}
