//! Sums of squares of tensors, and of differences between two: each byte is read once.

use crate::buffer::Bytes;
use crate::errors::raise;
use lamina_format::{DType, Error, Result};
use lamina_store::crew;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Sums that grow side by side, which a processor adds at once.
const LANES: usize = 32;
/// Elements that are summed in f32, at most 16 a sum: a relative error below 1e-6. The sums are added in f64.
const ROW: usize = 16 * LANES;
/// Elements that a thread takes at a time.
const SHARE: usize = 256 * ROW;

/// The sum of squares of each tensor, or of each difference from the tensor of the same place in `minus`.
///
/// The sums do not depend on the number of threads. Half precision is widened before it is subtracted or squared.
#[pyfunction]
#[pyo3(signature = (dtype, tensors, minus=None, *, threads=1))]
pub fn sums_of_squares(
    py: Python<'_>,
    dtype: &str,
    tensors: Vec<Bound<'_, PyAny>>,
    minus: Option<Vec<Bound<'_, PyAny>>>,
    threads: usize,
) -> PyResult<Vec<f64>> {
    let sum = DType::parse(dtype).and_then(summing).map_err(raise)?;
    let hold = |tensors: &[Bound<'_, PyAny>]| tensors.iter().map(Bytes::get).collect::<PyResult<Vec<_>>>();
    let (own, other) = (hold(&tensors)?, minus.as_deref().map(hold).transpose()?);
    let own: Vec<_> = own.iter().map(Bytes::as_slice).collect();
    let other: Option<Vec<_>> = other.as_ref().map(|held| held.iter().map(Bytes::as_slice).collect());
    if other.as_ref().is_some_and(|other| !own.iter().map(|one| one.len()).eq(other.iter().map(|one| one.len()))) {
        return Err(raise(Error::schema("what is subtracted has other sizes")));
    }
    Ok(py.detach(|| sums(&sum, &own, other.as_deref(), threads)))
}

/// How a stretch of a tensor is summed.
struct Summing {
    /// Bytes of an element.
    size: usize,
    of: fn(&[u8], Option<&[u8]>) -> f64,
}

fn summing(dtype: DType) -> Result<Summing> {
    let of = match dtype {
        DType::Bf16 => wide::of_bf16,
        DType::F16 => wide::of_f16,
        DType::F32 => wide::of_f32,
        DType::F64 => wide::of_f64,
        _ => return Err(Error::schema(format!("there are no sums of squares of {}", dtype.name()))),
    };
    Ok(Summing { size: dtype.size() as usize, of })
}

fn sums(sum: &Summing, own: &[&[u8]], other: Option<&[&[u8]]>, threads: usize) -> Vec<f64> {
    let length = SHARE * sum.size;
    let shares = |(at, one): (usize, &&[u8])| (0..one.len()).step_by(length).map(move |start| (at, start));
    let shares: Vec<_> = own.iter().enumerate().flat_map(shares).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![0.0; shares.len()]));
    let helpers = threads.min(shares.len()).saturating_sub(1);
    crew::together(helpers, &|| {
        loop {
            let share = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(at, start)) = shares.get(share) else { return };
            let part = start..own[at].len().min(start + length);
            let value = (sum.of)(&own[at][part.clone()], other.map(|other| &other[at][part]));
            found.lock().unwrap_or_else(PoisonError::into_inner)[share] = value;
        }
    });
    let mut sums = vec![0.0; own.len()];
    for (&(at, _), value) in shares.iter().zip(found.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        sums[at] += value;
    }
    sums
}

/// Numbers of one dtype that become f32.
mod wide {
    use super::{LANES, ROW};

    fn bf16(bytes: [u8; 2]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
    }

    fn f16(bytes: [u8; 2]) -> f32 {
        half::f16::from_le_bytes(bytes).to_f32()
    }

    /// On any processor, and for what is no whole row.
    fn plain<const SIZE: usize>(own: &[u8], other: Option<&[u8]>, value: impl Fn([u8; SIZE]) -> f32) -> f64 {
        let (own, other) = (own.as_chunks::<SIZE>().0, other.map(|other| other.as_chunks::<SIZE>().0));
        let mut total = 0.0;
        for (row, values) in own.chunks(ROW).enumerate() {
            let mut sums = [0.0f32; LANES];
            for (at, &one) in values.iter().enumerate() {
                let value = value(one) - other.map_or(0.0, |other| value(other[row * ROW + at]));
                sums[at % LANES] += value * value;
            }
            total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        total
    }

    pub fn of_f64(own: &[u8], other: Option<&[u8]>) -> f64 {
        let number = |&bytes: &[u8; 8]| f64::from_le_bytes(bytes);
        let square = |value: f64| value * value;
        let own = own.as_chunks().0.iter().map(number);
        match other {
            None => own.map(square).sum(),
            Some(other) => {
                own.zip(other.as_chunks().0.iter().map(number)).map(|(one, other)| square(one - other)).sum()
            }
        }
    }

    macro_rules! dtype {
        ($name:ident, $value:expr) => {
            pub fn $name(own: &[u8], other: Option<&[u8]>) -> f64 {
                #[cfg(target_arch = "x86_64")]
                if let Some((rows, sum)) = super::avx2::$name(own, other) {
                    return sum + plain(&own[rows..], other.map(|other| &other[rows..]), $value);
                }
                plain(own, other, $value)
            }
        };
    }

    dtype!(of_bf16, bf16);
    dtype!(of_f16, f16);
    dtype!(of_f32, f32::from_le_bytes);
}

/// The same loops for processors that know AVX2: what a compiler makes of the plain ones takes several times as long.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    #![allow(unsafe_code)]

    use super::{LANES, ROW};
    use std::arch::x86_64::*;

    /// Numbers in a register.
    const WIDTH: usize = 8;
    const REGISTERS: usize = LANES / WIDTH;

    macro_rules! dtype {
        ($name:ident, $rows:ident, $size:literal, $load:expr) => {
            /// The bytes in whole rows, and their sum; None where the processor is another.
            pub fn $name(own: &[u8], other: Option<&[u8]>) -> Option<(usize, f64)> {
                if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")) {
                    return None;
                }
                let rows = own.len() / (ROW * $size) * (ROW * $size);
                let own = &own[..rows];
                // SAFETY: the processor knows what the function is compiled for
                let sum = match other {
                    None => unsafe { $rows::<false>(own, own) },
                    Some(other) => unsafe { $rows::<true>(own, &other[..rows]) },
                };
                Some((rows, sum))
            }

            #[target_feature(enable = "avx2,f16c")]
            fn $rows<const MINUS: bool>(own: &[u8], other: &[u8]) -> f64 {
                let mut totals = [_mm256_setzero_pd(); 2 * REGISTERS];
                for row in 0..own.len().min(other.len()) / (ROW * $size) {
                    let mut sums = [_mm256_setzero_ps(); REGISTERS];
                    for block in 0..ROW / LANES {
                        for register in 0..REGISTERS {
                            let at = (row * ROW + block * LANES + register * WIDTH) * $size;
                            // SAFETY: both have whole rows, and `at` and what is loaded lie in one of them
                            let mut value = unsafe { $load(own.as_ptr().add(at)) };
                            if MINUS {
                                // SAFETY: as above
                                value = _mm256_sub_ps(value, unsafe { $load(other.as_ptr().add(at)) });
                            }
                            sums[register] = _mm256_add_ps(sums[register], _mm256_mul_ps(value, value));
                        }
                    }
                    for register in 0..REGISTERS {
                        let (low, high) = (2 * register, 2 * register + 1);
                        let half = _mm256_castps256_ps128(sums[register]);
                        totals[low] = _mm256_add_pd(totals[low], _mm256_cvtps_pd(half));
                        let half = _mm256_extractf128_ps::<1>(sums[register]);
                        totals[high] = _mm256_add_pd(totals[high], _mm256_cvtps_pd(half));
                    }
                }
                let mut lanes = [0.0; LANES];
                for (total, lanes) in totals.iter().zip(lanes.as_chunks_mut::<4>().0) {
                    // SAFETY: there is room for four
                    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), *total) };
                }
                lanes.iter().sum()
            }
        };
    }

    dtype!(of_bf16, rows_of_bf16, 2, |at: *const u8| {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())), 16))
    });
    dtype!(of_f16, rows_of_f16, 2, |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())));
    dtype!(of_f32, rows_of_f32, 4, |at: *const u8| _mm256_loadu_ps(at.cast()));
}
