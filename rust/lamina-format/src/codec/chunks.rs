//! Chunks of checkpoints, coded block by block.

use super::{Planes, delta};
use crate::checksum::PIECE;
use crate::error::{Error, Result};
use crate::record::{Chunk, Codec};
use crate::{DType, chunk::Key};

/// Most bytes that a coded block has beyond those that it stands for: a plane's length for each byte of an element.
pub const OVERHEAD: usize = 4 * 8;

/// Encodes and decodes blocks of 128 KiB; keeps its contexts and buffers from block to block.
#[derive(Default)]
pub struct Coder {
    planes: Planes,
    differences: Vec<u8>,
}

/// A chunk's bytes for the pack, and what its record says of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coded {
    /// The blocks, one behind the other.
    pub bytes: Vec<u8>,
    /// Bytes of each.
    pub lengths: Vec<u32>,
}

impl Coder {
    /// Adds a block to `out`, coded: as planes, or as planes of its differences from `base`, the block that stands at its
    /// place in another chunk. It has at most 32 bytes more than the block.
    pub fn encode(&mut self, dtype: DType, raw: &[u8], base: Option<&[u8]>, out: &mut Vec<u8>) -> Result<()> {
        let Some(base) = base else { return self.planes.encode_into(dtype, raw, out) };
        if base.len() != raw.len() {
            return Err(Error::schema("a block and the one that it is compared with differ in length"));
        }
        delta::subtract(dtype, raw, base, &mut self.differences);
        self.planes.encode_into(dtype, &self.differences, out)
    }

    /// The reverse: fills `out`, which has the length of the block. Other bytes are an error or other values, never more
    /// memory. A delta needs `base`, nothing else does.
    pub fn decode(
        &mut self,
        codec: Codec,
        dtype: DType,
        stored: &[u8],
        base: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<()> {
        match (codec, base) {
            (Codec::Raw, None) if stored.len() == out.len() => out.copy_from_slice(stored),
            (Codec::Planes, None) => self.planes.decode(dtype, stored, out)?,
            (Codec::Delta, Some(base)) if base.len() == out.len() => {
                self.planes.decode(dtype, stored, out)?;
                delta::add(dtype, base, out);
            }
            _ => return Err(Error::damaged("a block does not fit how it is coded")),
        }
        Ok(())
    }

    /// A whole chunk, if that saves 3 % of it or more.
    pub fn encode_chunk(&mut self, dtype: DType, raw: &[u8], base: Option<&[u8]>) -> Result<Option<Coded>> {
        let mut coded = Coded { bytes: Vec::with_capacity(raw.len()), lengths: Vec::new() };
        for (at, block) in raw.chunks(PIECE).enumerate() {
            let before = coded.bytes.len();
            let base = base.map(|base| base.get(at * PIECE..at * PIECE + block.len()).unwrap_or_default());
            self.encode(dtype, block, base, &mut coded.bytes)?;
            coded.lengths.push((coded.bytes.len() - before) as u32);
        }
        Ok((coded.bytes.len() * 100 <= raw.len() * 97).then_some(coded))
    }

    /// A whole chunk from its bytes in the pack, which match their checksums. `base` are the bytes of its base.
    pub fn decode_chunk(
        &mut self,
        chunk: &Chunk,
        dtype: DType,
        stored: &[u8],
        base: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<()> {
        chunk.check()?;
        if stored.len() as u64 != chunk.stored || out.len() as u64 != chunk.raw {
            return Err(Error::damaged("a chunk's bytes do not fit its record"));
        }
        for ((at, out), (start, length)) in out.chunks_mut(PIECE).enumerate().zip(chunk.spans()) {
            let base = base.map(|base| base.get(at * PIECE..at * PIECE + out.len()).unwrap_or_default());
            let stored = &stored[start as usize..(start + length) as usize];
            self.decode(chunk.codec, dtype, stored, base, out).map_err(|error| error.at(chunk.offset + start))?;
        }
        Ok(())
    }
}

impl Coded {
    /// The record of these bytes, which stand for `raw` bytes, at the beginning of a pack.
    pub fn record(&self, key: Key, raw: usize, base: Option<Key>) -> Chunk {
        let (mut crcs, mut start) = (Vec::new(), 0);
        for &length in &self.lengths {
            let block = &self.bytes[start..start + length as usize];
            crcs.extend(crc32c::crc32c(block).to_le_bytes());
            start += length as usize;
        }
        let lengths: Vec<u8> = self.lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        Chunk {
            key,
            offset: 0,
            stored: self.bytes.len() as u64,
            raw: raw as u64,
            codec: if base.is_some() { Codec::Delta } else { Codec::Planes },
            crcs,
            lengths: Some(lengths.into()),
            base: base.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{self, CHUNK};
    use proptest::prelude::*;

    /// A tensor, and what it is some steps later.
    fn trained(bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let mut state = 7u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let before: Vec<f32> = (0..bytes / 4).map(|_| 0.02 * random()).collect();
        let after: Vec<f32> = before.iter().map(|x| x + 1e-5 * random()).collect();
        let bytes = |of: Vec<f32>| of.into_iter().flat_map(f32::to_le_bytes).collect();
        (bytes(before), bytes(after))
    }

    #[test]
    fn a_chunk_returns_from_its_record_and_a_delta_is_smaller_than_planes() {
        let (before, after) = trained(CHUNK - 44);
        let mut coder = Coder::default();
        let planes = coder.encode_chunk(DType::F32, &after, None).expect("codes").expect("shrinks");
        let delta = coder.encode_chunk(DType::F32, &after, Some(&before)).expect("codes").expect("shrinks");
        assert!(delta.bytes.len() * 10 < planes.bytes.len() * 9);
        let (key, base) = (chunk::key(DType::F32, &after), chunk::key(DType::F32, &before));
        let mut out = vec![0; after.len()];
        let record = planes.record(key, after.len(), None);
        coder.decode_chunk(&record, DType::F32, &planes.bytes, None, &mut out).expect("decodes");
        assert!(out == after && record.check().is_ok());
        let record = delta.record(key, after.len(), Some(base));
        out.fill(0);
        coder.decode_chunk(&record, DType::F32, &delta.bytes, Some(&before), &mut out).expect("decodes");
        assert!(out == after && record.check().is_ok());
        assert!(coder.decode_chunk(&record, DType::F32, &delta.bytes, None, &mut out).is_err(), "without its base");
        let short = &before[..CHUNK - 48];
        assert!(coder.decode_chunk(&record, DType::F32, &delta.bytes, Some(short), &mut out).is_err());
    }

    #[test]
    fn what_saves_less_than_a_thirtieth_is_not_kept() {
        let noise: Vec<u8> = (0..9000u32).flat_map(|at| crate::checksum::hash(&at.to_le_bytes())).collect();
        assert_eq!(Coder::default().encode_chunk(DType::F32, &noise, None), Ok(None));
        let mut mostly = noise.clone();
        mostly.extend(vec![0; 20_000]);
        assert!(Coder::default().encode_chunk(DType::F32, &mostly, None).expect("codes").is_some());
    }

    proptest! {
        #[test]
        fn every_bit_returns(
            pairs in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..2048), kind in 0..DType::ALL.len(),
        ) {
            let dtype = DType::ALL[kind];
            let (mut x, mut base): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let whole = x.len() - x.len() % dtype.size() as usize;
            x.truncate(whole);
            base.truncate(whole);
            let mut coder = Coder::default();
            for (codec, base) in [(Codec::Planes, None), (Codec::Delta, Some(&base[..]))] {
                let mut stored = Vec::new();
                coder.encode(dtype, &x, base, &mut stored).expect("codes");
                prop_assert!(stored.len() <= x.len() + OVERHEAD);
                let mut out = vec![7; x.len()];
                coder.decode(codec, dtype, &stored, base, &mut out).expect("decodes");
                prop_assert_eq!(&out, &x);
            }
        }

        #[test]
        fn other_bytes_are_an_error_or_other_values_and_nothing_worse(
            stored in proptest::collection::vec(any::<u8>(), 0..600), kind in 0..DType::ALL.len(), count in 0..64usize,
        ) {
            let dtype = DType::ALL[kind];
            let mut out = vec![0; count * dtype.size() as usize];
            let base = vec![3; out.len()];
            let mut coder = Coder::default();
            let _ = coder.decode(Codec::Planes, dtype, &stored, None, &mut out);
            let _ = coder.decode(Codec::Delta, dtype, &stored, Some(&base), &mut out);
        }

        #[test]
        fn a_record_that_lies_about_its_blocks_is_refused(at in 0..32usize, byte in 1..=255u8) {
            let (_, x) = trained(CHUNK);
            let mut coder = Coder::default();
            let coded = coder.encode_chunk(DType::F32, &x, None).expect("codes").expect("shrinks");
            let mut record = coded.record([1; 32], x.len(), None);
            let mut lengths = record.lengths.take().expect("coded").to_vec();
            lengths[at] ^= byte;
            record.lengths = Some(lengths.into());
            let mut out = vec![0; x.len()];
            prop_assert!(coder.decode_chunk(&record, DType::F32, &coded.bytes, None, &mut out).is_err());
        }
    }
}
