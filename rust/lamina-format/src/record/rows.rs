//! What operations say of rows: sites, columns, the groups that rows lie in, segments.

use crate::checksum::PIECE;
use crate::dtype::{ColumnType, DType};
use crate::value::Value;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Body of [`Op::Site`](super::Op::Site).
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

/// Body of [`Op::Column`](super::Op::Column).
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

/// Body of [`Op::Group`](super::Op::Group): rows that lie together in a segment.
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

/// Body of [`Op::Seal`](super::Op::Seal).
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

/// Body of [`Op::Replace`](super::Op::Replace): groups of one writer, and the groups that hold their rows from now on.
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
