//! Row groups of a snapshot: what they are, and finding them and what they have.

use super::Snapshot;
use super::hidden::{Hidden, Mask, Origin};
use super::verified::Verified;
use lamina_format::record::{Block, Column, Group, Role, Site, Table};
use lamina_format::{Error, ErrorKind, Result, Value};

/// A group record, with where it stands, what is hidden of it, and what was verified of its blocks.
pub struct StoredGroup {
    pub record: Group,
    pub origin: Origin,
    pub hidden: Hidden,
    pub(super) verified: Vec<Verified>,
}

impl StoredGroup {
    pub fn new(mut record: Group, origin: Origin) -> Self {
        if record.table == Table::Examples && record.blocks.is_empty() {
            // so many times the same of the same example: once says it all, and costs no more than its record
            record.rows = 1;
        }
        let verified = record.blocks.iter().map(Verified::new).collect();
        Self { record, origin, hidden: Hidden::default(), verified }
    }

    /// The sites of which it shows something.
    pub fn sites(&self) -> impl Iterator<Item = u32> {
        self.record.sites().filter(|&id| self.hidden.of_site(id) != Mask::All)
    }

    /// Least and greatest value of an int column without nulls, as far as the record tells.
    pub fn bounds(&self, column: u32) -> Option<(i64, i64)> {
        let constant = self.record.constants.iter().find(|constant| constant.id == column);
        if let Some(constant) = constant {
            return if let Value::Int(value) = constant.value { Some((value, value)) } else { None };
        }
        match self.record.zones.iter().find(|zone| zone.id == column && zone.nulls == 0).map(|z| (&z.min, &z.max)) {
            Some((Value::Int(min), Value::Int(max))) => Some((*min, *max)),
            _ => None,
        }
    }

    pub fn find(&self, role: Role, id: u32) -> Option<(&Block, &Verified)> {
        let mut both = self.record.blocks.iter().zip(&self.verified);
        both.find(|(block, _)| block.role == role && block.id == id)
    }
}

/// What a reader must know of a group before it reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupInfo {
    /// Name of the first row.
    pub first: i64,
    /// Rows, those that are hidden included.
    pub rows: u64,
    /// Numbers of the sites.
    pub sites: Vec<u32>,
    /// Least and greatest step, where known.
    pub steps: Option<(i64, i64)>,
    /// How its rows come by their names.
    pub kind: Kind,
    /// Greatest name of a row.
    pub last: i64,
}

/// How the rows of a group come by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They follow the first without a gap.
    Own,
    /// They stand in a block.
    Named,
    /// They stand in a block and are those of rows that other groups made.
    Attached,
}

impl Snapshot {
    /// The row groups in order of their first row, without those that are hidden wholly.
    pub fn groups(&self) -> Vec<GroupInfo> {
        let step = self.step_column();
        self.groups.iter().map(|group| group_info(group, step)).collect()
    }

    /// The row group at a place of [`Snapshot::groups`].
    pub fn group_at(&self, index: usize) -> Result<GroupInfo> {
        self.group(Table::Rows, index).map(|group| group_info(group, self.step_column()))
    }

    fn step_column(&self) -> Option<u32> {
        self.columns(Table::Rows).find(|column| column.name == "step").map(|column| column.id)
    }

    /// How many groups the examples table has.
    pub fn example_groups(&self) -> usize {
        self.examples.len()
    }

    /// The site of that name.
    pub fn site(&self, name: &str) -> Result<&Site> {
        let known = || Error::new(ErrorKind::NotFound, format!("the run has no site {name:?}"));
        self.declared.sites.values().find(|site| site.name == name).ok_or_else(known)
    }

    /// The site of that number.
    pub fn site_by_id(&self, id: u32) -> Option<&Site> {
        self.declared.sites.get(&id)
    }

    /// The column of that name.
    pub fn column(&self, table: Table, name: &str) -> Result<&Column> {
        let unknown = || Error::new(ErrorKind::NotFound, format!("the run has no column {name:?}"));
        self.columns(table).find(|column| column.name == name).ok_or_else(unknown)
    }

    pub(super) fn group(&self, table: Table, index: usize) -> Result<&StoredGroup> {
        let groups = if table == Table::Examples { &self.examples } else { &self.groups };
        groups.get(index).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no row group {index}")))
    }

    /// The rows of a group.
    pub fn rows(&self, table: Table, index: usize) -> Result<u64> {
        Ok(self.group(table, index)?.record.rows)
    }

    /// The columns that a group has, in order of declaration.
    pub fn columns_of(&self, table: Table, index: usize) -> Result<Vec<&Column>> {
        let record = &self.group(table, index)?.record;
        let constant = |id| record.constants.iter().any(|constant| constant.id == id);
        let block = |id| record.blocks.iter().any(|block| block.column() == Some(id));
        Ok(self.columns(table).filter(|column| constant(column.id) || block(column.id)).collect())
    }
}

fn group_info(group: &StoredGroup, step: Option<u32>) -> GroupInfo {
    let record = &group.record;
    let constant = record.constants.iter().find(|constant| Some(constant.id) == step).map(|constant| &constant.value);
    let zone = record.zones.iter().find(|zone| Some(zone.id) == step).map(|zone| (&zone.min, &zone.max));
    let steps = match constant.map(|value| (value, value)).or(zone) {
        Some((Value::Int(min), Value::Int(max))) => Some((*min, *max)),
        _ => None,
    };
    let kind = match (record.table, record.last) {
        (Table::Attached, _) => Kind::Attached,
        (_, Some(_)) => Kind::Named,
        (_, None) => Kind::Own,
    };
    let (first, last) = record.span();
    GroupInfo { first, rows: record.rows, sites: group.sites().collect(), steps, kind, last }
}
