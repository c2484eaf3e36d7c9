//! Reading tensors of checkpoints, or stretches of them, by several threads.

use super::chunks::Hand;
use super::keys;
use crate::Snapshot;
use crate::crew;
use crate::storage::will_fill;
use lamina_format::chunk::{CHUNK, Key};
use lamina_format::record::TensorSpec;
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
    step: i64,
    spec: &'a TensorSpec,
    keys: &'a [Key],
    log: &'a str,
    start: u64,
    out: &'o mut [u8],
}

impl Snapshot {
    /// The bytes of a tensor of a part, into `out` of just that size.
    pub fn saved_tensor(&self, step: i64, part: &str, tensor: usize, out: &mut [u8]) -> Result<()> {
        let layout = self.checkpoints.part(step, part).and_then(|(_, part)| self.checkpoints.layout(part))?;
        if let Some(spec) = layout.tensors().get(tensor).filter(|spec| spec.bytes() != Some(out.len() as u64)) {
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
                if let Err(error) = self.read_job(part, job, &mut hand) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                }
            }
        });
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|(number, error)| (*number, error.offset));
        failed.dedup_by_key(|(number, _)| *number);
        Ok(failed)
    }

    /// Cuts a stretch into shares.
    fn share<'a, 'o>(
        &'a self,
        part: &str,
        number: usize,
        stretch: &Stretch,
        out: &'o mut [u8],
        jobs: &mut Vec<Job<'a, 'o>>,
    ) -> Result<()> {
        let (log, record) = self.checkpoints.part(stretch.step, part)?;
        let layout = self.checkpoints.layout(record).map_err(|error| error.in_file(log))?;
        let missing = || Error::new(ErrorKind::NotFound, format!("part {part:?} has no tensor {}", stretch.tensor));
        let spec = layout.tensors().get(stretch.tensor).ok_or_else(missing)?;
        let end = stretch.start.checked_add(out.len() as u64);
        if end.is_none_or(|end| Some(end) > spec.bytes()) {
            let text = format!("tensor {:?} has no {} bytes from byte {} on", spec.name, out.len(), stretch.start);
            return Err(Error::schema(text));
        }
        let keys = &keys(record)[layout.chunks_of(stretch.tensor)];
        will_fill(out);
        let (mut start, mut rest) = (stretch.start, out);
        while !rest.is_empty() {
            // shares end where chunks do
            let length = (SHARE - (start as usize) % CHUNK).min(rest.len());
            let (share, behind) = rest.split_at_mut(length);
            jobs.push(Job { number, step: stretch.step, spec, keys, log, start, out: share });
            start += length as u64;
            rest = behind;
        }
        Ok(())
    }

    fn read_job(&self, part: &str, job: Job<'_, '_>, hand: &mut Hand) -> Result<()> {
        let bytes = job.spec.bytes().unwrap_or(0);
        let (mut at, mut rest) = (job.start, job.out);
        while !rest.is_empty() {
            let chunk = (at / CHUNK as u64) as usize;
            let first = (chunk * CHUNK) as u64;
            let raw = (bytes - first).min(CHUNK as u64) as usize;
            let inside = (at - first) as usize;
            let (here, behind) = rest.split_at_mut((raw - inside).min(rest.len()));
            at += here.len() as u64;
            // the record was found to have as many keys as its tensors have chunks
            let read = self.read_chunk(&job.keys[chunk], raw, job.spec.dtype, inside, here, hand);
            read.map_err(|error| {
                let (name, step, log) = (&job.spec.name, job.step, job.log);
                let message =
                    format!("chunk {chunk} of tensor {name:?} in part {part:?} at step {step}: {}", error.message);
                let error = Error { message, ..error };
                let error = if error.file.is_some() { error } else { error.in_file(log) };
                error.hint("other tensors and steps are readable: run.load(strict=False) leaves out what is not")
            })?;
            rest = behind;
        }
        Ok(())
    }
}
