//! Drives an engine: one pod after the other, with its tables made on a second thread.
//!
//! New tables are put in place a fixed number of decisions after they were asked for, whether they are ready or not (then
//! the driver waits), so that a run gives the same result on a slow and on a fast machine.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use berth_placement::{Candidates, Engine, NodeName, Plan, RebuildJob, Shape, Tables};

/// Tables may be late by this part of the decisions so far, and at most by [`LATEST`].
const LATE: u64 = 4;
const LATEST: u64 = 1024;

/// An engine that learns, with measured decisions.
#[derive(Debug)]
pub struct Driver {
    pub engine: Engine,
    rebuilds: Rebuilds,
    /// Of the job under way: the decision at which its tables must be in place.
    due: Option<u64>,
    decisions: u64,
    pub latencies: Latencies,
}

/// How long each decision took, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u32>);

/// A thread that makes tables.
#[derive(Debug)]
struct Rebuilds {
    jobs: Option<SyncSender<RebuildJob>>,
    made: Receiver<Tables>,
    thread: Option<JoinHandle<()>>,
}

/// The clock of this tool: it measures, so it may look.
#[expect(
    clippy::disallowed_methods,
    reason = "a measuring tool reads the real clock, here and nowhere else"
)]
pub fn now() -> Instant {
    Instant::now()
}

impl Driver {
    pub fn new(engine: Engine) -> std::io::Result<Self> {
        Ok(Self {
            engine,
            rebuilds: Rebuilds::start()?,
            due: None,
            decisions: 0,
            latencies: Latencies::default(),
        })
    }

    /// Places a pod where the policy likes it best. `None`: it fits nowhere.
    pub fn place(&mut self, shape: &Shape) -> Option<(NodeName, Plan)> {
        self.keep_tables();
        let start = now();
        self.engine.observe(shape);
        let best = self.engine.decide(shape, Candidates::All, 1).ranked.into_iter().next();
        let placed = best.and_then(|best| {
            let taken = self.engine.take(&best.node, shape, &best.plan);
            debug_assert!(taken, "BUG: a plan was decided that is not free");
            taken.then_some((best.node, best.plan))
        });
        if placed.is_some() {
            self.engine.started(shape);
        }
        self.latencies.push(start.elapsed());
        self.decisions += 1;
        placed
    }

    /// A pod that was placed is gone.
    pub fn remove(&mut self, node: &NodeName, shape: &Shape, plan: &Plan) {
        let given = self.engine.give_back(node, shape, plan);
        debug_assert!(given, "BUG: more was given back than was taken");
        self.engine.ended(shape);
    }

    fn keep_tables(&mut self) {
        if self.due.is_some_and(|due| due <= self.decisions) {
            if let Ok(tables) = self.rebuilds.made.recv() {
                self.engine.install(tables);
            }
            self.due = None;
        }
        if self.due.is_none()
            && let Some(job) = self.engine.pending_rebuild()
            && let Some(jobs) = &self.rebuilds.jobs
            && jobs.send(job).is_ok()
        {
            self.due = Some(self.decisions + (self.decisions / LATE).min(LATEST));
        }
    }
}

impl Rebuilds {
    fn start() -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel::<RebuildJob>(1);
        let (done, made) = sync_channel(1);
        let work = move || {
            while let Ok(job) = waiting.recv() {
                if done.send(job.run()).is_err() {
                    return;
                }
            }
        };
        Ok(Self {
            jobs: Some(jobs),
            made,
            thread: Some(Builder::new().name("rebuild".to_owned()).spawn(work)?),
        })
    }
}

impl Drop for Rebuilds {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the thread itself.
            drop(thread.join());
        }
    }
}

impl Latencies {
    fn push(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a number of decisions")]
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.0.iter().map(|nanos| f64::from(*nanos)).sum();
        sum / 1000.0 / self.0.len().max(1) as f64
    }

    /// In microseconds: the smallest value that this share of the decisions did not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length is a length"
        )]
        let at = (share * (sorted.len().saturating_sub(1)) as f64).ceil() as usize;
        sorted.get(at).map_or(0.0, |nanos| f64::from(*nanos) / 1000.0)
    }
}
