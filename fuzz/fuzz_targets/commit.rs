//! A commit, as it lies there and with a valid length and checksum.
#![no_main]

use lamina_format::{checksum, commit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = commit::decode(bytes, 1);
    let head = [b"LAMCOMM1", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let _ = commit::decode(&[&head[..], &checksum::hash(&head)].concat(), 1);
});
