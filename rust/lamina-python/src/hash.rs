//! Hashes of texts that Python hands over, many at a time.

use crate::buffer::Bytes;
use crate::errors::raise;
use lamina_format::{Error, Result, checksum};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The first eight bytes of each text's BLAKE3, little-endian, modulo `count`.
#[pyfunction]
pub fn hash_buckets<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    count: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    let (data, offsets) = (Bytes::get(data)?, Bytes::get(offsets)?);
    let buckets = py.detach(|| buckets(data.as_slice(), &offsets.as_i64s(), count)).map_err(raise)?;
    Ok(PyBytes::new(py, &buckets))
}

fn buckets(data: &[u8], offsets: &[i64], count: u8) -> Result<Vec<u8>> {
    if count == 0 {
        return Err(Error::schema("there is no bucket to hash into"));
    }
    let one = |ends: &[i64]| {
        let text = usize::try_from(ends[0]).ok().zip(usize::try_from(ends[1]).ok());
        let text = text.and_then(|(start, end)| data.get(start..end));
        let hash = checksum::hash(text.ok_or_else(|| Error::schema("an offset lies outside of the data"))?);
        let first = hash.iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Ok((first % u64::from(count)) as u8)
    };
    offsets.windows(2).map(one).collect()
}
