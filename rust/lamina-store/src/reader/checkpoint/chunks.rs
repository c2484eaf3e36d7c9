//! Reading chunks, or a part of one: block by block, each verified when it is first touched.

use crate::Snapshot;
use crate::reader::access::{Io, Verify};
use crate::storage::{Mapped, Ranges};
use lamina_format::checksum::PIECE;
use lamina_format::chunk::Key;
use lamina_format::codec::Coder;
use lamina_format::record::{Chunk, Codec};
use lamina_format::{DType, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A place where a chunk lies.
pub struct Place {
    pub pack: Arc<str>,
    pub chunk: Chunk,
    /// A bit for each of its blocks that was found good; there are at most eight.
    good: AtomicU8,
}

impl Place {
    pub fn new(pack: Arc<str>, chunk: Chunk) -> Self {
        Self { pack, chunk, good: AtomicU8::new(0) }
    }

    /// Whether a block needs no check.
    fn is_trusted(&self, block: usize, verify: Verify) -> bool {
        match verify {
            Verify::First => self.good.load(Ordering::Relaxed) >> block & 1 == 1,
            Verify::Always => false,
            Verify::Never => true,
        }
    }

    /// Compares a block, as it lies at `at` of the pack, with its checksum, unless that was done before.
    pub fn check(&self, block: usize, at: u64, stored: &[u8], verify: Verify) -> Result<()> {
        if self.is_trusted(block, verify) {
            return Ok(());
        }
        if self.chunk.crcs.get(4 * block..4 * block + 4) != Some(&crc32c::crc32c(stored).to_le_bytes()) {
            return Err(self.damaged("the bytes do not match their checksum", at));
        }
        self.good.fetch_or(1 << block, Ordering::Relaxed);
        Ok(())
    }

    fn damaged(&self, text: &str, at: u64) -> Error {
        Error::damaged(text).in_file(self.pack.as_ref()).at(at)
    }

    /// Refuses a record that cannot be true of a chunk of `raw` bytes.
    pub fn check_record(&self, raw: usize) -> Result<()> {
        if self.chunk.raw != raw as u64 {
            return Err(self.damaged("a chunk's record does not fit its tensor", self.chunk.offset));
        }
        self.chunk.check().map_err(|error| error.in_file(self.pack.as_ref()))
    }
}

/// A pack that is open for reading a chunk.
struct Source<'a> {
    place: &'a Place,
    ranges: Arc<dyn Ranges>,
    map: Option<Arc<Mapped>>,
    /// Where each block begins in the chunk as it is stored, and its length.
    spans: Vec<(u64, u64)>,
}

impl Source<'_> {
    fn mapped(&self, at: u64, length: u64) -> Option<&[u8]> {
        self.map.as_ref()?.bytes(at, length as usize)
    }
}

/// What a thread keeps from chunk to chunk.
#[derive(Default)]
pub struct Hand {
    /// A block of which only a part is wanted, and which that is.
    block: Vec<u8>,
    held: Option<(Key, usize)>,
    /// The block that the last delta was the difference from: the next one, of another step, is so mostly too.
    base: Vec<u8>,
    held_base: Option<(Key, usize)>,
    stored: Vec<u8>,
    coder: Option<Coder>,
}

impl Snapshot {
    /// Fills `out` from byte `start` of a chunk of `raw` bytes. It may lie in several places: if one is damaged the next is
    /// tried.
    pub(crate) fn read_chunk(
        &self,
        key: &Key,
        raw: usize,
        dtype: DType,
        start: usize,
        out: &mut [u8],
        hand: &mut Hand,
    ) -> Result<()> {
        let mut failure = Error::damaged("the chunk is lost with a damaged record");
        for place in self.checkpoints.chunks.get(key).into_iter().flatten() {
            let read =
                self.source(place, raw).and_then(|source| self.read_place(&source, raw, dtype, start, out, hand));
            match read {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn read_place(
        &self,
        source: &Source<'_>,
        raw: usize,
        dtype: DType,
        start: usize,
        out: &mut [u8],
        hand: &mut Hand,
    ) -> Result<()> {
        let (mut at, end) = (start, start + out.len());
        while at < end {
            let number = at / PIECE;
            let (first, stop) = (number * PIECE, raw.min((number + 1) * PIECE));
            let to = end.min(stop);
            let wanted = &mut out[at - start..to - start];
            if at == first && to == stop {
                self.read_block(source, number, dtype, wanted, hand)?;
            } else if !self.read_some(source, number, at - first, wanted)? {
                let which = (source.place.chunk.key, number);
                if hand.held != Some(which) {
                    hand.held = None;
                    let mut block = std::mem::take(&mut hand.block);
                    block.resize(stop - first, 0);
                    let read = self.read_block(source, number, dtype, &mut block, hand);
                    hand.block = block;
                    read?;
                    hand.held = Some(which);
                }
                wanted.copy_from_slice(&hand.block[at - first..to - first]);
            }
            at = to;
        }
        Ok(())
    }

    /// Some bytes of a block that stands as it is, if the rest of it need not be read or is mapped; false if not.
    fn read_some(&self, source: &Source<'_>, number: usize, from: usize, out: &mut [u8]) -> Result<bool> {
        let (place, verify) = (source.place, self.blobs.access.verify);
        let (start, length) = source.spans[number];
        let at = place.chunk.offset + start;
        let trusted = place.is_trusted(number, verify);
        if place.chunk.codec != Codec::Raw {
            return Ok(false);
        }
        if let Some(stored) = source.mapped(at, length) {
            self.blobs.count_chunks(if trusted { out.len() } else { stored.len() });
            place.check(number, at, stored, verify)?;
            out.copy_from_slice(&stored[from..from + out.len()]);
        } else if trusted {
            self.blobs.count_chunks(out.len());
            source.ranges.read(at + from as u64, out)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// A whole block.
    fn read_block(
        &self,
        source: &Source<'_>,
        number: usize,
        dtype: DType,
        out: &mut [u8],
        hand: &mut Hand,
    ) -> Result<()> {
        let (place, verify) = (source.place, self.blobs.access.verify);
        let (start, length) = source.spans[number];
        let at = place.chunk.offset + start;
        self.blobs.count_chunks(length as usize);
        if place.chunk.codec == Codec::Raw {
            return match source.mapped(at, length) {
                Some(stored) => place.check(number, at, stored, verify).map(|()| out.copy_from_slice(stored)),
                None => source.ranges.read(at, out).and_then(|()| place.check(number, at, out, verify)),
            };
        }
        if let Some(base) = place.chunk.base() {
            self.read_base(base, place.chunk.raw as usize, number, dtype, out.len(), hand)?;
        }
        let stored = match source.mapped(at, length) {
            Some(stored) => stored,
            None => {
                hand.stored.resize(length as usize, 0);
                source.ranges.read(at, &mut hand.stored)?;
                &hand.stored
            }
        };
        place.check(number, at, stored, verify)?;
        let base = place.chunk.base().map(|_| hand.base.as_slice());
        let decoded = hand.coder.get_or_insert_default().decode(place.chunk.codec, dtype, stored, base, out);
        decoded.map_err(|error| error.in_file(place.pack.as_ref()).at(at))
    }

    /// The block of another chunk that a delta is the difference from, into the hand. That chunk is no delta itself.
    fn read_base(
        &self,
        key: &Key,
        raw: usize,
        number: usize,
        dtype: DType,
        length: usize,
        hand: &mut Hand,
    ) -> Result<()> {
        if hand.held_base == Some((*key, number)) && hand.base.len() == length {
            return Ok(());
        }
        hand.held_base = None;
        let mut base = std::mem::take(&mut hand.base);
        base.resize(length, 0);
        let mut read = Err(Error::damaged("the chunk that a delta is the difference from is lost"));
        for place in self.checkpoints.chunks.get(key).into_iter().flatten() {
            if place.chunk.base().is_none() && read.is_err() {
                let source = self.source(place, raw);
                read = source.and_then(|source| self.read_block(&source, number, dtype, &mut base, hand));
            }
        }
        hand.base = base;
        hand.held_base = read.is_ok().then_some((*key, number));
        read
    }

    /// The pack of a place, mapped if it may be.
    fn source<'a>(&self, place: &'a Place, raw: usize) -> Result<Source<'a>> {
        place.check_record(raw)?;
        let ranges = self.blobs.get(self.storage.as_ref(), &place.pack)?;
        let wanted = match self.blobs.access.io {
            Io::Auto => !ranges.is_remote(),
            Io::Mmap => true,
            Io::Pread => false,
        };
        let end = place.chunk.offset + place.chunk.stored;
        let map = match if wanted { ranges.map(end) } else { Ok(None) } {
            // what cannot be mapped can still be read, unless the caller insists
            Err(_) if self.blobs.access.io == Io::Auto => None,
            map => map?,
        };
        Ok(Source { place, ranges, map, spans: place.chunk.spans() })
    }
}
