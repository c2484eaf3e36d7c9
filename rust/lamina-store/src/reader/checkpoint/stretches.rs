//! Reading tensors of checkpoints, or stretches of them, by several threads.

use super::chunks::Hand;
use super::layout::Layout;
use super::wholes::{self, Region};
use super::{called, keys};
use crate::Snapshot;
use crate::crew;
use crate::storage::will_fill;
use lamina_format::chunk::{CHUNK, Key};
use lamina_format::record::{Piece, TensorSpec, Whole};
use lamina_format::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

/// Bytes that a thread reads before it asks for more work: a few chunks, so that two threads seldom fill one huge page.
const SHARE: usize = 4 * CHUNK;
/// Requests below this are not worth a second thread.
const SMALL: usize = 1 << 20;

/// Bytes of a tensor that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Of the checkpoint of this step.
    pub step: i64,
    /// The tensor's number in its part.
    pub tensor: usize,
    /// Its first byte that is wanted.
    pub start: u64,
}

/// A share of the work.
struct Job<'a, 'o> {
    /// Which of the stretches it is of.
    number: usize,
    source: Source<'a>,
    start: u64,
    out: &'o mut [u8],
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Stored(Stored<'a>),
    /// Pieces that divide its rows.
    Pieces(&'a Whole, Saved<'a>),
}

/// A part of a save.
#[derive(Clone, Copy)]
struct Saved<'a> {
    part: &'a str,
    step: i64,
    log: &'a str,
    layout: &'a Layout,
    keys: &'a [Key],
}

/// A tensor as it is stored.
#[derive(Clone, Copy)]
struct Stored<'a> {
    saved: Saved<'a>,
    spec: &'a TensorSpec,
    keys: &'a [Key],
}

impl<'a> Saved<'a> {
    fn stored(self, tensor: usize) -> Stored<'a> {
        Stored { saved: self, spec: &self.layout.tensors()[tensor], keys: &self.keys[self.layout.chunks_of(tensor)] }
    }
}

impl Snapshot {
    /// The bytes of a tensor of a part, into `out` of just that size.
    pub fn saved_tensor(&self, step: i64, part: &str, tensor: usize, out: &mut [u8]) -> Result<()> {
        let layout = self.checkpoints.part(step, part).and_then(|(_, part)| self.checkpoints.layout(part))?;
        if let Some(spec) = layout.specs().get(tensor).filter(|spec| spec.bytes() != Some(out.len() as u64)) {
            return Err(Error::schema(format!("tensor {:?} does not fit {} bytes", spec.name, out.len())));
        }
        let failed = self.saved_stretches(part, vec![(Stretch { step, tensor, start: 0 }, out)], 1)?;
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Fills each `out` with a stretch of a tensor of a part, by at most `threads` threads. Returns those that could not be
    /// read, by their numbers, and why.
    pub fn saved_stretches(
        &self,
        part: &str,
        wanted: Vec<(Stretch, &mut [u8])>,
        threads: usize,
    ) -> Result<Vec<(usize, Error)>> {
        let total: usize = wanted.iter().map(|(_, out)| out.len()).sum();
        will_fill(wanted.iter().map(|(_, out)| &**out));
        let mut jobs = Vec::new();
        for (number, (stretch, out)) in wanted.into_iter().enumerate() {
            self.share(part, number, &stretch, out, &mut jobs)?;
        }
        let threads = if total < SMALL { 1 } else { threads.clamp(1, jobs.len().max(1)) };
        let work = Mutex::new(jobs.into_iter());
        let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
        crew::together(threads - 1, &|| {
            let mut hand = Hand::default();
            loop {
                let Some(job) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                let number = job.number;
                if let Err(error) = self.read_job(job, &mut hand) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                }
            }
        });
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|(number, error)| (*number, error.offset));
        failed.dedup_by_key(|(number, _)| *number);
        Ok(failed)
    }

    /// A part of a save.
    fn saved<'a>(&'a self, part: &'a str, step: i64) -> Result<Saved<'a>> {
        let (log, record) = self.checkpoints.part(step, part)?;
        let layout = self.checkpoints.layout(record).map_err(|error| error.in_file(log))?;
        Ok(Saved { part, step, log, layout, keys: keys(record) })
    }

    /// Cuts a stretch into shares.
    fn share<'a, 'o>(
        &'a self,
        part: &'a str,
        number: usize,
        stretch: &Stretch,
        out: &'o mut [u8],
        jobs: &mut Vec<Job<'a, 'o>>,
    ) -> Result<()> {
        let saved = self.saved(part, stretch.step)?;
        let spec = saved.spec(stretch.tensor)?;
        let end = stretch.start.checked_add(out.len() as u64);
        if end.is_none_or(|end| Some(end) > spec.bytes()) {
            let text = format!("tensor {:?} has no {} bytes from byte {} on", spec.name, out.len(), stretch.start);
            return Err(Error::schema(text));
        }
        let Some(whole) = saved.layout.whole(stretch.tensor) else {
            cut(Source::Stored(saved.stored(stretch.tensor)), number, stretch.start, CHUNK, out, jobs);
            return Ok(());
        };
        let Some(runs) = wholes::runs(whole, saved.layout.tensors()) else {
            // a row at least; what is not of whole rows is read with them
            let row = wholes::row_bytes(spec).max(1) as usize;
            cut(Source::Pieces(whole, saved), number, stretch.start, row, out, jobs);
            return Ok(());
        };
        let (mut at, mut rest) = (stretch.start, out);
        for run in runs {
            // what no piece holds, of a damaged record, is zero
            let (gap, behind) = rest.split_at_mut(run.start.saturating_sub(at).min(rest.len() as u64) as usize);
            gap.fill(0);
            at += gap.len() as u64;
            let (here, behind) = behind.split_at_mut(run.end.saturating_sub(at).min(behind.len() as u64) as usize);
            let start = at - run.start.min(at);
            at += here.len() as u64;
            rest = behind;
            cut(Source::Stored(saved.stored(run.tensor)), number, start, CHUNK, here, jobs);
        }
        rest.fill(0);
        Ok(())
    }

    fn read_job(&self, job: Job<'_, '_>, hand: &mut Hand) -> Result<()> {
        match job.source {
            Source::Stored(stored) => self.read_stored(stored, job.start, job.out, hand),
            Source::Pieces(whole, saved) => {
                let (shape, row) = (&whole.spec.shape, wholes::row_bytes(&whole.spec));
                let end = job.start + job.out.len() as u64;
                let (first, last) = (job.start / row, end.div_ceil(row));
                let offsets: Vec<u64> = std::iter::once(first).chain(shape[1..].iter().map(|_| 0)).collect();
                let sizes: Vec<u64> = std::iter::once(last - first).chain(shape[1..].iter().copied()).collect();
                let region = Region { offsets: &offsets, sizes: &sizes };
                if (last - first) * row == end - job.start {
                    return self.read_region(saved, whole, region, job.out, hand);
                }
                let mut rows = vec![0; ((last - first) * row) as usize];
                self.read_region(saved, whole, region, &mut rows, hand)?;
                let start = (job.start - first * row) as usize;
                job.out.copy_from_slice(&rows[start..start + job.out.len()]);
                Ok(())
            }
        }
    }

    /// The bytes of a box of a tensor of a part, into `out` of just that size, by at most `threads` threads.
    pub fn saved_box(
        &self,
        step: i64,
        part: &str,
        tensor: usize,
        region: Region<'_>,
        out: &mut [u8],
        threads: usize,
    ) -> Result<()> {
        let saved = self.saved(part, step)?;
        let spec = saved.spec(tensor)?;
        if region.bytes(spec)? != out.len() as u64 {
            return Err(Error::schema(format!("tensor {:?} does not fit {} bytes", spec.name, out.len())));
        }
        if region.sizes.get(1..) == spec.shape.get(1..) {
            let start = region.offsets.first().map_or(0, |first| first * wholes::row_bytes(spec));
            let failed = self.saved_stretches(part, vec![(Stretch { step, tensor, start }, out)], threads)?;
            return failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        }
        let alone = Piece { tensor: tensor as u32, offsets: vec![0; spec.shape.len()] };
        let alone = Whole { spec: spec.clone(), pieces: vec![alone] };
        self.read_region(saved, saved.layout.whole(tensor).unwrap_or(&alone), region, out, &mut Hand::default())
    }

    fn read_region(
        &self,
        saved: Saved<'_>,
        whole: &Whole,
        region: Region<'_>,
        out: &mut [u8],
        hand: &mut Hand,
    ) -> Result<()> {
        let mut read = |tensor, start, bytes: &mut [u8]| self.read_stored(saved.stored(tensor), start, bytes, hand);
        wholes::fill(whole, saved.layout.tensors(), region, out, &mut read)
    }

    /// Fills `out` from a byte of a stored tensor on.
    fn read_stored(&self, stored: Stored<'_>, start: u64, out: &mut [u8], hand: &mut Hand) -> Result<()> {
        let Stored { saved, spec, keys } = stored;
        let bytes = spec.bytes().unwrap_or(0);
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let chunk = (at / CHUNK as u64) as usize;
            let first = (chunk * CHUNK) as u64;
            let raw = (bytes - first).min(CHUNK as u64) as usize;
            let inside = (at - first) as usize;
            let (here, behind) = rest.split_at_mut((raw - inside).min(rest.len()));
            at += here.len() as u64;
            // the record was found to have as many keys as its tensors have chunks
            let read = self.read_chunk(&keys[chunk], raw, spec.dtype, inside, here, hand);
            read.map_err(|error| {
                let (name, part, log) = (&spec.name, called(saved.part, saved.step), saved.log);
                let message = format!("chunk {chunk} of tensor {name:?} in {part}: {}", error.message);
                let error = Error { message, ..error };
                let error = if error.file.is_some() { error } else { error.in_file(log) };
                error.hint("other tensors and steps are readable: run.load(strict=False) leaves out what is not")
            })?;
            rest = behind;
        }
        Ok(())
    }
}

impl<'a> Saved<'a> {
    fn spec(self, tensor: usize) -> Result<&'a TensorSpec> {
        let missing = || Error::new(ErrorKind::NotFound, format!("part {:?} has no tensor {tensor}", self.part));
        self.layout.specs().get(tensor).ok_or_else(missing)
    }
}

/// Cuts a stretch into shares that end where units do, such as chunks.
fn cut<'a, 'o>(
    source: Source<'a>,
    number: usize,
    start: u64,
    unit: usize,
    out: &'o mut [u8],
    jobs: &mut Vec<Job<'a, 'o>>,
) {
    let share = SHARE.next_multiple_of(unit);
    let (mut start, mut rest) = (start, out);
    while !rest.is_empty() {
        let length = (share - (start % unit as u64) as usize).min(rest.len());
        let (share, behind) = rest.split_at_mut(length);
        jobs.push(Job { number, source, start, out: share });
        start += length as u64;
        rest = behind;
    }
}
