//! Which checkpoints there are, and what each of them holds.

use super::{At, keys};
use crate::Snapshot;
use crate::reader::checkpoint::layout::Layout;
use lamina_format::chunk::{self, CHUNK, Key};
use lamina_format::record::{Codec, Part, TensorSpec};
use lamina_format::{Error, Result, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensor<'a> {
    /// Name, type and shape.
    pub spec: &'a TensorSpec,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Bytes of its chunks that no earlier save holds.
    pub stored: u64,
}

/// A part of a checkpoint.
pub struct SavedPart<'a> {
    /// Name.
    pub name: &'a str,
    /// When it was saved: microseconds since the epoch.
    pub time: i64,
    layout: &'a Layout,
    /// Tensors of which a chunk is new, and how many bytes those take.
    stored: Vec<(usize, u64)>,
}

impl<'a> SavedPart<'a> {
    /// What tells its layout from others: parts of many saves share one.
    pub fn layout(&self) -> usize {
        std::ptr::from_ref(self.layout) as usize
    }

    /// The tensors that it has, in order.
    pub fn specs(&self) -> &'a [TensorSpec] {
        self.layout.specs()
    }

    /// The numbers of tensors of which something is new, and how many bytes.
    pub fn stored(&self) -> &[(usize, u64)] {
        &self.stored
    }

    /// The same, tensor by tensor.
    pub fn tensors(&self) -> Vec<SavedTensor<'a>> {
        let all = |spec: &'a TensorSpec| SavedTensor { spec, bytes: spec.bytes().unwrap_or(0), stored: 0 };
        let mut tensors: Vec<_> = self.specs().iter().map(all).collect();
        self.stored.iter().for_each(|&(at, bytes)| tensors[at].stored = bytes);
        tensors
    }
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
        keys(self.part).iter().zip(lengths).map(|(key, (spec, length))| (key, spec, length))
    }
}

impl Snapshot {
    /// Every chunk of the checkpoints that are not hidden, of those that were saved again too.
    pub(crate) fn needed_chunks(&self) -> HashSet<Key> {
        let parts = self.checkpoints.saves.iter().flat_map(|(_, save)| &save.parts);
        parts.flat_map(keys).copied().collect()
    }

    /// The parts of all saves that count and are whole, in order of reading.
    pub(crate) fn kept_parts(&self) -> Vec<Kept<'_>> {
        let store = &self.checkpoints;
        let mut counting: Vec<At> = store.index().steps.values().flatten().copied().collect();
        counting.sort_by_key(|at| (at.save, at.part));
        let kept = counting.into_iter().filter_map(|at| {
            let (log, save, part) = store.at(at);
            let writer = log.strip_prefix("logs/").and_then(names::parse_log).map_or(0, |(writer, _)| writer);
            let layout = store.layout(part).ok()?;
            let held = keys(part).iter().all(|key| store.chunks.contains_key(key));
            let (bytes, tensors) = (layout.bytes.as_slice(), layout.tensors());
            held.then_some(Kept { writer, step: save.step, time: save.time, part, layout: bytes, tensors })
        });
        kept.collect()
    }

    /// Whether each place of a chunk holds it coded.
    pub(crate) fn is_coded(&self, key: &Key) -> bool {
        let places = self.checkpoints.chunks.get(key);
        places.is_some_and(|places| places.iter().all(|place| place.chunk.codec != Codec::Raw))
    }

    /// A chunk, with its key verified.
    pub(crate) fn chunk(&self, key: &Key, spec: &TensorSpec, length: usize, writer: u32) -> Result<Vec<u8>> {
        let (mut bytes, log) = (vec![0; length], names::log(writer, 0));
        let fail = |error: Error| {
            let message = format!("a chunk of tensor {:?}: {}", spec.name, error.message);
            let error = Error { message, ..error };
            if error.file.is_some() { error } else { error.in_file(&log) }
        };
        self.read_chunk(key, length, spec.dtype, 0, &mut bytes, &mut Default::default()).map_err(fail)?;
        match chunk::key(spec.dtype, &bytes) == *key {
            true => Ok(bytes),
            false => {
                Err(Error::damaged(format!("a chunk of tensor {:?} does not match its key", spec.name)).in_file(log))
            }
        }
    }

    /// All checkpoints by step, without the parts that are damaged; of several saves of a part at one step the last
    /// counts. It holds no more than the records do.
    pub fn checkpoints(&self) -> BTreeMap<i64, Vec<SavedPart<'_>>> {
        let (store, index) = (&self.checkpoints, self.checkpoints.index());
        // what an earlier save holds is not new, whether that save still counts or not
        let mut known: HashSet<&Key> = HashSet::new();
        let mut new: HashMap<(usize, usize), Vec<(usize, u64)>> = HashMap::new();
        for save in store.by_time() {
            for (number, part) in store.saves[save].1.parts.iter().enumerate() {
                let Ok(layout) = store.layout(part) else { continue };
                let mut stored = BTreeMap::<usize, u64>::new();
                for (tensor, _) in layout.filled() {
                    let fresh = keys(part)[layout.chunks_of(tensor)].iter().filter(|key| known.insert(key));
                    // a chunk may stand in several places: its cheapest is what it needs
                    let size = |key: &Key| {
                        store.chunks.get(key).into_iter().flatten().map(|place| place.chunk.stored).min().unwrap_or(0)
                    };
                    let bytes = fresh.map(size).fold(0, u64::saturating_add);
                    if let Some(owner) = layout.owner(tensor).filter(|_| bytes > 0) {
                        let of_all = stored.entry(owner).or_default();
                        *of_all = of_all.saturating_add(bytes);
                    }
                }
                new.insert((save, number), stored.into_iter().collect());
            }
        }
        let mut steps = BTreeMap::new();
        for (&step, parts) in &index.steps {
            let listed: Vec<SavedPart<'_>> = parts
                .iter()
                .filter_map(|at| {
                    let (_, save, part) = store.at(*at);
                    let stored = new.remove(&(at.save, at.part))?;
                    Some(SavedPart { name: &part.name, time: save.time, layout: store.layout(part).ok()?, stored })
                })
                .collect();
            if !listed.is_empty() {
                steps.insert(step, listed);
            }
        }
        steps
    }

    /// Tree and scalars of a part, as saved, and the log that holds them.
    pub fn saved_part(&self, step: i64, name: &str) -> Result<(String, String, String)> {
        let (log, part) = self.checkpoints.part(step, name)?;
        let layout = self.checkpoints.layout(part).map_err(|error| error.in_file(log))?;
        Ok((layout.tree().to_owned(), part.scalars.clone(), log.to_owned()))
    }
}
