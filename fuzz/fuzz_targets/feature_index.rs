//! An index of sparse codes: the description, the tables, lists and histograms that it leads to. Hashes are put right, so that
//! what lies behind them is reached.
#![no_main]

use lamina_format::checksum::hash;
use lamina_format::feature_index::{Description, MAGIC, Part, TAIL, Table, check_magic};
use lamina_format::packing::BLOCK;
use lamina_format::posting::Postings;
use lamina_format::{DType, histogram};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    whole(bytes);
    sealed(bytes);
    list(bytes);
});

/// A file as it is.
fn whole(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let Some(tail) = bytes.last_chunk::<TAIL>() else { return };
    let magic = check_magic(&bytes[..MAGIC.len()]);
    let Ok(described) = Description::length(tail, length) else { return };
    let Ok(description) = Description::decode(&bytes[bytes.len() - described - TAIL..], length) else { return };
    if magic.is_err() {
        return;
    }
    let rows = description.rows().expect("checked");
    let section = |from: u64, length: u64| &bytes[from as usize..(from + length) as usize];
    for part in &description.parts {
        let table = section(part.table, part.table_length());
        // as if its author had computed the checksum
        let part = Part { table_crc: crc32c(table), ..part.clone() };
        let Ok(table) = Table::check(table, &part, rows) else { continue };
        let bins = section(part.table + part.table_length(), part.bins.into());
        for at in 0..table.len() {
            let entry = table.entry(at);
            assert_eq!(table.find(entry.feature), Some(at));
            let _ = histogram::read(&bins[table.bins_start(at) as usize..entry.bins as usize], entry.units, |_, _| {});
            read(section(entry.list, table.list_end(at) - entry.list), description.dtype, entry.units as usize, rows);
        }
    }
}

/// The same with the hash that its description has.
fn sealed(bytes: &[u8]) {
    let Some((body, _)) = bytes.split_last_chunk::<32>() else { return };
    let from = body.last_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
    let Some(start) = body.len().checked_sub(4).and_then(|end| end.checked_sub(from)) else { return };
    whole(&[body, &hash(&body[start..])].concat());
}

/// A posting list: the first bytes say how many units it has, of how many rows, and of which type they are.
fn list(bytes: &[u8]) {
    let Some((&[kind, units, more, rows, wide], list)) = bytes.split_first_chunk::<5>() else { return };
    let dtype = [DType::F16, DType::Bf16, DType::F32][usize::from(kind) % 3];
    read(list, dtype, usize::from(units) + 256 * usize::from(more & 3), u32::from(rows) << (wide & 31));
    let _ = histogram::read(list, units.into(), |bin, _| assert!(usize::from(bin) < histogram::BINS));
}

/// What can be read of a list has rows that ascend.
fn read(list: &[u8], dtype: DType, units: usize, rows: u32) {
    let Ok(list) = Postings::parse(list, dtype, units, rows) else { return };
    let mut last = None;
    for block in list.blocks() {
        let Ok(of_block) = block.rows(&mut [0; BLOCK]).map(<[u32]>::to_vec) else { return };
        for row in of_block {
            assert!(row < rows && last.is_none_or(|last| last < row));
            last = Some(row);
        }
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    lamina_format::checksum::pieces(bytes).first().copied().unwrap_or(0)
}
