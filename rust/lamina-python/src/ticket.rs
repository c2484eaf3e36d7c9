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
            State::Dropped => "dropped",
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

    /// Asks for a durable point; the future ends when it is made, without a thread of its own.
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let events = py.import("asyncio")?.call_method0("get_running_loop")?;
        let future = events.call_method0("create_future")?;
        let (events, waiting) = (events.unbind(), future.clone().unbind());
        let settle = wrap_pyfunction!(settle, py)?.unbind();
        let tell = move |result: lamina_format::Result<()>| {
            // where the interpreter has ended or the loop is closed nobody waits any more
            Python::try_attach(|py| {
                let error = result.err().map(|error| raise(error).into_value(py));
                let _ = events.call_method1(py, "call_soon_threadsafe", (settle, waiting, error));
            });
        };
        py.detach(|| self.0.on_done(Box::new(tell))).map_err(raise)?;
        future.call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        format!("Ticket({})", self.state())
    }
}

/// Ends a future, if nobody has cancelled it.
#[pyfunction]
fn settle(future: &Bound<'_, PyAny>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if !future.call_method0("done")?.is_truthy()? {
        match error {
            Some(error) => future.call_method1("set_exception", (error,))?,
            None => future.call_method1("set_result", (true,))?,
        };
    }
    Ok(())
}
