//! Workloads that nobody thought of: several writers, any order of calls, cuts of the power in between.

use super::fs::Lies;
use super::history::{Call, Set};
use super::scene::{Actor, Scene};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Stage(usize, Call),
    Wait(usize),
    Close(usize),
    /// The power is cut here for good, with what survives chosen by the seed; others go on.
    Cut(u64),
}

fn call() -> impl Strategy<Value = Call> {
    let set = prop_oneof![Just(Set::Plain), Just(Set::Mixed), Just(Set::Scalar), Just(Set::After)];
    prop_oneof![
        4 => (set, 1u64..6).prop_map(|(set, rows)| Call::Append { set, rows }),
        1 => (1u64..4).prop_map(|rows| Call::Examples { rows }),
        1 => Just(Call::Log),
        1 => (1u64..9000).prop_map(|bytes| Call::Save { bytes }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..3, call()).prop_map(|(writer, call)| Step::Stage(writer, call)),
        4 => (0usize..3).prop_map(Step::Wait),
        1 => (0usize..3).prop_map(Step::Close),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
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
            Step::Cut(seed) => {
                cuts += scene.every_cut(1)?;
                scene = scene.after(seed)?;
                // what they still do happens on a disk that nobody reads
                writers = [None, None, None];
            }
        }
    }
    Ok(cuts + scene.every_cut(2)?)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_of_any_workload_loses_what_was_acknowledged(steps in vec(step(), 1..24)) {
        if let Err(loss) = act(steps) {
            prop_assert!(false, "{loss}");
        }
    }
}
