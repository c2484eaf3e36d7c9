//! The table of a part: an entry a feature.

use super::Part;
use crate::error::{Error, Result};

/// Bytes of an entry of a table.
pub const ENTRY: usize = 52;

/// What an index holds of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Which.
    pub feature: u32,
    /// In how many rows it is active.
    pub units: u32,
    /// Where its list begins in the file.
    pub list: u64,
    /// CRC32C of the list.
    pub crc: u32,
    /// Where its histogram ends among those of the part.
    pub bins: u32,
    /// Sum of its values.
    pub sum: f64,
    /// Bits of the greatest; those of a NaN if there is one.
    pub greatest: u32,
    /// Least step of its rows; greater than the greatest if none has one.
    pub first_step: i64,
    /// Greatest step.
    pub last_step: i64,
}

impl Entry {
    /// As it is stored.
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            now.copy_from_slice(bytes);
            rest = later;
        };
        put(&self.list.to_le_bytes());
        put(&self.sum.to_le_bytes());
        put(&self.first_step.to_le_bytes());
        put(&self.last_step.to_le_bytes());
        [self.feature, self.units, self.crc, self.bins, self.greatest].iter().for_each(|n| put(&n.to_le_bytes()));
        out
    }

    fn decode(bytes: &[u8; ENTRY]) -> Self {
        let long = |at: usize| bytes[at..].first_chunk().copied().unwrap_or_default();
        let number = |at: usize| u32::from_le_bytes(bytes[at..].first_chunk().copied().unwrap_or_default());
        Self {
            list: u64::from_le_bytes(long(0)),
            sum: f64::from_le_bytes(long(8)),
            first_step: i64::from_le_bytes(long(16)),
            last_step: i64::from_le_bytes(long(24)),
            feature: number(32),
            units: number(36),
            crc: number(40),
            bins: number(44),
            greatest: number(48),
        }
    }
}

/// The table of a part.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    entries: &'a [[u8; ENTRY]],
    part: &'a Part,
}

impl<'a> Table<'a> {
    /// One that passed [`Table::check`] before.
    pub fn new(bytes: &'a [u8], part: &'a Part) -> Self {
        Self { entries: bytes.as_chunks().0, part }
    }

    /// A table. What passes has features that ascend and lists and histograms that lie in the part, one behind the other.
    pub fn check(bytes: &'a [u8], part: &'a Part, rows: u32) -> Result<Self> {
        let wrong = |what: &str| Err(Error::damaged(format!("a table of the index {what}")));
        if crc32c::crc32c(bytes) != part.table_crc || bytes.len() as u64 != part.table_length() {
            return wrong("does not match its checksum");
        }
        let table = Self::new(bytes, part);
        let (mut list, mut bins, mut before) = (part.lists, 0, None);
        for at in 0..table.len() {
            let entry = table.entry(at);
            let ascends = before.is_none_or(|before| before < entry.feature);
            if !ascends || entry.feature < part.first || entry.feature > part.last {
                return wrong("has features that do not ascend");
            }
            if entry.list < list || entry.list > part.table || at == 0 && entry.list != list {
                return wrong("has lists that do not lie in their part");
            }
            if entry.bins < bins || entry.bins > part.bins || entry.units == 0 || entry.units > rows {
                return wrong("has entries that cannot be");
            }
            (list, bins, before) = (entry.list, entry.bins, Some(entry.feature));
        }
        if bins == part.bins { Ok(table) } else { wrong("leaves histograms out") }
    }

    /// How many features.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry.
    pub fn entry(&self, at: usize) -> Entry {
        Entry::decode(&self.entries[at])
    }

    /// Where the entry of a feature stands.
    pub fn find(&self, feature: u32) -> Option<usize> {
        let of = |entry: &[u8; ENTRY]| u32::from_le_bytes(entry[32..].first_chunk().copied().unwrap_or_default());
        self.entries.binary_search_by_key(&feature, of).ok()
    }

    /// Where the list of an entry ends in the file.
    pub fn list_end(&self, at: usize) -> u64 {
        self.entries.get(at + 1).map_or(self.part.table, |next| Entry::decode(next).list)
    }

    /// Where the histogram of an entry begins among those of the part.
    pub fn bins_start(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.entry(before).bins)
    }
}
