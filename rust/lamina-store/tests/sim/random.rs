//! Workloads that nobody thought of: several writers, any order of calls, compaction, rows that are hidden, cuts of the
//! power in between.

use super::actor::Actor;
use super::disk::mix;
use super::fs::Lies;
use super::hide::What;
use super::history::{Call, Set, tag};
use super::scene::Scene;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Stage(usize, Call),
    Wait(usize),
    Close(usize),
    Hide(Kind, u64),
    /// So many checkpoints come from elsewhere.
    Import(usize, u64),
    /// Some sites become cold.
    Compact(u64),
    /// Writers that a cut of the power ended are closed for good.
    Bury,
    /// The power is cut here for good, with what survives chosen by the seed; others go on.
    Cut(u64),
}

#[derive(Clone, Debug)]
enum Kind {
    Rewind,
    Steps,
    Rows,
    Site,
    SiteOfRows,
    SiteOfSteps,
    Checkpoints,
}

fn call() -> impl Strategy<Value = Call> {
    let set = prop_oneof![Just(Set::Plain), Just(Set::Mixed), Just(Set::Scalar), Just(Set::After)];
    prop_oneof![
        4 => (set, 1u64..6).prop_map(|(set, rows)| Call::Append { set, rows }),
        2 => (1usize..5).prop_map(|rows| Call::Attach { rows }),
        1 => (1u64..4).prop_map(|rows| Call::Examples { rows }),
        1 => Just(Call::Log),
        1 => (1u64..9000).prop_map(|bytes| Call::Save { bytes }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use Kind::{Checkpoints, Rewind, Rows, Site, SiteOfRows, SiteOfSteps, Steps};
    let kind = prop_oneof![
        Just(Rewind),
        Just(Steps),
        Just(Rows),
        Just(Site),
        Just(SiteOfRows),
        Just(SiteOfSteps),
        Just(Checkpoints)
    ];
    prop_oneof![
        8 => (0usize..3, call()).prop_map(|(writer, call)| Step::Stage(writer, call)),
        5 => (0usize..3).prop_map(Step::Wait),
        2 => (0usize..3).prop_map(Step::Close),
        2 => (kind, any::<u64>()).prop_map(|(kind, seed)| Step::Hide(kind, seed)),
        1 => (1usize..3, 1u64..9000).prop_map(|(count, bytes)| Step::Import(count, bytes)),
        2 => any::<u64>().prop_map(Step::Compact),
        1 => Just(Step::Bury),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
}

/// Something to hide that is there, if there is anything.
fn what(scene: &Scene, kind: Kind, seed: u64) -> Option<What> {
    let found = scene.found().unwrap();
    let sites = scene.sites();
    let pick = |salt, count: usize| mix(seed, salt, 0) as usize % count.max(1);
    let rows: Vec<_> = found.names.iter().map(|(&name, &row)| (row, name)).collect();
    let (row, _) = rows.get(pick(1, rows.len()))?;
    let steps = vec![(row.0, row.0 + pick(2, 3) as i64)];
    let rows = || rows.iter().filter(|(_, name)| mix(seed, 3, *name as u64).is_multiple_of(3)).copied().collect();
    let site = || vec![sites[pick(4, sites.len())].clone()];
    let delete = |sites, steps, rows| What::Delete { sites, steps, rows };
    let what = match kind {
        Kind::Rewind => What::Rewind(tag(pick(5, 4), pick(6, 6))),
        Kind::Steps => delete(vec![], steps, [].into()),
        Kind::Rows => delete(vec![], vec![], rows()),
        Kind::Site => delete(site(), vec![], [].into()),
        Kind::SiteOfRows => delete(site(), vec![], rows()),
        Kind::SiteOfSteps => delete(site(), steps, [].into()),
        Kind::Checkpoints => {
            What::Discard(vec![(tag(pick(5, 4), pick(6, 3)), tag(pick(5, 4), pick(6, 3) + pick(7, 4)))])
        }
    };
    // no rows at all would stand for all of them
    let empty =
        matches!(&what, What::Delete { sites, steps, rows } if rows.is_empty() && steps.is_empty() && sites.is_empty());
    (!empty).then_some(what)
}

fn act(steps: Vec<Step>) -> Result<usize, String> {
    let mut scene = Scene::new(Lies::default());
    let mut writers: [Option<Actor>; 3] = [None, None, None];
    let mut cuts = 0;
    for step in steps {
        match step {
            Step::Stage(writer, call) => writers[writer].get_or_insert_with(|| scene.open()).stage(call),
            Step::Wait(writer) => writers[writer].iter_mut().for_each(Actor::wait),
            Step::Close(writer) => writers[writer].take().into_iter().for_each(Actor::close),
            Step::Hide(kind, seed) => what(&scene, kind, seed).into_iter().for_each(|what| scene.hide(what)),
            Step::Import(count, bytes) => scene.import(count, bytes),
            Step::Compact(seed) => {
                let cold = scene.sites();
                let chosen = cold.iter().filter(|site| mix(seed, site.len() as u64, 1).is_multiple_of(4));
                scene.compact(&chosen.map(String::as_str).collect::<Vec<_>>());
            }
            Step::Bury => {
                let living: Vec<u32> = writers.iter().flatten().map(|actor| actor.writer.ordinal()).collect();
                scene.fence_all_but(&living);
            }
            Step::Cut(seed) => {
                cuts += scene.every_cut(1)?;
                scene = scene.after(seed)?;
                // what they still do happens on a disk that nobody reads
                writers = [None, None, None];
            }
        }
    }
    Ok(cuts + scene.every_cut(1)?)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_of_any_workload_loses_what_was_acknowledged(steps in vec(step(), 1..28)) {
        if let Err(loss) = act(steps) {
            prop_assert!(false, "{loss}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "minutes: left to `make test-slow`"]
    fn no_cut_of_many_long_workloads_loses_what_was_acknowledged(steps in vec(step(), 20..50)) {
        if let Err(loss) = act(steps) {
            prop_assert!(false, "{loss}");
        }
    }
}
