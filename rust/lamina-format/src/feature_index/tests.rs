//! A file as it is written, and files that lie.

use super::*;
use crate::dtype::DType;
use crate::histogram::{Counter, bin};
use crate::posting::{Postings, unit};

fn push(part: &mut PartWriter, feature: u32, units: &[u64]) {
    let mut counter = Counter::default();
    counter.add(DType::F16, units);
    part.add(units.len() as u64, units, DType::F16);
    let sums = Sums { units: units.len() as u32, sum: 1.5, greatest: 7, steps: (2, 9) };
    part.end(feature, sums, &mut counter);
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
