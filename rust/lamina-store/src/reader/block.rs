//! Reading blocks: by position, verified when first touched.

use crate::storage::{Ranges, Storage};
use lamina_format::checksum::PIECE;
use lamina_format::record::{Block, Role};
use lamina_format::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The open files, and how much was read from them.
#[derive(Default)]
pub struct Blobs {
    open: Mutex<HashMap<String, Arc<dyn Ranges>>>,
    metadata_bytes: AtomicU64,
    site_bytes: AtomicU64,
}

impl Blobs {
    /// An open file; it stays open, so that a reader keeps what it has seen.
    pub fn get(&self, storage: &dyn Storage, file: &str) -> Result<Arc<dyn Ranges>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ranges) = open.get(file) {
            return Ok(Arc::clone(ranges));
        }
        let ranges: Arc<dyn Ranges> = Arc::from(storage.open_blob(file)?);
        open.insert(file.to_owned(), Arc::clone(&ranges));
        Ok(ranges)
    }

    pub fn bytes_read(&self) -> (u64, u64) {
        (self.metadata_bytes.load(Ordering::Relaxed), self.site_bytes.load(Ordering::Relaxed))
    }

    fn count(&self, role: Role, bytes: usize) {
        let counter = if role == Role::Site { &self.site_bytes } else { &self.metadata_bytes };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Which pieces of a block were found good: a bit each.
pub struct Verified(Box<[AtomicU64]>);

impl Verified {
    pub fn new(block: &Block) -> Self {
        Self((0..(block.crcs.len() / 4).div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn has(&self, piece: usize) -> bool {
        self.0[piece / 64].load(Ordering::Relaxed) >> (piece % 64) & 1 == 1
    }

    fn set(&self, piece: usize) {
        self.0[piece / 64].fetch_or(1 << (piece % 64), Ordering::Relaxed);
    }
}

/// A block of one file, with what is known of it.
pub struct BlockReader<'a> {
    pub blobs: &'a Blobs,
    pub ranges: Arc<dyn Ranges>,
    pub file: &'a str,
    pub block: &'a Block,
    pub verified: &'a Verified,
}

impl BlockReader<'_> {
    /// Fills `out` from byte `start` of the block.
    pub fn read(&self, start: usize, out: &mut [u8]) -> Result<()> {
        let mut at = start;
        let end = start + out.len();
        if end as u64 > self.block.length {
            return Err(self.damaged("the block is shorter than its rows", self.block.length));
        }
        let mut scratch = Vec::new();
        while at < end {
            let first = at / PIECE;
            if self.has(first) {
                let mut last = first + 1;
                while last * PIECE < end && self.has(last) {
                    last += 1;
                }
                let stop = end.min(last * PIECE);
                self.fetch(at, &mut out[at - start..stop - start])?;
                at = stop;
                continue;
            }
            let (piece, stop) = (first * PIECE, (self.block.length as usize).min((first + 1) * PIECE));
            let to = end.min(stop);
            if at == piece && to == stop {
                let whole = &mut out[at - start..to - start];
                self.fetch(piece, whole)?;
                self.verify(first, whole)?;
            } else {
                scratch.resize(stop - piece, 0);
                self.fetch(piece, &mut scratch)?;
                self.verify(first, &scratch)?;
                out[at - start..to - start].copy_from_slice(&scratch[at - piece..to - piece]);
            }
            at = to;
        }
        Ok(())
    }

    /// Refuses a block that the file is too short for, before anything is allocated for it.
    pub fn check_length(&self) -> Result<()> {
        if self.block.offset + self.block.length > self.ranges.length()? {
            return Err(self.damaged("the file is shorter than what was acknowledged", 0));
        }
        Ok(())
    }

    /// All of the block.
    pub fn all(&self) -> Result<Vec<u8>> {
        self.check_length()?;
        let length = self.block.length;
        let mut bytes = vec![0; length as usize];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    fn has(&self, piece: usize) -> bool {
        (piece + 1) * 4 <= self.block.crcs.len() && self.verified.has(piece)
    }

    fn fetch(&self, at: usize, out: &mut [u8]) -> Result<()> {
        self.blobs.count(self.block.role, out.len());
        self.ranges.read(self.block.offset + at as u64, out)
    }

    fn verify(&self, piece: usize, bytes: &[u8]) -> Result<()> {
        let stored = self.block.crcs.get(4 * piece..4 * piece + 4);
        if stored != Some(&crc32c::crc32c(bytes).to_le_bytes()) {
            return Err(self.damaged("the bytes do not match their checksum", (piece * PIECE) as u64));
        }
        self.verified.set(piece);
        Ok(())
    }

    fn damaged(&self, text: &str, at: u64) -> Error {
        Error::damaged(text)
            .in_file(self.file)
            .at(self.block.offset + at)
            .hint("the other rows are readable; restore this file from a copy, or record again")
    }
}
