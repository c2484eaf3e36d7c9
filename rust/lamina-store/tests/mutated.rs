//! Real bytes, changed at random, with valid checksums or without: an answer or an error, no crash, and no allocation
//! that is far larger than the bytes.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

mod common;

use common::{append, storage, wait};
use lamina_format::record::{LayoutContent, Op, Table, TensorSpec};
use lamina_format::runfile::RunFile;
use lamina_format::segment::Declared;
use lamina_format::sparse::Codes;
use lamina_format::{DType, cbor, check, checksum, commit, frame, names, segment};
use lamina_store::hide::{Deletion, delete, rewind};
use lamina_store::keep::{GRACE, Progress, compact, gc, verify};
use lamina_store::writer::{PartInput, RowSet, SiteInput};
use lamina_store::{Opening, Snapshot, Writer, create};
use proptest::collection::vec;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Remembers the largest allocation of each thread.
struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn count(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call goes to the system's allocator as it is
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fails if `work` asks for far more memory at once than its input has bytes.
fn capped<T>(input: usize, work: impl FnOnce() -> T) -> T {
    LARGEST.set(0);
    let result = work();
    assert!(LARGEST.get() <= 64 * input + (64 << 10), "{} bytes for an input of {input}", LARGEST.get());
    result
}

struct Real {
    folder: tempfile::TempDir,
    run_json: Vec<u8>,
    commits: Vec<Vec<u8>>,
    /// By name.
    logs: Vec<(String, Vec<u8>)>,
}

/// A run with every kind of record that writers make, and those that keep a run.
fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        create(storage(&path).as_ref(), r#"{"lr": 1e-3, "deep": {"er": [1, null, "x"]}}"#).unwrap();
        let writer = Writer::open(storage(&path), Some(0)).unwrap();
        append(&writer, storage(&path).as_ref(), 1, 3).unwrap();
        writer.log(1, 1, &[("loss".to_owned(), 0.5)], Some("x"), None).unwrap();
        let spec = TensorSpec { name: "w".to_owned(), dtype: DType::U8, shape: vec![10] };
        let tensors = vec![(spec, b"0123456789"[..].into())];
        writer.save(1, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }]).unwrap();
        wait(&append(&writer, storage(&path).as_ref(), 2, 3).unwrap()).unwrap();
        writer.close(None).unwrap();
        let (store, cold) = (storage(&path), ["x".to_owned()]);
        let writer = Writer::open(storage(&path), None).unwrap();
        let bytes = 7f32.to_le_bytes();
        let site =
            SiteInput { name: "code", dtype: DType::F32, shape: vec![1], bytes: &bytes, lent: None, codes: None };
        let codes = Codes { indptr: vec![0, 2], ids: vec![3, 70], values: [bytes, bytes].concat() };
        let sparse = SiteInput { name: "sae", shape: vec![90], bytes: &[], codes: Some(&codes), ..site };
        let site =
            SiteInput { name: "code", dtype: DType::F32, shape: vec![1], bytes: &bytes, lent: None, codes: None };
        writer
            .append_sets(store.as_ref(), &[RowSet { rows: 1, sites: &[site, sparse], columns: &[], names: Some(&[1]) }])
            .unwrap();
        writer.close(None).unwrap();
        compact(&store, &cold, &Progress::default()).unwrap();
        delete(store.as_ref(), &Deletion { sites: &cold, steps: &[(1, 1)], rows: &[(0, 0), (2, 9)] }).unwrap();
        gc(&store, Duration::ZERO, &Progress::default()).unwrap();
        let writer = Writer::open(storage(&path), None).unwrap();
        wait(&append(&writer, store.as_ref(), 3, 3).unwrap()).unwrap();
        wait(&append(&writer, store.as_ref(), 4, 2).unwrap()).unwrap();
        writer.close(None).unwrap();
        rewind(store.as_ref(), 4).unwrap();
        compact(&store, &[], &Progress::default()).unwrap();
        gc(&store, GRACE, &Progress::default()).unwrap();
        let read = |name: &str| std::fs::read(path.join(name)).unwrap();
        let numbers = store.commits().unwrap().into_iter().rev();
        let commits: Vec<Vec<u8>> = numbers.map(|n| read(&names::commit(n))).collect();
        let ops = commits.iter().zip(0..).flat_map(|(bytes, n)| commit::decode(bytes, n).unwrap().0.ops);
        let kinds: HashSet<_> = ops.map(|op| std::mem::discriminant(&op)).collect();
        // create, site, column, rewind, delete, replace, seal, condemn, drop
        assert_eq!(kinds.len(), 9);
        let logs = store.logs().unwrap().into_iter().map(|(writer, generation)| names::log(writer, generation));
        Real {
            run_json: read("run.json"),
            commits,
            logs: logs.map(|name| (name.clone(), read(&name))).collect(),
            folder,
        }
    })
}

/// A commit with another body and a valid checksum.
fn resealed(commit: &[u8], edits: &Edits) -> Vec<u8> {
    let body = mutate(&commit[commit::HEAD..commit.len() - commit::TAIL], edits);
    let head = [&commit[..8], &(body.len() as u32).to_le_bytes(), &body].concat();
    [&head[..], &checksum::hash(&head)].concat()
}

#[derive(Clone, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Cut,
}

/// Heads of CBOR that promise more than there is, among anything.
fn edit() -> impl Strategy<Value = Edit> {
    let number = prop_oneof![Just(u64::MAX), Just(u64::MAX >> 1), Just(1 << 63), Just(1 << 38), any::<u64>()];
    let head = prop_oneof![Just(0x1bu8), Just(0x3b), Just(0x5b), Just(0x7b), Just(0x9b), Just(0xbb)];
    prop_oneof![
        6 => any::<u8>().prop_map(Edit::Set),
        3 => (head, number).prop_map(|(head, number)| Edit::Insert([&[head][..], &number.to_be_bytes()].concat())),
        1 => vec(prop_oneof![Just(0x81u8), Just(0x5b), Just(b'['), Just(b'{')], 1..400).prop_map(Edit::Insert),
        1 => (1usize..20).prop_map(Edit::Remove),
        1 => Just(Edit::Cut),
    ]
}

type Edits = Vec<(prop::sample::Index, Edit)>;

fn edits() -> impl Strategy<Value = Edits> {
    vec((any::<prop::sample::Index>(), edit()), 1..4)
}

fn mutate(bytes: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, edit) in edits {
        let at = place.index(bytes.len() + 1);
        match edit {
            Edit::Set(byte) => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte),
            Edit::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
            Edit::Remove(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            Edit::Cut => bytes.truncate(at),
        }
    }
    bytes
}

/// The bodies of a log's frames.
fn bodies(log: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < log.len() {
        let length = u32::from_le_bytes(log[at + 8..at + 12].try_into().unwrap()) as usize;
        found.push(log[at + frame::HEAD..at + frame::HEAD + length].to_vec());
        at += frame::HEAD + length + frame::TAIL;
    }
    found
}

/// A log of these bodies, with valid checksums.
fn sealed(bodies: &[Vec<u8>]) -> Vec<u8> {
    let (mut log, mut before) = (Vec::new(), [0; 32]);
    for (seq, body) in bodies.iter().enumerate() {
        let numbers = [&(body.len() as u32).to_le_bytes()[..], &[0; 4], &(seq as u64).to_le_bytes()].concat();
        let head = [&frame::MAGIC[..], &numbers, &before, body].concat();
        before = checksum::hash(&head);
        log.extend([head, before.to_vec()].concat());
    }
    log
}

fn parse_ops(body: &[u8]) {
    let Ok(ops) = cbor::decode::<Vec<Op>>(body, "ops") else { return };
    let mut declared = Declared::default();
    let mut groups = Vec::new();
    for op in ops {
        let _ = declared.apply(&op);
        match op {
            Op::Group(group) if check::group(&group, &declared).is_ok() => groups.push(group),
            Op::Replace(replace) => {
                replace.old.iter().for_each(|old| drop(old.numbers().collect::<Vec<_>>()));
                groups.extend(replace.new.into_iter().filter(|group| check::group(group, &declared).is_ok()));
            }
            Op::Chunks(chunks) => drop(names::check_blob(&chunks.pack)),
            Op::Layout(layout) => drop(cbor::decode::<LayoutContent>(&layout.content, "a layout")),
            _ => {}
        }
    }
    for group in &groups {
        let _ = segment::header_cost(&declared, group);
        group.blocks.iter().for_each(|block| drop(block.spans()));
    }
    // as if the header region were a page: a whole one would outgrow the cap
    let reserve = groups.first().map_or(0, |group| group.offset).min(4096);
    let _ = segment::seal(&declared, &groups, reserve);
}

/// Asks a run for everything that it says it has.
fn examine(path: &Path) {
    let Ok(snapshot) = Snapshot::open(storage(path), Opening::default()) else { return };
    for (index, group) in snapshot.groups().iter().enumerate() {
        for site in group.sites.iter().filter_map(|id| snapshot.site_by_id(*id)) {
            let _ = snapshot.codes(index, site).and_then(|codes| codes.all());
            if snapshot.rows_of(index, site).is_ok() {
                let mut out = vec![0; (group.rows * site.row_bytes()) as usize];
                let _ = snapshot.read(index, site, &mut out);
            }
        }
        for column in snapshot.columns_of(Table::Rows, index).unwrap() {
            let _ = snapshot.metadata(index, column);
        }
    }
    for (step, parts) in snapshot.checkpoints() {
        for part in parts {
            let _ = snapshot.saved_part(step, part.name);
        }
    }
    assert_eq!(snapshot.metrics().steps.len(), snapshot.metrics().values.len());
    let _ = verify(&storage(path), &Progress::default());
}

fn copy(from: &Path, to: &Path) {
    for folder in ["commits", "logs", "segments", "chunks"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(from.join("run.json"), to.join("run.json")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsers_answer_any_bytes(edits in edits(), which in any::<prop::sample::Index>()) {
        let real = real();
        let text = mutate(&real.run_json, &edits);
        let _ = capped(text.len(), || RunFile::decode(&text));
        let n = which.index(real.commits.len());
        let whole = mutate(&real.commits[n], &edits);
        let _ = capped(whole.len(), || commit::decode(&whole, n as u64));
        let log = mutate(&real.logs[which.index(real.logs.len())].1, &edits);
        let _ = capped(log.len(), || frame::scan(&log, 0));
    }

    #[test]
    fn parsers_answer_any_bytes_under_valid_checksums(edits in edits(), which in any::<prop::sample::Index>()) {
        let real = real();
        let n = which.index(real.commits.len());
        let whole = resealed(&real.commits[n], &edits);
        let _ = capped(whole.len(), || commit::decode(&whole, n as u64));
        let all = bodies(&real.logs[which.index(real.logs.len())].1);
        let body = mutate(&all[which.index(all.len())], &edits);
        capped(body.len(), || parse_ops(&body));
        let log = sealed(&[body]);
        let _ = capped(log.len(), || frame::scan(&log, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_with_any_record_answers(edits in edits(), which in any::<prop::sample::Index>()) {
        let real = real();
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("run");
        copy(&real.folder.path().join("run"), &path);
        let frames = real.logs.iter().flat_map(|(name, log)| (0..bodies(log).len()).map(move |at| (name, log, at)));
        let frames: Vec<_> = frames.collect();
        match which.index(frames.len() + real.commits.len()).checked_sub(frames.len()) {
            Some(n) => std::fs::write(path.join(names::commit(n as u64)), resealed(&real.commits[n], &edits)).unwrap(),
            None => {
                let (name, log, at) = frames[which.index(frames.len() + real.commits.len())];
                let mut all = bodies(log);
                all[at] = mutate(&all[at], &edits);
                std::fs::write(path.join(name), sealed(&all)).unwrap();
            }
        }
        // the segment has a header region of a megabyte
        capped(1 << 20, || examine(&path));
    }
}

#[test]
fn a_log_that_is_sealed_again_is_itself() {
    assert!(real().logs.iter().all(|(_, log)| sealed(&bodies(log)) == *log));
    assert!(real().commits.iter().all(|commit| resealed(commit, &Vec::new()) == *commit));
}

#[test]
#[should_panic(expected = "bytes for an input of 10")]
fn the_cap_notices_what_a_length_promises() {
    capped(10, || std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
}
