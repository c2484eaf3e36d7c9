//! The description of a run, as it lies there and with a valid checksum.
#![no_main]

use lamina_format::checksum;
use lamina_format::runfile::RunFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = RunFile::decode(bytes);
    let digits: String = checksum::hash(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = RunFile::decode(&[bytes, b"\"blake3\": \"", digits.as_bytes(), b"\"}\n"].concat());
});
