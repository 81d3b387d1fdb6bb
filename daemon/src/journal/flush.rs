//! Bringing written lines from the page cache to the disk, off the path of an answer.
//!
//! One thread. It waits for the first write, lets more gather for [`WINDOW`], and syncs once for all of them: a group
//! commit. A failed sync means that pages may be lost although a later sync succeeds, so it is reported, and the owner
//! of the journal writes everything anew.

use std::{fs::File, io, sync::Arc, thread, time::Duration};

use berth_runtime::SharedClock;
use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::histogram::Histogram;

/// How long a write waits for company before the disk is asked: with the sync itself, what a power loss can cost.
pub const WINDOW: Duration = Duration::from_millis(5);

/// Told of a sync that failed, on the flusher's thread.
pub(super) type OnError = Box<dyn Fn(io::Error) + Send>;

/// Dropping it ends the thread after a last sync.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    todo: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    /// The file with lines that no sync has covered.
    dirty: Option<Arc<File>>,
    stop: bool,
}

impl Flusher {
    pub(super) fn start(clock: SharedClock, latency: Histogram, on_error: OnError) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("journal-flush".to_owned())
            .spawn(move || run(&theirs, &clock, &latency, &on_error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Lines were written to `file`. Costs a lock, and a wake where the thread sleeps.
    pub(super) fn written(&self, file: &Arc<File>) {
        let mut todo = self.shared.todo.lock();
        if todo.dirty.is_none() {
            todo.dirty = Some(Arc::clone(file));
            self.shared.changed.notify_one();
        }
    }

    /// The file is synced by other means, or given up.
    pub(super) fn forget(&self) {
        self.shared.todo.lock().dirty = None;
    }
}

fn run(shared: &Shared, clock: &SharedClock, latency: &Histogram, on_error: &OnError) {
    loop {
        let mut todo = shared.todo.lock();
        while todo.dirty.is_none() && !todo.stop {
            shared.changed.wait(&mut todo);
        }
        if !todo.stop {
            shared.changed.wait_for(&mut todo, WINDOW);
        }
        let stop = todo.stop;
        let dirty = todo.dirty.take();
        drop(todo);
        if let Some(file) = dirty {
            let start = clock.monotonic();
            if let Err(error) = file.sync_data() {
                on_error(error);
            }
            latency.observe(clock.monotonic().saturating_sub(start).as_secs_f64());
        }
        if stop {
            return;
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.todo.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been told by the panic hook; there is nothing left to do here.
            thread.join().ok();
        }
    }
}
