//! Chunks of checkpoint tensors.

use crate::checksum::{self, PIECE};
use crate::codec::chunks::OVERHEAD;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::record::{Chunk, Codec};

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

impl Chunk {
    /// The record of a chunk that lies in the pack as it is, at its beginning.
    pub fn raw(key: Key, bytes: &[u8]) -> Self {
        let (length, crcs) =
            (bytes.len() as u64, checksum::pieces(bytes).into_iter().flat_map(u32::to_le_bytes).collect());
        Self { key, offset: 0, stored: length, raw: length, codec: Codec::Raw, crcs, lengths: None, base: None }
    }

    /// An error if the record cannot be true, whatever the pack holds.
    pub fn check(&self) -> Result<()> {
        let (blocks, coded) = (checksum::count(self.raw) as usize, self.codec != Codec::Raw);
        let block = |(&length, raw): (&[u8; 4], u64)| {
            let length = u64::from(u32::from_le_bytes(length));
            (length <= raw + OVERHEAD as u64).then_some(length)
        };
        let raw = |at: usize| (self.raw - (at * PIECE) as u64).min(PIECE as u64);
        let stored: Option<u64> = match &self.lengths {
            None => Some(self.raw),
            Some(lengths) if lengths.len() != 4 * blocks => None,
            Some(lengths) => lengths.as_chunks().0.iter().zip((0..blocks).map(raw)).map(block).sum(),
        };
        let holds = (1..=CHUNK as u64).contains(&self.raw)
            && self.crcs.len() == 4 * blocks
            && self.lengths.is_some() == coded
            && self.base.is_some() == (self.codec == Codec::Delta)
            && stored == Some(self.stored)
            && self.offset.checked_add(self.stored).is_some();
        let text = "a chunk's record has impossible lengths";
        if holds { Ok(()) } else { Err(Error::damaged(text).at(self.offset)) }
    }

    /// Where each block begins in the chunk as it lies in the pack, and how many bytes it has there. Of a record that holds.
    pub fn spans(&self) -> Vec<(u64, u64)> {
        let Some(lengths) = &self.lengths else {
            let block = |start: u64| (start, (self.raw - start).min(PIECE as u64));
            return (0..self.raw).step_by(PIECE).map(block).collect();
        };
        let place = |start: &mut u64, length: &[u8; 4]| {
            let length = u64::from(u32::from_le_bytes(*length));
            *start += length;
            Some((*start - length, length))
        };
        lengths.as_chunks().0.iter().scan(0, place).collect()
    }

    /// The key of the chunk that a delta is the difference from.
    pub fn base(&self) -> Option<&Key> {
        self.base.as_deref()
    }

    /// An error if the record cannot be true, or a block of `stored`, the chunk as it lies in the pack, does not match its
    /// checksum.
    pub fn verify(&self, stored: &[u8]) -> Result<()> {
        self.check()?;
        for ((start, length), crc) in self.spans().into_iter().zip(self.crcs.as_chunks().0) {
            let block = stored.get(start as usize..(start + length) as usize);
            if block.map(crc32c::crc32c) != Some(u32::from_le_bytes(*crc)) {
                return Err(Error::damaged("the bytes do not match their checksum").at(self.offset + start));
            }
        }
        Ok(())
    }
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
    fn records_that_cannot_be_true_are_refused() {
        let raw = Chunk {
            key: [0; 32],
            offset: 5,
            stored: PIECE as u64 + 1,
            raw: PIECE as u64 + 1,
            codec: Codec::Raw,
            crcs: vec![0; 8],
            lengths: None,
            base: None,
        };
        let lengths = |lengths: &[u32]| Some(lengths.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>().into());
        let planes = Chunk { codec: Codec::Planes, lengths: lengths(&[70, 9]), stored: 79, ..raw.clone() };
        let delta = Chunk { codec: Codec::Delta, base: Some([1; 32].into()), ..planes.clone() };
        assert_eq!([&raw, &planes, &delta].map(|chunk| chunk.check()), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(planes.spans(), [(0, 70), (70, 9)]);
        assert_eq!(raw.spans(), [(0, PIECE as u64), (PIECE as u64, 1)]);
        let long = PIECE as u32 + OVERHEAD as u32 + 1;
        let wrong = [
            Chunk { stored: 7, ..raw.clone() },
            Chunk { raw: 0, stored: 0, crcs: vec![], ..raw.clone() },
            Chunk { raw: CHUNK as u64 + 1, stored: CHUNK as u64 + 1, crcs: vec![0; 36], ..raw.clone() },
            Chunk { crcs: vec![0; 4], ..raw.clone() },
            Chunk { offset: u64::MAX, ..raw.clone() },
            Chunk { lengths: lengths(&[70, 9]), ..raw.clone() },
            Chunk { base: Some([1; 32].into()), ..planes.clone() },
            Chunk { lengths: None, stored: raw.raw, ..planes.clone() },
            Chunk { lengths: lengths(&[79]), ..planes.clone() },
            Chunk { lengths: lengths(&[70, 10]), ..planes.clone() },
            Chunk { lengths: lengths(&[long, 9]), stored: u64::from(long) + 9, ..planes.clone() },
            Chunk { lengths: lengths(&[70, 34]), stored: 104, ..planes.clone() },
            Chunk { base: None, ..delta.clone() },
        ];
        for (at, chunk) in wrong.iter().enumerate() {
            assert!(chunk.check().is_err(), "{at}");
        }
    }

    #[test]
    fn chunks_are_whole_elements() {
        for dtype in DType::ALL {
            assert_eq!(CHUNK as u64 % dtype.size(), 0);
        }
        assert_eq!([count(0), count(1), count(1 << 20), count((1 << 20) + 1)], [0, 1, 1, 2]);
    }
}
