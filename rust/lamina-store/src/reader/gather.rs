//! Gathering rows of a site from many groups at once, by several threads.

use super::coded::Scratch;
use super::selection::Place;
use super::site_rows::{SiteRows, Wanted};
use crate::crew;
use crate::storage::prefetch;
use lamina_format::record::Role;
use lamina_format::{Error, Result};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes that a thread copies before it asks for more work.
const SHARE: usize = 256 * 1024;

/// Requests below this are not worth a second thread.
const SMALL: usize = 1 << 20;

/// How many parts a thread keeps the bytes of: more would cost more than they save.
const FEW: usize = 1024;

/// How far ahead of the copy the processor is told of a row, in rows, and of how many of its bytes.
const AHEAD: usize = 3;
const AHEAD_BYTES: usize = 512;

impl SiteRows {
    /// Fills `out` with the rows that are wanted, by at most `threads` threads.
    pub fn gather(&self, wanted: &Wanted, out: &mut [u8], threads: usize) -> Result<()> {
        let (item, count) = (self.row_bytes(), wanted.len() as usize);
        self.check(wanted)?;
        if count.checked_mul(item) != Some(out.len()) {
            return Err(Error::schema(format!("{count} rows of {item} bytes do not fit {} bytes", out.len())));
        }
        if out.is_empty() {
            return Ok(());
        }
        let share = (SHARE / item).max(1);
        let threads = if out.len() < SMALL { 1 } else { threads.clamp(1, count.div_ceil(share)) };
        let work = Mutex::new(out.chunks_mut(share * item).enumerate());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let run = || {
            let mut hand = Hand {
                rows: self,
                whole: Vec::new(),
                places: Vec::new(),
                found: Vec::new(),
                scratch: Scratch::default(),
                copied: 0,
            };
            loop {
                let Some((number, out)) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                let from = number * share;
                let done = match wanted {
                    Wanted::At(positions) => hand.scattered(&positions[from..from + out.len() / item], out),
                    Wanted::Span(span) => {
                        let start = span.start + from as u64;
                        hand.side_by_side(start..start + (out.len() / item) as u64, out)
                    }
                };
                self.snapshot.blobs.count(Role::Site, std::mem::take(&mut hand.copied));
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = done {
                    failed.get_or_insert(error);
                }
                if failed.is_some() {
                    return;
                }
            }
        };
        crew::together(threads - 1, &run);
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// One thread's work, with what it keeps from share to share.
struct Hand<'a> {
    rows: &'a SiteRows,
    /// The bytes of each part, as far as none of them needs a check; kept where the parts are few.
    whole: Vec<&'a [u8]>,
    /// Where the rows of a share are, and their bytes as far as they need no check.
    places: Vec<Place>,
    found: Vec<&'a [u8]>,
    scratch: Scratch,
    /// Bytes of rows that needed no check.
    copied: usize,
}

impl<'a> Hand<'a> {
    /// Copies rows from all over.
    ///
    /// Finding them and copying them are two loops: the second is so short that the processor begins with the next rows while
    /// it still waits for the bytes of the first. In one loop a gather took twice the time.
    fn scattered(&mut self, positions: &[i64], out: &mut [u8]) -> Result<()> {
        self.places.clear();
        for place in self.rows.selection.places(positions) {
            match self.places.last_mut() {
                // neighbors are read together
                Some(last) if last.part == place.part && last.row + last.rows == place.row => last.rows += 1,
                _ => self.places.push(place),
            }
        }
        let item = self.rows.row_bytes();
        if self.whole.is_empty() && self.rows.open.len() <= FEW {
            self.whole.resize(self.rows.open.len(), &[]);
        }
        self.found.clear();
        let mut rest = &mut *out;
        for index in 0..self.places.len() {
            let place = self.places[index];
            let (here, behind) = rest.split_at_mut(place.rows as usize * item);
            let start = place.row as usize * item;
            let whole = self.whole.get(place.part).copied().unwrap_or_default();
            let bytes = match whole.get(start..start + here.len()) {
                Some(bytes) => bytes,
                None => self.found_in(place.part, start, here)?,
            };
            self.found.push(bytes);
            rest = behind;
        }
        for bytes in &self.found[..AHEAD.min(self.found.len())] {
            prefetch(&bytes[..bytes.len().min(AHEAD_BYTES)]);
        }
        let mut at = 0;
        for (number, bytes) in self.found.iter().enumerate() {
            if let Some(next) = self.found.get(number + AHEAD) {
                prefetch(&next[..next.len().min(AHEAD_BYTES)]);
            }
            let length = self.places[number].rows as usize * item;
            if !bytes.is_empty() {
                out[at..at + length].copy_from_slice(bytes);
                self.copied += length;
            }
            at += length;
        }
        Ok(())
    }

    /// The bytes of a row that need no check; others are copied at once, and none are returned.
    #[cold]
    fn found_in(&mut self, part: usize, start: usize, out: &mut [u8]) -> Result<&'a [u8]> {
        let held = self.rows.held(part)?;
        let reader = self.rows.reader(held);
        if let Some(whole) = self.whole.get_mut(part) {
            *whole = reader.trusted_whole().unwrap_or_default();
        }
        match reader.trusted(start, out.len()) {
            Some(bytes) => Ok(bytes),
            None => reader.read(start, out, &mut self.scratch).map(|()| &[][..]),
        }
    }

    /// Copies rows that stand one after another.
    fn side_by_side(&mut self, span: Range<u64>, out: &mut [u8]) -> Result<()> {
        let item = self.rows.row_bytes();
        let mut rest = out;
        for place in self.rows.selection.runs(span) {
            let (here, behind) = rest.split_at_mut(place.rows as usize * item);
            let reader = self.rows.reader(self.rows.held(place.part)?);
            let start = place.row as usize * item;
            match reader.trusted(start, here.len()) {
                Some(bytes) => {
                    here.copy_from_slice(bytes);
                    self.copied += here.len();
                }
                None => reader.read(start, here, &mut self.scratch)?,
            }
            rest = behind;
        }
        Ok(())
    }
}
