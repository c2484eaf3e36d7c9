//! Row groups of a snapshot: what they hold, their metadata, and gathering rows.

use super::Snapshot;
use super::block::{BlockReader, Verified};
use super::column::{ColumnData, checked};
use lamina_format::record::{Block, Column, Group, Role, Site, Table};
use lamina_format::{Error, ErrorKind, Result, Value};

/// A group record, with what was verified of its blocks.
pub struct StoredGroup {
    pub record: Group,
    verified: Vec<Verified>,
}

impl StoredGroup {
    pub fn new(record: Group) -> Self {
        let verified = record.blocks.iter().map(Verified::new).collect();
        Self { record, verified }
    }

    fn find(&self, role: Role, id: u32) -> Option<(&Block, &Verified)> {
        let mut both = self.record.blocks.iter().zip(&self.verified);
        both.find(|(block, _)| block.role == role && block.id == id)
    }
}

/// What a reader must know of a group before it reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupInfo {
    /// Name of the first row.
    pub first: i64,
    /// Rows.
    pub rows: u64,
    /// Numbers of the sites.
    pub sites: Vec<u32>,
    /// Least and greatest step, where known.
    pub steps: Option<(i64, i64)>,
}

impl Snapshot {
    /// The row groups in order of their first row.
    pub fn groups(&self) -> Vec<GroupInfo> {
        let step = self.columns(Table::Rows).find(|column| column.name == "step").map(|column| column.id);
        self.groups.iter().map(|group| group_info(&group.record, step)).collect()
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

    fn group(&self, table: Table, index: usize) -> Result<&StoredGroup> {
        let groups = if table == Table::Rows { &self.groups } else { &self.examples };
        groups.get(index).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no row group {index}")))
    }

    /// The rows of a group.
    pub fn rows(&self, table: Table, index: usize) -> Result<u64> {
        Ok(self.group(table, index)?.record.rows)
    }

    /// The name of a group's first row.
    pub fn first_row(&self, index: usize) -> Result<i64> {
        Ok(self.group(Table::Rows, index)?.record.first)
    }

    /// The columns that a group has, in order of declaration.
    pub fn columns_of(&self, table: Table, index: usize) -> Result<Vec<&Column>> {
        let record = &self.group(table, index)?.record;
        let constant = |id| record.constants.iter().any(|constant| constant.id == id);
        let block = |id| record.blocks.iter().any(|block| block.role != Role::Site && block.id == id);
        Ok(self.columns(table).filter(|column| constant(column.id) || block(column.id)).collect())
    }

    fn reader<'a>(&'a self, group: &'a StoredGroup, found: (&'a Block, &'a Verified)) -> Result<BlockReader<'a>> {
        let ranges = self.blobs.get(self.storage.as_ref(), &group.record.file)?;
        let (block, verified) = found;
        Ok(BlockReader { blobs: &self.blobs, ranges, file: &group.record.file, block, verified })
    }

    /// The one value that the column has over the group, if it has just one.
    pub fn constant(&self, index: usize, column: &Column) -> Result<Option<&Value>> {
        const NULL: &Value = &Value::Null;
        let group = self.group(column.table, index)?;
        if let Some(constant) = group.record.constants.iter().find(|constant| constant.id == column.id) {
            return Ok(Some(&constant.value));
        }
        Ok(group.record.blocks.iter().all(|b| b.role == Role::Site || b.id != column.id).then_some(NULL))
    }

    /// A metadata column of a group.
    pub fn metadata(&self, index: usize, column: &Column) -> Result<ColumnData> {
        let group = self.group(column.table, index)?;
        if let Some(value) = self.constant(index, column)? {
            return Ok(ColumnData::Constant(value.clone()));
        }
        let read = |role| group.find(role, column.id).map(|found| self.reader(group, found)?.all()).transpose();
        let missing = || Error::damaged("a column lacks a block").in_file(&group.record.file);
        let valid = read(Role::Valid)?;
        let data = match read(Role::Values)? {
            Some(values) => ColumnData::Fixed(values, valid),
            None => {
                let offsets = read(Role::Offsets)?.ok_or_else(missing)?;
                let offsets = offsets.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
                ColumnData::Texts(offsets, read(Role::Bytes)?.ok_or_else(missing)?, valid)
            }
        };
        checked(column.kind, group.record.rows, data).map_err(|error| error.in_file(&group.record.file))
    }

    /// How many rows of the site the group holds: all of its own, or none. An error if the file is too short for them.
    pub fn rows_of(&self, index: usize, site: &Site) -> Result<u64> {
        self.site_reader(index, site).map(|(rows, _)| rows)
    }

    fn site_reader(&self, index: usize, site: &Site) -> Result<(u64, BlockReader<'_>)> {
        let group = self.group(Table::Rows, index)?;
        let absent = || Error::new(ErrorKind::NotFound, format!("row group {index} does not hold {:?}", site.name));
        let reader = self.reader(group, group.find(Role::Site, site.id).ok_or_else(absent)?)?;
        reader.check_length()?;
        Ok((group.record.rows, reader))
    }

    /// Rows of a site: those at `indices` (positions in the group), or all, into `out` of just that size.
    pub fn gather(&self, index: usize, site: &Site, indices: Option<&[i64]>, out: &mut [u8]) -> Result<()> {
        let (rows, reader) = self.site_reader(index, site)?;
        let item = site.row_bytes() as usize;
        let wanted = indices.map_or(rows as usize, <[i64]>::len);
        if out.len() != wanted * item {
            return Err(Error::schema(format!(
                "{wanted} rows take {} bytes, the buffer has {}",
                wanted * item,
                out.len()
            )));
        }
        let Some(indices) = indices else { return reader.read(0, out) };
        if let Some(beyond) = indices.iter().find(|&&at| at < 0 || at as u64 >= rows) {
            return Err(Error::new(ErrorKind::NotFound, format!("position {beyond} is outside of {rows} rows")));
        }
        let mut from = 0;
        while from < wanted {
            // neighbours are read together
            let run = indices[from..].windows(2).take_while(|pair| pair[1] == pair[0] + 1).count() + 1;
            reader.read(indices[from] as usize * item, &mut out[from * item..(from + run) * item])?;
            from += run;
        }
        Ok(())
    }
}

fn group_info(record: &Group, step: Option<u32>) -> GroupInfo {
    let sites = record.blocks.iter().filter(|block| block.role == Role::Site).map(|block| block.id).collect();
    let constant = record.constants.iter().find(|constant| Some(constant.id) == step).map(|constant| &constant.value);
    let zone = record.zones.iter().find(|zone| Some(zone.id) == step).map(|zone| (&zone.min, &zone.max));
    let steps = match constant.map(|value| (value, value)).or(zone) {
        Some((Value::Int(min), Value::Int(max))) => Some((*min, *max)),
        _ => None,
    };
    GroupInfo { first: record.first, rows: record.rows, sites, steps }
}
