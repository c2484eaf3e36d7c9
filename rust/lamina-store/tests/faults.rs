//! A disk that fails at any call: what was acknowledged opens, and the writer says why it stopped.
#![allow(missing_docs, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::{FailingFs, append, storage, values, wait};
use lamina_format::record::Table;
use lamina_format::{ErrorKind, Value};
use lamina_store::reader::ColumnData;
use lamina_store::storage::{Files, Fs, FsFile, RealFs};
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Three durable appends and a close; returns the steps that were acknowledged, and the first error.
fn work(path: &Path, fs: &FailingFs) -> (Vec<f32>, Option<lamina_format::Error>) {
    let storage: Arc<dyn lamina_store::storage::Storage> = Arc::new(Files::on(Arc::new(fs.clone()), path));
    let mut acknowledged = Vec::new();
    let writer = match Writer::open(Arc::clone(&storage), None) {
        Ok(writer) => writer,
        Err(error) => return (acknowledged, Some(error)),
    };
    for step in 0..3 {
        let result = append(&writer, storage.as_ref(), step, 2).and_then(|ticket| wait(&ticket));
        match result {
            Ok(_) => acknowledged.extend([step as f32; 2]),
            Err(error) => return (acknowledged, Some(error)),
        }
    }
    (acknowledged, writer.close(None).err())
}

#[test]
fn a_failure_at_any_call_loses_nothing_that_was_acknowledged() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for allowed in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            create(storage(&path).as_ref(), "{}").unwrap();
            let fs = FailingFs::new(allowed, kind);
            let (acknowledged, error) = work(&path, &fs);
            let snapshot = Snapshot::open(storage(&path), Opening::default()).unwrap();
            let found = values(&snapshot);
            assert_eq!(found[..acknowledged.len()], acknowledged, "after {allowed} calls");
            let Some(error) = error else {
                assert_eq!(fs.left(), 0, "the workload makes a fixed number of calls");
                assert!(allowed > 20, "the loop reached the end");
                break;
            };
            assert_eq!(error.kind, ErrorKind::Storage, "after {allowed} calls: {error}");
            assert!(error.file.is_some(), "{error}");
            // the run is not locked: another writer goes on
            let again = Writer::open(storage(&path), None).unwrap();
            wait(&append(&again, storage(&path).as_ref(), 9, 1).unwrap()).unwrap();
            again.close(None).unwrap();
            assert!(values(&Snapshot::open(storage(&path), Opening::default()).unwrap()).ends_with(&[9.0]));
        }
    }
}

#[test]
fn a_run_that_cannot_be_created_leaves_nothing_behind() {
    let mut failed = 0;
    for allowed in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let fs = FailingFs::new(allowed, io::ErrorKind::StorageFull);
        let created = create(&Files::on(Arc::new(fs), &path), "{}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // where the folder's name could not be made durable the run stands there, whole
        let Err(error) = created.or_else(|error| if path.exists() { Ok(()) } else { Err(error) }) else {
            assert_eq!(left, ["run"]);
            Snapshot::open(storage(&path), Opening::default()).unwrap();
            break;
        };
        assert_eq!(error.kind, ErrorKind::Storage, "after {allowed} calls: {error}");
        assert!(left.is_empty(), "after {allowed} calls: {left:?}");
        failed += 1;
    }
    assert!(failed > 10, "the disk failed at {failed} calls");
}

#[test]
fn a_failed_writer_refuses_everything_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let fs = FailingFs::new(16, io::ErrorKind::StorageFull);
    let failing: Arc<dyn lamina_store::storage::Storage> = Arc::new(Files::on(Arc::new(fs), &path));
    let writer = Writer::open(Arc::clone(&failing), None).unwrap();
    let mut last = Ok(true);
    for step in 0..20 {
        match append(&writer, failing.as_ref(), step, 2) {
            Ok(ticket) => last = wait(&ticket),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Writer);
                assert!(error.message.contains("injected"), "{error}");
                assert_eq!(last.unwrap_err().kind, ErrorKind::Storage);
                assert_eq!(writer.close(None).unwrap_err().kind, ErrorKind::Storage);
                return;
            }
        }
    }
    panic!("the disk never failed");
}

/// A disk of which one sync fails; the next would succeed, as it does where the kernel reports an error but once.
#[derive(Clone)]
struct OneBadSync {
    /// What the path holds of which a sync fails, and how many of them succeed before.
    of: &'static str,
    left: Arc<AtomicUsize>,
}

struct OneBadFile {
    inner: Box<dyn FsFile>,
    fs: OneBadSync,
    path: PathBuf,
}

impl OneBadSync {
    fn sync(&self, path: &Path) -> io::Result<()> {
        let concerned = path.to_string_lossy().contains(self.of);
        let count = || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.wrapping_sub(1)));
        if concerned && count() == Ok(0) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn failed(&self) -> bool {
        self.left.load(Ordering::SeqCst) > usize::MAX / 2
    }
}

impl Fs for OneBadSync {
    real!(create_dir_all create_dir open_direct open rename link remove_file list exists);

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let inner = RealFs.create_new(path)?;
        Ok(Box::new(OneBadFile { inner, fs: self.clone(), path: path.to_owned() }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        RealFs.sync_dir(path)
    }
}

impl FsFile for OneBadFile {
    inner!(inner: length read_at write_at set_length);

    fn sync_data(&self) -> io::Result<()> {
        self.fs.sync(&self.path)?;
        self.inner.sync_data()
    }
}

/// Appends until something fails; how many appends were acknowledged, and the tickets of those that were staged.
fn until_it_fails(writer: &Writer, on: &dyn lamina_store::storage::Storage) -> (usize, Vec<lamina_store::Ticket>) {
    let (mut acknowledged, mut tickets) = (0, Vec::new());
    for step in 0..40 {
        // two of a durable point, of which one is waited for
        let staged = append(writer, on, step, 1).and_then(|one| append(writer, on, step, 1).map(|two| (one, two)));
        let Ok((one, two)) = staged else { break };
        let waited = wait(&two);
        tickets.extend([one, two]);
        if waited.is_err() {
            break;
        }
        acknowledged += 2;
    }
    (acknowledged, tickets)
}

#[test]
fn one_failed_sync_ends_the_writer_for_good_and_every_ticket_says_why() {
    let places = ["segments/", "logs/000000", "/segments", "/logs", "commits/.", "/commits"];
    for (place, of) in places.into_iter().enumerate() {
        let mut failures = 0;
        for allowed in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            create(storage(&path).as_ref(), "{}").unwrap();
            let fs = OneBadSync { of, left: Arc::new(AtomicUsize::new(allowed)) };
            let failing: Arc<dyn lamina_store::storage::Storage> = Arc::new(Files::on(Arc::new(fs.clone()), &path));
            let mut kept = 0;
            if let Ok(writer) = Writer::open(Arc::clone(&failing), None) {
                let (acknowledged, tickets) = until_it_fails(&writer, failing.as_ref());
                kept = acknowledged;
                // a commit is published on the caller's thread: it fails the call, and the writer goes on
                let committed = of.contains("commits");
                if fs.failed() && !committed {
                    failures += 1;
                    for (at, ticket) in tickets.iter().enumerate() {
                        let error = ticket.error();
                        assert_eq!(error.is_some(), at >= acknowledged, "{of} after {allowed}: ticket {at}");
                        assert!(error.is_none_or(|error| error.to_string().contains("os error 5")));
                    }
                    // the disk works again; this writer never does
                    for _ in 0..3 {
                        let refused = append(&writer, failing.as_ref(), 9, 1).err().unwrap();
                        assert_eq!(refused.kind, ErrorKind::Writer, "{of}: {refused}");
                        assert!(refused.message.contains("os error 5"), "{refused}");
                        assert!(wait(&writer.flush()).is_err());
                    }
                    assert_eq!(writer.close(None).unwrap_err().kind, ErrorKind::Storage);
                } else {
                    failures += usize::from(fs.failed());
                    let _ = writer.close(None);
                }
            } else {
                failures += 1;
            }
            let snapshot = Snapshot::open(storage(&path), Opening::default()).unwrap();
            if fs.failed() && of == "segments/" {
                // the log is sound, and says why it ends
                let close = snapshot.writers()[0].close.as_ref().unwrap();
                assert!(close.error.as_ref().unwrap().contains("(os error 5) [segments/"), "{close:?}");
            }
            let found = values(&snapshot);
            assert!(found.len() >= kept, "{of} after {allowed}: {} of {kept}", found.len());
            assert!(found.chunks(2).take(kept / 2).enumerate().all(|(step, pair)| pair == [step as f32; 2]));
            let again = Writer::open(storage(&path), None).unwrap();
            wait(&append(&again, storage(&path).as_ref(), 99, 1).unwrap()).unwrap();
            again.close(None).unwrap();
            let found = values(&Snapshot::open(storage(&path), Opening::default()).unwrap());
            assert_eq!(found.last(), Some(&99.0), "another writer goes on");
        }
        assert!(failures > 0, "place {place}: no sync of {of} failed");
    }
}

/// A disk of which some reads fail.
struct Unreadable {
    left: Arc<AtomicUsize>,
}

struct UnreadableFile {
    inner: Box<dyn FsFile>,
    left: Arc<AtomicUsize>,
}

impl Fs for Unreadable {
    real!(create_dir_all create_dir create_new open_direct rename link remove_file sync_dir list exists);

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(UnreadableFile { inner: RealFs.open(path)?, left: Arc::clone(&self.left) }))
    }
}

impl FsFile for UnreadableFile {
    inner!(inner: length write_at sync_data set_length);

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.wrapping_sub(1))) == Ok(0) {
            // what was read before the error must not be taken for the rest
            out.fill(7);
            return Err(io::Error::from_raw_os_error(5));
        }
        self.inner.read_at(offset, out)
    }
}

#[test]
fn a_read_that_fails_names_the_file_and_nothing_wrong_is_returned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let writer = Writer::open(storage(&path), None).unwrap();
    for step in 0..3 {
        wait(&append(&writer, storage(&path).as_ref(), step, 2).unwrap()).unwrap();
    }
    writer.close(None).unwrap();
    let expected = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0];
    for allowed in 0.. {
        let left = Arc::new(AtomicUsize::new(allowed));
        let failing = Files::on(Arc::new(Unreadable { left: Arc::clone(&left) }), &path);
        let told = |error: &lamina_format::Error| error.file.is_some() && error.to_string().contains("os error 5");
        let snapshot = Snapshot::open(Arc::new(failing), Opening::default()).unwrap();
        let mut noticed = snapshot.problems().iter().filter(|problem| told(problem)).count();
        let site = snapshot.site("x").cloned();
        for (index, group) in snapshot.groups().iter().enumerate() {
            let mut out = vec![0; group.rows as usize * 16];
            let step = snapshot.column(Table::Rows, "step").unwrap();
            let wanted = match snapshot.metadata(index, step) {
                Ok(ColumnData::Constant(Value::Int(step))) => step as f32,
                other => panic!("a constant column is in the log: {other:?}"),
            };
            match snapshot.read(index, site.as_ref().unwrap(), &mut out) {
                Ok(()) => assert!(out.chunks(4).all(|value| value == wanted.to_le_bytes()), "after {allowed} reads"),
                Err(error) => {
                    assert!(told(&error) && error.file.as_ref().is_some_and(|file| file.starts_with("segments/")));
                    assert!(error.offset.is_some(), "{error}");
                    noticed += 1;
                    // the disk has recovered
                    snapshot.read(index, site.as_ref().unwrap(), &mut out).unwrap();
                }
            }
        }
        if left.load(Ordering::Relaxed) < usize::MAX / 2 {
            assert!(allowed > 5, "{allowed}");
            left.store(usize::MAX, Ordering::Relaxed);
            assert_eq!(values(&snapshot), expected);
            break;
        }
        assert!(noticed > 0, "after {allowed} reads");
    }
}
