//! The operations that commits and frames are made of. `docs/format.md` has a table of every field.
//!
//! An operation is a CBOR array of its number and its body; a body is a map with integer keys. Unknown keys
//! are skipped; an unknown operation can only follow a `needs` flag, which older readers refuse by name.

use crate::checksum::PIECE;
use crate::chunk::Key;
use crate::dtype::{ColumnType, DType};
use crate::value::Value;
use minicbor::bytes::{ByteArray, ByteVec};
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
    /// What it does, if it does not record: "compact".
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

/// Body of [`Op::Site`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Site {
    /// Number in this run.
    #[n(0)]
    pub id: u32,
    /// Name.
    #[n(1)]
    pub name: String,
    /// Element type.
    #[n(2)]
    pub dtype: DType,
    /// Shape of one row's item; empty for a scalar. Of sparse codes: the number of features alone.
    #[n(3)]
    pub shape: Vec<u64>,
    /// Whether its rows are sparse codes; absent stands for no.
    #[n(4)]
    pub sparse: Option<bool>,
}

impl Site {
    /// Elements a row; the greatest number there is stands for more.
    pub fn width(&self) -> u64 {
        self.shape.iter().fold(1, |width: u64, &length| width.saturating_mul(length))
    }

    /// Bytes a row of a dense site, likewise.
    pub fn row_bytes(&self) -> u64 {
        self.width().saturating_mul(self.dtype.size())
    }

    /// Whether its rows are sparse codes.
    pub fn is_sparse(&self) -> bool {
        self.sparse == Some(true)
    }

    /// The type in which feature ids of its codes are stored.
    pub fn id_dtype(&self) -> DType {
        if self.width() <= 1 << 16 { DType::U16 } else { DType::U32 }
    }

    /// Bytes that an active unit of its codes takes.
    pub fn unit_bytes(&self) -> u64 {
        self.id_dtype().size() + self.dtype.size()
    }

    /// What its rows are, in words.
    pub fn described(&self) -> String {
        match self.is_sparse() {
            true => format!("sparse {} codes of {} features", self.dtype.name(), self.width()),
            false => format!("{} {:?}", self.dtype.name(), self.shape),
        }
    }
}

/// Which table a column or group belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Table {
    /// The rows that sites are recorded at.
    #[n(0)]
    Rows,
    /// What is known of the examples.
    #[n(1)]
    Examples,
    /// Further sites of rows that other groups made: names and sites, no columns.
    #[n(2)]
    Attached,
}

/// Body of [`Op::Column`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Column {
    /// Number in this run.
    #[n(0)]
    pub id: u32,
    /// Name.
    #[n(1)]
    pub name: String,
    /// Type.
    #[n(2)]
    pub kind: ColumnType,
    /// The table it stands in.
    #[n(3)]
    pub table: Table,
}

/// Body of [`Op::Group`]: rows that lie together in a segment.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Group {
    /// The segment.
    #[n(0)]
    pub file: String,
    /// The group's number in the segment: the `g000012` of its tensors.
    #[n(1)]
    pub number: u32,
    /// Which table.
    #[n(2)]
    pub table: Table,
    /// First byte in the file; a multiple of 4096.
    #[n(3)]
    pub offset: u64,
    /// Bytes, padding to the next multiple of 4096 included.
    #[n(4)]
    pub length: u64,
    /// Least name of a row. The others follow without a gap unless there is a block of names.
    #[n(5)]
    pub first: i64,
    /// Number of rows.
    #[n(6)]
    pub rows: u64,
    /// Blocks in order of offset.
    #[n(7)]
    pub blocks: Vec<Block>,
    /// Columns with one value over the whole group, which have no block.
    #[n(8)]
    pub constants: Vec<Constant>,
    /// What lies in each column that has a block.
    #[n(9)]
    pub zones: Vec<Zone>,
    /// Greatest name of a row, if there is a block of names.
    #[n(10)]
    pub last: Option<i64>,
}

impl Group {
    /// Least and greatest name of its rows.
    pub fn span(&self) -> (i64, i64) {
        (self.first, self.last.unwrap_or(self.first.saturating_add(self.rows as i64 - 1)))
    }

    /// The sites that it holds.
    pub fn sites(&self) -> impl Iterator<Item = u32> {
        self.blocks.iter().filter_map(Block::site)
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Rows of a site; of sparse codes the values of the active units.
    #[n(0)]
    Site,
    /// Values of an int (i64), float (f64) or bool (u8) column.
    #[n(1)]
    Values,
    /// One byte a row: 1 where the column has a value. Absent where there are no nulls.
    #[n(2)]
    Valid,
    /// u32 offsets of a str column, rows + 1 of them.
    #[n(3)]
    Offsets,
    /// UTF-8 of a str column.
    #[n(4)]
    Bytes,
    /// Names of the rows, i64 each.
    #[n(5)]
    Names,
    /// Of sparse codes: u32 each, rows + 1 of them; row i has the active units from the i-th to before the next.
    #[n(6)]
    Indptr,
    /// Of sparse codes: the feature of each active unit, ascending in a row; u16 up to 65,536 features, else u32.
    #[n(7)]
    Ids,
}

impl Role {
    /// Whether a block of it is a site's.
    pub fn is_site(self) -> bool {
        matches!(self, Self::Site | Self::Indptr | Self::Ids)
    }
}

/// A contiguous array in a group.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Block {
    /// What it holds.
    #[n(0)]
    pub role: Role,
    /// The site or column.
    #[n(1)]
    pub id: u32,
    /// First byte in the file.
    #[n(2)]
    pub offset: u64,
    /// Bytes.
    #[n(3)]
    pub length: u64,
    /// CRC32C of every 128 KiB piece, u32 little-endian.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub crcs: Vec<u8>,
    /// NaN and infinite elements (sites only).
    #[n(5)]
    pub non_finite: u64,
    /// Of coded rows of a site: bytes of each piece in the file, u32 little-endian. Pieces are 128 KiB of rows, coded as byte
    /// planes, and the checksums are those of what lies in the file.
    #[n(6)]
    pub pieces: Option<ByteVec>,
    /// Of ids and values of sparse codes: how many units are active.
    #[n(7)]
    pub active: Option<u64>,
}

impl Block {
    /// The site whose rows, or whose values, it holds.
    pub fn site(&self) -> Option<u32> {
        (self.role == Role::Site).then_some(self.id)
    }

    /// Bytes of each coded piece in the file; None if the rows lie there as they are.
    pub fn coded(&self) -> Option<impl Iterator<Item = u64>> {
        let lengths = self.pieces.as_ref()?.as_chunks().0.iter();
        Some(lengths.map(|&length| u64::from(u32::from_le_bytes(length))))
    }

    /// Where each piece that has a checksum begins in it, and how long it is.
    pub fn spans(&self) -> Vec<(u64, u64)> {
        let Some(lengths) = self.coded() else {
            let piece = |start: u64| (start, (self.length - start).min(PIECE as u64));
            return (0..self.length).step_by(PIECE).map(piece).collect();
        };
        let place = |start: &mut u64, length: u64| {
            *start += length;
            Some((*start - length, length))
        };
        lengths.scan(0, place).collect()
    }

    /// The column that it is a part of.
    pub fn column(&self) -> Option<u32> {
        (!self.role.is_site() && self.role != Role::Names).then_some(self.id)
    }
}

/// A column with one value over a group.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Constant {
    /// The column.
    #[n(0)]
    pub id: u32,
    /// The value.
    #[n(1)]
    pub value: Value,
}

/// What lies in a column of a group: a reader may skip the group, never more.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Zone {
    /// The column.
    #[n(0)]
    pub id: u32,
    /// Least value (NaN left out), or null if there is none. Texts are cut to at most 32 bytes.
    #[n(1)]
    pub min: Value,
    /// Greatest value, likewise. A cut text is rounded up; null if it cannot be.
    #[n(2)]
    pub max: Value,
    /// Rows without a value.
    #[n(3)]
    pub nulls: u64,
    /// Rows whose value is NaN.
    #[n(4)]
    pub nans: u64,
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

/// Body of [`Op::Seal`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Seal {
    /// The segment.
    #[n(0)]
    pub file: String,
    /// Its exact length.
    #[n(1)]
    pub length: u64,
    /// BLAKE3 of its `.table`.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub root: [u8; 32],
}

/// How a chunk is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Codec {
    /// As it is.
    #[n(0)]
    Raw,
    /// Byte planes of its elements.
    #[n(1)]
    Planes,
    /// Byte planes of the elements' differences from those of another chunk.
    #[n(2)]
    Delta,
}

/// Body of [`Op::Chunks`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Chunks {
    /// The pack.
    #[n(0)]
    pub pack: String,
    /// The chunks in order of offset.
    #[n(1)]
    pub chunks: Vec<Chunk>,
}

/// Where a chunk lies.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Chunk {
    /// What it holds.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Key,
    /// First byte in the pack.
    #[n(1)]
    pub offset: u64,
    /// Bytes in the pack.
    #[n(2)]
    pub stored: u64,
    /// Bytes when decoded.
    #[n(3)]
    pub raw: u64,
    /// How it is coded.
    #[n(4)]
    pub codec: Codec,
    /// CRC32C of every 128 KiB block as it lies in the pack, u32 little-endian.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub crcs: Vec<u8>,
    /// Of a coded chunk: bytes of every 128 KiB block in the pack, u32 little-endian.
    #[n(6)]
    pub lengths: Option<ByteVec>,
    /// Of a delta: the chunk that it is the difference from, of the same type and length.
    #[n(7)]
    pub base: Option<ByteArray<32>>,
}

/// Body of [`Op::Layout`]. Its key is BLAKE3 of `content`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Layout {
    /// CBOR of a [`LayoutContent`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub content: Vec<u8>,
}

/// What is alike in every save of a part.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct LayoutContent {
    /// JSON of the nested state, with numbers in place of tensors and scalars.
    #[n(0)]
    pub tree: String,
    /// The tensors in order; each has chunks of its own.
    #[n(1)]
    pub tensors: Vec<TensorSpec>,
    /// Of a part that several processes saved: the state's tensors, which lie in pieces that `tensors` holds.
    #[n(2)]
    pub wholes: Option<Vec<Whole>>,
}

/// A tensor that lies in pieces.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Whole {
    /// What it is, put together.
    #[n(0)]
    pub spec: TensorSpec,
    /// Boxes that fill it.
    #[n(1)]
    pub pieces: Vec<Piece>,
}

/// A box of a tensor.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Piece {
    /// Index of the tensor that holds it.
    #[n(0)]
    pub tensor: u32,
    /// Where it begins in each dimension.
    #[n(1)]
    pub offsets: Vec<u64>,
}

/// A tensor of a part.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct TensorSpec {
    /// Dotted name.
    #[n(0)]
    pub name: String,
    /// Element type.
    #[n(1)]
    pub dtype: DType,
    /// Shape.
    #[n(2)]
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Bytes of the whole tensor, or None if that overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, &n| bytes.checked_mul(n))
    }
}

/// Body of [`Op::Save`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Save {
    /// The step whose state it is.
    #[n(0)]
    pub step: i64,
    /// Microseconds since the epoch.
    #[n(1)]
    pub time: i64,
    /// The named parts.
    #[n(2)]
    pub parts: Vec<Part>,
}

/// A part of a save.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Part {
    /// Name.
    #[n(0)]
    pub name: String,
    /// Key of the layout.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub layout: Key,
    /// Keys of all chunks, tensor after tensor, 32 bytes each.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub keys: Vec<u8>,
    /// JSON of the scalars.
    #[n(3)]
    pub scalars: String,
}

/// A place in every log: what its frames below `frames` say came before.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Position {
    /// The log's writer.
    #[n(0)]
    pub writer: u32,
    /// Sequence number of the first frame behind the place.
    #[n(1)]
    pub frames: u64,
}

/// Body of [`Op::Rewind`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Rewind {
    /// Rows and metrics of this step and later ones are hidden, and checkpoints of later ones.
    #[n(0)]
    pub step: i64,
    /// What came after this is not; a log that is not named came after.
    #[n(1)]
    pub before: Vec<Position>,
}

/// Numbers from the first to the last, both included.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Span {
    /// The least.
    #[n(0)]
    pub first: i64,
    /// The greatest.
    #[n(1)]
    pub last: i64,
}

impl Span {
    /// Whether it holds the number.
    pub fn holds(&self, number: i64) -> bool {
        self.first <= number && number <= self.last
    }
}

/// Body of [`Op::Delete`]: rows that satisfy all of what is given.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Delete {
    /// Sites whose values are hidden; none stands for all.
    #[n(0)]
    pub sites: Vec<u32>,
    /// Steps; none stands for all.
    #[n(1)]
    pub steps: Vec<Span>,
    /// Row names; none stands for all.
    #[n(2)]
    pub rows: Vec<Span>,
    /// As in [`Rewind::before`].
    #[n(3)]
    pub before: Vec<Position>,
}

/// Body of [`Op::Discard`]: parts of checkpoints.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Discard {
    /// Names of parts.
    #[n(0)]
    pub parts: Vec<String>,
    /// Steps whose saves lose these parts.
    #[n(1)]
    pub steps: Vec<Span>,
    /// As in [`Rewind::before`].
    #[n(2)]
    pub before: Vec<Position>,
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

/// Body of [`Op::Replace`]: groups of one writer, and the groups that hold their rows from now on.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Replace {
    /// The writer whose rows they are.
    #[n(0)]
    pub writer: u32,
    /// The groups that no longer count.
    #[n(1)]
    pub old: Vec<Replaced>,
    /// Those that do.
    #[n(2)]
    pub new: Vec<Group>,
    /// In a log, where it is a copy: the commit that it is a copy of.
    #[n(3)]
    pub commit: Option<u64>,
}

/// Groups of one segment.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Replaced {
    /// The segment.
    #[n(0)]
    pub file: String,
    /// Their numbers, u32 little-endian.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub numbers: Vec<u8>,
}

impl Replaced {
    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.numbers.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes))
    }
}

/// Body of [`Op::Condemn`] and [`Op::Drop`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Files {
    /// Their names.
    #[n(0)]
    pub files: Vec<String>,
}
