//! Going back: what was recorded is hidden by a commit, and stays where it is until it is compacted or collected.

use crate::chain;
use crate::storage::Storage;
use lamina_format::record::{Delete, Discard, Op, Position, Rewind, Span};
use lamina_format::{Error, ErrorKind, Result, frame};

/// Which values `delete` hides: those that satisfy all of what is given.
pub struct Deletion<'a> {
    /// Names of sites; none stands for all.
    pub sites: &'a [String],
    /// First and last step of each span; none stands for all.
    pub steps: &'a [(i64, i64)],
    /// First and last row name of each span; none stands for all.
    pub rows: &'a [(i64, i64)],
}

/// Hides rows and metrics of `step` and later steps, and checkpoints of later ones, as far as they are durable.
pub fn rewind(storage: &dyn Storage, step: i64) -> Result<()> {
    let before = positions(storage)?;
    let rewind = || vec![Op::Rewind(Rewind { step, before: before.clone() })];
    chain::publish(storage, None, |_, _| Ok(rewind())).map(drop)
}

/// Spans of rows that one commit names: of each at most 21 bytes, 10 MiB.
const AT_ONCE: usize = 1 << 19;

/// Hides rows, or what they hold of some sites, as far as they are durable. Very many rows are hidden by several commits.
pub fn delete(storage: &dyn Storage, what: &Deletion) -> Result<()> {
    if what.sites.is_empty() && what.steps.is_empty() && what.rows.is_empty() {
        return Err(Error::schema("nothing says what to delete").hint("give sites, steps or rows"));
    }
    let (steps, rows, before) = (spans(what.steps)?, spans(what.rows)?, positions(storage)?);
    let parts = if rows.is_empty() { vec![rows.as_slice()] } else { rows.chunks(AT_ONCE).collect() };
    let publish = |rows: &[Span]| {
        chain::publish(storage, None, |declared, _| {
            let id = |name: &String| {
                let unknown = || Error::new(ErrorKind::NotFound, format!("the run has no site {name:?}"));
                declared.sites.values().find(|site| site.name == *name).map(|site| site.id).ok_or_else(unknown)
            };
            let sites = what.sites.iter().map(id).collect::<Result<_>>()?;
            let delete = Delete { sites, steps: steps.clone(), rows: rows.to_vec(), before: before.clone() };
            Ok(vec![Op::Delete(delete)])
        })
    };
    parts.into_iter().try_for_each(|rows| publish(rows).map(drop))
}

/// Parts of checkpoints that [`discard`] hides: their names, and first and last step of each span.
pub type Discarded = (Vec<String>, Vec<(i64, i64)>);

/// Hides parts of checkpoints that were saved before these places of the logs, in one commit.
pub fn discard(storage: &dyn Storage, what: &[Discarded], before: &[Position]) -> Result<()> {
    let op = |(parts, steps): &Discarded| {
        if parts.is_empty() || steps.is_empty() {
            return Err(Error::schema("nothing says what to discard").hint("give parts and steps"));
        }
        Ok(Op::Discard(Discard { parts: parts.clone(), steps: spans(steps)?, before: before.to_vec() }))
    };
    let ops = what.iter().map(op).collect::<Result<Vec<_>>>()?;
    chain::publish(storage, None, |_, _| Ok(ops.clone())).map(drop)
}

fn spans(spans: &[(i64, i64)]) -> Result<Vec<Span>> {
    let span = |&(first, last): &(i64, i64)| match first <= last {
        true => Ok(Span { first, last }),
        false => Err(Error::schema(format!("a span from {first} to {last} holds nothing"))),
    };
    spans.iter().map(span).collect()
}

/// Where every log ends now.
pub fn positions(storage: &dyn Storage) -> Result<Vec<Position>> {
    let end = |(writer, generation)| {
        let frames = frame::scan(&storage.read_log(writer, generation)?, generation)?.frames;
        Ok(Position { writer, frames: frames.last().map_or(0, |frame| frame.seq + 1) })
    };
    storage.logs()?.into_iter().map(end).collect()
}
