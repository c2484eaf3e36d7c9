//! Workloads of keeping: rows are compacted, hidden, and given further sites.

use super::fs::Lies;
use super::hide::What;
use super::history::{Call, Set, tag};
use super::interrupted::every_interruption;
use super::scene::Scene;
use lamina_store::keep::{Progress, gc};
use std::time::Duration;

const SEEDS: u64 = 2;

fn append(set: Set, rows: u64) -> Call {
    Call::Append { set, rows }
}

/// A writer that is done: three durable points of one kind of row and one of another, and what is no row.
fn record(scene: &Scene) {
    let mut writer = scene.open();
    for _ in 0..3 {
        writer.stage(append(Set::Plain, 3));
        writer.wait();
    }
    writer.stage(append(Set::Mixed, 4));
    writer.stage(Call::Examples { rows: 2 });
    writer.stage(Call::Log);
    writer.wait();
    writer.stage(Call::Examples { rows: 1 });
    writer.stage(Call::Save { bytes: 100 });
    writer.close();
}

fn steps(first: i64, last: i64) -> What {
    What::Delete { sites: vec![], steps: vec![(first, last)], rows: [].into() }
}

fn of_site(site: &str, steps: &[(i64, i64)]) -> What {
    What::Delete { sites: vec![site.to_owned()], steps: steps.to_vec(), rows: [].into() }
}

/// Some of the rows that are there.
fn some_rows(scene: &Scene) -> What {
    let found = scene.found().unwrap();
    let rows = found.names.into_iter().step_by(3).map(|(name, row)| (row, name)).collect();
    What::Delete { sites: vec![], steps: vec![], rows }
}

fn nothing_is_lost(scene: &Scene, seeds: u64) {
    let cuts = scene.every_cut(seeds).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

/// Rounds of compaction, warm and cold, with rows that were hidden in between, and a writer that died.
fn compacted(scene: &Scene) {
    record(scene);
    let mut dead = scene.open();
    dead.stage(append(Set::Plain, 2));
    dead.wait();
    dead.stage(append(Set::Plain, 1));
    dead.wait();
    assert!(scene.compact(&[]).before > 3);
    scene.hide(steps(1, 1));
    scene.hide(of_site("blocks.0.output", &[]));
    assert!(scene.compact(&["x"]).before > 0);
    let storage = scene.storage();
    storage.fence(1).unwrap();
    assert!(scene.compact(&["x"]).before > 0);
}

#[test]
fn no_cut_of_compaction_loses_rows() {
    let scene = Scene::new(Lies::default());
    compacted(&scene);
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn syncs_that_do_nothing_lose_what_was_compacted() {
    let lies = |of_files, of_folders| Lies { of_files, of_folders };
    for lies in [lies(true, true), lies(true, false), lies(false, true)] {
        let scene = Scene::new(Lies::default());
        record(&scene);
        let scene = scene.lying_from_here(lies);
        scene.compact(&[]);
        // names that were lost may be in the way of the next writer, which stops the test
        let cuts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.every_cut(3)));
        assert!(!matches!(cuts, Ok(Ok(_))));
    }
}

#[test]
fn no_cut_brings_back_what_was_hidden_or_hides_more() {
    let scene = Scene::new(Lies::default());
    record(&scene);
    let mut second = scene.open();
    second.stage(append(Set::Mixed, 3));
    second.stage(Call::Log);
    second.wait();
    scene.hide(some_rows(&scene));
    scene.hide(of_site("x", &[(0, 1), (3, 2000)]));
    second.stage(append(Set::Mixed, 2));
    second.wait();
    scene.hide(What::Rewind(tag(0, 4)));
    second.stage(append(Set::Plain, 2));
    second.stage(Call::Log);
    second.wait();
    scene.hide(steps(1000, 1000));
    second.close();
    scene.compact(&[]);
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn syncs_that_do_nothing_bring_back_what_was_hidden() {
    let scene = Scene::new(Lies::default());
    record(&scene);
    let scene = scene.lying_from_here(Lies { of_files: false, of_folders: true });
    scene.hide(steps(1, 1));
    assert!(scene.every_cut(0).is_err());
}

#[test]
fn no_cut_loses_what_was_attached() {
    let scene = Scene::new(Lies::default());
    record(&scene);
    let (mut second, mut third) = (scene.open(), scene.open());
    second.stage(Call::Attach { rows: 5 });
    second.wait();
    third.stage(append(Set::Plain, 2));
    third.wait();
    second.stage(Call::Attach { rows: 4 });
    third.stage(Call::Attach { rows: 3 });
    second.wait();
    third.wait();
    scene.hide(steps(0, 0));
    scene.hide(of_site("code.1", &[(1, 3)]));
    second.stage(Call::Attach { rows: 4 });
    second.close();
    third.close();
    assert!(scene.compact(&["code.2"]).before > 3);
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn no_cut_loses_rows_of_a_compaction_in_whose_midst_rows_were_deleted() {
    every_interruption(record_little, compact, |scene| scene.hide(steps(1, 1)));
}

#[test]
fn no_cut_loses_rows_of_a_compaction_in_whose_midst_others_compact() {
    every_interruption(record_little, compact, compact);
}

#[test]
fn no_cut_loses_rows_of_a_writer_that_is_taken_for_dead_and_compacted() {
    fn two_points(scene: &Scene) {
        let Ok(mut writer) = scene.try_open() else { return };
        writer.stage(append(Set::Plain, 1));
        writer.wait();
        // what is no row first: where it is lost no later row may be there
        writer.stage(Call::Log);
        writer.stage(append(Set::Plain, 2));
        writer.wait();
        writer.close();
    }
    every_interruption(|_| {}, two_points, |scene| drop(scene.compact_all(&[])));
}

#[test]
fn no_cut_parts_what_was_attached_from_its_rows() {
    fn two_points(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(append(Set::Plain, 1));
        writer.wait();
        writer.stage(append(Set::Plain, 2));
        writer.wait();
    }
    fn attach(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(Call::Attach { rows: 3 });
        writer.wait();
    }
    every_interruption(|_| {}, two_points, attach);
}

#[test]
fn no_cut_hides_half_of_what_is_recorded_in_the_midst() {
    fn one_point(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(append(Set::Plain, 1));
        writer.stage(append(Set::Mixed, 1));
        writer.wait();
        writer.close();
    }
    every_interruption(record_little, one_point, |scene| scene.hide(What::Rewind(1)));
}

fn record_little(scene: &Scene) {
    let mut writer = scene.open();
    for _ in 0..2 {
        writer.stage(append(Set::Plain, 2));
        writer.wait();
    }
    writer.close();
}

fn compact(scene: &Scene) {
    scene.compact(&[]);
}

/// Checkpoints of three writers: the second goes on from the first, the third is at work. Saves in the middle are rewound.
fn checkpoints(scene: &Scene) {
    for saves in [4, 2] {
        let mut writer = scene.open();
        for _ in 0..saves {
            writer.stage(Call::Save { bytes: 40 });
            writer.wait();
        }
        writer.close();
        assert!(scene.compact(&[]).chunks > 0);
    }
}

#[test]
fn no_cut_of_a_compaction_of_checkpoints_loses_one() {
    let scene = Scene::new(Lies::default());
    checkpoints(&scene);
    let mut writer = scene.open();
    writer.stage(Call::Save { bytes: 40 });
    writer.wait();
    scene.hide(What::Rewind(tag(0, 2)));
    scene.compact(&[]);
    assert!(!gc(&scene.storage(), Duration::ZERO, &Progress::default()).unwrap().removed.is_empty());
    writer.stage(Call::Save { bytes: 41 });
    writer.close();
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn syncs_that_do_nothing_lose_checkpoints_that_are_compacted_and_collected() {
    let scene = Scene::new(Lies::default());
    let mut writer = scene.open();
    for _ in 0..3 {
        writer.stage(Call::Save { bytes: 40 });
        writer.wait();
    }
    writer.close();
    let scene = scene.lying_from_here(Lies { of_files: true, of_folders: false });
    assert!(scene.compact(&[]).chunks > 0);
    gc(&scene.storage(), Duration::ZERO, &Progress::default()).unwrap();
    assert!(scene.every_cut(SEEDS).is_err());
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_checkpoint_is_lost_that_leans_on_what_is_coded_and_collected_meanwhile() {
    fn saved(scene: &Scene) {
        let mut writer = scene.open();
        for _ in 0..2 {
            writer.stage(Call::Save { bytes: 40 });
            writer.wait();
        }
        writer.close();
        scene.begin_here();
    }
    fn save(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(Call::Save { bytes: 10 });
        writer.wait();
    }
    every_interruption(saved, save, |scene| {
        scene.compact(&[]);
        gc(&scene.storage(), Duration::ZERO, &Progress::default()).unwrap();
    });
}
