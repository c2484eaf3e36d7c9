//! Sparse codes of a few rows: the first bytes say how many features and rows there are, and of which type the values are.
#![no_main]

use lamina_format::DType;
use lamina_format::record::Site;
use lamina_format::sparse::Codes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[width, wide, kind, rows], rest)) = bytes.split_first_chunk::<4>() else { return };
    let dtype = [DType::F16, DType::Bf16, DType::F32][usize::from(kind) % 3];
    let width = 1 + u64::from(width) + if wide & 1 == 0 { 0 } else { 1 << 16 };
    let site = Site { id: 0, name: "sae".to_owned(), dtype, shape: vec![width], sparse: Some(true) };
    let (ends, rest) = rest.split_at(rest.len().min(4 * usize::from(rows)));
    let units = rest.len() / site.unit_bytes() as usize;
    let (ids, values) = rest.split_at(units * site.id_dtype().size() as usize);
    let indptr = ends.as_chunks().0.iter().map(|&end| u32::from_le_bytes(end)).collect();
    if let Ok(codes) = Codes::parse(&site, indptr, ids, values[..units * dtype.size() as usize].to_vec()) {
        // what passes can be used without a look, and is stored as it was
        assert_eq!(codes.stored_ids(site.id_dtype(), 0, units), ids);
        for row in 0..codes.rows() {
            let of_row = codes.ids_of(row);
            assert!(of_row.is_sorted_by(|a, b| a < b) && of_row.iter().all(|&id| u64::from(id) < width));
        }
        let mut again = Codes::default();
        again.extend(&codes, 0..codes.rows(), dtype.size() as usize).expect("few");
        assert_eq!(again, codes);
    }
});
