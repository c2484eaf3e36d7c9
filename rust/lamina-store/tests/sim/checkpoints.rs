//! Workloads of checkpoints that come from elsewhere, and of such that are thinned out.

use super::fs::Lies;
use super::hide::What;
use super::history::{Call, tag};
use super::interrupted::every_interruption;
use super::scene::Scene;
use lamina_store::keep::{Progress, gc};
use std::time::Duration;

fn collect(scene: &Scene, grace: Duration) {
    gc(&scene.storage(), grace, &Progress::default()).unwrap();
}

/// Checkpoints of a writer that is done.
fn record(scene: &Scene, count: usize) {
    let mut writer = scene.open();
    for _ in 0..count {
        writer.stage(Call::Save { bytes: 100 });
        writer.wait();
    }
    writer.close();
}

fn discard(slot: usize, first: usize, last: usize) -> What {
    What::Discard(vec![(tag(slot, first), tag(slot, last))])
}

fn nothing_is_lost(scene: &Scene) {
    let cuts = scene.every_cut(2).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn no_cut_of_an_import_loses_a_checkpoint_or_shows_half_of_one() {
    let scene = Scene::new(Lies::default());
    scene.import(2, 3000);
    record(&scene, 1);
    scene.import(1, 100);
    nothing_is_lost(&scene);
}

#[test]
fn no_cut_brings_back_what_was_thinned_out_or_takes_more() {
    let scene = Scene::new(Lies::default());
    record(&scene, 4);
    let mut writer = scene.open();
    writer.stage(Call::Save { bytes: 100 });
    writer.wait();
    writer.stage(Call::Save { bytes: 10 });
    scene.hide(discard(0, 1, 2));
    writer.wait();
    scene.hide(discard(1, 0, 5));
    writer.stage(Call::Save { bytes: 10 });
    writer.close();
    // a pack goes where nothing of it is needed
    scene.hide(discard(0, 0, 9));
    scene.import(1, 100);
    collect(&scene, Duration::ZERO);
    nothing_is_lost(&scene);
}

#[test]
fn syncs_that_do_nothing_bring_back_what_was_thinned_out() {
    let scene = Scene::new(Lies::default());
    record(&scene, 2);
    let scene = scene.lying_from_here(Lies { of_files: false, of_folders: true });
    scene.hide(discard(0, 0, 0));
    assert!(scene.every_cut(0).is_err());
}

#[test]
fn syncs_that_do_nothing_lose_what_was_imported() {
    let scene = Scene::new(Lies { of_files: true, of_folders: true });
    scene.import(1, 100);
    let cuts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.every_cut(3)));
    assert!(!matches!(cuts, Ok(Ok(_))));
}

/// A checkpoint that is thinned out, of chunks that an import holds as well.
fn thinned(scene: &Scene) {
    record(scene, 1);
    scene.hide(discard(0, 0, 0));
    scene.begin_here();
}

#[test]
fn no_import_is_lost_that_leans_on_what_is_condemned_meanwhile() {
    every_interruption(thinned, |scene| scene.import(1, 10), |scene| collect(scene, Duration::from_secs(86_400)));
}

#[test]
fn no_checkpoint_is_thinned_out_by_half_that_is_imported_in_the_midst() {
    every_interruption(|scene| record(scene, 1), |scene| scene.import(2, 10), |scene| scene.hide(discard(1, 0, 9)));
}
