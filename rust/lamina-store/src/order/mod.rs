//! Orders of an epoch: which row comes when, as a function of seed, epoch and place, in constant memory.

mod permutation;

pub use permutation::Permutation;

use lamina_format::{Error, Result};
use std::ops::Range;

/// The order in which the rows 0 to n - 1 come.
pub struct Order {
    n: u64,
    how: How,
}

enum How {
    Stored,
    Exact(Permutation),
    Block(Blocks),
}

/// Runs of neighbors in permuted order, their rows shuffled within windows of several runs.
struct Blocks {
    n: u64,
    /// Rows of a run; the last run of the rows may be shorter.
    run: u64,
    /// Runs of a window.
    window: u64,
    runs: Permutation,
    /// When the last run comes, and how many rows it lacks.
    short: (u64, u64),
    seed: Vec<u8>,
}

impl Order {
    /// As they lie.
    pub fn stored(n: u64) -> Self {
        Self { n, how: How::Stored }
    }

    /// In any order alike.
    pub fn exact(n: u64, seed: i64, epoch: u64) -> Self {
        Self { n, how: How::Exact(Permutation::new(n, &text("exact", seed, epoch))) }
    }

    /// Runs of `run` rows in permuted order, shuffled through windows of `window` rows.
    pub fn block(n: u64, seed: i64, epoch: u64, run: u64, window: u64) -> Result<Self> {
        if run == 0 || window < run {
            return Err(Error::schema(format!("a window of {window} rows and runs of {run}")));
        }
        let runs = Permutation::new(n.div_ceil(run), &text("runs", seed, epoch));
        let last = n.div_ceil(run).saturating_sub(1);
        let short = if n == 0 { (0, 0) } else { (runs.inverse(last), (last + 1) * run - n) };
        let seed = text("window", seed, epoch);
        Ok(Self { n, how: How::Block(Blocks { n, run, window: window / run, runs, short, seed }) })
    }

    /// How many rows there are.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The rows that come at these places.
    pub fn rows(&self, places: Range<u64>) -> Result<Vec<i64>> {
        if places.end > self.n || places.start > places.end {
            return Err(Error::schema(format!("places {} to {} of {} rows", places.start, places.end, self.n)));
        }
        Ok(match &self.how {
            How::Stored => places.map(|place| place as i64).collect(),
            How::Exact(permutation) => places.map(|place| permutation.at(place) as i64).collect(),
            How::Block(blocks) => blocks.rows(places),
        })
    }

    /// The next places, from the one given, whose rows lie in few runs, and those runs: what is worth reading ahead.
    pub fn ahead(&self, place: u64, most: u64) -> (Range<u64>, Vec<Range<u64>>) {
        match &self.how {
            _ if place >= self.n => (self.n..self.n, Vec::new()),
            How::Stored => {
                let places = place..self.n.min(place + most);
                (places.clone(), vec![places])
            }
            // a permutation gives no runs
            How::Exact(_) => (place..self.n, Vec::new()),
            How::Block(blocks) => {
                let (window, places) = blocks.window_at(place);
                (places, blocks.ranks(window).map(|rank| blocks.rows_of(rank)).collect())
            }
        }
    }
}

/// What names a permutation: its purpose, the seed, the epoch.
fn text(purpose: &str, seed: i64, epoch: u64) -> Vec<u8> {
    [b"lamina order ", purpose.as_bytes(), b" ", &seed.to_le_bytes(), &epoch.to_le_bytes()].concat()
}

impl Blocks {
    /// The place of the first row of the run that comes as number `rank`.
    fn start(&self, rank: u64) -> u64 {
        rank * self.run - if rank > self.short.0 { self.short.1 } else { 0 }
    }

    fn rank_at(&self, place: u64) -> u64 {
        let behind = place >= self.start(self.short.0 + 1);
        (if behind { place + self.short.1 } else { place }) / self.run
    }

    /// The rows of the run that comes as number `rank`.
    fn rows_of(&self, rank: u64) -> Range<u64> {
        let first = self.runs.at(rank) * self.run;
        first..self.n.min(first + self.run)
    }

    /// The runs of a window, by when they come.
    fn ranks(&self, window: u64) -> Range<u64> {
        window * self.window..((window + 1) * self.window).min(self.n.div_ceil(self.run))
    }

    /// The window that a place lies in, and all its places.
    fn window_at(&self, place: u64) -> (u64, Range<u64>) {
        let window = self.rank_at(place) / self.window;
        let ranks = self.ranks(window);
        (window, self.start(ranks.start)..self.start(ranks.end).min(self.n))
    }

    fn rows(&self, places: Range<u64>) -> Vec<i64> {
        let mut rows = Vec::with_capacity((places.end - places.start) as usize);
        let mut at = places.start;
        while at < places.end {
            let (window, all) = self.window_at(at);
            let inside = Permutation::new(all.end - all.start, &[self.seed.as_slice(), &window.to_le_bytes()].concat());
            let end = places.end.min(all.end);
            rows.extend((at..end).map(|place| {
                let source = all.start + inside.at(place - all.start);
                let rank = self.rank_at(source);
                (self.runs.at(rank) * self.run + source - self.start(rank)) as i64
            }));
            at = end;
        }
        rows
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all(order: &Order) -> Vec<i64> {
        order.rows(0..order.len()).unwrap()
    }

    #[test]
    fn every_order_has_every_row_once_and_reads_alike_from_any_place() {
        for n in [0, 1, 7, 64, 1000, 5003] {
            for order in [Order::stored(n), Order::exact(n, 5, 2), Order::block(n, 5, 2, 16, 100).unwrap()] {
                let rows = all(&order);
                let mut sorted = rows.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..n as i64), "n = {n}");
                let pieces = (0..n).step_by(37).flat_map(|at| order.rows(at..n.min(at + 37)).unwrap());
                assert!(pieces.eq(rows), "n = {n}");
                assert!(order.rows(0..n + 1).is_err());
            }
        }
    }

    #[test]
    fn a_window_holds_whole_runs_and_is_told_ahead() {
        let order = Order::block(1003, 1, 0, 10, 45).unwrap();
        let rows = all(&order);
        let (mut place, mut windows, mut short) = (0, 0, 0);
        while place < 1003 {
            let (places, runs) = order.ahead(place, 0);
            assert_eq!(places.start, place);
            assert!(runs.len() == 4 || places.end == 1003, "45 rows are four whole runs");
            let mut here = rows[places.start as usize..places.end as usize].to_vec();
            let told: Vec<i64> = runs.iter().cloned().flatten().map(|row| row as i64).collect();
            assert_ne!(here, told, "rows of a window are shuffled");
            here.sort_unstable();
            let mut sorted = told;
            sorted.sort_unstable();
            assert_eq!(here, sorted);
            short += runs.iter().filter(|run| run.end - run.start < 10).count();
            (place, windows) = (places.end, windows + 1);
        }
        assert_eq!((windows, short), (26, 1));
    }

    #[test]
    fn seed_and_epoch_change_the_order_and_nothing_else_does() {
        for make in [
            |seed, epoch| Order::exact(5000, seed, epoch),
            |seed, epoch| Order::block(5000, seed, epoch, 8, 64).unwrap(),
        ] {
            let rows = all(&make(1, 0));
            assert_eq!(rows, all(&make(1, 0)));
            assert_ne!(rows, all(&make(2, 0)));
            assert_ne!(rows, all(&make(1, 1)));
        }
    }

    #[test]
    fn an_order_of_more_than_32_bits_of_rows() {
        let n = (1 << 33) + 5;
        let order = Order::block(n, 0, 0, 170, 17_000).unwrap();
        let rows = order.rows(n - 50..n).unwrap();
        assert!(rows.iter().all(|&row| (0..n as i64).contains(&row)));
        assert!(order.rows(0..2000).unwrap().iter().any(|&row| row > 1 << 32));
    }
}
