//! Sparse codes as callers have them, on their way to the form that is stored.

use lamina_format::segment::{MOST_ACTIVE, WIDEST};
use lamina_format::sparse::Codes;
use lamina_format::{DType, Error, Result};

/// How the entries lie in rows.
#[derive(Clone, Copy)]
pub enum Bounds<'a> {
    /// So many to each row; a feature below 0 stands for none.
    Each(usize),
    /// Row i has those from the i-th to before the next: rows + 1 numbers.
    Between(&'a [i64]),
}

/// Entries of codes, in any order within a row.
pub struct Entries<'a> {
    /// How they lie in rows.
    pub bounds: Bounds<'a>,
    /// The type of the ids: integers, but for u64.
    pub id_dtype: DType,
    /// The feature of each.
    pub ids: &'a [u8],
    /// The type of the values: f16, bf16 or f32.
    pub dtype: DType,
    /// The value of each.
    pub values: &'a [u8],
}

/// What becomes of a feature that stands twice in a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// It is an error.
    Refused,
    /// Its values are added, in f32.
    Summed,
}

impl Entries<'_> {
    /// The codes of `rows` rows and `width` features: ids ascend in a row, and what is zero is left out.
    pub fn codes(&self, rows: usize, width: u64, twice: Twice) -> Result<Codes> {
        if width == 0 || width > WIDEST || !self.dtype.is_for_codes() {
            let text = format!("codes of {width} features, {}", self.dtype.name());
            return Err(Error::schema(text).hint(format!("1 to {WIDEST} features; values are f16, bf16 or f32")));
        }
        match self.id_dtype {
            DType::I64 => self.sorted::<8>(rows, width, twice, i64::from_le_bytes),
            DType::I32 => self.sorted::<4>(rows, width, twice, |bytes| i32::from_le_bytes(bytes).into()),
            DType::U32 => self.sorted::<4>(rows, width, twice, |bytes| u32::from_le_bytes(bytes).into()),
            DType::I16 => self.sorted::<2>(rows, width, twice, |bytes| i16::from_le_bytes(bytes).into()),
            DType::U16 => self.sorted::<2>(rows, width, twice, |bytes| u16::from_le_bytes(bytes).into()),
            DType::I8 => self.sorted::<1>(rows, width, twice, |bytes| i8::from_le_bytes(bytes).into()),
            DType::U8 => self.sorted::<1>(rows, width, twice, |bytes| bytes[0].into()),
            other => {
                let text = format!("ids of features are {}", other.name());
                Err(Error::schema(text).hint("give integers, such as i32"))
            }
        }
    }

    fn sorted<const ID: usize>(
        &self,
        rows: usize,
        width: u64,
        twice: Twice,
        number: impl Fn([u8; ID]) -> i64,
    ) -> Result<Codes> {
        let (ids, size) = (self.ids.as_chunks::<ID>().0, self.dtype.size() as usize);
        let count = ids.len();
        if self.values.len() != count * size || self.ids.len() != count * ID {
            return Err(Error::schema(format!("codes have {count} ids and {} bytes of values", self.values.len())));
        }
        match self.bounds {
            Bounds::Each(each) if rows.checked_mul(each) != Some(count) => {
                return Err(Error::schema(format!("{rows} rows of {each} entries have {count} ids")));
            }
            Bounds::Between(ends)
                if ends.len() != rows + 1
                    || ends[0] != 0
                    || ends.windows(2).any(|pair| pair[0] > pair[1])
                    || ends[rows] as usize != count =>
            {
                let text = format!("row pointers do not lead through {count} entries of {rows} rows");
                return Err(Error::schema(text).hint("rows + 1 of them ascend from 0 to the number of entries"));
            }
            _ => {}
        }
        let mut codes = Codes { indptr: Vec::with_capacity(rows + 1), ids: Vec::new(), values: Vec::new() };
        codes.ids.reserve(count);
        codes.values.reserve(count * size);
        codes.indptr.push(0);
        // a feature and the bits of its value, so that to sort them is to sort numbers
        let mut keys: Vec<u64> = Vec::new();
        for row in 0..rows {
            let (from, to, padded) = match self.bounds {
                Bounds::Each(each) => (row * each, (row + 1) * each, true),
                Bounds::Between(ends) => (ends[row] as usize, ends[row + 1] as usize, false),
            };
            keys.clear();
            let (mut ascends, mut least) = (true, 0);
            for (at, &id) in (from..to).zip(&ids[from..to]) {
                let id = number(id);
                if id < 0 && padded {
                    continue;
                }
                if !(0..width as i64).contains(&id) {
                    let text = format!("row {row} of the codes has feature {id}, there are {width}");
                    return Err(Error::schema(text).hint(format!("features are 0 to {}", width - 1)));
                }
                let key = (id as u64) << 32 | u64::from(self.bits(at));
                ascends &= id >= least;
                least = id + 1;
                keys.push(key);
            }
            if !ascends {
                keys.sort_unstable();
            }
            self.push(&mut codes, &keys, twice).map_err(|feature| {
                let text = format!("row {row} of the codes has feature {feature} twice");
                Error::schema(text).hint("duplicates=\"sum\" adds their values")
            })?;
            let units = codes.ids.len();
            if units as u64 > MOST_ACTIVE {
                return Err(Error::schema("codes of one call have 2^32 active units or more").hint("give fewer rows"));
            }
            codes.indptr.push(units as u32);
        }
        Ok(codes)
    }

    fn bits(&self, at: usize) -> u32 {
        match self.dtype {
            DType::F32 => u32::from_le_bytes(self.values.as_chunks().0[at]),
            _ => u16::from_le_bytes(self.values.as_chunks().0[at]).into(),
        }
    }

    /// Adds the entries of a row, in order of their features; the feature that stands there twice if that is refused.
    fn push(&self, codes: &mut Codes, keys: &[u64], twice: Twice) -> std::result::Result<(), u32> {
        for alike in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
            let (id, mut bits) = ((alike[0] >> 32) as u32, alike[0] as u32);
            if alike.len() > 1 {
                if twice == Twice::Refused {
                    return Err(id);
                }
                bits = self.narrow(alike.iter().map(|&key| self.wide(key as u32)).sum());
            }
            match self.dtype {
                // without the sign a zero has no bits
                DType::F32 if bits << 1 != 0 => codes.values.extend_from_slice(&bits.to_le_bytes()),
                DType::F16 | DType::Bf16 if bits << 17 != 0 => {
                    codes.values.extend_from_slice(&(bits as u16).to_le_bytes())
                }
                _ => continue,
            }
            codes.ids.push(id);
        }
        Ok(())
    }

    fn wide(&self, bits: u32) -> f32 {
        match self.dtype {
            DType::F32 => f32::from_bits(bits),
            DType::F16 => half::f16::from_bits(bits as u16).to_f32(),
            _ => half::bf16::from_bits(bits as u16).to_f32(),
        }
    }

    fn narrow(&self, value: f32) -> u32 {
        match self.dtype {
            DType::F32 => value.to_bits(),
            DType::F16 => half::f16::from_f32(value).to_bits().into(),
            _ => half::bf16::from_f32(value).to_bits().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn each(k: usize, ids: &[i64], values: &[f32], width: u64, twice: Twice) -> Result<Codes> {
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let values = bytes(values);
        let bounds = Bounds::Each(k);
        let entries = Entries { bounds, id_dtype: DType::I64, ids: &ids, dtype: DType::F32, values: &values };
        entries.codes(ids.len() / 8 / k, width, twice)
    }

    #[test]
    fn features_ascend_and_zeros_and_padding_are_left_out() {
        let ids = [8, 3, -1, 5, 3, 9];
        let codes = each(3, &ids, &[1.0, 2.0, 7.0, -0.0, f32::NAN, 0.0], 10, Twice::Refused).expect("codes");
        assert_eq!((codes.indptr, codes.ids), (vec![0, 2, 3], vec![3, 8, 3]));
        assert_eq!(codes.values, bytes(&[2.0, 1.0, f32::NAN]));
    }

    #[test]
    fn what_stands_twice_is_refused_or_added() {
        let (ids, values) = ([4, 7, 4, 7], [1.5, 1.0, 2.0, -1.0]);
        let error = each(4, &ids, &values, 8, Twice::Refused).expect_err("twice");
        assert!(error.message.contains("feature 4 twice"), "{error}");
        let codes = each(4, &ids, &values, 8, Twice::Summed).expect("codes");
        assert_eq!((codes.ids, codes.values), (vec![4], bytes(&[3.5])));
    }

    #[test]
    fn features_beyond_the_width_and_row_pointers_that_lie_are_refused() {
        assert!(each(1, &[8], &[1.0], 8, Twice::Refused).expect_err("beyond").message.contains("feature 8"));
        let between = |ends: &[i64]| {
            let values = bytes(&[1.0, 2.0]);
            let bounds = Bounds::Between(ends);
            let ids = &[1, 0, 0, 0];
            Entries { bounds, id_dtype: DType::U16, ids, dtype: DType::F32, values: &values }.codes(
                2,
                4,
                Twice::Refused,
            )
        };
        assert_eq!(between(&[0, 2, 2]).expect("codes").ids, [0, 1]);
        for ends in [&[0, 1][..], &[1, 1, 2], &[0, 3, 2], &[0, 1, 3], &[0, -1, 2], &[]] {
            assert!(between(ends).is_err(), "{ends:?}");
        }
    }

    #[test]
    fn sums_are_rounded_once_in_half_precision() {
        for (dtype, one, sum) in [(DType::F16, 0x3c00u16, 0x4200u16), (DType::Bf16, 0x3f80, 0x4040)] {
            let values: Vec<u8> = [one; 3].iter().flat_map(|bits| bits.to_le_bytes()).collect();
            let ids = [2u8, 0, 2, 0, 2, 0];
            let entries = Entries { bounds: Bounds::Each(3), id_dtype: DType::I16, ids: &ids, dtype, values: &values };
            assert_eq!(entries.codes(1, 3, Twice::Summed).expect("codes").values, sum.to_le_bytes());
        }
    }
}
