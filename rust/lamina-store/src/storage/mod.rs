//! Everything that the store needs of the outside world.
//!
//! [`Storage`] speaks of frames, commits, and files of blocks; it says nothing of syncs or renames, so that
//! object storage can be another implementation. [`Files`] is the one over a file system, which it reaches
//! through the smaller seam [`Fs`], where tests put a file system that fails.

mod draft;
mod fence;
mod files;
mod fs;
mod index;
mod map;
mod remote;
mod stream;

pub use files::Files;
pub use fs::{Fs, FsFile, RealFs, syncs};
pub use map::{Mapped, Private, prefetch, will_fill};

use lamina_format::Result;
use std::ops::Range;
use std::sync::Arc;

/// A run's storage.
pub trait Storage: Send + Sync {
    /// Creates the run with this description and commit 0, all at once or not at all.
    fn create(&self, run_json: &[u8], commit: &[u8]) -> Result<()>;
    /// The description.
    fn run_json(&self) -> Result<Vec<u8>>;
    /// Numbers of the commits there are, newest first.
    fn commits(&self) -> Result<Vec<u64>>;
    /// A commit's bytes.
    fn read_commit(&self, n: u64) -> Result<Vec<u8>>;
    /// Publishes a commit, durably; false if that number is taken.
    fn publish(&self, n: u64, commit: &[u8]) -> Result<bool>;
    /// Makes the commits that are there durable: another writer may have published one and not synced it yet.
    fn settle_commits(&self) -> Result<()>;
    /// Writer and generation of every log, in order.
    fn logs(&self) -> Result<Vec<(u32, u32)>>;
    /// A log's bytes, as far as they are there; of a fenced writer, as far as they were when it was fenced.
    fn read_log(&self, writer: u32, generation: u32) -> Result<Vec<u8>>;
    /// Makes what a log holds durable: its owner may have written a frame and not synced it yet.
    fn settle_log(&self, writer: u32, generation: u32) -> Result<()>;
    /// Creates a log; None if it exists.
    fn create_log(&self, writer: u32, generation: u32) -> Result<Option<Box<dyn Log>>>;
    /// Closes a writer to its owner, for good: what the log holds now counts, what comes after does not.
    fn fence(&self, writer: u32) -> Result<()>;
    /// An error if the place where a fenced writer's log ends cannot be read; then all of the log counts.
    fn check_fence(&self, writer: u32) -> Result<()>;
    /// Whether a writer is fenced. A writer whose frame is durable looks here before it acknowledges.
    fn fenced(&self, writer: u32) -> Result<bool>;
    /// Segments, packs, indexes, and drafts that somebody left behind.
    fn files(&self) -> Result<Vec<String>>;
    /// Removes one of these files; it need not be there any more.
    fn remove(&self, file: &str) -> Result<()>;
    /// Creates a file of blocks: a segment or a pack.
    fn create_blob(&self, name: &str) -> Result<Box<dyn Blob>>;
    /// Opens a file of blocks.
    fn open_blob(&self, name: &str) -> Result<Box<dyn Ranges>>;
    /// Begins an index, which takes the place of an earlier one of its name when it is finished, all at once. One that is
    /// dropped before leaves nothing.
    fn create_index(&self, name: &str) -> Result<Box<dyn Blob>>;
    /// Opens an index; None if there is none of this name.
    fn open_index(&self, name: &str) -> Result<Option<Box<dyn Ranges>>>;
}

/// A log that this process owns.
pub trait Log: Send {
    /// Appends a frame; when it returns, the frame is durable.
    fn append(&mut self, frame: &[u8]) -> Result<()>;
}

/// A file that is being written.
pub trait Blob: Send {
    /// Writes at an offset: where the last write ended, or where none was.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Hands what was written to the operating system.
    fn flush(&mut self) -> Result<()>;
    /// Makes what was written durable, the file's name included.
    fn sync(&mut self) -> Result<()>;
    /// Ends the file at `length`, durably.
    fn finish(&mut self, length: u64) -> Result<()>;
}

/// A file that is being read. Committed bytes never change.
pub trait Ranges: Send + Sync {
    /// Its length.
    fn length(&self) -> Result<u64>;
    /// Fills `out` from `offset`.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;
    /// The file in memory, its first `least` bytes or more; None where that cannot be had.
    fn map(&self, _least: u64) -> Result<Option<Arc<Mapped>>> {
        Ok(None)
    }
    /// A range of it in memory for this process alone, which may write there; None where that cannot be had.
    fn map_private(&self, _range: Range<u64>) -> Result<Option<Private>> {
        Ok(None)
    }
    /// Whether the file lies on another machine, where mapping it is not safe.
    fn is_remote(&self) -> bool {
        false
    }
    /// Starts to read what will be asked for.
    fn will_need(&self, _range: Range<u64>) {}
}
