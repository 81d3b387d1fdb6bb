//! Whatever happens to a node, in whatever order, the ledger keeps its promises.
//!
//! `BERTH_LEDGER_EVENTS` sets how many events are tried (at least), `BERTH_LEDGER_SEED` makes a run repeatable. A run that
//! fails is shrunk, and its log is written to a file; put that into `tests/logs` and `tests/replay.rs` runs it for ever.

#[cfg(test)]
#[path = "support/actions.rs"]
mod actions;
#[cfg(test)]
#[path = "support/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "support/world.rs"]
mod world;

#[cfg(test)]
mod property {
    use std::{cell::RefCell, collections::BTreeMap, env, fs, path::PathBuf, str::FromStr};

    use berth_ledger::LedgerConfig;
    use proptest::{
        collection::vec,
        test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
    };

    use crate::{
        actions::{Action, Start, action},
        harness::{log::Step, shell::Shell},
        world::World,
    };

    /// Actions in one life of a node.
    const LENGTH: usize = 300;

    fn from_env<T: FromStr>(name: &str) -> Option<T> {
        let text = env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    }

    /// One life of a node. What was done is told step by step, also what was done last before it failed.
    fn live(config: LedgerConfig, actions: Vec<Action>, tell: &mut dyn FnMut(&Step)) -> (Shell, Result<(), String>) {
        let mut world = World::new();
        let mut shell = Shell::new(config);
        tell(&Step::Start(config));
        let mut run = |shell: &mut Shell, step: &Step| {
            tell(step);
            shell.run(step)
        };
        for step in world.start(Start::DevicesFirst) {
            if let Err(violation) = run(&mut shell, &step) {
                return (shell, Err(violation));
            }
        }
        for action in actions {
            let steps = world.resolve(action, &shell);
            if steps.is_empty() {
                *shell
                    .counts
                    .entry("actions without sense in their state".to_owned())
                    .or_default() += 1;
            }
            for step in steps {
                if let Err(violation) = run(&mut shell, &step) {
                    return (shell, Err(violation));
                }
            }
        }
        (shell, Ok(()))
    }

    fn log_of(config: LedgerConfig, actions: Vec<Action>) -> PathBuf {
        let steps = RefCell::new(Vec::new());
        let again = std::panic::AssertUnwindSafe(|| {
            let mut tell = |step: &Step| steps.borrow_mut().push(step.clone());
            drop(live(config, actions, &mut tell));
        });
        // The failure may be a panic: of it too everything up to then is wanted.
        drop(std::panic::catch_unwind(again));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ledger-failure.jsonl");
        let lines = steps
            .borrow()
            .iter()
            .map(|step| serde_json::to_string(step).unwrap() + "\n")
            .collect::<String>();
        fs::write(&path, lines).unwrap();
        path
    }

    #[test]
    fn the_ledger_keeps_its_promises_whatever_happens() {
        let wanted: u64 = from_env("BERTH_LEDGER_EVENTS").unwrap_or(30_000);
        let mut seed: u64 = from_env("BERTH_LEDGER_SEED").unwrap_or_else(rand_seed);
        let config = LedgerConfig::default();
        let counts: RefCell<BTreeMap<String, u64>> = RefCell::default();
        println!("BERTH_LEDGER_SEED={seed}");
        while counts.borrow().get("events").is_none_or(|events| *events < wanted) {
            let mut runner = TestRunner::new(Config {
                cases: 20,
                failure_persistence: None,
                rng_seed: RngSeed::Fixed(seed),
                max_shrink_iters: 20_000,
                ..Config::default()
            });
            let lives = runner.run(&vec(action(), 1..LENGTH), |actions| {
                let (shell, outcome) = live(config, actions, &mut |_| {});
                for (what, count) in shell.counts {
                    *counts.borrow_mut().entry(what).or_default() += count;
                }
                outcome.map_err(TestCaseError::fail)
            });
            if let Err(TestError::Fail(violation, actions)) = lives {
                let path = log_of(config, actions.clone());
                panic!(
                    "{violation}\nafter {actions:#?}\nThe log is {}: BERTH_LEDGER_LOG={0} replays it",
                    path.display()
                );
            }
            lives.unwrap();
            seed = seed.wrapping_add(1);
        }
        for (what, count) in counts.borrow().iter() {
            println!("{count:>10}  {what}");
        }
        assert_nothing_was_spared(&counts.borrow());
    }

    /// A run that never came to these would prove little.
    fn assert_nothing_was_spared(counts: &BTreeMap<String, u64>) {
        for what in [
            "event Reserve granted",
            "event Reserve existing",
            "event Reserve refused: NoRoom",
            "event Reserve refused: HolderHasOther",
            "event Reserve refused: NotReconciled",
            "event Acquire granted",
            "event Release freed",
            "released pod gone",
            "put Allocated",
            "put planned anew",
            "revoked Lapsed",
            "revoked PodGone",
            "revoked Replaced",
            "revoked DisplacedByKubelet",
            "revoked DeviceLost",
            "drift AllocationWithoutKubelet",
            "drift ProcessWithoutAllocation",
            "drift DeviceMissing",
            "drift OverCommitted",
            "drift AssignedUnusable",
            "step Crash",
            "step Compact",
            "records lost",
        ] {
            assert!(counts.contains_key(what), "no {what} in the whole run");
        }
    }

    /// Another one in each run.
    fn rand_seed() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0)
    }
}
