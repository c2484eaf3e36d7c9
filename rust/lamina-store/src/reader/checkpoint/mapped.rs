//! Tensors of checkpoints as maps of their packs.

use super::chunks::Place;
use super::keys;
use crate::reader::access::{Io, Verify};
use crate::storage::Private;
use crate::{Snapshot, crew};
use lamina_format::checksum::PIECE;
use lamina_format::chunk::{CHUNK, Key};
use lamina_format::record::{Codec, TensorSpec};
use lamina_format::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many places of a tensor's first chunk are tried: a record may name any number of them.
const MOST_PLACES: usize = 8;

/// A tensor in memory that this process may write to, or why it has to be copied.
pub enum Mapping {
    /// Its bytes; a page is copied when it is first written to.
    Mapped(Private),
    /// It does not lie in its pack as a map would show it.
    Copied(&'static str),
}

impl Snapshot {
    /// Maps a tensor of a part, if its chunks lie in a pack as they are, side by side and aligned. Every block is verified
    /// first, by at most `threads` threads: what is damaged is left to who copies it, and tries other places.
    pub fn map_tensor(&self, step: i64, part: &str, tensor: usize, threads: usize) -> Result<Mapping> {
        let (log, record) = self.checkpoints.part(step, part)?;
        let layout = self.checkpoints.layout(record).map_err(|error| error.in_file(log))?;
        let missing = || Error::new(ErrorKind::NotFound, format!("part {part:?} has no tensor {tensor}"));
        let whole = layout.specs().get(tensor).ok_or_else(missing)?;
        let pieces = layout.whole(tensor).map(|whole| whole.pieces.as_slice());
        let tensor = match pieces {
            None => tensor,
            Some([piece]) => piece.tensor as usize,
            Some(_) => {
                return Ok(Mapping::Copied(if whole.bytes() == Some(0) { "it is empty" } else { "it lies in pieces" }));
            }
        };
        let spec = &layout.tensors()[tensor];
        let run = match self.side_by_side(spec, &keys(record)[layout.chunks_of(tensor)]) {
            Ok(run) => run,
            Err(why) => return Ok(Mapping::Copied(why)),
        };
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Mapping::Copied("it is empty")) };
        let range = first.chunk.offset..last.chunk.offset + last.chunk.raw;
        let ranges = self.blobs.get(self.storage.as_ref(), &first.pack)?;
        match self.blobs.access.io {
            Io::Pread => return Ok(Mapping::Copied("the run is read with io=\"pread\"")),
            Io::Auto if ranges.is_remote() => return Ok(Mapping::Copied("the run lies on another machine")),
            Io::Auto | Io::Mmap => {}
        }
        Ok(match ranges.map_private(range) {
            Ok(Some(map)) if self.holds(&run, map.bytes(), threads) => Mapping::Mapped(map),
            Ok(Some(_)) => Mapping::Copied("it is damaged there"),
            Err(error) if self.blobs.access.io == Io::Mmap => return Err(error),
            Ok(None) | Err(_) => Mapping::Copied("the file cannot be mapped"),
        })
    }

    /// Places of all chunks, one behind the other in one pack, or why there are none.
    fn side_by_side(&self, spec: &TensorSpec, keys: &[Key]) -> std::result::Result<Vec<&Place>, &'static str> {
        let bytes = spec.bytes().unwrap_or(0);
        let raw = |at: usize| (bytes - (at * CHUNK) as u64).min(CHUNK as u64) as usize;
        let places = |at: usize| {
            let there = self.checkpoints.chunks.get(&keys[at]).into_iter().flatten();
            there.filter(move |place| place.chunk.codec == Codec::Raw && place.check_record(raw(at)).is_ok())
        };
        if (0..keys.len()).any(|at| places(at).next().is_none()) {
            return Err("it is coded");
        }
        let mut why = "its chunks do not lie side by side";
        for first in (0..keys.len().min(1)).flat_map(places).take(MOST_PLACES) {
            if !first.chunk.offset.is_multiple_of(spec.dtype.size()) {
                why = "it is not aligned";
                continue;
            }
            let beside = |at: usize| {
                let offset = first.chunk.offset.checked_add((at * CHUNK) as u64)?;
                places(at).find(|place| place.pack == first.pack && place.chunk.offset == offset)
            };
            if let Some(run) = (0..keys.len()).map(beside).collect() {
                return Ok(run);
            }
        }
        Err(why)
    }

    /// Whether every block is what was written.
    fn holds(&self, run: &[&Place], bytes: &[u8], threads: usize) -> bool {
        if self.blobs.access.verify == Verify::Never {
            return true;
        }
        let (next, good) = (AtomicUsize::new(0), AtomicBool::new(true));
        crew::together(threads.clamp(1, run.len()) - 1, &|| {
            while let Some(place) = run.get(next.fetch_add(1, Ordering::Relaxed)) {
                let start = (place.chunk.offset - run[0].chunk.offset) as usize;
                let chunk = &bytes[start..start + place.chunk.raw as usize];
                self.blobs.count_chunks(chunk.len());
                let check = |(block, bytes)| place.check(block, 0, bytes, self.blobs.access.verify).is_ok();
                if !chunk.chunks(PIECE).enumerate().all(check) {
                    good.store(false, Ordering::Relaxed);
                }
            }
        });
        good.into_inner()
    }
}
