//! What one does, interrupted at each of its calls by all that another does.

use super::fs::Lies;
use super::scene::Scene;

/// The scene in which `one` was interrupted at this call; None if it makes fewer.
fn interrupted(at: usize, before: fn(&Scene), one: fn(&Scene), another: fn(&Scene)) -> Option<Scene> {
    let scene = Scene::new(Lies::default());
    before(&scene);
    let inner = scene.clone();
    scene.fs.interrupt(at, move || {
        // what is cut before is the same for each call
        inner.begin_here();
        another(&inner);
    });
    one(&scene);
    (!scene.fs.uninterrupted()).then_some(scene)
}

/// Cuts the power at any moment from the interruption on, for every call.
pub fn every_interruption(before: fn(&Scene), one: fn(&Scene), another: fn(&Scene)) {
    let (mut count, mut cuts) = (0, 0);
    while let Some(scene) = interrupted(count, before, one, another) {
        // what survives in part is tried for some of the calls: there are many
        cuts += scene
            .every_cut(u64::from(count % 3 == 0))
            .unwrap_or_else(|loss| panic!("interrupted at call {count}: {loss}"));
        count += 1;
    }
    assert!(count > 20 && cuts > 100, "{count} {cuts}");
}
