//! A writer's life and what a reader sees of it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{append, storage, values, wait};
use lamina_format::record::{Table, TensorSpec};
use lamina_format::{DType, ErrorKind, Value};
use lamina_store::reader::ColumnData;
use lamina_store::writer::{PartInput, SiteInput, State};
use lamina_store::{Opening, Snapshot, Writer, create};
use std::path::PathBuf;

fn run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), r#"{"lr": 1e-3}"#).unwrap();
    (folder, path)
}

#[test]
fn rows_come_back_with_their_metadata() {
    let (_folder, path) = run();
    let writer = Writer::open(storage(&path), Some(3)).unwrap();
    let ticket = append(&writer, storage(&path).as_ref(), 7, 3).unwrap();
    assert_eq!(ticket.state(), State::Staged);
    assert!(wait(&ticket).unwrap());
    assert_eq!(ticket.state(), State::Durable);

    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(values(&snapshot), [7.0; 3]);
    let step = snapshot.column(Table::Rows, "step").unwrap().clone();
    assert_eq!(snapshot.metadata(0, &step).unwrap(), ColumnData::Constant(Value::Int(7)));
    let name = snapshot.column(Table::Rows, "name").unwrap().clone();
    let texts = ColumnData::Texts(vec![0, 5, 5, 10], b"row 0row 2".to_vec(), Some(vec![1, 0, 1]));
    assert_eq!(snapshot.metadata(0, &name).unwrap(), texts);
    assert_eq!(snapshot.writers()[0].open.as_ref().unwrap().rank, Some(3));
    assert!(snapshot.writers()[0].alive && snapshot.writers()[0].close.is_none());

    writer.close(Some("why".to_owned())).unwrap();
    let closed = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(closed.writers()[0].close.as_ref().unwrap().error.as_deref(), Some("why"));
    assert_eq!(values(&snapshot), [7.0; 3], "a snapshot outlives sealing");
}

#[test]
fn a_large_append_is_cut_into_groups_and_rows_keep_their_order() {
    let (_folder, path) = run();
    let store = storage(&path);
    let writer = Writer::open(storage(&path), None).unwrap();
    // 80 MiB of rows of 4 KiB, each holding its number
    let rows = 20_480u32;
    let bytes: Vec<u8> = (0..rows).flat_map(|row| row.to_le_bytes().repeat(1024)).collect();
    let site = SiteInput { name: "wide", dtype: DType::I32, shape: vec![1024], bytes: &bytes, lent: None, codes: None };
    let ticket = writer.append(store.as_ref(), u64::from(rows), &[site], &[]).unwrap();
    assert!(wait(&ticket).unwrap());
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(store, Opening::STRICT).unwrap();
    let groups = snapshot.groups();
    assert_eq!(groups.len(), 5);
    assert_eq!(groups.iter().map(|group| group.first).collect::<Vec<_>>(), [0, 4096, 8192, 12288, 16384]);
    let site = snapshot.site("wide").unwrap();
    let mut out = Vec::new();
    snapshot.stretches(1, site, &[4095, 0, 1], |rows| out.extend_from_slice(rows)).unwrap();
    let firsts: Vec<_> = out.chunks(4096).map(|row| u32::from_le_bytes([row[0], row[1], row[2], row[3]])).collect();
    assert_eq!(firsts, [8191, 4096, 4097]);
    assert!(snapshot.stretches(1, site, &[4096], |_| ()).is_err(), "outside of the group");
}

#[test]
fn writers_that_disagree_find_out() {
    let (_folder, path) = run();
    let store = storage(&path);
    let (first, second) = (Writer::open(storage(&path), None).unwrap(), Writer::open(storage(&path), None).unwrap());
    let wide = |width: u64, bytes| SiteInput {
        name: "x",
        dtype: DType::F32,
        shape: vec![width],
        bytes,
        lent: None,
        codes: None,
    };
    first.append(store.as_ref(), 1, &[wide(2, &[0; 8])], &[]).unwrap();
    let error = second.append(store.as_ref(), 1, &[wide(3, &[0; 12])], &[]).map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.message.contains("[2]") && error.message.contains("[3]"), "{error}");
    second.append(store.as_ref(), 1, &[wide(2, &[0; 8])], &[]).unwrap();
    first.close(None).unwrap();
    second.close(None).unwrap();
    let snapshot = Snapshot::open(store, Opening::STRICT).unwrap();
    assert_eq!(snapshot.groups().iter().map(|group| group.first).collect::<Vec<_>>(), [0, 1 << 40]);
}

#[test]
fn a_checkpoint_comes_back_and_equal_chunks_are_stored_once() {
    let (_folder, path) = run();
    let writer = Writer::open(storage(&path), None).unwrap();
    let mut bytes: Vec<u8> = (0..(3u32 << 20)).map(|at| (at >> 20) as u8).collect();
    let spec = |name: &str| TensorSpec { name: name.to_owned(), dtype: DType::U8, shape: vec![3, 1 << 20] };
    fn part(spec: TensorSpec, bytes: &[u8]) -> PartInput<'_> {
        PartInput { name: "model", tree: "{}", scalars: "[]", tensors: vec![(spec, bytes.into())] }
    }
    writer.save(1, &[part(spec("w"), &bytes)]).unwrap();
    bytes[0] = 9; // the saved copy keeps the old value
    wait(&writer.save(2, &[part(spec("w"), &bytes)]).unwrap()).unwrap();
    writer.close(None).unwrap();

    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    let stored: Vec<u64> = snapshot.checkpoints().values().map(|parts| parts[0].tensors()[0].stored).collect();
    assert_eq!(stored, [3 << 20, 1 << 20]);
    let mut out = vec![0; 3 << 20];
    snapshot.saved_tensor(1, "model", 0, &mut out).unwrap();
    assert_eq!((out[0], out[1 << 20], out[2 << 20]), (0, 1, 2));
    snapshot.saved_tensor(2, "model", 0, &mut out).unwrap();
    assert!(out == bytes);
    let another = Writer::open(storage(&path), None).unwrap();
    wait(&another.save(3, &[part(spec("w"), &bytes)]).unwrap()).unwrap();
    another.close(None).unwrap();
    let again = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(again.checkpoints()[&3][0].tensors()[0].stored, 0, "another writer's chunks count too");
}

#[test]
fn a_run_is_created_once() {
    let (_folder, path) = run();
    let error = create(storage(&path).as_ref(), "{}").unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotARun);
    assert!(create(storage(&path.join("inner")).as_ref(), "[1]").is_err(), "the config is no object");
}
