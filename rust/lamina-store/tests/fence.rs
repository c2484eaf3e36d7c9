//! A fenced writer may live on; what it writes then is not part of the run.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, append, storage, values, wait};
use lamina_format::ErrorKind;
use lamina_store::storage::{Files, Storage};
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::sync::Arc;

#[test]
fn what_is_written_behind_a_fence_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let store = storage(&path);
    let writer = Writer::open(storage(&path), None).unwrap();
    wait(&append(&writer, store.as_ref(), 1, 2).unwrap()).unwrap();
    assert!(!store.fenced(0).unwrap());
    store.fence(0).unwrap();
    store.fence(0).unwrap();
    assert!(store.fenced(0).unwrap() && !store.fenced(1).unwrap());
    // it may find the fence, or have looked for it just before
    let _ = append(&writer, store.as_ref(), 2, 2).and_then(|ticket| wait(&ticket));
    let _ = writer.close(None);
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(values(&snapshot), [1.0; 2]);
    assert!(!snapshot.writers()[0].alive && snapshot.writers()[0].close.is_none());
    assert!(store.fence(7).is_err(), "there is no such writer");
}

#[test]
fn a_fence_that_fails_anywhere_can_be_raised_again() {
    for allowed in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        create(storage(&path).as_ref(), "{}").unwrap();
        let writer = Writer::open(storage(&path), None).unwrap();
        wait(&append(&writer, storage(&path).as_ref(), 1, 1).unwrap()).unwrap();
        let fs = FailingFs::new(allowed, io::ErrorKind::Other);
        let failed = Files::on(Arc::new(fs.clone()), &path).fence(0).is_err();
        assert_eq!(values(&Snapshot::open(storage(&path), Opening::STRICT).unwrap()), [1.0]);
        storage(&path).fence(0).unwrap();
        let _ = append(&writer, storage(&path).as_ref(), 2, 1).and_then(|ticket| wait(&ticket));
        assert_eq!(values(&Snapshot::open(storage(&path), Opening::STRICT).unwrap()), [1.0], "after {allowed} calls");
        if !failed {
            assert!(allowed > 5);
            break;
        }
    }
}

#[test]
fn only_segments_packs_and_drafts_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let store = storage(&path);
    for name in
        ["segments/000000-000000.safetensors", "segments/notes.txt", "commits/.0aF", "commits/.keep", "chunks/x"]
    {
        std::fs::write(path.join(name), "").unwrap();
    }
    let removable = ["commits/.0aF", "segments/000000-000000.safetensors"];
    assert_eq!(store.files().unwrap(), removable);
    removable.iter().for_each(|name| store.remove(name).unwrap());
    store.remove(removable[1]).unwrap();
    assert!(store.files().unwrap().is_empty() && path.join("segments/notes.txt").exists());
    assert!(store.remove("run.json").is_err() && store.remove("segments/../run.json").is_err());
}

#[test]
fn an_owner_that_finds_the_fence_acknowledges_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let store = storage(&path);
    let writer = Writer::open(storage(&path), None).unwrap();
    let other = writer.downgrade().join().unwrap();
    wait(&append(&writer, store.as_ref(), 1, 2).unwrap()).unwrap();
    store.fence(0).unwrap();
    let lost = append(&writer, store.as_ref(), 2, 2).unwrap();
    let error = wait(&lost).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Writer);
    assert!(error.message.contains("another process closed this writer for good"), "{error}");
    assert!(append(&other, store.as_ref(), 3, 2).is_err(), "all handles on the log are closed by it");
    assert!(writer.close(None).is_err() && other.close(None).is_err());
    assert!(writer.downgrade().join().is_none());
    let next = Writer::open(storage(&path), None).unwrap();
    wait(&append(&next, store.as_ref(), 4, 1).unwrap()).unwrap();
    next.close(None).unwrap();
    assert_eq!(values(&Snapshot::open(store, Opening::STRICT).unwrap()), [1.0, 1.0, 4.0]);
}
