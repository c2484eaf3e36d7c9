//! The index of a segment's sparse codes by feature: how its file is laid out, and what must hold of it.
//!
//! Behind the magic lie parts, each of some consecutive features: their posting lists, a table with an entry a feature, and
//! their histograms. Behind the last part stands what the file is, with its hash. Each list, table and run of histograms has a
//! checksum of its own, so that it is checked when it is touched.

use crate::checksum::hash;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Group, Role, Site};
use crate::{cbor, posting};
use minicbor::{Decode, Encode};

/// The first bytes of the file; the last of them is the version.
pub const MAGIC: [u8; 8] = *b"LAMFEAT1";
/// Bytes at the end: the length of the description (u32), and the hash of both.
pub const TAIL: usize = 4 + 32;
/// Bytes that a description may have.
pub const LONGEST: usize = 16 << 20;
/// Bytes of an entry of a table.
pub const ENTRY: usize = 52;

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

/// Whether the first bytes are those of an index that this version reads.
pub fn check_magic(first: &[u8]) -> Result<()> {
    if first == MAGIC {
        return Ok(());
    }
    if first.len() == MAGIC.len() && first[..7] == MAGIC[..7] {
        let error = Error::new(ErrorKind::Format, "an index of a newer version");
        return Err(error.hint("update Lamina, or build the index again"));
    }
    Err(Error::damaged("no index of sparse codes"))
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

/// Lists, table and histograms of consecutive features while they are put together.
#[derive(Default)]
pub struct PartWriter {
    lists: Vec<u8>,
    entries: Vec<Entry>,
    bins: Vec<u8>,
}

/// What a part holds of a feature, beside its units and bins.
#[derive(Clone, Copy)]
pub struct Sums {
    /// Sum of the values.
    pub sum: f64,
    /// Bits of the greatest.
    pub greatest: u32,
    /// Least step, and greatest.
    pub steps: (i64, i64),
}

impl PartWriter {
    /// Adds a feature, greater than those before: its units and the bins of their values.
    pub fn push(
        &mut self,
        feature: u32,
        units: &[u64],
        dtype: DType,
        sums: Sums,
        bins: &mut crate::histogram::Counter,
    ) {
        let start = self.lists.len();
        posting::write(units, dtype, &mut self.lists);
        crate::histogram::write(bins, &mut self.bins);
        self.entries.push(Entry {
            feature,
            units: units.len() as u32,
            list: start as u64,
            crc: crc32c::crc32c(&self.lists[start..]),
            bins: self.bins.len() as u32,
            sum: sums.sum,
            greatest: sums.greatest,
            first_step: sums.steps.0,
            last_step: sums.steps.1,
        });
    }

    /// Its bytes, to stand at `offset`, and what describes it; None if no feature was added.
    pub fn finish(self, offset: u64) -> Option<(Part, [Vec<u8>; 3])> {
        let (first, last) = (self.entries.first()?.feature, self.entries.last()?.feature);
        let placed = |entry: &Entry| Entry { list: entry.list + offset, ..*entry }.encode();
        let table: Vec<u8> = self.entries.iter().flat_map(placed).collect();
        let part = Part {
            first,
            last,
            features: self.entries.len() as u32,
            lists: offset,
            table: offset + self.lists.len() as u64,
            table_crc: crc32c::crc32c(&table),
            bins: self.bins.len() as u32,
            bins_crc: crc32c::crc32c(&self.bins),
        };
        Some((part, [self.lists, table, self.bins]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{Counter, bin};
    use crate::posting::{Postings, unit};

    fn push(part: &mut PartWriter, feature: u32, units: &[u64]) {
        let mut counter = Counter::default();
        counter.add(DType::F16, units);
        part.push(feature, units, DType::F16, Sums { sum: 1.5, greatest: 7, steps: (2, 9) }, &mut counter);
    }

    /// A file with two parts.
    fn file() -> (Vec<u8>, Description) {
        let (mut bytes, mut parts) = (MAGIC.to_vec(), Vec::new());
        for (first, last) in [(3, 5), (9, 9)] {
            let mut writer = PartWriter::default();
            push(&mut writer, first, &[unit(0, 0x3c00), unit(5, 0x4000)]);
            if last > first {
                push(&mut writer, last, &[unit(4, 0x3c00)]);
            }
            let (part, sections) = writer.finish(bytes.len() as u64).expect("features");
            parts.push(part);
            sections.iter().for_each(|section| bytes.extend_from_slice(section));
        }
        let groups = vec![Indexed { number: 2, rows: 6, units: 5, crc: 1 }];
        let description = Description { site: 1, dtype: DType::F16, width: 10, groups, parts, steps: true };
        bytes.extend_from_slice(&description.encode());
        (bytes, description)
    }

    fn read(bytes: &[u8]) -> Result<Description> {
        let length = bytes.len() as u64;
        let (magic, _) = bytes.split_first_chunk::<8>().ok_or_else(|| Error::damaged("short"))?;
        check_magic(magic)?;
        let (_, tail) = bytes.split_last_chunk::<TAIL>().ok_or_else(|| Error::damaged("short"))?;
        let description = Description::length(tail, length)?;
        Description::decode(&bytes[bytes.len() - TAIL - description..], length)
    }

    fn section(bytes: &[u8], from: u64, length: u64) -> &[u8] {
        &bytes[from as usize..(from + length) as usize]
    }

    #[test]
    fn what_was_written_is_found() {
        let (bytes, written) = file();
        let found = read(&bytes).expect("honest");
        assert_eq!((&found, found.rows()), (&written, Some(6)));
        assert_eq!(
            [2, 3, 5, 6, 9, 10].map(|feature| found.part_of(feature)),
            [None, Some(0), Some(0), None, Some(1), None]
        );
        let part = &found.parts[0];
        let table = Table::check(section(&bytes, part.table, part.table_length()), part, 6).expect("honest");
        assert_eq!((table.len(), table.find(4), table.find(5)), (2, None, Some(1)));
        let entry = table.entry(0);
        let list = section(&bytes, entry.list, table.list_end(0) - entry.list);
        assert_eq!(crc32c::crc32c(list), entry.crc);
        let rows: Vec<u32> = Postings::parse(list, DType::F16, 2, 6)
            .expect("honest")
            .blocks()
            .flat_map(|block| block.rows(&mut [0; 128]).expect("honest").to_vec())
            .collect();
        assert_eq!((rows, entry.sum, entry.greatest, entry.first_step, entry.last_step), (vec![0, 5], 1.5, 7, 2, 9));
        let bins = section(&bytes, part.table + part.table_length(), part.bins.into());
        let of = |at: usize| &bins[table.bins_start(at) as usize..table.entry(at).bins as usize];
        let mut counted = Vec::new();
        crate::histogram::read(of(0), 2, |bin, count| counted.push((bin, count))).expect("honest");
        assert_eq!((counted, of(1).len()), (vec![(bin(1.0), 1), (bin(2.0), 1)], 3));
    }

    #[test]
    fn any_changed_byte_of_the_description_is_damage() {
        let (bytes, description) = file();
        let start = bytes.len() - description.encode().len();
        for at in (start..bytes.len()).chain(0..7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(read(&changed).expect_err("changed").kind, ErrorKind::Damaged, "byte {at}");
        }
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]).expect_err("cut").kind, ErrorKind::Damaged, "{length} bytes");
        }
        let mut newer = bytes.clone();
        newer[7] = b'2';
        assert_eq!(read(&newer).expect_err("newer").kind, ErrorKind::Format);
    }

    #[test]
    fn descriptions_that_lie_are_refused() {
        let lies: [fn(&mut Description); 14] = [
            |d| d.dtype = DType::F64,
            |d| d.width = 0,
            |d| d.width = 9,
            |d| d.width = u64::MAX,
            |d| d.groups.push(d.groups[0].clone()),
            |d| d.groups.push(Indexed { number: 3, rows: u32::MAX - 5, units: 0, crc: 0 }),
            |d| d.parts[0].last = 9,
            |d| d.parts[0].first = 6,
            |d| d.parts[0].features = 0,
            |d| d.parts[0].features = u32::MAX,
            |d| d.parts[1].lists += 1,
            |d| d.parts[1].table = u64::MAX,
            |d| d.parts[1].bins = u32::MAX,
            |d| d.parts.truncate(1),
        ];
        for (number, lie) in lies.iter().enumerate() {
            let (bytes, mut description) = file();
            let parts = bytes.len() - description.encode().len();
            lie(&mut description);
            let lying = [&bytes[..parts], &description.encode()].concat();
            assert_eq!(read(&lying).expect_err("a lie").kind, ErrorKind::Damaged, "lie {number}");
        }
    }

    #[test]
    fn tables_that_lie_are_refused() {
        let lies: [fn(&mut Entry); 9] = [
            |e| e.feature = 6,
            |e| e.feature = 3,
            |e| e.feature = 2,
            |e| e.list = 0,
            |e| e.list = u64::MAX,
            |e| e.bins = u32::MAX,
            |e| e.bins = 0,
            |e| e.units = 0,
            |e| e.units = 7,
        ];
        let (bytes, description) = file();
        let mut part = description.parts[0].clone();
        for (number, lie) in lies.iter().enumerate() {
            let mut table = section(&bytes, part.table, part.table_length()).to_vec();
            let mut entry = Table::new(&table, &part).entry(1);
            lie(&mut entry);
            table[ENTRY..].copy_from_slice(&entry.encode());
            assert!(Table::check(&table, &part, 6).is_err(), "a changed byte");
            part.table_crc = crc32c::crc32c(&table);
            assert!(Table::check(&table, &part, 6).is_err(), "lie {number}");
        }
    }
}
