//! Copying a run, and merging several into one: what they show is written into a run of its own, every byte verified.
//!
//! Writers keep their logs, apart: those of each run come behind those of the one before, and row names with them. The run is
//! made under another name, and gets its own when all of it is durable.

mod moved;
mod union;
mod write;

use super::Progress;
use crate::create::create_from;
use crate::storage::{Files, Storage};
use crate::{Snapshot, chain};
use lamina_format::record::{ATTACHED, Note, Op};
use lamina_format::runfile::Source;
use lamina_format::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::Arc;
use union::Union;

/// Notes that one commit holds: of each at most [`note::LONGEST`] bytes.
const NOTES_AT_ONCE: usize = 8;

/// A run that is to be copied or merged.
pub struct Merged {
    /// What it shows.
    pub snapshot: Arc<Snapshot>,
    /// What it is called.
    pub name: String,
}

/// Writes what the runs show into a new run, which is there wholly or not at all. What contradicts is found before anything
/// is written.
pub fn merge(runs: &[Merged], config: &str, target: &Files, progress: &Progress) -> Result<()> {
    target.check_free()?;
    let shifts = shifts(runs)?;
    let union = Union::of(runs)?;
    check_checkpoints(runs)?;
    let sources = sources(runs, &shifts)?;
    let made = target.missing_above();
    let draft = target.draft();
    let written = || {
        create_from(&draft, config, sources)?;
        let storage: Arc<dyn Storage> = Arc::new(draft.clone());
        let mut notes: Vec<Note> = runs.iter().flat_map(|run| run.snapshot.notes().iter().cloned()).collect();
        notes.sort_by_key(|note| note.time);
        chain::publish(storage.as_ref(), None, |_, _| Ok(union.declarations()))?;
        for some in notes.chunks(NOTES_AT_ONCE) {
            chain::publish(storage.as_ref(), None, |_, _| Ok(some.iter().cloned().map(Op::Note).collect()))?;
        }
        write::write(&storage, runs, &shifts, &union, progress)?;
        target.take_over(&draft, &made)
    };
    written().inspect_err(|_| draft.discard())
}

/// What is added to the ordinals of each run's writers, and last the first ordinal behind all of them.
fn shifts(runs: &[Merged]) -> Result<Vec<u32>> {
    let mut shifts = vec![0];
    for run in runs {
        let logs = run.snapshot.writers().iter().map(|writer| writer.ordinal);
        let groups = run.snapshot.shown().map(|group| group.origin.writer());
        let next = logs.chain(groups).max().map_or(0, |highest| highest + 1);
        // a row's name has room for 2^23 writers
        let total = shifts.last().copied().unwrap_or(0) + next;
        if total >= 1 << 23 {
            return Err(Error::schema(format!(
                "together the runs have {total} writers, more than row names can tell apart"
            )));
        }
        shifts.push(total);
    }
    Ok(shifts)
}

/// All that the new run comes from: the runs, and those that these came from.
fn sources(runs: &[Merged], shifts: &[u32]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (run, &shift) in runs.iter().zip(shifts) {
        let said = run.snapshot.run();
        let own = Source {
            id: said.id.clone(),
            name: run.name.clone(),
            created: said.created,
            config: said.config.clone(),
            shift,
        };
        let earlier = said.sources.iter().map(|source| Source { shift: source.shift + shift, ..source.clone() });
        for source in std::iter::once(own).chain(earlier) {
            if let Some(other) = seen.insert(source.id.clone(), &run.name) {
                let text = format!("{:?} and {:?} both hold what run {:?} recorded", other, run.name, source.name);
                return Err(Error::schema(text).hint("leave one of them out; its rows would be there twice"));
            }
            sources.push(source);
        }
    }
    Ok(sources)
}

/// Two runs may hold the same checkpoint, but not two that differ: one would hide the other.
fn check_checkpoints(runs: &[Merged]) -> Result<()> {
    let mut seen = HashMap::new();
    for run in runs {
        for kept in run.snapshot.kept_parts() {
            let content = (kept.part.layout, kept.part.keys.clone(), kept.part.scalars.clone());
            let (other, first) =
                seen.entry((kept.step, kept.part.name.clone())).or_insert_with(|| (run.name.as_str(), content.clone()));
            if *first != content {
                let (step, part) = (kept.step, &kept.part.name);
                let (what, hint) = match step {
                    ATTACHED => (format!("attachments {part:?}"), "run.detach(name) takes one of them out"),
                    _ => (
                        format!("checkpoints of part {part:?} at step {step}"),
                        "save them under different names of parts",
                    ),
                };
                let text = format!("{other:?} and {:?} hold different {what}", run.name);
                return Err(Error::new(ErrorKind::Schema, text).hint(hint));
            }
        }
    }
    Ok(())
}
