//! All that the commits and logs of a run name, hidden and replaced rows included.

use crate::chain::Chain;
use crate::storage::Storage;
use lamina_format::chunk::Key;
use lamina_format::dtype::DType;
use lamina_format::record::{Chunk, Group, LayoutContent, Op, Replace, Save, Seal};
use lamina_format::segment::Declared;
use lamina_format::{Result, cbor, check, checksum, chunk, frame, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a run's records name. Records that cannot be true are left out; a snapshot reports them.
pub struct Inventory {
    /// Sites and columns, of the commits and then of the logs.
    pub declared: Declared,
    /// Row groups by segment, in order of their number.
    pub groups: BTreeMap<String, Vec<Group>>,
    /// Seals by segment.
    pub seals: HashMap<String, Seal>,
    /// Chunks by pack.
    pub packs: BTreeMap<String, Vec<Chunk>>,
    /// What each chunk's bytes are elements of, as far as a checkpoint says so.
    pub dtypes: HashMap<Key, DType>,
    /// Groups that count no longer, by segment.
    pub replaced: HashMap<String, HashSet<u32>>,
    /// When files were condemned, in microseconds since the epoch.
    pub condemned: HashMap<String, i64>,
    /// Files that may be gone.
    pub dropped: HashSet<String>,
    /// Bytes of commits and logs.
    pub record_bytes: u64,
}

impl Inventory {
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let chain = Chain::read(storage)?;
        let mut inventory = Self {
            declared: chain.declared.clone(),
            groups: BTreeMap::new(),
            seals: HashMap::new(),
            packs: BTreeMap::new(),
            dtypes: HashMap::new(),
            replaced: HashMap::new(),
            condemned: HashMap::new(),
            dropped: HashSet::new(),
            record_bytes: 0,
        };
        let (mut layouts, mut saves) = (HashMap::new(), Vec::new());
        for (commit, _) in chain.commits.iter().cloned() {
            for op in commit.ops {
                match op {
                    Op::Replace(replace) => inventory.replace(replace),
                    Op::Condemn(files) => {
                        inventory.condemned.extend(files.files.into_iter().map(|file| (file, commit.time)));
                    }
                    Op::Drop(files) => inventory.dropped.extend(files.files),
                    op => inventory.apply(op, &mut layouts, &mut saves),
                }
            }
        }
        for (writer, generation) in storage.logs()? {
            // a log that cannot be read is a problem that the snapshot reports
            let Ok(bytes) = storage.read_log(writer, generation) else { continue };
            inventory.record_bytes += bytes.len() as u64;
            for frame in frame::scan(&bytes, generation)?.frames {
                for op in frame.ops {
                    match op {
                        Op::Replace(copy) if !copy.commit.is_some_and(|n| chain.unreadable.contains(&n)) => {}
                        Op::Replace(replace) => inventory.replace(replace),
                        op => inventory.apply(op, &mut layouts, &mut saves),
                    }
                }
            }
        }
        for groups in inventory.groups.values_mut() {
            groups.sort_by_key(|group| group.number);
            groups.dedup_by_key(|group| group.number);
        }
        inventory.find_dtypes(&layouts, &saves);
        Ok(inventory)
    }

    /// Whether a group holds rows that no other holds instead.
    pub fn counts(&self, group: &Group) -> bool {
        !self.replaced.get(&group.file).is_some_and(|numbers| numbers.contains(&group.number))
    }

    fn replace(&mut self, replace: Replace) {
        for old in &replace.old {
            self.replaced.entry(old.file.clone()).or_default().extend(old.numbers());
        }
        for group in replace.new.into_iter().filter(|group| check::group(group, &self.declared).is_ok()) {
            self.groups.entry(group.file.clone()).or_default().push(group);
        }
    }

    fn apply(&mut self, op: Op, layouts: &mut HashMap<Key, LayoutContent>, saves: &mut Vec<Save>) {
        // the first declaration counts; a snapshot reports those that contradict it
        let _ = self.declared.apply(&op);
        match op {
            Op::Group(group) if check::group(&group, &self.declared).is_ok() => {
                self.groups.entry(group.file.clone()).or_default().push(group);
            }
            Op::Seal(seal) if names::check_blob(&seal.file).is_ok() => {
                self.seals.insert(seal.file.clone(), seal);
            }
            Op::Chunks(chunks) if names::check_blob(&chunks.pack).is_ok() => {
                self.packs.entry(chunks.pack).or_default().extend(chunks.chunks);
            }
            Op::Layout(layout) => {
                if let Ok(content) = cbor::decode(&layout.content, "a layout") {
                    layouts.insert(checksum::hash(&layout.content), content);
                }
            }
            Op::Save(save) => saves.push(save),
            _ => {}
        }
    }

    fn find_dtypes(&mut self, layouts: &HashMap<Key, LayoutContent>, saves: &[Save]) {
        for part in saves.iter().flat_map(|save| &save.parts) {
            let Some(layout) = layouts.get(&part.layout) else { continue };
            let mut keys = part.keys.as_chunks::<32>().0.iter();
            for tensor in &layout.tensors {
                let count = chunk::count(tensor.bytes().unwrap_or(0));
                self.dtypes.extend(keys.by_ref().take(count as usize).map(|key| (*key, tensor.dtype)));
            }
        }
    }
}
