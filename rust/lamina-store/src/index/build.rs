//! Building an index: range by range of features, by several threads, written in order.

use super::Held;
use super::rows::Steps;
use super::stats::Summing;
use super::transpose::{Limits, Transposer};
use super::visit::Source;
use crate::reader::{Mask, Snapshot};
use crate::storage::Blob;
use lamina_format::feature_index::{Description, LONGEST, MAGIC, Part, PartWriter};
use lamina_format::histogram::Counter;
use lamina_format::record::Site;
use lamina_format::{Error, ErrorKind, Result, names};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// More threads than these wait for the disk.
const MOST_THREADS: usize = 8;

impl Snapshot {
    /// Builds the index of a segment's codes of a site, or replaces it; returns its bytes. It is there wholly or not at all.
    ///
    /// Takes some 200 MB of memory whatever the rows, and the list of a feature that is active in more than 12 million of them:
    /// the value and at most 4 bytes for each.
    /// Its bytes follow from the codes alone, however many threads build it.
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
        let sources: Vec<Source> = segment.groups.iter().map(source).collect();
        let threads = threads.clamp(1, MOST_THREADS);
        let transposer = Transposer::new(self, site, &sources, threads, Limits::default())?;
        let mut blob = self.storage().0.create_index(&name)?;
        blob.write(0, &MAGIC)?;
        let output = Output { blob, parts: Vec::new(), next: 0, end: MAGIC.len() as u64, failed: false };
        let output = Turns { output: Mutex::new(output), changed: Condvar::new() };
        transposer.each_part(|number, part| {
            let mut given_up = GivenUp { turns: &output, done: false };
            let (mut writer, mut counter) = (PartWriter::default(), Counter::default());
            let mut summing = Summing::default();
            part.features(|feature, count, units| {
                writer.add(count, units, site.dtype);
                if summing.add(site.dtype, units, &steps, &mut counter) == count {
                    writer.end(feature, summing.take(site.dtype), &mut counter);
                }
            })?;
            given_up.done = true;
            output.write(number, writer)
        })?;
        let Output { mut blob, parts, mut end, .. } =
            output.output.into_inner().unwrap_or_else(PoisonError::into_inner);
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
    /// Whether nothing comes of it.
    failed: bool,
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

    /// Writes a part when those before it are, unless one of them failed.
    fn write(&self, turn: usize, part: PartWriter) -> Result<()> {
        let mut output = self.lock();
        while output.next < turn && !output.failed {
            output = self.changed.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
        let written = if output.failed { Ok(()) } else { output.add(part) };
        output.failed |= written.is_err();
        output.next += 1;
        self.changed.notify_all();
        written
    }
}

/// Lets nobody wait for a thread that failed.
struct GivenUp<'a> {
    turns: &'a Turns,
    done: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.turns.lock().failed = true;
            self.turns.changed.notify_all();
        }
    }
}
