//! Writers of one process on one log: whose close does what, and how many syncs their durable points take.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{CountingFs, append, storage, values, wait};
use lamina_format::ErrorKind;
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{Durability, Options, State};
use lamina_store::{Snapshot, Writer, create};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

fn run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    (folder, path)
}

fn only_asked() -> Options {
    Options { durable: Durability { rows: None, bytes: None, every: None }, ..Options::default() }
}

#[test]
fn a_durable_append_takes_two_syncs() {
    let (_folder, path) = run();
    let fs = CountingFs::default();
    let store: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(fs.clone()), &path));
    let writer = Writer::open_with(Arc::clone(&store), only_asked()).unwrap();
    wait(&append(&writer, store.as_ref(), 0, 64).unwrap()).unwrap();
    let before = fs.syncs();
    for step in 1..=1000 {
        assert!(wait(&append(&writer, store.as_ref(), step, 64).unwrap()).unwrap());
    }
    assert_eq!(fs.syncs() - before, 2000);
    writer.close(None).unwrap();
}

#[test]
fn what_gathers_while_a_durable_point_is_made_shares_the_next() {
    let (_folder, path) = run();
    let fs = CountingFs::default();
    let store: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(fs.clone()), &path));
    let writer = Writer::open_with(Arc::clone(&store), only_asked()).unwrap();
    wait(&append(&writer, store.as_ref(), 0, 1).unwrap()).unwrap();
    let before = fs.syncs();
    let held = fs.hold();
    let first = append(&writer, store.as_ref(), 1, 1).unwrap();
    let waiting = {
        let first = first.clone();
        std::thread::spawn(move || wait(&first).unwrap())
    };
    while fs.waiting() == 0 {
        std::thread::yield_now();
    }
    // the committer stands in its first sync; eight handles append and wait meanwhile
    let handles: Vec<Writer> = (0..8).map(|_| writer.downgrade().join().unwrap()).collect();
    let tickets: Vec<_> = handles.iter().map(|handle| append(handle, store.as_ref(), 2, 1).unwrap()).collect();
    assert!(tickets.iter().all(|ticket| ticket.state() == State::Staged));
    let threads: Vec<_> =
        tickets.into_iter().map(|ticket| std::thread::spawn(move || wait(&ticket).unwrap())).collect();
    drop(held);
    assert!(waiting.join().unwrap());
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    assert_eq!(fs.syncs() - before, 4, "nine durable appends, two durable points");
    drop(handles);
    writer.close(None).unwrap();
}

#[test]
fn the_last_handle_ends_the_log_and_the_record_tells_the_errors_of_all() {
    let (_folder, path) = run();
    let store = storage(&path);
    let first = Writer::open(storage(&path), None).unwrap();
    let weak = first.downgrade();
    let second = weak.join().unwrap();
    assert_eq!(first.ordinal(), second.ordinal());
    let ticket = append(&first, store.as_ref(), 1, 2).unwrap();
    first.close(Some("one".to_owned())).unwrap();
    assert_eq!(ticket.state(), State::Durable, "a handle's close makes its work durable");
    assert_eq!(append(&first, store.as_ref(), 1, 2).map(drop).unwrap_err().kind, ErrorKind::Writer);
    first.close(None).unwrap();
    append(&second, store.as_ref(), 2, 1).unwrap();
    let open = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert!(open.writers()[0].close.is_none());
    second.close(Some("two".to_owned())).unwrap();
    assert!(weak.join().is_none(), "what is closed stays closed");
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(snapshot.writers().len(), 1);
    assert_eq!(snapshot.writers()[0].close.as_ref().unwrap().error.as_deref(), Some("one; two"));
    assert_eq!(values(&snapshot), [1.0, 1.0, 2.0]);
}

#[test]
fn each_limit_makes_a_durable_point_unasked() {
    let limits = [
        Durability { rows: Some(10), bytes: None, every: None },
        Durability { rows: None, bytes: Some(320), every: None },
        Durability { rows: None, bytes: None, every: Some(Duration::from_millis(5)) },
    ];
    for durable in limits {
        let (_folder, path) = run();
        let store = storage(&path);
        let writer = Writer::open_with(storage(&path), Options { durable, ..Options::default() }).unwrap();
        let (sender, told) = channel();
        // a row takes 16 bytes of the site and 16 of its two columns
        let ticket = append(&writer, store.as_ref(), 0, 9).unwrap();
        if durable.every.is_none() {
            assert_eq!(ticket.state(), State::Staged);
        }
        let last = append(&writer, store.as_ref(), 0, 1).unwrap();
        while last.state() != State::Durable {
            std::thread::sleep(Duration::from_millis(1));
        }
        last.on_done(Box::new(move |outcome| sender.send(outcome).unwrap())).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(ticket.state(), State::Durable);
        writer.close(None).unwrap();
    }
}

#[test]
fn who_is_told_later_is_told_once_and_a_failure_with_its_cause() {
    let (_folder, path) = run();
    let fs = CountingFs::default();
    let store: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(fs.clone()), &path));
    let writer = Writer::open_with(Arc::clone(&store), only_asked()).unwrap();
    let (sender, told) = channel();
    for step in 0..20 {
        let sender = sender.clone();
        let ticket = append(&writer, store.as_ref(), step, 1).unwrap();
        ticket.on_done(Box::new(move |outcome| sender.send((step, outcome)).unwrap())).unwrap();
    }
    let mut steps: Vec<i64> = (0..20).map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap().0).collect();
    steps.sort_unstable();
    assert_eq!(steps, (0..20).collect::<Vec<_>>());
    fs.fail_syncs();
    let lost = append(&writer, store.as_ref(), 99, 1).unwrap();
    lost.on_done(Box::new(move |outcome| sender.send((99, outcome)).unwrap())).unwrap();
    let (step, outcome) = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((step, outcome.unwrap_err().kind), (99, ErrorKind::Storage));
    assert_eq!(lost.state(), State::Failed);
    assert_eq!(wait(&lost).unwrap_err().kind, ErrorKind::Storage);
    assert!(told.recv().is_err(), "each is told once");
    assert!(writer.downgrade().join().is_none(), "nobody joins a log that failed");
}
