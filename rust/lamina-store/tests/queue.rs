//! What an append does while the queue is full.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{CountingFs, append, storage, wait};
use lamina_format::record::TensorSpec;
use lamina_format::{ColumnType, DType, ErrorKind, Result, Value};
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{ColumnInput, Full, Options, PartInput, RowSet, SiteInput, State, Values};
use lamina_store::{Snapshot, Ticket, Writer, create};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct Stalled {
    _folder: tempfile::TempDir,
    path: PathBuf,
    fs: CountingFs,
    store: Arc<dyn Storage>,
    writer: Writer,
}

/// A writer, to be brought to a stand in its sync by whoever holds the file system.
fn stalled(full: Full) -> Stalled {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let fs = CountingFs::default();
    let store: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(fs.clone()), &path));
    let writer = Writer::open_with(Arc::clone(&store), Options { full, ..Options::default() }).unwrap();
    // all declarations are made, which takes syncs too
    wait(&append(&writer, store.as_ref(), 0, 1).unwrap()).unwrap();
    wait(&wide(&writer, store.as_ref(), 0).unwrap()).unwrap();
    Stalled { _folder: folder, path, fs, store, writer }
}

/// Appends so many rows of a MiB and, in a set of its own, as many of a byte: all or nothing.
fn wide(writer: &Writer, store: &dyn Storage, rows: u64) -> Result<Ticket> {
    let (large, small) = (vec![7; (rows << 20) as usize], vec![7; rows as usize]);
    let large =
        SiteInput { name: "large", dtype: DType::U8, shape: vec![1 << 20], bytes: &large, lent: None, codes: None };
    let small = SiteInput { name: "small", dtype: DType::U8, shape: vec![], bytes: &small, lent: None, codes: None };
    let set = |sites| RowSet { rows, sites, columns: &[], names: None };
    writer.append_sets(store, &[set(&[large]), set(&[small])])
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_queue_drops_whole_appends_and_says_so_durably() {
    let Stalled { _folder, path, fs, store, writer } = stalled(Full::Drop);
    let held = fs.hold();
    let first = append(&writer, store.as_ref(), 1, 1).unwrap();
    until(|| fs.waiting() > 0);
    let taken = wide(&writer, store.as_ref(), 100).unwrap();
    assert_eq!(taken.state(), State::Staged, "an empty queue takes what is larger than itself");
    let dropped = wide(&writer, store.as_ref(), 3).unwrap();
    assert_eq!(dropped.state(), State::Dropped);
    assert_eq!(wait(&dropped).unwrap_err().kind, ErrorKind::QueueFull);
    assert_eq!(append(&writer, store.as_ref(), 2, 5).unwrap().state(), State::Dropped);
    writer.log(2, 0, &[("loss".to_owned(), 1.0)], None, None).unwrap();
    assert_eq!((writer.dropped().rows, writer.dropped().sites["x"]), (3 + 3 + 5, 5));
    drop(held);
    assert!(wait(&first).unwrap() && wait(&taken).unwrap());
    let ticket = append(&writer, store.as_ref(), 3, 1).unwrap();
    assert!(wait(&ticket).unwrap(), "there is room again");
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    let lost = &snapshot.writers()[0].dropped;
    let of = |name: &str| lost.sites.iter().find(|s| s.id == snapshot.site(name).unwrap().id).unwrap().rows;
    assert_eq!((lost.rows, of("large"), of("small"), of("x")), (11, 3, 3, 5));
    let rows: Vec<u64> = snapshot.sites().iter().map(|site| site.rows).collect();
    assert_eq!(rows, [3, 100, 100], "what was not dropped is all there");
    assert_eq!(snapshot.metrics().values.len(), 1, "metrics are never dropped");
}

#[test]
fn a_full_queue_raises_and_nothing_is_staged() {
    let Stalled { _folder, path, fs, store, writer } = stalled(Full::Raise);
    let held = fs.hold();
    append(&writer, store.as_ref(), 1, 1).unwrap();
    until(|| fs.waiting() > 0);
    wide(&writer, store.as_ref(), 100).unwrap();
    let error = wide(&writer, store.as_ref(), 1).map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::QueueFull);
    assert!(error.message.contains("MiB wait"), "{error}");
    drop(held);
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(snapshot.sites().iter().map(|site| site.rows).collect::<Vec<_>>(), [2, 100, 100]);
    assert_eq!(snapshot.writers()[0].dropped.rows, 0);
}

#[test]
fn a_full_queue_holds_up_rows_until_there_is_room() {
    let Stalled { _folder, path, fs, store, writer } = stalled(Full::Block);
    let held = fs.hold();
    append(&writer, store.as_ref(), 1, 1).unwrap();
    until(|| fs.waiting() > 0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wide(&writer, store.as_ref(), 100).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(held);
        assert!(wait(&waiting.join().unwrap()).unwrap());
    });
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(snapshot.sites().iter().map(|site| site.rows).collect::<Vec<_>>(), [2, 100, 100]);
}

#[test]
fn examples_wait_even_where_rows_are_dropped() {
    let Stalled { _folder, path, fs, store, writer } = stalled(Full::Drop);
    let held = fs.hold();
    append(&writer, store.as_ref(), 1, 1).unwrap();
    until(|| fs.waiting() > 0);
    wide(&writer, store.as_ref(), 100).unwrap();
    std::thread::scope(|scope| {
        let values = Values::Constant(Value::Int(7));
        let column = ColumnInput { name: "example", kind: ColumnType::Int, values, valid: None };
        let (writer, store) = (&writer, &store);
        let waiting = scope.spawn(move || writer.examples(store.as_ref(), 1, &[column]).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(held);
        assert!(wait(&waiting.join().unwrap()).unwrap());
    });
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    assert_eq!(snapshot.example_groups(), 1);
    assert_eq!(snapshot.sites().iter().map(|site| site.rows).collect::<Vec<_>>(), [2, 100, 100]);
}

/// Saves a tensor of so many MiB.
fn save(writer: &Writer, step: i64, size: usize, value: u8) -> Result<Ticket> {
    let bytes = vec![value; size << 20];
    let spec = TensorSpec { name: "w".into(), dtype: DType::U8, shape: vec![bytes.len() as u64] };
    let tensors = vec![(spec, bytes.as_slice().into())];
    writer.save(step, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }])
}

#[test]
fn rows_do_not_wait_for_checkpoints_and_checkpoints_wait_for_each_other() {
    let Stalled { _folder, path, fs, store, writer } = stalled(Full::Raise);
    let held = fs.hold();
    append(&writer, store.as_ref(), 1, 1).unwrap();
    until(|| fs.waiting() > 0);
    save(&writer, 1, 300, 1).unwrap();
    wide(&writer, store.as_ref(), 60).expect("rows have a queue of their own");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| save(&writer, 2, 1, 2).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!second.is_finished(), "300 MiB of checkpoints wait");
        drop(held);
        assert!(wait(&second.join().unwrap()).unwrap());
    });
    writer.close(None).unwrap();
    let snapshot = Snapshot::open(storage(&path), Opening::STRICT).unwrap();
    for (step, size, value) in [(1, 300, 1), (2, 1, 2)] {
        let mut out = vec![0; size << 20];
        snapshot.saved_tensor(step, "model", 0, &mut out).unwrap();
        assert!(out.iter().all(|&byte| byte == value));
    }
}
