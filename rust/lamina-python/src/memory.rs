//! `lamina._core.Pool` and `Memory`: memory that tensors and a writer share.
//!
//! A recorder copies what a hook sees into memory of a pool and hands it to the writer, which writes it from there: one
//! copy instead of two. Memory goes back to its pool when nobody holds it any more, neither a tensor nor the writer, and
//! on whichever thread that happens: no Python object is touched for it.
#![allow(unsafe_code)]

use lamina_store::writer::Lent;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::any::Any;
use std::os::raw::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes whose place in memory does not change.
struct Block {
    start: *mut u8,
    length: usize,
    /// Whose memory it is; not touched as long as the block is used. An object of Python's may be dropped without the
    /// GIL, and goes when somebody has it.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: whoever writes through `start` does so before the block is lent, under the rules of `Memory`
unsafe impl Send for Block {}
// SAFETY: as above
unsafe impl Sync for Block {}

impl Block {
    fn new(size: usize) -> Self {
        // zeroed memory costs nothing until it is touched
        let mut owner = vec![0; size];
        Self { start: owner.as_mut_ptr(), length: size, _owner: Box::new(owner) }
    }

    /// Memory that `allocate` gives.
    fn made(allocate: &Bound<'_, PyAny>, size: usize) -> PyResult<Self> {
        let object = allocate.call1((size,))?;
        let buffer = PyBuffer::<u8>::get(&object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() || buffer.len_bytes() < size {
            return Err(PyValueError::new_err(format!("no {size} writable bytes were allocated")));
        }
        let (start, length) = (buffer.buf_ptr().cast(), buffer.len_bytes());
        // the view ends here: the memory stays where it is as long as the object is there
        Ok(Self { start, length, _owner: Box::new(object.unbind()) })
    }
}

#[derive(Default)]
struct Free {
    /// In the order in which they came back.
    blocks: Vec<Block>,
    free: usize,
    /// Bytes that are in use.
    used: usize,
    /// The most that was in use at a time: more is never kept.
    most: usize,
}

impl Free {
    /// The smallest block that is large enough and not far too large, if there is one.
    fn find(&mut self, size: usize) -> Option<Block> {
        let fits = |block: &Block| (size..=2 * size).contains(&block.length);
        let fitting = self.blocks.iter().enumerate().filter(|(_, block)| fits(block));
        let at = fitting.min_by_key(|(_, block)| block.length).map(|(at, _)| at)?;
        let block = self.blocks.remove(at);
        self.free -= block.length;
        Some(block)
    }

    /// Counts a block that is used from now on. What is too much is returned, to be dropped without the lock.
    fn hand_out(&mut self, block: &Block) -> Vec<Block> {
        self.used += block.length;
        self.most = self.most.max(self.used);
        let mut dropped = Vec::new();
        while self.used + self.free > self.most && !self.blocks.is_empty() {
            let block = self.blocks.remove(0);
            self.free -= block.length;
            dropped.push(block);
        }
        dropped
    }

    fn put(&mut self, block: Block) {
        self.used -= block.length;
        self.free += block.length;
        self.blocks.push(block);
    }
}

fn lock(free: &Mutex<Free>) -> MutexGuard<'_, Free> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block on loan from its pool.
struct Loan {
    /// None once it was given back.
    block: Option<Block>,
    size: usize,
    pool: Weak<Mutex<Free>>,
    process: u32,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        let Some(block) = &self.block else { return &[] };
        // SAFETY: the block has at least `size` bytes, is alive as long as `self`, and is not written while it is lent
        unsafe { std::slice::from_raw_parts(block.start, self.size) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // a fork, in which nobody may ever open the lock: what this process has of the memory is just freed
            return;
        }
        if let (Some(block), Some(pool)) = (self.block.take(), self.pool.upgrade()) {
            lock(&pool).put(block);
        }
    }
}

/// Memory of a pool, by the buffer protocol.
#[pyclass(frozen, module = "lamina._core")]
pub struct Memory(Arc<Loan>);

impl Memory {
    /// The memory for a writer to keep: nobody may write to it from now on.
    pub fn lent(&self) -> Lent {
        Arc::clone(&self.0) as Lent
    }
}

#[pymethods]
impl Memory {
    fn __len__(&self) -> usize {
        self.0.size
    }

    /// # Safety
    /// `view` is null or points to a `Py_buffer`, as Python says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let loan = &slf.get().0;
        let start = loan.block.as_ref().map_or(std::ptr::null_mut(), |block| block.start);
        let size = ffi::Py_ssize_t::try_from(loan.size)?;
        // SAFETY: the memory lives as long as the object, to which the view holds a reference
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast(), size, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("no view"))),
        }
    }
}

/// Memory that is used again: fresh memory costs a page fault for each page, several times what a copy costs.
#[pyclass(frozen, module = "lamina._core")]
pub struct Pool {
    free: Arc<Mutex<Free>>,
    allocate: Option<Py<PyAny>>,
}

#[pymethods]
impl Pool {
    #[new]
    #[pyo3(signature = (allocate=None))]
    fn new(allocate: Option<Py<PyAny>>) -> Self {
        Self { free: Arc::default(), allocate }
    }

    fn take(&self, py: Python<'_>, size: usize) -> PyResult<Memory> {
        if size == 0 {
            return Err(PyValueError::new_err("there is no memory of no bytes"));
        }
        let found = lock(&self.free).find(size);
        // without the lock: what Python does may let another thread in, which may ask for memory too
        let block = match (found, &self.allocate) {
            (Some(block), _) => block,
            (None, None) => Block::new(size),
            (None, Some(allocate)) => Block::made(allocate.bind(py), size)?,
        };
        let dropped = lock(&self.free).hand_out(&block);
        drop(dropped);
        let (pool, process) = (Arc::downgrade(&self.free), std::process::id());
        Ok(Memory(Arc::new(Loan { block: Some(block), size, pool, process })))
    }

    /// Bytes in use, and bytes that wait to be used again.
    fn held(&self) -> (usize, usize) {
        let free = lock(&self.free);
        (free.used, free.free)
    }
}
