//! Whether chunks of checkpoints are coded before they are written.
//!
//! Coding takes time and saves the disk some. A chunk becomes planes where its coding takes less time than the disk takes for
//! what it saves, both as measured by this writer; on a disk that is faster than any coder nothing is tried. `compact` codes
//! what was not, and better.

use super::pack::Form;
use lamina_format::DType;
use std::collections::HashMap;
use std::time::Duration;

/// Bytes of which the disk's pace must be known.
const ENOUGH: f64 = (64 << 20) as f64;
/// Bytes of which a dtype's coding must be known.
const SAMPLE: f64 = (4 << 20) as f64;
/// Bytes after which what was measured counts half: the machine's load changes.
const MEMORY: f64 = (1 << 30) as f64;
/// Seconds a byte of a disk that no coder helps: 0.7 GB/s, what a fast one saves of bf16 in a second.
const FAST: f64 = 1.0 / 0.7e9;
/// Of so many chunks that are not coded one is, to see whether that still is right.
const AGAIN: u32 = 64;

#[derive(Default)]
struct Measured {
    bytes: f64,
    saved: f64,
    seconds: f64,
}

impl Measured {
    fn add(&mut self, bytes: usize, saved: usize, took: Duration) {
        if self.bytes > MEMORY {
            (self.bytes, self.saved, self.seconds) = (self.bytes / 2.0, self.saved / 2.0, self.seconds / 2.0);
        }
        self.bytes += bytes as f64;
        self.saved += saved as f64;
        self.seconds += took.as_secs_f64();
    }
}

/// What a writer measured of its disk and of coding.
#[derive(Default)]
pub struct Pace {
    disk: Measured,
    coding: HashMap<DType, Measured>,
    raw: u32,
}

impl Pace {
    /// Writing or syncing took so long.
    pub fn wrote(&mut self, bytes: usize, took: Duration) {
        self.disk.add(bytes, 0, took);
    }

    /// Coding a chunk took so long.
    pub fn coded(&mut self, dtype: DType, raw: usize, stored: usize, took: Duration) {
        self.coding.entry(dtype).or_default().add(raw, raw.saturating_sub(stored), took);
    }

    /// How the next chunk of a dtype shall be written.
    pub fn form(&mut self, dtype: DType) -> Form {
        let disk = self.disk.seconds / self.disk.bytes.max(1.0);
        if self.disk.bytes < ENOUGH || disk < FAST {
            return Form::Raw;
        }
        let known = self.coding.get(&dtype).filter(|known| known.bytes >= SAMPLE);
        if known.is_none_or(|known| known.seconds < known.saved * disk) {
            return Form::Planes;
        }
        self.raw += 1;
        if self.raw.is_multiple_of(AGAIN) { Form::Planes } else { Form::Raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1 << 20;

    /// Forms of a hundred chunks on a disk, with a coder of this many seconds a gigabyte that leaves this much.
    fn coded(disk: f64, coder: f64, left: f64) -> usize {
        let mut pace = Pace::default();
        let seconds = |per_gigabyte: f64| Duration::from_secs_f64(per_gigabyte * MEGABYTE as f64 / 1e9);
        (0..64).for_each(|_| pace.wrote(MEGABYTE, seconds(disk)));
        let chunk = |_: &usize| {
            let planes = pace.form(DType::Bf16) == Form::Planes;
            if planes {
                pace.coded(DType::Bf16, MEGABYTE, (left * MEGABYTE as f64) as usize, seconds(coder));
            }
            planes
        };
        (0..100).filter(chunk).count()
    }

    #[test]
    fn a_slow_disk_is_worth_coding_and_a_fast_one_is_not() {
        assert_eq!(coded(0.5, 0.1, 0.3), 0, "2 GB/s");
        assert_eq!(coded(5.0, 1.0, 0.67), 100, "0.2 GB/s: a third of 5 s is more than 1 s");
        assert_eq!(coded(2.0, 1.0, 0.67), 4 + 1, "0.5 GB/s: it is tried, and tried again");
        assert_eq!(coded(5.0, 1.0, 1.0), 4 + 1, "noise");
    }

    #[test]
    fn little_tells_nothing() {
        let mut pace = Pace::default();
        pace.wrote(63 << 20, Duration::from_secs(100));
        assert!(pace.form(DType::F32) == Form::Raw);
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let mut pace = Pace::default();
        (0..2000).for_each(|_| pace.wrote(MEGABYTE, Duration::from_millis(5)));
        assert!(pace.form(DType::F32) == Form::Planes);
        (0..20_000).for_each(|_| pace.wrote(MEGABYTE, Duration::from_micros(500)));
        assert!(pace.form(DType::F32) == Form::Raw);
    }
}
