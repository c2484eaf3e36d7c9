//! CRC32C of fixed pieces, so that a part of a block is checked without reading the whole.

/// Bytes that one CRC covers; the last piece of a block may be shorter.
pub const PIECE: usize = 128 * 1024;

/// The CRCs of a block's pieces.
pub fn pieces(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(PIECE).map(crc32c::crc32c).collect()
}

/// How many CRCs a block of `length` bytes has.
pub fn count(length: u64) -> u64 {
    length.div_ceil(PIECE as u64)
}

/// The BLAKE3 hash.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
