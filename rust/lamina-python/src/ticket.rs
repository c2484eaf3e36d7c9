//! `lamina._core.Ticket`.

use crate::errors::raise;
use lamina_store::writer::{PATIENCE, State};
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// What became of one append or save.
#[pyclass(frozen, module = "lamina._core")]
pub struct Ticket(pub lamina_store::Ticket);

#[pymethods]
impl Ticket {
    #[getter]
    fn state(&self) -> &'static str {
        match self.0.state() {
            State::Staged => "staged",
            State::Written => "written",
            State::Durable => "durable",
            State::Failed => "failed",
        }
    }

    #[getter]
    fn error(&self) -> Option<PyErr> {
        self.0.error().map(raise)
    }

    #[pyo3(signature = (timeout=None))]
    pub fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let start = Instant::now();
        let limit = timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
        loop {
            let left = limit.map_or(PATIENCE, |limit| limit.saturating_sub(start.elapsed()).min(PATIENCE));
            if py.detach(|| self.0.wait(left)).map_err(raise)? {
                return Ok(true);
            }
            // Ctrl-C ends the wait, not the write
            py.check_signals()?;
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                return Ok(false);
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("Ticket({})", self.state())
    }
}
