//! Compaction: small groups become large ones, what was hidden is left behind, and checkpoints are coded.
//!
//! It goes round by round. Each reads what it rewrites, writes a segment, and publishes one commit that puts the new groups
//! in the place of the old; a round that was not published left nothing that counts.

use super::Progress;
use super::compactor::Compactor;
use super::plan::{self, Batch, Name};
use super::recode::recode;
use super::rewrite::{rewrite, used};
use super::settle::settle;
use crate::chain::Chain;
use crate::reader::{Access, Io, Verify};
use crate::storage::Storage;
use crate::{Opening, Snapshot};
use lamina_format::record::{Group, Op, Replace, Replaced};
use lamina_format::segment::Declared;
use lamina_format::{Error, ErrorKind, Result, cbor};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Bytes and groups that a round takes.
const ROUND: (u64, usize) = (1 << 30, 1 << 16);
/// Bytes of the new groups' records at which a round ends: a commit has at most 16 MiB.
const RECORDS: usize = 8 << 20;

/// What compaction did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compaction {
    /// Groups that were replaced.
    pub before: u64,
    /// Groups that replaced them.
    pub after: u64,
    /// Rows that were hidden and are gone.
    pub rows: u64,
    /// Bytes of the groups that were replaced.
    pub bytes_before: u64,
    /// Bytes of those that replaced them.
    pub bytes_after: u64,
    /// Chunks of checkpoints that were coded anew.
    pub chunks: u64,
    /// Their bytes before.
    pub chunk_bytes_before: u64,
    /// Their bytes after.
    pub chunk_bytes_after: u64,
    /// Writers whose groups and chunks were left alone, since they may be at work.
    pub working: Vec<u32>,
    /// Why groups or chunks were left as they are: damage.
    pub damages: Vec<Error>,
}

/// Compacts a run until nothing is worth it any more, and its checkpoints. Rows of the sites of these names become cold.
pub fn compact(storage: &Arc<dyn Storage>, cold: &[String], progress: &Progress) -> Result<Compaction> {
    let writers = settle(storage.as_ref())?;
    let mut done = Compaction { working: writers.working, ..Compaction::default() };
    let (mut left, mut compactor) = (HashSet::new(), None);
    let result = loop {
        match round(storage, cold, &writers.settled, &mut left, &mut compactor, &mut done, progress) {
            Ok(true) => {}
            Ok(false) => break recode(storage, &writers.settled, &mut compactor, progress),
            Err(error) => break Err(error),
        }
    };
    let result = result.map(|coded| {
        (done.chunks, done.chunk_bytes_before, done.chunk_bytes_after) = (coded.chunks, coded.before, coded.after);
        done.damages.extend(coded.damages);
    });
    if let Some(compactor) = compactor {
        let why = result.as_ref().err().map(|error: &Error| error.message.clone());
        // the first error is the one to tell
        result.and(compactor.close(why))?;
    } else {
        result?;
    }
    Ok(done)
}

/// Rewrites and publishes once; false if there was nothing to do.
fn round(
    storage: &Arc<dyn Storage>,
    cold: &[String],
    settled: &HashSet<u32>,
    left: &mut HashSet<Name>,
    compactor: &mut Option<Compactor>,
    done: &mut Compaction,
    progress: &Progress,
) -> Result<bool> {
    progress.check()?;
    let base = Chain::read(storage.as_ref())?.highest;
    // what is read once needs no map
    let access = Access { io: Io::Pread, verify: Verify::Always };
    let snapshot = Snapshot::open(Arc::clone(storage), Opening::default())?.with_access(access);
    // what is hidden of a group with damage may not be known
    let damaged: HashSet<&str> = snapshot.problems().iter().filter_map(|problem| problem.file.as_deref()).collect();
    let doubtful = snapshot.stored().filter(|group| damaged.contains(group.record.file.as_str()));
    left.extend(doubtful.map(plan::name));
    let cold = cold.iter().map(|name| Ok(snapshot.site(name)?.id)).collect::<Result<HashSet<u32>>>()?;
    let mut plan = plan::plan(&snapshot, settled, left, &cold);
    if plan.is_empty() {
        return Ok(false);
    }
    if compactor.is_none() {
        progress.expect(plan.iter().map(Batch::bytes).sum());
    }
    let compactor = match compactor {
        Some(compactor) => compactor,
        none => none.insert(Compactor::open(Arc::clone(storage))?),
    };
    let (mut bytes, mut groups) = (0, 0);
    plan.retain(|batch| {
        let taken = bytes < ROUND.0 && groups < ROUND.1;
        if taken {
            (bytes, groups) = (bytes + batch.bytes(), groups + batch.members.len());
        }
        taken
    });
    let mut replaces: BTreeMap<u32, (Vec<Name>, Vec<Group>)> = BTreeMap::new();
    let mut ops = Vec::new();
    let mut more = Compaction::default();
    let mut records = 0;
    for batch in &plan {
        progress.check()?;
        if records > RECORDS {
            break;
        }
        let rewritten = match rewrite(&snapshot, batch, &cold) {
            Err(error) if error.kind == ErrorKind::Damaged => {
                left.extend(batch.members.iter().map(|group| plan::name(group)));
                done.damages.push(error);
                continue;
            }
            // somebody else compacted these rows, and their files are gone: another look shows where they are
            Err(error) if error.kind == ErrorKind::Expired => return Ok(true),
            rewritten => rewritten?,
        };
        let (old, new) = replaces.entry(batch.writer).or_default();
        old.extend(batch.members.iter().map(|group| plan::name(group)));
        more.before += batch.members.len() as u64;
        more.bytes_before += batch.bytes();
        more.rows += batch.members.iter().map(|group| group.record.rows).sum::<u64>();
        for group in rewritten {
            more.bytes_after += group.bytes;
            let written = compactor.segments.place(storage.as_ref(), snapshot.declared(), group.cut, group.first)?;
            for op in written.0 {
                match op {
                    Op::Group(group) => {
                        records += cbor::encode(&group).len();
                        new.push(group);
                    }
                    seal => ops.push(seal),
                }
            }
        }
        progress.add(batch.bytes());
    }
    if replaces.is_empty() {
        return Ok(true);
    }
    ops.extend(compactor.segments.seal(snapshot.declared())?);
    let new = || replaces.values().flat_map(|(_, new)| new);
    let declarations = declarations(snapshot.declared(), new().flat_map(used).collect());
    let files: HashSet<String> = new().map(|group| group.file.clone()).collect();
    let old: HashSet<Name> = replaces.values().flat_map(|(old, _)| old.iter().cloned()).collect();
    more.after = new().count() as u64;
    more.rows -= new().map(|group| group.rows).sum::<u64>();
    ops.splice(0..0, declarations);
    ops.extend(
        replaces
            .into_iter()
            .map(|(writer, (old, new))| Op::Replace(Replace { writer, old: by_file(old), new, commit: None })),
    );
    let spoils = |op: &Op| match op {
        Op::Rewind(_) | Op::Delete(_) => true,
        Op::Replace(_) => touches(op, &old),
        Op::Condemn(condemned) => condemned.files.iter().any(|file| files.contains(file)),
        _ => false,
    };
    if compactor.publish(base, &ops, spoils)? {
        done.before += more.before;
        done.after += more.after;
        done.rows += more.rows;
        done.bytes_before += more.bytes_before;
        done.bytes_after += more.bytes_after;
    }
    Ok(true)
}

/// Declarations as operations: of (is a site, number).
pub(super) fn declarations(declared: &Declared, used: BTreeSet<(bool, u32)>) -> Vec<Op> {
    let one = |(is_site, id): (bool, u32)| match is_site {
        true => declared.sites.get(&id).cloned().map(Op::Site),
        false => declared.columns.get(&id).cloned().map(Op::Column),
    };
    used.into_iter().filter_map(one).collect()
}

/// Whether an operation replaces one of these groups.
pub fn touches(op: &Op, groups: &HashSet<Name>) -> bool {
    let Op::Replace(replace) = op else { return false };
    replace.old.iter().any(|part| part.numbers().any(|n| groups.contains(&(part.file.clone(), n))))
}

pub fn by_file(names: Vec<Name>) -> Vec<Replaced> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (file, number) in names {
        files.entry(file).or_default().extend(number.to_le_bytes());
    }
    files.into_iter().map(|(file, numbers)| Replaced { file, numbers }).collect()
}
