//! Chunks of checkpoint tensors.

use crate::dtype::DType;

/// Raw bytes of a chunk; a multiple of every element size. The last chunk of a tensor may be shorter.
pub const CHUNK: usize = 1 << 20;

/// A chunk's name: what it holds decides it.
pub type Key = [u8; 32];

/// The key of a chunk: BLAKE3 of the dtype's name, a zero byte, and the raw bytes.
pub fn key(dtype: DType, bytes: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(dtype.name().as_bytes()).update(&[0]).update(bytes);
    *hasher.finalize().as_bytes()
}

/// How many chunks a tensor of `bytes` bytes has.
pub fn count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_of_another_dtype_are_another_chunk() {
        assert_ne!(key(DType::F16, &[1, 2]), key(DType::Bf16, &[1, 2]));
        assert_eq!(key(DType::F16, &[1, 2]), key(DType::F16, &[1, 2]));
    }

    #[test]
    fn chunks_are_whole_elements() {
        for dtype in DType::ALL {
            assert_eq!(CHUNK as u64 % dtype.size(), 0);
        }
        assert_eq!([count(0), count(1), count(1 << 20), count((1 << 20) + 1)], [0, 1, 1, 2]);
    }
}
