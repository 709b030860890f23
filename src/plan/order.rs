//! The order in which trials run.

use std::{collections::HashMap, sync::Arc};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_pcg::Pcg64Mcg;

use super::Case;
use crate::config::Order;

/// Puts trials, which are in the order of the config, into the order in which they run.
pub(crate) fn arrange(cases: &mut [Arc<Case>], order: Order) {
    match order {
        Order::AsListed => {}
        Order::Interleaved(seed) => interleave(cases, seed),
        Order::Shuffled(seed) => cases.shuffle(&mut Pcg64Mcg::seed_from_u64(seed)),
    }
}

/// Sorts by run. Within a run prompts precede workloads; the order of the prompts is random, and so
/// is the order of the models for each prompt.
///
/// Round after round, each prompt of each model has the same share of a slow drift, so that the drift
/// neither separates models nor hides in the difference between prompts. A fixed order within a round
/// would give the first model the state that the last prompt left behind, each time.
fn interleave(cases: &mut [Arc<Case>], seed: u64) {
    let mut firsts: HashMap<usize, usize> = HashMap::new();
    for (place, case) in cases.iter().enumerate() {
        firsts.entry(case.task.key()).or_insert(place);
    }
    let kind = |case: &Case| (case.run, case.task.workload().is_some());
    cases.sort_by_cached_key(|case| (kind(case), firsts[&case.task.key()]));
    for round in cases.chunk_by_mut(|a, b| kind(a) == kind(b)) {
        // A round has its own generator: further rounds do not depend on those before.
        let (run, is_workload) = kind(&round[0]);
        let stream = seed ^ (u64::from(run) << 33) ^ (u64::from(is_workload) << 32);
        shuffle_round(round, &mut Pcg64Mcg::seed_from_u64(stream));
    }
}

/// Shuffles the tasks of a round, and the models of each task. The models of a task stay neighbours.
fn shuffle_round(round: &mut [Arc<Case>], random: &mut Pcg64Mcg) {
    let mut tasks: Vec<Vec<Arc<Case>>> =
        round.chunk_by(|a, b| a.task.is(&b.task)).map(<[_]>::to_vec).collect();
    tasks.shuffle(random);
    tasks.iter_mut().for_each(|models| models.shuffle(random));
    for (place, case) in round.iter_mut().zip(tasks.into_iter().flatten()) {
        *place = case;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::{
        config::Config,
        plan::{Overrides, Plan},
    };

    /// The model, the task and the run of each trial, in the order of the trials.
    fn ordered(order: &str) -> Vec<(usize, String, u32)> {
        let config = format!(
            "runs: 4\n{order}\n\
             prompts: [{{ name: a, text: x }}, {{ name: b, text: x }}, {{ name: c, text: x }}]\n\
             workloads: {{ w: {{ concurrency: 1, requests: 1 }} }}\n\
             models: {{ m: {{ simulate: {{}} }}, n: {{ simulate: {{}} }} }}\n"
        );
        let config = Config::parse(&config, "c.yaml", Path::new("")).unwrap();
        let plan = Plan::new(&config, &Overrides::default()).unwrap();
        let entry = |case: &Arc<Case>| (case.target.index, case.task.name().to_owned(), case.run);
        plan.cases.iter().map(entry).collect()
    }

    #[test]
    fn each_round_asks_every_prompt_once_and_models_take_turns() {
        let trials = ordered("");
        assert_eq!(trials.len(), 32);
        let mut orders = BTreeSet::new();
        for (round, run) in trials.chunks(8).zip(1..) {
            assert!(round.iter().all(|(_, _, of)| *of == run), "{round:?}");
            let tasks: Vec<_> = round.chunks(2).map(|pair| pair[0].1.as_str()).collect();
            for pair in round.chunks(2) {
                assert_eq!(pair[0].1, pair[1].1, "the models are asked next to each other");
                assert_ne!(pair[0].0, pair[1].0);
            }
            assert_eq!(tasks.iter().collect::<BTreeSet<_>>().len(), 4);
            assert_eq!(tasks[3], "w", "workloads follow the prompts");
            orders
                .insert(round.to_vec().iter().map(|(m, t, _)| (*m, t.clone())).collect::<Vec<_>>());
        }
        assert!(orders.len() > 1, "rounds differ");
        let firsts: BTreeSet<_> = trials.chunks(2).map(|pair| pair[0].0).collect();
        assert_eq!(firsts.len(), 2, "either model is sometimes first");
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(ordered(""), ordered("order: interleaved"));
        assert_eq!(ordered(""), ordered("order: interleaved(0)"));
        assert_ne!(ordered(""), ordered("order: interleaved(7)"));
        assert_ne!(ordered(""), ordered("order: as-listed"));
        assert_eq!(ordered("order: shuffled"), ordered("order: shuffled(0)"));
    }
}
