//! The histogram of a feature's values: 8 bins for each doubling.

use crate::posting::value;
use crate::{DType, Error, Result};
use std::sync::LazyLock;

/// Bins that there are: those of negative values, zero, those of positive ones, and the last for what is no number.
pub const BINS: usize = 8192;
const ZERO: i32 = 4096;
/// The bin of infinities and NaN.
pub const OTHER: u16 = BINS as u16 - 1;
/// Bins of a doubling, and where the bin of 1.0 stands behind the one of zero.
const EACH: i32 = 8;
const ONE: i32 = ZERO / 2;

/// Mantissas at which a bin begins: those of 2^(j/8), rounded up.
const STARTS: [u32; 7] = [759_234, 1_587_185, 2_490_071, 3_474_676, 4_548_395, 5_719_293, 6_996_167];

/// For each start of a mantissa, its first eight bits, the bin that it begins in: each holds one start of a bin at most.
const BY_START: [u8; 256] = {
    let mut bins = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut bin = 0;
        while bin < 7 && STARTS[bin] <= (at as u32) << 15 {
            bin += 1;
        }
        bins[at] = bin as u8;
        at += 1;
    }
    bins
};

/// The bin of a value: those of absolute values ascend from above zero, those of negative ones descend from below it.
#[inline]
pub fn bin(value: f32) -> u16 {
    if !value.is_finite() {
        return OTHER;
    }
    let mut size = value.to_bits() & !(1 << 31);
    let mut exponent = -127;
    if size < 1 << 23 {
        if size == 0 {
            return ZERO as u16;
        }
        // subnormal: with 24 doublings it is not
        size = (f32::from_bits(size) * 16_777_216.0).to_bits();
        exponent -= 24;
    }
    exponent += (size >> 23) as i32;
    let mantissa = size & ((1 << 23) - 1);
    let start = BY_START[(mantissa >> 15) as usize];
    let beyond = STARTS.get(start as usize).is_some_and(|&next| mantissa >= next);
    let place = ONE + EACH * exponent + i32::from(start) + i32::from(beyond);
    (if value > 0.0 { ZERO + place } else { ZERO - place }) as u16
}

/// The middle of a bin, in the measure that the bins are equal in.
pub fn middle(bin: u16) -> f64 {
    let place = i32::from(bin) - ZERO;
    let size = (f64::from(place.abs() - ONE) + 0.5) / f64::from(EACH) * std::f64::consts::LN_2;
    f64::from(place.signum()) * size.exp()
}

/// The middle of the first bin up to which at least this part of the finite values lies; bins ascend.
pub fn quantile(bins: &[(u16, u64)], part: f64) -> Option<f64> {
    let finite = || bins.iter().filter(|(bin, _)| *bin != OTHER);
    let wanted = part * finite().map(|(_, count)| count).sum::<u64>() as f64;
    let mut upto = 0;
    finite()
        .find(|(_, count)| {
            upto += count;
            upto as f64 >= wanted
        })
        .map(|(bin, _)| middle(*bin))
}

/// The bin of each value of two bytes.
type OfHalves = [u16; 1 << 16];

static OF_F16: LazyLock<Box<OfHalves>> = LazyLock::new(|| of_halves(DType::F16));
static OF_BF16: LazyLock<Box<OfHalves>> = LazyLock::new(|| of_halves(DType::Bf16));

fn of_halves(dtype: DType) -> Box<OfHalves> {
    let mut bins = Box::new([0; 1 << 16]);
    bins.iter_mut().zip(0..).for_each(|(of, bits)| *of = bin(value(dtype, bits)));
    bins
}

/// Values that are counted by their bins.
pub struct Counter {
    counts: Box<[u32; BINS]>,
    least: usize,
    greatest: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self { counts: Box::new([0; BINS]), least: BINS, greatest: 0 }
    }
}

impl Counter {
    /// Counts the values of units.
    pub fn add(&mut self, dtype: DType, units: &[u64]) {
        let of_halves = |bins: &'static OfHalves| move |unit: u64| bins[usize::from(unit as u16)];
        match dtype {
            DType::F16 => self.count(units, of_halves(&OF_F16)),
            DType::Bf16 => self.count(units, of_halves(&OF_BF16)),
            _ => self.count(units, |unit| bin(value(dtype, unit as u32))),
        }
    }

    fn count(&mut self, units: &[u64], bin: impl Fn(u64) -> u16) {
        let (mut least, mut greatest) = (self.least, self.greatest);
        for &unit in units {
            let bin = usize::from(bin(unit)) % BINS;
            self.counts[bin] += 1;
            (least, greatest) = (least.min(bin), greatest.max(bin));
        }
        (self.least, self.greatest) = (least, greatest);
    }

    /// Takes out what was counted: the bins that have values, ascending.
    pub fn take(&mut self, mut each: impl FnMut(u16, u32)) {
        for bin in self.least..=self.greatest {
            if self.counts[bin] > 0 {
                each(bin as u16, std::mem::take(&mut self.counts[bin]));
            }
        }
        (self.least, self.greatest) = (BINS, 0);
    }
}

fn put(mut number: u32, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return u32::try_from(number).ok();
        }
    }
    None
}

/// Puts the bins that a counter holds behind `out`: of each how far it stands behind the one before, and how many values it
/// has, in groups of 7 bits with the top bit set if more follow.
pub fn write(counter: &mut Counter, out: &mut Vec<u8>) {
    let mut before = 0;
    counter.take(|bin, count| {
        put(u32::from(bin) - before, out);
        put(count, out);
        before = u32::from(bin);
    });
}

/// Hands on the bins of a histogram of so many values.
pub fn read(mut bytes: &[u8], values: u32, mut each: impl FnMut(u16, u32)) -> Result<()> {
    let wrong = || Error::damaged("the histogram of a feature is none of its values");
    let (mut bin, mut total, mut first) = (0u32, 0u64, true);
    while !bytes.is_empty() {
        let step = get(&mut bytes).filter(|&step| step > 0 || first).ok_or_else(wrong)?;
        let count = get(&mut bytes).filter(|&count| count > 0).ok_or_else(wrong)?;
        bin = bin.checked_add(step).filter(|&bin| bin < BINS as u32).ok_or_else(wrong)?;
        (total, first) = (total + u64::from(count), false);
        each(bin as u16, count);
    }
    if total == u64::from(values) { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_logarithm(value: f32) -> u16 {
        let value = f64::from(value);
        let size = (value.abs().log2() * 8.0).floor() as i32 + ONE;
        (if value > 0.0 { ZERO + size } else { ZERO - size }) as u16
    }

    proptest! {
        #[test]
        fn bins_are_eighths_of_doublings(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            if value.is_finite() && value != 0.0 {
                prop_assert_eq!(bin(value), by_logarithm(value), "{}", value);
                prop_assert!((middle(bin(value)) / f64::from(value)).ln().abs() <= std::f64::consts::LN_2 / 16.0 + 1e-9);
            }
        }

        #[test]
        fn histograms_come_back_and_lies_are_told(values in proptest::collection::vec(any::<f32>(), 0..200)) {
            let mut counter = Counter::default();
            counter.add(DType::F32, &values.iter().map(|value| value.to_bits().into()).collect::<Vec<u64>>());
            let mut bytes = Vec::new();
            write(&mut counter, &mut bytes);
            let mut bins: Vec<u16> = Vec::new();
            read(&bytes, values.len() as u32, |bin, count| bins.extend((0..count).map(|_| bin))).expect("honest");
            let mut wanted: Vec<u16> = values.iter().map(|&value| bin(value)).collect();
            wanted.sort_unstable();
            prop_assert_eq!(bins, wanted);
            let more = read(&bytes, values.len() as u32 + 1, |_, _| {});
            prop_assert!(more.is_err());
        }

        #[test]
        fn any_bytes_are_bins_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60), values in any::<u32>()) {
            let mut last = None;
            let _ = read(&bytes, values, |bin, count| {
                assert!(count > 0 && usize::from(bin) < BINS && last.is_none_or(|last| last < bin));
                last = Some(bin);
            });
        }
    }

    #[test]
    fn values_of_two_bytes_are_counted_by_the_same_bins() {
        for dtype in [DType::F16, DType::Bf16] {
            let units: Vec<u64> = (0..1 << 16).map(|bits| 9 << 32 | bits).collect();
            let mut wanted = vec![0; BINS];
            units.iter().for_each(|&unit| wanted[usize::from(bin(value(dtype, unit as u32)))] += 1);
            let (mut counter, mut found) = (Counter::default(), vec![0; BINS]);
            counter.add(dtype, &units);
            counter.take(|bin, count| found[usize::from(bin)] = count);
            assert_eq!(found, wanted, "{dtype:?}");
        }
    }

    #[test]
    fn starts_of_bins_belong_to_them() {
        for (power, values) in [(1.0f32, [1.0f32, 1.090_507_7, 1.090_507_9]), (-4.0, [-4.0, -4.362_030_5, -4.362_032])]
        {
            let bins = values.map(bin);
            assert_eq!(bins, values.map(by_logarithm), "{power}");
        }
        for exponent in -149..128 {
            let power = 2f64.powi(exponent) as f32;
            assert_eq!(i32::from(bin(power)), ZERO + ONE + 8 * exponent, "2^{exponent}");
        }
        assert_eq!((bin(0.0), bin(f32::INFINITY), bin(f32::NAN)), (ZERO as u16, OTHER, OTHER));
    }

    #[test]
    fn quantiles_leave_out_what_is_no_number() {
        let one = bin(1.0);
        let bins = [(bin(-2.0), 1), (one, 8), (bin(4.0), 1), (OTHER, 90)];
        assert_eq!(quantile(&bins, 0.5), Some(middle(one)));
        assert_eq!(quantile(&bins, 0.1), Some(middle(bin(-2.0))));
        assert_eq!(quantile(&bins, 0.99), Some(middle(bin(4.0))));
        assert_eq!(quantile(&[(OTHER, 3)], 0.5), None);
    }
}
