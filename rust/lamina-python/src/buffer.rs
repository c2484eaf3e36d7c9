//! Bytes of Python objects, read and written without the GIL.
#![allow(unsafe_code)]

use lamina_format::Error;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

/// C-contiguous bytes that a Python object lends.
pub struct Bytes(PyBuffer<u8>);

impl Bytes {
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(crate::raise(Error::schema("a buffer is not contiguous")));
        }
        Ok(Self(buffer))
    }

    /// The bytes. A caller that changes them while they are copied gets a mixture, as with any copy.
    pub fn as_slice(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer protocol keeps `len_bytes` contiguous bytes alive and in place until the buffer is
        // released, which happens when `self` is dropped
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }

    /// The bytes as integers.
    pub fn as_i64s(&self) -> Vec<i64> {
        self.as_slice().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }
}

/// C-contiguous bytes that a Python object lends for writing.
pub struct BytesMut(PyBuffer<u8>);

impl BytesMut {
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() || buffer.readonly() {
            return Err(crate::raise(Error::schema("a buffer to write into is not contiguous or not writable")));
        }
        Ok(Self(buffer))
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.len_bytes() == 0 {
            return &mut [];
        }
        // SAFETY: as above, and the buffer is writable; `&mut self` keeps this module from handing it out twice
        unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }
}
