//! Compaction: rows stay what they are, under their names, whatever fails.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, append, storage, values as all_values, wait};
use lamina_format::record::Table;
use lamina_store::hide::{Deletion, delete, rewind};
use lamina_store::keep::{Compaction, Progress, compact, verify};
use lamina_store::reader::Mask;
use lamina_store::storage::Files;
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Two closed writers, of five durable points with two rows each.
fn run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    for _ in 0..2 {
        let writer = Writer::open(storage(&path), None).unwrap();
        for step in 0..5 {
            wait(&append(&writer, storage(&path).as_ref(), step, 2).unwrap()).unwrap();
        }
        writer.close(None).unwrap();
    }
    (folder, path)
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(storage(path), Opening::default()).unwrap()
}

/// The values of the rows that are shown.
fn values(snapshot: &Snapshot) -> Vec<f32> {
    let masks = (0..snapshot.groups().len()).flat_map(|group| match snapshot.hidden(group, None).unwrap() {
        Mask::Some(mask) => mask,
        _ => vec![0; snapshot.rows(Table::Rows, group).unwrap() as usize],
    });
    all_values(snapshot).into_iter().zip(masks).filter(|(_, hidden)| *hidden == 0).map(|(value, _)| value).collect()
}

fn compacted(path: &Path) -> Compaction {
    compact(&storage(path), &[], &Progress::default()).unwrap()
}

fn names(snapshot: &Snapshot) -> Vec<i64> {
    (0..snapshot.groups().len()).flat_map(|group| snapshot.names(group).unwrap()).collect()
}

const STEPS: [f32; 10] = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];

fn all_names() -> Vec<i64> {
    (0..10).chain((0..10).map(|row| (1 << 40) + row)).collect()
}

#[test]
fn small_groups_become_one_a_writer_and_rows_keep_their_names() {
    let (_folder, path) = run();
    let done = compacted(&path);
    assert_eq!((done.before, done.after, done.rows), (10, 2, 0));
    let snapshot = open(&path);
    assert_eq!(
        snapshot.groups().iter().map(|group| (group.first, group.rows)).collect::<Vec<_>>(),
        [(0, 10), (1 << 40, 10)]
    );
    assert_eq!(values(&snapshot), [STEPS, STEPS].concat());
    assert_eq!(names(&snapshot), all_names());
    assert_eq!(compacted(&path), Compaction::default(), "there is nothing left to do");
    assert!(verify(&storage(&path), &Progress::default()).unwrap().damages.is_empty());
}

#[test]
fn what_is_hidden_is_left_behind_and_later_deletes_still_hold() {
    let (_folder, path) = run();
    let steps = [(1, 2)];
    delete(storage(&path).as_ref(), &Deletion { sites: &[], steps: &steps, rows: &[] }).unwrap();
    let done = compacted(&path);
    assert_eq!((done.before, done.after, done.rows), (10, 2, 8));
    let left = [0.0, 0.0, 3.0, 3.0, 4.0, 4.0];
    assert_eq!(values(&open(&path)), [left, left].concat());
    let hidden = Snapshot::open(storage(&path), Opening { hidden: true, strict: true }).unwrap();
    assert_eq!(values(&hidden), [left, left].concat(), "they are gone");
    assert_eq!(names(&hidden)[..6], [0, 1, 6, 7, 8, 9]);
    rewind(storage(&path).as_ref(), 4).unwrap();
    assert_eq!(values(&open(&path)), [&left[..4], &left[..4]].concat());
    compacted(&path);
    assert_eq!(values(&open(&path)), [&left[..4], &left[..4]].concat());
    let rows = [(0, i64::MAX)];
    delete(storage(&path).as_ref(), &Deletion { sites: &[], steps: &[], rows: &rows }).unwrap();
    assert_eq!(compacted(&path).after, 0);
    assert!(open(&path).groups().is_empty());
}

#[test]
fn a_writer_at_work_is_left_alone() {
    let (_folder, path) = run();
    let writer = Writer::open(storage(&path), None).unwrap();
    for step in 0..3 {
        wait(&append(&writer, storage(&path).as_ref(), step, 1).unwrap()).unwrap();
    }
    let done = compacted(&path);
    assert_eq!((done.before, done.working), (10, vec![2]));
    wait(&append(&writer, storage(&path).as_ref(), 3, 1).unwrap()).unwrap();
    writer.close(None).unwrap();
    assert_eq!(values(&open(&path))[20..], [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(compacted(&path).before, 4);
    assert_eq!(values(&open(&path))[20..], [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn a_damaged_group_is_left_as_it_is() {
    let (_folder, path) = run();
    let file = path.join("segments/000001-000000.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1 << 20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let done = compacted(&path);
    assert_eq!((done.before, done.damages.len()), (5, 1));
    assert_eq!(done.damages[0].offset, Some(1 << 20));
    assert_eq!(open(&path).groups().len(), 1 + 5);
}

#[test]
fn a_damaged_commit_of_compaction_loses_nothing() {
    let (_folder, path) = run();
    compacted(&path);
    let last = std::fs::read_dir(path.join("commits")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&last, bytes).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::default()).unwrap();
    assert_eq!((snapshot.groups().len(), snapshot.problems().len()), (2, 1));
    assert_eq!(values(&snapshot), [STEPS, STEPS].concat());
}

#[test]
fn a_failure_at_any_call_leaves_every_row_and_the_next_compaction_goes_on() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for allowed in 0.. {
            let (_folder, path) = run();
            delete(storage(&path).as_ref(), &Deletion { sites: &[], steps: &[(2, 2)], rows: &[] }).unwrap();
            let left = [0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 4.0, 4.0];
            let fs = FailingFs::new(allowed, kind);
            let failing: Arc<dyn lamina_store::storage::Storage> = Arc::new(Files::on(Arc::new(fs), &path));
            let result = compact(&failing, &[], &Progress::default());
            assert_eq!(values(&open(&path)), [left, left].concat(), "after {allowed} calls");
            compacted(&path);
            let snapshot = open(&path);
            assert_eq!(values(&snapshot), [left, left].concat(), "after {allowed} calls");
            assert_eq!(snapshot.groups().len(), 2);
            let damages = verify(&storage(&path), &Progress::default()).unwrap().damages;
            // half a record of the log of what failed
            assert!(damages.iter().all(|damage| damage.error.file.as_deref() == Some("logs/000002.0000")));
            if result.is_ok() {
                assert!(allowed > 15);
                break;
            }
        }
    }
}
