//! Memory that was staged in and waits to be used again: fresh memory costs a page fault for each page, several times
//! what a copy costs.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};

/// Bytes of a large page, which the kernel gives at once where it is asked to.
const LARGE_PAGE: usize = 2 << 20;
/// Buffers up to this length are left to the allocator, which knows them best.
pub const SMALL: usize = 256 << 10;

/// Buffers, empty and in the order in which they came back.
#[derive(Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Bytes that are in use, and bytes that wait.
    used: usize,
    free: usize,
    /// The most that was in use at a time: more is never kept.
    most: usize,
}

impl Spare {
    /// An empty buffer for so many bytes: the smallest that is large enough and not far too large, else a new one. None if there
    /// is no memory.
    pub fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| size > SMALL && (size..=2 * size).contains(&buffer.capacity());
        let fitting = self.buffers.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let buffer = match fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(at, _)| at) {
            Some(at) => self.buffers.remove(at),
            None => fresh(size)?,
        };
        self.free = self.buffers.iter().map(Vec::capacity).sum();
        self.used += buffer.capacity();
        self.most = self.most.max(self.used);
        self.shrink();
        Some(buffer)
    }

    /// Takes buffers back.
    pub fn give_back(&mut self, buffers: Vec<Vec<u8>>) {
        for mut buffer in buffers {
            self.used -= buffer.capacity();
            if buffer.capacity() > SMALL {
                buffer.clear();
                self.free += buffer.capacity();
                self.buffers.push(buffer);
            }
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.used + self.free > self.most && !self.buffers.is_empty() {
            self.free -= self.buffers.remove(0).capacity();
        }
    }
}

/// New memory, in large pages where the kernel has them.
pub fn fresh(size: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::<u8>::new();
    buffer.try_reserve_exact(size).ok()?;
    let start = buffer.as_mut_ptr();
    let skipped = start.align_offset(LARGE_PAGE);
    if let Some(length) = size.checked_sub(skipped).map(|left| left / LARGE_PAGE * LARGE_PAGE).filter(|&left| left > 0)
    {
        // SAFETY: the range lies in the buffer, and the advice changes no byte of it. A kernel without large pages refuses.
        let _ = unsafe { madvise(start.wrapping_add(skipped).cast(), length, Advice::LinuxHugepage) };
    }
    Some(buffer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_was_in_use_at_once() {
        let mut spare = Spare::default();
        let mut out: Vec<_> = (0..4).map(|_| spare.take(1 << 20).unwrap()).collect();
        spare.give_back(out.split_off(2));
        assert_eq!((spare.used, spare.free), (2 << 20, 2 << 20));
        let large = spare.take(3 << 20).unwrap();
        // two are in use beside the large one: that is the most so far, and nothing is kept beyond it
        assert_eq!((spare.used, spare.free), (5 << 20, 0));
        out.push(large);
        spare.give_back(out);
        assert_eq!((spare.used, spare.free), (0, 5 << 20));
    }

    #[test]
    fn small_buffers_are_not_kept_and_what_cannot_be_had_is_none() {
        let mut spare = Spare::default();
        let small = spare.take(1000).unwrap();
        spare.give_back(vec![small]);
        assert_eq!((spare.used, spare.free), (0, 0));
        assert!(spare.take(usize::MAX / 2).is_none());
        assert_eq!(spare.used, 0);
    }
}
