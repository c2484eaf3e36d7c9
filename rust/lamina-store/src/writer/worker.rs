//! The committer's thread.

use super::journal::Journal;
use super::pack::PackWriter;
use super::segment::SegmentWriter;
use super::shared::Shared;
use super::stage::{Job, Stage};
use crate::clock;
use crate::storage::Storage;
use lamina_format::Result;
use lamina_format::record::{Block, Close, Dropped, Op};
use lamina_format::segment::Declared;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the thread owns.
pub struct Worker {
    storage: Arc<dyn Storage>,
    declared: Arc<Mutex<Arc<Declared>>>,
    journal: Journal,
    shared: Arc<Shared>,
    segments: SegmentWriter,
    packs: PackWriter,
    /// What was done since the last frame.
    pending: Vec<Op>,
    /// Declarations that this log already repeats: (is a site, number).
    logged: HashSet<(bool, u32)>,
}

enum Next {
    One(Job),
    Durable { jobs: Vec<Job>, metrics: Vec<Op>, dropped: Dropped, upto: u64 },
    Close(Option<String>),
}

impl Worker {
    pub fn new(
        storage: Arc<dyn Storage>,
        ordinal: u32,
        declared: Arc<Mutex<Arc<Declared>>>,
        journal: Journal,
        shared: Arc<Shared>,
    ) -> Self {
        let (segments, packs) = (SegmentWriter::new(ordinal), PackWriter::new(ordinal));
        Self { storage, declared, journal, shared, segments, packs, pending: Vec::new(), logged: HashSet::new() }
    }

    /// Works until the writer is closed, or fails: a failed write or sync is never tried again, since nobody can
    /// tell what of it reached the disk.
    pub fn run(mut self) {
        loop {
            let result = match self.next() {
                Next::One(job) => self.write(job),
                Next::Durable { jobs, metrics, dropped, upto } => self.make_durable(jobs, metrics, dropped, upto),
                Next::Close(error) => {
                    let result = self.end(error);
                    self.fail_if(result);
                    return;
                }
            };
            if self.fail_if(result) {
                return;
            }
        }
    }

    /// Ends the log with what failed, if it can still take that: who opens the run is to know why its writer stopped.
    fn fail_if(&mut self, result: Result<()>) -> bool {
        let Err(error) = result else { return false };
        let why = match &error.file {
            Some(file) => format!("{} [{file}]", error.message),
            None => error.message.clone(),
        };
        if self.journal.sound() {
            // nothing rests on it, and what failed first is what counts
            let _ = self.journal.append(vec![Op::Close(Close { error: Some(why), time: clock::now() })]);
        }
        self.mark(|stage| stage.fail(error));
        self.shared.tell();
        true
    }

    /// Sleeps until there is something to do.
    fn next(&self) -> Next {
        let mut stage = self.shared.lock();
        loop {
            let patience = stage.patience();
            if patience == Some(Duration::ZERO) {
                let upto = stage.staged;
                let dropped = std::mem::take(&mut stage.dropped);
                return Next::Durable { jobs: stage.take(), metrics: stage.metrics.take(), dropped, upto };
            }
            if let Some(job) = stage.queue.pop_front() {
                return Next::One(job);
            }
            if stage.closing {
                let why = std::mem::take(&mut stage.errors).join("; ");
                return Next::Close((!why.is_empty()).then_some(why));
            }
            let patience = patience.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
            stage = self.shared.work.wait_timeout(stage, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Group(group) => {
                let size = group.bytes();
                let declared = self.declarations();
                let (ops, buffers) = self.segments.write(self.storage.as_ref(), &declared, group.cut())?;
                for group in ops.iter().filter_map(|op| if let Op::Group(group) = op { Some(group) } else { None }) {
                    let sites = group.sites().map(|id| (true, id));
                    let columns = group.blocks.iter().filter_map(Block::column).map(|id| (false, id));
                    let constants = group.constants.iter().map(|constant| (false, constant.id));
                    self.repeat_declarations(&declared, sites.chain(columns).chain(constants));
                }
                self.pending.extend(ops);
                self.mark(|stage| {
                    stage.queued -= size;
                    stage.recycle(buffers);
                });
            }
            Job::Save(mut save) => {
                let (size, buffers) = (save.size, std::mem::take(&mut save.buffers));
                let ops = self.packs.write(self.storage.as_ref(), save, &buffers)?;
                self.pending.extend(ops);
                self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).give_back(buffers);
                self.mark(|stage| stage.saving -= size);
            }
            Job::Shard(shard) => {
                let size = shard.bytes.len();
                let ops = self.packs.shard(self.storage.as_ref(), shard)?;
                self.pending.extend(ops);
                self.mark(|stage| stage.saving -= size);
            }
            Job::Complete(job) => {
                let ops = self.packs.complete(self.storage.as_ref(), job)?;
                self.pending.extend(ops);
            }
        }
        self.shared.room.notify_all();
        Ok(())
    }

    /// A log repeats the declarations that it uses, so that it can be read even if a commit is damaged.
    fn repeat_declarations(&mut self, declared: &Declared, used: impl Iterator<Item = (bool, u32)>) {
        for (is_site, id) in used {
            if self.logged.insert((is_site, id)) {
                let site = || declared.sites.get(&id).cloned().map(Op::Site);
                let column = || declared.columns.get(&id).cloned().map(Op::Column);
                self.pending.extend(if is_site { site() } else { column() });
            }
        }
    }

    fn declarations(&self) -> Arc<Declared> {
        Arc::clone(&self.declared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn make_durable(&mut self, jobs: Vec<Job>, metrics: Vec<Op>, dropped: Dropped, upto: u64) -> Result<()> {
        for job in jobs {
            self.write(job)?;
        }
        self.pending.extend(metrics);
        if dropped.rows > 0 {
            self.repeat_declarations(&self.declarations(), dropped.sites.iter().map(|site| (true, site.id)));
            self.pending.push(Op::Dropped(dropped));
        }
        self.segments.flush()?;
        self.packs.flush()?;
        self.mark(|stage| stage.written = upto);
        self.segments.sync()?;
        self.packs.sync()?;
        self.journal.append(std::mem::take(&mut self.pending))?;
        let again = self.packs.confirm(self.storage.as_ref())?;
        if !again.is_empty() {
            self.packs.sync()?;
            self.journal.append(again)?;
        }
        self.mark(|stage| stage.durable = upto);
        self.shared.tell();
        Ok(())
    }

    fn mark(&self, change: impl FnOnce(&mut Stage)) {
        change(&mut self.shared.lock());
    }

    fn end(&mut self, error: Option<String>) -> Result<()> {
        let declared = self.declarations();
        let sealed = self.segments.seal(&declared)?;
        self.pending.extend(sealed);
        self.pending.push(Op::Close(Close { error, time: clock::now() }));
        self.journal.append(std::mem::take(&mut self.pending))
    }
}
