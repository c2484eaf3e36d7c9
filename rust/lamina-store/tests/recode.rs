//! Compaction of checkpoints: they stay what they are, bit for bit, whatever fails, and take less space.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, storage, wait};
use lamina_format::chunk::CHUNK;
use lamina_format::record::TensorSpec;
use lamina_format::{DType, ErrorKind, Result, checksum};
use lamina_store::hide::rewind;
use lamina_store::keep::{Compaction, Progress, compact, gc, verify};
use lamina_store::reader::{Access, Io, Stretch, Verify};
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::PartInput;
use lamina_store::{Opening, Snapshot, Writer, create};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type State = Vec<(TensorSpec, Vec<u8>)>;

/// Element `at` of what is noise to every codec.
fn noise(seed: u64, at: u64) -> u32 {
    let hash = checksum::hash(&[seed.to_le_bytes(), at.to_le_bytes()].concat());
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// A state of `elements` weights in two dtypes that walk a little each step, with what is frozen, noise, and counts.
fn state(step: i64, elements: u64) -> State {
    let spec = |name: &str, dtype, count| TensorSpec { name: name.to_owned(), dtype, shape: vec![count] };
    let weight = |at: u64| (noise(1, at) as i32 as f32) * 1e-11;
    let walk = |at: u64| weight(at) * (1.0 + 1e-4 * (step as f32) * ((noise(2, at) & 7) as f32 - 3.5));
    let special = [f32::NAN.to_bits(), 0x7fc0_1234, 0x8000_0000, f32::INFINITY.to_bits()];
    let mut weights: Vec<u8> = (0..elements).flat_map(|at| walk(at).to_le_bytes()).collect();
    weights.extend(special.into_iter().flat_map(|bits| (bits ^ step as u32 & 1).to_le_bytes()));
    let upper = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().flat_map(|x| [x[2], x[3]]).collect::<Vec<u8>>();
    let frozen: Vec<u8> = (0..elements / 2).flat_map(|at| weight(at).to_le_bytes()).collect();
    vec![
        (spec("bf16", DType::Bf16, elements + 4), upper(&weights)),
        (spec("w", DType::F32, elements + 4), weights),
        (spec("frozen", DType::F32, elements / 2), frozen),
        (spec("noise", DType::U8, 400), (0..400).map(|at| noise(step as u64 + 10, at) as u8).collect()),
        (spec("count", DType::I64, 1), step.to_le_bytes().to_vec()),
        (spec("empty", DType::F32, 0), vec![]),
    ]
}

struct Run {
    _folder: tempfile::TempDir,
    path: PathBuf,
    elements: u64,
}

impl Run {
    fn new(elements: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        create(storage(&path).as_ref(), "{}").unwrap();
        Self { _folder: folder, path, elements }
    }

    /// Saves by a writer of its own, which is closed then.
    fn save(&self, steps: Range<i64>) {
        let writer = Writer::open(storage(&self.path), None).unwrap();
        steps.for_each(|step| save(&writer, step, self.elements));
        writer.close(None).unwrap();
    }

    fn compact(&self) -> Compaction {
        compact(&storage(&self.path), &[], &Progress::default()).unwrap()
    }

    fn collect(&self) -> Vec<String> {
        gc(&storage(&self.path), Duration::ZERO, &Progress::default()).unwrap().removed
    }

    fn stored(&self) -> u64 {
        let packs = std::fs::read_dir(self.path.join("chunks")).unwrap();
        packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    /// Every checkpoint is what was saved, and every hash is right.
    fn check(&self, steps: Range<i64>) {
        let snapshot = open(&self.path);
        assert_eq!(snapshot.checkpoints().keys().copied().collect::<Vec<_>>(), steps.clone().collect::<Vec<_>>());
        for step in steps {
            check(&snapshot, step, self.elements);
        }
        assert_eq!(verify(&storage(&self.path), &Progress::default()).unwrap().damages, []);
    }
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(storage(path), Opening::default()).unwrap()
}

fn save(writer: &Writer, step: i64, elements: u64) {
    let state = state(step, elements);
    let tensors = state.iter().map(|(spec, bytes)| (spec.clone(), (&bytes[..]).into())).collect();
    let part = PartInput { name: "model", tree: "{}", scalars: "[]", tensors };
    wait(&writer.save(step, &[part]).unwrap()).unwrap();
}

fn check(snapshot: &Snapshot, step: i64, elements: u64) {
    for (index, (spec, bytes)) in state(step, elements).into_iter().enumerate() {
        let mut out = vec![9; bytes.len()];
        snapshot.saved_tensor(step, "model", index, &mut out).unwrap();
        assert!(out == bytes, "tensor {} of step {step}", spec.name);
    }
}

#[test]
fn checkpoints_return_bit_for_bit_from_a_fraction_of_the_bytes() {
    let run = Run::new(300_000);
    run.save(0..12);
    let before = run.stored();
    let done = run.compact();
    // a chunk each of bf16, two of w, noise and count a step; one that is frozen
    assert_eq!((done.chunks, done.chunk_bytes_before), (12 * 5 + 1, before));
    assert!(done.chunk_bytes_after * 4 < 3 * before, "{done:?} of {before}");
    run.check(0..12);
    assert_eq!(run.compact(), Compaction::default(), "there is nothing left to do");
    assert_eq!(run.collect().len(), 1);
    assert_eq!(run.stored(), done.chunk_bytes_after);
    run.check(0..12);
    assert_eq!(run.compact(), Compaction::default());
    assert!(run.collect().is_empty());
}

#[test]
fn a_training_that_goes_on_is_coded_as_it_goes_and_stays_near_what_was_coded_at_once() {
    let (run, whole) = (Run::new(3000), Run::new(3000));
    for steps in [0..3, 3..4, 4..11, 11..12] {
        run.save(steps.clone());
        let done = run.compact();
        assert!(done.chunks as i64 <= 4 * (steps.end - steps.start) + 1, "what is coded is left alone: {done:?}");
        run.collect();
    }
    run.check(0..12);
    whole.save(0..12);
    whole.compact();
    whole.collect();
    assert!(run.stored() * 10 < whole.stored() * 12, "{} {}", run.stored(), whole.stored());
}

#[test]
fn a_writer_at_work_leans_on_chunks_that_are_coded_and_collected_meanwhile() {
    let run = Run::new(3000);
    run.save(0..3);
    let writer = Writer::open(storage(&run.path), None).unwrap();
    save(&writer, 3, run.elements);
    assert_eq!(run.compact().working, [1]);
    assert_eq!(run.collect().len(), 1);
    save(&writer, 4, run.elements);
    run.check(0..5);
    writer.close(None).unwrap();
    assert_eq!(run.compact().chunks, 2 * 4);
    run.collect();
    run.check(0..5);
}

#[test]
fn differences_get_another_base_before_theirs_goes() {
    let run = Run::new(3000);
    run.save(0..9);
    run.compact();
    run.collect();
    // the middle of the window goes, and what comes after it
    rewind(storage(&run.path).as_ref(), 2).unwrap();
    assert!(run.collect().is_empty(), "others are differences from it");
    let done = run.compact();
    assert!(done.chunks >= 2 * 3, "{done:?}");
    run.check(0..3);
    assert_eq!(run.collect().len(), 1);
    run.check(0..3);
    let alone = Run::new(3000);
    alone.save(0..3);
    alone.compact();
    alone.collect();
    assert_eq!(run.stored(), alone.stored());
}

#[test]
fn a_chunk_that_is_damaged_stays_where_it_is_and_the_others_are_coded() {
    let run = Run::new(3000);
    run.save(0..5);
    let pack = run.path.join("chunks/000000-000000.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    // in the middle of step 2
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let done = run.compact();
    assert_eq!(done.damages.len(), 1);
    assert_eq!(done.damages[0].kind, ErrorKind::Damaged);
    assert!(run.collect().is_empty(), "the pack holds what nothing else does");
    let snapshot = open(&run.path);
    [0, 1, 3, 4].into_iter().for_each(|step| check(&snapshot, step, run.elements));
}

#[test]
fn a_base_that_is_damaged_is_told_with_its_place_and_others_load() {
    let run = Run::new(3000);
    run.save(0..5);
    run.compact();
    run.collect();
    let pack = std::fs::read_dir(run.path.join("chunks")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&pack).unwrap();
    for at in (0..bytes.len()).step_by(4001) {
        let mut broken = bytes.clone();
        broken[at] ^= 4;
        std::fs::write(&pack, &broken).unwrap();
        let snapshot = open(&run.path);
        let mut out = vec![0; 4 * (run.elements as usize + 4)];
        for step in 0..5 {
            let whole = &state(step, run.elements)[1].1;
            match snapshot.saved_tensor(step, "model", 1, &mut out) {
                Ok(()) => assert!(out == *whole, "flip at {at}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Damaged);
                    assert!(error.file.unwrap().starts_with("chunks/") && error.offset.unwrap() <= at as u64);
                }
            }
        }
        let damages = verify(&storage(&run.path), &Progress::default()).unwrap().damages;
        assert!(!damages.is_empty(), "flip at {at}");
    }
}

#[test]
fn a_failure_at_any_call_loses_no_checkpoint_and_the_next_compaction_goes_on() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for allowed in 0.. {
            let run = Run::new(300);
            run.save(0..3);
            let failing: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(FailingFs::new(allowed, kind)), &run.path));
            let result = compact(&failing, &[], &Progress::default());
            let snapshot = open(&run.path);
            (0..3).for_each(|step| check(&snapshot, step, run.elements));
            run.compact();
            run.collect();
            let snapshot = open(&run.path);
            (0..3).for_each(|step| check(&snapshot, step, run.elements));
            if result.is_ok() {
                assert!(allowed > 10, "{allowed}");
                break;
            }
        }
    }
}

#[test]
fn work_that_was_stopped_goes_on_where_it_was() {
    let run = Run::new(300_000);
    run.save(0..3);
    let stopped = Progress::default();
    stopped.stop();
    assert!(compact(&storage(&run.path), &[], &stopped).is_err());
    run.compact();
    run.collect();
    run.check(0..3);
}

/// Ends of stretches around those of blocks and chunks.
fn edges(length: usize) -> Vec<usize> {
    let steps = [1, 2, 7].into_iter().map(|blocks| blocks * checksum::PIECE).chain([CHUNK, CHUNK + checksum::PIECE]);
    let around =
        steps.flat_map(|end| [end - 1, end, end + 3]).chain([0, 1, length / 2, length.saturating_sub(1), length]);
    around.filter(|&at| at <= length).collect()
}

/// A stretch of a tensor.
fn stretch(snapshot: &Snapshot, step: i64, tensor: usize, range: Range<usize>) -> Result<Vec<u8>> {
    let mut out = vec![9; range.len()];
    let wanted = (Stretch { step, tensor, start: range.start as u64 }, &mut out[..]);
    match snapshot.saved_stretches("model", vec![wanted], 1)?.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(out),
    }
}

#[test]
fn parts_of_coded_chunks_are_what_was_saved_and_cost_their_blocks() {
    let run = Run::new(300_000);
    run.save(0..3);
    run.compact();
    run.collect();
    for (io, verify) in [(Io::Mmap, Verify::First), (Io::Pread, Verify::First), (Io::Pread, Verify::Always)] {
        let snapshot = open(&run.path).with_access(Access { io, verify });
        for step in 0..3 {
            for (tensor, (spec, bytes)) in state(step, run.elements).iter().enumerate() {
                let ends = edges(bytes.len());
                for (&start, &end) in ends.iter().flat_map(|start| ends.iter().map(move |end| (start, end))) {
                    if start < end {
                        let found = stretch(&snapshot, step, tensor, start..end).unwrap();
                        assert!(found == bytes[start..end], "{start}..{end} of {} of step {step}", spec.name);
                    }
                }
            }
        }
        let before = snapshot.chunk_bytes_read();
        stretch(&snapshot, 2, 1, CHUNK - 2..CHUNK + 2).unwrap();
        // two blocks, and those that they are differences from, all of them coded
        assert!((1..4 * checksum::PIECE as u64).contains(&(snapshot.chunk_bytes_read() - before)));
    }
}

#[test]
fn a_damaged_block_of_a_coded_chunk_costs_the_stretches_that_need_it() {
    let run = Run::new(300_000);
    run.save(0..3);
    run.compact();
    run.collect();
    let pack = std::fs::read_dir(run.path.join("chunks")).unwrap().next().unwrap().unwrap().path();
    let healthy = std::fs::read(&pack).unwrap();
    let whole: Vec<State> = (0..3).map(|step| state(step, run.elements)).collect();
    let mut told = Vec::new();
    for at in (0..24).map(|part| healthy.len() * part / 24) {
        let mut bytes = healthy.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&pack, &bytes).unwrap();
        let snapshot = open(&run.path).with_access(Access { io: Io::Pread, verify: Verify::First });
        let mut lost = 0;
        for (step, state) in whole.iter().enumerate() {
            for (tensor, (_, bytes)) in state.iter().enumerate() {
                for start in (0..bytes.len()).step_by(checksum::PIECE) {
                    let range = start..bytes.len().min(start + checksum::PIECE);
                    match stretch(&snapshot, step as i64, tensor, range.clone()) {
                        Ok(found) => assert!(found == bytes[range]),
                        Err(error) => {
                            assert_eq!((error.kind, error.file.is_some()), (ErrorKind::Damaged, true));
                            lost += 1;
                        }
                    }
                }
            }
        }
        // a block, and of a base the same block of the two other saves
        assert!(lost <= 3, "{lost} stretches are lost with one byte");
        told.push(lost);
    }
    std::fs::write(&pack, &healthy).unwrap();
    assert!(told.iter().filter(|&&lost| lost > 0).count() > 20 && told.contains(&1) && told.contains(&3), "{told:?}");
    run.check(0..3);
}
