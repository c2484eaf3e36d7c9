//! What a run held when it was opened: the commits, and the valid frames of each log.

mod access;
mod bits;
mod block;
pub(crate) mod checkpoint;
mod coded;
mod codes;
mod column;
mod features;
mod gather;
mod group;
mod hidden;
mod metrics;
mod overlap;
mod reading;
mod replaced;
mod selection;
mod site_rows;
mod values;
mod verified;
mod zones;

pub use access::{Access, Io, Verify};
pub use checkpoint::{Mapping, Region, SavedPart, SavedTensor, Stretch};
pub use codes::GroupCodes;
pub use column::ColumnData;
pub use features::Features;
pub use group::{GroupInfo, Kind};
pub use hidden::Mask;
pub use metrics::MetricColumns;
pub use selection::{Described, Part, Selection};
pub use site_rows::{SiteRows, Wanted};
pub use zones::ColumnZone;

use crate::chain::Chain;
use crate::index::Indexes;
use crate::storage::Storage;
use block::Blobs;
use checkpoint::Checkpoints;
pub(crate) use group::StoredGroup;
use hidden::Hiding;
use lamina_format::record::{Close, Column, Dropped, Note, Op, Open, Role, Site, Table};
use lamina_format::runfile::RunFile;
use lamina_format::segment::Declared;
use lamina_format::{Error, ErrorKind, Result, names};
use reading::Reading;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// How a log stands.
#[derive(Clone, Debug)]
pub struct WriterInfo {
    /// Which writer.
    pub ordinal: u32,
    /// Its first record; None if that is lost.
    pub open: Option<Open>,
    /// Its last record, if it was closed.
    pub close: Option<Close>,
    /// What it dropped while its queue was full.
    pub dropped: Dropped,
    /// Whether the process that owns the log may still live and was not fenced; certain only on its own machine.
    pub alive: bool,
    /// Where its metrics lie in [`Snapshot::metrics`].
    pub metrics: Range<usize>,
}

/// A site and what is recorded of it.
#[derive(Clone, Debug)]
pub struct SiteInfo {
    /// The declaration.
    pub site: Site,
    /// Rows.
    pub rows: u64,
    /// Bytes of its rows when they are not coded; of sparse codes those of hidden rows too, likewise.
    pub bytes: u64,
    /// Elements that are NaN or infinite, in hidden rows too as long as others of their group are shown.
    pub non_finite: u64,
}

/// How a run is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Damage is an error; otherwise it is passed over and listed in [`Snapshot::problems`].
    pub strict: bool,
    /// What was rewound or deleted is shown, as far as it is still there.
    pub hidden: bool,
}

impl Opening {
    /// Refuses damage.
    pub const STRICT: Self = Self { strict: true, hidden: false };
}

/// A consistent view of a run; it never changes.
pub struct Snapshot {
    storage: Arc<dyn Storage>,
    run: RunFile,
    problems: Vec<Error>,
    writers: Vec<WriterInfo>,
    declared: Declared,
    groups: Vec<StoredGroup>,
    /// Groups that are hidden wholly.
    hidden: Vec<StoredGroup>,
    examples: Vec<StoredGroup>,
    metrics: MetricColumns,
    notes: Vec<Note>,
    checkpoints: Checkpoints,
    dead: HashMap<String, u64>,
    sealed: HashSet<String>,
    blobs: Blobs,
    indexes: Indexes,
}

impl Snapshot {
    /// Reads a run.
    pub fn open(storage: Arc<dyn Storage>, opening: Opening) -> Result<Self> {
        let mut head = storage.commits();
        loop {
            let snapshot = Self::look(Arc::clone(&storage), opening)?;
            if snapshot.problems.iter().any(|problem| problem.kind == ErrorKind::Expired) {
                // files were reclaimed while the run was read: what replaced them stands in a later commit
                let before = std::mem::replace(&mut head, storage.commits());
                if before != head {
                    continue;
                }
            }
            return match snapshot.problems.first().filter(|_| opening.strict) {
                Some(first) => Err(first.clone()),
                None => Ok(snapshot),
            };
        }
    }

    fn look(storage: Arc<dyn Storage>, opening: Opening) -> Result<Self> {
        let described = storage.run_json().and_then(|text| RunFile::decode(&text));
        let described = match described {
            Err(error) if error.kind != ErrorKind::Damaged && !may_be_torn(&error) => return Err(locate(error)),
            described => described,
        };
        let chain = match (Chain::read(storage.as_ref()), &described) {
            (Err(_), Err(error)) => return Err(locate(error.clone())),
            (chain, _) => chain?,
        };
        let mut problems = chain.problems.clone();
        let run = match described {
            Ok(run) => run,
            Err(error) => {
                let error = Error { kind: ErrorKind::Damaged, ..locate(error) };
                let copy = copied_description(&chain).ok_or_else(|| error.clone())?;
                problems.insert(0, error.hint("the copy in the first commit was used"));
                copy
            }
        };
        let mut declared = chain.declared.clone();
        let hiding = if opening.hidden { Hiding::default() } else { Hiding::of(&chain) };
        let mut reading = Reading::new(hiding);
        for (writer, generation) in storage.logs()? {
            reading.log(storage.as_ref(), writer, generation, &mut declared)?;
        }
        reading.checkpoints.forget(&chain.doomed().dropped);
        reading.check_authors(&chain);
        reading.replace(&chain, &declared);
        reading.check_overlaps();
        problems.extend(reading.problems);
        problems.extend(reading.checkpoints.problems());
        let sorted = |mut groups: Vec<StoredGroup>| {
            groups.sort_by_key(|group| (group.record.first, group.origin.writer()));
            groups
        };
        let mut snapshot = Self {
            storage,
            run,
            problems,
            writers: reading.writers,
            declared,
            groups: sorted(reading.groups),
            hidden: Vec::new(),
            examples: sorted(reading.examples),
            metrics: reading.metrics,
            notes: notes(&chain),
            checkpoints: reading.checkpoints,
            dead: reading.dead,
            sealed: reading.sealed,
            blobs: Blobs::default(),
            indexes: Indexes::default(),
        };
        snapshot.hide(&reading.hiding);
        Ok(snapshot)
    }

    /// Takes out what is hidden wholly, and notes the rest with its groups.
    fn hide(&mut self, hiding: &Hiding) {
        let all = std::mem::take(&mut self.groups);
        // what is hidden of attached sites may depend on the rows that they are attached to
        let (attached, own): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|group| group.record.table == Table::Attached);
        for mut group in own.into_iter().chain(attached) {
            match self.hidden_of(&group, hiding) {
                Ok(hidden) => group.hidden = hidden,
                // rows whose steps cannot be read are shown: nothing is hidden that nobody asked to hide
                Err(error) => self.problems.push(error),
            }
            let to = if group.hidden.rows == Mask::All { &mut self.hidden } else { &mut self.groups };
            to.push(group);
        }
        self.groups.sort_by_key(|group| (group.record.first, group.origin.writer()));
    }

    /// The same view, read in another way.
    pub fn with_access(mut self, access: Access) -> Self {
        self.blobs.access = access;
        self
    }

    /// The description.
    pub fn run(&self) -> &RunFile {
        &self.run
    }

    /// What was found damaged and passed over.
    pub fn problems(&self) -> &[Error] {
        &self.problems
    }

    /// Every row group that counts, of all tables, those that are hidden wholly included.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &StoredGroup> {
        self.groups.iter().chain(&self.hidden).chain(&self.examples)
    }

    /// Bytes of groups that count no longer, by segment.
    pub(crate) fn dead(&self) -> &HashMap<String, u64> {
        &self.dead
    }

    /// The row groups of all tables that show something.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &StoredGroup> {
        self.groups.iter().chain(&self.examples)
    }

    /// The row groups of the rows, in order, and those of them that are hidden wholly.
    pub(crate) fn of_rows(&self) -> (&[StoredGroup], &[StoredGroup]) {
        (&self.groups, &self.hidden)
    }

    /// What is known of the indexes of sparse codes.
    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// Where the run lies, and how it is read.
    pub(crate) fn storage(&self) -> (&dyn Storage, Access) {
        (self.storage.as_ref(), self.blobs.access)
    }

    /// Whether nothing will be written to a segment any more.
    pub(crate) fn is_sealed(&self, file: &str) -> bool {
        let alive = |owner: u32| self.writers.iter().any(|writer| writer.ordinal == owner && writer.alive);
        self.sealed.contains(file) || !names::owner(file).is_some_and(alive)
    }

    /// The declarations.
    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Every log.
    pub fn writers(&self) -> &[WriterInfo] {
        &self.writers
    }

    /// Every declared site, in order of declaration.
    pub fn sites(&self) -> Vec<SiteInfo> {
        let mut infos: HashMap<u32, SiteInfo> = HashMap::new();
        for group in &self.groups {
            for block in group.record.blocks.iter().filter(|block| block.role == Role::Site) {
                let Some(site) = self.declared.sites.get(&block.id) else { continue };
                let shown = match group.hidden.of_site(block.id) {
                    Mask::None => group.record.rows,
                    Mask::Some(mask) => mask.iter().filter(|&&byte| byte == 0).count() as u64,
                    Mask::All => continue,
                };
                let info = infos.entry(block.id).or_insert_with(|| SiteInfo {
                    site: site.clone(),
                    rows: 0,
                    bytes: 0,
                    non_finite: 0,
                });
                info.rows += shown;
                info.bytes += match block.active {
                    Some(active) => active * site.unit_bytes() + 4 * group.record.rows,
                    None => shown * site.row_bytes(),
                };
                info.non_finite += block.non_finite;
            }
        }
        let empty = |site: &Site| SiteInfo { site: site.clone(), rows: 0, bytes: 0, non_finite: 0 };
        self.declared.sites.values().map(|site| infos.remove(&site.id).unwrap_or_else(|| empty(site))).collect()
    }

    /// Every declared column of a table, in order of declaration.
    pub fn columns(&self, table: Table) -> impl Iterator<Item = &Column> {
        self.declared.columns.values().filter(move |column| column.table == table)
    }

    /// All metric values, in order of writing.
    pub fn metrics(&self) -> &MetricColumns {
        &self.metrics
    }

    /// All notes, in the order in which they came.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Bytes of metadata blocks and of site blocks read so far.
    pub fn bytes_read(&self) -> (u64, u64) {
        self.blobs.bytes_read()
    }

    /// Bytes of chunks read so far.
    pub fn chunk_bytes_read(&self) -> u64 {
        self.blobs.chunk_bytes_read()
    }
}

fn may_be_torn(error: &Error) -> bool {
    // a description that is missing or no longer parses may be damage: the first commit has a copy
    error.kind == ErrorKind::Storage || error.message.starts_with("not the description")
}

fn locate(error: Error) -> Error {
    if error.file.is_some() || error.message.contains("nothing at") { error } else { error.in_file("run.json") }
}

fn notes(chain: &Chain) -> Vec<Note> {
    let ops = chain.commits.iter().flat_map(|(commit, _)| &commit.ops);
    ops.filter_map(|op| if let Op::Note(note) = op { Some(note.clone()) } else { None }).collect()
}

fn copied_description(chain: &Chain) -> Option<RunFile> {
    let ops = chain.commits.iter().flat_map(|(commit, _)| &commit.ops);
    let mut copies = ops.filter_map(|op| match op {
        Op::Create(create) => RunFile::decode(create.run_json.as_bytes()).ok(),
        _ => None,
    });
    copies.next()
}
