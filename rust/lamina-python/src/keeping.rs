//! `lamina._core.Progress`, and what is done to a run as a whole.

use crate::errors::raise;
use crate::snapshot::Snapshot;
use lamina_store::keep;
use lamina_store::storage::{Files, Storage};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::time::Duration;

/// How far such work has got.
#[pyclass(frozen, module = "lamina._core")]
#[derive(Default)]
pub struct Progress(keep::Progress);

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn bytes(&self) -> (u64, u64) {
        self.0.bytes()
    }

    fn stop(&self) {
        self.0.stop();
    }
}

type ErrorRow = (String, Option<String>, Option<u64>);

#[pyfunction]
pub fn compact<'py>(
    py: Python<'py>,
    path: &str,
    cold: Vec<String>,
    progress: &Progress,
) -> PyResult<Bound<'py, PyDict>> {
    let done = py.detach(|| keep::compact(&storage(path), &cold, &progress.0)).map_err(raise)?;
    let row = |error: lamina_format::Error| -> ErrorRow { (error.message, error.file, error.offset) };
    let dict = PyDict::new(py);
    dict.set_item("groups_before", done.before)?;
    dict.set_item("groups_after", done.after)?;
    dict.set_item("rows_dropped", done.rows)?;
    dict.set_item("bytes_before", done.bytes_before)?;
    dict.set_item("bytes_after", done.bytes_after)?;
    dict.set_item("chunks", done.chunks)?;
    dict.set_item("chunk_bytes_before", done.chunk_bytes_before)?;
    dict.set_item("chunk_bytes_after", done.chunk_bytes_after)?;
    dict.set_item("working", done.working)?;
    dict.set_item("damages", done.damages.into_iter().map(row).collect::<Vec<_>>())?;
    Ok(dict)
}

#[pyfunction]
pub fn gc<'py>(py: Python<'py>, path: &str, grace: Option<f64>, progress: &Progress) -> PyResult<Bound<'py, PyDict>> {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let grace = grace.map_or(keep::GRACE, seconds);
    let done = py.detach(|| keep::gc(&storage(path), grace, &progress.0)).map_err(raise)?;
    let dict = PyDict::new(py);
    dict.set_item("condemned", done.condemned)?;
    dict.set_item("removed", done.removed)?;
    dict.set_item("bytes_freed", done.bytes)?;
    dict.set_item("rows_dropped", done.rows)?;
    dict.set_item("left", done.left)?;
    dict.set_item("working", done.working)?;
    Ok(dict)
}

#[pyfunction]
pub fn merge(
    py: Python<'_>,
    runs: Vec<(String, PyRef<'_, Snapshot>)>,
    path: &str,
    config: &str,
    progress: &Progress,
) -> PyResult<()> {
    let merged =
        |(name, snapshot): (String, PyRef<'_, Snapshot>)| keep::Merged { snapshot: Arc::clone(&snapshot.0), name };
    let runs: Vec<keep::Merged> = runs.into_iter().map(merged).collect();
    py.detach(|| keep::merge(&runs, config, &Files::new(path), &progress.0)).map_err(raise)
}

type DamageRow = (String, Option<String>, Option<u64>, String);

fn storage(path: &str) -> Arc<dyn Storage> {
    Arc::new(Files::new(path))
}

#[pyfunction]
pub fn verify(py: Python<'_>, path: &str, progress: &Progress) -> PyResult<(u64, u64, Vec<DamageRow>)> {
    let found = py.detach(|| keep::verify(&storage(path), &progress.0)).map_err(raise)?;
    let row = |damage: keep::Damage| (damage.error.message, damage.error.file, damage.error.offset, damage.affected);
    Ok((found.files, found.bytes, found.damages.into_iter().map(row).collect()))
}
