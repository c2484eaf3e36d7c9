//! The new run's logs, segments and packs, one writer after the other.

use super::Merged;
use super::moved::Move;
use super::union::Union;
use crate::keep::compactor::Compactor;
use crate::keep::rewrite::used;
use crate::keep::{Progress, declarations};
use crate::reader::checkpoint::Kept;
use crate::reader::{StoredGroup, WriterInfo};
use crate::storage::{Log, Storage};
use crate::writer::journal::Journal;
use crate::writer::metrics::MetricStage;
use crate::writer::pack::{Form, PackWriter};
use crate::writer::segment::SegmentWriter;
use crate::{chain, clock};
use lamina_format::chunk::Key;
use lamina_format::commit;
use lamina_format::record::{
    ATTACHED, Close, Dropped, DroppedSite, Group, Layout, LayoutContent, Op, Replace, Save, Table,
};
use lamina_format::{Error, ErrorKind, Result, cbor, names};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Bytes of group records at which a commit is published; commits hold 16 MiB.
const ENOUGH: usize = 4 << 20;

/// What is shared by all writers of the new run.
struct Target<'a> {
    storage: &'a Arc<dyn Storage>,
    union: &'a Union,
    /// Groups whose rows do not follow each other, and which no log may hold therefore.
    gaps: Gaps,
    /// Chunks that stand in the new run.
    chunks: HashSet<Key>,
    /// Steps and parts likewise.
    parts: HashSet<(i64, String)>,
    progress: &'a Progress,
}

/// Writes it all, durably.
pub fn write(
    storage: &Arc<dyn Storage>,
    runs: &[Merged],
    shifts: &[u32],
    union: &Union,
    progress: &Progress,
) -> Result<()> {
    progress.expect(runs.iter().map(bytes).sum());
    let behind = shifts.last().copied().unwrap_or(0);
    let gaps = Gaps {
        storage: Arc::clone(storage),
        ordinal: behind,
        compactor: None,
        groups: BTreeMap::new(),
        ops: vec![],
        size: 0,
    };
    let (chunks, parts) = (HashSet::new(), HashSet::new());
    let mut target = Target { storage, union, gaps, chunks, parts, progress };
    for ((run, &shift), numbers) in runs.iter().zip(shifts).zip(&union.numbers) {
        let mut kept: BTreeMap<u32, Vec<Kept>> = BTreeMap::new();
        for part in run.snapshot.kept_parts() {
            kept.entry(part.writer).or_default().push(part);
        }
        let mut groups: BTreeMap<u32, Vec<&StoredGroup>> = BTreeMap::new();
        for group in run.snapshot.shown() {
            groups.entry(group.origin.writer()).or_default().push(group);
        }
        let infos: BTreeMap<u32, &WriterInfo> =
            run.snapshot.writers().iter().map(|info| (info.ordinal, info)).collect();
        let recorded = |info: &&WriterInfo| info.open.as_ref().is_some_and(|open| open.work.is_none());
        let mut writers: BTreeSet<u32> = infos.values().copied().filter(recorded).map(|info| info.ordinal).collect();
        writers.extend(groups.keys().chain(kept.keys()));
        writers.extend(infos.values().filter(|info| !info.metrics.is_empty()).map(|info| info.ordinal));
        let moving = Move { snapshot: &run.snapshot, numbers, shift: i64::from(shift) << 40 };
        for writer in writers {
            let (groups, kept) = (groups.remove(&writer), kept.remove(&writer));
            let groups = groups.unwrap_or_default();
            target.writer(&moving, writer + shift, infos.get(&writer).copied(), &groups, kept.unwrap_or_default())?;
        }
    }
    target.gaps.close(union)
}

/// Bytes that will be read.
fn bytes(run: &Merged) -> u64 {
    let rows: u64 = run.snapshot.shown().map(|group| group.record.length).sum();
    let mut seen = HashSet::new();
    let kept = run.snapshot.kept_parts();
    let chunks = kept.iter().flat_map(Kept::chunks).filter(|(key, ..)| seen.insert(**key));
    rows + chunks.map(|(_, _, length)| length as u64).sum::<u64>()
}

impl Target<'_> {
    /// All that one writer recorded, and shows.
    fn writer(
        &mut self,
        moving: &Move,
        ordinal: u32,
        info: Option<&WriterInfo>,
        groups: &[&StoredGroup],
        kept: Vec<Kept>,
    ) -> Result<()> {
        let taken = || Error::new(ErrorKind::Storage, "somebody else writes to the unfinished run");
        let log = self.storage.create_log(ordinal, 0)?.ok_or_else(|| taken().in_file(names::log(ordinal, 0)))?;
        let mut ops = Vec::new();
        if let Some(open) = info.and_then(|info| info.open.clone()) {
            ops.push(Op::Open(open));
        }
        let rows = self.rows(moving, ordinal, groups)?;
        let dropped = info.map(|info| self.dropped(moving, &info.dropped)).unwrap_or_default();
        let sites = dropped.sites.iter().map(|site| (true, site.id));
        let uses = rows.iter().filter_map(|op| if let Op::Group(group) = op { Some(group) } else { None });
        ops.extend(declarations(&self.union.declared, uses.flat_map(used).chain(sites).collect()));
        ops.extend(rows);
        if dropped.rows > 0 {
            ops.push(Op::Dropped(dropped));
        }
        let mut metrics = MetricStage::default();
        let all = moving.snapshot.metrics();
        for at in info.map_or(0..0, |info| info.metrics.clone()) {
            let word = |index: Option<u32>| index.and_then(|index| all.words.get(index as usize)).map(String::as_str);
            let name = word(Some(all.names[at])).unwrap_or_default();
            metrics.push(
                all.steps[at],
                all.times[at],
                all.values[at],
                name,
                word(all.sites[at]),
                word(all.sources[at]),
            );
        }
        ops.extend(metrics.take());
        ops.extend(self.checkpoints(moving, ordinal, kept)?);
        let unfinished =
            || Close { error: Some("the writer had not ended when its run was copied".to_owned()), time: clock::now() };
        ops.push(Op::Close(info.and_then(|info| info.close.clone()).unwrap_or_else(unfinished)));
        Journal::new(Arc::clone(self.storage), ordinal, log).append(ops)
    }

    /// Its row groups: what must stand in its log.
    fn rows(&mut self, moving: &Move, ordinal: u32, groups: &[&StoredGroup]) -> Result<Vec<Op>> {
        let mut segments = SegmentWriter::new(ordinal);
        let (storage, declared) = (self.storage.as_ref(), &self.union.declared);
        let mut ops = Vec::new();
        for group in groups {
            self.progress.check()?;
            for moved in moving.cuts(group).map_err(|error| still_there(error, group))? {
                if moved.cut.span.is_some() && moved.cut.table != Table::Attached {
                    self.gaps.add(self.union, ordinal, moved)?;
                } else {
                    ops.extend(segments.place(storage, declared, moved.cut, moved.first)?.0);
                }
            }
            self.progress.add(group.record.length);
        }
        ops.extend(segments.seal(declared)?);
        Ok(ops)
    }

    fn dropped(&self, moving: &Move, dropped: &Dropped) -> Dropped {
        let site =
            |site: &DroppedSite| Some(DroppedSite { id: *moving.numbers.get(&(true, site.id))?, rows: site.rows });
        Dropped { rows: dropped.rows, sites: dropped.sites.iter().filter_map(site).collect() }
    }

    /// Its checkpoints, of which the new run does not hold the same yet.
    fn checkpoints(&mut self, moving: &Move, ordinal: u32, kept: Vec<Kept>) -> Result<Vec<Op>> {
        let mut packs = PackWriter::new(ordinal);
        let (mut ops, mut layouts, mut save) = (Vec::new(), HashSet::new(), None::<Save>);
        for kept in kept {
            if !self.parts.insert((kept.step, kept.part.name.clone())) {
                continue;
            }
            if kept.step == ATTACHED {
                chain::require(self.storage.as_ref(), Some(ordinal), commit::ATTACHED)?;
            }
            let writer = kept.writer;
            for (key, spec, length) in kept.chunks() {
                self.progress.check()?;
                if self.chunks.insert(*key) {
                    let raw = moving.snapshot.chunk(key, spec, length, writer)?;
                    // what was coded stays so; the base of a difference may not be here
                    let form = if moving.snapshot.is_coded(key) { Form::Planes } else { Form::Raw };
                    packs.put(self.storage.as_ref(), *key, spec.dtype, &raw, form, &mut ops)?;
                    self.progress.add(length as u64);
                }
            }
            if layouts.insert(kept.part.layout) {
                if cbor::decode::<LayoutContent>(kept.layout, "a layout")?.wholes.is_some() {
                    chain::require(self.storage.as_ref(), Some(ordinal), commit::PIECES)?;
                }
                ops.push(Op::Layout(Layout { content: kept.layout.to_vec() }));
            }
            match &mut save {
                Some(save) if (save.step, save.time) == (kept.step, kept.time) => save.parts.push(kept.part.clone()),
                _ => {
                    let next = Save { step: kept.step, time: kept.time, parts: vec![kept.part.clone()] };
                    ops.extend(save.replace(next).map(Op::Save));
                }
            }
        }
        ops.extend(save.map(Op::Save));
        packs.sync()?;
        Ok(ops)
    }
}

fn still_there(error: Error, group: &StoredGroup) -> Error {
    let (first, last) = group.record.span();
    let hint = format!("rows {first} to {last} are affected; run.delete(rows=...) leaves them out");
    if error.kind == ErrorKind::Damaged { error.hint(hint) } else { error }
}

/// Groups with row names that do not follow each other: commits hold them, as compaction makes them.
struct Gaps {
    storage: Arc<dyn Storage>,
    ordinal: u32,
    compactor: Option<Compactor>,
    /// By writer.
    groups: BTreeMap<u32, Vec<Group>>,
    /// Seals.
    ops: Vec<Op>,
    /// Bytes of the groups' records.
    size: usize,
}

impl Gaps {
    fn add(&mut self, union: &Union, writer: u32, moved: crate::keep::rewrite::Rewritten) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        let compactor = match &mut self.compactor {
            Some(compactor) => compactor,
            none => {
                let taken = || Error::new(ErrorKind::Storage, "somebody else writes to the unfinished run");
                let log: Box<dyn Log> = storage.create_log(self.ordinal, 0)?.ok_or_else(taken)?;
                none.insert(Compactor::begin(Arc::clone(&storage), self.ordinal, log)?)
            }
        };
        let (ops, _) = compactor.segments.place(storage.as_ref(), &union.declared, moved.cut, moved.first)?;
        for op in ops {
            match op {
                Op::Group(group) => {
                    self.size += cbor::encode(&group).len();
                    self.groups.entry(writer).or_default().push(group);
                }
                seal => self.ops.push(seal),
            }
        }
        if self.size > ENOUGH { self.publish(union) } else { Ok(()) }
    }

    fn publish(&mut self, union: &Union) -> Result<()> {
        let Some(compactor) = &mut self.compactor else { return Ok(()) };
        self.size = 0;
        self.ops.extend(compactor.segments.seal(&union.declared)?);
        let uses = self.groups.values().flatten().flat_map(used).collect();
        let mut ops = declarations(&union.declared, uses);
        ops.append(&mut self.ops);
        let replace = |(writer, new)| Op::Replace(Replace { writer, old: vec![], new, commit: None });
        ops.extend(std::mem::take(&mut self.groups).into_iter().map(replace));
        compactor.publish(None, &ops, |_| false).map(drop)
    }

    fn close(mut self, union: &Union) -> Result<()> {
        if !self.groups.is_empty() {
            self.publish(union)?;
        }
        self.compactor.map_or(Ok(()), |compactor| compactor.close(None))
    }
}
