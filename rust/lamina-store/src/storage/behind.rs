//! Syncing behind the writer's back.
//!
//! The kernel keeps written pages for seconds before it begins to write them out; a durable point then waits for
//! all of them. A thread that syncs after each row group keeps the disk busy while the next group is prepared.

use super::FsFile;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

#[derive(Default)]
struct Progress {
    asked: u64,
    done: u64,
    failure: Option<io::Error>,
}

/// A file and the thread that syncs it, which is started when it is first needed.
pub struct SyncBehind {
    pub file: Arc<dyn FsFile>,
    progress: Arc<(Mutex<Progress>, Condvar)>,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl SyncBehind {
    pub fn new(file: Arc<dyn FsFile>) -> Self {
        Self { file, progress: Arc::default(), thread: None }
    }

    /// Begins a sync, unless one is waiting to begin.
    pub fn begin(&mut self) {
        if self.thread.is_none() {
            let (sender, receiver) = sync_channel(1);
            let (file, progress) = (Arc::clone(&self.file), Arc::clone(&self.progress));
            let builder = std::thread::Builder::new().name("lamina-sync".to_owned());
            // without the thread all is as safe, only slower
            let Ok(thread) = builder.spawn(move || work(&receiver, file.as_ref(), &progress)) else { return };
            self.thread = Some((sender, thread));
        }
        let Some((sender, _)) = &self.thread else { return };
        let mut progress = self.progress.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.try_send(()).is_ok() {
            progress.asked += 1;
        }
    }

    /// Makes everything written so far durable. A failure behind the writer's back is returned here: the kernel
    /// tells it only once, so this waits for the syncs that are under way before it begins its own.
    pub fn sync(&self) -> io::Result<()> {
        let (progress, changed) = &*self.progress;
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |progress: &mut Progress| progress.done < progress.asked && progress.failure.is_none();
        let mut progress = changed.wait_while(progress, waiting).unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = progress.failure.take() {
            return Err(failure);
        }
        drop(progress);
        self.file.sync_data()
    }
}

fn work(receiver: &Receiver<()>, file: &dyn FsFile, shared: &(Mutex<Progress>, Condvar)) {
    while receiver.recv().is_ok() {
        let result = file.sync_data();
        let mut progress = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.done += 1;
        if let Err(error) = result {
            progress.failure.get_or_insert(error);
        }
        shared.1.notify_all();
    }
}

impl Drop for SyncBehind {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            // it holds nothing that a panic could have broken
            let _ = thread.join();
        }
    }
}
