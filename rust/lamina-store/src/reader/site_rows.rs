//! Rows of a site that were selected from many groups.

use super::Snapshot;
use super::block::{BlockReader, OpenFile};
use super::selection::{Described, Part, Place, Selection};
use lamina_format::record::{Role, Site, Table};
use lamina_format::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The rows of a site that were selected.
pub struct SiteRows {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) site: Site,
    pub(super) selection: Selection,
    /// The file of each part, once it was needed.
    pub(super) open: Vec<OnceLock<Held>>,
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

    pub(super) fn held(&self, part: usize) -> Result<&Held> {
        if let Some(held) = self.open[part].get() {
            return Ok(held);
        }
        let group = self.selection.parts()[part].group;
        let (_, block, file) = self.snapshot.open_site(group, &self.site)?;
        Ok(self.open[part].get_or_init(|| Held { group, block, file }))
    }

    pub(super) fn reader<'a>(&'a self, held: &'a Held) -> BlockReader<'a> {
        let group = &self.snapshot.groups[held.group];
        self.snapshot.reader(group, &held.file, (&group.record.blocks[held.block], &group.verified[held.block]))
    }
}

/// Where a part's rows lie.
pub(super) struct Held {
    group: usize,
    block: usize,
    file: OpenFile,
}
