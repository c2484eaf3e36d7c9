//! A posting list: the units of one feature, in order of rows.
//!
//! First a head for each block of 128 units: its first row (u32), the bits of a difference (u8), and its greatest value. Then
//! the differences of the block's rows, each less one, packed; and then the values of all units.

use crate::packing::{self, BLOCK};
use crate::{DType, Error, Result};

/// A unit on its way into an index: its row in the upper half, the bits of its value in the lower.
pub fn unit(row: u32, value: u32) -> u64 {
    u64::from(row) << 32 | u64::from(value)
}

/// A value from its bits.
pub fn value(dtype: DType, bits: u32) -> f32 {
    match dtype {
        DType::F16 => single(bits),
        DType::Bf16 => f32::from_bits(bits << 16),
        _ => f32::from_bits(bits),
    }
}

/// A half as a single: its exponent counts from 15 instead of 127, which 2^112 makes up for, those of subnormals too.
fn single(half: u32) -> f32 {
    let size = (half & 0x7fff) << 13;
    let finite = (f32::from_bits(size) * f32::from_bits(239 << 23)).to_bits();
    let bits = if half & 0x7c00 == 0x7c00 { size | 255 << 23 } else { finite };
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// The bits of the sign and of infinity.
fn sign_and_infinity(dtype: DType) -> (u32, u32) {
    match dtype {
        DType::F16 => (1 << 15, 0x7c00),
        DType::Bf16 => (1 << 15, 0x7f80),
        _ => (1 << 31, 0x7f80_0000),
    }
}

/// A number for the bits of a value that orders as values do: NaN is below everything, and zeros are alike.
#[inline]
pub fn rank(dtype: DType, bits: u32) -> u32 {
    let (sign, infinity) = sign_and_infinity(dtype);
    (order(bits, sign, infinity) as u32).wrapping_add(sign)
}

/// A signed number that orders likewise: the size of a value, with its sign. Without a branch, so that many are ranked at a time.
#[inline]
fn order(bits: u32, sign: u32, infinity: u32) -> i32 {
    let size = (bits & (sign - 1)) as i32;
    let below = -i32::from(bits & sign != 0);
    if size > infinity as i32 { (sign as i32).wrapping_neg() } else { (size ^ below) - below }
}

/// The bits of a value of this rank.
pub fn of_rank(dtype: DType, rank: u32) -> u32 {
    let (sign, infinity) = sign_and_infinity(dtype);
    match rank {
        0 => infinity | infinity >> 1,
        _ if rank < sign => sign | (sign - rank),
        _ => rank - sign,
    }
}

/// The least and the greatest rank of the values of some units.
pub fn ranks(dtype: DType, units: &[u64]) -> (u32, u32) {
    let of = |(sign, infinity)| {
        let orders = units.iter().map(|&unit| order(unit as u32, sign, infinity));
        let (least, greatest) =
            orders.fold((i32::MAX, i32::MIN), |(least, most), order| (least.min(order), most.max(order)));
        ((least as u32).wrapping_add(sign), (greatest as u32).wrapping_add(sign))
    };
    // for each a loop that knows its type
    match dtype {
        DType::F16 => of(sign_and_infinity(DType::F16)),
        DType::Bf16 => of(sign_and_infinity(DType::Bf16)),
        _ => of(sign_and_infinity(DType::F32)),
    }
}

/// The bits of values as they are stored.
pub fn stored(bytes: &[u8], dtype: DType, at: usize) -> u32 {
    match dtype {
        DType::F32 => bytes.as_chunks().0.get(at).map_or(0, |&bytes| u32::from_le_bytes(bytes)),
        _ => bytes.as_chunks().0.get(at).map_or(0, |&bytes| u16::from_le_bytes(bytes).into()),
    }
}

/// The list of a feature's units while these come.
pub struct ListWriter {
    dtype: DType,
    units: usize,
    /// Where the next head goes.
    head: usize,
    /// The values of units that came, unless all came at once.
    values: Vec<u8>,
}

impl ListWriter {
    /// Begins a list of so many units behind `out`.
    pub fn new(units: usize, dtype: DType, out: &mut Vec<u8>) -> Self {
        let head = out.len();
        out.resize(head + units.div_ceil(BLOCK) * (5 + dtype.size() as usize), 0);
        Self { dtype, units, head, values: Vec::new() }
    }

    /// Adds units whose rows ascend: whole blocks, unless they are the last. `out` ends where it did before.
    pub fn add(&mut self, units: &[u64], out: &mut Vec<u8>) {
        self.head = write_blocks(units, self.dtype, self.head, out);
        if units.len() == self.units {
            write_values(units, self.dtype, out);
            return;
        }
        if self.values.is_empty() {
            self.values.reserve_exact(self.units * self.dtype.size() as usize);
        }
        write_values(units, self.dtype, &mut self.values);
    }

    /// What is still to stand behind `out`.
    pub fn end(self) -> Vec<u8> {
        self.values
    }
}

/// Puts heads of blocks at a place in `out`, and their rows behind it; returns where the next head goes.
fn write_blocks(units: &[u64], dtype: DType, mut at: usize, out: &mut Vec<u8>) -> usize {
    let size = dtype.size() as usize;
    for block in units.chunks(BLOCK) {
        let mut steps = [0; BLOCK];
        for (step, (a, b)) in steps.iter_mut().zip(block.iter().zip(&block[1..])) {
            *step = ((b >> 32) as u32).wrapping_sub((a >> 32) as u32).wrapping_sub(1);
        }
        let steps = &steps[..block.len() - 1];
        let bits = packing::bits(steps);
        let head = &mut out[at..at + 5 + size];
        at += 5 + size;
        head[..4].copy_from_slice(&((block[0] >> 32) as u32).to_le_bytes());
        head[4] = bits as u8;
        head[5..].copy_from_slice(&of_rank(dtype, ranks(dtype, block).1).to_le_bytes()[..size]);
        packing::pack(steps, bits, out);
    }
    at
}

fn write_values(units: &[u64], dtype: DType, out: &mut Vec<u8>) {
    let (values, size) = (out.len(), dtype.size() as usize);
    out.resize(values + units.len() * size, 0);
    let values = &mut out[values..];
    match size {
        2 => values.as_chunks_mut().0.iter_mut().zip(units).for_each(|(to, &unit)| *to = (unit as u16).to_le_bytes()),
        _ => values.as_chunks_mut().0.iter_mut().zip(units).for_each(|(to, &unit)| *to = (unit as u32).to_le_bytes()),
    }
}

/// A posting list as it lies in an index.
#[derive(Clone, Copy)]
pub struct Postings<'a> {
    dtype: DType,
    /// Every row is less.
    rows: u32,
    units: usize,
    heads: &'a [u8],
    packed: &'a [u8],
    values: &'a [u8],
}

/// At most 128 units of a list.
#[derive(Clone, Copy)]
pub struct Postable<'a> {
    first: u32,
    bits: u32,
    /// Every row is less.
    end: u32,
    /// The bits of the greatest value.
    pub greatest: u32,
    packed: &'a [u8],
    /// The values as they are stored.
    pub values: &'a [u8],
    /// How many units there are.
    pub units: usize,
}

fn wrong(what: &str) -> Error {
    Error::damaged(format!("the units of a feature {what}"))
}

impl<'a> Postings<'a> {
    /// A list of so many units of rows below `rows`. What passes has blocks that lie behind each other.
    pub fn parse(bytes: &'a [u8], dtype: DType, units: usize, rows: u32) -> Result<Self> {
        let size = dtype.size() as usize;
        let short = || wrong("are cut short");
        let (heads, rest) = bytes.split_at_checked(units.div_ceil(BLOCK) * (5 + size)).ok_or_else(short)?;
        let length = units.checked_mul(size).and_then(|length| rest.len().checked_sub(length)).ok_or_else(short)?;
        let (packed, values) = rest.split_at(length);
        let list = Self { dtype, rows, units, heads, packed, values };
        let mut total = 0;
        for (number, head) in heads.chunks_exact(5 + size).enumerate() {
            if head[4] > 32 {
                return Err(wrong("are packed in more than 32 bits"));
            }
            total += packing::bytes((units - number * BLOCK).min(BLOCK) - 1, head[4].into());
        }
        if total == packed.len() { Ok(list) } else { Err(wrong("are longer or shorter than their blocks")) }
    }

    /// Its blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = Postable<'a>> + use<'a> {
        let list = *self;
        let size = list.dtype.size() as usize;
        let first = |head: &[u8]| head.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let mut at = 0;
        (0..list.units.div_ceil(BLOCK)).map(move |number| {
            let head = &list.heads[number * (5 + size)..(number + 1) * (5 + size)];
            let next = list.heads.get((number + 1) * (5 + size)..).filter(|heads| !heads.is_empty());
            let (from, units) = (number * BLOCK, (list.units - number * BLOCK).min(BLOCK));
            let length = packing::bytes(units - 1, head[4].into());
            at += length;
            Postable {
                first: first(head),
                bits: head[4].into(),
                end: next.map_or(list.rows, |next| first(next).min(list.rows)),
                greatest: stored(&head[5..], list.dtype, 0),
                packed: &list.packed[at - length..at],
                values: &list.values[from * size..(from + units) * size],
                units,
            }
        })
    }
}

impl Postable<'_> {
    /// The first row.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The rows of its units: they ascend, and are below those of the block behind.
    pub fn rows<'b>(&self, out: &'b mut [u32; BLOCK]) -> Result<&'b [u32]> {
        let out = &mut out[..self.units];
        packing::unpack(self.packed, self.bits, &mut out[1..]);
        let mut row = u64::from(self.first);
        out[0] = self.first;
        for step in &mut out[1..] {
            row += u64::from(*step) + 1;
            *step = row as u32;
        }
        // 127 differences of 32 bits stay below 2^40, so that no sum above wraps
        if row < u64::from(self.end) { Ok(out) } else { Err(wrong("are of rows that there are not, or do not ascend")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The list of units that come so many blocks at a time.
    fn in_pieces(units: &[u64], dtype: DType, blocks: usize) -> Vec<u8> {
        let mut out = vec![1, 2, 3];
        let mut list = ListWriter::new(units.len(), dtype, &mut out);
        units.chunks(blocks * BLOCK).for_each(|some| list.add(some, &mut out));
        out.extend(list.end());
        assert_eq!(out[..3], [1, 2, 3]);
        out.split_off(3)
    }

    fn list(units: &[u64], dtype: DType) -> Vec<u8> {
        in_pieces(units, dtype, units.len().max(1))
    }

    fn read(bytes: &[u8], dtype: DType, units: usize, rows: u32) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        for block in Postings::parse(bytes, dtype, units, rows)?.blocks() {
            let mut greatest = 0;
            for (at, row) in block.rows(&mut [0; BLOCK])?.iter().enumerate() {
                let bits = stored(block.values, dtype, at);
                greatest = greatest.max(rank(dtype, bits));
                found.push(unit(*row, bits));
            }
            assert!(greatest <= rank(dtype, block.greatest));
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn units_come_back(
            steps in proptest::collection::vec((1u32..1 << 20, any::<u32>()), 1..400), kind in 0usize..3, first in 0u32..9,
        ) {
            let dtype = [DType::F16, DType::Bf16, DType::F32][kind];
            let mut row = first;
            let mut units = Vec::new();
            for (step, bits) in steps {
                units.push(unit(row, if kind == 2 { bits } else { bits & 0xffff }));
                row += step;
            }
            let (bytes, last) = (list(&units, dtype), (units[units.len() - 1] >> 32) as u32);
            prop_assert!((1..4).all(|blocks| in_pieces(&units, dtype, blocks) == bytes));
            prop_assert_eq!(read(&bytes, dtype, units.len(), last + 1).expect("honest"), units.clone());
            prop_assert!(read(&bytes, dtype, units.len(), last).is_err(), "a row that there is not");
        }

        #[test]
        fn lies_are_told_and_lead_nowhere(
            bytes in proptest::collection::vec(any::<u8>(), 0..900), units in 0usize..300, rows in any::<u32>(), kind in 0usize..3,
        ) {
            let _ = read_any(&bytes, [DType::F16, DType::Bf16, DType::F32][kind], units, rows);
        }
    }

    fn read_any(bytes: &[u8], dtype: DType, units: usize, rows: u32) -> Result<()> {
        let mut last = None;
        for block in Postings::parse(bytes, dtype, units, rows)?.blocks() {
            for &row in block.rows(&mut [0; BLOCK])? {
                assert!(row < rows && last.is_none_or(|last| last < row));
                last = Some(row);
            }
        }
        Ok(())
    }

    #[test]
    fn rows_at_the_end_of_all_numbers_and_lists_that_lie() {
        let units = [unit(0, 1), unit(u32::MAX - 1, 2)];
        let bytes = list(&units, DType::F16);
        assert_eq!(read(&bytes, DType::F16, 2, u32::MAX).expect("honest"), units);
        for (units, rows) in [(1, u32::MAX), (3, u32::MAX), (2, u32::MAX - 1), (usize::MAX, 9)] {
            assert!(read(&bytes, DType::F16, units, rows).is_err(), "{units} units of {rows} rows");
        }
        let mut wide = bytes.clone();
        wide[4] = 33;
        assert!(read(&wide, DType::F16, 2, u32::MAX).is_err());
        // the second block begins below the end of the first
        let ascending: Vec<u64> = (0..200).map(|row| unit(row, 0)).collect();
        let mut falls = list(&ascending, DType::F16);
        falls[7..11].copy_from_slice(&100u32.to_le_bytes());
        assert!(read(&falls, DType::F16, 200, 200).is_err());
    }

    #[test]
    fn values_rank_as_they_compare() {
        let ascending = [f32::NAN, f32::NEG_INFINITY, -1.0, -1e-4, 0.0, 1e-4, 2.0, f32::INFINITY];
        for dtype in [DType::F16, DType::Bf16, DType::F32] {
            let rank = |value: f32| match dtype {
                DType::F16 => rank(dtype, half::f16::from_f32(value).to_bits().into()),
                DType::Bf16 => rank(dtype, value.to_bits() >> 16),
                _ => rank(dtype, value.to_bits()),
            };
            assert!(ascending.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])), "{dtype:?}");
            assert_eq!((rank(-0.0), rank(-f32::NAN)), (rank(0.0), 0));
            for bits in [0, 1, 0x3c00, 0x7c00, 0x8001, 0xfc00] {
                let number = super::rank(dtype, bits);
                assert_eq!(super::rank(dtype, of_rank(dtype, number)), number, "{dtype:?} {bits:x}");
            }
            assert!(value(dtype, of_rank(dtype, 0)).is_nan());
        }
        assert_eq!((value(DType::F32, 1.5f32.to_bits()), value(DType::Bf16, 0x3f80)), (1.5, 1.0));
        for bits in 0..=u16::MAX {
            let (found, wanted) = (value(DType::F16, bits.into()), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(), "{bits:x}");
        }
    }
}
