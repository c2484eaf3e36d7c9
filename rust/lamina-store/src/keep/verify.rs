//! Whether every byte of a run is what was written: each hash is computed again, whoever read the bytes before.

use super::Progress;
use super::inventory::Inventory;
use crate::chain::Chain;
use crate::index;
use crate::storage::{Ranges, Storage};
use crate::{Opening, Snapshot};
use lamina_format::checksum::{self, PIECE};
use lamina_format::chunk::Key;
use lamina_format::codec::Coder;
use lamina_format::record::{Block, Chunk, Group, Role, Seal, Site};
use lamina_format::segment::{self, Declared, LARGEST_RESERVE};
use lamina_format::{DType, Error, ErrorKind, Result, Value, chunk, names};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces of a block that are read at once: 4 MiB.
const AT_ONCE: usize = 32;

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    /// What is wrong, in which file, at which byte.
    pub error: Error,
    /// What cannot be read because of it; empty if that is not known, or nothing.
    pub affected: String,
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// Files with blocks or chunks.
    pub files: u64,
    /// Bytes of blocks, chunks, headers, tables and logs.
    pub bytes: u64,
    /// What was found, by file and offset.
    pub damages: Vec<Damage>,
}

enum Job<'a> {
    Block { group: &'a Group, block: &'a Block, piece: usize },
    Seal { seal: &'a Seal, groups: &'a [Group] },
    Chunk { pack: &'a str, chunk: &'a Chunk },
    Index { file: &'a str, length: u64 },
}

/// Checks every hash of a run, with several threads and a few megabytes each.
pub fn verify(storage: &Arc<dyn Storage>, progress: &Progress) -> Result<Verification> {
    let inventory = Inventory::read(storage.as_ref())?;
    let snapshot = Snapshot::open(Arc::clone(storage), Opening::default())?;
    let known = snapshot.problems().iter().map(|error| Damage { error: error.clone(), affected: String::new() });
    let damages = Mutex::new(known.collect::<Vec<_>>());
    let indexes = indexes(storage.as_ref())?;
    let mut jobs = jobs(&inventory);
    jobs.extend(indexes.iter().map(|(file, length)| Job::Index { file, length: *length }));
    let bytes = jobs.iter().map(Job::bytes).sum::<u64>() + inventory.record_bytes;
    progress.expect(bytes);
    progress.add(inventory.record_bytes);
    let files = Files { storage: storage.as_ref(), open: Mutex::default() };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if progress.stopped() {
                break;
            }
            let found = job.check(&files, &inventory);
            damages.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            progress.add(job.bytes());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    progress.check()?;
    let mut damages = damages.into_inner().unwrap_or_else(PoisonError::into_inner);
    // what was collected meanwhile is no damage
    let dropped = Chain::read(storage.as_ref())?.doomed().dropped;
    damages.retain(|damage| !damage.error.file.as_ref().is_some_and(|file| dropped.contains(file)));
    damages.sort_by(|a, b| (&a.error.file, a.error.offset).cmp(&(&b.error.file, b.error.offset)));
    damages.dedup();
    Ok(Verification { files: (inventory.groups.len() + inventory.packs.len()) as u64, bytes, damages })
}

/// The indexes that there are, and their bytes.
fn indexes(storage: &dyn Storage) -> Result<Vec<(String, u64)>> {
    let files = storage.files()?.into_iter().filter(|file| names::parse_feature_index(file).is_some());
    let length = |file: String| {
        // one that cannot be opened is found damaged when it is checked
        let length = storage.open_index(&file).ok().flatten().and_then(|index| index.length().ok());
        (file, length.unwrap_or(0))
    };
    Ok(files.map(length).collect())
}

fn jobs(inventory: &Inventory) -> Vec<Job<'_>> {
    let mut jobs = Vec::new();
    for group in inventory.groups.values().flatten().filter(|group| inventory.counts(group)) {
        for block in &group.blocks {
            let pieces = block.spans().len();
            jobs.extend((0..pieces).step_by(AT_ONCE).map(|piece| Job::Block { group, block, piece }));
        }
    }
    // a segment whose rows all stand elsewhere may be reclaimed at any time
    for (file, groups) in inventory.groups.iter().filter(|(_, groups)| groups.iter().any(|g| inventory.counts(g))) {
        jobs.extend(inventory.seals.get(file).map(|seal| Job::Seal { seal, groups }));
    }
    // nor does anything need the chunks of a pack that is dropped
    for (pack, chunks) in inventory.packs.iter().filter(|(pack, _)| !inventory.doomed.dropped.contains(*pack)) {
        jobs.extend(chunks.iter().map(|chunk| Job::Chunk { pack, chunk }));
    }
    jobs
}

impl Job<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Block { block, piece, .. } => {
                block.spans().iter().skip(*piece).take(AT_ONCE).map(|span| span.1).sum()
            }
            Self::Seal { seal, groups } => groups.last().map_or(0, |last| seal.length.saturating_sub(end(last))),
            Self::Chunk { chunk, .. } => chunk.stored,
            Self::Index { length, .. } => *length,
        }
    }

    fn check(&self, files: &Files, inventory: &Inventory) -> Vec<Damage> {
        match self {
            Self::Block { group, block, piece } => check_block(files, &inventory.declared, group, block, *piece),
            Self::Seal { seal, groups } => {
                let affected = "the file for other readers of safetensors; Lamina reads its rows".to_owned();
                let found = check_seal(files, &inventory.declared, seal, groups).err();
                found.map(|error| Damage { error: error.in_file(&seal.file), affected }).into_iter().collect()
            }
            Self::Chunk { pack, chunk } => {
                let affected = "the checkpoints that hold this chunk".to_owned();
                let found = check_chunk(files, inventory, pack, chunk).err();
                let within = |error: Error| if error.file.is_none() { error.in_file(*pack) } else { error };
                found.map(|error| Damage { error: within(error), affected }).into_iter().collect()
            }
            Self::Index { file, .. } => {
                let affected =
                    "no data: `lamina index RUN` rebuilds it; until then the codes themselves are read".to_owned();
                let found = index::check(files.storage, file).err().filter(|error| error.kind != ErrorKind::Format);
                found.map(|error| Damage { error: error.in_file(*file), affected }).into_iter().collect()
            }
        }
    }
}

fn end(group: &Group) -> u64 {
    group.offset + group.length
}

fn check_block(files: &Files, declared: &Declared, group: &Group, block: &Block, first: usize) -> Vec<Damage> {
    let spans: Vec<(u64, u64)> = block.spans().into_iter().skip(first).take(AT_ONCE).collect();
    let start = spans.first().map_or(0, |span| span.0);
    let mut bytes = vec![0; spans.iter().map(|span| span.1).sum::<u64>() as usize];
    // of coded rows a piece stands for as many as of others: 128 KiB of them
    let damage = |error: Error, at: u64, piece: usize, pieces: usize| Damage {
        error: error.in_file(&group.file).at(block.offset + at),
        affected: affected(declared, group, block, (piece * PIECE) as u64, (pieces * PIECE) as u64),
    };
    if let Err(error) = files.get(&group.file).and_then(|file| file.read(block.offset + start, &mut bytes)) {
        return vec![damage(error, start, first, spans.len())];
    }
    let text = "the bytes do not match their checksum";
    let mut found = Vec::new();
    for (piece, ((at, length), crc)) in
        (first..).zip(spans.iter().zip(block.crcs.as_chunks::<4>().0.iter().skip(first)))
    {
        let from = (at - start) as usize;
        if crc32c::crc32c(&bytes[from..from + *length as usize]) != u32::from_le_bytes(*crc) {
            found.push(damage(Error::damaged(text), *at, piece, 1));
        }
    }
    found
}

/// Whose bytes these are: a site's rows, or a column over the whole group; and of which steps.
fn affected(declared: &Declared, group: &Group, block: &Block, start: u64, length: u64) -> String {
    let last = group.first + group.rows as i64 - 1;
    let mut text = if block.role.is_site() && declared.sites.get(&block.id).is_some_and(Site::is_sparse) {
        let name = declared.sites.get(&block.id).map_or("?", |site| site.name.as_str());
        format!("site {name:?}, rows {} to {last}", group.first)
    } else if block.role == Role::Site {
        let item = declared.sites.get(&block.id).map_or(1, |site| site.row_bytes().max(1));
        let (from, to) = (group.first + (start / item) as i64, group.first + ((start + length - 1) / item) as i64);
        let name = declared.sites.get(&block.id).map_or("?", |site| site.name.as_str());
        format!("site {name:?}, rows {from} to {}", to.min(last))
    } else {
        let name = declared.columns.get(&block.id).map_or("?", |column| column.name.as_str());
        format!("column {name:?}, rows {} to {last}", group.first)
    };
    let step = declared.columns.values().find(|column| column.table == group.table && column.name == "step");
    let step = step.map(|column| column.id);
    let constant = group.constants.iter().find(|constant| Some(constant.id) == step).map(|c| (&c.value, &c.value));
    let zone = group.zones.iter().find(|zone| Some(zone.id) == step).map(|zone| (&zone.min, &zone.max));
    match constant.or(zone) {
        Some((Value::Int(least), Value::Int(greatest))) if least == greatest => text += &format!(", step {least}"),
        Some((Value::Int(least), Value::Int(greatest))) => text += &format!(", steps {least} to {greatest}"),
        _ => {}
    }
    text
}

/// A sealed segment's length, `.table` and header are a pure function of its groups.
fn check_seal(files: &Files, declared: &Declared, seal: &Seal, groups: &[Group]) -> Result<()> {
    let file = files.get(&seal.file)?;
    if file.length()? != seal.length {
        return Err(Error::damaged("the file does not have the length that it was sealed with").at(seal.length));
    }
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return Ok(()) };
    if end(last) > seal.length {
        return Err(Error::damaged("a row group lies behind the end of its segment").at(last.offset));
    }
    let expected = segment::seal(declared, groups, first.offset)?;
    let length = seal.length - end(last);
    if length > LARGEST_RESERVE {
        return Err(Error::damaged("the segment's .table is longer than its groups can make it").at(end(last)));
    }
    let mut table = vec![0; length as usize];
    file.read(end(last), &mut table)?;
    if checksum::hash(&table) != seal.root {
        return Err(Error::damaged("the segment's .table does not match its hash").at(end(last)));
    }
    let mut header = vec![0; first.offset as usize];
    file.read(0, &mut header)?;
    if let Some(at) = header.iter().zip(&expected.header).position(|(found, wanted)| found != wanted) {
        return Err(Error::damaged("the segment's header is not what its groups give").at(at as u64));
    }
    Ok(())
}

fn check_chunk(files: &Files, inventory: &Inventory, pack: &str, chunk: &Chunk) -> Result<()> {
    let stored = files.chunk(pack, chunk)?;
    let Some(&dtype) = inventory.dtypes.get(&chunk.key) else { return Ok(()) };
    let (mut coder, mut base) = (Coder::default(), None);
    if let Some(key) = chunk.base() {
        base = Some(files.base(inventory, key, dtype, chunk.raw, &mut coder)?);
    }
    let mut raw = vec![0; chunk.raw as usize];
    coder.decode_chunk(chunk, dtype, &stored, base.as_deref(), &mut raw)?;
    match chunk::key(dtype, &raw) == chunk.key {
        true => Ok(()),
        false => Err(Error::damaged("a chunk's bytes do not match its key").at(chunk.offset)),
    }
}

/// The files that are being checked, opened once.
struct Files<'a> {
    storage: &'a dyn Storage,
    open: Mutex<HashMap<String, Arc<dyn Ranges>>>,
}

impl Files<'_> {
    fn get(&self, name: &str) -> Result<Arc<dyn Ranges>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(name) {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn Ranges> = Arc::from(self.storage.open_blob(name)?);
        open.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }
    /// A chunk as it lies in a pack.
    fn chunk(&self, pack: &str, chunk: &Chunk) -> Result<Vec<u8>> {
        chunk.check()?;
        let mut stored = vec![0; chunk.stored as usize];
        self.get(pack)?.read(chunk.offset, &mut stored)?;
        chunk.verify(&stored)?;
        Ok(stored)
    }

    /// The bytes that a delta is the difference from, of whatever place is good.
    fn base(&self, inventory: &Inventory, key: &Key, dtype: DType, length: u64, coder: &mut Coder) -> Result<Vec<u8>> {
        let mut failure = Error::damaged("the chunk that a delta is the difference from is not there");
        let places = inventory.bases.get(key).into_iter().flatten();
        let places = places.map(|(pack, at)| (pack, &inventory.packs[pack][*at]));
        for (pack, chunk) in places.filter(|(_, chunk)| chunk.raw == length) {
            let mut raw = vec![0; length as usize];
            let read = self.chunk(pack, chunk);
            match read.and_then(|stored| coder.decode_chunk(chunk, dtype, &stored, None, &mut raw)) {
                Ok(()) => return Ok(raw),
                Err(error) => failure = error.in_file(pack),
            }
        }
        Err(failure)
    }
}
