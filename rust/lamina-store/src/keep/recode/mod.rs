//! Compaction of checkpoints: chunks are coded anew, as differences from others of their tensor where that pays.
//!
//! A chunk's key stays; it gets another place. What was written stands in the compactor's log a batch at a time, so that whatever
//! interrupts the work, the next one goes on behind it. Last, the packs that nothing needs any more are condemned; their bytes go when
//! garbage is collected.

mod plan;
mod standing;

use super::Progress;
use super::compactor::Compactor;
use super::garbage::Survey;
use super::inventory::Trust;
use crate::chain::publish_after;
use crate::crew::together;
use crate::reader::{Access, Io, Verify};
use crate::storage::Storage;
use crate::{Opening, Snapshot};
use lamina_format::chunk::Key;
use lamina_format::codec::Coder;
use lamina_format::record::{Chunk, Files, Op};
use lamina_format::{Error, ErrorKind, Result, names};
use plan::{Done, Family, Item, plan};
use standing::Standing;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are coded before they are written.
const BATCH: u64 = 64 << 20;
/// Chunks, and bytes of them, after which what was written is made durable.
const DURABLE: (u64, u64) = (100_000, 512 << 20);

/// What was done.
#[derive(Default)]
pub struct Recoded {
    /// Chunks that were coded anew.
    pub chunks: u64,
    /// Their bytes in the packs before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// Why chunks were left as they are.
    pub damages: Vec<Error>,
}

/// Codes the chunks of `settled` writers anew, as far as they are not yet.
pub fn recode(
    storage: &Arc<dyn Storage>,
    settled: &HashSet<u32>,
    compactor: &mut Option<Compactor>,
    progress: &Progress,
) -> Result<Recoded> {
    let (mut done, mut left) = (Recoded::default(), HashSet::new());
    while round(storage, settled, &mut left, compactor, &mut done, progress)? {}
    Ok(done)
}

/// Codes what is due and condemns what is not needed then; false if there was nothing to do.
fn round(
    storage: &Arc<dyn Storage>,
    settled: &HashSet<u32>,
    left: &mut HashSet<Key>,
    compactor: &mut Option<Compactor>,
    done: &mut Recoded,
    progress: &Progress,
) -> Result<bool> {
    progress.check()?;
    // what is read once needs no map
    let access = Access { io: Io::Pread, verify: Verify::Always };
    let snapshot = Snapshot::open(Arc::clone(storage), Opening::default())?.with_access(access);
    let survey = match Survey::of(storage, settled) {
        // what a commit that cannot be read hides is not known: everything stays
        Err(error) if error.kind == ErrorKind::Damaged => {
            done.damages.push(error);
            return Ok(false);
        }
        survey => survey?,
    };
    let inventory = &survey.inventory;
    if inventory.packs.is_empty() || inventory.logs.values().any(|trust| *trust == Trust::Damaged) {
        return Ok(false);
    }
    let there: HashSet<String> = storage.files()?.into_iter().collect();
    let compacts = |info: &&crate::reader::WriterInfo| info.open.as_ref().is_some_and(|open| open.work.is_some());
    let compactors = snapshot.writers().iter().filter(compacts).map(|info| info.ordinal).collect();
    let standing = Standing::of(inventory, &there, &compactors);
    let needed = standing.needed(survey.live().iter());
    let is_settled = |pack: &str| names::owner(pack).is_some_and(|owner| settled.contains(&owner));
    let total =
        |pack: &str| inventory.packs.get(pack).map_or(0, |chunks| chunks.iter().map(|chunk| chunk.stored).sum());
    let stale = needed.iter().filter(|(pack, bytes)| 2 * **bytes < total(pack)).map(|(pack, _)| *pack).collect();
    let working = needed.keys().copied().filter(|pack| !is_settled(pack)).collect();
    let state = Done { standing: &standing, live: survey.live(), stale: &stale, working: &working, left };
    let kept = snapshot.kept_parts();
    let families = plan(&kept, &state);
    if families.is_empty() {
        // packs whose chunks all stand elsewhere
        let spare = |pack: &&String| {
            let holds = |chunk: &Chunk| survey.needs(&chunk.key);
            let chunks = || inventory.packs.get(*pack).into_iter().flatten();
            !needed.contains_key(pack.as_str()) && is_settled(pack) && chunks().any(holds)
        };
        let standing = inventory.packs.keys().filter(|pack| there.contains(*pack) && !inventory.doomed.holds(pack));
        let files: Vec<String> = standing.filter(spare).cloned().collect();
        return condemn(storage.as_ref(), &survey, files);
    }
    progress.expect(families.iter().map(Family::bytes).sum());
    let compactor = match compactor {
        Some(compactor) => compactor,
        none => none.insert(Compactor::open(Arc::clone(storage))?),
    };
    let stored = |key: &Key| standing.place(key).map_or(0, |place| place.chunk.stored);
    let (mut ops, mut fresh, mut rest) = (Vec::new(), (0, 0), families.as_slice());
    while !rest.is_empty() {
        progress.check()?;
        let mut bytes = 0;
        let count = rest.iter().take_while(|family| (bytes < BATCH, bytes += family.bytes()).0).count();
        let (batch, after) = rest.split_at(count);
        rest = after;
        for result in code(&snapshot, &standing, batch) {
            for (chunk, bytes) in result.coded {
                done.chunks += 1;
                done.before += stored(&chunk.key);
                done.after += chunk.stored;
                fresh = (fresh.0 + 1, fresh.1 + chunk.stored);
                compactor.packs.place(storage.as_ref(), chunk, &bytes, &mut ops)?;
            }
            left.extend(result.left);
            done.damages.extend(result.damages);
            if result.expired {
                compactor.log(std::mem::take(&mut ops))?;
                return Ok(true);
            }
        }
        if fresh.0 > DURABLE.0 || fresh.1 > DURABLE.1 {
            compactor.log(std::mem::take(&mut ops))?;
            fresh = (0, 0);
        }
        progress.add(batch.iter().map(Family::bytes).sum());
    }
    compactor.log(ops)?;
    Ok(true)
}

/// Publishes that nothing needs these packs, as far as `survey` knows; false if there is none.
fn condemn(storage: &dyn Storage, survey: &Survey, files: Vec<String>) -> Result<bool> {
    if files.is_empty() {
        return Ok(false);
    }
    // somebody else who collects or compacts may have condemned what their chunks stand in now
    let spoils = |op: &Op| matches!(op, Op::Condemn(_) | Op::Drop(_));
    let (base, latest) = (survey.inventory.head, survey.inventory.latest);
    publish_after(storage, None, base, latest, &[Op::Condemn(Files { files })], spoils)?;
    Ok(true)
}

/// What became of a family.
#[derive(Default)]
struct Attempt {
    coded: Vec<(Chunk, Vec<u8>)>,
    left: Vec<Key>,
    damages: Vec<Error>,
    expired: bool,
}

/// Codes families, each by whichever thread is free; in their order.
fn code(snapshot: &Snapshot, standing: &Standing, families: &[Family]) -> Vec<Attempt> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
    let helpers = std::thread::available_parallelism().map_or(1, |count| count.get().min(8)) - 1;
    together(helpers, &|| {
        let mut coder = Coder::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(family) = families.get(at) else { return };
            let result = one(snapshot, standing, family, &mut coder);
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..families.len()).filter_map(|at| results.remove(&at)).collect()
}

fn one(snapshot: &Snapshot, standing: &Standing, family: &Family, coder: &mut Coder) -> Attempt {
    let mut result = Attempt::default();
    let read = |item: &Item, result: &mut Attempt| match snapshot.chunk(&item.key, item.spec, item.length, item.writer)
    {
        Ok(raw) => Some(raw),
        Err(error) => {
            if error.kind == ErrorKind::Expired {
                result.expired = true;
            } else {
                result.left.push(item.key);
                result.damages.push(error);
            }
            None
        }
    };
    let base = read(&family.base, &mut result);
    let mut size = standing.whole(&family.base.key).map_or(0, |place| place.chunk.stored);
    if let (true, Some(raw)) = (family.whole, &base) {
        let coded = whole(coder, &family.base, raw);
        size = coded.0.stored;
        result.coded.push(coded);
    }
    for item in &family.members {
        let Some(raw) = read(item, &mut result) else { continue };
        let delta = base.as_ref().and_then(|base| coder.encode_chunk(item.spec.dtype, &raw, Some(base)).ok().flatten());
        let delta = delta.map(|coded| (coded.record(item.key, raw.len(), Some(family.base.key)), coded.bytes));
        // a difference that is hardly smaller is not worth its second reading
        let small = |coded: &(Chunk, Vec<u8>), than: u64| coded.0.stored * 100 <= than * 97;
        result.coded.push(match delta {
            Some(delta) if small(&delta, size * 9 / 10) => delta,
            delta => {
                let whole = whole(coder, item, &raw);
                delta.filter(|delta| small(delta, whole.0.stored)).unwrap_or(whole)
            }
        });
    }
    result
}

/// A chunk as planes, or as it is where these do not save enough.
fn whole(coder: &mut Coder, item: &Item, raw: &[u8]) -> (Chunk, Vec<u8>) {
    match coder.encode_chunk(item.spec.dtype, raw, None).ok().flatten() {
        Some(coded) => (coded.record(item.key, raw.len(), None), coded.bytes),
        None => (Chunk::raw(item.key, raw), raw.to_vec()),
    }
}
