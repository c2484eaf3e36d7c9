//! Reading sparse codes: of some rows of a group, and as dense blocks of some features.

use super::Snapshot;
use super::block::{BlockReader, OpenFile};
use super::coded::{Coding, Scratch};
use super::features::Features;
use super::group::StoredGroup;
use super::hidden::Mask;
use super::selection::Place;
use super::site_rows::{SiteRows, Wanted};
use super::verified::Verified;
use crate::crew;
use lamina_format::record::{Block, Role, Site, Table};
use lamina_format::sparse::{Codes, Flaw, check_pointers};
use lamina_format::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Active units that are read at once.
const SHARE: usize = 1 << 16;

/// The sparse codes of a group.
pub struct GroupCodes<'a> {
    snapshot: &'a Snapshot,
    group: &'a StoredGroup,
    site: &'a Site,
    pointers: Part<'a>,
    ids: Part<'a>,
    values: Part<'a>,
}

/// A block and the file that it lies in.
struct Part<'a> {
    block: &'a Block,
    verified: &'a Verified,
    open: OpenFile,
}

impl Snapshot {
    /// The codes of a group that shows some of the site, those of hidden rows included.
    pub fn codes<'a>(&'a self, index: usize, site: &'a Site) -> Result<GroupCodes<'a>> {
        let group = self.group(Table::Rows, index)?;
        if group.find(Role::Site, site.id).is_none() || group.hidden.of_site(site.id) == Mask::All {
            let text = format!("row group {index} does not hold {:?}", site.name);
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        self.codes_of(group, site)
    }

    pub(crate) fn codes_of<'a>(&'a self, group: &'a StoredGroup, site: &'a Site) -> Result<GroupCodes<'a>> {
        if !site.is_sparse() {
            let text = format!("site {:?} holds {}, which are no sparse codes", site.name, site.described());
            return Err(Error::schema(text).hint("run.activations(name) and run.rows(name) read it"));
        }
        let part = |role| {
            let absent = || Error::damaged("sparse codes lack a block").in_file(&group.record.file);
            let (block, verified) = group.find(role, site.id).ok_or_else(absent)?;
            let mut open = self.blobs.open(self.storage.as_ref(), &group.record.file, block)?;
            open.coding = Coding::of(block, site, group.record.rows);
            Ok::<_, Error>(Part { block, verified, open })
        };
        let (pointers, ids, values) = (part(Role::Indptr)?, part(Role::Ids)?, part(Role::Site)?);
        Ok(GroupCodes { snapshot: self, group, site, pointers, ids, values })
    }
}

impl GroupCodes<'_> {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.group.record.rows as usize
    }

    /// The pointers of some rows, and the one behind: they ascend and lead through units that there are.
    pub(crate) fn pointers(&self, rows: Range<usize>) -> Result<Vec<u32>> {
        let mut bytes = vec![0; 4 * (rows.len() + 1)];
        self.reader(&self.pointers).read(4 * rows.start, &mut bytes, &mut Scratch::default())?;
        let pointers: Vec<u32> = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let active = self.ids.block.active.unwrap_or(0);
        match check_pointers(&pointers, rows.start, self.rows(), active) {
            Ok(()) => Ok(pointers),
            Err(flaw) => Err(self.damaged(&flaw, self.pointers.block)),
        }
    }

    fn reader<'b>(&'b self, part: &'b Part<'_>) -> BlockReader<'b> {
        self.snapshot.reader(self.group, &part.open, (part.block, part.verified))
    }

    /// Ids and values of the rows of these pointers as they lie in memory, their checksums checked but not what they say; None
    /// if they are not mapped, or coded.
    pub(crate) fn stored(&self, pointers: &[u32]) -> Result<Option<(&[u8], &[u8])>> {
        let (Some(&first), Some(&last)) = (pointers.first(), pointers.last()) else { return Ok(None) };
        let bytes = |size: u64| (first as usize * size as usize, (last - first) as usize * size as usize);
        let ((start, length), (from, count)) = (bytes(self.site.id_dtype().size()), bytes(self.site.dtype.size()));
        let ids = self.reader(&self.ids).checked(start, length)?;
        Ok(ids.zip(self.reader(&self.values).checked(from, count)?))
    }

    /// The codes of all rows.
    pub fn all(&self) -> Result<Codes> {
        self.read(0, self.rows())
    }

    /// The codes of the rows from `from` to before `to`.
    pub fn read(&self, from: usize, to: usize) -> Result<Codes> {
        self.of_pointers(&self.pointers(from..to)?)
    }

    /// Hands on the codes of some rows, some at a time with the first's position, until that says false.
    pub fn each_stretch(&self, rows: Range<usize>, mut each: impl FnMut(usize, &Codes) -> Result<bool>) -> Result<()> {
        let pointers = self.pointers(rows.clone())?;
        let mut from = 0;
        while from < rows.len() {
            let most = u64::from(pointers[from]) + SHARE as u64;
            let to =
                pointers.partition_point(|&end| u64::from(end) <= most).saturating_sub(1).clamp(from + 1, rows.len());
            if !each(rows.start + from, &self.of_pointers(&pointers[from..=to])?)? {
                return Ok(());
            }
            from = to;
        }
        Ok(())
    }

    fn of_pointers(&self, pointers: &[u32]) -> Result<Codes> {
        let (Some(&first), Some(&last)) = (pointers.first(), pointers.last()) else { return Ok(Codes::default()) };
        let indptr = pointers.iter().map(|end| end - first).collect();
        let part = |part: &Part, size: u64| {
            let (start, length) = (first as usize * size as usize, (last - first) as usize * size as usize);
            let reader = self.reader(part);
            let mut bytes = Vec::new();
            // coded rows may be many times longer than the file
            if bytes.try_reserve_exact(length).is_err() {
                return Err(reader.damaged("the codes are longer than memory", 0));
            }
            bytes.resize(length, 0);
            reader.read(start, &mut bytes, &mut Scratch::default()).map(|()| bytes)
        };
        let ids = part(&self.ids, self.site.id_dtype().size())?;
        let values = part(&self.values, self.site.dtype.size())?;
        Codes::parse(self.site, indptr, &ids, values).map_err(|mut flaw| {
            flaw.at += first as usize * self.site.id_dtype().size() as usize;
            self.damaged(&flaw, self.ids.block)
        })
    }

    fn damaged(&self, flaw: &Flaw, block: &Block) -> Error {
        // of what is coded it is known where it begins
        let at = block.offset + if block.pieces.is_none() { flaw.at as u64 } else { 0 };
        let error = Error::damaged(format!("codes of {:?}: {}", self.site.name, flaw.text));
        error.in_file(&self.group.record.file).at(at).hint("the other rows are readable")
    }
}

impl SiteRows {
    /// Fills `out`, which is zero, with the rows that are wanted: one after another the values of features.
    pub fn gather_codes(&self, wanted: &Wanted, features: &Features, out: &mut [u8], threads: usize) -> Result<()> {
        self.check(wanted)?;
        let item = features.len() * self.site().dtype.size() as usize;
        if wanted.len().checked_mul(item as u64) != Some(out.len() as u64) {
            let text = format!("{} rows of {item} bytes do not fit {} bytes", wanted.len(), out.len());
            return Err(Error::schema(text));
        }
        if out.is_empty() {
            return Ok(());
        }
        let places: Vec<Place> = match wanted {
            Wanted::At(positions) => self.selection().places(positions).collect(),
            Wanted::Span(span) => self.selection().runs(span.clone()).collect(),
        };
        let mut work = Vec::new();
        let mut rest = out;
        for place in places {
            let (mut here, behind) = std::mem::take(&mut rest).split_at_mut(place.rows as usize * item);
            rest = behind;
            let (mut row, end) = (place.row, place.row + place.rows);
            while row < end {
                let rows = (end - row).min((SHARE / 64) as u64);
                let (now, later) = std::mem::take(&mut here).split_at_mut(rows as usize * item);
                work.push((place.part, row, rows, now));
                (here, row) = (later, row + rows);
            }
        }
        work.sort_by_key(|(part, row, ..)| (*part, *row));
        let shares: Vec<_> = work.chunk_by_mut(|a, b| a.0 == b.0).collect();
        let work = Mutex::new(shares.into_iter());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let run = || {
            loop {
                let Some(share) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                if let Err(error) = self.fill_codes(share, features) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        };
        crew::together(threads.max(1) - 1, &run);
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Rows of one part.
    fn fill_codes(&self, share: &mut [(usize, u64, u64, &mut [u8])], features: &Features) -> Result<()> {
        let Some((part, ..)) = share.first() else { return Ok(()) };
        let (site, size) = (self.site(), self.site().dtype.size() as usize);
        let held = self.snapshot().codes(self.selection().parts()[*part].group, site)?;
        for (_, first, rows, out) in share {
            let codes = held.read(*first as usize, (*first + *rows) as usize)?;
            for (row, out) in out.chunks_mut(features.len() * size).enumerate() {
                let start = codes.indptr[row] as usize;
                for (at, &id) in (start..).zip(codes.ids_of(row)) {
                    if let Some(column) = features.place(id) {
                        let bytes = &codes.values[at * size..(at + 1) * size];
                        out[column * size..(column + 1) * size].copy_from_slice(bytes);
                    }
                }
            }
        }
        Ok(())
    }
}
