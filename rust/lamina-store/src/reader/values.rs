//! What a row group holds: names, metadata and rows.

use super::Snapshot;
use super::block::{BlockReader, OpenFile};
use super::coded::{Coding, Scratch};
use super::column::{ColumnData, checked};
use super::group::StoredGroup;
use super::hidden::Mask;
use super::verified::Verified;
use lamina_format::record::{Block, Column, Role, Site, Table};
use lamina_format::{Error, ErrorKind, Result, Value};

impl Snapshot {
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

    /// The name of a row of a group.
    pub(crate) fn name_at(&self, group: &StoredGroup, row: usize) -> Result<i64> {
        let (first, last) = group.record.span();
        let Some(found) = group.find(Role::Names, 0) else { return Ok(first + row as i64) };
        let open = self.blobs.open(self.storage.as_ref(), &group.record.file, found.0)?;
        let mut name = [0; 8];
        self.reader(group, &open, found).read(8 * row, &mut name, &mut Scratch::default())?;
        let name = i64::from_le_bytes(name);
        let wrong = || Error::damaged("a row's name is not what its group says").in_file(&group.record.file);
        (first..=last).contains(&name).then_some(name).ok_or_else(wrong)
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
        if site.is_sparse() {
            let text = format!("site {:?} holds sparse codes", site.name);
            return Err(Error::schema(text).hint("run.features(name) reads them"));
        }
        let absent = || Error::new(ErrorKind::NotFound, format!("row group {index} does not hold {:?}", site.name));
        let is_site = |block: &Block| block.site() == Some(site.id);
        let shown = group.record.blocks.iter().position(is_site).filter(|_| group.hidden.of_site(site.id) != Mask::All);
        let at = shown.ok_or_else(absent)?;
        let block = &group.record.blocks[at];
        let mut open = self.blobs.open(self.storage.as_ref(), &group.record.file, block)?;
        open.coding = Coding::of(block, site, group.record.rows);
        Ok((group, at, open))
    }

    /// All rows of a site of a group, into `out` of just that size.
    pub fn read(&self, index: usize, site: &Site, out: &mut [u8]) -> Result<()> {
        let (group, at, open) = self.open_site(index, site)?;
        let (rows, bytes) = (group.record.rows, group.record.rows * site.row_bytes());
        if out.len() as u64 != bytes {
            return Err(Error::schema(format!("{rows} rows take {bytes} bytes, the buffer has {}", out.len())));
        }
        let reader = self.reader(group, &open, (&group.record.blocks[at], &group.verified[at]));
        reader.read(0, out, &mut Scratch::default())
    }

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
