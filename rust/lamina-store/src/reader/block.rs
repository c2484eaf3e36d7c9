//! Reading blocks: from a map or by position, verified when first touched.

use super::access::{Access, Io, Verify};
use super::coded::{Coding, Scratch};
use super::verified::Verified;
use crate::chain::Chain;
use crate::storage::{Mapped, Ranges, Storage};
use lamina_format::checksum::PIECE;
use lamina_format::record::{Block, Op, Role};
use lamina_format::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The open files, how they are read, and how much was read from them.
#[derive(Default)]
pub struct Blobs {
    pub access: Access,
    open: Mutex<HashMap<String, Arc<dyn Ranges>>>,
    metadata_bytes: AtomicU64,
    site_bytes: AtomicU64,
    chunk_bytes: AtomicU64,
}

/// A file that is open for reading a block of it.
pub struct OpenFile {
    pub ranges: Arc<dyn Ranges>,
    /// Its bytes, if they are mapped.
    pub map: Option<Arc<Mapped>>,
    /// How the block is coded, if it is.
    pub coding: Option<Coding>,
}

impl Blobs {
    /// An open file; it stays open, so that a reader keeps what it has seen.
    pub fn get(&self, storage: &dyn Storage, file: &str) -> Result<Arc<dyn Ranges>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ranges) = open.get(file) {
            return Ok(Arc::clone(ranges));
        }
        let opened = storage.open_blob(file).map_err(|error| expired(storage, file, error));
        let ranges: Arc<dyn Ranges> = Arc::from(opened?);
        open.insert(file.to_owned(), Arc::clone(&ranges));
        Ok(ranges)
    }

    /// An open file for reading a block of it, which must not reach beyond the file's end. Blocks of metadata are read
    /// whole and copied anyway: they are never mapped.
    pub fn open(&self, storage: &dyn Storage, file: &str, block: &Block) -> Result<OpenFile> {
        let ranges = self.get(storage, file)?;
        let end = block.offset.saturating_add(block.length);
        if end > ranges.length()? {
            let error = Error::damaged("the file is shorter than what was acknowledged");
            return Err(error.in_file(file).at(block.offset).hint(HINT));
        }
        let wanted = match self.access.io {
            _ if !block.role.is_site() || block.length == 0 => false,
            Io::Auto => !ranges.is_remote(),
            Io::Mmap => true,
            Io::Pread => false,
        };
        let map = match if wanted { ranges.map(end) } else { Ok(None) } {
            // what cannot be mapped can still be read, unless the caller insists
            Err(_) if self.access.io == Io::Auto => None,
            map => map?,
        };
        Ok(OpenFile { ranges, map, coding: None })
    }

    pub fn bytes_read(&self) -> (u64, u64) {
        (self.metadata_bytes.load(Ordering::Relaxed), self.site_bytes.load(Ordering::Relaxed))
    }

    pub fn chunk_bytes_read(&self) -> u64 {
        self.chunk_bytes.load(Ordering::Relaxed)
    }

    pub fn count_chunks(&self, bytes: usize) {
        self.chunk_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn count(&self, role: Role, bytes: usize) {
        let counter = if role.is_site() { &self.site_bytes } else { &self.metadata_bytes };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

const HINT: &str = "the other rows are readable; restore this file from a copy, or record again";

/// A file that is not there may have been reclaimed since the snapshot was opened.
fn expired(storage: &dyn Storage, file: &str, error: Error) -> Error {
    let dropped = |op: &Op| matches!(op, Op::Drop(files) if files.files.iter().any(|name| name == file));
    let chain = Chain::read(storage).map(|chain| chain.commits).unwrap_or_default();
    if !chain.iter().flat_map(|(commit, _)| &commit.ops).any(dropped) {
        return error;
    }
    let text = "the file was reclaimed since the run was opened; its rows stand elsewhere, or were deleted";
    Error::new(ErrorKind::Expired, text).in_file(file).hint("run.refresh() sees where they are")
}

/// A block of one file, with what is known of it.
#[derive(Clone, Copy)]
pub struct BlockReader<'a> {
    pub blobs: &'a Blobs,
    pub open: &'a OpenFile,
    pub file: &'a str,
    pub block: &'a Block,
    pub verified: &'a Verified,
}

impl<'a> BlockReader<'a> {
    /// Fills `out` from byte `start` of the block. `scratch` is kept from call to call for pieces of which only a part is
    /// wanted.
    pub fn read(&self, start: usize, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let mut at = start;
        let end = start + out.len();
        let length = self.open.coding.as_ref().map_or(self.block.length, |coding| coding.raw() as u64);
        if end as u64 > length {
            return Err(self.damaged("the block is shorter than its rows", self.block.length));
        }
        if let Some(coding) = &self.open.coding {
            return self.read_coded(coding, start, out, scratch);
        }
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
            let wanted = &mut out[at - start..to - start];
            if let Some(whole) = self.mapped(piece, stop - piece) {
                self.blobs.count(self.block.role, whole.len());
                self.verify(first, whole)?;
                wanted.copy_from_slice(&whole[at - piece..to - piece]);
            } else if at == piece && to == stop {
                self.fetch(piece, wanted)?;
                self.verify(first, wanted)?;
            } else {
                let scratch = scratch.other(stop - piece);
                self.fetch(piece, scratch)?;
                self.verify(first, scratch)?;
                wanted.copy_from_slice(&scratch[at - piece..to - piece]);
            }
            at = to;
        }
        Ok(())
    }

    /// Bytes of the block that need no check any more, if they are mapped.
    #[inline]
    pub fn trusted(&self, start: usize, length: usize) -> Option<&'a [u8]> {
        if length == 0
            || self.open.coding.is_some()
            || !(start / PIECE..=(start + length - 1) / PIECE).all(|piece| self.has(piece))
        {
            return None;
        }
        self.mapped(start, length)
    }

    /// The bytes of the whole block, if none of them needs a check and they are mapped.
    pub fn trusted_whole(&self) -> Option<&'a [u8]> {
        let trusted = match self.blobs.access.verify {
            Verify::First => self.verified.has_all(),
            Verify::Always => false,
            Verify::Never => true,
        };
        let whole = || self.mapped(0, self.block.length as usize);
        if trusted && self.open.coding.is_none() { whole() } else { None }
    }

    /// Bytes of the block as they lie in memory, checked; None if they are not mapped, or coded.
    pub fn checked(&self, start: usize, length: usize) -> Result<Option<&'a [u8]>> {
        if length == 0 || self.open.coding.is_some() {
            return Ok(None);
        }
        let Some(bytes) = self.mapped(start, length) else { return Ok(None) };
        for piece in start / PIECE..=(start + length - 1) / PIECE {
            let whole = || self.mapped(piece * PIECE, PIECE.min(self.block.length as usize - piece * PIECE));
            if !self.has(piece)
                && let Some(whole) = whole()
            {
                self.blobs.count(self.block.role, whole.len());
                self.verify(piece, whole)?;
            }
        }
        Ok(Some(bytes))
    }

    /// All of the block.
    pub fn all(&self) -> Result<Vec<u8>> {
        let length = self.open.coding.as_ref().map_or(self.block.length as usize, Coding::raw);
        let mut bytes = Vec::new();
        // coded rows may be many times longer than the file
        if bytes.try_reserve_exact(length).is_err() {
            return Err(self.damaged("the block's rows are longer than memory", 0));
        }
        bytes.resize(length, 0);
        self.read(0, &mut bytes, &mut Scratch::default())?;
        Ok(bytes)
    }

    /// Whether a piece needs no check.
    fn has(&self, piece: usize) -> bool {
        match self.blobs.access.verify {
            Verify::First => (piece + 1) * 4 <= self.block.crcs.len() && self.verified.has(piece),
            Verify::Always => false,
            Verify::Never => true,
        }
    }

    fn mapped(&self, at: usize, length: usize) -> Option<&'a [u8]> {
        if (at + length) as u64 > self.block.length {
            return None;
        }
        self.open.map.as_ref()?.bytes(self.block.offset + at as u64, length)
    }

    pub(super) fn fetch(&self, at: usize, out: &mut [u8]) -> Result<()> {
        self.blobs.count(self.block.role, out.len());
        if let Some(bytes) = self.mapped(at, out.len()) {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        self.open.ranges.read(self.block.offset + at as u64, out)
    }

    /// Checks a coded piece, which lies at byte `at` of the block, unless that was done before.
    pub(super) fn check_piece(&self, piece: usize, at: u64, bytes: &[u8]) -> Result<()> {
        if self.has(piece) {
            return Ok(());
        }
        self.verify(piece, bytes).map_err(|error| Error { offset: Some(self.block.offset + at), ..error })
    }

    fn verify(&self, piece: usize, bytes: &[u8]) -> Result<()> {
        let stored = self.block.crcs.get(4 * piece..4 * piece + 4);
        if stored != Some(&crc32c::crc32c(bytes).to_le_bytes()) {
            return Err(self.damaged("the bytes do not match their checksum", (piece * PIECE) as u64));
        }
        self.verified.set(piece);
        Ok(())
    }

    pub(super) fn damaged(&self, text: &str, at: u64) -> Error {
        Error::damaged(text).in_file(self.file).at(self.block.offset + at).hint(HINT)
    }
}
