//! Indexes of sparse codes by feature: how they stand, building one, and what they answer.

use crate::arrow::{self, ArrowArray};
use crate::errors::raise;
use crate::snapshot::Snapshot;
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array};
use arrow_buffer::MutableBuffer;
use lamina_format::record::Site;
use pyo3::prelude::*;
use std::sync::Arc;

type SegmentRow = (String, u64, u64, &'static str);

fn values(site: &Site, bytes: Vec<u8>) -> PyResult<ArrayRef> {
    let scalar = Site { shape: vec![], sparse: None, ..site.clone() };
    // an empty vector has no place, and that of others need not suit a value
    let aligned = !bytes.is_empty() && bytes.as_ptr().addr().is_multiple_of(size_of::<f32>());
    let buffer = if aligned {
        MutableBuffer::from(bytes)
    } else {
        let mut copy = MutableBuffer::with_capacity(bytes.len());
        copy.extend_from_slice(&bytes);
        copy
    };
    arrow::vectors(&scalar, buffer, true, None)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> PyResult<ArrowArray> {
    let rows = columns.first().map_or(0, |(_, array)| array.len());
    ArrowArray::batch(rows, columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect())
}

fn numbers(numbers: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(numbers))
}

/// The segments that hold codes of a site, in order: file, rows, units, and how its index stands.
#[pyfunction]
pub fn feature_indexes(py: Python<'_>, snapshot: &Snapshot, site: &str) -> PyResult<Vec<SegmentRow>> {
    let site = snapshot.0.site(site).map_err(raise)?;
    let segments = py.detach(|| snapshot.0.feature_indexes(site)).map_err(raise)?;
    Ok(segments.into_iter().map(|one| (one.file, one.rows, one.units, one.state.name())).collect())
}

/// Reads all indexes of a site: one that is damaged anywhere is known to be from then on.
#[pyfunction]
pub fn check_feature_indexes(py: Python<'_>, snapshot: &Snapshot, site: &str, threads: usize) -> PyResult<()> {
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| snapshot.0.check_feature_indexes(site, threads)).map_err(raise)
}

/// Builds or replaces the index of a segment's codes; returns its bytes.
#[pyfunction]
pub fn build_feature_index(
    py: Python<'_>,
    snapshot: &Snapshot,
    site: &str,
    file: &str,
    threads: usize,
) -> PyResult<u64> {
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| snapshot.0.build_feature_index(site, file, threads)).map_err(raise)
}

/// How many units some features have, as far as indexes answer, those of hidden rows included.
#[pyfunction]
pub fn indexed_count(py: Python<'_>, snapshot: &Snapshot, site: &str, features: Bound<'_, PyAny>) -> PyResult<u64> {
    let features = crate::buffer::Bytes::get(&features)?.as_i64s();
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| snapshot.0.indexed_count(site, &features)).map_err(raise)
}

/// All units of some features, as far as indexes answer: the groups that they answer for, how many units each of these has,
/// and a record batch.
#[pyfunction]
pub fn indexed_units(
    py: Python<'_>,
    snapshot: &Snapshot,
    site: &str,
    features: Bound<'_, PyAny>,
    threads: usize,
) -> PyResult<(Vec<i64>, Vec<usize>, ArrowArray)> {
    let features = crate::buffer::Bytes::get(&features)?.as_i64s();
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| {
        let units = snapshot.0.indexed_units(site, &features, threads).map_err(raise)?;
        let columns = vec![
            ("row", numbers(units.rows)),
            ("feature", numbers(units.features)),
            ("value", values(site, units.values)?),
        ];
        let (groups, sizes) = units.groups.into_iter().unzip();
        Ok((groups, sizes, batch(columns)?))
    })
}

/// The strongest units of a feature, as far as indexes answer: the groups that they answer for, and a record batch.
#[pyfunction]
pub fn top_units(
    py: Python<'_>,
    snapshot: &Snapshot,
    site: &str,
    feature: i64,
    k: usize,
) -> PyResult<(Vec<i64>, ArrowArray)> {
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| {
        let (groups, units) = snapshot.0.top_units(site, feature, k).map_err(raise)?;
        let size = site.dtype.size() as usize;
        let bytes = units.iter().flat_map(|unit| unit.bits.to_le_bytes().into_iter().take(size)).collect();
        let columns = vec![
            ("group", numbers(units.iter().map(|unit| unit.group as i64).collect())),
            ("position", numbers(units.iter().map(|unit| unit.position as i64).collect())),
            ("row", numbers(units.iter().map(|unit| unit.row).collect())),
            ("value", values(site, bytes)?),
        ];
        Ok((groups, batch(columns)?))
    })
}

/// What each feature does over all rows: a record batch with a row a feature, in order.
#[pyfunction]
pub fn feature_stats(py: Python<'_>, snapshot: &Snapshot, site: &str, threads: usize) -> PyResult<ArrowArray> {
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| {
        let stats = snapshot.0.feature_stats(site, threads).map_err(raise)?;
        let float = |column: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(column)) };
        let int = |column: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(column)) };
        let [q10, q50, q90, q99] = stats.quantiles;
        batch(vec![
            ("feature", numbers((0..stats.counts.len() as i64).collect())),
            ("count", numbers(stats.counts)),
            ("mean", float(stats.means)),
            ("max", float(stats.greatest)),
            ("q10", float(q10)),
            ("q50", float(q50)),
            ("q90", float(q90)),
            ("q99", float(q99)),
            ("first_step", int(stats.first_steps)),
            ("last_step", int(stats.last_steps)),
        ])
    })
}
