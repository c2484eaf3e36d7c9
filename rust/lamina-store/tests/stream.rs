//! A blob that is larger than its buffers: every way to write it leaves the same bytes.
#![allow(missing_docs, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::FailingFs;
use lamina_store::create;
use lamina_store::storage::{Blob, Files, Fs, FsFile, RealFs, Storage};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NAME: &str = "segments/0000000000-0000000000.safetensors";

/// Bytes that no shift by a page or a buffer leaves equal.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// What a direct file does when it is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Direct {
    Works,
    CannotOpen,
    /// Opens, and refuses each write as misaligned.
    Refuses,
}

struct Watched {
    direct: Direct,
    /// Bytes that were written directly.
    bypassed: Arc<AtomicUsize>,
}

struct DirectFile(Box<dyn FsFile>, Direct, Arc<AtomicUsize>);

impl FsFile for DirectFile {
    inner!(0: length read_at sync_data set_length);

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned =
            offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096) && bytes.as_ptr().align_offset(4096) == 0;
        assert!(aligned, "a direct write of {} bytes at {offset}", bytes.len());
        if self.1 == Direct::Refuses {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.2.fetch_add(bytes.len(), Ordering::Relaxed);
        self.0.write_at(offset, bytes)
    }
}

impl Fs for Watched {
    real!(create_dir_all create_dir create_new open rename link remove_file sync_dir list exists);

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        if self.direct == Direct::CannotOpen {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // a plain file stands in where the machine's temporary folder knows no direct writes
        Ok(Box::new(DirectFile(plain(path)?, self.direct, Arc::clone(&self.bypassed))))
    }
}

fn plain(path: &Path) -> io::Result<Box<dyn FsFile>> {
    Ok(RealFs.open_direct(path).unwrap_or(Box::new(std::fs::OpenOptions::new().write(true).open(path)?)))
}

/// Writes the pattern in uneven pieces from `begin`, flushing and syncing between some of them, and a header before it.
fn write(blob: &mut dyn Blob, begin: u64, bytes: &[u8]) -> lamina_format::Result<()> {
    let (mut at, mut turn) = (0, 0_usize);
    while at < bytes.len() {
        let length = [1, 4095, 4097, 131_072, 3_000_001, 9_000_000][turn % 6].min(bytes.len() - at);
        blob.write(begin + at as u64, &bytes[at..at + length])?;
        at += length;
        turn += 1;
        if turn % 4 == 0 {
            blob.flush()?;
        }
        if turn % 7 == 0 {
            blob.sync()?;
        }
    }
    if begin > 0 {
        blob.write(0, &[7; 10])?;
    }
    blob.finish(begin + bytes.len() as u64)
}

#[test]
fn the_bytes_are_the_same_however_they_are_written() {
    let bytes = pattern(40_000_003);
    for direct in [Direct::Works, Direct::CannotOpen, Direct::Refuses] {
        for begin in [0, 1 << 20, 5000] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            let bypassed = Arc::new(AtomicUsize::new(0));
            let storage = Files::on(Arc::new(Watched { direct, bypassed: Arc::clone(&bypassed) }), &path);
            create(&storage, "{}").unwrap();
            write(storage.create_blob(NAME).unwrap().as_mut(), begin, &bytes).unwrap();
            let found = std::fs::read(path.join(NAME)).unwrap();
            assert!(found[begin as usize..] == bytes, "begin {begin}");
            assert!(begin == 0 || found[..10] == [7; 10]);
            assert_eq!(bypassed.load(Ordering::Relaxed) > 0, direct == Direct::Works);
        }
    }
}

#[test]
fn what_was_synced_is_there_before_the_end() {
    let bytes = pattern(20_000_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let storage = Files::new(&path);
    create(&storage, "{}").unwrap();
    let mut blob = storage.create_blob(NAME).unwrap();
    for (index, piece) in bytes.chunks(3_333_333).enumerate() {
        blob.write(4096 + index as u64 * 3_333_333, piece).unwrap();
        blob.sync().unwrap();
        let found = std::fs::read(path.join(NAME)).unwrap();
        let end = (index * 3_333_333 + piece.len()).min(bytes.len());
        assert_eq!(found.len(), 4096 + end);
        assert!(found[4096..] == bytes[..end], "after piece {index}");
    }
}

#[test]
fn a_failure_in_the_thread_is_told_before_anything_counts_as_durable() {
    let bytes = pattern(40_000_000);
    for allowed in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        create(&Files::new(&path), "{}").unwrap();
        let fs = FailingFs::new(allowed, io::ErrorKind::StorageFull);
        let storage = Files::on(Arc::new(fs.clone()), &path);
        let result = storage.create_blob(NAME).and_then(|mut blob| write(blob.as_mut(), 1 << 20, &bytes));
        if result.is_ok() {
            assert_eq!(fs.left(), 0);
            assert!(allowed > 10, "only {allowed} calls");
            return;
        }
        let error = result.unwrap_err();
        assert_eq!(error.kind, lamina_format::ErrorKind::Storage, "after {allowed} calls");
        assert!(error.message.contains("injected"), "after {allowed} calls: {error}");
    }
}
