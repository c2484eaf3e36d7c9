//! Copies and merged runs: whole and durable, or not there, whatever fails.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, append, storage, values, wait};
use lamina_store::hide::{Deletion, delete};
use lamina_store::keep::{Merged, Progress, merge, verify};
use lamina_store::storage::{Files, RealFs};
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Two closed writers, of three durable points with four rows each, of which some rows in the middle are deleted.
fn run(path: &Path) -> Snapshot {
    create(storage(path).as_ref(), "{}").unwrap();
    for _ in 0..2 {
        let writer = Writer::open(storage(path), None).unwrap();
        for step in 0..3 {
            wait(&append(&writer, storage(path).as_ref(), step, 4).unwrap()).unwrap();
        }
        writer.close(None).unwrap();
    }
    let rows = [(1, 2), ((1 << 40) + 5, (1 << 40) + 5)];
    delete(storage(path).as_ref(), &Deletion { sites: &[], steps: &[], rows: &rows }).unwrap();
    open(path)
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(storage(path), Opening::STRICT).unwrap()
}

fn names(snapshot: &Snapshot) -> Vec<i64> {
    (0..snapshot.groups().len()).flat_map(|group| snapshot.names(group).unwrap()).collect()
}

fn both(first: &Path, second: &Path) -> Vec<Merged> {
    let merged = |(path, name): (&Path, &str)| Merged { snapshot: Arc::new(open(path)), name: name.to_owned() };
    [(first, "a"), (second, "b")].map(merged).into()
}

/// The names that the merged run must have.
fn expected() -> Vec<i64> {
    let own = |writer: i64, gone: &[i64]| -> Vec<i64> {
        (0..12).filter(|row| !gone.contains(row)).map(|row| (writer << 40) + row).collect()
    };
    [own(0, &[1, 2]), own(1, &[5]), own(2, &[1, 2]), own(3, &[5])].concat()
}

#[test]
fn writers_and_rows_of_the_second_run_come_behind_those_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, target] = ["a", "b", "new/merged"].map(|name| folder.path().join(name));
    run(&a);
    run(&b);
    let progress = Progress::default();
    merge(&both(&a, &b), "{}", &Files::new(&target), &progress).unwrap();
    let merged = open(&target);
    let mut found = names(&merged);
    found.sort_unstable();
    assert_eq!(found, expected());
    assert_eq!(values(&merged).len(), expected().len());
    let (done, total) = progress.bytes();
    assert!(done == total && total > 0);
    assert!(verify(&storage(&target), &Progress::default()).unwrap().damages.is_empty());
    assert_eq!(merged.run().sources.iter().map(|source| source.shift).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn whatever_call_fails_there_is_no_run_or_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    run(&a);
    run(&b);
    let mut failed = 0;
    for allowed in 0.. {
        let target = folder.path().join(format!("merged-{allowed}"));
        let fs = Arc::new(FailingFs::new(allowed, io::ErrorKind::StorageFull));
        let done = merge(&both(&a, &b), "{}", &Files::on(fs, &target), &Progress::default());
        if target.exists() {
            let mut found = names(&open(&target));
            found.sort_unstable();
            assert_eq!(found, expected(), "call {allowed}");
        }
        match done {
            Ok(()) => break,
            Err(error) => assert!(error.to_string().contains("injected"), "call {allowed}: {error}"),
        }
        failed += 1;
    }
    assert!(failed > 50, "{failed} calls failed");
}

#[test]
fn a_failed_copy_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    run(&path);
    let copied = || vec![Merged { snapshot: Arc::new(open(&path)), name: "run".to_owned() }];
    let stopped = Progress::default();
    stopped.stop();
    let target = Files::on(Arc::new(RealFs), folder.path().join("copy"));
    merge(&copied(), "{}", &target, &stopped).unwrap_err();
    merge(&copied(), "no JSON", &target, &Progress::default()).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    merge(&copied(), "{}", &target, &Progress::default()).unwrap();
    assert_eq!(names(&open(&folder.path().join("copy"))).len(), 21);
}
