//! A disk that fails at any call: what was acknowledged opens, and the writer says why it stopped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, append, storage, values, wait};
use lamina_format::ErrorKind;
use lamina_store::storage::Files;
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::path::Path;
use std::sync::Arc;

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
