//! Collecting garbage: files that nothing needs are condemned by one commit and, when those who still read them have had
//! time to go on, dropped by another; then they are removed.
//!
//! Both commits come before what they announce, so whatever interrupts the work, the next one completes it.

use super::Progress;
use super::clear::clear;
use super::garbage::{Stays, Survey};
use super::settle::settle;
use crate::chain::{Chain, publish_after};
use crate::clock;
use crate::storage::Storage;
use lamina_format::record::{Files, Op};
use lamina_format::{Result, names};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a condemned file stays unless somebody says otherwise.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Files that one commit names.
const AT_ONCE: usize = 50_000;

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collection {
    /// Files that it condemned.
    pub condemned: Vec<String>,
    /// Files that it removed.
    pub removed: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Hidden rows that are gone.
    pub rows: u64,
    /// Files that nothing is known to need and that are there still, each with the reason.
    pub left: Vec<(String, String)>,
    /// Writers whose files were left alone, since they may be at work.
    pub working: Vec<u32>,
}

/// Collects the garbage of a run. Files that were condemned `grace` ago or earlier are removed.
pub fn gc(storage: &Arc<dyn Storage>, grace: Duration, progress: &Progress) -> Result<Collection> {
    let writers = settle(storage.as_ref())?;
    let mut done = Collection { working: writers.working, ..Collection::default() };
    done.rows = clear(storage, &writers.settled, progress)?;
    while condemn(storage, &writers.settled, &mut done, progress)? {}
    while drop_due(storage, &writers.settled, grace, &mut done, progress)? {}
    remove(storage.as_ref(), &mut done, progress)?;
    Ok(done)
}

/// Condemns what nothing needs; true if there may be more.
fn condemn(
    storage: &Arc<dyn Storage>,
    settled: &HashSet<u32>,
    done: &mut Collection,
    progress: &Progress,
) -> Result<bool> {
    progress.check()?;
    // a draft that is there before the survey and after it is nobody's that works as usual
    let before = storage.files()?;
    let survey = Survey::of(storage, settled)?;
    let there: HashSet<String> = storage.files()?.into_iter().collect();
    let (mut files, mut left) = (Vec::new(), Vec::new());
    for file in before.into_iter().filter(|file| there.contains(file) && !survey.inventory.doomed.holds(file)) {
        match survey.stays(&file) {
            None => files.push(file),
            Some(Stays::Doubtful(why)) => left.push((file, why.to_owned())),
            Some(Stays::Needed) => {}
        }
    }
    let more = files.len() > AT_ONCE;
    files.truncate(AT_ONCE);
    if !files.is_empty() {
        let named: HashSet<&String> = files.iter().collect();
        let spoils = |op: &Op| match op {
            Op::Replace(replace) => replace.new.iter().any(|group| named.contains(&group.file)),
            // another collection is at work
            Op::Condemn(_) | Op::Drop(_) => true,
            _ => false,
        };
        let ops = [Op::Condemn(Files { files: files.clone() })];
        // no earlier than anything that the run knows of: a clock that is behind must not make the grace shorter
        let (base, time) = (survey.inventory.head, survey.inventory.latest);
        if publish_after(storage.as_ref(), None, base, time, &ops, spoils)?.is_none() {
            return Ok(true);
        }
        done.condemned.extend(files);
    }
    if !more {
        done.left = left;
    }
    Ok(more)
}

/// Drops what was condemned long enough ago, and is still without need; true if there may be more.
fn drop_due(
    storage: &Arc<dyn Storage>,
    settled: &HashSet<u32>,
    grace: Duration,
    done: &mut Collection,
    progress: &Progress,
) -> Result<bool> {
    progress.check()?;
    if !Chain::read(storage.as_ref())?.doomed().waits() {
        return Ok(false);
    }
    // every log is read after the files were condemned: who leans on one that is dropped here finds that out
    let (survey, now) = (Survey::of(storage, settled)?, clock::now());
    let there: BTreeSet<String> = storage.files()?.into_iter().collect();
    let doomed = &survey.inventory.doomed;
    let (mut files, mut left) = (Vec::new(), Vec::new());
    for file in there.into_iter().filter(|file| doomed.waiting(file)) {
        let since = doomed.condemned.get(&file).copied().unwrap_or(now);
        let rest = i128::from(since) + grace.as_micros() as i128 - i128::from(now);
        match survey.stays(&file) {
            Some(Stays::Needed) => left.push((file, "condemned, and needed again".to_owned())),
            Some(Stays::Doubtful(why)) => left.push((file, why.to_owned())),
            None if grace.is_zero() || rest <= 0 => files.push(file),
            None => left.push((file, format!("condemned; its grace ends in {} s", (rest + 999_999) / 1_000_000))),
        }
    }
    let more = files.len() > AT_ONCE;
    files.truncate(AT_ONCE);
    if !files.is_empty() {
        let named: HashSet<&String> = files.iter().collect();
        let spoils = |op: &Op| match op {
            Op::Replace(replace) => replace.new.iter().any(|group| named.contains(&group.file)),
            Op::Drop(dropped) => dropped.files.iter().any(|file| named.contains(file)),
            _ => false,
        };
        let ops = [Op::Drop(Files { files: files.clone() })];
        if publish_after(storage.as_ref(), None, survey.inventory.head, 0, &ops, spoils)?.is_none() {
            return Ok(true);
        }
    }
    if !more {
        done.left.extend(left);
    }
    Ok(more)
}

/// Removes what is dropped and there still, be it from a collection that did not get further.
fn remove(storage: &dyn Storage, done: &mut Collection, progress: &Progress) -> Result<()> {
    let dropped = Chain::read(storage)?.doomed().dropped;
    let mut files: Vec<(String, u64)> = Vec::new();
    for file in storage.files()?.into_iter().filter(|file| dropped.contains(file)) {
        // a draft has no bytes to speak of
        let length = match names::owner(&file) {
            Some(_) if names::parse_feature_index(&file).is_some() => {
                storage.open_index(&file).and_then(|index| index.map_or(Ok(0), |index| index.length()))
            }
            Some(_) => storage.open_blob(&file).and_then(|blob| blob.length()),
            None => Ok(0),
        };
        files.push((file, length.unwrap_or(0)));
    }
    progress.expect(files.iter().map(|(_, length)| length).sum());
    for (file, length) in files {
        progress.check()?;
        storage.remove(&file)?;
        progress.add(length);
        done.bytes += length;
        done.removed.push(file);
    }
    Ok(())
}
