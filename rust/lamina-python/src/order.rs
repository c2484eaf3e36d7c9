//! `lamina._core.Order`.

use crate::errors::raise;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The order of an epoch.
#[pyclass(frozen, module = "lamina._core")]
pub struct Order(lamina_store::order::Order);

#[pymethods]
impl Order {
    #[staticmethod]
    fn stored(rows: u64) -> Self {
        Self(lamina_store::order::Order::stored(rows))
    }

    #[staticmethod]
    fn exact(rows: u64, seed: i64, epoch: u64) -> Self {
        Self(lamina_store::order::Order::exact(rows, seed, epoch))
    }

    #[staticmethod]
    fn block(rows: u64, seed: i64, epoch: u64, run: u64, window: u64) -> PyResult<Self> {
        lamina_store::order::Order::block(rows, seed, epoch, run, window).map(Self).map_err(raise)
    }

    fn __len__(&self) -> usize {
        self.0.len() as usize
    }

    fn rows<'py>(&self, py: Python<'py>, start: u64, stop: u64) -> PyResult<Bound<'py, PyBytes>> {
        let rows = py.detach(|| self.0.rows(start..stop)).map_err(raise)?;
        PyBytes::new_with(py, 8 * rows.len(), |bytes| {
            bytes.as_chunks_mut().0.iter_mut().zip(&rows).for_each(|(bytes, row)| *bytes = row.to_le_bytes());
            Ok(())
        })
    }

    fn ahead(&self, place: u64, most: u64) -> (u64, Vec<(u64, u64)>) {
        let (places, spans) = self.0.ahead(place, most);
        (places.end, spans.into_iter().map(|span| (span.start, span.end)).collect())
    }
}
