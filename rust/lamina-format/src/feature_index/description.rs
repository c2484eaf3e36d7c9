//! What stands at the end of an index: what it is of, and where its parts lie.

use super::{ENTRY, MAGIC};
use crate::cbor;
use crate::checksum::hash;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::record::{Group, Role, Site};
use minicbor::{Decode, Encode};

/// Bytes at the end: the length of the description (u32), and the hash of both.
pub const TAIL: usize = 4 + 32;
/// Bytes that a description may have.
pub const LONGEST: usize = 16 << 20;

/// What an index is of, and where its parts lie.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Description {
    /// The site.
    #[n(0)]
    pub site: u32,
    /// Type of the values.
    #[n(1)]
    pub dtype: DType,
    /// How many features there are.
    #[n(2)]
    pub width: u64,
    /// The groups of the segment that hold the site, in order of their numbers; rows are counted through them.
    #[n(3)]
    pub groups: Vec<Indexed>,
    /// The parts, in order of their features.
    #[n(4)]
    pub parts: Vec<Part>,
    /// Whether the steps of all rows were known.
    #[n(5)]
    pub steps: bool,
}

/// A group of an index.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Indexed {
    /// Its number in the segment.
    #[n(0)]
    pub number: u32,
    /// Its rows.
    #[n(1)]
    pub rows: u32,
    /// Its active units.
    #[n(2)]
    pub units: u32,
    /// CRC32C of the checksums of its blocks of the site: row pointers, ids, values.
    #[n(3)]
    pub crc: u32,
}

impl Indexed {
    /// What an index says of a group, if the group holds codes of the site.
    pub fn of(group: &Group, site: &Site) -> Option<Self> {
        let part = |role| group.blocks.iter().find(|block| block.role == role && block.id == site.id);
        let blocks = [part(Role::Indptr)?, part(Role::Ids)?, part(Role::Site)?];
        let crc = blocks.iter().fold(0, |crc, block| crc32c::crc32c_append(crc, &block.crcs));
        let units = u32::try_from(blocks[1].active?).ok()?;
        Some(Self { number: group.number, rows: u32::try_from(group.rows).ok()?, units, crc })
    }
}

/// Some consecutive features of an index.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Part {
    /// The least feature.
    #[n(0)]
    pub first: u32,
    /// The greatest.
    #[n(1)]
    pub last: u32,
    /// How many of them have units.
    #[n(2)]
    pub features: u32,
    /// Where the posting lists begin, which lie one behind the other.
    #[n(3)]
    pub lists: u64,
    /// Where the table begins.
    #[n(4)]
    pub table: u64,
    /// CRC32C of the table.
    #[n(5)]
    pub table_crc: u32,
    /// Bytes of the histograms, which lie behind the table.
    #[n(6)]
    pub bins: u32,
    /// Their CRC32C.
    #[n(7)]
    pub bins_crc: u32,
}

impl Part {
    /// Bytes of the table.
    pub fn table_length(&self) -> u64 {
        self.features as u64 * ENTRY as u64
    }

    fn end(&self) -> Option<u64> {
        self.table.checked_add(self.table_length())?.checked_add(self.bins.into())
    }
}

impl Description {
    /// The end of a file whose parts end at `end`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = cbor::encode(self);
        bytes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        let hash = hash(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// How many bytes stand before the last [`TAIL`] of a file that describe it.
    pub fn length(tail: &[u8; TAIL], file: u64) -> Result<usize> {
        let length = tail.first_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
        let room = file.checked_sub((MAGIC.len() + TAIL) as u64);
        match room {
            Some(room) if length <= LONGEST && length as u64 <= room => Ok(length),
            _ => Err(Error::damaged("the index does not end as one does")),
        }
    }

    /// What the end of a file of so many bytes says: the description and the tail. What passes has parts that lie in the
    /// file and whose features ascend.
    pub fn decode(bytes: &[u8], file: u64) -> Result<Self> {
        let wrong = |what: &str| Error::damaged(format!("the description of the index {what}"));
        let (content, tail) =
            bytes.split_at_checked(bytes.len().wrapping_sub(32)).ok_or_else(|| wrong("is cut short"))?;
        let body = content.split_at_checked(content.len().wrapping_sub(4)).ok_or_else(|| wrong("is cut short"))?.0;
        if hash(content) != tail {
            return Err(wrong("does not match its hash"));
        }
        let found: Self = cbor::decode(body, "the description of the index").map_err(|error| wrong(&error.message))?;
        if !found.dtype.is_for_codes() || found.width == 0 || found.width > crate::segment::WIDEST {
            return Err(wrong("is of no sparse codes"));
        }
        if found.groups.is_sorted_by(|a, b| a.number < b.number) && found.rows().is_some() {
            let (mut end, mut feature) = (MAGIC.len() as u64, None);
            let limit = file.saturating_sub(bytes.len() as u64);
            for part in &found.parts {
                let follows = part.lists == end && part.table >= part.lists;
                let spans = feature.is_none_or(|last| last < part.first)
                    && part.first <= part.last
                    && part.features > 0
                    && u64::from(part.last) < found.width
                    && part.features - 1 <= part.last - part.first;
                match part.end() {
                    Some(stop) if follows && spans && stop <= limit => end = stop,
                    _ => return Err(wrong("has a part that does not lie in the file")),
                }
                feature = Some(part.last);
            }
            return if end == limit { Ok(found) } else { Err(wrong("leaves bytes of the file out")) };
        }
        Err(wrong("has groups that cannot be"))
    }

    /// Rows of all groups; None if there are more than an index can count.
    pub fn rows(&self) -> Option<u32> {
        self.groups.iter().try_fold(0u32, |rows, group| rows.checked_add(group.rows)).filter(|&rows| rows < u32::MAX)
    }

    /// The part that a feature would stand in.
    pub fn part_of(&self, feature: u32) -> Option<usize> {
        let at = self.parts.partition_point(|part| part.last < feature);
        (self.parts.get(at)?.first <= feature).then_some(at)
    }
}
