//! All that the commits and logs of a run name, hidden and replaced rows included.

use crate::chain::{Chain, Doomed};
use crate::storage::Storage;
use lamina_format::chunk::Key;
use lamina_format::dtype::DType;
use lamina_format::record::{Chunk, Close, Group, LayoutContent, Op, Open, Replace, Save, Seal};
use lamina_format::segment::Declared;
use lamina_format::{Error, Result, cbor, check, checksum, chunk, frame, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How far a log can be trusted to tell all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every record of it was read.
    Whole,
    /// It ends in bytes that are no record: never acknowledged, or damaged.
    Torn,
    /// Records of it are damaged, or missing.
    Damaged,
}

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
    /// Where chunks stand that others are the difference from, and are no differences themselves: pack and index in it.
    pub bases: HashMap<Key, Vec<(String, usize)>>,
    /// What each chunk's bytes are elements of, as far as a checkpoint says so.
    pub dtypes: HashMap<Key, DType>,
    /// Groups that count no longer, by segment.
    pub replaced: HashMap<String, HashSet<u32>>,
    /// Files that are condemned, or dropped.
    pub doomed: Doomed,
    /// The highest commit.
    pub head: Option<u64>,
    /// The latest time that any record tells.
    pub latest: i64,
    /// Every file that some record names, be it true or not.
    pub named: HashSet<String>,
    /// Files that a record names which cannot be true.
    pub doubtful: HashSet<String>,
    /// Writers whose log is there, and how far it can be trusted.
    pub logs: HashMap<u32, Trust>,
    /// Commits of which a log holds a copy.
    pub copied: HashSet<u64>,
    /// What is wrong with the commits.
    pub problems: Vec<Error>,
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
            bases: HashMap::new(),
            dtypes: HashMap::new(),
            replaced: HashMap::new(),
            doomed: chain.doomed(),
            head: chain.highest,
            latest: chain.commits.iter().map(|(commit, _)| commit.time).max().unwrap_or(0),
            named: HashSet::new(),
            doubtful: HashSet::new(),
            logs: HashMap::new(),
            copied: HashSet::new(),
            problems: chain.problems.clone(),
            record_bytes: 0,
        };
        let (mut layouts, mut saves) = (HashMap::new(), Vec::new());
        for (commit, _) in chain.commits.iter().cloned() {
            for op in commit.ops {
                match op {
                    Op::Replace(replace) => inventory.replace(replace),
                    op => inventory.apply(op, &mut layouts, &mut saves),
                }
            }
        }
        for (writer, generation) in storage.logs()? {
            // a log that cannot be read is a problem that the snapshot reports
            let Ok(bytes) = storage.read_log(writer, generation) else {
                inventory.logs.insert(writer, Trust::Damaged);
                continue;
            };
            inventory.record_bytes += bytes.len() as u64;
            let scan = frame::scan(&bytes, generation)?;
            let trust = match () {
                () if !scan.damaged.is_empty() => Trust::Damaged,
                () if scan.tail => Trust::Torn,
                () => Trust::Whole,
            };
            inventory.logs.insert(writer, trust);
            for frame in scan.frames {
                for op in frame.ops {
                    if let Op::Replace(copy) = &op {
                        inventory.copied.extend(copy.commit);
                    }
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
        inventory.find_bases();
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
        replace.new.into_iter().for_each(|group| self.group(group));
    }

    fn group(&mut self, group: Group) {
        self.named.insert(group.file.clone());
        if check::group(&group, &self.declared).is_ok() {
            self.groups.entry(group.file.clone()).or_default().push(group);
        } else {
            self.doubtful.insert(group.file);
        }
    }

    fn apply(&mut self, op: Op, layouts: &mut HashMap<Key, LayoutContent>, saves: &mut Vec<Save>) {
        // the first declaration counts; a snapshot reports those that contradict it
        let _ = self.declared.apply(&op);
        match op {
            Op::Group(group) => self.group(group),
            Op::Seal(seal) if names::check_blob(&seal.file).is_ok() => {
                self.named.insert(seal.file.clone());
                self.seals.insert(seal.file.clone(), seal);
            }
            Op::Chunks(chunks) if names::check_blob(&chunks.pack).is_ok() => {
                self.named.insert(chunks.pack.clone());
                self.packs.entry(chunks.pack).or_default().extend(chunks.chunks);
            }
            Op::Layout(layout) => {
                if let Ok(content) = cbor::decode(&layout.content, "a layout") {
                    layouts.insert(checksum::hash(&layout.content), content);
                }
            }
            Op::Save(save) => {
                self.latest = self.latest.max(save.time);
                saves.push(save);
            }
            Op::Open(Open { time, .. }) | Op::Close(Close { time, .. }) => self.latest = self.latest.max(time),
            _ => {}
        }
    }

    fn find_bases(&mut self) {
        let bases: HashSet<&Key> = self.packs.values().flatten().filter_map(Chunk::base).collect();
        for (pack, chunks) in &self.packs {
            let found =
                chunks.iter().enumerate().filter(|(_, chunk)| chunk.base.is_none() && bases.contains(&chunk.key));
            for (at, chunk) in found {
                self.bases.entry(chunk.key).or_default().push((pack.clone(), at));
            }
        }
    }

    fn find_dtypes(&mut self, layouts: &HashMap<Key, LayoutContent>, saves: &[Save]) {
        // tensors without chunks are looked at once, not once a save
        let counts = |layout: &LayoutContent| -> Vec<(usize, DType)> {
            let tensors = layout.tensors.iter();
            let counts = tensors.map(|tensor| (chunk::count(tensor.bytes().unwrap_or(0)) as usize, tensor.dtype));
            counts.filter(|(count, _)| *count > 0).collect()
        };
        let layouts: HashMap<&Key, Vec<(usize, DType)>> =
            layouts.iter().map(|(key, layout)| (key, counts(layout))).collect();
        for part in saves.iter().flat_map(|save| &save.parts) {
            let mut keys = part.keys.as_chunks::<32>().0.iter();
            for &(count, dtype) in layouts.get(&part.layout).into_iter().flatten() {
                self.dtypes.extend(keys.by_ref().take(count).map(|key| (*key, dtype)));
            }
        }
    }
}
