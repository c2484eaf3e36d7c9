//! `lamina._core.Mapped`: bytes of a file in memory of this process alone.
#![allow(unsafe_code)]

use lamina_store::storage::Private;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::os::raw::c_int;

/// Bytes of a pack, by the buffer protocol. They may be written to: the file does not change.
#[pyclass(frozen, module = "lamina._core")]
pub struct Mapped(pub Private);

#[pymethods]
impl Mapped {
    fn __len__(&self) -> usize {
        self.0.length()
    }

    /// # Safety
    /// `view` is null or points to a `Py_buffer`, as Python says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let map = &slf.get().0;
        let size = ffi::Py_ssize_t::try_from(map.length())?;
        // SAFETY: the map lives as long as the object, to which the view holds a reference
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), map.start().cast(), size, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("no view"))),
        }
    }
}
