//! Writers on a simulated file system, and every power cut of what they did.

use super::disk::{Event, Node, Survives, mix};
use super::fs::{Lies, SimFs};
use super::history::{self, Call, Known, Note, tag};
use super::view::prefixes;
use lamina_format::ColumnType;
use lamina_format::record::TensorSpec;
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{ColumnInput, PartInput, SiteInput};
use lamina_store::{Snapshot, Ticket, Writer, create};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RUN: &str = "/data/runs/run";

/// A file system, and what each writer was asked to do. Clones are the same one.
#[derive(Clone)]
pub struct Scene {
    pub fs: SimFs,
    calls: Arc<Mutex<Vec<Vec<Call>>>>,
    /// As of the beginning.
    known: Known,
}

/// A writer, and what it was asked to do.
pub struct Actor {
    scene: Scene,
    slot: usize,
    writer: Writer,
    storage: Arc<dyn Storage>,
    staged: usize,
}

impl Scene {
    /// A run that was just created.
    pub fn new(lies: Lies) -> Self {
        let scene = Self { fs: SimFs::new().lying(lies), calls: Arc::default(), known: Known::default() };
        create(scene.storage().as_ref(), "{}").unwrap();
        scene.fs.note(Note::Created);
        scene
    }

    fn storage(&self) -> Arc<dyn Storage> {
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
        Ok(Actor { scene: self.clone(), slot, writer, storage, staged: 0 })
    }

    /// Closes the first writer to its owner, if it has a log.
    pub fn fence(&self) {
        let _ = self.storage().fence(0);
    }

    /// Cuts the power after every call, with `seeds` choices of what survives beside the two extremes; says where
    /// the first loss is, else how many cuts there were.
    pub fn every_cut(&self, seeds: u64) -> Result<usize, String> {
        let ((mut disk, trace), calls) = (self.fs.history(), self.calls.lock().unwrap().clone());
        let (mut known, mut cuts) = (self.known.clone(), 0);
        for (at, event) in trace.iter().enumerate() {
            disk.apply(event);
            if let Event::Note(note) = event {
                known.learn(note);
            }
            if matches!(event, Event::New(_)) || matches!(trace.get(at + 1), Some(Event::Note(_))) {
                continue;
            }
            let some = (0..seeds).map(|seed| Survives::Some(mix(seed, at as u64, 0)));
            for survives in [Survives::Nothing, Survives::Everything].into_iter().chain(some) {
                let scene = Self::on(disk.cut(survives), &calls, &known);
                let context = |what| format!("after event {at} of {}, {survives:?} survives: {what}", trace.len());
                scene.check().map_err(context)?;
                cuts += 1;
            }
        }
        Ok(cuts)
    }

    fn on(nodes: Vec<Node>, calls: &[Vec<Call>], known: &Known) -> Self {
        let mut known = known.clone();
        known.writers.resize_with(calls.len(), Default::default);
        Self { fs: SimFs::on(nodes), calls: Arc::new(Mutex::new(calls.to_vec())), known }
    }

    /// The scene after a cut of the power, here and for good.
    pub fn after(&self, seed: u64) -> Result<Self, String> {
        let ((mut disk, trace), mut known) = (self.fs.history(), self.known.clone());
        trace.iter().for_each(|event| disk.apply(event));
        known.learn_all(&trace);
        let mut scene = Self::on(disk.cut(Survives::Some(seed)), &self.calls.lock().unwrap(), &known);
        let held = scene.held(&scene.known)?;
        for (writer, count) in scene.known.writers.iter_mut().zip(held) {
            // what survived stays
            (writer.staged, writer.acknowledged) = (count, count);
        }
        Ok(scene)
    }

    /// How many calls of each writer the run holds, or what is wrong with them.
    fn held(&self, known: &Known) -> Result<Vec<usize>, String> {
        let snapshot = Snapshot::open(self.storage(), Opening::default()).map_err(|error| error.to_string())?;
        prefixes(&snapshot, known, &self.calls.lock().unwrap())
    }

    /// Compares the run with what is known; then another writer goes on.
    fn check(&self) -> Result<(), String> {
        let mut known = self.known.clone();
        if !known.created && Snapshot::open(self.storage(), Opening::default()).is_err() {
            return Ok(());
        }
        let before = self.held(&known)?;

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
        let after = self.held(&known)?;
        if !after.starts_with(&before) { Err("a new writer changed what others wrote".to_owned()) } else { Ok(()) }
    }
}

impl Actor {
    /// Hands a call to the writer.
    pub fn stage(&mut self, call: Call) {
        let tag = tag(self.slot, self.staged);
        self.scene.calls.lock().unwrap()[self.slot].push(call.clone());
        self.scene.fs.note(Note::Staged { slot: self.slot });
        self.staged += 1;
        let failed = match call {
            Call::Append { set, rows } => self.append(tag, set, rows).err(),
            Call::Examples { rows } => {
                let columns = history::example_columns(tag, rows);
                with_columns(&columns, |columns| self.writer.examples(self.storage.as_ref(), rows, columns).err())
            }
            Call::Log => self.writer.log(tag, 1, &[("loss".to_owned(), tag as f64 + 0.5)], None, None).err(),
            Call::Save { bytes } => {
                let tensors = history::tensors(tag, bytes);
                let tensors =
                    tensors.iter().map(|(spec, bytes): &(TensorSpec, _)| (spec.clone(), &bytes[..])).collect();
                self.writer.save(tag, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }]).err()
            }
        };
        self.expect(failed);
    }

    /// Nothing fails but behind a fence.
    fn expect(&self, failure: Option<lamina_format::Error>) -> bool {
        if let Some(error) = &failure {
            assert!(error.message.contains("closed this writer for good"), "{error}");
        }
        failure.is_none()
    }

    fn append(&self, tag: i64, set: history::Set, rows: u64) -> lamina_format::Result<Ticket> {
        let data: Vec<_> = history::sites(set)
            .into_iter()
            .map(|(name, dtype, shape)| {
                let item = shape.iter().product::<u64>() * dtype.size();
                (history::bytes(tag, &name, rows * item), name, dtype, shape)
            })
            .collect();
        let sites: Vec<SiteInput> = data
            .iter()
            .map(|(bytes, name, dtype, shape)| SiteInput { name, dtype: *dtype, shape: shape.clone(), bytes })
            .collect();
        with_columns(&history::columns(tag, set, rows), |columns| {
            self.writer.append(self.storage.as_ref(), rows, &sites, columns)
        })
    }

    /// Waits until everything is durable.
    pub fn wait(&mut self) {
        let waited = self.writer.flush().wait(Duration::from_secs(60));
        assert!(waited != Ok(false), "a minute is enough for anything");
        if self.expect(waited.err()) {
            self.scene.fs.note(Note::Acknowledged { slot: self.slot, calls: self.staged });
        }
    }

    pub fn close(self) {
        let closed = self.writer.close(None).err();
        if self.expect(closed) {
            self.scene.fs.note(Note::Closed { slot: self.slot });
        }
    }
}

fn with_columns<T>(
    columns: &[(&'static str, ColumnType, Vec<lamina_format::Value>)],
    use_them: impl FnOnce(&[ColumnInput]) -> T,
) -> T {
    let inputs: Vec<_> =
        columns.iter().map(|(name, kind, values)| (name, kind, history::input(*kind, values))).collect();
    let inputs: Vec<ColumnInput> = inputs
        .into_iter()
        .map(|(name, kind, (values, valid))| ColumnInput {
            name,
            kind: *kind,
            values,
            valid: valid.map(|valid| &*Box::leak(valid.into_boxed_slice())),
        })
        .collect();
    use_them(&inputs)
}
