//! Deterministic CBOR: definite lengths, shortest integers, ascending integer keys, 64-bit floats.

use crate::error::{Error, ErrorKind, Result};
use minicbor::{Decode, Encode};

/// Encodes; encoding into memory cannot fail.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(()) = minicbor::encode(value, &mut bytes).map_err(|_| ()) else { unreachable!("writes to memory") };
    bytes
}

/// Decodes all of `bytes`, which already passed their checksum: what does not decode is from a newer Lamina.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], what: &str) -> Result<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| {
        Error::new(ErrorKind::Format, format!("{what} is not understood: {error}"))
            .hint("it was written by a newer Lamina; update this one")
    })?;
    if decoder.position() != bytes.len() {
        return Err(Error::damaged(format!("{what} has {} bytes too many", bytes.len() - decoder.position())));
    }
    Ok(value)
}
