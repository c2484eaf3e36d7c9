//! A small workload, and a file system that fails.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

#[macro_use]
mod delegate;

use lamina_format::{ColumnType, DType, Value};
use lamina_store::storage::{Files, Fs, FsFile, RealFs, Storage};
use lamina_store::writer::{ColumnInput, SiteInput, Values};
use lamina_store::{Snapshot, Writer};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub fn storage(path: &Path) -> Arc<dyn Storage> {
    Arc::new(Files::new(path))
}

/// Appends `rows` rows of a site `x` (f32, 4 wide) whose value is the step, with columns step and name.
pub fn append(
    writer: &Writer,
    storage: &dyn Storage,
    step: i64,
    rows: u64,
) -> lamina_format::Result<lamina_store::Ticket> {
    let bytes: Vec<u8> = (0..rows * 4).flat_map(|_| (step as f32).to_le_bytes()).collect();
    let site = SiteInput { name: "x", dtype: DType::F32, shape: vec![4], bytes: &bytes, lent: None, codes: None };
    let names = (0..rows).map(|row| (row % 2 == 0).then(|| format!("row {row}"))).collect();
    let columns = [
        ColumnInput { name: "step", kind: ColumnType::Int, values: Values::Constant(Value::Int(step)), valid: None },
        ColumnInput { name: "name", kind: ColumnType::Str, values: Values::Texts(names), valid: None },
    ];
    writer.append(storage, rows, &[site], &columns)
}

/// The first value of every row of `x`, in order.
pub fn values(snapshot: &Snapshot) -> Vec<f32> {
    let Ok(site) = snapshot.site("x") else { return Vec::new() };
    let mut all = Vec::new();
    for (index, group) in snapshot.groups().iter().enumerate() {
        let mut out = vec![0; group.rows as usize * 16];
        snapshot.read(index, site, &mut out).unwrap();
        all.extend(out.chunks(16).map(|row| f32::from_le_bytes([row[0], row[1], row[2], row[3]])));
    }
    all
}

pub fn wait(ticket: &lamina_store::Ticket) -> lamina_format::Result<bool> {
    ticket.wait(Duration::from_secs(20))
}

/// Lets `allowed` calls that change something through, then fails them all.
#[derive(Clone)]
pub struct FailingFs {
    left: Arc<AtomicUsize>,
    kind: io::ErrorKind,
}

impl FailingFs {
    pub fn new(allowed: usize, kind: io::ErrorKind) -> Self {
        Self { left: Arc::new(AtomicUsize::new(allowed)), kind }
    }

    /// Calls that are still let through.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    fn spend(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| io::Error::new(self.kind, "injected"))
    }
}

impl Fs for FailingFs {
    real!(open list exists remove_dir_all);

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.create_dir(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.spend()?;
        Ok(Box::new(FailingFile { inner: RealFs.create_new(path)?, fs: self.clone() }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(FailingFile { inner: RealFs.open_direct(path)?, fs: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.spend()?;
        RealFs.sync_dir(path)
    }
}

struct FailingFile {
    inner: Box<dyn FsFile>,
    fs: FailingFs,
}

impl FsFile for FailingFile {
    inner!(inner: length read_at);

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.fs.spend() {
            // a full disk takes what fits
            let _ = self.inner.write_at(offset, &bytes[..bytes.len() / 2]);
            return Err(error);
        }
        self.inner.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.spend()?;
        self.inner.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.fs.spend()?;
        self.inner.set_length(length)
    }
}

/// Counts syncs of files, and can hold them up or fail them.
#[derive(Clone, Default)]
pub struct CountingFs(Arc<Counts>);

#[derive(Default)]
struct Counts {
    syncs: AtomicUsize,
    waiting: AtomicUsize,
    failing: AtomicBool,
    gate: Mutex<()>,
}

impl CountingFs {
    /// Syncs of files so far; those of folders are not counted.
    pub fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::SeqCst)
    }

    /// Until it is dropped no sync returns.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.gate.lock().unwrap()
    }

    /// Syncs that have begun and not returned.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    pub fn fail_syncs(&self) {
        self.0.failing.store(true, Ordering::SeqCst);
    }
}

struct CountingFile(Box<dyn FsFile>, Arc<Counts>);

impl Fs for CountingFs {
    real!(create_dir_all create_dir open_direct open rename link remove_file sync_dir list exists);

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(CountingFile(RealFs.create_new(path)?, Arc::clone(&self.0))))
    }
}

impl FsFile for CountingFile {
    inner!(0: length read_at write_at set_length);

    fn sync_data(&self) -> io::Result<()> {
        self.1.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.1.gate.lock().unwrap());
        self.1.waiting.fetch_sub(1, Ordering::SeqCst);
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.failing.load(Ordering::SeqCst) { Err(io::Error::other("injected")) } else { self.0.sync_data() }
    }
}
