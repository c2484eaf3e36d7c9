//! A coded piece of rows, of each dtype: the first byte says which, the second how many elements it should have.
#![no_main]

use lamina_format::DType;
use lamina_format::codec::Planes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, count], stored)) = bytes.split_first_chunk::<2>() else { return };
    let dtype = DType::ALL[usize::from(kind) % DType::ALL.len()];
    let mut out = vec![0; usize::from(count) * dtype.size() as usize];
    let mut planes = Planes::default();
    if planes.decode(dtype, stored, &mut out).is_ok() {
        // what decodes is a piece of these rows: coded again they come back
        let again = planes.encode(dtype, &out).expect("codes");
        let mut back = vec![1; out.len()];
        planes.decode(dtype, &again, &mut back).expect("decodes");
        assert_eq!(back, out);
    }
});
