//! Copying what a caller waits for: by several threads where it is long.
#![allow(unsafe_code)]

use crate::crew;
use std::num::NonZeroUsize;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes from which on others help: to wake a thread takes as long as to copy a hundred kilobytes.
const ALONE: usize = 4 << 20;
/// Threads that copy at once: more do not make the memory faster.
const MOST_THREADS: usize = 4;
/// Bytes that a thread copies before it asks for more.
const SHARE: usize = 1 << 20;

/// How many others help to copy so many bytes in so many shares: no more than there are cores.
pub fn helpers(bytes: usize, shares: usize) -> usize {
    // asked once: to find out takes longer than to copy a megabyte
    static CORES: OnceLock<usize> = OnceLock::new();
    if bytes < ALONE {
        return 0;
    }
    let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    cores.min(MOST_THREADS).min(shares) - 1
}

/// Puts bytes behind those of a buffer.
pub fn extend(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let helpers = helpers(bytes.len(), bytes.len() / SHARE);
    if helpers == 0 {
        return buffer.extend_from_slice(bytes);
    }
    buffer.reserve(bytes.len());
    let room = &mut buffer.spare_capacity_mut()[..bytes.len()];
    let work = Mutex::new(room.chunks_mut(SHARE).zip(bytes.chunks(SHARE)));
    crew::together(helpers, &|| {
        loop {
            let Some((room, bytes)) = work.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            // SAFETY: shares of one length, of memory that is there; a buffer that grows overlaps nothing that is borrowed
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), room.as_mut_ptr().cast(), bytes.len().min(room.len()))
            };
        }
    });
    let length = buffer.len() + bytes.len();
    // SAFETY: all shares were written: `together` returns when nobody is at one, and none is left
    unsafe { buffer.set_len(length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_copy_is_what_one_copies() {
        let bytes: Vec<u8> = (0..2 * ALONE + 5).map(|at| (at / 3 + at) as u8).collect();
        for length in [0, 1, ALONE - 1, ALONE, ALONE + SHARE - 1, bytes.len()] {
            let mut buffer = vec![7, 8];
            extend(&mut buffer, &bytes[..length]);
            assert!(buffer[..2] == [7, 8] && buffer[2..] == bytes[..length], "{length}");
        }
        assert_eq!(helpers(ALONE - 1, 9), 0);
    }
}
