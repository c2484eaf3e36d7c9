//! Every power cut of a run that is saved into: a checkpoint is there whole or not at all, one that was saved again is
//! the old one or the new one, and what was acknowledged is there bit for bit.

use super::disk::{Event, Survives, mix};
use super::fs::{Lies, SimFs};
use super::history::Note;
use lamina_format::DType;
use lamina_format::record::TensorSpec;
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::PartInput;
use lamina_store::{Snapshot, Ticket, Writer, create};
use std::sync::Arc;
use std::time::Duration;

/// Steps that versions are saved at in turns, so that most are saved again.
const STEPS: usize = 3;
const SEEDS: u64 = 4;

/// Tensors of a part, with their bytes.
type Tensors = Vec<(TensorSpec, Vec<u8>)>;

/// A tensor of a version. The elements are NaNs with every payload, infinities, zeros with a sign and plain numbers.
fn tensor(name: &str, version: usize, length: usize) -> (TensorSpec, Vec<u8>) {
    let kinds = [0x7FC0_0000u32, 0xFF80_0001, 0x8000_0000, 0x7F80_0000, 0x0000_0001, 0x3F80_0000];
    let element = |at: usize| kinds[(at + version) % kinds.len()] ^ (mix(version as u64, at as u64, 0) as u32 & 0xFFFF);
    let bytes = (0..length).flat_map(|at| element(at).to_le_bytes()).collect();
    (TensorSpec { name: name.to_owned(), dtype: DType::F32, shape: vec![length as u64] }, bytes)
}

/// Parts of a version: one holds a frozen tensor, a chunk and a bit of its own, and nothing; the other moments.
fn parts(version: usize) -> [(&'static str, Tensors); 2] {
    let own = if version.is_multiple_of(4) { (1 << 18) + 5 } else { 700 };
    let model = vec![tensor("frozen", 1000, 900), tensor("own", version, own), tensor("none", version, 0)];
    [("model", model), ("optimizer", vec![tensor("moment", version + 500, 300)])]
}

fn storage(fs: &SimFs) -> Arc<dyn Storage> {
    Arc::new(Files::on(Arc::new(fs.clone()), "/data/runs/run"))
}

fn save(fs: &SimFs, writer: &Writer, version: usize) -> Ticket {
    let parts = parts(version);
    let (tree, scalars) = (format!("{{\"s\":{}}}", version % 2), format!("[{version}]"));
    let inputs: Vec<_> = parts
        .iter()
        .map(|(name, tensors)| PartInput {
            name,
            tree: &tree,
            scalars: &scalars,
            tensors: tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice().into())).collect(),
        })
        .collect();
    fs.note(Note::Staged { slot: 0 });
    writer.save((version % STEPS) as i64, &inputs).unwrap()
}

/// Saves versions one after the other; waits for every third, and opens another writer for the last ones.
fn record(lies: Lies) -> SimFs {
    let fs = SimFs::new().lying(lies);
    create(storage(&fs).as_ref(), "{}").unwrap();
    let (mut version, mut told) = (0, 0);
    for last in [7, 11] {
        let writer = Writer::open(storage(&fs), None).unwrap();
        while version < last {
            let ticket = save(&fs, &writer, version);
            version += 1;
            if version % 3 == 2 {
                while !ticket.wait(Duration::from_secs(20)).unwrap() {}
                fs.note(Note::Acknowledged { slot: 0, calls: version - told });
                told = version;
            }
        }
        writer.close(None).unwrap();
        fs.note(Note::Acknowledged { slot: 0, calls: version - told });
        told = version;
    }
    fs
}

/// The version that a step holds, all of whose parts are there with every bit.
fn version_at(snapshot: &Snapshot, step: usize) -> Result<Option<usize>, String> {
    let Some(saved) = snapshot.checkpoints().remove(&(step as i64)) else { return Ok(None) };
    let names: Vec<&str> = saved.iter().map(|part| part.name).collect();
    if names != ["model", "optimizer"] {
        return Err(format!("step {step} holds the parts {names:?}"));
    }
    let text = |error: lamina_format::Error| format!("step {step}: {}", error.message);
    let mut version = None;
    for part in &saved {
        let (tree, scalars, _) = snapshot.saved_part(step as i64, part.name).map_err(text)?;
        let its: usize = scalars.trim_matches(['[', ']']).parse().map_err(|_| format!("scalars {scalars:?}"))?;
        if *version.get_or_insert(its) != its || tree != format!("{{\"s\":{}}}", its % 2) {
            return Err(format!("step {step} is of versions {version:?} and {its}"));
        }
        let expected = parts(its).into_iter().find(|(name, _)| *name == part.name).unwrap().1;
        for (index, (spec, bytes)) in expected.iter().enumerate() {
            let mut found = vec![0; bytes.len()];
            snapshot.saved_tensor(step as i64, part.name, index, &mut found).map_err(text)?;
            if found != *bytes || part.tensors()[index].spec != spec {
                return Err(format!("step {step}: tensor {:?} of version {its} has other bits", spec.name));
            }
        }
    }
    Ok(version)
}

/// Cuts the power after every event; the number of cuts, or what was wrong first.
fn every_cut(fs: &SimFs) -> Result<usize, String> {
    let (mut disk, trace) = fs.history();
    let (mut staged, mut acknowledged, mut cuts) = (0, 0, 0);
    for (at, event) in trace.iter().enumerate() {
        disk.apply(event);
        match event {
            Event::Note(Note::Staged { .. }) => staged += 1,
            Event::Note(Note::Acknowledged { calls, .. }) => acknowledged += calls,
            Event::New(_) => continue,
            _ => {}
        }
        let some = (0..SEEDS).map(|seed| Survives::Some(mix(seed, at as u64, 1)));
        for survives in [Survives::Nothing, Survives::Everything].into_iter().chain(some) {
            cuts += 1;
            let context = |what: String| format!("after event {at} of {}, {survives:?} survives: {what}", trace.len());
            let fs = SimFs::on(disk.cut(survives));
            let snapshot = match Snapshot::open(storage(&fs), Opening::default()) {
                Ok(snapshot) => snapshot,
                Err(_) if acknowledged == 0 => continue,
                Err(error) => return Err(context(error.message)),
            };
            for step in 0..STEPS {
                let least = (0..acknowledged).rev().find(|version| version % STEPS == step);
                let found = version_at(&snapshot, step).map_err(context)?;
                if found < least || found.is_some_and(|found| found >= staged || found % STEPS != step) {
                    return Err(context(format!("step {step} holds version {found:?}, acknowledged is {least:?}")));
                }
            }
        }
    }
    Ok(cuts)
}

#[test]
fn no_cut_loses_or_tears_a_checkpoint() {
    let cuts = every_cut(&record(Lies::default())).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(cuts > 300, "{cuts}");
}

#[test]
fn syncs_that_do_nothing_lose_checkpoints() {
    for (of_files, of_folders) in [(true, false), (false, true)] {
        assert!(every_cut(&record(Lies { of_files, of_folders })).is_err());
    }
}
