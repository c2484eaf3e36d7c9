//! The seam below the file implementation: the few calls that touch a file system.

use super::map::{Mapped, Private};
use super::remote;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file system.
pub trait Fs: Send + Sync {
    /// Creates a folder and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder, unless it is there, in one that is.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that does not exist.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file for writes that leave the page cache out, if that can be done.
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Gives a file or folder another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails if that exists.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder and all that is in it.
    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether there is something.
    fn exists(&self, path: &Path) -> bool;
}

/// An open file.
pub trait FsFile: Send + Sync {
    /// Its length.
    fn length(&self) -> io::Result<u64>;
    /// Fills all of `out`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// All that the file holds now, `least` bytes or more, in memory; None where files cannot be mapped.
    fn map(&self, _least: u64) -> io::Result<Option<Mapped>> {
        Ok(None)
    }
    /// A range of it in memory for this process alone; None where files cannot be mapped.
    fn map_private(&self, _range: Range<u64>) -> io::Result<Option<Private>> {
        Ok(None)
    }
    /// Whether the file lies on another machine.
    fn is_remote(&self) -> bool {
        false
    }
    /// Starts to read what will be asked for.
    fn will_need(&self, _range: Range<u64>) {}
    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the contents durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// The file system of this machine.
pub struct RealFs;

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Syncs of files and folders that this process has asked this machine's file systems for.
pub fn syncs() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))
}

impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
        Ok(Box::new(OpenOptions::new().write(true).custom_flags(flags).open(path)?))
    }

    #[cfg(not(target_os = "linux"))]
    fn open_direct(&self, _: &Path) -> io::Result<Box<dyn FsFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        // a pipe in the place of a file must not keep a reader waiting, nor a link lead it out of the run
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|error| {
            let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
            if link { strange("a link, which may lead out of the run") } else { error }
        })?;
        if !file.metadata()?.is_file() {
            return Err(strange("no regular file"));
        }
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::Relaxed);
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        if std::fs::symlink_metadata(path)?.is_symlink() {
            return Err(strange("a link, which may lead out of the run"));
        }
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok()
    }
}

impl FsFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn map(&self, least: u64) -> io::Result<Option<Mapped>> {
        Mapped::new(self, least).map(Some)
    }

    fn map_private(&self, range: Range<u64>) -> io::Result<Option<Private>> {
        Private::new(self, range).map(Some)
    }

    fn is_remote(&self) -> bool {
        remote::is_remote(self)
    }

    #[cfg(target_os = "linux")]
    fn will_need(&self, range: Range<u64>) {
        let length = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // it is only advice: a refusal is no error
        let _ = rustix::fs::fadvise(self, range.start, length, rustix::fs::Advice::WillNeed);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::Relaxed);
        File::sync_data(self)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
