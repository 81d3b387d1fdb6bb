use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::SystemClock;

const LONG: Duration = Duration::from_mins(1);

fn drain(shutdown: &Shutdown, deadline: Duration) -> Drain {
    Drain::new(shutdown.clone(), SystemClock::shared(), deadline)
}

/// Adds its name to the list when it runs.
fn note(log: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> impl Future<Output = ()> + Send + 'static {
    let log = Arc::clone(log);
    async move { log.lock().push(name) }
}

#[tokio::test]
async fn phases_run_in_order_and_only_after_the_start() {
    let shutdown = Shutdown::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut drain = drain(&shutdown, LONG);
    drain.phase("first", note(&log, "first"));
    let token = drain.token("token");
    let after_token = {
        let (log, token) = (Arc::clone(&log), token.clone());
        async move {
            assert!(token.is_cancelled(), "the token's phase was before");
            log.lock().push("after the token");
        }
    };
    drain.phase("after the token", after_token);

    let mut run = pin!(drain.run());
    tokio::select! {
        biased;
        _ = &mut run => panic!("it drains although nobody asked"),
        () = tokio::task::yield_now() => assert!(log.lock().is_empty() && !token.is_cancelled()),
    }
    shutdown.trigger("test");
    let outcome = run.await;
    assert_eq!(*log.lock(), ["first", "after the token"]);
    assert!(outcome.is_clean(), "{outcome:?}");
}

#[tokio::test]
async fn a_phase_that_hangs_is_abandoned_at_the_deadline_and_the_rest_is_still_told() {
    let shutdown = Shutdown::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut drain = drain(&shutdown, Duration::from_millis(20));
    drain.phase("hangs", std::future::pending());
    let token = drain.token("token");
    drain.phase("is done at once", note(&log, "is done at once"));
    drain.phase("hangs too", std::future::pending());
    shutdown.trigger("test");
    let outcome = drain.run().await;
    assert_eq!(outcome.unfinished, ["hangs", "hangs too"]);
    assert!(token.is_cancelled() && shutdown.forced().is_cancelled());
    assert_eq!(*log.lock(), ["is done at once"]);
    assert!(!outcome.is_clean() && outcome.took >= Duration::from_millis(20));
}

#[tokio::test]
async fn the_deadline_is_for_all_phases_together() {
    let shutdown = Shutdown::new();
    let mut drain = drain(&shutdown, Duration::from_millis(100));
    for _ in 0..10 {
        drain.phase("slow", async { tokio::time::sleep(Duration::from_millis(40)).await });
    }
    shutdown.trigger("test");
    let outcome = drain.run().await;
    assert!(
        (6..=9).contains(&outcome.unfinished.len()),
        "two or three of ten fit: {outcome:?}"
    );
}

#[tokio::test]
async fn force_abandons_a_waiting_phase() {
    let shutdown = Shutdown::new();
    let mut drain = drain(&shutdown, LONG);
    let force = shutdown.clone();
    drain.phase("hangs", async move {
        force.force();
        std::future::pending::<()>().await;
    });
    shutdown.trigger("test");
    assert_eq!(drain.run().await.unfinished, ["hangs"]);
}

#[tokio::test]
async fn the_first_failure_starts_the_shutdown_and_is_reported() {
    let shutdown = Shutdown::new();
    shutdown.fail("the journal is gone");
    shutdown.fail("and then the rest");
    assert!(shutdown.started().is_cancelled());
    let outcome = drain(&shutdown, LONG).run().await;
    assert_eq!(outcome.failure.as_deref(), Some("the journal is gone"));
    assert!(!outcome.is_clean());
}

#[tokio::test]
async fn later_triggers_change_nothing() {
    let shutdown = Shutdown::new();
    let starts = Arc::new(AtomicUsize::new(0));
    let mut drain = drain(&shutdown, LONG);
    let count = Arc::clone(&starts);
    drain.phase("count", async move {
        count.fetch_add(1, Ordering::Relaxed);
    });
    shutdown.trigger("one");
    shutdown.trigger("two");
    assert!(drain.run().await.is_clean());
    assert_eq!(starts.load(Ordering::Relaxed), 1);
    assert!(!shutdown.forced().is_cancelled());
}
