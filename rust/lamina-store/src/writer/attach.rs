//! Which rows a writer may attach further sites to: those that the run holds and that have no value of the site yet.

use crate::reader::{Kind, Mask, Opening, Snapshot};
use crate::storage::Storage;
use lamina_format::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A set of row names, which mostly come in runs.
#[derive(Default)]
struct Spans(BTreeMap<i64, i64>);

impl Spans {
    fn holds(&self, name: i64) -> bool {
        self.0.range(..=name).next_back().is_some_and(|(_, &last)| name <= last)
    }

    /// Adds `first..=last`, of which it holds nothing yet.
    fn add(&mut self, mut first: i64, mut last: i64) {
        if let Some((&before, &end)) = self.0.range(..first).next_back().filter(|&(_, &end)| end + 1 == first) {
            first = before;
            last = last.max(end);
        }
        if let Some(end) = self.0.remove(&(last + 1)) {
            last = end;
        }
        self.0.insert(first, last);
    }

    fn add_all(&mut self, names: &[i64]) {
        names
            .iter()
            .filter(|&&name| !self.holds(name))
            .collect::<HashSet<_>>()
            .into_iter()
            .for_each(|&name| self.add(name, name));
    }
}

/// What a writer knows of rows.
#[derive(Default)]
pub struct Attaching {
    /// Writers whose rows are known.
    writers: HashSet<u32>,
    /// Every row of them, as of the last look.
    rows: Spans,
    /// By site: rows that this writer gave a value when it made them, as of the last look.
    made: HashMap<u32, Spans>,
    /// By site: rows that it attached a value to.
    attached: HashMap<u32, Spans>,
}

impl Attaching {
    /// Refuses names that are no rows, that come twice, or that have a value of one of the sites from this writer.
    pub fn check<'a>(
        &mut self,
        storage: &Arc<dyn Storage>,
        ordinal: u32,
        names: &[i64],
        sites: impl Iterator<Item = (u32, &'a str)>,
    ) -> Result<()> {
        let mut seen = HashSet::with_capacity(names.len());
        if let Some(twice) = names.iter().find(|&name| !seen.insert(name)) {
            return Err(Error::schema(format!("row {twice} is given twice")));
        }
        if names.iter().any(|&name| !self.rows.holds(name)) {
            self.writers.extend(names.iter().filter_map(|name| u32::try_from(name >> 40).ok()));
            self.look(storage, ordinal)?;
        }
        if let Some(unknown) = names.iter().find(|&&name| !self.rows.holds(name)) {
            let hint = "row= takes names that the run holds, such as run.rows(…).ids; what was appended a moment ago has \
                        none before it is durable";
            return Err(Error::schema(format!("the run has no row {unknown}")).hint(hint));
        }
        for (site, name) in sites {
            let given =
                |row: &&i64| [&self.made, &self.attached].iter().any(|m| m.get(&site).is_some_and(|s| s.holds(**row)));
            if let Some(row) = names.iter().find(given) {
                let text = format!("row {row} has a value of site {name:?} already");
                return Err(Error::schema(text).hint("values are written once; attach them under another name"));
            }
        }
        Ok(())
    }

    /// Remembers what was attached.
    pub fn take(&mut self, names: &[i64], sites: &[u32]) {
        sites.iter().for_each(|&site| self.attached.entry(site).or_default().add_all(names));
    }

    /// Learns which rows there are of these writers. What is attached to a row must not outlive it: what their logs hold is
    /// made durable before anything is built on it.
    fn look(&mut self, storage: &Arc<dyn Storage>, ordinal: u32) -> Result<()> {
        let snapshot = Snapshot::open(Arc::clone(storage), Opening::default())?;
        let logs = snapshot.writers().iter().map(|writer| writer.ordinal);
        for writer in logs.filter(|writer| *writer != ordinal && self.writers.contains(writer)) {
            storage.settle_log(writer, 0)?;
        }
        (self.rows, self.made) = (Spans::default(), HashMap::new());
        for (index, group) in snapshot.groups().into_iter().enumerate() {
            let writer = (group.first >> 40) as u32;
            if group.kind == Kind::Attached || !self.writers.contains(&writer) {
                continue;
            }
            let hidden = snapshot.hidden(index, None)?;
            if group.kind == Kind::Own && hidden == Mask::None {
                self.rows.add(group.first, group.last);
            } else {
                let shown = |&(row, _): &(usize, i64)| !matches!(&hidden, Mask::Some(hidden) if hidden[row] != 0);
                let names = snapshot.names(index)?.into_iter().enumerate().filter(shown);
                self.rows.add_all(&names.map(|(_, name)| name).collect::<Vec<_>>());
            }
            if writer != ordinal {
                continue;
            }
            let names = if group.kind == Kind::Own { None } else { Some(snapshot.names(index)?) };
            for &site in &group.sites {
                let made = self.made.entry(site).or_default();
                match &names {
                    None => made.add(group.first, group.last),
                    Some(names) => made.add_all(names),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_names_grow_together() {
        let mut spans = Spans::default();
        spans.add(10, 19);
        spans.add(30, 39);
        spans.add_all(&[25, 21, 20, 22, 24, 23, 20]);
        assert_eq!(spans.0.iter().collect::<Vec<_>>(), [(&10, &25), (&30, &39)]);
        spans.add(26, 29);
        assert_eq!(spans.0.iter().collect::<Vec<_>>(), [(&10, &39)]);
        for (name, held) in [(9, false), (10, true), (25, true), (39, true), (40, false)] {
            assert_eq!(spans.holds(name), held, "{name}");
        }
    }
}
