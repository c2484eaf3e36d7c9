//! What was hidden, and whether a run shows what it must.

use super::history::{Called, Known, Progress, untag};
use super::view::{Found, Identity, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that hides rows.
#[derive(Clone, Debug)]
pub enum What {
    /// Rows and metrics from this step on, and later checkpoints.
    Rewind(i64),
    /// What rows hold of some sites; empty stands for all.
    Delete {
        sites: Vec<String>,
        /// First and last of each span.
        steps: Vec<(i64, i64)>,
        /// The rows, and their names.
        rows: BTreeMap<Identity, i64>,
    },
    /// Checkpoints of these steps: first and last of each span.
    Discard(Vec<(i64, i64)>),
}

/// When it was asked for, and when it was acknowledged.
#[derive(Clone, Debug)]
pub struct Hide {
    pub what: Arc<What>,
    pub begun: u64,
    pub done: Option<u64>,
}

/// Whether something is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hidden {
    No,
    /// It was recorded while something was being hidden.
    Maybe,
    Yes,
}

impl Hide {
    /// Whether it holds for what a call wrote.
    fn holds(&self, writer: &Progress, call: usize) -> Hidden {
        let staged_after = self.done.is_some_and(|done| writer.staged[call] > done);
        let durable_before = writer.acknowledged.get(call).is_some_and(|&when| when < self.begun);
        match () {
            () if staged_after => Hidden::No,
            () if durable_before => Hidden::Yes,
            () => Hidden::Maybe,
        }
    }

    fn hides_value(&self, row: &Identity, site: &str) -> bool {
        match &*self.what {
            What::Rewind(step) => row.0 >= *step,
            What::Delete { sites, steps, rows } => {
                (sites.is_empty() || sites.iter().any(|name| name == site))
                    && (steps.is_empty() || steps.iter().any(|&(first, last)| (first..=last).contains(&row.0)))
                    && (rows.is_empty() || rows.contains_key(row))
            }
            What::Discard(_) => false,
        }
    }

    fn hides_checkpoint(&self, step: i64) -> bool {
        match &*self.what {
            What::Rewind(to) => step > *to,
            What::Delete { .. } => false,
            What::Discard(steps) => steps.iter().any(|&(first, last)| (first..=last).contains(&step)),
        }
    }

    fn rewinds(&self, hidden: impl Fn(i64) -> bool) -> bool {
        matches!(*self.what, What::Rewind(step) if hidden(step))
    }
}

/// The hides that hold, of those that were begun.
struct Holding<'a>(Vec<&'a Hide>);

impl Holding<'_> {
    fn of(&self, writer: &Progress, call: usize, hides: impl Fn(&Hide) -> bool) -> Hidden {
        let holding = self.0.iter().filter(|hide| hides(hide)).map(|hide| hide.holds(writer, call));
        holding.max().unwrap_or(Hidden::No)
    }
}

/// How many calls of each writer are there, or what is wrong: all that were acknowledged must be, nothing that was not
/// staged, and what was hidden must be gone; what was not acknowledged is hidden wholly or not at all.
pub fn prefixes(found: &Found, known: &Known, calls: &[Vec<Called>]) -> Result<Vec<usize>, String> {
    let begun: Vec<&Hide> = known.hides.iter().flatten().collect();
    let doubtful: Vec<usize> = (0..begun.len()).filter(|&at| begun[at].done.is_none()).collect();
    let mut first = None;
    for choice in 0..1usize << doubtful.len() {
        let left_out = |at: usize| doubtful.iter().position(|&d| d == at).is_some_and(|bit| choice >> bit & 1 == 0);
        let holding = Holding((0..begun.len()).filter(|&at| !left_out(at)).map(|at| begun[at]).collect());
        match prefixes_if(found, known, calls, &holding) {
            Ok(counts) => return Ok(counts),
            Err(wrong) => first = first.or(Some(wrong)),
        }
    }
    Err(first.unwrap_or_default())
}

fn prefixes_if(found: &Found, known: &Known, calls: &[Vec<Called>], holding: &Holding) -> Result<Vec<usize>, String> {
    let least = least(known, calls);
    let there: BTreeSet<&Identity> = found.names.values().collect();
    let mut counts = Vec::new();
    for (slot, (view, progress)) in found.views.iter().zip(&known.writers).enumerate() {
        let fits = |count: &usize| fits(view, &calls[slot][..*count], progress, holding, &there);
        let Some(count) = (least[slot]..=progress.staged.len()).find(fits) else {
            let calls: Vec<_> = calls[slot].iter().map(|called| format!("{:?}", called.call)).collect();
            return Err(format!(
                "writer {slot} ({progress:?})\n  holds {view:?}\n  at least {} of {calls:?}\n  of which {:?} hides",
                least[slot], holding.0
            ));
        };
        counts.push(count);
    }
    Ok(counts)
}

/// How many calls of each writer must be there: those that were acknowledged, and those that others, which were, build on.
fn least(known: &Known, calls: &[Vec<Called>]) -> Vec<usize> {
    let mut least: Vec<usize> = known.writers.iter().map(|writer| writer.acknowledged.len()).collect();
    for (writer, calls) in known.writers.iter().zip(calls) {
        for called in &calls[..writer.acknowledged.len()] {
            for (row, _) in called.wrote.attached.keys() {
                let (slot, call) = untag(row.0);
                least[slot] = least[slot].max((call + 1).min(calls_of(known, slot)));
            }
        }
    }
    least
}

fn calls_of(known: &Known, slot: usize) -> usize {
    known.writers[slot].staged.len()
}

/// Whether a writer's view is what these calls wrote, but for what is hidden.
fn fits(view: &View, calls: &[Called], writer: &Progress, holding: &Holding, there: &BTreeSet<&Identity>) -> bool {
    let (mut rows, mut attached, mut tensors) = (0, 0, 0);
    let (mut metrics, mut examples) = (view.metrics.iter().peekable(), view.examples.iter());
    for (call, called) in calls.iter().enumerate() {
        let wrote = &called.wrote;
        let hidden = |hides: &dyn Fn(&Hide) -> bool| holding.of(writer, call, hides);
        for (identity, row) in &wrote.rows {
            let found = view.rows.get(identity);
            for (site, value) in &row.sites {
                let hidden = hidden(&|hide| hide.hides_value(identity, site));
                match found.and_then(|found| found.sites.get(site)) {
                    Some(found) if found != value || hidden == Hidden::Yes => return false,
                    None if hidden == Hidden::No => return false,
                    _ => {}
                }
            }
            if let Some(found) = found {
                rows += 1;
                if found.cells != row.cells || found.sites.keys().any(|site| !row.sites.contains_key(site)) {
                    return false;
                }
            }
        }
        for (key, value) in &wrote.attached {
            let hidden = hidden(&|hide| hide.hides_value(&key.0, &key.1));
            match view.attached.get(key) {
                Some(found) if found != value || hidden == Hidden::Yes => return false,
                Some(_) => attached += 1,
                None if hidden == Hidden::No && there.contains(&key.0) => return false,
                None => {}
            }
        }
        for metric in &wrote.metrics {
            let hidden = hidden(&|hide| hide.rewinds(|step| metric.0 >= step));
            match metrics.next_if_eq(&metric) {
                Some(_) if hidden == Hidden::Yes => return false,
                None if hidden == Hidden::No => return false,
                _ => {}
            }
        }
        for (key, value) in &wrote.tensors {
            let hidden = hidden(&|hide| hide.hides_checkpoint(key.0));
            match view.tensors.get(key) {
                Some(found) if found != value || hidden == Hidden::Yes => return false,
                Some(_) => tensors += 1,
                None if hidden == Hidden::No => return false,
                None => {}
            }
        }
        if !wrote.examples.iter().all(|example| examples.next() == Some(example)) {
            return false;
        }
    }
    let all = metrics.next().is_none() && examples.next().is_none();
    all && (rows, attached, tensors) == (view.rows.len(), view.attached.len(), view.tensors.len())
}
