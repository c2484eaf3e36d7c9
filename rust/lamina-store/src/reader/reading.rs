//! The logs of a run, one after the other.

use super::WriterInfo;
use super::checkpoint::Checkpoints;
use super::group::StoredGroup;
use super::hidden::{Hiding, Origin};
use super::metrics::MetricColumns;
use crate::chain::Chain;
use crate::clock;
use crate::storage::Storage;
use lamina_format::record::{Close, Dropped, DroppedSite, Group, Op, Open, Replace, Table};
use lamina_format::runfile::possible_time;
use lamina_format::segment::Declared;
use lamina_format::{Error, Result, check, frame, names};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the logs say, while they are being read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) problems: Vec<Error>,
    pub(super) writers: Vec<WriterInfo>,
    pub(super) groups: Vec<StoredGroup>,
    pub(super) examples: Vec<StoredGroup>,
    pub(super) metrics: MetricColumns,
    pub(super) checkpoints: Checkpoints,
    /// Writers whose log holds no record.
    silent: Vec<u32>,
    pub(super) hiding: Hiding,
    /// Copies of what commits replaced, in case that these cannot be read.
    pub(super) copies: Vec<Replace>,
    /// Bytes of replaced groups, by file.
    pub(super) dead: HashMap<String, u64>,
    /// Segments that were sealed.
    pub(super) sealed: HashSet<String>,
}

impl Reading {
    pub(super) fn new(hiding: Hiding) -> Self {
        Self { hiding, ..Self::default() }
    }

    /// A writer that published a commit had made its first record durable before.
    pub(super) fn check_authors(&mut self, chain: &Chain) {
        let mut authors: Vec<u32> = chain.commits.iter().filter_map(|(commit, _)| commit.writer).collect();
        authors.sort_unstable();
        authors.dedup();
        for author in authors {
            let known = self.writers.iter().any(|writer| writer.ordinal == author);
            let file = names::log(author, 0);
            let told = self.problems.iter().any(|problem| problem.file.as_ref() == Some(&file));
            if !told && (!known || self.silent.contains(&author)) {
                self.problems.push(Error::damaged("the log of a writer is missing or empty").in_file(file));
            }
        }
    }

    /// Takes up a row group; says so if it lies, and leaves its rows out.
    pub(super) fn take(&mut self, record: Group, origin: Origin, declared: &Declared, file: &str) {
        let (first, last) = record.span();
        let named = |name: i64| name >> 40 == i64::from(origin.writer());
        // rows that a writer records are named one after the other; compaction leaves some out
        let ordinary = record.last.is_none() || matches!(origin, Origin::Commit { .. });
        let own = record.table == Table::Attached || named(first) && named(last) && ordinary;
        let foreign = || Error::damaged("a row group bears another writer's row names").in_file(&record.file);
        match check::group(&record, declared).and_then(|()| own.then_some(()).ok_or_else(foreign)) {
            Ok(()) => {
                let to = if record.table == Table::Examples { &mut self.examples } else { &mut self.groups };
                to.push(StoredGroup::new(record, origin));
            }
            Err(error) => {
                self.problems.push(error.hint(format!("the record stands in {file}; its rows were left out")));
            }
        }
    }

    /// Reads a log, as far as it is valid.
    pub(super) fn log(
        &mut self,
        storage: &dyn Storage,
        writer: u32,
        generation: u32,
        declared: &mut Declared,
    ) -> Result<()> {
        let file = names::log(writer, generation);
        let bytes = match storage.read_log(writer, generation) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problems.push(error);
                return Ok(());
            }
        };
        self.problems.extend(storage.check_fence(writer).err());
        let scan = frame::scan(&bytes, generation).map_err(|error| error.in_file(&file))?;
        if scan.frames.is_empty() {
            self.silent.push(writer);
        }
        let metrics = self.metrics.steps.len()..0;
        let mut info =
            WriterInfo { ordinal: writer, open: None, close: None, dropped: Dropped::default(), alive: false, metrics };
        let mut dropped = BTreeMap::new();
        let framed = scan.frames.into_iter().flat_map(|frame| frame.ops.into_iter().map(move |op| (frame.seq, op)));
        for (frame, op) in framed {
            let origin = Origin::Log { writer, frame };
            if let Err(error) = declared.apply(&op) {
                self.problems.push(error.in_file(&file));
            }
            match op {
                Op::Open(Open { time, .. }) | Op::Close(Close { time, .. }) if !possible_time(time) => {
                    self.problems.push(Error::damaged("a record of the log has an impossible time").in_file(&file));
                }
                Op::Open(open) => info.open = Some(open),
                Op::Close(close) => info.close = Some(close),
                Op::Dropped(more) => {
                    info.dropped.rows = info.dropped.rows.saturating_add(more.rows);
                    for site in more.sites {
                        let rows: &mut u64 = dropped.entry(site.id).or_default();
                        *rows = rows.saturating_add(site.rows);
                    }
                }
                Op::Group(record) => self.take(record, origin, declared, &file),
                Op::Metrics(metrics) => {
                    let rank = info.open.as_ref().and_then(|open| open.rank);
                    if let Err(error) = self.metrics.extend(metrics, rank, self.hiding.hidden_step(origin)) {
                        self.problems.push(error.in_file(&file));
                    }
                }
                Op::Save(mut save) => {
                    if self.hiding.keep(&mut save.parts, save.step, origin)
                        && let Err(error) = self.checkpoints.apply(Op::Save(save), &file)
                    {
                        self.problems.push(error.in_file(&file));
                    }
                }
                Op::Chunks(_) | Op::Layout(_) => {
                    if let Err(error) = self.checkpoints.apply(op, &file) {
                        self.problems.push(error.in_file(&file));
                    }
                }
                Op::Replace(copy) => self.copies.push(copy),
                Op::Seal(seal) => drop(self.sealed.insert(seal.file)),
                Op::Create(_) | Op::Site(_) | Op::Column(_) => {}
                Op::Rewind(_) | Op::Delete(_) | Op::Discard(_) | Op::Condemn(_) | Op::Drop(_) | Op::Note(_) => {}
            }
        }
        let may_live = |open: &Open| clock::may_live(&open.host, open.pid);
        info.alive = info.close.is_none() && info.open.as_ref().is_some_and(may_live) && !storage.fenced(writer)?;
        info.metrics.end = self.metrics.steps.len();
        info.dropped.sites = dropped.into_iter().map(|(id, rows)| DroppedSite { id, rows }).collect();
        for at in scan.damaged {
            let error = Error::damaged("a record of the log is damaged or missing; the records after it were read");
            self.problems.push(error.in_file(&file).at(at));
        }
        // a writer at work is in the middle of its next record
        if scan.tail && !info.alive {
            let error = Error::damaged("the log's last bytes are no valid record: never acknowledged, or damaged");
            self.problems.push(error.in_file(&file).at(scan.valid));
        }
        self.writers.push(info);
        Ok(())
    }
}
