//! A file that is written from front to back, past the page cache.
//!
//! What is appended gathers in a buffer; a full one is written by a thread while the next one fills. The thread asks
//! the kernel to leave the page cache out (direct writes): a gigabyte through the cache costs a page fault or a folio
//! for each few kilobytes and evicts what the training reads, and on the machine where this was measured it took
//! longer than the disk did. Where the file system knows no direct writes, the thread writes as usual and syncs now
//! and then, so that a durable point has less to wait for.

use super::{Fs, FsFile};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Direct writes begin and end at multiples of this, in the file and in memory.
const PAGE: usize = 4096;
/// Bytes a buffer.
const BUFFER: usize = 8 << 20;
/// Buffers a file: one fills while others are written.
const BUFFERS: usize = 3;
/// Bytes after which a sync is made where there are no direct writes.
const BUSY: usize = 64 << 20;

/// A file that grows at its end. Earlier bytes can be written too, but only where nothing was appended.
pub struct Stream {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn FsFile>,
    buffer: Buffer,
    /// Where the buffer begins in the file, a multiple of `PAGE`; None before the first write.
    base: Option<u64>,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes in the buffer that the file already holds.
    flushed: usize,
    spare: Vec<Buffer>,
    /// Buffers in the thread's hands.
    away: usize,
    thread: Option<Thread>,
}

struct Thread {
    jobs: Sender<Job>,
    done: Receiver<(Buffer, io::Result<()>)>,
    handle: JoinHandle<()>,
}

struct Job {
    buffer: Buffer,
    base: u64,
    flushed: usize,
}

/// `BUFFER` bytes of memory that begin at a page.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        // zeroed memory costs nothing until it is touched
        let memory = vec![0; BUFFER + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Self { memory, start }
    }

    fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.memory[self.start + from..self.start + to]
    }
}

impl Stream {
    /// The stream of a file that was just created at `path`.
    pub fn new(fs: Arc<dyn Fs>, path: PathBuf, file: Box<dyn FsFile>) -> Self {
        let file = Arc::from(file);
        let (base, thread) = (None, None);
        Self { fs, path, file, buffer: Buffer::new(), base, filled: 0, flushed: 0, spare: Vec::new(), away: 0, thread }
    }

    /// Appends, if `offset` is where the stream ends; writes at once otherwise.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let base = *self.base.get_or_insert_with(|| {
            self.filled = (offset % PAGE as u64) as usize;
            self.flushed = self.filled;
            offset - self.filled as u64
        });
        if offset != base + self.filled as u64 {
            return self.file.write_at(offset, bytes);
        }
        while !bytes.is_empty() {
            let taken = bytes.len().min(BUFFER - self.filled);
            let at = self.buffer.start + self.filled;
            self.buffer.memory[at..at + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == BUFFER {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Gives the full buffer to the thread and begins the next.
    fn hand_over(&mut self) -> io::Result<()> {
        let next = match self.spare.pop() {
            Some(buffer) => buffer,
            None if self.away + 1 < BUFFERS => Buffer::new(),
            None => self.take_back()?,
        };
        let base = self.base.unwrap_or(0);
        let job = Job { buffer: std::mem::replace(&mut self.buffer, next), base, flushed: self.flushed };
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start(self.fs.as_ref(), &self.path, &self.file)?),
        };
        thread.jobs.send(job).map_err(|_| thread_ended())?;
        self.away += 1;
        self.base = Some(base + BUFFER as u64);
        (self.filled, self.flushed) = (0, 0);
        Ok(())
    }

    /// Waits for the buffer that the thread is writing.
    fn take_back(&mut self) -> io::Result<Buffer> {
        let thread = self.thread.as_ref().ok_or_else(thread_ended)?;
        let (buffer, result) = thread.done.recv().map_err(|_| thread_ended())?;
        self.away -= 1;
        result.map(|()| buffer)
    }

    /// Hands all that was appended to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.away > 0 {
            let buffer = self.take_back()?;
            self.spare.push(buffer);
        }
        if self.flushed < self.filled {
            let base = self.base.unwrap_or(0);
            self.file.write_at(base + self.flushed as u64, self.buffer.bytes(self.flushed, self.filled))?;
            self.flushed = self.filled;
        }
        Ok(())
    }

    /// Makes all that was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    /// Ends the file at `length`, durably.
    pub fn finish(&mut self, length: u64) -> io::Result<()> {
        self.flush()?;
        self.file.set_length(length)?;
        self.file.sync_data()
    }
}

fn thread_ended() -> io::Error {
    io::Error::other("the thread that writes the file ended")
}

impl Thread {
    fn start(fs: &dyn Fs, path: &std::path::Path, file: &Arc<dyn FsFile>) -> io::Result<Self> {
        let (jobs, receiver) = channel::<Job>();
        let (sender, done) = channel();
        let mut drain = Drain { file: Arc::clone(file), direct: fs.open_direct(path).ok(), unsynced: 0 };
        let builder = std::thread::Builder::new().name("lamina-disk".to_owned());
        let handle = builder.spawn(move || {
            for job in receiver {
                let result = drain.write(&job);
                if sender.send((job.buffer, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done, handle })
    }
}

/// What the thread writes to.
struct Drain {
    file: Arc<dyn FsFile>,
    direct: Option<Box<dyn FsFile>>,
    unsynced: usize,
}

impl Drain {
    fn write(&mut self, job: &Job) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            // the whole pages: what lies before `flushed` in the first of them is there already, and the same
            let from = job.flushed - job.flushed % PAGE;
            match direct.write_at(job.base + from as u64, job.buffer.bytes(from, BUFFER)) {
                // the file system wants something else of direct writes than whole pages
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                result => return result,
            }
        }
        self.file.write_at(job.base + job.flushed as u64, job.buffer.bytes(job.flushed, BUFFER))?;
        self.unsynced += BUFFER - job.flushed;
        if self.unsynced >= BUSY {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(Thread { jobs, done, handle }) = self.thread.take() {
            drop((jobs, done));
            // it holds nothing that a panic could have broken
            let _ = handle.join();
        }
    }
}
