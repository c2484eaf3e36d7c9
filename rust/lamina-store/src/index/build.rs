//! Building an index: range by range of features, by several threads, written in order.

use super::Held;
use super::rows::Steps;
use super::stats::sums;
use super::transpose::{Buffers, Source, Transposer};
use crate::crew;
use crate::reader::{Mask, Snapshot};
use crate::storage::Blob;
use lamina_format::feature_index::{Description, LONGEST, MAGIC, Part, PartWriter};
use lamina_format::histogram::Counter;
use lamina_format::record::Site;
use lamina_format::{Error, ErrorKind, Result, names};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Units that all threads together hold: with what they become, some 14 bytes each.
const AT_ONCE: u64 = 12 << 20;
/// Units of a range below which cutting costs more than it helps.
const LEAST: u64 = 1 << 16;
/// More threads than these wait for the disk.
const MOST_THREADS: usize = 8;

impl Snapshot {
    /// Builds the index of a segment's codes of a site, or replaces it; returns its bytes. It is there wholly or not at all.
    ///
    /// Takes some 200 MB of memory whatever the rows, or 12 bytes for each unit of the most frequent feature if that is more.
    pub fn build_feature_index(&self, site: &Site, file: &str, threads: usize) -> Result<u64> {
        self.check_codes(site)?;
        let segments = self.indexes().of(self, site);
        let absent = || Error::new(ErrorKind::NotFound, format!("{file:?} holds no codes of {:?}", site.name));
        let segment = segments.segments.iter().find(|segment| segment.file == file).ok_or_else(absent)?;
        if !self.is_sealed(file) {
            let error = Error::schema("a segment that is still being written has no index").in_file(file);
            return Err(error.hint("close its writer, or wait until the segment is full; then refresh the run"));
        }
        let name = names::feature_index(file, site.id).ok_or_else(absent)?;
        if segment.rows() >= u32::MAX.into() {
            return Err(
                Error::schema(format!("{} rows are more than an index can count", segment.rows())).in_file(file)
            );
        }
        let mut steps = Steps::default();
        for held in &segment.groups {
            steps.extend(self, held.group(self))?;
        }
        let source = |held: &Held| Source { group: held.group(self), start: held.start as u32, unseen: Mask::None };
        let transposer = Transposer::new(self, site, segment.groups.iter().map(source).collect());
        let threads = threads.clamp(1, MOST_THREADS);
        let counts = transposer.count(threads)?;
        let each = counts.iter().sum::<u64>() / (4 * threads as u64);
        let ranges = transposer.ranges(&counts, each.clamp(LEAST, AT_ONCE / threads as u64));
        let mut blob = self.storage().0.create_index(&name)?;
        blob.write(0, &MAGIC)?;
        let output = Output { blob, parts: Vec::new(), next: 0, end: MAGIC.len() as u64, failed: None };
        let output = Turns { output: Mutex::new(output), changed: Condvar::new() };
        let next = AtomicUsize::new(0);
        crew::together(threads - 1, &|| {
            let (mut buffers, mut counter) = (Buffers::default(), Counter::default());
            let mut given_up = GivenUp { turns: &output, done: false };
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let Some(range) = ranges.get(turn) else { break };
                let mut part = PartWriter::default();
                let gathered = transposer.features(&counts, range.clone(), &mut buffers, |feature, units| {
                    let sums = sums(site.dtype, units, &steps, &mut counter);
                    part.push(feature, units, site.dtype, sums, &mut counter);
                });
                if !output.write(turn, gathered.map(|()| part)) {
                    break;
                }
            }
            given_up.done = true;
        });
        let Output { mut blob, parts, mut end, failed, .. } =
            output.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)?;
        let description = Description {
            site: site.id,
            dtype: site.dtype,
            width: site.width(),
            groups: segment.indexed.clone(),
            parts,
            steps: !steps.unknown,
        };
        let description = description.encode();
        if description.len() > LONGEST {
            return Err(Error::schema("an index of so many groups and features cannot be described").in_file(file));
        }
        blob.write(end, &description)?;
        end += description.len() as u64;
        blob.finish(end)?;
        // whoever asks next looks for it again
        *segment.lock() = None;
        Ok(end)
    }
}

/// The file, written by whoever's turn it is.
struct Output {
    blob: Box<dyn Blob>,
    parts: Vec<Part>,
    next: usize,
    end: u64,
    failed: Option<Error>,
}

impl Output {
    fn add(&mut self, part: PartWriter) -> Result<()> {
        if let Some((part, sections)) = part.finish(self.end) {
            for section in sections {
                self.blob.write(self.end, &section)?;
                self.end += section.len() as u64;
            }
            self.parts.push(part);
        }
        Ok(())
    }
}

struct Turns {
    output: Mutex<Output>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a part when those before it are; false if nothing comes of the file.
    fn write(&self, turn: usize, part: Result<PartWriter>) -> bool {
        let mut output = self.lock();
        if let Err(error) = part {
            output.failed.get_or_insert(error);
            self.changed.notify_all();
            return false;
        }
        while output.next < turn && output.failed.is_none() {
            output = self.changed.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        if output.failed.is_none() {
            if let Err(error) = part.and_then(|part| output.add(part)) {
                output.failed = Some(error);
            }
            output.next += 1;
        }
        self.changed.notify_all();
        output.failed.is_none()
    }
}

/// Lets nobody wait for a thread that panicked.
struct GivenUp<'a> {
    turns: &'a Turns,
    done: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.turns.lock().failed.get_or_insert(Error::damaged("a thread that built an index ended"));
            self.turns.changed.notify_all();
        }
    }
}
