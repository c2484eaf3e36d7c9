//! Row groups of a snapshot: what they hold, their metadata, and gathering rows.

use super::Snapshot;
use super::block::{BlockReader, OpenFile};
use super::coded::{Coding, Scratch};
use super::column::{ColumnData, checked};
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

    pub(super) fn reader<'a>(
        &'a self,
        group: &'a StoredGroup,
        open: &'a OpenFile,
        found: (&'a Block, &'a Verified),
    ) -> BlockReader<'a> {
        let (block, verified) = found;
        BlockReader { blobs: &self.blobs, open, file: &group.record.file, block, verified }
    }

    fn read_all(&self, group: &StoredGroup, found: (&Block, &Verified)) -> Result<Vec<u8>> {
        let open = self.blobs.open(self.storage.as_ref(), &group.record.file, found.0)?;
        self.reader(group, &open, found).all()
    }

    /// All rows of a site of a group, hidden ones included.
    pub(crate) fn site_of(&self, group: &StoredGroup, site: u32) -> Result<Vec<u8>> {
        let absent = || Error::damaged(format!("a row group lacks site {site}")).in_file(&group.record.file);
        let (block, verified) = group.find(Role::Site, site).ok_or_else(absent)?;
        let mut open = self.blobs.open(self.storage.as_ref(), &group.record.file, block)?;
        open.coding = self.site_by_id(site).and_then(|site| Coding::of(block, site, group.record.rows));
        self.reader(group, &open, (block, verified)).all()
    }

    /// A block as it lies in its file, coded or not; every byte is verified, however the snapshot is read.
    pub(crate) fn block_of(&self, group: &StoredGroup, block: &Block) -> Result<Vec<u8>> {
        let open = self.blobs.open(self.storage.as_ref(), &group.record.file, block)?;
        let mut bytes = vec![0; block.length as usize];
        open.ranges.read(block.offset, &mut bytes)?;
        for ((start, length), crc) in block.spans().into_iter().zip(block.crcs.as_chunks::<4>().0) {
            if crc32c::crc32c(&bytes[start as usize..(start + length) as usize]) != u32::from_le_bytes(*crc) {
                let error = Error::damaged("the bytes do not match their checksum");
                return Err(error.in_file(&group.record.file).at(block.offset + start));
            }
        }
        Ok(bytes)
    }

    /// The names of a group's rows.
    pub fn names(&self, index: usize) -> Result<Vec<i64>> {
        self.names_of(self.group(Table::Rows, index)?)
    }

    pub(crate) fn names_of(&self, group: &StoredGroup) -> Result<Vec<i64>> {
        let (first, last) = group.record.span();
        let Some(found) = group.find(Role::Names, 0) else { return Ok((first..=last).collect()) };
        let bytes = self.read_all(group, found)?;
        let names: Vec<i64> = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
        if names.iter().any(|&name| name < first || name > last) {
            return Err(Error::damaged("a row's name is not what its group says").in_file(&group.record.file));
        }
        Ok(names)
    }

    /// Which rows of a group are hidden, or show no value of the site.
    pub fn hidden(&self, index: usize, site: Option<&Site>) -> Result<Mask> {
        let hidden = &self.group(Table::Rows, index)?.hidden;
        Ok(site.map_or_else(|| hidden.rows.clone(), |site| hidden.of_site(site.id)))
    }

    /// The one value that the column has over the group, if it has just one.
    pub fn constant(&self, index: usize, column: &Column) -> Result<Option<&Value>> {
        Ok(constant(self.group(column.table, index)?, column))
    }

    /// A metadata column of a group.
    pub fn metadata(&self, index: usize, column: &Column) -> Result<ColumnData> {
        self.column_of(self.group(column.table, index)?, column)
    }

    pub(crate) fn column_of(&self, group: &StoredGroup, column: &Column) -> Result<ColumnData> {
        if let Some(value) = constant(group, column) {
            return Ok(ColumnData::Constant(value.clone()));
        }
        let read = |role| group.find(role, column.id).map(|found| self.read_all(group, found)).transpose();
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
        self.open_site(index, site).map(|(group, ..)| group.record.rows)
    }

    /// The group, its block of the site, and the file that the block lies in.
    pub(super) fn open_site(&self, index: usize, site: &Site) -> Result<(&StoredGroup, usize, OpenFile)> {
        let group = self.group(Table::Rows, index)?;
        let absent = || Error::new(ErrorKind::NotFound, format!("row group {index} does not hold {:?}", site.name));
        let is_site = |block: &Block| block.site() == Some(site.id);
        let shown = group.record.blocks.iter().position(is_site).filter(|_| group.hidden.of_site(site.id) != Mask::All);
        let at = shown.ok_or_else(absent)?;
        let block = &group.record.blocks[at];
        let mut open = self.blobs.open(self.storage.as_ref(), &group.record.file, block)?;
        open.coding = Coding::of(block, site, group.record.rows);
        Ok((group, at, open))
    }

    /// Rows of a site: those at `indices` (positions in the group), or all, into `out` of just that size.
    pub fn gather(&self, index: usize, site: &Site, indices: Option<&[i64]>, out: &mut [u8]) -> Result<()> {
        let (group, at, open) = self.open_site(index, site)?;
        let rows = group.record.rows;
        let reader = self.reader(group, &open, (&group.record.blocks[at], &group.verified[at]));
        let mut scratch = Scratch::default();
        let item = site.row_bytes() as usize;
        let wanted = indices.map_or(rows as usize, <[i64]>::len);
        if out.len() != wanted * item {
            return Err(Error::schema(format!(
                "{wanted} rows take {} bytes, the buffer has {}",
                wanted * item,
                out.len()
            )));
        }
        let Some(indices) = indices else { return reader.read(0, out, &mut scratch) };
        if let Some(beyond) = indices.iter().find(|&&at| at < 0 || at as u64 >= rows) {
            return Err(Error::new(ErrorKind::Outside, format!("position {beyond} is outside of {rows} rows")));
        }
        let mut from = 0;
        while from < wanted {
            // neighbours are read together
            let run = indices[from..].windows(2).take_while(|pair| pair[1] == pair[0] + 1).count() + 1;
            reader.read(indices[from] as usize * item, &mut out[from * item..(from + run) * item], &mut scratch)?;
            from += run;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Hands the rows of a site at `indices` (positions in the group) to `take`, in order, in stretches: for who would
    /// otherwise have to zero the memory that they go to.
    pub fn stretches(&self, index: usize, site: &Site, indices: &[i64], mut take: impl FnMut(&[u8])) -> Result<()> {
        let (group, at, open) = self.open_site(index, site)?;
        let rows = group.record.rows;
        let reader = self.reader(group, &open, (&group.record.blocks[at], &group.verified[at]));
        let (mut scratch, mut read) = (Scratch::default(), Vec::new());
        let item = site.row_bytes() as usize;
        if let Some(beyond) = indices.iter().find(|&&at| at < 0 || at as u64 >= rows) {
            return Err(Error::new(ErrorKind::Outside, format!("position {beyond} is outside of {rows} rows")));
        }
        for run in indices.chunk_by(|a, b| a + 1 == *b) {
            let (start, length) = (run[0] as usize * item, run.len() * item);
            if let Some(bytes) = reader.trusted(start, length) {
                self.blobs.count(Role::Site, length);
                take(bytes);
                continue;
            }
            read.resize(length, 0);
            reader.read(start, &mut read, &mut scratch)?;
            take(&read);
        }
        Ok(())
    }
}

fn constant<'a>(group: &'a StoredGroup, column: &Column) -> Option<&'a Value> {
    const NULL: &Value = &Value::Null;
    if let Some(constant) = group.record.constants.iter().find(|constant| constant.id == column.id) {
        return Some(&constant.value);
    }
    group.record.blocks.iter().all(|block| block.column() != Some(column.id)).then_some(NULL)
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
