//! Every task and thread of a process: named, counted, joined at the end. A panic in one of them ends the process.
//!
//! A dead task is a bug that only a restart repairs, so it must not be silent: [`Shutdown::fail`] gets the task's name.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, info_span, warn};

use crate::Shutdown;

/// The process's tasks and threads. Clones share one set.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    running: Running,
}

/// Names of what runs, by start order.
type Running = Arc<Mutex<BTreeMap<u64, &'static str>>>;

/// Lives as long as its task or thread.
struct Alive {
    id: u64,
    name: &'static str,
    running: Running,
    shutdown: Shutdown,
}

/// Tells who was still running when a [`Tasks::join`] was given up.
struct JoinGivenUp<'a>(&'a Tasks);

impl Tasks {
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            tracker: TaskTracker::new(),
            shutdown,
            running: Running::default(),
        }
    }

    /// Runs `task` inside a span with its name. Dropping the handle leaves it running.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let counted = self.tracker.token();
        self.spawn_with(name, Some(counted), task)
    }

    /// As [`Self::spawn`], for the rare task that must outlive the others: [`Self::join`] does not wait for it.
    pub fn spawn_detached<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn_with(name, None, task)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns: named, counted, a panic is not lost"
    )]
    fn spawn_with<F>(&self, name: &'static str, counted: Option<TaskTrackerToken>, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let alive = self.alive(name);
        // The target lets traces leave these spans out: a task lives as long as the process, a trace must not.
        let span = info_span!(target: TASK_SPAN_TARGET, parent: None, "task", task = name);
        let task = async move {
            let _counted = counted;
            let _alive = alive;
            task.await
        };
        tokio::spawn(task.instrument(span))
    }

    /// Runs `body` on an operating system thread of its own: for calls that block for long, such as a driver's.
    ///
    /// # Errors
    /// The operating system refuses another thread.
    pub fn spawn_thread<T>(
        &self,
        name: &'static str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<T>>
    where
        T: Send + 'static,
    {
        let counted = self.tracker.token();
        let alive = self.alive(name);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _counted = counted;
            let _alive = alive;
            info_span!(target: TASK_SPAN_TARGET, parent: None, "thread", task = name).in_scope(body)
        })
    }

    /// Waits until every task and thread has ended. It stops nobody: they end by the tokens they were given. If it is
    /// dropped before (a drain out of time), it logs who was still running.
    pub async fn join(&self) {
        self.tracker.close();
        let given_up = JoinGivenUp(self);
        self.tracker.wait().await;
        drop(given_up);
    }

    /// The names of what runs now, oldest first.
    pub fn running(&self) -> Vec<&'static str> {
        self.running.lock().values().copied().collect()
    }

    fn alive(&self, name: &'static str) -> Alive {
        let mut running = self.running.lock();
        let id = running.last_key_value().map_or(0, |(last, _)| last + 1);
        running.insert(id, name);
        Alive {
            id,
            name,
            running: Arc::clone(&self.running),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// Target of the spans that wrap whole tasks.
pub(crate) const TASK_SPAN_TARGET: &str = "berth::task";

// === impl Alive ===

impl Drop for Alive {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
        if thread::panicking() {
            self.shutdown.fail(format!("task `{}` panicked", self.name));
        }
    }
}

// === impl JoinGivenUp ===

impl Drop for JoinGivenUp<'_> {
    fn drop(&mut self) {
        if !self.0.tracker.is_empty() {
            warn!(tasks = ?self.0.running(), "not waiting any longer for tasks that still run");
        }
    }
}

#[cfg(test)]
mod tests;
