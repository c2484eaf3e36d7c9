//! Going back: `rewind`, `delete`, `discard`.

use crate::errors::raise;
use lamina_format::record::Position;
use lamina_store::hide::{self, Deletion, Discarded};
use lamina_store::storage::Files;
use pyo3::prelude::*;

/// Hide what was recorded from a step on.
#[pyfunction]
pub fn rewind(py: Python<'_>, path: &str, step: i64) -> PyResult<()> {
    py.detach(|| hide::rewind(&Files::new(path), step)).map_err(raise)
}

/// Hide rows, or what they hold of some sites.
#[pyfunction]
pub fn delete(
    py: Python<'_>,
    path: &str,
    sites: Vec<String>,
    steps: Vec<(i64, i64)>,
    rows: Vec<(i64, i64)>,
) -> PyResult<()> {
    let what = Deletion { sites: &sites, steps: &steps, rows: &rows };
    py.detach(|| hide::delete(&Files::new(path), &what)).map_err(raise)
}

/// Where every log ends now: writer and frames.
#[pyfunction]
pub fn positions(py: Python<'_>, path: &str) -> PyResult<Vec<(u32, u64)>> {
    let ends = py.detach(|| hide::positions(&Files::new(path))).map_err(raise)?;
    Ok(ends.into_iter().map(|end| (end.writer, end.frames)).collect())
}

/// Hide parts of checkpoints that were saved before these places.
#[pyfunction]
pub fn discard(py: Python<'_>, path: &str, what: Vec<Discarded>, before: Vec<(u32, u64)>) -> PyResult<()> {
    let before: Vec<Position> = before.into_iter().map(|(writer, frames)| Position { writer, frames }).collect();
    py.detach(|| hide::discard(&Files::new(path), &what, &before)).map_err(raise)
}
