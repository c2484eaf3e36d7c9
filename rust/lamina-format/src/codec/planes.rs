//! Byte planes: all first bytes of the elements, all second bytes, and so on, each coded by itself.
//!
//! The bytes of a trained tensor's mantissas are noise; its exponents take few values. So each element is rotated by
//! one bit, which puts the sign beside the mantissa's lowest bit and the exponent's eight bits into a byte of their own, and
//! the planes are split. A plane becomes a standard zstd frame that consists of Huffman-coded literals alone (matching
//! finds nothing in weights and costs most of the time), or of zstd's level 1 where a plane is so regular that matching
//! pays; a plane that does not shrink by 3 % stays as it is. Of normal numbers two thirds
//! of the bytes are left in bf16 and five sixths in f32.

use crate::error::{Error, ErrorKind, Result};
use crate::{DType, checksum::PIECE};
use zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch};

/// Marks the length of a plane that stays as it is.
const RAW: u32 = 1 << 31;
/// A plane that the Huffman code brings below a quarter is regular enough for matches.
const REGULAR: usize = 4;
/// The fastest level, which looks for a match once in 128 KiB: one that it found would cost more than the literals that it saves.
const NO_MATCHES: i32 = -(128 << 10);

/// Encodes and decodes pieces; keeps its contexts and buffers from piece to piece.
pub struct Planes {
    encoder: CCtx<'static>,
    decoder: DCtx<'static>,
    plane: Vec<u8>,
    frame: Vec<u8>,
}

impl Default for Planes {
    fn default() -> Self {
        let frame = vec![0; zstd_safe::compress_bound(PIECE)];
        Self { encoder: CCtx::create(), decoder: DCtx::create(), plane: Vec::new(), frame }
    }
}

impl Planes {
    /// The piece coded: for each plane, the least significant byte's first, its length as u32 (the top bit set if it is as
    /// it was), and then the planes. `raw` holds whole elements, at most 128 KiB of them.
    pub fn encode(&mut self, dtype: DType, raw: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.encode_into(dtype, raw, &mut out)?;
        Ok(out)
    }

    /// The same, added to `out`.
    pub fn encode_into(&mut self, dtype: DType, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let width = width(dtype);
        if !raw.len().is_multiple_of(width) || raw.len() > PIECE {
            return Err(Error::schema(format!("a piece of {} bytes cannot be coded as {}", raw.len(), dtype.name())));
        }
        let table = out.len();
        out.resize(table + 4 * width, 0);
        for byte in 0..width {
            self.plane.clear();
            split(width, byte, raw, &mut self.plane);
            let whole = self.plane.len();
            let mut coded = self.compress(NO_MATCHES, true)?;
            if coded * REGULAR < whole {
                let huffman = self.frame[..coded].to_vec();
                coded = self.compress(1, false)?;
                if huffman.len() <= coded {
                    self.frame[..huffman.len()].copy_from_slice(&huffman);
                    coded = huffman.len();
                }
            }
            let keep = coded + whole * 3 / 100 < whole;
            let body = if keep { &self.frame[..coded] } else { &self.plane };
            let length = body.len() as u32 | if keep { 0 } else { RAW };
            out[table + 4 * byte..][..4].copy_from_slice(&length.to_le_bytes());
            out.extend_from_slice(body);
        }
        Ok(())
    }

    /// The reverse: fills `out`, which has the length of the raw piece. Any other bytes are an error, never more memory.
    pub fn decode(&mut self, dtype: DType, stored: &[u8], out: &mut [u8]) -> Result<()> {
        let width = width(dtype);
        let broken = || Error::damaged("a coded piece does not decode");
        if !out.len().is_multiple_of(width) || out.len() > PIECE {
            return Err(broken());
        }
        let whole = out.len() / width;
        let mut bodies = stored.get(4 * width..).ok_or_else(broken)?;
        self.plane.resize(whole, 0);
        for (byte, &length) in stored.as_chunks().0.iter().take(width).enumerate() {
            let length = u32::from_le_bytes(length);
            let (body, rest) = bodies.split_at_checked((length & !RAW) as usize).ok_or_else(broken)?;
            bodies = rest;
            if length & RAW != 0 {
                merge(width, byte, (body.len() == whole).then_some(body).ok_or_else(broken)?, out);
                continue;
            }
            let decoded = self.decoder.decompress(&mut self.plane[..], body).map_err(|_| broken())?;
            merge(width, byte, (decoded == whole).then_some(&self.plane).ok_or_else(broken)?, out);
        }
        if !bodies.is_empty() {
            return Err(broken());
        }
        rotate_back(width, out);
        Ok(())
    }

    fn compress(&mut self, level: i32, literals: bool) -> Result<usize> {
        let mode = if literals { ParamSwitch::Enable } else { ParamSwitch::Auto };
        for parameter in [CParameter::CompressionLevel(level), CParameter::LiteralCompressionMode(mode)] {
            self.encoder.set_parameter(parameter).map_err(refused)?;
        }
        self.encoder.compress2(&mut self.frame[..], &self.plane).map_err(refused)
    }
}

/// Bytes of an element; complex numbers are two.
fn width(dtype: DType) -> usize {
    match dtype {
        DType::C64 => 4,
        DType::C128 => 8,
        dtype => dtype.size() as usize,
    }
}

fn refused(code: usize) -> Error {
    Error::new(ErrorKind::Format, format!("zstd refuses: {}", zstd_safe::get_error_name(code)))
}

/// Adds byte `byte` of every element, rotated left by one bit, to `plane`.
fn split(width: usize, byte: usize, raw: &[u8], plane: &mut Vec<u8>) {
    macro_rules! split {
        ($kind:ty) => {{
            let elements = raw.as_chunks::<{ size_of::<$kind>() }>().0;
            plane.extend(elements.iter().map(|&e| (<$kind>::from_le_bytes(e).rotate_left(1) >> (8 * byte)) as u8));
        }};
    }
    match width {
        1 => plane.extend(raw.iter().map(|byte| byte.rotate_left(1))),
        2 => split!(u16),
        4 => split!(u32),
        _ => split!(u64),
    }
}

/// Puts a plane's bytes into their place in every element.
fn merge(width: usize, byte: usize, plane: &[u8], out: &mut [u8]) {
    macro_rules! merge {
        ($width:literal) => {
            for (element, &value) in out.as_chunks_mut::<$width>().0.iter_mut().zip(plane) {
                element[byte] = value;
            }
        };
    }
    match width {
        1 => out.copy_from_slice(plane),
        2 => merge!(2),
        4 => merge!(4),
        _ => merge!(8),
    }
}

fn rotate_back(width: usize, out: &mut [u8]) {
    macro_rules! rotate {
        ($kind:ty) => {
            for element in out.as_chunks_mut::<{ size_of::<$kind>() }>().0 {
                *element = <$kind>::from_le_bytes(*element).rotate_right(1).to_le_bytes();
            }
        };
    }
    match width {
        1 => out.iter_mut().for_each(|byte| *byte = byte.rotate_right(1)),
        2 => rotate!(u16),
        4 => rotate!(u32),
        _ => rotate!(u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    /// Numbers as weights are: normal, small.
    fn normal(count: usize) -> impl Iterator<Item = f32> {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f32 + 0.5) / (1u64 << 31) as f32
        };
        (0..count).map(move |_| 0.02 * (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos())
    }

    fn back(dtype: DType, raw: &[u8]) -> usize {
        let mut planes = Planes::default();
        let stored = planes.encode(dtype, raw).expect("codes");
        let mut out = vec![7; raw.len()];
        planes.decode(dtype, &stored, &mut out).expect("decodes");
        assert!(out == raw, "{}", dtype.name());
        stored.len()
    }

    #[test]
    fn weights_shrink_by_what_their_exponents_repeat() {
        let bf16s: Vec<u8> = normal(PIECE / 2).flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
        let ratio = PIECE as f64 / back(DType::Bf16, &bf16s) as f64;
        assert!((1.4..1.6).contains(&ratio), "bf16 {ratio}");
        let f32s: Vec<u8> = normal(PIECE / 4).flat_map(f32::to_le_bytes).collect();
        let ratio = PIECE as f64 / back(DType::F32, &f32s) as f64;
        assert!((1.15..1.25).contains(&ratio), "f32 {ratio}");
    }

    #[test]
    fn what_does_not_shrink_costs_its_table_alone_and_zeros_cost_next_to_nothing() {
        let noise: Vec<u8> = (0..PIECE as u32 / 32).flat_map(|at| crate::checksum::hash(&at.to_le_bytes())).collect();
        assert_eq!(back(DType::U8, &noise), PIECE + 4);
        assert!(back(DType::F64, &vec![0; PIECE]) < 300);
        assert_eq!(back(DType::F16, &[]), 2 * 4);
    }

    #[test]
    fn a_frame_is_one_that_any_zstd_decodes() {
        let raw: Vec<u8> = normal(PIECE / 2).flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
        let stored = Planes::default().encode(DType::Bf16, &raw).expect("codes");
        let lengths: Vec<u32> = stored.as_chunks().0.iter().take(2).map(|&bytes| u32::from_le_bytes(bytes)).collect();
        assert!(lengths[0] & RAW != 0 && lengths[1] & RAW == 0, "the mantissas are noise, the exponents are not");
        let mut plane = vec![0; PIECE / 2];
        let frame = &stored[8 + (lengths[0] & !RAW) as usize..];
        assert_eq!(zstd_safe::decompress(&mut plane[..], frame), Ok(PIECE / 2));
        assert!(plane.iter().zip(raw.as_chunks::<2>().0).all(|(&high, &e)| high == (u16::from_le_bytes(e) >> 7) as u8));
    }

    proptest! {
        #[test]
        fn every_bit_returns(bytes in proptest::collection::vec(any::<u8>(), 0..4096), kind in 0..DType::ALL.len()) {
            let dtype = DType::ALL[kind];
            let whole = bytes.len() - bytes.len() % dtype.size() as usize;
            back(dtype, &bytes[..whole]);
        }

        #[test]
        fn other_bytes_are_an_error_or_other_values_and_nothing_worse(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let raw: Vec<u8> = normal(2000).flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
            let mut planes = Planes::default();
            let mut stored = planes.encode(DType::Bf16, &raw).expect("codes");
            let mut out = vec![0; raw.len()];
            assert!(planes.decode(DType::Bf16, &stored[..cut.index(stored.len())], &mut out).is_err());
            let at = at.index(stored.len());
            stored[at] = byte;
            let _ = planes.decode(DType::Bf16, &stored, &mut out);
            assert!(planes.decode(DType::Bf16, &stored, &mut out[..3998]).is_err() || raw.len() == 3998);
        }
    }
}
