//! Indexes of sparse codes by feature: one for each segment and site.
//!
//! An index is a cache. One that is missing, damaged, newer or of other groups than the snapshot's is not used, and questions
//! are answered from the codes.

mod build;
mod file;
mod find;
mod part;
mod rows;
mod sorted;
mod stats;
#[cfg(test)]
mod tests;
mod top;
mod transpose;
mod visit;

pub use file::check;
pub use find::Units;
pub use stats::{FeatureStats, QUANTILES};
pub use top::Strongest;

use crate::crew;
use crate::reader::{Mask, Snapshot, StoredGroup};
use file::Index;
use lamina_format::feature_index::Indexed;
use lamina_format::record::{Role, Site};
use lamina_format::{Error, ErrorKind, Result, names};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How the index of a segment's codes of a site stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Ready,
    /// There is none.
    Missing,
    /// The segment is still being written.
    Open,
    /// It is not what was written.
    Damaged,
    /// A newer Lamina wrote it.
    Newer,
    /// It is of other groups than the segment has now.
    Stale,
}

impl State {
    /// The state in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Missing => "missing",
            Self::Open => "open",
            Self::Damaged => "damaged",
            Self::Newer => "newer",
            Self::Stale => "stale",
        }
    }
}

/// A segment that holds codes of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentIndex {
    /// The segment.
    pub file: String,
    /// Rows of its codes, those that are hidden included.
    pub rows: u64,
    /// Their active units.
    pub units: u64,
    /// How its index stands.
    pub state: State,
}

/// What a snapshot knows of the indexes of its sites.
#[derive(Default)]
pub struct Indexes {
    sites: Mutex<HashMap<u32, Arc<Segments>>>,
    problems: Mutex<Vec<Error>>,
}

/// The segments that hold codes of a site.
struct Segments {
    segments: Vec<Segment>,
    /// Of each group of the snapshot that shows some of the site, which of its rows do not; those that show all are left out.
    unseen: OnceLock<HashMap<usize, Mask>>,
}

/// The groups of a segment that hold a site.
struct Segment {
    file: String,
    groups: Vec<Held>,
    /// What an index says of them.
    indexed: Vec<Indexed>,
    index: Mutex<Option<Known>>,
}

/// A group's place among those of the snapshot, or among those that are hidden wholly.
type Place = std::result::Result<usize, usize>;

/// A group, and what an index says of it.
type Member<'a> = (Place, &'a StoredGroup, Indexed);

/// A group of a segment.
struct Held {
    place: Place,
    /// Whether it shows something of the site.
    shown: bool,
    /// Rows of the groups before it, and its own.
    start: u64,
    rows: u64,
}

#[derive(Clone)]
enum Known {
    Ready(Arc<Index>),
    Unusable(State),
}

impl Held {
    fn group<'a>(&self, snapshot: &'a Snapshot) -> &'a StoredGroup {
        let (groups, hidden) = snapshot.of_rows();
        match self.place {
            Ok(place) => &groups[place],
            Err(place) => &hidden[place],
        }
    }

    /// The number by which the snapshot knows it, if it shows something of the site.
    fn number(&self) -> Option<usize> {
        self.place.ok().filter(|_| self.shown)
    }
}

impl Segment {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> u64 {
        self.groups.last().map_or(0, |last| last.start + last.rows)
    }

    /// The group that a row of the index is of, and its position there.
    fn place(&self, row: u32) -> (usize, usize) {
        let at = self.groups.partition_point(|held| held.start <= row.into()) - 1;
        (at, (u64::from(row) - self.groups[at].start) as usize)
    }
}

impl Indexes {
    fn of(&self, snapshot: &Snapshot, site: &Site) -> Arc<Segments> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sites.entry(site.id).or_insert_with(|| Arc::new(Segments::of(snapshot, site))))
    }

    fn report(&self, error: Error) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if !problems.contains(&error) {
            problems.push(error);
        }
    }
}

impl Segments {
    fn of(snapshot: &Snapshot, site: &Site) -> Self {
        let (groups, hidden) = snapshot.of_rows();
        let mut files: BTreeMap<&str, Vec<Member>> = BTreeMap::new();
        let shown = groups.iter().enumerate().map(|(at, group)| (Ok(at), group));
        for (place, group) in shown.chain(hidden.iter().enumerate().map(|(at, group)| (Err(at), group))) {
            if let Some(indexed) = Indexed::of(&group.record, site) {
                files.entry(&group.record.file).or_default().push((place, group, indexed));
            }
        }
        let segment = |(file, mut members): (&str, Vec<Member>)| {
            members.sort_by_key(|(.., indexed)| indexed.number);
            let mut start = 0;
            let held = |(place, group, _): &Member| {
                let shown = group.hidden.of_site(site.id) != Mask::All;
                start += group.record.rows;
                Held { place: *place, shown, start: start - group.record.rows, rows: group.record.rows }
            };
            let groups: Vec<Held> = members.iter().map(held).collect();
            let indexed = members.into_iter().map(|(.., indexed)| indexed).collect();
            Segment { file: file.to_owned(), groups, indexed, index: Mutex::default() }
        };
        let segments = files.into_iter().map(segment);
        // of what shows nothing nobody asks
        let segments = segments.filter(|segment| segment.groups.iter().any(|held| held.number().is_some())).collect();
        Self { segments, unseen: OnceLock::new() }
    }
}

impl Snapshot {
    /// The segments that hold codes of a site, and how their indexes stand.
    pub fn feature_indexes(&self, site: &Site) -> Result<Vec<SegmentIndex>> {
        self.check_codes(site)?;
        let described = |segment: &Segment| {
            let state = match self.index(segment, site) {
                Ok(_) => State::Ready,
                Err(State::Missing) if !self.is_sealed(&segment.file) => State::Open,
                Err(state) => state,
            };
            let units = segment.indexed.iter().map(|group| u64::from(group.units)).sum();
            SegmentIndex { file: segment.file.clone(), rows: segment.rows(), units, state }
        };
        Ok(self.indexes().of(self, site).segments.iter().map(described).collect())
    }

    /// Reads all indexes of a site and looks at their sums: one that is damaged anywhere is known to be from then on.
    pub fn check_feature_indexes(&self, site: &Site, threads: usize) -> Result<()> {
        self.check_codes(site)?;
        for segment in &self.indexes().of(self, site).segments {
            self.ask(segment, site, |index| {
                crew::each(threads.max(1) - 1, 0..index.description().parts.len(), |part| index.check_sums(part))
            })?;
        }
        Ok(())
    }

    /// What was found wrong with indexes so far.
    pub fn index_problems(&self) -> Vec<Error> {
        self.indexes().problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check_codes(&self, site: &Site) -> Result<()> {
        if site.is_sparse() {
            return Ok(());
        }
        let text = format!("site {:?} holds {}, which are no sparse codes", site.name, site.described());
        Err(Error::schema(text).hint("run.activations(name) and run.rows(name) read it"))
    }

    /// The index of a segment, or why there is none that answers. What was found is remembered, unless it was nothing.
    fn index(&self, segment: &Segment, site: &Site) -> std::result::Result<Arc<Index>, State> {
        let mut known = segment.lock();
        if known.is_none() {
            *known = match Index::open(self, segment, site) {
                Ok(None) => None,
                Ok(Some(index)) if !index.is_of(site, &segment.indexed) => Some(Known::Unusable(State::Stale)),
                Ok(Some(index)) => Some(Known::Ready(Arc::new(index))),
                Err(error) => Some(Known::Unusable(self.unusable(segment, site, &error))),
            };
        }
        match known.as_ref() {
            None => Err(State::Missing),
            Some(Known::Unusable(state)) => Err(*state),
            Some(Known::Ready(index)) => Ok(Arc::clone(index)),
        }
    }

    /// Notes that an index cannot be used.
    fn unusable(&self, segment: &Segment, site: &Site, error: &Error) -> State {
        let newer = error.kind == ErrorKind::Format;
        let (state, what) = if newer { (State::Newer, "of a newer version") } else { (State::Damaged, "damaged") };
        let text = format!("the index of {} is {what}: it is not used; `lamina index RUN` rebuilds it", segment.file);
        let file = names::feature_index(&segment.file, site.id).unwrap_or_default();
        let problem = Error::new(error.kind, text).in_file(file);
        self.indexes().report(Error { offset: error.offset, ..problem });
        state
    }

    /// What an index answers. One that turns out to be damaged is not used again, and answers nothing; an error of the codes
    /// themselves is one.
    fn ask<T>(&self, segment: &Segment, site: &Site, question: impl FnOnce(&Index) -> Result<T>) -> Result<Option<T>> {
        let Ok(index) = self.index(segment, site) else { return Ok(None) };
        match question(&index) {
            Err(error) if error.file.as_deref() == Some(index.name()) => {
                let state = self.unusable(segment, site, &error);
                *segment.lock() = Some(Known::Unusable(state));
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Which rows of groups show no value of the site: those that are hidden, and those of attached groups whose row is not
    /// there, or has another value that counts.
    fn unseen<'a>(&self, segments: &'a Segments, site: &Site) -> Result<&'a HashMap<usize, Mask>> {
        if let Some(unseen) = segments.unseen.get() {
            return Ok(unseen);
        }
        let found = rows::unseen(self, site)?;
        Ok(segments.unseen.get_or_init(|| found))
    }
}

/// The values of a site as they are stored: a group holds them, whatever it shows.
fn holds(group: &StoredGroup, site: u32) -> bool {
    group.find(Role::Site, site).is_some()
}
