//! Differences: what a tensor's elements became since another time.
//!
//! The bits of a float, taken as a sign and a magnitude, count the floats in order; so a small change is a small number,
//! also where it crosses a power of two or zero. The difference of two such numbers goes back into sign and magnitude,
//! which is the form that byte planes expect: rotated by one bit it is what others call zigzag.

use crate::DType;

/// What an element of a dtype is compared as: bytes of it, and whether they are a sign and a magnitude. Complex numbers are two.
fn kind(dtype: DType) -> (usize, bool) {
    match dtype {
        DType::F64 | DType::C128 => (8, true),
        DType::F32 | DType::C64 => (4, true),
        DType::F16 | DType::Bf16 => (2, true),
        DType::F8E4m3 | DType::F8E5m2 => (1, true),
        DType::I64 | DType::U64 => (8, false),
        DType::I32 | DType::U32 => (4, false),
        DType::I16 | DType::U16 => (2, false),
        DType::I8 | DType::U8 | DType::Bool => (1, false),
    }
}

macro_rules! each {
    ($dtype:expr, $work:ident, $($of:expr),+) => {
        match kind($dtype) {
            (1, true) => $work!(i8, true, $($of),+),
            (1, false) => $work!(i8, false, $($of),+),
            (2, true) => $work!(i16, true, $($of),+),
            (2, false) => $work!(i16, false, $($of),+),
            (4, true) => $work!(i32, true, $($of),+),
            (4, false) => $work!(i32, false, $($of),+),
            (_, true) => $work!(i64, true, $($of),+),
            (_, false) => $work!(i64, false, $($of),+),
        }
    };
}

/// From sign and magnitude to a number in order, and back.
macro_rules! fold {
    ($kind:ty, $x:expr) => {{
        let x = $x;
        x ^ ((x >> (<$kind>::BITS - 1)) & <$kind>::MAX)
    }};
}

/// The differences of the elements of `raw` from those of `base`, which is as long, in the place of `out`.
pub fn subtract(dtype: DType, raw: &[u8], base: &[u8], out: &mut Vec<u8>) {
    macro_rules! subtract {
        ($kind:ty, $float:literal, $raw:expr, $base:expr, $out:expr) => {{
            const SIZE: usize = size_of::<$kind>();
            let number = |&bytes: &[u8; SIZE]| {
                let x = <$kind>::from_le_bytes(bytes);
                if $float { fold!($kind, x) } else { x }
            };
            let (raw, base) = ($raw.as_chunks::<SIZE>().0, $base.as_chunks::<SIZE>().0);
            for ((to, x), b) in $out.as_chunks_mut::<SIZE>().0.iter_mut().zip(raw).zip(base) {
                *to = fold!($kind, number(x).wrapping_sub(number(b))).to_le_bytes();
            }
        }};
    }
    out.resize(raw.len(), 0);
    each!(dtype, subtract, raw, base, out);
}

/// The reverse: `out` holds differences, and then the elements.
pub fn add(dtype: DType, base: &[u8], out: &mut [u8]) {
    macro_rules! add {
        ($kind:ty, $float:literal, $base:expr, $out:expr) => {{
            const SIZE: usize = size_of::<$kind>();
            for (to, &b) in $out.as_chunks_mut::<SIZE>().0.iter_mut().zip($base.as_chunks::<SIZE>().0) {
                let (difference, b) = (fold!($kind, <$kind>::from_le_bytes(*to)), <$kind>::from_le_bytes(b));
                let x = difference.wrapping_add(if $float { fold!($kind, b) } else { b });
                *to = (if $float { fold!($kind, x) } else { x }).to_le_bytes();
            }
        }};
    }
    each!(dtype, add, base, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn difference(dtype: DType, x: &[u8], base: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        subtract(dtype, x, base, &mut out);
        let mut back = out.clone();
        add(dtype, base, &mut back);
        assert_eq!(back, x, "{}", dtype.name());
        out
    }

    #[test]
    fn neighbors_differ_by_one_wherever_they_lie() {
        let (one, minus) = (1i32.to_le_bytes(), (i32::MIN).to_le_bytes());
        for x in [1.0f32, -1.0, 2.0, 1e-45, -1e-45, f32::MAX, -0.0] {
            let up = x.next_up();
            let up = if x.to_bits() == 1 << 31 { 0.0 } else { up };
            assert_eq!(difference(DType::F32, &up.to_le_bytes(), &x.to_le_bytes()), one, "{x}");
            // one down is minus one: a sign, and the magnitude counted from zero
            assert_eq!(difference(DType::F32, &x.to_le_bytes(), &up.to_le_bytes()), minus, "{x}");
        }
        assert_eq!(difference(DType::I32, &7i32.to_le_bytes(), &6i32.to_le_bytes()), one);
        assert_eq!(difference(DType::U8, &[0], &[255]), [1]);
    }

    #[test]
    fn what_is_equal_is_zero() {
        for dtype in DType::ALL {
            let bytes: Vec<u8> = (0..=255).collect();
            assert_eq!(difference(*dtype, &bytes, &bytes), vec![0; 256]);
        }
    }

    proptest! {
        #[test]
        fn every_bit_returns(
            pairs in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..512), kind in 0..DType::ALL.len(),
        ) {
            let (mut x, mut base): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let whole = x.len() - x.len() % DType::ALL[kind].size() as usize;
            x.truncate(whole);
            base.truncate(whole);
            difference(DType::ALL[kind], &x, &base);
        }
    }
}
