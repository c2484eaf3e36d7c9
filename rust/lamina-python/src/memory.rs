//! `lamina._core.Pool` and `Memory`: memory that tensors and a writer share.
//!
//! A recorder copies what a hook sees into memory of a pool and hands it to the writer, which writes it from there: one
//! copy instead of two. Memory goes back to its pool when nobody holds it any more, neither a tensor nor the writer, and
//! on whichever thread that happens: no Python object is touched for it.
#![allow(unsafe_code)]

use lamina_store::writer::Lent;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::os::raw::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes whose place in memory does not change.
struct Block {
    /// Not touched as long as `start` is used.
    owner: Vec<u8>,
    start: *mut u8,
}

// SAFETY: whoever writes through `start` does so before the block is lent, under the rules of `Memory`
unsafe impl Send for Block {}
// SAFETY: as above
unsafe impl Sync for Block {}

impl Block {
    fn new(size: usize) -> Self {
        // zeroed memory costs nothing until it is touched
        let mut owner = vec![0; size];
        Self { start: owner.as_mut_ptr(), owner }
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
    /// The smallest block that is large enough and not far too large, else a new one.
    fn take(&mut self, size: usize) -> Block {
        let fits = |block: &Block| (size..=2 * size).contains(&block.owner.len());
        let fitting = self.blocks.iter().enumerate().filter(|(_, block)| fits(block));
        let block = match fitting.min_by_key(|(_, block)| block.owner.len()).map(|(at, _)| at) {
            Some(at) => self.blocks.remove(at),
            None => Block::new(size),
        };
        self.free = self.blocks.iter().map(|block| block.owner.len()).sum();
        self.used += block.owner.len();
        self.most = self.most.max(self.used);
        self.shrink();
        block
    }

    fn put(&mut self, block: Block) {
        self.used -= block.owner.len();
        self.free += block.owner.len();
        self.blocks.push(block);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.used + self.free > self.most && !self.blocks.is_empty() {
            self.free -= self.blocks.remove(0).owner.len();
        }
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
pub struct Pool(Arc<Mutex<Free>>);

#[pymethods]
impl Pool {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    fn take(&self, size: usize) -> PyResult<Memory> {
        if size == 0 {
            return Err(PyValueError::new_err("there is no memory of no bytes"));
        }
        let block = Some(lock(&self.0).take(size));
        let (pool, process) = (Arc::downgrade(&self.0), std::process::id());
        Ok(Memory(Arc::new(Loan { block, size, pool, process })))
    }

    /// Bytes in use, and bytes that wait to be used again.
    fn held(&self) -> (usize, usize) {
        let free = lock(&self.0);
        (free.used, free.free)
    }
}
