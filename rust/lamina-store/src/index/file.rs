//! An index that is open: its parts, each checked when it is touched first.

use super::Segment;
use crate::reader::{Access, Io, Snapshot, Verify};
use crate::storage::{Mapped, Ranges, Storage};
use lamina_format::feature_index::{Description, Entry, Indexed, MAGIC, TAIL, Table, check_magic};
use lamina_format::packing::BLOCK;
use lamina_format::posting::Postings;
use lamina_format::record::Site;
use lamina_format::{Error, Result, names};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// An open index.
pub struct Index {
    name: String,
    ranges: Box<dyn Ranges>,
    map: Option<Arc<Mapped>>,
    verify: Verify,
    description: Description,
    rows: u32,
    parts: Vec<Checked>,
}

/// What of a part was found good.
#[derive(Default)]
struct Checked {
    /// The table, if it had to be read; and a bit a list.
    table: OnceLock<(Option<Vec<u8>>, Vec<AtomicU64>)>,
}

/// A feature of an index.
pub struct Found<'a> {
    pub entry: Entry,
    list: Cow<'a, [u8]>,
    index: &'a Index,
}

impl Found<'_> {
    /// Its units.
    pub fn postings(&self) -> Result<Postings<'_>> {
        let (dtype, units) = (self.index.description.dtype, self.entry.units as usize);
        let parsed = Postings::parse(&self.list, dtype, units, self.index.rows);
        parsed.map_err(|error| self.index.damaged(error, self.entry.list))
    }
}

impl Index {
    /// Opens the index of a segment; None if there is none.
    pub(super) fn open(snapshot: &Snapshot, segment: &Segment, site: &Site) -> Result<Option<Self>> {
        let Some(name) = names::feature_index(&segment.file, site.id) else { return Ok(None) };
        let (storage, access) = snapshot.storage();
        Self::open_file(storage, access, name)
    }

    fn open_file(storage: &dyn Storage, access: Access, name: String) -> Result<Option<Self>> {
        let Some(ranges) = storage.open_index(&name)? else { return Ok(None) };
        let within = |error: Error| if error.file.is_none() { error.in_file(&name) } else { error };
        let length = ranges.length()?;
        let mut magic = [0; MAGIC.len()];
        ranges.read(0, &mut magic)?;
        check_magic(&magic).map_err(within)?;
        let description = describe(ranges.as_ref(), length).map_err(within)?;
        let wanted = match access.io {
            Io::Auto => !ranges.is_remote(),
            Io::Mmap => true,
            Io::Pread => false,
        };
        // what cannot be mapped can still be read
        let map = if wanted { ranges.map(length).unwrap_or(None) } else { None };
        let parts = description.parts.iter().map(|_| Checked::default()).collect();
        let rows = description.rows().unwrap_or(0);
        Ok(Some(Self { name, ranges, map, verify: access.verify, description, rows, parts }))
    }

    /// Its name, which every error of it bears.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is of.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Whether it is of these groups.
    pub fn is_of(&self, site: &Site, groups: &[Indexed]) -> bool {
        let found = &self.description;
        let alike = found.site == site.id && found.dtype == site.dtype && found.width == site.width();
        alike && found.groups == groups
    }

    pub fn damaged(&self, error: Error, at: u64) -> Error {
        error.in_file(&self.name).at(at)
    }

    fn bytes(&self, from: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        if let Some(map) = &self.map
            && let Some(bytes) = map.bytes(from, length)
        {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(length).is_err() {
            return Err(self.damaged(Error::damaged("a part of the index is longer than memory"), from));
        }
        bytes.resize(length, 0);
        self.ranges.read(from, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// The table of a part, and which of its lists were checked.
    fn table(&self, at: usize) -> Result<(Table<'_>, &[AtomicU64])> {
        let part = &self.description.parts[at];
        let length = part.table_length() as usize;
        let checked = &self.parts[at].table;
        if checked.get().is_none() {
            let bytes = self.bytes(part.table, length)?;
            let table = Table::check(&bytes, part, self.rows).map_err(|error| self.damaged(error, part.table))?;
            let good = (0..table.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
            let _ = checked.set((if let Cow::Owned(bytes) = bytes { Some(bytes) } else { None }, good));
        }
        let (read, good) = checked.get().map_or((&None, &[][..]), |(read, good)| (read, good));
        let mapped = || self.map.as_ref().and_then(|map| map.bytes(part.table, length)).unwrap_or_default();
        Ok((Table::new(read.as_deref().unwrap_or_else(mapped), part), good))
    }

    /// What the table says of a feature, if it has units.
    pub fn entry(&self, feature: u32) -> Result<Option<Entry>> {
        let Some(part) = self.description.part_of(feature) else { return Ok(None) };
        let (table, _) = self.table(part)?;
        Ok(table.find(feature).map(|at| table.entry(at)))
    }

    /// A feature, if it has units; its list is checked.
    pub fn find(&self, feature: u32) -> Result<Option<Found<'_>>> {
        let Some(part) = self.description.part_of(feature) else { return Ok(None) };
        let (table, good) = self.table(part)?;
        let Some(at) = table.find(feature) else { return Ok(None) };
        let entry = table.entry(at);
        let list = self.bytes(entry.list, (table.list_end(at) - entry.list) as usize)?;
        let bit = 1 << (at % 64);
        let needs_check = match self.verify {
            Verify::First => good[at / 64].load(Ordering::Relaxed) & bit == 0,
            Verify::Always => true,
            Verify::Never => false,
        };
        if needs_check {
            if crc32c::crc32c(&list) != entry.crc {
                let error = Error::damaged("the units of a feature do not match their checksum");
                return Err(self.damaged(error, entry.list));
            }
            good[at / 64].fetch_or(bit, Ordering::Relaxed);
        }
        Ok(Some(Found { entry, list, index: self }))
    }

    /// Hands on every entry of a part in order, each with its histogram.
    pub fn entries(&self, at: usize, mut each: impl FnMut(&Entry, &[u8]) -> Result<()>) -> Result<()> {
        let (table, _) = self.table(at)?;
        let part = &self.description.parts[at];
        let start = part.table + part.table_length();
        let bins = self.bytes(start, part.bins as usize)?;
        if crc32c::crc32c(&bins) != part.bins_crc {
            let error = Error::damaged("the histograms of an index do not match their checksum");
            return Err(self.damaged(error, start));
        }
        let mut from = 0;
        for at in 0..table.len() {
            let entry = table.entry(at);
            let of_entry = &bins[from..entry.bins as usize];
            from = entry.bins as usize;
            each(&entry, of_entry).map_err(|error| self.damaged(error, start))?;
        }
        Ok(())
    }

    /// Checks the sums of a part, of its histograms and of its lists.
    pub fn check_sums(&self, at: usize) -> Result<()> {
        self.entries(at, |_, _| Ok(()))?;
        let (table, _) = self.table(at)?;
        (0..table.len()).try_for_each(|at| self.find(table.entry(at).feature).map(drop))
    }

    /// Checks every byte.
    fn check(&self) -> Result<()> {
        for (at, part) in self.description.parts.iter().enumerate() {
            self.entries(at, |entry, bins| lamina_format::histogram::read(bins, entry.units, |_, _| {}))?;
            let (table, _) = self.table(at)?;
            for feature in (0..table.len()).map(|at| table.entry(at).feature) {
                let Some(found) = self.find(feature)? else { continue };
                for block in found.postings()?.blocks() {
                    block.rows(&mut [0; BLOCK]).map_err(|error| self.damaged(error, part.lists))?;
                }
            }
        }
        Ok(())
    }
}

/// Checks every byte of an index; one of a newer version is an error of the kind `Format`.
pub fn check(storage: &dyn Storage, name: &str) -> Result<()> {
    let access = Access { io: Io::Pread, verify: Verify::Always };
    // one that is gone was collected meanwhile
    Index::open_file(storage, access, name.to_owned())?.map_or(Ok(()), |index| index.check())
}

fn describe(ranges: &dyn Ranges, length: u64) -> Result<Description> {
    let mut tail = [0; TAIL];
    let short = || Error::damaged("the index is cut short");
    ranges.read(length.checked_sub(TAIL as u64).ok_or_else(short)?, &mut tail)?;
    let described = Description::length(&tail, length)? + TAIL;
    let mut bytes = vec![0; described];
    ranges.read(length - described as u64, &mut bytes)?;
    Description::decode(&bytes, length)
}
