//! The record of a coded chunk and its bytes: the first byte says which dtype, then come the record's length and the record.
#![no_main]

use lamina_format::DType;
use lamina_format::chunk::CHUNK;
use lamina_format::codec::Coder;
use lamina_format::record::Chunk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, length], rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some((record, stored)) = rest.split_at_checked(usize::from(length)) else { return };
    let Ok(chunk) = lamina_format::cbor::decode::<Chunk>(record, "a chunk") else { return };
    let dtype = DType::ALL[usize::from(kind) % DType::ALL.len()];
    // a place that does not hold is refused before anything is allocated for it
    if chunk.check().is_err() {
        return;
    }
    assert!(chunk.raw <= CHUNK as u64);
    let whole = chunk.raw as usize / dtype.size() as usize * dtype.size() as usize;
    let (mut out, base) = (vec![0; whole], vec![1; whole]);
    let mut coder = Coder::default();
    let base = chunk.base().map(|_| base.as_slice());
    if coder.decode_chunk(&chunk, dtype, stored, base, &mut out).is_ok() {
        if let Some(again) = coder.encode_chunk(dtype, &out, base).expect("codes") {
            let record = again.record(chunk.key, out.len(), chunk.base().copied());
            let mut back = vec![2; out.len()];
            coder.decode_chunk(&record, dtype, &again.bytes, base, &mut back).expect("decodes");
            assert_eq!(back, out);
        }
    }
});
