//! Workloads of checkpoints that two writers store together: there when the one that completes them says so, or not at all.

use super::fs::Lies;
use super::hide::What;
use super::history::Call;
use super::interrupted::every_interruption;
use super::scene::Scene;
use lamina_store::keep::{Progress, gc};
use std::time::Duration;

#[test]
fn no_cut_loses_an_acknowledged_checkpoint_of_two_writers_or_shows_a_part_of_one() {
    let scene = Scene::new(Lies::default());
    let (mut first, mut other) = (scene.open(), scene.open());
    first.stage_divided(&other, 100);
    first.wait();
    // a shard that no checkpoint names yet, beside what is acknowledged
    other.stage(Call::Save { bytes: 30 });
    other.wait();
    first.stage_divided(&other, (1 << 20) + 2);
    other.close();
    first.close();
    let cuts = scene.every_cut(2).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn syncs_that_do_nothing_lose_checkpoints_of_two_writers() {
    let scene = Scene::new(Lies { of_files: true, of_folders: false });
    let (mut first, other) = (scene.open(), scene.open());
    first.stage_divided(&other, 100);
    first.wait();
    let cuts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.every_cut(3)));
    assert!(!matches!(cuts, Ok(Ok(_))));
}

#[test]
fn no_cut_of_a_compaction_loses_a_checkpoint_of_two_writers() {
    let scene = Scene::new(Lies::default());
    let (mut first, other) = (scene.open(), scene.open());
    for _ in 0..3 {
        first.stage_divided(&other, 100);
        first.wait();
    }
    other.close();
    first.close();
    assert!(scene.compact(&[]).chunks > 0);
    assert!(!gc(&scene.storage(), Duration::ZERO, &Progress::default()).unwrap().removed.is_empty());
    let cuts = scene.every_cut(2).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

/// Checkpoints that nothing needs any more, of chunks that the next one holds as well.
fn rewound(scene: &Scene) {
    let (mut first, other) = (scene.open(), scene.open());
    first.stage_divided(&other, 100);
    first.close();
    other.close();
    scene.hide(What::Rewind(-1));
    scene.begin_here();
}

fn divided(scene: &Scene) {
    let (mut first, other) = (scene.open(), scene.open());
    if first.stage_divided(&other, 100) {
        first.wait();
    }
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_checkpoint_of_two_writers_is_lost_that_leans_on_what_is_condemned_meanwhile() {
    every_interruption(rewound, divided, |scene| {
        gc(&scene.storage(), Duration::from_secs(86_400), &Progress::default()).unwrap();
    });
}

#[test]
#[ignore = "slow: `make test-slow` runs it"]
fn no_checkpoint_of_two_writers_is_lost_that_leans_on_what_is_removed_meanwhile() {
    every_interruption(rewound, divided, |scene| {
        gc(&scene.storage(), Duration::ZERO, &Progress::default()).unwrap();
    });
}
