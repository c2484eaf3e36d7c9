//! Workloads that stand for what people do.

use super::fs::Lies;
use super::history::{Call, Set};
use super::interrupted::every_interruption;
use super::scene::Scene;

const SEEDS: u64 = 6;

fn append(set: Set, rows: u64) -> Call {
    Call::Append { set, rows }
}

/// One writer that does a bit of everything.
fn everything(scene: &Scene) {
    let mut writer = scene.open();
    writer.stage(append(Set::Plain, 3));
    writer.wait();
    writer.stage(Call::Log);
    writer.stage(append(Set::Mixed, 2));
    writer.stage(append(Set::Plain, 1));
    writer.stage(Call::Examples { rows: 2 });
    writer.wait();
    writer.stage(Call::Save { bytes: 5000 });
    writer.stage(Call::Log);
    writer.wait();
    writer.stage(append(Set::Scalar, 4));
    writer.stage(Call::Save { bytes: (1 << 20) + 1 });
    writer.close();
}

fn nothing_is_lost(scene: &Scene, seeds: u64) {
    let cuts = scene.every_cut(seeds).unwrap_or_else(|loss| panic!("{loss}"));
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn no_cut_loses_what_one_writer_was_told_is_durable() {
    let scene = Scene::new(Lies::default());
    everything(&scene);
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn syncs_that_do_nothing_lose_what_was_acknowledged() {
    let lies = |of_files, of_folders| Lies { of_files, of_folders };
    for lies in [lies(true, true), lies(true, false), lies(false, true)] {
        let scene = Scene::new(lies);
        everything(&scene);
        assert!(scene.every_cut(0).is_err());
    }
}

#[test]
fn no_cut_loses_rows_where_one_segment_follows_another() {
    let scene = Scene::new(Lies::default());
    let mut writer = scene.open();
    for _ in 0..18 {
        writer.stage(append(Set::Wide, 1));
        writer.wait();
    }
    writer.close();
    nothing_is_lost(&scene, 1);
}

#[test]
fn no_cut_loses_rows_that_are_written_past_the_page_cache() {
    let scene = Scene::new(Lies::default());
    let mut writer = scene.open();
    writer.stage(append(Set::Plain, 1));
    writer.wait();
    // buffers of 8 MiB: full ones go to the disk before anybody asks for a durable point
    writer.stage(append(Set::Large, 140));
    writer.wait();
    writer.stage(Call::Save { bytes: 5 << 20 });
    writer.close();
    nothing_is_lost(&scene, 1);
}

#[test]
fn no_cut_loses_rows_of_writers_that_take_turns() {
    let scene = Scene::new(Lies::default());
    let (mut first, mut second) = (scene.open(), scene.open());
    for set in [Set::Plain, Set::Mixed] {
        first.stage(append(set, 2));
        second.stage(append(set, 1));
        second.stage(Call::Save { bytes: 10 });
        second.wait();
        first.stage(Call::Log);
        first.wait();
    }
    second.close();
    first.stage(append(Set::Scalar, 1));
    first.close();
    nothing_is_lost(&scene, SEEDS);
}

#[test]
fn no_cut_loses_what_another_writer_did_in_the_midst_of_a_declaration() {
    fn declare(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(append(Set::Mixed, 1));
        writer.wait();
    }
    every_interruption(|_| {}, declare, declare);
}

#[test]
fn no_cut_loses_chunks_that_another_writer_was_about_to_make_durable() {
    fn save(scene: &Scene) {
        let mut writer = scene.open();
        writer.stage(Call::Save { bytes: 10 });
        writer.wait();
    }
    every_interruption(|_| {}, save, save);
}

#[test]
fn no_cut_loses_what_a_writer_was_told_before_it_was_fenced() {
    fn record(scene: &Scene) {
        let Ok(mut writer) = scene.try_open() else { return };
        writer.stage(append(Set::Plain, 1));
        writer.wait();
        writer.stage(append(Set::Plain, 2));
        writer.stage(Call::Log);
        writer.wait();
        writer.close();
    }
    every_interruption(|_| {}, record, Scene::fence);
}
