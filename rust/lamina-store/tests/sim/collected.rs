//! Workloads of collecting garbage: beside writers, compactions and other collections, and cut anywhere.

use super::fs::Lies;
use super::hide::What;
use super::history::{Call, Set, tag};
use super::interrupted::every_interruption;
use super::scene::Scene;
use lamina_store::keep::{Collection, Progress, gc};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn append(set: Set, rows: u64) -> Call {
    Call::Append { set, rows }
}

fn collect(scene: &Scene, grace: Duration) -> Collection {
    gc(&scene.storage(), grace, &Progress::default()).unwrap()
}

/// A writer that is done, with a checkpoint.
fn record(scene: &Scene) {
    let mut writer = scene.open();
    for rows in 1..3 {
        writer.stage(append(Set::Plain, rows));
        writer.wait();
    }
    writer.stage(Call::Examples { rows: 1 });
    writer.stage(Call::Save { bytes: 100 });
    writer.close();
}

fn nothing_is_lost(scene: &Scene, seeds: u64) {
    let cuts = scene.every_cut(seeds).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn no_cut_of_a_collection_loses_what_counts_and_the_next_completes_it() {
    let scene = Scene::new(Lies::default());
    record(&scene);
    let mut dead = scene.open();
    dead.stage(append(Set::Mixed, 2));
    dead.stage(Call::Save { bytes: 10 });
    dead.wait();
    scene.compact(&[]);
    assert_eq!(collect(&scene, DAY).condemned.len(), 1);
    // the pack was condemned by the compaction, when its chunks stood elsewhere
    assert_eq!(collect(&scene, Duration::ZERO).removed.len(), 2);
    scene.storage().fence(1).unwrap();
    // what it recorded goes wholly: rows without a compaction, and its pack
    scene.hide(What::Rewind(tag(1, 0)));
    let done = collect(&scene, Duration::ZERO);
    assert_eq!((done.rows, done.removed.len()), (2, 2));
    nothing_is_lost(&scene, 2);
}

#[test]
fn syncs_that_do_nothing_lose_what_is_collected() {
    let scene = Scene::new(Lies::default());
    record(&scene);
    let scene = scene.lying_from_here(Lies { of_files: true, of_folders: true });
    scene.compact(&[]);
    collect(&scene, Duration::ZERO);
    // names that were lost may be in the way of the next writer, which stops the test
    let cuts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.every_cut(3)));
    assert!(!matches!(cuts, Ok(Ok(_))));
}

fn record_little(scene: &Scene) {
    let mut writer = scene.open();
    writer.stage(append(Set::Plain, 1));
    writer.wait();
    writer.stage(append(Set::Plain, 1));
    writer.close();
}

/// A checkpoint that nothing needs any more, of chunks that the next one holds as well.
fn rewound(scene: &Scene) {
    let mut writer = scene.open();
    writer.stage(Call::Save { bytes: 100 });
    writer.close();
    scene.hide(What::Rewind(-1));
    scene.begin_here();
}

fn save(scene: &Scene) {
    let mut writer = scene.open();
    writer.stage(Call::Save { bytes: 10 });
    writer.wait();
}

#[test]
fn no_checkpoint_is_lost_that_leans_on_what_is_condemned_meanwhile() {
    every_interruption(rewound, save, |scene| drop(collect(scene, DAY)));
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_acknowledged_checkpoint_is_lost_that_leans_on_what_is_removed_meanwhile() {
    every_interruption(rewound, save, |scene| drop(collect(scene, Duration::ZERO)));
}

fn compacted(scene: &Scene) {
    record_little(scene);
    scene.compact(&[]);
    scene.begin_here();
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_collection_harms_another() {
    every_interruption(
        compacted,
        |scene| drop(collect(scene, Duration::ZERO)),
        |scene| drop(collect(scene, Duration::ZERO)),
    );
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_collection_harms_a_compaction_or_is_harmed_by_one() {
    fn hidden(scene: &Scene) {
        record_little(scene);
        scene.compact(&[]);
        scene.hide(What::Delete { sites: vec![], steps: vec![(0, 0)], rows: [].into() });
        scene.begin_here();
    }
    fn compact(scene: &Scene) {
        scene.compact(&[]);
    }
    every_interruption(hidden, compact, |scene| drop(collect(scene, Duration::ZERO)));
    every_interruption(hidden, |scene| drop(collect(scene, Duration::ZERO)), compact);
}
