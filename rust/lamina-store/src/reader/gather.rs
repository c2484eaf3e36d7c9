//! Gathering rows of a site from many groups at once, by several threads.

use super::Snapshot;
use super::block::{BlockReader, OpenFile};
use super::coded::Scratch;
use super::selection::{Described, Part, Place, Selection};
use crate::crew;
use crate::storage::prefetch;
use lamina_format::record::{Role, Site, Table};
use lamina_format::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes that a thread copies before it asks for more work.
const SHARE: usize = 256 * 1024;

/// Requests below this are not worth a second thread.
const SMALL: usize = 1 << 20;

/// How many parts a thread keeps the bytes of: more would cost more than they save.
const FEW: usize = 1024;

/// How far ahead of the copy the processor is told of a row, in rows, and of how many of its bytes.
const AHEAD: usize = 3;
const AHEAD_BYTES: usize = 512;

/// The rows of a site that were selected.
pub struct SiteRows {
    snapshot: Arc<Snapshot>,
    site: Site,
    selection: Selection,
    /// The file of each part, once it was needed.
    open: Vec<OnceLock<Held>>,
}

/// Which rows are wanted, by their positions among the selected ones.
pub enum Wanted<'a> {
    /// These, in this order.
    At(&'a [i64]),
    /// These, one after another.
    Span(Range<u64>),
}

impl Wanted<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::At(positions) => positions.len() as u64,
            Self::Span(span) => span.end.saturating_sub(span.start),
        }
    }
}

impl SiteRows {
    /// Rows of a site; every part's group must hold it.
    pub fn new(snapshot: Arc<Snapshot>, site: &str, selection: Selection) -> Result<Self> {
        let site = snapshot.site(site)?.clone();
        for part in selection.parts() {
            let group = snapshot.group(Table::Rows, part.group)?;
            if group.find(Role::Site, site.id).is_none() {
                let message = format!("row group {} does not hold {:?}", part.group, site.name);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
        }
        let open = selection.parts().iter().map(|_| OnceLock::new()).collect();
        Ok(Self { snapshot, site, selection, open })
    }

    /// Rows that another process selected: the segment and number of each group, and its part.
    pub fn restore(
        snapshot: Arc<Snapshot>,
        site: &str,
        parts: impl IntoIterator<Item = (String, u32, Described)>,
    ) -> Result<Self> {
        let records = snapshot.groups.iter().map(|group| &group.record).enumerate();
        let index: HashMap<_, _> =
            records.map(|(index, record)| ((record.file.as_str(), record.number), (index, record.rows))).collect();
        let part = |(file, number, described): (String, u32, Described)| {
            let gone = || {
                let error = Error::new(ErrorKind::NotFound, "rows that were selected earlier lie elsewhere now");
                error.in_file(&file).hint("the run was compacted or its rows were deleted: ask for them again")
            };
            let &(group, rows) = index.get(&(file.as_str(), number)).ok_or_else(gone)?;
            Part::of(group, rows, &described)
        };
        let parts = parts.into_iter().map(part).collect::<Result<Vec<_>>>()?;
        Self::new(Arc::clone(&snapshot), site, Selection::new(parts))
    }

    /// Some of these rows, by their positions; they are selected in that order.
    pub fn narrow(&self, wanted: &Wanted) -> Result<Self> {
        self.check(wanted)?;
        let mut parts: Vec<(usize, Vec<i64>)> = Vec::new();
        let mut done = Vec::new();
        let mut add = |place: Place| -> Result<()> {
            if parts.last().is_none_or(|(part, _)| *part != place.part) {
                if let Some(whole) = parts.pop() {
                    done.push(self.part(whole)?);
                }
                parts.push((place.part, Vec::new()));
            }
            let rows = parts.last_mut().map(|(_, rows)| rows);
            rows.into_iter().for_each(|rows| rows.extend((place.row..place.row + place.rows).map(|row| row as i64)));
            Ok(())
        };
        match wanted {
            Wanted::At(positions) => self.selection.places(positions).try_for_each(&mut add)?,
            Wanted::Span(span) => self.selection.runs(span.clone()).try_for_each(&mut add)?,
        }
        if let Some(last) = parts.pop() {
            done.push(self.part(last)?);
        }
        Self::new(Arc::clone(&self.snapshot), &self.site.name, Selection::new(done))
    }

    fn part(&self, (part, rows): (usize, Vec<i64>)) -> Result<Part> {
        let group = self.selection.parts()[part].group;
        Part::at(group, self.snapshot.groups[group].record.rows, &rows)
    }

    /// What [`SiteRows::restore`] takes.
    pub fn described(&self) -> Vec<(&str, u32, Described)> {
        let parts = self.selection.parts().iter();
        let described = |part: &Part| {
            let record = &self.snapshot.groups[part.group].record;
            (record.file.as_str(), record.number, part.described(record.rows))
        };
        parts.map(described).collect()
    }

    /// Which rows were selected.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The site.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Where the rows lie.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Bytes of a row, if they are dense.
    pub fn row_bytes(&self) -> usize {
        self.site.row_bytes() as usize
    }

    /// The names of the groups' rows at all positions, in order.
    pub fn ids(&self) -> Result<Vec<i64>> {
        let mut ids = Vec::with_capacity(self.selection.len() as usize);
        let mut names: Option<(usize, Vec<i64>)> = None;
        for place in self.selection.runs(0..self.selection.len()) {
            if names.as_ref().is_none_or(|(part, _)| *part != place.part) {
                names = Some((place.part, self.snapshot.names(self.selection.parts()[place.part].group)?));
            }
            let of_group = names.as_ref().map_or(&[][..], |(_, names)| names);
            ids.extend_from_slice(&of_group[place.row as usize..(place.row + place.rows) as usize]);
        }
        Ok(ids)
    }

    /// Fills `out` with the rows that are wanted, by at most `threads` threads.
    pub fn gather(&self, wanted: &Wanted, out: &mut [u8], threads: usize) -> Result<()> {
        let (item, count) = (self.row_bytes(), wanted.len() as usize);
        self.check(wanted)?;
        if count.checked_mul(item) != Some(out.len()) {
            return Err(Error::schema(format!("{count} rows of {item} bytes do not fit {} bytes", out.len())));
        }
        if out.is_empty() {
            return Ok(());
        }
        let share = (SHARE / item).max(1);
        let threads = if out.len() < SMALL { 1 } else { threads.clamp(1, count.div_ceil(share)) };
        let work = Mutex::new(out.chunks_mut(share * item).enumerate());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let run = || {
            let mut hand = Hand {
                rows: self,
                whole: Vec::new(),
                places: Vec::new(),
                found: Vec::new(),
                scratch: Scratch::default(),
                copied: 0,
            };
            loop {
                let Some((number, out)) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                let from = number * share;
                let done = match wanted {
                    Wanted::At(positions) => hand.scattered(&positions[from..from + out.len() / item], out),
                    Wanted::Span(span) => {
                        let start = span.start + from as u64;
                        hand.side_by_side(start..start + (out.len() / item) as u64, out)
                    }
                };
                self.snapshot.blobs.count(Role::Site, std::mem::take(&mut hand.copied));
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = done {
                    failed.get_or_insert(error);
                }
                if failed.is_some() {
                    return;
                }
            }
        };
        crew::together(threads - 1, &run);
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Starts to read rows that will be asked for, and waits for none of them.
    pub fn will_need(&self, spans: &[Range<u64>]) -> Result<()> {
        let item = self.row_bytes() as u64;
        for span in spans {
            self.check(&Wanted::Span(span.clone()))?;
            for place in self.selection.runs(span.clone()) {
                let reader = self.reader(self.held(place.part)?);
                let start = reader.block.offset + place.row * item;
                let range = start..start + place.rows * item;
                match &reader.open.map {
                    Some(map) => map.will_need(range),
                    None => reader.open.ranges.will_need(range),
                }
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, wanted: &Wanted) -> Result<()> {
        let rows = self.selection.len();
        let outside = match wanted {
            Wanted::At(positions) => positions.iter().copied().find(|&at| at < 0 || at as u64 >= rows),
            Wanted::Span(span) => (span.end > rows && span.start < span.end).then_some(span.end as i64 - 1),
        };
        let text = |at| format!("index {at} is outside of 0 to {}", rows.saturating_sub(1));
        outside.map_or(Ok(()), |at| Err(Error::new(ErrorKind::Outside, text(at))))
    }

    fn held(&self, part: usize) -> Result<&Held> {
        if let Some(held) = self.open[part].get() {
            return Ok(held);
        }
        let group = self.selection.parts()[part].group;
        let (_, block, file) = self.snapshot.open_site(group, &self.site)?;
        Ok(self.open[part].get_or_init(|| Held { group, block, file }))
    }

    fn reader<'a>(&'a self, held: &'a Held) -> BlockReader<'a> {
        let group = &self.snapshot.groups[held.group];
        self.snapshot.reader(group, &held.file, (&group.record.blocks[held.block], &group.verified[held.block]))
    }
}

/// Where a part's rows lie.
struct Held {
    group: usize,
    block: usize,
    file: OpenFile,
}

/// One thread's work, with what it keeps from share to share.
struct Hand<'a> {
    rows: &'a SiteRows,
    /// The bytes of each part, as far as none of them needs a check; kept where the parts are few.
    whole: Vec<&'a [u8]>,
    /// Where the rows of a share are, and their bytes as far as they need no check.
    places: Vec<Place>,
    found: Vec<&'a [u8]>,
    scratch: Scratch,
    /// Bytes of rows that needed no check.
    copied: usize,
}

impl<'a> Hand<'a> {
    /// Copies rows from all over.
    ///
    /// Finding them and copying them are two loops: the second is so short that the processor begins with the next rows while
    /// it still waits for the bytes of the first. In one loop a gather took twice the time.
    fn scattered(&mut self, positions: &[i64], out: &mut [u8]) -> Result<()> {
        self.places.clear();
        for place in self.rows.selection.places(positions) {
            match self.places.last_mut() {
                // neighbors are read together
                Some(last) if last.part == place.part && last.row + last.rows == place.row => last.rows += 1,
                _ => self.places.push(place),
            }
        }
        let item = self.rows.row_bytes();
        if self.whole.is_empty() && self.rows.open.len() <= FEW {
            self.whole.resize(self.rows.open.len(), &[]);
        }
        self.found.clear();
        let mut rest = &mut *out;
        for index in 0..self.places.len() {
            let place = self.places[index];
            let (here, behind) = rest.split_at_mut(place.rows as usize * item);
            let start = place.row as usize * item;
            let whole = self.whole.get(place.part).copied().unwrap_or_default();
            let bytes = match whole.get(start..start + here.len()) {
                Some(bytes) => bytes,
                None => self.found_in(place.part, start, here)?,
            };
            self.found.push(bytes);
            rest = behind;
        }
        for bytes in &self.found[..AHEAD.min(self.found.len())] {
            prefetch(&bytes[..bytes.len().min(AHEAD_BYTES)]);
        }
        let mut at = 0;
        for (number, bytes) in self.found.iter().enumerate() {
            if let Some(next) = self.found.get(number + AHEAD) {
                prefetch(&next[..next.len().min(AHEAD_BYTES)]);
            }
            let length = self.places[number].rows as usize * item;
            if !bytes.is_empty() {
                out[at..at + length].copy_from_slice(bytes);
                self.copied += length;
            }
            at += length;
        }
        Ok(())
    }

    /// The bytes of a row that need no check; others are copied at once, and none are returned.
    #[cold]
    fn found_in(&mut self, part: usize, start: usize, out: &mut [u8]) -> Result<&'a [u8]> {
        let held = self.rows.held(part)?;
        let reader = self.rows.reader(held);
        if let Some(whole) = self.whole.get_mut(part) {
            *whole = reader.trusted_whole().unwrap_or_default();
        }
        match reader.trusted(start, out.len()) {
            Some(bytes) => Ok(bytes),
            None => reader.read(start, out, &mut self.scratch).map(|()| &[][..]),
        }
    }

    /// Copies rows that stand one after another.
    fn side_by_side(&mut self, span: Range<u64>, out: &mut [u8]) -> Result<()> {
        let item = self.rows.row_bytes();
        let mut rest = out;
        for place in self.rows.selection.runs(span) {
            let (here, behind) = rest.split_at_mut(place.rows as usize * item);
            let reader = self.rows.reader(self.rows.held(place.part)?);
            let start = place.row as usize * item;
            match reader.trusted(start, here.len()) {
                Some(bytes) => {
                    here.copy_from_slice(bytes);
                    self.copied += here.len();
                }
                None => reader.read(start, here, &mut self.scratch)?,
            }
            rest = behind;
        }
        Ok(())
    }
}
