//! The pack that a writer is filling.

use super::known::Known;
use super::pace::Pace;
use super::staged::SaveJob;
use crate::chain;
use crate::storage::{Blob, Storage};
use lamina_format::chunk::{self, CHUNK, Key};
use lamina_format::codec::Coder;
use lamina_format::commit::{CODED_CHUNKS, PIECES};
use lamina_format::record::{Chunk, Chunks, Codec, Layout, LayoutContent, Op, Part, Save, TensorSpec};
use lamina_format::{DType, Result, cbor, checksum, names};
use std::collections::HashSet;
use std::time::Instant;

/// Bytes at which a new pack is begun.
const LONGEST: u64 = 512 << 20;
/// Chunks a record: keeps it far below the longest frame.
const MOST_CHUNKS: usize = 50_000;

struct Current {
    blob: Box<dyn Blob>,
    file: String,
    end: u64,
    synced: bool,
}

/// How a chunk shall lie in its pack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Raw,
    /// As byte planes, if that saves enough.
    Planes,
}

/// Writes checkpoints into packs.
pub struct PackWriter {
    ordinal: u32,
    next_pack: u32,
    current: Option<Current>,
    known: Option<Known>,
    /// The greatest time of a save that the run held or that was written since.
    latest: i64,
    layouts: HashSet<Key>,
    coder: Coder,
    pace: Pace,
    /// The run says that it holds coded chunks.
    coded: bool,
    /// The run says that it holds tensors in pieces.
    pieces: bool,
}

impl PackWriter {
    pub fn new(ordinal: u32) -> Self {
        let (current, known, layouts, coder, pace) = Default::default();
        let (next_pack, latest, coded, pieces) = Default::default();
        Self { ordinal, next_pack, current, known, latest, layouts, coder, pace, coded, pieces }
    }

    /// Writes the chunks that the run does not hold, which lie in the buffers; returns what must stand in the log.
    pub fn write(&mut self, storage: &dyn Storage, job: SaveJob, buffers: &[Vec<u8>]) -> Result<Vec<Op>> {
        self.look(storage)?;
        let (mut ops, mut parts) = (Vec::new(), Vec::new());
        for part in job.parts {
            let mut keys = Vec::new();
            for (spec, staged) in &part.tensors {
                for bytes in staged.slices(buffers) {
                    self.chunks(storage, spec.dtype, bytes, &mut keys, &mut ops)?;
                }
            }
            let tensors = part.tensors.into_iter().map(|(spec, _)| spec).collect();
            let layout = self.layout(part.tree, tensors, &mut ops);
            parts.push(Part { name: part.name, layout, keys, scalars: part.scalars });
        }
        ops.push(Op::Save(self.save(job.step, job.time, parts)));
        Ok(ops)
    }

    /// Looks at what the run holds, and forgets what was condemned since; before chunks are written.
    pub fn look(&mut self, storage: &dyn Storage) -> Result<()> {
        match &mut self.known {
            Some(known) => known.refresh(storage)?,
            none => self.latest = none.insert(Known::read(storage)?).latest,
        }
        Ok(())
    }

    /// Writes those chunks of a tensor's bytes that the run does not hold; appends the keys of all, and what must stand in
    /// the log.
    pub fn chunks(
        &mut self,
        storage: &dyn Storage,
        dtype: DType,
        bytes: &[u8],
        keys: &mut Vec<u8>,
        ops: &mut Vec<Op>,
    ) -> Result<()> {
        for raw in bytes.chunks(CHUNK) {
            let key = chunk::key(dtype, raw);
            keys.extend_from_slice(&key);
            if !self.known.as_mut().is_some_and(|known| known.lean(key)) {
                let form = self.pace.form(dtype);
                self.put(storage, key, dtype, raw, form, ops)?;
            }
        }
        Ok(())
    }

    /// The key of a layout; it is added to `ops` if this log does not hold it.
    pub fn layout(&mut self, tree: String, tensors: Vec<TensorSpec>, ops: &mut Vec<Op>) -> Key {
        self.content(&LayoutContent { tree, tensors, wholes: None }, ops)
    }

    /// The same of tensors in pieces.
    pub fn layout_of_pieces(
        &mut self,
        storage: &dyn Storage,
        layout: &LayoutContent,
        ops: &mut Vec<Op>,
    ) -> Result<Key> {
        if !self.pieces {
            chain::require(storage, Some(self.ordinal), PIECES)?;
            self.pieces = true;
        }
        Ok(self.content(layout, ops))
    }

    fn content(&mut self, layout: &LayoutContent, ops: &mut Vec<Op>) -> Key {
        let content = cbor::encode(layout);
        let key = checksum::hash(&content);
        if self.layouts.insert(key) {
            ops.push(Op::Layout(Layout { content }));
        }
        key
    }

    /// Relies on chunks that others stored since `condemned` files were condemned in all: stores again what has been
    /// condemned meanwhile.
    pub fn rely(&mut self, storage: &dyn Storage, keys: &[u8], condemned: usize, ops: &mut Vec<Op>) -> Result<()> {
        let keys = keys.as_chunks::<32>().0;
        let lost = self.known.as_mut().map_or(Ok(Vec::new()), |known| known.rely(storage, keys, condemned))?;
        lost.into_iter().try_for_each(|(chunk, bytes)| self.place(storage, chunk, &bytes, ops))
    }

    /// The record of a save.
    pub fn save(&mut self, step: i64, time: i64, parts: Vec<Part>) -> Save {
        // of two saves of a step the greater time counts: a clock that was set back must not bring the older one back
        self.latest = time.max(self.latest.saturating_add(1));
        Save { step, time: self.latest, parts }
    }

    /// Stores what a save leaned on that has become durable, and was condemned meanwhile; returns what must stand in the
    /// log before the save is acknowledged.
    pub fn confirm(&mut self, storage: &dyn Storage) -> Result<Vec<Op>> {
        let lost = self.known.as_mut().map_or(Ok(Vec::new()), |known| known.lost(storage))?;
        let mut ops = Vec::new();
        for (chunk, bytes) in lost {
            self.place(storage, chunk, &bytes, &mut ops)?;
        }
        Ok(ops)
    }

    /// Writes a chunk that the run does not hold; what must stand in the log is added to `ops`.
    pub fn put(
        &mut self,
        storage: &dyn Storage,
        key: Key,
        dtype: DType,
        raw: &[u8],
        form: Form,
        ops: &mut Vec<Op>,
    ) -> Result<()> {
        let mut coded = None;
        if form == Form::Planes {
            let begun = Instant::now();
            coded = self.coder.encode_chunk(dtype, raw, None)?;
            let stored = coded.as_ref().map_or(raw.len(), |coded| coded.bytes.len());
            self.pace.coded(dtype, raw.len(), stored, begun.elapsed());
        }
        match coded {
            Some(coded) => self.place(storage, coded.record(key, raw.len(), None), &coded.bytes, ops),
            None => self.place(storage, Chunk::raw(key, raw), raw, ops),
        }
    }

    /// Writes a chunk's bytes as they shall lie in the pack. The record's offset is given here.
    pub fn place(&mut self, storage: &dyn Storage, mut chunk: Chunk, bytes: &[u8], ops: &mut Vec<Op>) -> Result<()> {
        if chunk.codec != Codec::Raw && !self.coded {
            chain::require(storage, Some(self.ordinal), CODED_CHUNKS)?;
            self.coded = true;
        }
        if self.current.as_ref().is_some_and(|current| current.end + bytes.len() as u64 > LONGEST) {
            self.sync()?;
            self.current = None;
            self.next_pack += 1;
        }
        let current = match &mut self.current {
            Some(current) => current,
            none => {
                let file = names::pack(self.ordinal, self.next_pack);
                none.insert(Current { blob: storage.create_blob(&file)?, file, end: 0, synced: true })
            }
        };
        let begun = Instant::now();
        current.blob.write(current.end, bytes)?;
        self.pace.wrote(bytes.len(), begun.elapsed());
        chunk.offset = current.end;
        current.end += chunk.stored;
        current.synced = false;
        match ops.last_mut() {
            Some(Op::Chunks(last)) if last.pack == current.file && last.chunks.len() < MOST_CHUNKS => {
                last.chunks.push(chunk);
            }
            _ => ops.push(Op::Chunks(Chunks { pack: current.file.clone(), chunks: vec![chunk] })),
        }
        Ok(())
    }

    /// Hands what was written to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.blob.flush())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> Result<()> {
        if let Some(current) = self.current.as_mut().filter(|current| !current.synced) {
            let begun = Instant::now();
            current.blob.sync()?;
            self.pace.wrote(0, begun.elapsed());
            current.synced = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Files;
    use crate::writer::journal::Journal;
    use std::sync::Arc;

    fn saved_at(writer: &mut PackWriter, storage: &dyn Storage, time: i64) -> (i64, Vec<Op>) {
        let job = SaveJob { step: 1, time, parts: vec![], buffers: vec![], size: 0 };
        let ops = writer.write(storage, job, &[]).expect("an empty save");
        let Some(Op::Save(save)) = ops.last() else { panic!("no save") };
        (save.time, ops)
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_bring_an_older_save_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage: Arc<dyn Storage> = Arc::new(Files::new(folder.path().join("run")));
        crate::create(storage.as_ref(), "{}").expect("a run");
        let mut first = PackWriter::new(0);
        let (time, ops) = saved_at(&mut first, storage.as_ref(), 5000);
        assert_eq!(time, 5000);
        let log = storage.create_log(0, 0).expect("a log").expect("it is free");
        Journal::new(Arc::clone(&storage), 0, log).append(ops).expect("room");
        assert_eq!(saved_at(&mut first, storage.as_ref(), 4000).0, 5001);
        assert_eq!(saved_at(&mut first, storage.as_ref(), 6000).0, 6000);
        // the next writer's clock is behind what the run holds
        assert_eq!(saved_at(&mut PackWriter::new(1), storage.as_ref(), 10).0, 5001);
    }

    #[test]
    fn coded_chunks_are_read_and_who_does_not_know_them_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage: Arc<dyn Storage> = Arc::new(Files::new(folder.path().join("run")));
        crate::create(storage.as_ref(), "{}").expect("a run");
        let weights = (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-8 + 0.05);
        let after = weights.clone().map(|x| x * 1.0001).flat_map(f32::to_le_bytes).collect();
        let states: [Vec<u8>; 2] = [weights.flat_map(f32::to_le_bytes).collect(), after];
        let mut packs = PackWriter::new(0);
        let mut ops = Vec::new();
        let spec = TensorSpec { name: "w".to_owned(), dtype: DType::F32, shape: vec![300_000] };
        let content = cbor::encode(&LayoutContent { tree: "{}".to_owned(), tensors: vec![spec], wholes: None });
        let layout = checksum::hash(&content);
        ops.push(Op::Layout(Layout { content }));
        for (step, state) in states.iter().enumerate() {
            let mut keys = Vec::new();
            for (at, raw) in state.chunks(CHUNK).enumerate() {
                let key = chunk::key(DType::F32, raw);
                keys.extend_from_slice(&key);
                if step == 0 {
                    packs.put(storage.as_ref(), key, DType::F32, raw, Form::Planes, &mut ops).expect("room");
                    continue;
                }
                let base = &states[0][at * CHUNK..at * CHUNK + raw.len()];
                let coded = packs.coder.encode_chunk(DType::F32, raw, Some(base)).expect("codes").expect("shrinks");
                let record = coded.record(key, raw.len(), Some(chunk::key(DType::F32, base)));
                packs.place(storage.as_ref(), record, &coded.bytes, &mut ops).expect("room");
            }
            let part = Part { name: "model".to_owned(), layout, keys, scalars: "[]".to_owned() };
            ops.push(Op::Save(Save { step: step as i64, time: step as i64, parts: vec![part] }));
        }
        packs.sync().expect("room");
        let log = storage.create_log(0, 0).expect("a log").expect("it is free");
        Journal::new(Arc::clone(&storage), 0, log).append(ops).expect("room");
        let chain = chain::Chain::read(storage.as_ref()).expect("a chain");
        assert_eq!(chain.commits.last().expect("a commit").0.needs, [CODED_CHUNKS]);
        let snapshot = crate::Snapshot::open(Arc::clone(&storage), crate::Opening::default()).expect("a run");
        for (step, state) in states.iter().enumerate() {
            let mut out = vec![0; state.len()];
            snapshot.saved_tensor(step as i64, "model", 0, &mut out).expect("reads");
            assert!(out == *state, "step {step}");
        }
        let stored: Vec<u64> = snapshot.checkpoints().values().map(|parts| parts[0].tensors()[0].stored).collect();
        assert!(stored[1] < stored[0] && stored[0] < 1_164_000, "{stored:?}");
        let verified = crate::keep::verify(&storage, &crate::keep::Progress::default()).expect("verifies");
        assert!(verified.damages.is_empty(), "{:?}", verified.damages);
    }
}
