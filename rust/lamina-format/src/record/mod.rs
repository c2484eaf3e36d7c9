//! The operations that commits and frames are made of. `docs/format.md` has a table of every field.
//!
//! An operation is a CBOR array of its number and its body; a body is a map with integer keys. Unknown keys
//! are skipped; an unknown operation can only follow a `needs` flag, which older readers refuse by name.

mod checkpoints;
mod hiding;
mod rows;

pub use checkpoints::{ATTACHED, Chunk, Chunks, Codec, Layout, LayoutContent, Part, Piece, Save, TensorSpec, Whole};
pub use hiding::{Delete, Discard, Position, Rewind, Span};
pub use rows::{Block, Column, Constant, Group, Replace, Replaced, Role, Seal, Site, Table, Zone};

use minicbor::{Decode, Encode};

/// One operation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(flat)]
pub enum Op {
    /// The run was created; commit 0 keeps a copy of `run.json`.
    #[n(0)]
    Create(#[n(0)] Create),
    /// A writer opened its log.
    #[n(1)]
    Open(#[n(0)] Open),
    /// A writer closed its log.
    #[n(2)]
    Close(#[n(0)] Close),
    /// A site.
    #[n(3)]
    Site(#[n(0)] Site),
    /// A metadata column.
    #[n(4)]
    Column(#[n(0)] Column),
    /// A row group in a segment.
    #[n(5)]
    Group(#[n(0)] Group),
    /// Metric values.
    #[n(6)]
    Metrics(#[n(0)] Metrics),
    /// A segment became a safetensors file.
    #[n(7)]
    Seal(#[n(0)] Seal),
    /// Chunks in a pack.
    #[n(8)]
    Chunks(#[n(0)] Chunks),
    /// The shape of a saved state.
    #[n(9)]
    Layout(#[n(0)] Layout),
    /// A checkpoint.
    #[n(10)]
    Save(#[n(0)] Save),
    /// What was recorded from a step on is hidden.
    #[n(11)]
    Rewind(#[n(0)] Rewind),
    /// Rows, or what they hold of some sites, are hidden and may be reclaimed.
    #[n(12)]
    Delete(#[n(0)] Delete),
    /// Row groups were rewritten.
    #[n(13)]
    Replace(#[n(0)] Replace),
    /// Files that nothing refers to any more will be removed.
    #[n(14)]
    Condemn(#[n(0)] Files),
    /// Condemned files are removed.
    #[n(15)]
    Drop(#[n(0)] Files),
    /// Rows that a writer left out.
    #[n(16)]
    Dropped(#[n(0)] Dropped),
    /// Checkpoints are hidden and may be reclaimed.
    #[n(17)]
    Discard(#[n(0)] Discard),
    /// What somebody says of the run.
    #[n(18)]
    Note(#[n(0)] Note),
}

/// Body of [`Op::Create`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Create {
    /// The whole of `run.json`.
    #[n(0)]
    pub run_json: String,
}

/// Body of [`Op::Open`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Open {
    /// Host name.
    #[n(0)]
    pub host: String,
    /// Process id.
    #[n(1)]
    pub pid: u32,
    /// Rank in a distributed job.
    #[n(2)]
    pub rank: Option<i64>,
    /// Microseconds since the epoch.
    #[n(3)]
    pub time: i64,
    /// 16 random bytes, in hexadecimal, that tell this process from every other.
    #[n(4)]
    pub uuid: String,
    /// What it does, if it does not record: "compact", "attach".
    #[n(5)]
    pub work: Option<String>,
}

/// Body of [`Op::Close`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Close {
    /// Why the writer ended, if not as planned.
    #[n(0)]
    pub error: Option<String>,
    /// Microseconds since the epoch.
    #[n(1)]
    pub time: i64,
}

/// Body of [`Op::Metrics`]: arrays of one length, little-endian, with a dictionary of their own.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Metrics {
    /// i64 each.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub steps: Vec<u8>,
    /// i64 each: microseconds since the epoch.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub times: Vec<u8>,
    /// f64 each.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub values: Vec<u8>,
    /// The words that follow.
    #[n(3)]
    pub words: Vec<String>,
    /// u32 each: index of the metric's name in `words`.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub names: Vec<u8>,
    /// u32 each: index of the site, or 2^32 - 1 for none.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub sites: Vec<u8>,
    /// u32 each: index of the source, or 2^32 - 1 for none.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub sources: Vec<u8>,
}

/// Body of [`Op::Dropped`]: what a writer left out since its last such record, because its queue was full.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Dropped {
    /// Rows.
    #[n(0)]
    pub rows: u64,
    /// The rows that each site would have had, by site.
    #[n(1)]
    pub sites: Vec<DroppedSite>,
}

/// What a site lost.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct DroppedSite {
    /// The site.
    #[n(0)]
    pub id: u32,
    /// Rows.
    #[n(1)]
    pub rows: u64,
}

impl Dropped {
    /// Adds what one append, or another record, lost.
    pub fn add(&mut self, rows: u64, sites: impl IntoIterator<Item = (u32, u64)>) {
        self.rows = self.rows.saturating_add(rows);
        for (id, rows) in sites {
            match self.sites.iter_mut().find(|site| site.id == id) {
                Some(site) => site.rows = site.rows.saturating_add(rows),
                None => self.sites.push(DroppedSite { id, rows }),
            }
        }
    }
}

/// Body of [`Op::Note`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    /// What is said.
    #[n(0)]
    pub text: String,
    /// When: microseconds since the epoch.
    #[n(1)]
    pub time: i64,
    /// Of which step, if of one.
    #[n(2)]
    pub step: Option<i64>,
}

/// Body of [`Op::Condemn`] and [`Op::Drop`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Files {
    /// Their names.
    #[n(0)]
    pub files: Vec<String>,
}
