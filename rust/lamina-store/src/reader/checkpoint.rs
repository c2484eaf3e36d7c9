//! Checkpoints of a snapshot.

use super::Snapshot;
use crate::places::{Places, readable};
use lamina_format::chunk::{self, CHUNK, Key};
use lamina_format::codec::Coder;
use lamina_format::record::{Chunk, Codec, LayoutContent, Op, Part, Save, TensorSpec};
use lamina_format::{DType, Error, ErrorKind, Result, cbor, checksum, names};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What the logs say of checkpoints.
#[derive(Default)]
pub struct Checkpoints {
    chunks: Places,
    layouts: HashMap<Key, Layout>,
    /// With the logs that hold them.
    saves: Vec<(Arc<str>, Save)>,
}

/// A layout: saves share it, and who loads a part asks for it tensor by tensor.
struct Layout {
    /// As it stands in the log.
    bytes: Vec<u8>,
    content: Result<LayoutContent>,
    /// Bytes that the keys of a part take; None if that is impossible.
    keys: Option<u64>,
}

impl Layout {
    fn read(bytes: Vec<u8>) -> Self {
        let content: Result<LayoutContent> = cbor::decode(&bytes, "a layout");
        let chunks = |spec: &TensorSpec| spec.bytes().map(chunk::count);
        let add = |sum: u64, spec: &TensorSpec| sum.checked_add(chunks(spec)?);
        let count = content.as_ref().ok().and_then(|content| content.tensors.iter().try_fold(0u64, add));
        Self { bytes, content, keys: count.and_then(|count| count.checked_mul(32)) }
    }
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensor {
    /// Name, type and shape.
    pub spec: TensorSpec,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Bytes of its chunks that no earlier save holds.
    pub stored: u64,
}

/// A part of a save that counts and is whole.
pub(crate) struct Kept<'a> {
    /// Whose log holds it.
    pub writer: u32,
    /// That of its save.
    pub step: i64,
    /// Likewise.
    pub time: i64,
    /// Its record.
    pub part: &'a Part,
    /// What its layout's key stands for.
    pub layout: &'a [u8],
    /// The same, decoded.
    pub tensors: &'a [TensorSpec],
}

impl Kept<'_> {
    /// Each chunk's key, tensor, and length.
    pub fn chunks(&self) -> impl Iterator<Item = (&Key, &TensorSpec, usize)> {
        let lengths = self.tensors.iter().flat_map(|spec| {
            let bytes = spec.bytes().unwrap_or(0);
            let chunk = move |at: u64| (spec, (bytes - at * CHUNK as u64).min(CHUNK as u64) as usize);
            (0..chunk::count(bytes)).map(chunk)
        });
        self.part.keys.as_chunks::<32>().0.iter().zip(lengths).map(|(key, (spec, length))| (key, spec, length))
    }
}

/// A part of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPart {
    /// Name.
    pub name: String,
    /// Tensors in order.
    pub tensors: Vec<SavedTensor>,
}

impl Checkpoints {
    /// Takes up a record; one that cannot be true is an error and is left out.
    pub fn apply(&mut self, op: Op, log: &str) -> Result<()> {
        match op {
            Op::Chunks(chunks) => {
                names::check_blob(&chunks.pack)?;
                let pack: Arc<str> = Arc::from(chunks.pack);
                for chunk in chunks.chunks {
                    self.chunks.entry(chunk.key).or_default().push((Arc::clone(&pack), chunk));
                }
            }
            Op::Layout(layout) => {
                let key = checksum::hash(&layout.content);
                self.layouts.entry(key).or_insert_with(|| Layout::read(layout.content));
            }
            Op::Save(save) => self.saves.push((Arc::from(log), save)),
            _ => {}
        }
        Ok(())
    }

    /// Forgets chunks in packs that are removed, and the parts of saves that name a chunk which stood only there: a
    /// writer that leans on such a pack finds that out, and writes the chunk again, before it acknowledges the save.
    pub fn forget(&mut self, dropped: &HashSet<String>) {
        if dropped.is_empty() {
            return;
        }
        let stands = |(pack, _): &&(Arc<str>, Chunk)| !dropped.contains(pack.as_ref());
        let readable = readable(self.chunks.values().flatten().filter(stands).map(|(_, chunk)| chunk));
        let mut gone: HashSet<Key> = HashSet::new();
        self.chunks.retain(|key, places| {
            places.retain(|(pack, _)| !dropped.contains(pack.as_ref()));
            if !readable.contains(key) {
                gone.insert(*key);
            }
            readable.contains(key)
        });
        for (_, save) in &mut self.saves {
            save.parts.retain(|part| !part.keys.as_chunks::<32>().0.iter().any(|key| gone.contains(key)));
        }
        self.saves.retain(|(_, save)| !save.parts.is_empty());
    }

    fn layout(&self, part: &Part) -> Result<&LayoutContent> {
        let lost = || Error::damaged(format!("the layout of part {:?} is lost with a damaged record", part.name));
        let layout = self.layouts.get(&part.layout).ok_or_else(lost)?;
        let content = layout.content.as_ref().map_err(Error::clone)?;
        if layout.keys != Some(part.keys.len() as u64) {
            return Err(Error::damaged(format!("the record of part {:?} does not fit its tensors", part.name)));
        }
        Ok(content)
    }

    /// What is wrong with checkpoints: those without a layout are left out, those without a chunk do not load.
    pub fn problems(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        for (log, save) in &self.saves {
            for part in &save.parts {
                let lost = part.keys.as_chunks::<32>().0.iter().find(|key| !self.chunks.contains_key(*key));
                let lost = lost.map(|_| Error::damaged("a chunk is lost with a damaged record"));
                if let Some(error) = self.layout(part).err().or(lost) {
                    let message =
                        format!("part {:?} of the checkpoint of step {}: {}", part.name, save.step, error.message);
                    problems.push(Error { message, ..error }.in_file(log.as_ref()));
                }
            }
        }
        problems
    }

    /// The last save of a part at a step, and the log that holds it.
    fn part(&self, step: i64, name: &str) -> Result<(&str, &Part)> {
        let saves = self.saves.iter().filter(|(_, save)| save.step == step);
        let parts = saves.flat_map(|(log, save)| save.parts.iter().map(move |part| (save.time, log.as_ref(), part)));
        let last = parts.filter(|(.., part)| part.name == name).max_by_key(|(time, ..)| *time);
        let missing = || Error::new(ErrorKind::NotFound, format!("step {step} has no checkpoint with a part {name:?}"));
        last.map(|(_, log, part)| (log, part)).ok_or_else(missing)
    }
}

impl Snapshot {
    /// Every chunk of the checkpoints that are not hidden, of those that were saved again too.
    pub(crate) fn needed_chunks(&self) -> HashSet<Key> {
        let parts = self.checkpoints.saves.iter().flat_map(|(_, save)| &save.parts);
        parts.flat_map(|part| part.keys.as_chunks::<32>().0).copied().collect()
    }

    /// The parts of all saves that count, in order of reading.
    pub(crate) fn kept_parts(&self) -> Vec<Kept<'_>> {
        let store = &self.checkpoints;
        let mut last: HashMap<(i64, &str), (i64, usize)> = HashMap::new();
        for (at, (_, save)) in store.saves.iter().enumerate() {
            for part in &save.parts {
                let entry = last.entry((save.step, &part.name)).or_insert((save.time, at));
                *entry = (*entry).max((save.time, at));
            }
        }
        let mut kept = Vec::new();
        for (at, (log, save)) in store.saves.iter().enumerate() {
            let writer = log.strip_prefix("logs/").and_then(names::parse_log).map_or(0, |(writer, _)| writer);
            let counts = |part: &&Part| last.get(&(save.step, part.name.as_str())) == Some(&(save.time, at));
            kept.extend(save.parts.iter().filter(counts).filter_map(|part| {
                let tensors = store.layout(part).ok()?.tensors.as_slice();
                let held = part.keys.as_chunks::<32>().0.iter().all(|key| store.chunks.contains_key(key));
                let layout = store.layouts.get(&part.layout)?.bytes.as_slice();
                held.then_some(Kept { writer, step: save.step, time: save.time, part, layout, tensors })
            }));
        }
        kept
    }

    /// Whether each place of a chunk holds it coded.
    pub(crate) fn is_coded(&self, key: &Key) -> bool {
        let places = self.checkpoints.chunks.get(key);
        places.is_some_and(|places| places.iter().all(|(_, chunk)| chunk.codec != Codec::Raw))
    }

    /// A chunk, with its key verified.
    pub(crate) fn chunk(&self, key: &Key, spec: &TensorSpec, length: usize, writer: u32) -> Result<Vec<u8>> {
        let (mut bytes, log) = (vec![0; length], names::log(writer, 0));
        self.read_chunk(key, spec, &log, &mut Coder::default(), &mut bytes)?;
        match chunk::key(spec.dtype, &bytes) == *key {
            true => Ok(bytes),
            false => {
                Err(Error::damaged(format!("a chunk of tensor {:?} does not match its key", spec.name)).in_file(log))
            }
        }
    }

    /// All checkpoints by step, without the parts that are damaged; of several saves of a part at one step the last
    /// counts.
    pub fn checkpoints(&self) -> BTreeMap<i64, Vec<SavedPart>> {
        let store = &self.checkpoints;
        let mut saves: Vec<&Save> = store.saves.iter().map(|(_, save)| save).collect();
        saves.sort_by_key(|save| save.time);
        let whole = saves.iter().flat_map(|save| save.parts.iter().map(|part| (save.step, part)));
        let whole: Vec<_> = whole.filter_map(|(step, part)| Some((step, part, store.layout(part).ok()?))).collect();
        let last: HashMap<(i64, &str), usize> =
            whole.iter().enumerate().map(|(at, (step, part, _))| ((*step, part.name.as_str()), at)).collect();
        let (mut known, mut steps) = (HashSet::new(), BTreeMap::<i64, Vec<SavedPart>>::new());
        for (at, (step, part, layout)) in whole.into_iter().enumerate() {
            let mut keys = part.keys.as_chunks::<32>().0.iter();
            if last.get(&(step, part.name.as_str())) != Some(&at) {
                known.extend(keys);
                continue;
            }
            let mut tensors = Vec::new();
            for spec in &layout.tensors {
                let bytes = spec.bytes().unwrap_or(0);
                let chunks = keys.by_ref().take(chunk::count(bytes) as usize);
                let new = chunks.filter(|key| known.insert(**key));
                let least =
                    |places: &Vec<(Arc<str>, Chunk)>| places.iter().map(|(_, chunk)| chunk.stored).min().unwrap_or(0);
                let size = |key: &Key| store.chunks.get(key).map_or(0, least);
                tensors.push(SavedTensor { stored: new.map(size).sum(), bytes, spec: spec.clone() });
            }
            steps.entry(step).or_default().push(SavedPart { name: part.name.clone(), tensors });
        }
        steps
    }

    /// Tree and scalars of a part, as saved, and the log that holds them.
    pub fn saved_part(&self, step: i64, name: &str) -> Result<(String, String, String)> {
        let (log, part) = self.checkpoints.part(step, name)?;
        let tree = &self.checkpoints.layout(part).map_err(|error| error.in_file(log))?.tree;
        Ok((tree.clone(), part.scalars.clone(), log.to_owned()))
    }

    /// The bytes of a tensor of a part, into `out` of just that size.
    pub fn saved_tensor(&self, step: i64, name: &str, index: usize, out: &mut [u8]) -> Result<()> {
        let (log, part) = self.checkpoints.part(step, name)?;
        let layout = self.checkpoints.layout(part).map_err(|error| error.in_file(log))?;
        let missing = || Error::new(ErrorKind::NotFound, format!("part {name:?} has no tensor {index}"));
        let spec = layout.tensors.get(index).ok_or_else(missing)?;
        if spec.bytes() != Some(out.len() as u64) {
            return Err(Error::schema(format!("tensor {:?} does not fit {} bytes", spec.name, out.len())));
        }
        let before: u64 = layout.tensors[..index].iter().map(|spec| chunk::count(spec.bytes().unwrap_or(0))).sum();
        let (keys, mut coder) = (part.keys.as_chunks::<32>().0, Coder::default());
        for (at, piece) in out.chunks_mut(CHUNK).enumerate() {
            let short = || Error::damaged(format!("the record of tensor {:?} lacks a chunk", spec.name));
            self.read_chunk(keys.get(before as usize + at).ok_or_else(short)?, spec, log, &mut coder, piece)?;
        }
        Ok(())
    }

    /// A chunk may lie in several places: if one is damaged the next is tried.
    fn read_chunk(&self, key: &Key, spec: &TensorSpec, log: &str, coder: &mut Coder, out: &mut [u8]) -> Result<()> {
        let tensor = &spec.name;
        let lost = format!("a chunk of tensor {tensor:?} is lost with a damaged record");
        let mut failure = Error::damaged(lost).in_file(log);
        for (pack, chunk) in self.checkpoints.chunks.get(key).into_iter().flatten() {
            match self.read_place(pack, chunk, spec.dtype, coder, out) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure.hint(format!("tensor {tensor:?} is affected; other steps and tensors are readable")))
    }

    fn read_place(&self, pack: &str, chunk: &Chunk, dtype: DType, coder: &mut Coder, out: &mut [u8]) -> Result<()> {
        if chunk.raw != out.len() as u64 {
            return Err(Error::damaged("a chunk's record does not fit its tensor").in_file(pack).at(chunk.offset));
        }
        let within = |error: Error| if error.file.is_none() { error.in_file(pack) } else { error };
        chunk.check().map_err(within)?;
        let file = self.blobs.get(self.storage.as_ref(), pack)?;
        if chunk.codec == Codec::Raw {
            file.read(chunk.offset, out)?;
            return chunk.verify(out).map_err(within);
        }
        let mut stored = vec![0; chunk.stored as usize];
        file.read(chunk.offset, &mut stored)?;
        chunk.verify(&stored).map_err(within)?;
        let base = chunk.base().map(|base| self.read_base(base, dtype, coder, out.len())).transpose()?;
        coder.decode_chunk(chunk, dtype, &stored, base.as_deref(), out).map_err(within)
    }

    /// The chunk that a delta is the difference from: one that is no delta itself.
    fn read_base(&self, key: &Key, dtype: DType, coder: &mut Coder, length: usize) -> Result<Vec<u8>> {
        let (mut bytes, mut failure) = (vec![0; length], Error::damaged("the base of a delta is lost"));
        for (pack, chunk) in self.checkpoints.chunks.get(key).into_iter().flatten() {
            if chunk.codec == Codec::Delta {
                continue;
            }
            match self.read_place(pack, chunk, dtype, coder, &mut bytes) {
                Ok(()) => return Ok(bytes),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}
