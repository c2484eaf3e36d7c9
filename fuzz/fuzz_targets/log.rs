//! A log, as it lies there and as one frame with a valid length and checksum.
#![no_main]

use lamina_format::{checksum, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame::scan(bytes, 0);
    let head = [&frame::MAGIC[..], &(bytes.len() as u32).to_le_bytes(), &[0; 44], bytes].concat();
    let _ = frame::scan(&[&head[..], &checksum::hash(&head)].concat(), 0);
});
