//! Where a mask of Polars' is true, without a byte for each row in between.

use crate::errors::raise;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;
use lamina_format::Error;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3_arrow::PyChunkedArray;

/// The positions of what is true, i64 each, ascending. What is null is not true.
#[pyfunction]
pub fn where_true(py: Python<'_>, mask: PyChunkedArray) -> PyResult<Bound<'_, PyBytes>> {
    if *mask.data_type() != DataType::Boolean {
        return Err(raise(Error::schema(format!("a mask of {}", mask.data_type()))));
    }
    let (mut bits, mut start) = (Vec::with_capacity(mask.chunks().len()), 0);
    for chunk in mask.chunks() {
        let chunk = chunk.as_boolean();
        let valid = chunk.nulls().filter(|nulls| nulls.null_count() > 0);
        let here = valid.map_or_else(|| chunk.values().clone(), |nulls| chunk.values() & nulls.inner());
        bits.push((start, here));
        start += chunk.values().len() as i64;
    }
    let count: usize = bits.iter().map(|(_, bits)| bits.count_set_bits()).sum();
    PyBytes::new_with(py, 8 * count, |bytes| {
        let positions = bits.iter().flat_map(|(start, bits)| bits.set_indices().map(move |at| start + at as i64));
        bytes.as_chunks_mut().0.iter_mut().zip(positions).for_each(|(bytes, at)| *bytes = at.to_le_bytes());
        Ok(())
    })
}
