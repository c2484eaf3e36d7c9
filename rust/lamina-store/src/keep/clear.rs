//! Row groups that are hidden wholly, where their file holds nothing else: they are replaced by nothing.

use super::compactor::Compactor;
use super::plan::{self, Name};
use super::{Progress, compact};
use crate::chain::Chain;
use crate::reader::{Mask, StoredGroup};
use crate::storage::Storage;
use crate::{Opening, Snapshot};
use lamina_format::record::{Op, Replace, Table};
use lamina_format::{Result, names};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Puts them out; returns their rows. Only groups in files of `settled` writers.
pub fn clear(storage: &Arc<dyn Storage>, settled: &HashSet<u32>, progress: &Progress) -> Result<u64> {
    let mut compactor = None;
    let result = loop {
        match round(storage, settled, &mut compactor, progress) {
            Ok(None) => {}
            Ok(Some(rows)) => break Ok(rows),
            Err(error) => break Err(error),
        }
    };
    match compactor {
        None => result,
        Some(compactor) => {
            let why = result.as_ref().err().map(|error| error.message.clone());
            let closed = Compactor::close(compactor, why);
            result.and_then(|rows| closed.map(|()| rows))
        }
    }
}

/// The rows that it put out; None if somebody changed the run meanwhile.
fn round(
    storage: &Arc<dyn Storage>,
    settled: &HashSet<u32>,
    compactor: &mut Option<Compactor>,
    progress: &Progress,
) -> Result<Option<u64>> {
    progress.check()?;
    let base = Chain::read(storage.as_ref())?.highest;
    let snapshot = Snapshot::open(Arc::clone(storage), Opening::default())?;
    let damaged: HashSet<&str> = snapshot.problems().iter().filter_map(|problem| problem.file.as_deref()).collect();
    let mut files: BTreeMap<&str, Vec<&StoredGroup>> = BTreeMap::new();
    snapshot.stored().for_each(|group| files.entry(&group.record.file).or_default().push(group));
    files.retain(|file, groups| {
        let done = |group: &&StoredGroup| {
            let hidden = group.record.table != Table::Examples && group.hidden.rows == Mask::All;
            hidden && settled.contains(&group.origin.writer())
        };
        let owned = names::owner(file).is_some_and(|owner| settled.contains(&owner));
        owned && !damaged.contains(file) && groups.iter().all(done)
    });
    let mut replaces: BTreeMap<u32, Vec<Name>> = BTreeMap::new();
    for group in files.values().flatten() {
        replaces.entry(group.origin.writer()).or_default().push(plan::name(group));
    }
    if replaces.is_empty() {
        return Ok(Some(0));
    }
    let compactor = match compactor {
        Some(compactor) => compactor,
        none => none.insert(Compactor::open(Arc::clone(storage))?),
    };
    let old: HashSet<Name> = replaces.values().flatten().cloned().collect();
    let replace =
        |(writer, old)| Op::Replace(Replace { writer, old: compact::by_file(old), new: vec![], commit: None });
    let ops: Vec<Op> = replaces.into_iter().map(replace).collect();
    let rows = files.values().flatten().map(|group| group.record.rows).sum();
    Ok(compactor.publish(base, &ops, |op| compact::touches(op, &old))?.then_some(rows))
}
