//! How a writer is opened: for whom, when it makes durable points, and what it does while its queue is full.

use std::time::{Duration, Instant};

/// What an append does while the queue is full. Examples, metrics and checkpoints always wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Full {
    /// It waits for the disk.
    #[default]
    Block,
    /// Its rows are left out, counted and recorded.
    Drop,
    /// It is an error, and nothing of it is staged.
    Raise,
}

/// When what is staged becomes durable unasked: as soon as one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Durability {
    /// Rows staged since the last durable point.
    pub rows: Option<u64>,
    /// Bytes staged since then, checkpoints included.
    pub bytes: Option<u64>,
    /// The age of the oldest of it.
    pub every: Option<Duration>,
}

impl Default for Durability {
    fn default() -> Self {
        Self { rows: None, bytes: None, every: Some(Duration::from_secs(1)) }
    }
}

/// All of it. Writers of one process share a log only if they agree in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// The rank in a distributed job.
    pub rank: Option<i64>,
    /// What an append does while the queue is full.
    pub full: Full,
    /// When durable points are made.
    pub durable: Durability,
}

/// What was staged since the last durable point.
#[derive(Default)]
pub struct Fresh {
    pub rows: u64,
    pub bytes: u64,
    /// When the oldest of it was staged.
    pub since: Option<Instant>,
}

impl Fresh {
    /// How long it may still wait: zero if a durable point is due, None if only a request can make it so.
    pub fn patience(&self, durable: &Durability) -> Option<Duration> {
        let since = self.since?;
        let reached = |limit: Option<u64>, amount| limit.is_some_and(|limit| amount >= limit);
        if reached(durable.rows, self.rows) || reached(durable.bytes, self.bytes) {
            return Some(Duration::ZERO);
        }
        durable.every.map(|every| every.saturating_sub(since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_that_is_reached_makes_it_due() {
        let durable = Durability { rows: Some(10), bytes: Some(100), every: Some(Duration::from_secs(1000)) };
        let fresh =
            |rows, bytes, age| Fresh { rows, bytes, since: Instant::now().checked_sub(Duration::from_secs(age)) };
        assert_eq!(Fresh::default().patience(&durable), None);
        assert!(fresh(9, 99, 0).patience(&durable) > Some(Duration::from_secs(900)));
        assert_eq!(fresh(10, 0, 0).patience(&durable), Some(Duration::ZERO));
        assert_eq!(fresh(0, 100, 0).patience(&durable), Some(Duration::ZERO));
        let impatient = Durability { every: Some(Duration::ZERO), ..durable };
        assert_eq!(fresh(0, 0, 0).patience(&impatient), Some(Duration::ZERO));
        assert_eq!(fresh(9, 99, 5).patience(&Durability { every: None, ..durable }), None);
    }
}
