//! Checkpoints while they wait for the disk: copied once, by several threads, into memory that is used again.

use super::PartInput;
use super::rows::Lent;
use super::spare::Spare;
use crate::crew;
use lamina_format::chunk::CHUNK;
use lamina_format::record::TensorSpec;
use lamina_format::{Error, ErrorKind, Result};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Most bytes a buffer: a multiple of a chunk, and so long that a copy leaves the processor's caches out.
const BUFFER: usize = 16 << 20;
/// Threads that copy at once: more do not make the memory faster.
const MOST_THREADS: usize = 4;

/// Bytes of a tensor that is to be saved.
pub enum TensorBytes<'a> {
    /// To be copied.
    Copy(&'a [u8]),
    /// Memory that the writer may keep until it is written, instead of a copy.
    Lend(Lent),
}

impl<'a> From<&'a [u8]> for TensorBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Copy(bytes)
    }
}

impl TensorBytes<'_> {
    /// How many.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Self::Copy(bytes) => bytes.len(),
            Self::Lend(memory) => memory.as_ref().as_ref().len(),
        }
    }
}

/// A staged checkpoint.
pub struct SaveJob {
    pub step: i64,
    pub time: i64,
    pub parts: Vec<SavePart>,
    pub buffers: Vec<Vec<u8>>,
    /// Bytes of all tensors.
    pub size: usize,
}

/// A staged part.
pub struct SavePart {
    pub name: String,
    pub tree: String,
    pub scalars: String,
    pub tensors: Vec<(TensorSpec, Staged)>,
}

/// Where a tensor's bytes are.
pub enum Staged {
    /// In buffers of the job, cut at whole chunks.
    Copied(Vec<Piece>),
    Lent(Lent),
}

/// A range of a buffer.
#[derive(Clone, Copy)]
pub struct Piece {
    buffer: usize,
    start: usize,
    length: usize,
}

impl Staged {
    /// The tensor's bytes in order; all slices but the last are whole numbers of chunks.
    pub fn slices<'a>(&'a self, buffers: &'a [Vec<u8>]) -> impl Iterator<Item = &'a [u8]> {
        let (pieces, lent): (&[Piece], _) = match self {
            Self::Copied(pieces) => (pieces, None),
            Self::Lent(memory) => (&[], Some(memory.as_ref().as_ref())),
        };
        let bytes = |piece: &Piece| &buffers[piece.buffer][piece.start..piece.start + piece.length];
        pieces.iter().map(bytes).chain(lent)
    }
}

/// What goes into one buffer.
#[derive(Default)]
struct Filling<'a> {
    slices: Vec<&'a [u8]>,
    length: usize,
}

/// Which bytes go where.
#[derive(Default)]
struct Plan<'a>(Vec<Filling<'a>>);

impl<'a> Plan<'a> {
    fn place(&mut self, bytes: &'a TensorBytes<'a>) -> Staged {
        match bytes {
            TensorBytes::Copy(bytes) => Staged::Copied(self.add(bytes)),
            TensorBytes::Lend(memory) => Staged::Lent(Lent::clone(memory)),
        }
    }

    fn add(&mut self, mut bytes: &'a [u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let room = self.0.last().map_or(0, |last| BUFFER - last.length);
            // what does not fit is cut behind a whole chunk
            let taken = if bytes.len() <= room { bytes.len() } else { room / CHUNK * CHUNK };
            let Some(filling) = self.0.last_mut().filter(|_| taken > 0) else {
                self.0.push(Filling::default());
                continue;
            };
            let (now, later) = bytes.split_at(taken);
            filling.slices.push(now);
            let start = filling.length;
            filling.length += taken;
            pieces.push(Piece { buffer: self.0.len() - 1, start, length: taken });
            bytes = later;
        }
        pieces
    }
}

/// Copies what is not lent. When it returns, the caller may change all that it copied.
pub fn stage(step: i64, time: i64, parts: &[PartInput], spare: &Mutex<Spare>) -> Result<SaveJob> {
    let mut plan = Plan::default();
    let mut staged = Vec::with_capacity(parts.len());
    for part in parts {
        let tensors = part.tensors.iter().map(|(spec, bytes)| (spec.clone(), plan.place(bytes))).collect();
        let (name, tree, scalars) = (part.name.to_owned(), part.tree.to_owned(), part.scalars.to_owned());
        staged.push(SavePart { name, tree, scalars, tensors });
    }
    Ok(SaveJob { step, time, parts: staged, buffers: fill(&plan.0, spare)?, size: size(parts) })
}

/// Bytes of all tensors.
pub fn size(parts: &[PartInput]) -> usize {
    parts.iter().flat_map(|part| &part.tensors).map(|(_, bytes)| bytes.len()).sum()
}

/// How many threads fill so many buffers: no more than there are cores.
fn threads(buffers: usize) -> usize {
    // asked once: to find out takes longer than to copy a megabyte
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    cores.min(MOST_THREADS).min(buffers)
}

/// The buffers that are to be filled so, filled.
fn fill(fillings: &[Filling], spare: &Mutex<Spare>) -> Result<Vec<Vec<u8>>> {
    let take = |filling: &Filling| {
        let buffer = spare.lock().unwrap_or_else(PoisonError::into_inner).take(filling.length);
        let text = || format!("there is no memory to stage {} MiB more of a checkpoint", filling.length >> 20);
        buffer.map(Mutex::new).ok_or_else(|| Error::new(ErrorKind::Writer, text()))
    };
    let buffers = fillings.iter().map(take).collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    crew::together(threads(fillings.len()).saturating_sub(1), &|| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(filling), Some(buffer)) = (fillings.get(at), buffers.get(at)) else { return };
            // each is asked for once: nobody waits here
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            filling.slices.iter().for_each(|slice| buffer.extend_from_slice(slice));
        }
    });
    Ok(buffers.into_iter().map(|buffer| buffer.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lamina_format::DType;

    fn bytes(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 + at + seed) as u8).collect()
    }

    fn staged(tensors: &[Vec<u8>], spare: &Mutex<Spare>) -> SaveJob {
        let spec = |bytes: &Vec<u8>| TensorSpec { name: "w".into(), dtype: DType::U8, shape: vec![bytes.len() as u64] };
        let tensors = tensors.iter().map(|bytes| (spec(bytes), bytes.as_slice().into())).collect();
        stage(0, 0, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }], spare).unwrap()
    }

    #[test]
    fn tensors_of_any_lengths_are_cut_as_if_each_lay_alone() {
        let lengths = [0, 1, CHUNK, CHUNK - 1, BUFFER - 5, 3 * BUFFER + 7, 2 * CHUNK + 1, BUFFER, 12, 0, CHUNK + 3];
        let tensors: Vec<_> = lengths.iter().enumerate().map(|(seed, &length)| bytes(length, seed)).collect();
        let spare = Mutex::default();
        for _ in 0..2 {
            let job = staged(&tensors, &spare);
            for ((_, held), tensor) in job.parts[0].tensors.iter().zip(&tensors) {
                let chunks = held.slices(&job.buffers).flat_map(|bytes| bytes.chunks(CHUNK));
                assert!(chunks.eq(tensor.chunks(CHUNK)));
            }
            assert_eq!(job.size, lengths.iter().sum::<usize>());
            assert!(job.buffers.iter().all(|buffer| buffer.len() <= BUFFER));
            spare.lock().unwrap().give_back(job.buffers);
        }
    }

    #[test]
    fn the_memory_of_a_save_is_that_of_the_one_before() {
        let (spare, tensors) = (Mutex::default(), [bytes(2 * BUFFER + 9, 0), bytes(100, 1)]);
        let first = staged(&tensors, &spare);
        // what is left over beyond whole buffers is small, and the allocator's
        let at: Vec<_> = first.buffers.iter().filter(|one| one.len() == BUFFER).map(|one| one.as_ptr()).collect();
        assert_eq!(at.len(), 2);
        spare.lock().unwrap().give_back(first.buffers);
        let second = staged(&tensors, &spare);
        let mut again: Vec<_> = second.buffers.iter().map(|buffer| buffer.as_ptr()).collect();
        again.sort_unstable();
        assert!(at.iter().all(|start| again.binary_search(start).is_ok()));
    }
}
