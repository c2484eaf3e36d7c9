//! Collecting garbage: what counts stays, whatever fails; what does not is gone in the end.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, append, storage, values, wait};
use lamina_format::record::{Op, TensorSpec};
use lamina_format::{DType, ErrorKind, commit};
use lamina_store::hide::{Deletion, delete, rewind};
use lamina_store::keep::{Collection, Progress, compact, gc, verify};
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{CompletePart, Keys, PartInput, ShardInput, WholeInput};
use lamina_store::{Opening, Snapshot, Ticket, Writer, create};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn empty() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    (folder, path)
}

/// A closed writer with three durable points of two rows each and two checkpoints.
fn run() -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = empty();
    let writer = Writer::open(storage(&path), None).unwrap();
    for step in 0..3 {
        wait(&append(&writer, storage(&path).as_ref(), step, 2).unwrap()).unwrap();
    }
    wait(&save(&writer, 1, 1)).unwrap();
    wait(&save(&writer, 2, 2)).unwrap();
    writer.close(None).unwrap();
    (folder, path)
}

const STEPS: [f32; 6] = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0];

/// A checkpoint of 3000 bytes of this value.
fn save(writer: &Writer, step: i64, value: u8) -> Ticket {
    let spec = TensorSpec { name: "w".to_owned(), dtype: DType::U8, shape: vec![3000] };
    let bytes = [value; 3000];
    let tensors = vec![(spec, bytes.as_slice().into())];
    writer.save(step, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }]).unwrap()
}

fn load(snapshot: &Snapshot, step: i64) -> lamina_format::Result<Vec<u8>> {
    let mut out = vec![0; 3000];
    snapshot.saved_tensor(step, "model", 0, &mut out).map(|()| out)
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(storage(path), Opening::STRICT).unwrap()
}

fn collect(path: &Path, grace: Duration) -> Collection {
    gc(&storage(path), grace, &Progress::default()).unwrap()
}

fn compacted(path: &Path) {
    compact(&storage(path), &[], &Progress::default()).unwrap();
}

fn delete_steps(path: &Path, first: i64, last: i64) {
    delete(storage(path).as_ref(), &Deletion { sites: &[], steps: &[(first, last)], rows: &[] }).unwrap();
}

fn has(path: &Path, file: &str) -> bool {
    path.join(file).exists()
}

const FIRST: &str = "segments/000000-000000.safetensors";
const PACK: &str = "chunks/000000-000000.pack";

#[test]
fn files_of_replaced_groups_are_condemned_wait_and_go() {
    let (_folder, path) = run();
    assert_eq!(collect(&path, Duration::ZERO), Collection::default(), "everything is needed");
    compacted(&path);
    let reading = open(&path);
    assert_eq!(values(&reading), STEPS);
    let size: u64 = [FIRST, PACK].map(|file| std::fs::metadata(path.join(file)).unwrap().len()).into_iter().sum();
    let done = collect(&path, DAY);
    assert_eq!((done.condemned.as_slice(), done.removed.len(), done.bytes), ([FIRST.to_owned()].as_slice(), 0, 0));
    // the pack was condemned by the compaction itself
    assert_eq!(done.left.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>(), [PACK, FIRST]);
    assert!(done.left[1].1.contains("its grace ends in 86"), "{:?}", done.left);
    let done = collect(&path, DAY);
    assert!(done.condemned.is_empty() && has(&path, FIRST), "once is enough");
    let done = collect(&path, Duration::ZERO);
    assert_eq!(
        (done.removed.as_slice(), done.bytes, done.left.len()),
        ([PACK, FIRST].map(str::to_owned).as_slice(), size, 0)
    );
    assert!(!has(&path, FIRST) && !has(&path, PACK));
    assert_eq!((values(&reading), values(&open(&path))), (STEPS.to_vec(), STEPS.to_vec()));
    assert!(verify(&storage(&path), &Progress::default()).unwrap().damages.is_empty());
    assert_eq!(collect(&path, Duration::ZERO), Collection::default(), "there is nothing left to do");
}

#[test]
fn a_reader_that_opens_a_file_late_is_told_and_one_that_has_it_open_reads_on() {
    let (_folder, path) = run();
    let (early, late) = (open(&path), open(&path));
    assert_eq!(values(&early), STEPS);
    compacted(&path);
    collect(&path, Duration::ZERO);
    assert_eq!(values(&early), STEPS);
    let mut out = vec![0; 32];
    let error = late.read(0, late.site("x").unwrap(), &mut out).unwrap_err();
    assert_eq!((error.kind, error.file.as_deref()), (ErrorKind::Expired, Some(FIRST)));
    assert!(error.hint.unwrap().contains("refresh"));
}

#[test]
fn what_was_deleted_wholly_goes_without_a_compaction() {
    let (_folder, path) = run();
    delete_steps(&path, 0, 1);
    assert_eq!(collect(&path, Duration::ZERO), Collection::default(), "the file holds step 2 as well");
    delete_steps(&path, 2, 2);
    let done = collect(&path, Duration::ZERO);
    assert_eq!((done.rows, done.removed.as_slice()), (6, [FIRST.to_owned()].as_slice()));
    assert!(open(&path).groups().is_empty());
    assert_eq!(collect(&path, Duration::ZERO), Collection::default());
    assert_eq!(load(&open(&path), 2).unwrap(), [2; 3000]);
}

#[test]
fn a_pack_goes_when_no_checkpoint_names_a_chunk_of_it() {
    let (_folder, path) = run();
    rewind(storage(&path).as_ref(), 1).unwrap();
    assert!(collect(&path, Duration::ZERO).removed.is_empty(), "step 1 is still there");
    assert_eq!(load(&open(&path), 1).unwrap(), [1; 3000]);
    rewind(storage(&path).as_ref(), 0).unwrap();
    assert_eq!(collect(&path, Duration::ZERO).removed, [PACK, FIRST]);
    let shown = Snapshot::open(storage(&path), Opening { hidden: true, strict: true }).unwrap();
    assert!(shown.checkpoints().is_empty(), "they are gone");
}

#[test]
fn a_save_that_leans_on_a_condemned_pack_stores_its_chunks_again() {
    for grace in [DAY, Duration::ZERO] {
        let (_folder, path) = run();
        let writer = Writer::open(storage(&path), None).unwrap();
        wait(&save(&writer, 5, 9)).unwrap();
        // the writer knows the chunks of the first pack; now nothing needs them
        let positions = storage(&path);
        rewind(positions.as_ref(), 0).unwrap();
        collect(&path, grace);
        wait(&save(&writer, 6, 1)).unwrap();
        assert_eq!(load(&open(&path), 6).unwrap(), [1; 3000]);
        collect(&path, Duration::ZERO);
        assert!(!has(&path, PACK));
        assert_eq!(load(&open(&path), 6).unwrap(), [1; 3000]);
        writer.close(None).unwrap();
        // so does a writer that comes later
        let writer = Writer::open(storage(&path), None).unwrap();
        wait(&save(&writer, 7, 2)).unwrap();
        writer.close(None).unwrap();
        assert_eq!(load(&open(&path), 7).unwrap(), [2; 3000]);
    }
}

#[test]
fn files_of_a_writer_at_work_stay() {
    let (_folder, path) = run();
    let writer = Writer::open(storage(&path), None).unwrap();
    wait(&append(&writer, storage(&path).as_ref(), 3, 1).unwrap()).unwrap();
    delete_steps(&path, 3, 3);
    let done = collect(&path, Duration::ZERO);
    assert_eq!((done.removed.len(), done.working), (0, vec![1]));
    wait(&append(&writer, storage(&path).as_ref(), 4, 1).unwrap()).unwrap();
    writer.close(None).unwrap();
    assert_eq!(values(&open(&path)), [STEPS.as_slice(), &[4.0]].concat());
}

#[test]
fn what_a_fenced_writer_left_unnamed_goes_and_drafts_too() {
    let (_folder, path) = run();
    let writer = Writer::open(storage(&path), None).unwrap();
    let files = ["chunks/000001-000000.pack", "commits/.0aF", "segments/000001-000000.safetensors"];
    files.iter().for_each(|file| std::fs::write(path.join(file), "half").unwrap());
    assert_eq!(collect(&path, DAY).condemned, files[1..2], "its owner may be at work");
    storage(&path).fence(1).unwrap();
    assert_eq!(collect(&path, Duration::ZERO).removed, files);
    let error = append(&writer, storage(&path).as_ref(), 3, 1).and_then(|ticket| wait(&ticket)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Writer);
    drop(writer);
    assert_eq!(values(&open(&path)), STEPS);
    // nobody knows whose this is
    std::fs::write(path.join("segments/000077-000000.safetensors"), "other").unwrap();
    let done = collect(&path, Duration::ZERO);
    assert_eq!(done.removed, files[2..], "what it wrote behind the fence");
    assert!(done.left[0].1.contains("log is missing"), "{:?}", done.left);
}

#[test]
fn what_a_torn_or_damaged_log_may_have_named_stays() {
    let (_folder, path) = run();
    drop(Writer::open(storage(&path), None).unwrap());
    let log = path.join("logs/000001.0000");
    let bytes = std::fs::read(&log).unwrap();
    let orphan = "segments/000001-000000.safetensors";
    std::fs::write(path.join(orphan), "half").unwrap();
    std::fs::write(&log, [&bytes[..], &bytes[..70]].concat()).unwrap();
    let done = collect(&path, Duration::ZERO);
    assert_eq!(done.left[0].0, orphan);
    assert!(done.left[0].1.contains("bytes that are no record"), "{:?}", done.left);
    let mut flipped = bytes.clone();
    flipped[60] ^= 1;
    std::fs::write(&log, flipped).unwrap();
    rewind(storage(&path).as_ref(), 0).unwrap();
    let done = collect(&path, Duration::ZERO);
    assert!(done.left.iter().any(|(file, why)| file == PACK && why.contains("a log is damaged")), "{:?}", done.left);
    std::fs::write(&log, bytes).unwrap();
    assert_eq!(collect(&path, Duration::ZERO).removed, [PACK, orphan]);
}

#[test]
fn nothing_is_collected_while_a_commit_cannot_be_read() {
    let (_folder, path) = run();
    compacted(&path);
    let replaces = |n: &u64| {
        let (commit, _) = commit::decode(&storage(&path).read_commit(*n).unwrap(), *n).unwrap();
        commit.ops.iter().any(|op| matches!(op, Op::Replace(_)))
    };
    let replacing = storage(&path).commits().unwrap().into_iter().find(replaces).unwrap();
    let last = path.join(lamina_format::names::commit(replacing));
    let bytes = std::fs::read(&last).unwrap();
    let refused = |path: &Path| gc(&storage(path), Duration::ZERO, &Progress::default()).unwrap_err();
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    std::fs::write(&last, flipped).unwrap();
    let error = refused(&path);
    assert_eq!(error.kind, ErrorKind::Damaged);
    assert!(error.hint.unwrap().contains("restore it") && has(&path, FIRST));
    // that it is missing is known from the log, though nothing builds on it
    let commits = storage(&path).commits().unwrap().into_iter().filter(|&n| n >= replacing);
    let later: Vec<PathBuf> = commits.map(|n| path.join(lamina_format::names::commit(n))).collect();
    std::fs::write(&last, bytes).unwrap();
    let contents: Vec<Vec<u8>> = later.iter().map(|path| std::fs::read(path).unwrap()).collect();
    later.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert!(refused(&path).message.contains("is missing"));
    later.iter().zip(contents).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    assert_eq!(collect(&path, Duration::ZERO).removed, [PACK, FIRST]);
}

/// A commit that says nothing, of this time.
fn publish_at(path: &Path, time: i64) {
    let store = storage(path);
    let head = store.commits().unwrap()[0];
    let (parent, hash) = commit::decode(&store.read_commit(head).unwrap(), head).unwrap();
    let parent = Some(commit::Parent { n: parent.n, hash });
    let next = commit::Commit { n: head + 1, parent, skipped: vec![], writer: None, time, needs: vec![], ops: vec![] };
    assert!(store.publish(next.n, &commit::encode(&next).unwrap().0).unwrap());
}

#[test]
fn a_clock_that_was_set_back_does_not_make_the_grace_shorter() {
    let (_folder, path) = run();
    compacted(&path);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    // the run knows of a later time than this machine's clock tells: an hour ahead
    publish_at(&path, now + 3_600_000_000);
    let store = storage(&path);
    assert_eq!(collect(&path, DAY).condemned, [FIRST]);
    let head = store.commits().unwrap()[0];
    let (condemning, _) = commit::decode(&store.read_commit(head).unwrap(), head).unwrap();
    assert!(matches!(&condemning.ops[0], Op::Condemn(_)) && condemning.time >= now + 3_600_000_000);
    let done = collect(&path, Duration::from_nanos(1));
    assert_eq!(done.removed, [PACK], "what was condemned before the clock was ahead");
    assert!(done.left[0].1.contains("its grace ends in 3"), "{:?}", done.left);
    assert_eq!(collect(&path, Duration::ZERO).removed, [FIRST], "no grace is no grace");
}

#[test]
fn a_failure_at_any_call_loses_nothing_and_the_next_collection_completes() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
        for allowed in 0.. {
            let (_folder, path) = run();
            let writer = Writer::open(storage(&path), None).unwrap();
            wait(&append(&writer, storage(&path).as_ref(), -9, 2).unwrap()).unwrap();
            writer.close(None).unwrap();
            rewind(storage(&path).as_ref(), 2).unwrap();
            compacted(&path);
            delete_steps(&path, -9, -9);
            let fs = FailingFs::new(allowed, kind);
            let failing: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(fs), &path));
            let result = gc(&failing, Duration::ZERO, &Progress::default());
            let good = |path: &Path, when: &str| {
                // the log of what failed may end in half a record
                let snapshot = Snapshot::open(storage(path), Opening::default()).unwrap();
                assert_eq!(
                    (values(&snapshot), load(&snapshot, 2).unwrap()),
                    (STEPS[..4].to_vec(), vec![2; 3000]),
                    "{when}"
                );
            };
            let when = format!("after {allowed} calls");
            good(&path, &when);
            if let Err(error) = &result {
                assert_eq!(error.kind, ErrorKind::Storage, "{error}");
                assert!(error.message.contains("injected") && error.file.is_some() && error.hint.is_some(), "{error}");
            }
            collect(&path, Duration::ZERO);
            good(&path, &when);
            assert!(!has(&path, FIRST) && !has(&path, "segments/000001-000000.safetensors"), "{when}");
            if result.is_ok() {
                assert!(allowed > 12, "{allowed}");
                break;
            }
        }
    }
}

#[test]
fn a_collection_that_ended_before_it_removed_is_completed() {
    let (_folder, path) = run();
    compacted(&path);
    let bytes = std::fs::read(path.join(FIRST)).unwrap();
    collect(&path, Duration::ZERO);
    // as if the power had been cut before the name was gone for good
    std::fs::write(path.join(FIRST), bytes).unwrap();
    let done = collect(&path, DAY);
    assert_eq!((done.condemned.len(), done.removed.as_slice()), (0, [FIRST.to_owned()].as_slice()));
}

#[test]
fn several_collections_compactions_writers_and_readers_at_once_lose_nothing() {
    let (_folder, path) = empty();
    let stop = Arc::new(AtomicBool::new(false));
    let repeat = |what: fn(&Path)| {
        let (path, stop) = (path.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut turns = 0;
            while !stop.load(Ordering::Relaxed) {
                what(&path);
                turns += 1;
            }
            turns
        })
    };
    let others = [
        repeat(|path| drop(collect(path, Duration::ZERO))),
        repeat(|path| drop(collect(path, Duration::ZERO))),
        repeat(compacted),
        repeat(|path| {
            let snapshot = Snapshot::open(storage(path), Opening::default()).unwrap();
            assert_eq!(snapshot.problems(), []);
        }),
    ];
    let mut expected = Vec::new();
    for step in 0..12 {
        let writer = Writer::open(storage(&path), None).unwrap();
        wait(&append(&writer, storage(&path).as_ref(), step, 2).unwrap()).unwrap();
        wait(&append(&writer, storage(&path).as_ref(), step, 1).unwrap()).unwrap();
        wait(&save(&writer, step, step as u8 % 4)).unwrap();
        writer.close(None).unwrap();
        if step % 3 == 0 {
            delete_steps(&path, step, step);
        } else {
            expected.extend([step as f32; 3]);
        }
        for known in 0..=step {
            assert_eq!(load(&open(&path), known).unwrap(), [known as u8 % 4; 3000]);
        }
    }
    stop.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| assert!(other.join().unwrap() > 0));
    compacted(&path);
    collect(&path, Duration::ZERO);
    let mut found = values(&open(&path));
    found.sort_by(f32::total_cmp);
    assert_eq!(found, expected);
    assert!(verify(&storage(&path), &Progress::default()).unwrap().damages.is_empty());
}

fn shard(writer: &Writer, value: u8) -> Keys {
    let spec = TensorSpec { name: "w".to_owned(), dtype: DType::U8, shape: vec![3000] };
    let (ticket, keys) = writer.shard(&spec, &[value; 3000]).unwrap();
    wait(&ticket).unwrap();
    keys
}

/// A checkpoint of one tensor of two shards.
fn complete(writer: &Writer, condemned: usize, keys: [Keys; 2]) -> Ticket {
    let shard = |(at, keys): (u64, Keys)| ShardInput {
        offsets: vec![3000 * at],
        sizes: vec![3000],
        keys: keys.get().unwrap().clone(),
    };
    let shards = (0..).zip(keys).map(shard).collect();
    let spec = TensorSpec { name: "w".to_owned(), dtype: DType::U8, shape: vec![6000] };
    let (name, tree, scalars) = ("model".to_owned(), "{}".to_owned(), "[]".to_owned());
    let part = CompletePart { name, tree, scalars, wholes: vec![WholeInput { spec, shards }] };
    writer.complete(9, condemned, vec![part]).unwrap()
}

/// What a run shows of that checkpoint.
fn whole(path: &Path) -> Vec<u8> {
    let mut out = vec![0; 6000];
    open(path).saved_tensor(9, "model", 0, &mut out).unwrap();
    out
}

#[test]
fn shards_are_needed_when_a_checkpoint_names_them_and_garbage_where_none_does() {
    let (_folder, path) = empty();
    let (first, other) = (Writer::open(storage(&path), None).unwrap(), Writer::open(storage(&path), None).unwrap());
    let condemned = first.condemned().unwrap();
    let keys = [shard(&other, 7), shard(&first, 8)];
    assert!(open(&path).checkpoints().is_empty(), "nobody sees shards");
    wait(&complete(&first, condemned, keys)).unwrap();
    let lost = Writer::open(storage(&path), None).unwrap();
    shard(&lost, 9);
    for writer in [first, other, lost] {
        writer.close(None).unwrap();
    }
    assert_eq!(collect(&path, Duration::ZERO).removed, ["chunks/000002-000000.pack"]);
    assert_eq!(whole(&path), [[7; 3000], [8; 3000]].concat());
    assert!(verify(&storage(&path), &Progress::default()).unwrap().damages.is_empty());
}

#[test]
fn shards_that_are_condemned_before_their_checkpoint_is_stored_are_stored_again() {
    for gone in [false, true] {
        let (_folder, path) = empty();
        let (first, other) = (Writer::open(storage(&path), None).unwrap(), Writer::open(storage(&path), None).unwrap());
        let condemned = first.condemned().unwrap();
        let keys = [shard(&other, 7), shard(&first, 8)];
        // the other's work is done, and nothing names its shard yet
        other.close(None).unwrap();
        assert_eq!(collect(&path, DAY).condemned, ["chunks/000001-000000.pack"]);
        if gone {
            collect(&path, Duration::ZERO);
            let error = wait(&complete(&first, condemned, keys)).unwrap_err();
            assert!(error.message.contains("collected as garbage"), "{error}");
            assert!(open(&path).checkpoints().is_empty());
            continue;
        }
        wait(&complete(&first, condemned, keys)).unwrap();
        collect(&path, Duration::ZERO);
        assert!(!has(&path, "chunks/000001-000000.pack"));
        assert_eq!(whole(&path), [[7; 3000], [8; 3000]].concat());
        first.close(None).unwrap();
    }
}
