//! Writers on a simulated file system, and every power cut of what they did.

use super::actor::Actor;
use super::disk::{Event, Node, Survives, mix};
use super::fs::{Lies, SimFs};
use super::hide::{What, prefixes};
use super::history::{self, Call, Called, Known, Note};
use super::view::{Found, found};
use lamina_format::commit;
use lamina_format::record::Op;
use lamina_store::hide::{Deletion, delete, discard, positions, rewind};
use lamina_store::keep::{Compaction, Progress, compact, gc};
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{CheckpointStream, StreamedPart};
use lamina_store::{Snapshot, Writer, create};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RUN: &str = "/data/runs/run";

/// A file system, and what was asked of each writer. Clones are the same one.
#[derive(Clone)]
pub struct Scene {
    pub fs: SimFs,
    calls: Arc<Mutex<Vec<Vec<Called>>>>,
    hides: Arc<AtomicUsize>,
    /// Cuts before this event tell nothing that is not known.
    from: Arc<AtomicUsize>,
    /// As of the beginning.
    known: Known,
}

impl Scene {
    /// A run that was just created.
    pub fn new(lies: Lies) -> Self {
        let scene = Self::on(SimFs::new().lying(lies), Vec::new(), Known::default());
        create(scene.storage().as_ref(), "{}").unwrap();
        scene.fs.note(Note::Created);
        scene
    }

    fn on(fs: SimFs, calls: Vec<Vec<Called>>, mut known: Known) -> Self {
        known.writers.resize_with(calls.len(), Default::default);
        let hides = Arc::new(AtomicUsize::new(known.hides.len()));
        Self { fs, calls: Arc::new(Mutex::new(calls)), hides, from: Arc::default(), known }
    }

    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(Files::on(Arc::new(self.fs.clone()), RUN))
    }

    pub fn open(&self) -> Actor {
        self.try_open().unwrap()
    }

    /// A writer, unless it is fenced at once.
    pub fn try_open(&self) -> lamina_format::Result<Actor> {
        let mut calls = self.calls.lock().unwrap();
        let slot = calls.len();
        calls.push(Vec::new());
        drop(calls);
        let storage = self.storage();
        let writer = Writer::open(Arc::clone(&storage), Some(slot as i64))?;
        self.fs.note(Note::Opened { slot, ordinal: writer.ordinal() });
        Ok(Actor { scene: self.clone(), slot, writer, storage, staged: 0, attached: BTreeSet::new() })
    }

    /// A log of checkpoints that come piece by piece: so many, visible together.
    pub fn import(&self, count: usize, bytes: u64) {
        let slot = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Vec::new());
            calls.len() - 1
        };
        let mut stream = CheckpointStream::open(self.storage(), None).unwrap();
        self.fs.note(Note::Opened { slot, ordinal: stream.ordinal() });
        for at in 0..count {
            let (tag, call) = (history::tag(slot, at), Call::Save { bytes });
            self.called(slot, Called { wrote: Arc::new(history::wrote(tag, &call)), call });
            self.fs.note(Note::Staged { slot });
            let (mut keys, mut specs) = (Vec::new(), Vec::new());
            for (spec, bytes) in history::tensors(tag, bytes) {
                keys.extend(stream.put(spec.dtype, &bytes).unwrap());
                specs.push(spec);
            }
            let (name, tree, scalars) = ("model".to_owned(), "{}".to_owned(), "[]".to_owned());
            stream.save(tag, vec![StreamedPart { name, tree, scalars, tensors: specs, keys }]).unwrap();
        }
        stream.commit().unwrap();
        self.fs.note(Note::Acknowledged { slot, calls: count });
        stream.close(None).unwrap();
        self.fs.note(Note::Closed { slot });
    }

    pub fn called(&self, slot: usize, called: Called) {
        self.calls.lock().unwrap()[slot].push(called);
    }

    /// Leaves out the cuts before this moment.
    pub fn begin_here(&self) {
        self.from.store(self.fs.history().1.len(), Ordering::Relaxed);
    }

    /// Closes the first writer to its owner, if it has a log.
    pub fn fence(&self) {
        let _ = self.storage().fence(0);
    }

    /// Closes every writer, and whoever compacted, to their owners, and compacts.
    pub fn compact_all(&self, cold: &[String]) -> lamina_format::Result<Compaction> {
        let storage = self.storage();
        storage.logs()?.into_iter().try_for_each(|(writer, _)| storage.fence(writer))?;
        compact(&storage, cold, &Progress::default())
    }

    /// Closes every writer to its owner, but for these.
    pub fn fence_all_but(&self, living: &[u32]) {
        let storage = self.storage();
        let logs = storage.logs().unwrap().into_iter().map(|(writer, _)| writer);
        logs.filter(|writer| !living.contains(writer)).for_each(|writer| storage.fence(writer).unwrap());
    }

    /// Names of the sites that are declared.
    pub fn sites(&self) -> Vec<String> {
        self.snapshot().unwrap().sites().into_iter().map(|info| info.site.name).collect()
    }

    /// Compacts what the writers that are done wrote.
    pub fn compact(&self, cold: &[&str]) -> Compaction {
        let cold: Vec<String> = cold.iter().map(|&name| name.to_owned()).collect();
        compact(&self.storage(), &cold, &Progress::default()).unwrap()
    }

    /// Hides something.
    pub fn hide(&self, what: What) {
        let what = Arc::new(what);
        let number = self.hides.fetch_add(1, Ordering::Relaxed);
        self.fs.note(Note::Hiding { number, what: Arc::clone(&what) });
        match &*what {
            What::Rewind(step) => rewind(self.storage().as_ref(), *step),
            What::Delete { sites, steps, rows } => {
                let rows: Vec<(i64, i64)> = rows.values().map(|&name| (name, name)).collect();
                delete(self.storage().as_ref(), &Deletion { sites, steps, rows: &rows })
            }
            What::Discard(steps) => {
                let storage = self.storage();
                let before = positions(storage.as_ref()).unwrap();
                discard(storage.as_ref(), &[(vec!["model".to_owned()], steps.clone())], &before)
            }
        }
        .unwrap();
        self.fs.note(Note::Hidden { number });
    }

    /// Cuts the power after every call, with `seeds` choices of what survives beside the two extremes; without any, only
    /// where something became durable or known. Says where the first loss is, else how many cuts there were.
    pub fn every_cut(&self, seeds: u64) -> Result<usize, String> {
        let ((mut disk, trace), calls) = (self.fs.history(), self.calls.lock().unwrap().clone());
        let (mut known, mut cuts, mut settled) = (self.known.clone(), 0, true);
        for (at, event) in trace.iter().enumerate() {
            disk.apply(event);
            if let Event::Note(note) = event {
                known.learn(note);
            }
            settled |= matches!(event, Event::SyncFile(_) | Event::SyncFolder(_) | Event::Note(_));
            let early = at < self.from.load(Ordering::Relaxed);
            if early
                || seeds == 0 && !settled
                || matches!(event, Event::New(_))
                || matches!(trace.get(at + 1), Some(Event::Note(_)))
            {
                continue;
            }
            let some = (0..seeds).map(|seed| Survives::Some(mix(seed, at as u64, 0)));
            // where nothing was synced since the last cut, nothing but that survives either
            let nothing = std::mem::take(&mut settled).then_some(Survives::Nothing);
            for survives in nothing.into_iter().chain([Survives::Everything]).chain(some) {
                let scene = Self::after_cut(disk.cut(survives), &calls, &known);
                let context = |what| format!("after event {at} of {}, {survives:?} survives: {what}", trace.len());
                scene.check().map_err(context)?;
                cuts += 1;
            }
        }
        Ok(cuts)
    }

    fn after_cut(nodes: Vec<Node>, calls: &[Vec<Called>], known: &Known) -> Self {
        Self::on(SimFs::on(nodes), calls.to_vec(), known.clone())
    }

    /// The scene after a cut of the power that all survived, with syncs from here on as they are told.
    pub fn lying_from_here(&self, lies: Lies) -> Self {
        let mut scene = self.after_this(Survives::Everything).unwrap_or_else(|wrong| panic!("{wrong}"));
        scene.fs = scene.fs.lying(lies);
        scene
    }

    /// The scene after a cut of the power, here and for good.
    pub fn after(&self, seed: u64) -> Result<Self, String> {
        self.after_this(Survives::Some(seed))
    }

    fn after_this(&self, survives: Survives) -> Result<Self, String> {
        let ((mut disk, trace), mut known) = (self.fs.history(), self.known.clone());
        trace.iter().for_each(|event| disk.apply(event));
        known.learn_all(&trace);
        let calls = self.calls.lock().unwrap().clone();
        let scene = Self::after_cut(disk.cut(survives), &calls, &known);
        // what survived stays
        let (_, found) = scene.held(&scene.known)?;
        let calls = found.views.into_iter().map(|view| vec![Called { call: Call::Log, wrote: Arc::new(view) }]);
        known.writers = scene.known.writers.iter().map(history::Progress::settled).collect();
        known.hides.clear();
        Ok(Self::on(scene.fs, calls.collect(), known))
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        Snapshot::open(self.storage(), Opening::default()).map_err(|error| error.to_string())
    }

    /// What the run shows now.
    pub fn found(&self) -> Result<Found, String> {
        let mut known = self.known.clone();
        known.learn_all(&self.fs.history().1);
        found(&self.snapshot()?, &known)
    }

    /// How many calls of each writer the run holds, and what it shows; or what is wrong with that.
    fn held(&self, known: &Known) -> Result<(Vec<usize>, Found), String> {
        let snapshot = self.snapshot()?;
        for problem in snapshot.problems() {
            if !problem.message.contains("never acknowledged") {
                return Err(format!("a problem: {problem}"));
            }
        }
        let found = found(&snapshot, known)?;
        let counts = prefixes(&found, known, &self.calls.lock().unwrap())?;
        for (slot, writer) in known.writers.iter().enumerate() {
            let Some(ordinal) = writer.ordinal else { continue };
            let info = snapshot.writers().iter().find(|info| info.ordinal == ordinal);
            let open = info.is_some_and(|info| info.open.is_some());
            let closed = info.is_some_and(|info| info.close.is_some());
            if !open || writer.closed && !closed {
                let what = ["", " and closed"][usize::from(writer.closed)];
                return Err(format!("writer {slot} was opened{what}, its log says otherwise"));
            }
        }
        Ok((counts, found))
    }

    fn was_collected(&self) -> bool {
        let storage = self.storage();
        let read = |n| commit::decode(&storage.read_commit(n).ok()?, n).ok();
        let commits: Vec<_> = storage.commits().unwrap_or_default().into_iter().filter_map(read).collect();
        commits.iter().flat_map(|(commit, _)| &commit.ops).any(|op| matches!(op, Op::Condemn(_)))
    }

    /// Compares the run with what is known; then another writer goes on, and what is there is compacted and
    /// collected.
    fn check(&self) -> Result<(), String> {
        let mut known = self.known.clone();
        if !known.created && self.snapshot().is_err() {
            return Ok(());
        }
        let (before, _) = self.held(&known)?;

        let mut another = self.open();
        // new names come first: they must not get the numbers of others
        another.stage(Call::Append { set: history::Set::After, rows: 2 });
        another.stage(Call::Append { set: history::Set::Mixed, rows: 2 });
        another.stage(Call::Save { bytes: 10 });
        another.wait();
        let ordinal = Some(another.writer.ordinal());
        if known.writers.iter().any(|writer| writer.ordinal == ordinal) {
            return Err("a writer took another's place".to_owned());
        }
        another.close();
        known.learn_all(&self.fs.history().1);
        let (after, found) = self.held(&known)?;
        // a save that was never acknowledged, and lacked what was collected, may be whole again
        if before.iter().zip(&after).any(|(before, after)| before > after) {
            return Err("a new writer changed what others wrote".to_owned());
        }

        let done = self.compact_all(&[]).map_err(|error| format!("what is there cannot be compacted: {error}"))?;
        if let Some(damage) = done.damages.first() {
            return Err(format!("compaction found damage: {damage}"));
        }
        // where a collection was at work, and now and then elsewhere
        if self.was_collected() || self.fs.history().1.len().is_multiple_of(4) {
            let collect = || gc(&self.storage(), Duration::ZERO, &Progress::default());
            let first = collect().map_err(|error| format!("what is there cannot be collected: {error}"))?;
            let second = collect().map_err(|error| error.to_string())?;
            if !second.condemned.is_empty() || !second.removed.is_empty() {
                return Err(format!("a collection left something to the next: {first:?} {second:?}"));
            }
        }
        match self.held(&known)?.1 == found {
            true => Ok(()),
            false => Err(format!("keeping changed something\n  {found:?}\n  {:?}", self.held(&known)?.1)),
        }
    }
}
