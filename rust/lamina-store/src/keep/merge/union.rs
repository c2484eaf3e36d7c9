//! The sites and columns of several runs, as one run declares them.

use super::Merged;
use crate::Snapshot;
use crate::keep::rewrite::used;
use lamina_format::record::{Column, Op, Site, Table};
use lamina_format::segment::Declared;
use lamina_format::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// New numbers for the old ones of one run: (is a site, number).
pub type Numbers = HashMap<(bool, u32), u32>;

/// What all runs together declare.
#[derive(Default)]
pub struct Union {
    pub declared: Declared,
    /// By run.
    pub numbers: Vec<Numbers>,
    /// Which run a declaration was first found in, for errors.
    found: HashMap<(bool, u32), String>,
}

impl Union {
    /// What the rows that the runs show use, and what their writers dropped. An error if two runs disagree.
    pub fn of(runs: &[Merged]) -> Result<Self> {
        let mut union = Self::default();
        for run in runs {
            let mut numbers = Numbers::new();
            for (is_site, id) in in_use(&run.snapshot) {
                let new = if is_site { union.site(run, id)? } else { union.column(run, id)? };
                numbers.extend(new.map(|new| ((is_site, id), new)));
            }
            union.numbers.push(numbers);
        }
        Ok(union)
    }

    /// As operations of a commit.
    pub fn declarations(&self) -> Vec<Op> {
        let sites = self.declared.sites.values().cloned().map(Op::Site);
        sites.chain(self.declared.columns.values().cloned().map(Op::Column)).collect()
    }

    fn site(&mut self, run: &Merged, id: u32) -> Result<Option<u32>> {
        let Some(site) = run.snapshot.declared().sites.get(&id) else { return Ok(None) };
        if let Some(other) = self.declared.sites.values().find(|other| other.name == site.name) {
            if (other.dtype, &other.shape, other.is_sparse()) != (site.dtype, &site.shape, site.is_sparse()) {
                let (first, name) = (self.first(true, other.id), &site.name);
                let (a, b) = (other.described(), site.described());
                return Err(Error::schema(format!("site {name:?} holds {a} in {first:?} and {b} in {:?}", run.name)));
            }
            return Ok(Some(other.id));
        }
        let clash = self.declared.columns.values().find(|other| other.table == Table::Rows && other.name == site.name);
        if let Some(column) = clash {
            return Err(self.clash(&site.name, &run.name, self.first(false, column.id)));
        }
        let new = self.declared.sites.len() as u32;
        self.found.insert((true, new), run.name.clone());
        self.declared.sites.insert(new, Site { id: new, ..site.clone() });
        Ok(Some(new))
    }

    fn column(&mut self, run: &Merged, id: u32) -> Result<Option<u32>> {
        let Some(column) = run.snapshot.declared().columns.get(&id) else { return Ok(None) };
        let same = |other: &&Column| other.table == column.table && other.name == column.name;
        if let Some(other) = self.declared.columns.values().find(same) {
            if other.kind != column.kind {
                let (first, name) = (self.first(false, other.id), &column.name);
                let (a, b) = (other.kind.name(), column.kind.name());
                return Err(Error::schema(format!("column {name:?} holds {a} in {first:?} and {b} in {:?}", run.name)));
            }
            return Ok(Some(other.id));
        }
        let clash = self.declared.sites.values().find(|other| column.table == Table::Rows && other.name == column.name);
        if let Some(site) = clash {
            return Err(self.clash(&column.name, self.first(true, site.id), &run.name));
        }
        let new = self.declared.columns.len() as u32;
        self.found.insert((false, new), run.name.clone());
        self.declared.columns.insert(new, Column { id: new, ..column.clone() });
        Ok(Some(new))
    }

    fn clash(&self, name: &str, site: &str, column: &str) -> Error {
        Error::schema(format!("{name:?} is a site in {site:?} and a column in {column:?}"))
    }

    fn first(&self, is_site: bool, id: u32) -> &str {
        self.found.get(&(is_site, id)).map_or("?", String::as_str)
    }
}

fn in_use(snapshot: &Snapshot) -> BTreeSet<(bool, u32)> {
    let groups = snapshot.shown().flat_map(|group| used(&group.record));
    let dropped = snapshot.writers().iter().flat_map(|writer| &writer.dropped.sites).map(|site| (true, site.id));
    groups.chain(dropped).collect()
}
