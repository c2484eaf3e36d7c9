//! Going back: `rewind` and `delete`.

use crate::errors::raise;
use lamina_store::hide::{self, Deletion};
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
