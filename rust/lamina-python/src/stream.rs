//! `lamina._core.CheckpointStream`.

use crate::buffer::Bytes;
use crate::errors::raise;
use lamina_format::record::TensorSpec;
use lamina_format::{DType, Error, ErrorKind};
use lamina_store::storage::Files;
use lamina_store::writer::{self, StreamedPart};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Writes checkpoints that come piece by piece.
#[pyclass(frozen, module = "lamina._core")]
pub struct CheckpointStream(Mutex<Option<writer::CheckpointStream>>);

type Spec = (String, String, Vec<u64>);
type Part = (String, String, String, Vec<Spec>, PyBackedBytes);

impl CheckpointStream {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut writer::CheckpointStream) -> lamina_format::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            act(stream.as_mut().ok_or_else(|| Error::new(ErrorKind::Writer, "the stream is closed"))?)
        })
        .map_err(raise)
    }
}

#[pymethods]
impl CheckpointStream {
    #[new]
    #[pyo3(signature = (path, work=None))]
    fn new(py: Python<'_>, path: &str, work: Option<String>) -> PyResult<Self> {
        let open = || writer::CheckpointStream::open(Arc::new(Files::new(path)), work);
        Ok(Self(Mutex::new(Some(py.detach(open).map_err(raise)?))))
    }

    fn put<'py>(&self, py: Python<'py>, dtype: &str, data: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let (dtype, bytes) = (DType::parse(dtype).map_err(raise)?, Bytes::get(&data)?);
        let bytes = bytes.as_slice();
        Ok(PyBytes::new(py, &self.with(py, |stream| stream.put(dtype, bytes))?))
    }

    fn save(&self, py: Python<'_>, step: i64, parts: Vec<Part>) -> PyResult<()> {
        let spec = |(name, dtype, shape): Spec| Ok(TensorSpec { name, dtype: DType::parse(&dtype)?, shape });
        let part = |(name, tree, scalars, tensors, keys): Part| {
            let tensors = tensors.into_iter().map(spec).collect::<lamina_format::Result<_>>()?;
            Ok(StreamedPart { name, tree, scalars, tensors, keys: keys.to_vec() })
        };
        let parts = parts.into_iter().map(part).collect::<lamina_format::Result<Vec<_>>>().map_err(raise)?;
        self.with(py, |stream| stream.save(step, parts))
    }

    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, writer::CheckpointStream::commit)
    }

    #[pyo3(signature = (error=None))]
    fn close(&self, py: Python<'_>, error: Option<String>) -> PyResult<()> {
        py.detach(|| match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(stream) => stream.close(error),
            None => Ok(()),
        })
        .map_err(raise)
    }
}
