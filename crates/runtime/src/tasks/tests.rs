use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn tasks() -> (Tasks, Shutdown) {
    let shutdown = Shutdown::new();
    (Tasks::new(shutdown.clone()), shutdown)
}

#[tokio::test]
async fn a_panic_in_a_task_starts_the_shutdown_with_its_name() {
    let (tasks, shutdown) = tasks();
    let panicked = tasks.spawn("journal", async { panic!("scripted") }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(shutdown.failure().as_deref(), Some("task `journal` panicked"));
    assert!(shutdown.started().is_cancelled());
}

#[tokio::test]
async fn a_panic_in_a_thread_starts_the_shutdown_with_its_name() {
    let (tasks, shutdown) = tasks();
    let thread = tasks.spawn_thread("nvml", || panic!("scripted")).unwrap();
    shutdown.started().cancelled().await;
    assert_eq!(shutdown.failure().as_deref(), Some("task `nvml` panicked"));
    thread.join().unwrap_err();
}

#[tokio::test]
async fn tasks_that_return_or_are_aborted_are_no_failure() {
    let (tasks, shutdown) = tasks();
    assert_eq!(tasks.spawn("adder", async { 1 + 1 }).await.unwrap(), 2);
    let aborted = tasks.spawn("pending", std::future::pending::<()>());
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    assert_eq!(tasks.spawn_thread("adder", || 2 + 2).unwrap().join().unwrap(), 4);
    assert_eq!(shutdown.failure(), None);
    assert!(tasks.running().is_empty());
}

#[tokio::test]
async fn join_waits_for_tasks_and_threads_but_not_for_detached_ones() {
    let (tasks, shutdown) = tasks();
    let (release_thread, released) = mpsc::channel::<()>();
    let stopped = shutdown.started().clone();
    drop(tasks.spawn("task", async move { stopped.cancelled().await }));
    drop(tasks.spawn_thread("thread", move || released.recv()).unwrap());
    drop(tasks.spawn_detached("signals", std::future::pending::<()>()));
    assert_eq!(tasks.running(), ["task", "thread", "signals"]);

    let short = Duration::from_millis(20);
    tokio::time::timeout(short, tasks.join())
        .await
        .expect_err("both still run");
    shutdown.trigger("test");
    tokio::time::timeout(short, tasks.join())
        .await
        .expect_err("the thread still runs");
    assert_eq!(tasks.running(), ["thread", "signals"]);
    release_thread.send(()).unwrap();
    tasks.join().await;
    assert_eq!(tasks.running(), ["signals"]);
}
