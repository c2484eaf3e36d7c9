//! What `rewind`, `delete` and `discard` hide: rows, what they hold of some sites, metrics and checkpoints.
//!
//! Such an operation names steps or rows, never files, and a place in every log: what was recorded before it is hidden,
//! what is recorded again is not.

use super::Snapshot;
use super::column::ColumnData;
use super::group::StoredGroup;
use crate::chain::Chain;
use lamina_format::record::{Delete, Discard, Op, Part, Position, Rewind, Span, Table};
use lamina_format::{Result, Value};
use std::collections::HashSet;

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// In a frame of a log.
    Log {
        /// The log's writer.
        writer: u32,
        /// The frame's sequence number.
        frame: u64,
    },
    /// In a commit.
    Commit {
        /// Its number.
        n: u64,
        /// The writer whose rows they are.
        writer: u32,
    },
}

impl Origin {
    /// The writer whose rows they are.
    pub fn writer(self) -> u32 {
        match self {
            Self::Log { writer, .. } | Self::Commit { writer, .. } => writer,
        }
    }
}

/// All that hides something, in order, each with the number of its commit.
#[derive(Default)]
pub struct Hiding {
    rewinds: Vec<(u64, Rewind)>,
    deletes: Vec<(u64, Delete)>,
    discards: Vec<Discard>,
}

/// Which of some rows are hidden.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mask {
    /// None of them.
    #[default]
    None,
    /// Those with a 1; one byte a row.
    Some(Vec<u8>),
    /// All of them.
    All,
}

/// What is hidden of a group.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    /// Whole rows.
    pub rows: Mask,
    /// What rows hold of a site, beside.
    pub sites: Vec<(u32, Mask)>,
}

impl Hidden {
    /// The rows that show no value of the site.
    pub fn of_site(&self, site: u32) -> Mask {
        let own = self.sites.iter().filter(|(id, _)| *id == site).map(|(_, mask)| mask.clone());
        own.fold(self.rows.clone(), Mask::or)
    }
}

impl Mask {
    pub(crate) fn new(mask: Vec<u8>) -> Self {
        match mask.iter().filter(|&&byte| byte != 0).count() {
            0 => Self::None,
            all if all == mask.len() => Self::All,
            _ => Self::Some(mask),
        }
    }

    /// Whether a row is one of them.
    pub(crate) fn hides(&self, row: usize) -> bool {
        match self {
            Self::None => false,
            Self::Some(mask) => mask.get(row).is_some_and(|&byte| byte != 0),
            Self::All => true,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, mask) | (mask, Self::None) => mask,
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Some(a), Self::Some(b)) => Self::new(a.iter().zip(&b).map(|(a, b)| a | b).collect()),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, mask) | (mask, Self::All) => mask,
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Some(a), Self::Some(b)) => Self::new(a.iter().zip(&b).map(|(a, b)| a & b).collect()),
        }
    }
}

fn covers(commit: u64, before: &[Position], origin: Origin) -> bool {
    match origin {
        Origin::Commit { n, .. } => n < commit,
        Origin::Log { writer, frame } => before.iter().any(|at| at.writer == writer && frame < at.frames),
    }
}

impl Hiding {
    pub fn of(chain: &Chain) -> Self {
        let mut hiding = Self::default();
        for (commit, _) in &chain.commits {
            for op in &commit.ops {
                match op {
                    Op::Rewind(rewind) => hiding.rewinds.push((commit.n, rewind.clone())),
                    Op::Delete(delete) => {
                        let (steps, rows) = (sorted(&delete.steps), sorted(&delete.rows));
                        hiding.deletes.push((commit.n, Delete { steps, rows, ..delete.clone() }));
                    }
                    Op::Discard(discard) => {
                        hiding.discards.push(Discard { steps: sorted(&discard.steps), ..discard.clone() });
                    }
                    _ => {}
                }
            }
        }
        hiding
    }

    /// The least step that a rewind hides of what stands there.
    pub fn hidden_step(&self, origin: Origin) -> Option<i64> {
        let covering = self.rewinds.iter().filter(|(n, rewind)| covers(*n, &rewind.before, origin));
        covering.map(|(_, rewind)| rewind.step).min()
    }

    /// Takes out what is hidden of the parts of a save; false if nothing is left of them.
    pub fn keep(&self, parts: &mut Vec<Part>, step: i64, origin: Origin) -> bool {
        if self.hidden_step(origin).is_some_and(|hidden| step > hidden) {
            return false;
        }
        let covers = |discard: &&Discard| match origin {
            Origin::Log { writer, frame } => {
                discard.before.iter().any(|at| at.writer == writer && frame < at.frames) && holds(&discard.steps, step)
            }
            // saves stand in logs alone
            Origin::Commit { .. } => false,
        };
        let discards: Vec<&Discard> = self.discards.iter().filter(covers).collect();
        parts.retain(|part| !discards.iter().any(|discard| discard.parts.contains(&part.name)));
        !parts.is_empty() || discards.is_empty()
    }

    fn deletes(&self, origin: Origin) -> impl Iterator<Item = &Delete> {
        let covering = self.deletes.iter().filter(move |(n, delete)| covers(*n, &delete.before, origin));
        covering.map(|(_, delete)| delete)
    }
}

impl Snapshot {
    /// What is hidden of a group. Reads its steps or names only where the record does not decide.
    pub(super) fn hidden_of(&self, group: &StoredGroup, hiding: &Hiding) -> Result<Hidden> {
        let mut hidden = Hidden::default();
        if group.record.table == Table::Examples {
            return Ok(hidden);
        }
        if let Some(step) = hiding.hidden_step(group.origin) {
            hidden.rows = self.with_steps(group, &[Span { first: step, last: i64::MAX }])?;
        }
        for delete in hiding.deletes(group.origin) {
            let touched: Vec<u32> = group.record.sites().filter(|id| delete.sites.contains(id)).collect();
            if !delete.sites.is_empty() && touched.is_empty() {
                continue;
            }
            let mut mask = Mask::All;
            if !delete.steps.is_empty() {
                mask = mask.and(match group.record.table {
                    Table::Attached if !delete.sites.is_empty() => self.at_rows_with_steps(group, &delete.steps)?,
                    _ => self.with_steps(group, &delete.steps)?,
                });
            }
            if !delete.rows.is_empty() {
                mask = mask.and(self.with_names(group, &delete.rows)?);
            }
            if delete.sites.is_empty() {
                hidden.rows = hidden.rows.or(mask);
            } else {
                hidden.sites.extend(touched.into_iter().map(|id| (id, mask.clone())));
            }
        }
        let of_sites = group.record.sites().map(|id| hidden.of_site(id));
        // rows that show nothing of any site are not there
        hidden.rows = of_sites.fold(Mask::All, Mask::and);
        Ok(hidden)
    }

    /// The rows of a group whose step lies in one of the spans.
    fn with_steps(&self, group: &StoredGroup, spans: &[Span]) -> Result<Mask> {
        let Some(column) = self.columns(Table::Rows).find(|column| column.name == "step") else {
            return Ok(Mask::None);
        };
        if let Some(bounds) = group.bounds(column.id).filter(|_| group.record.table == Table::Rows)
            && let Some(mask) = decided(bounds, spans)
        {
            return Ok(mask);
        }
        if group.record.table != Table::Rows {
            return Ok(Mask::None);
        }
        Ok(match self.column_of(group, column)? {
            ColumnData::Constant(Value::Int(step)) if holds(spans, step) => Mask::All,
            ColumnData::Fixed(steps, valid) => {
                let steps = steps.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
                let valid = |row: usize| valid.as_ref().is_none_or(|valid| valid[row] != 0);
                Mask::new(steps.enumerate().map(|(row, s)| u8::from(valid(row) && holds(spans, s))).collect())
            }
            _ => Mask::None,
        })
    }

    /// The values of a group of attached sites whose row's step lies in one of the spans. Rows whose steps cannot be read
    /// are passed over here; they are reported with their own group.
    fn at_rows_with_steps(&self, group: &StoredGroup, spans: &[Span]) -> Result<Mask> {
        let (least, greatest) = group.record.span();
        let mut chosen = HashSet::new();
        for rows in self.groups.iter().chain(&self.hidden).filter(|rows| rows.record.table == Table::Rows) {
            let (first, last) = rows.record.span();
            if last < least || greatest < first {
                continue;
            }
            let mask = self.with_steps(rows, spans).unwrap_or_default();
            if mask != Mask::None {
                let names = self.names_of(rows)?.into_iter().enumerate();
                let in_span = |row: usize| !matches!(&mask, Mask::Some(mask) if mask[row] == 0);
                chosen.extend(names.filter(|&(row, _)| in_span(row)).map(|(_, name)| name));
            }
        }
        Ok(Mask::new(self.names_of(group)?.into_iter().map(|name| u8::from(chosen.contains(&name))).collect()))
    }

    /// The rows of a group whose name lies in one of the spans.
    fn with_names(&self, group: &StoredGroup, spans: &[Span]) -> Result<Mask> {
        match decided(group.record.span(), spans) {
            Some(mask) => Ok(mask),
            None => Ok(Mask::new(self.names_of(group)?.into_iter().map(|name| u8::from(holds(spans, name))).collect())),
        }
    }
}

/// The same numbers as spans that ascend and have gaps between them: there may be as many as rows.
fn sorted(spans: &[Span]) -> Vec<Span> {
    let mut ascending: Vec<&Span> = spans.iter().filter(|span| span.first <= span.last).collect();
    ascending.sort_by_key(|span| span.first);
    let mut joined: Vec<Span> = Vec::with_capacity(ascending.len());
    for span in ascending {
        match joined.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(1) => last.last = last.last.max(span.last),
            _ => joined.push(span.clone()),
        }
    }
    // no spans stand for everything, spans that hold nothing do not
    joined.extend(spans.first().filter(|_| joined.is_empty()).cloned());
    joined
}

/// Whether one of these spans, as [`sorted`] leaves them, holds the number.
fn holds(spans: &[Span], number: i64) -> bool {
    spans.get(spans.partition_point(|span| span.last < number)).is_some_and(|span| span.holds(number))
}

/// What least and greatest say alone.
fn decided((least, greatest): (i64, i64), spans: &[Span]) -> Option<Mask> {
    match spans.get(spans.partition_point(|span| span.last < least)) {
        Some(span) if span.first <= least && greatest <= span.last => Some(Mask::All),
        Some(span) if span.first <= greatest => None,
        _ => Some(Mask::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorted_spans_hold_what_the_given_ones_hold(
            given in proptest::collection::vec((-9i64..9, 0i64..4), 0..6), least in -12i64..12, more in 0i64..5,
        ) {
            let given: Vec<Span> = given.into_iter().map(|(first, more)| Span { first, last: first + more }).collect();
            let spans = sorted(&given);
            let held: Vec<bool> = (least..=least + more).map(|n| given.iter().any(|span| span.holds(n))).collect();
            let found: Vec<bool> = (least..=least + more).map(|n| holds(&spans, n)).collect();
            prop_assert_eq!(&found, &held);
            match decided((least, least + more), &spans) {
                Some(Mask::All) => prop_assert!(held.iter().all(|held| *held)),
                Some(_) => prop_assert!(!held.iter().any(|held| *held)),
                None => prop_assert!(held.iter().any(|held| *held) && !held.iter().all(|held| *held)),
            }
        }
    }

    #[test]
    fn spans_may_reach_to_the_ends_of_all_numbers() {
        let all = [Span { first: 0, last: i64::MAX }, Span { first: i64::MIN, last: -1 }];
        assert_eq!(sorted(&all), [Span { first: i64::MIN, last: i64::MAX }]);
        let nothing = sorted(&[Span { first: 3, last: 1 }, Span { first: 9, last: -9 }]);
        assert!(!nothing.is_empty() && (-9..9).all(|number| !holds(&nothing, number)));
    }
}
