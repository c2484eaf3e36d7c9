//! Bytes of a file in the memory of this process.
#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::{NonNull, null_mut};

/// The first bytes of a file, mapped for reading.
///
/// The store maps blobs alone. Their committed bytes never change, and only committed bytes are asked for.
/// Whoever cuts a mapped file short kills the process that reads it: `pread` is there for where that may happen.
pub struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the map is read-only and belongs to nobody but this value; reading memory needs no thread.
unsafe impl Send for Mapped {}
// SAFETY: as above; all methods only read.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps all that the file holds now, which must be `least` bytes or more.
    pub fn new(file: &File, least: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length < least || length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        // SAFETY: a new map at an address that the kernel chooses touches no memory that anybody has.
        let start = unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { start, length })
    }

    /// How many bytes are mapped.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// Bytes of the file; None if the map ends before.
    #[inline]
    pub fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        if end > self.length {
            return None;
        }
        // SAFETY: the range lies in the map, which `new` made no longer than the file and which lives as long as
        // `self`. A file is only ever extended behind what is committed, and committed bytes do not change, so nobody
        // writes to what the slice shows while it is shown.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(start), length) })
    }

    /// Tells the kernel which bytes will be asked for; it starts to read those that are not in memory and does not wait.
    pub fn will_need(&self, range: Range<u64>) {
        let page = rustix::param::page_size() as u64;
        let start = range.start / page * page;
        let end = range.end.min(self.length as u64);
        if start < end {
            // SAFETY: the range lies in the map and starts at a page; the advice changes no byte. It is only advice,
            // so a refusal is no error.
            let _ = unsafe {
                madvise(self.start.as_ptr().add(start as usize).cast(), (end - start) as usize, Advice::WillNeed)
            };
        }
    }
}

/// Bytes of a file, mapped for this process alone: what is written there is seen by nobody else, and never by the file.
pub struct Private {
    start: NonNull<u8>,
    length: usize,
    /// Where the bytes that were asked for begin: a map begins at a page.
    from: usize,
}

// SAFETY: the map belongs to this value; whoever writes to it does so under the rules of who holds the value.
unsafe impl Send for Private {}
// SAFETY: as above; all methods only read.
unsafe impl Sync for Private {}

impl Private {
    /// Maps a range, which the file must hold.
    pub fn new(file: &File, range: Range<u64>) -> io::Result<Self> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        if range.is_empty() || file.metadata()?.len() < range.end {
            return Err(short());
        }
        let page = rustix::param::page_size() as u64;
        let first = range.start / page * page;
        let length = usize::try_from(range.end - first).map_err(|_| short())?;
        // SAFETY: a new map at an address that the kernel chooses touches no memory that anybody has. It is private:
        // the kernel copies a page before the first write to it.
        let start =
            unsafe { mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, file, first)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { start, length, from: (range.start - first) as usize })
    }

    /// The first of the bytes.
    pub fn start(&self) -> *mut u8 {
        // SAFETY: `new` mapped `length` bytes, and `from` is less.
        unsafe { self.start.as_ptr().add(self.from) }
    }

    /// How many there are.
    pub fn length(&self) -> usize {
        self.length - self.from
    }

    /// The bytes, as long as nobody was given the place to write to.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the map, which lives as long as `self`; committed bytes of a file do not change.
        unsafe { std::slice::from_raw_parts(self.start(), self.length()) }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this range, nothing else unmaps it, and no slice outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Bytes between two slices below which they are taken for one: what an allocator notes of each, rounded to pages.
const GAP: usize = 1 << 16;

/// Asks the kernel to back memory that will be filled by huge pages: fresh memory costs a fault for each page, and of
/// small ones several times what the copy costs. What has its pages already keeps them.
///
/// Slices that lie one behind the other, as those of tensors that were just made do, are taken together: alone each would
/// begin and end with up to 2 MB of small pages.
pub fn will_fill<'a, T: 'a>(outs: impl Iterator<Item = &'a [T]>) {
    for range in of_huge_pages(outs.map(|out| out.as_ptr().addr()..out.as_ptr().addr() + size_of_val(out)).collect()) {
        advise_huge(range);
    }
}

/// The addresses of whole huge pages in ranges that do not overlap, of which those that are near each other count as one.
fn of_huge_pages(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let near = ranges.chunk_by(|one, next| next.start.saturating_sub(one.end) < GAP);
    let whole = near.map(|near| near[0].start.next_multiple_of(HUGE)..near[near.len() - 1].end / HUGE * HUGE);
    whole.filter(|range| !range.is_empty()).collect()
}

#[cfg(target_os = "linux")]
fn advise_huge(range: Range<usize>) {
    // SAFETY: the range consists of whole pages, and the advice changes no byte, whoever they belong to. It is only advice,
    // so a refusal is no error.
    let _ = unsafe { madvise(std::ptr::without_provenance_mut(range.start), range.len(), Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge(_range: Range<usize>) {}

/// Asks the processor for bytes ahead of their use.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a byte of the slice; a prefetch changes nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this range, nothing else unmaps it, and no slice outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_written_to_a_private_map_stays_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 9000]).unwrap();
        assert!(Private::new(&file, 5000..9001).is_err());
        assert!(Private::new(&file, 5000..5000).is_err());
        let (one, other) = (Private::new(&file, 4999..9000).unwrap(), Private::new(&file, 4999..9000).unwrap());
        assert_eq!((one.bytes(), one.length()), (&[7; 4001][..], 4001));
        // SAFETY: the first of the bytes; nobody holds a slice of them.
        unsafe { one.start().write(8) };
        assert_eq!((one.bytes()[0], one.bytes()[1], other.bytes()[0]), (8, 7, 7));
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4999).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn what_is_filled_together_shares_its_huge_pages() {
        let quarters = |from: usize, to: usize| from * HUGE / 4..to * HUGE / 4;
        let pages = |ranges: Vec<Range<usize>>| -> Vec<(usize, usize)> {
            of_huge_pages(ranges).iter().map(|range| (range.start / HUGE, range.end / HUGE)).collect()
        };
        // each a huge page and a half, 16 bytes apart: alone the second has one and is cut at both ends
        let apart = |at: usize| 6 * at * HUGE / 4 + 16..(6 * at + 6) * HUGE / 4;
        assert_eq!(pages((0..4).rev().map(apart).collect()), [(1, 6)]);
        assert_eq!(pages((1..2).map(apart).collect()), [(2, 3)]);
        assert_eq!(pages(vec![quarters(0, 5), quarters(6, 13)]), [(0, 1), (2, 3)]);
        assert_eq!(pages(vec![quarters(9, 12), quarters(0, 9)]), [(0, 3)]);
        assert_eq!(pages(vec![quarters(1, 4), 0..0]), []);
        let mut filled = vec![7; 3 * HUGE];
        will_fill([&filled[..HUGE + 5], &filled[HUGE + 5..]].into_iter());
        filled[5] = 8;
        assert_eq!((filled[4], filled[5]), (7, 8));
    }

    #[test]
    fn a_map_shows_the_file_and_refuses_what_lies_behind() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(Mapped::new(&file, 0).is_err(), "an empty file cannot be mapped");
        file.write_all(&[7; 5000]).unwrap();
        assert!(Mapped::new(&file, 5001).is_err());
        let map = Mapped::new(&file, 4000).unwrap();
        assert_eq!(map.length(), 5000);
        assert_eq!(map.bytes(4990, 10), Some(&[7; 10][..]));
        assert_eq!(map.bytes(4990, 11), None);
        assert_eq!(map.bytes(u64::MAX, 2), None);
        map.will_need(100..u64::MAX);
        prefetch(map.bytes(0, 5000).unwrap());
        file.write_all(&[8; 10]).unwrap();
        assert_eq!(map.bytes(5000, 10), None, "what was written since needs another map");
        assert_eq!(Mapped::new(&file, 5010).unwrap().bytes(5000, 10), Some(&[8; 10][..]));
    }
}
