//! From filter over prioritize to a grant, and everything that can go wrong on the way.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use anyhow::ensure;
use berth_scheduler::binder::{BindFailed, Binder, Binding};
use berth_testkit::eventually;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    fake_node::{FakeNode, NextReserve},
    scheduler::{Pod, SOON, Scheduler},
};

async fn two_nodes() -> (FakeNode, FakeNode, Scheduler) {
    let (a, b) = (FakeNode::start("a", 2).await, FakeNode::start("b", 4).await);
    let scheduler = Scheduler::start(&[a.target(), b.target()], &[]);
    scheduler
        .until_fits(&Pod::new("probe", 1), &["a", "b"], &["a", "b"])
        .await;
    (a, b, scheduler)
}

#[tokio::test]
async fn a_pod_goes_through_filter_and_prioritize_and_its_devices_are_reserved() {
    let (a, b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    assert_eq!(scheduler.filter(&pod, &["a", "b"]).await, ["a", "b"]);
    assert_eq!(
        scheduler.best(&pod, &["a", "b"]).await,
        "a",
        "it fills the smaller node"
    );
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    assert_eq!((a.held(), b.held().len()), ([("p1".to_owned(), 2)].into(), 0));
    assert_eq!(
        scheduler.filter(&Pod::new("p2", 1), &["a", "b"]).await,
        ["b"],
        "known without waiting for a report"
    );
    assert!(scheduler.stop().await.is_clean());
}

#[tokio::test]
async fn the_same_bind_again_finds_what_was_granted() {
    let (a, _b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    scheduler.filter(&pod, &["a", "b"]).await;
    let (one, other) = tokio::join!(scheduler.bind(&pod, "a"), scheduler.bind(&pod, "a"));
    assert_eq!((one.as_str(), other.as_str()), ("", ""));
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    assert_eq!(a.held(), [("p1".to_owned(), 2)].into());
    assert_eq!(
        scheduler.filter(&pod, &["a", "b"]).await,
        ["a", "b"],
        "the full node still takes its own pod"
    );
    assert_eq!(scheduler.best(&pod, &["a", "b"]).await, "a");
}

#[tokio::test]
async fn where_somebody_else_was_faster_the_next_attempt_finds_another_node() {
    let (a, b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    assert_eq!(scheduler.filter(&pod, &["a", "b"]).await, ["a", "b"]);
    a.taken_by("somebody", 1, false);
    let error = scheduler.bind(&pod, "a").await;
    assert_eq!(error, "DeviceHeld: too few are free");
    // Nothing was told of it yet: the snapshot would send the pod there again, as it does with others.
    assert_eq!(scheduler.best(&pod, &["a", "b"]).await, "b");
    assert_eq!(
        scheduler.post("/filter?top=1", &pod.args(&["a", "b"])).await["NodeNames"],
        json!(["b"])
    );
    assert_eq!(scheduler.best(&Pod::new("p2", 2), &["a", "b"]).await, "a");
    a.taken_by("somebody else", 1, true);
    scheduler.until_fits(&pod, &["a", "b"], &["b"]).await;
    assert_eq!(scheduler.bind(&pod, "b").await, "");
    assert_eq!(b.held(), [("p1".to_owned(), 2)].into());
    assert!(!a.held().contains_key("p1"));
}

#[tokio::test]
async fn of_three_schedulers_racing_for_the_last_gpu_exactly_one_wins() {
    let node = FakeNode::start("a", 1).await;
    let start = || Scheduler::start(&[node.target()], &[]);
    let schedulers = [start(), start(), start()];
    for scheduler in &schedulers {
        scheduler.until_fits(&Pod::new("probe", 1), &["a"], &["a"]).await;
    }
    let attempt = async |scheduler: &Scheduler, uid: &str| {
        let pod = Pod::new(uid, 1);
        assert_eq!(scheduler.filter(&pod, &["a"]).await, ["a"]);
        scheduler.bind(&pod, "a").await
    };
    let [one, two, three] = &schedulers;
    let errors = tokio::join!(attempt(one, "p1"), attempt(two, "p2"), attempt(three, "p3"));
    let errors = [errors.0, errors.1, errors.2];
    assert_eq!(errors.iter().filter(|error| error.is_empty()).count(), 1, "{errors:?}");
    assert!(
        errors
            .iter()
            .all(|error| error.is_empty() || error.starts_with("DeviceHeld: ")),
        "{errors:?}"
    );
    assert_eq!(node.held().len(), 1);
}

#[tokio::test]
async fn binds_at_the_same_time_in_one_scheduler_never_plan_the_same_device() {
    let node = FakeNode::start("a", 8).await;
    let scheduler = Scheduler::start(&[node.target()], &[]);
    scheduler.until_fits(&Pod::new("probe", 1), &["a"], &["a"]).await;
    let pods: Vec<_> = (0..12).map(|n| Pod::new(&format!("p{n}"), 1)).collect();
    for pod in &pods {
        scheduler.filter(pod, &["a"]).await;
    }
    let scheduler = Arc::new(scheduler);
    let binds: Vec<_> = pods
        .into_iter()
        .map(|pod| {
            let scheduler = Arc::clone(&scheduler);
            berth_testkit::spawn(async move { scheduler.bind(&pod, "a").await })
        })
        .collect();
    let mut bound = 0;
    for bind in binds {
        bound += usize::from(bind.await.unwrap().is_empty());
    }
    assert_eq!((bound, node.held().len()), (8, 8));
    let reserves = node.calls();
    assert_eq!(
        reserves.len(),
        8,
        "the four others were refused without asking the node: {reserves:?}"
    );
}

#[tokio::test]
async fn a_grant_whose_answer_was_lost_is_released_before_the_next_attempt() {
    let (a, _b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    scheduler.filter(&pod, &["a", "b"]).await;
    a.next_reserve(NextReserve::LoseAnswer);
    let error = scheduler.bind(&pod, "a").await;
    assert!(error.starts_with("DaemonUnavailable: "), "{error}");
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    assert_eq!(a.calls(), ["reserve p1", "release p1", "reserve p1"]);
    assert_eq!(a.held(), [("p1".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_bind_that_takes_too_long_is_answered_and_found_later() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start(&[node.target()], &["--bind-timeout", "100ms"]);
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    node.next_reserve(NextReserve::AnswerAfter(Duration::from_millis(400)));
    let error = scheduler.bind(&pod, "a").await;
    assert!(error.starts_with("BindTimeout: "), "{error}");
    let again = eventually(SOON, async || {
        let error = scheduler.bind(&pod, "a").await;
        ensure!(error.is_empty(), "{error}");
        Ok(())
    });
    again.await.unwrap();
    assert_eq!(node.held(), [("p1".to_owned(), 2)].into());
    assert!(!node.calls().contains(&"release p1".to_owned()));
}

#[tokio::test]
async fn a_bind_goes_on_when_the_asker_hangs_up() {
    let (a, _b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    scheduler.filter(&pod, &["a", "b"]).await;
    a.next_reserve(NextReserve::AnswerAfter(Duration::from_millis(300)));
    let hang_up = tokio::time::timeout(Duration::from_millis(50), scheduler.bind(&pod, "a"));
    assert!(hang_up.await.is_err());
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    assert_eq!(
        a.calls(),
        ["reserve p1", "reserve p1"],
        "the second one found the first one's grant"
    );
}

#[tokio::test]
async fn a_pod_that_moves_to_another_node_leaves_the_first() {
    let (a, b, scheduler) = two_nodes().await;
    let pod = Pod::new("p1", 2);
    scheduler.filter(&pod, &["a", "b"]).await;
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    assert_eq!(scheduler.bind(&pod, "b").await, "");
    assert_eq!((a.held().len(), b.held().len()), (0, 1));
}

/// Refuses every binding; perhaps without knowing whether the pod is bound all the same.
#[derive(Debug)]
struct Refuses {
    outcome_unknown: bool,
}

impl Binder for Refuses {
    fn bind<'a>(&'a self, _: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>> {
        let failed = BindFailed {
            outcome_unknown: self.outcome_unknown,
            reason: "Conflict".to_owned(),
            message: "the pod is bound elsewhere".to_owned(),
        };
        Box::pin(async { Err(failed) })
    }
}

#[tokio::test]
async fn where_the_binding_fails_the_reservation_is_released() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start_with(&[node.target()], &[], Arc::new(Refuses { outcome_unknown: false }));
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    assert_eq!(scheduler.bind(&pod, "a").await, "Conflict: the pod is bound elsewhere");
    let released = eventually(SOON, async || {
        ensure!(node.held().is_empty());
        Ok(())
    });
    released.await.unwrap();
    scheduler.until_fits(&Pod::new("p2", 2), &["a"], &["a"]).await;
}

#[tokio::test]
async fn where_the_pod_may_be_bound_all_the_same_it_keeps_what_it_holds() {
    let node = FakeNode::start("a", 2).await;
    let scheduler = Scheduler::start_with(&[node.target()], &[], Arc::new(Refuses { outcome_unknown: true }));
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a"], &["a"]).await;
    for _ in 0..2 {
        assert_eq!(scheduler.bind(&pod, "a").await, "Conflict: the pod is bound elsewhere");
    }
    assert_eq!(node.held().len(), 1, "another pod would get the same GPUs");
    assert!(
        node.calls().iter().all(|call| !format!("{call:?}").contains("Release")),
        "{:?}",
        node.calls()
    );
}

/// As an API server: who is bound stays where it is.
#[derive(Debug)]
struct ForGood;

impl Binder for ForGood {
    fn bind<'a>(&'a self, _: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>> {
        Box::pin(async { Ok(()) })
    }

    fn is_for_good(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_request_that_comes_late_for_another_node_leaves_a_bound_pod_what_it_holds() {
    let (a, b) = (FakeNode::start("a", 2).await, FakeNode::start("b", 4).await);
    let scheduler = Scheduler::start_with(&[a.target(), b.target()], &[], Arc::new(ForGood));
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a", "b"], &["a", "b"]).await;
    assert_eq!(scheduler.bind(&pod, "a").await, "");
    let late = scheduler.bind(&pod, "b").await;
    assert_eq!(late, "BoundElsewhere: the pod is bound to a already");
    assert_eq!(scheduler.bind(&pod, "a").await, "", "it is done already");
    assert!(scheduler.stop().await.is_clean(), "what is under way ends before that");
    assert_eq!((a.held(), b.held().len()), ([("p1".to_owned(), 2)].into(), 0));
}

/// Says of each binding in turn what became of it.
#[derive(Debug)]
struct InTurn(Mutex<VecDeque<Result<(), BindFailed>>>);

impl InTurn {
    /// The first answer gets lost.
    fn lost_and(then: Result<(), &str>) -> Arc<Self> {
        let failed = |reason: &str, outcome_unknown| BindFailed {
            reason: reason.to_owned(),
            message: "as it was told".to_owned(),
            outcome_unknown,
        };
        let then = then.map_err(|reason| failed(reason, false));
        Arc::new(Self(Mutex::new([Err(failed("ApiDeadline", true)), then].into())))
    }
}

impl Binder for InTurn {
    fn bind<'a>(&'a self, _: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>> {
        let answer = self.0.lock().pop_front().unwrap();
        Box::pin(async { answer })
    }
}

/// A pod of two GPUs whose binding to `a` was not answered, and which is bound to `b` then.
async fn lost_and_tried_elsewhere(then: Result<(), &str>) -> (FakeNode, FakeNode, String) {
    let (a, b) = (FakeNode::start("a", 2).await, FakeNode::start("b", 4).await);
    let scheduler = Scheduler::start_with(&[a.target(), b.target()], &[], InTurn::lost_and(then));
    let pod = Pod::new("p1", 2);
    scheduler.until_fits(&pod, &["a", "b"], &["a", "b"]).await;
    assert!(scheduler.bind(&pod, "a").await.starts_with("ApiDeadline: "));
    let told = scheduler.bind(&pod, "b").await;
    assert!(scheduler.stop().await.is_clean(), "what is under way ends before that");
    (a, b, told)
}

#[tokio::test]
async fn a_pod_that_turns_out_to_be_bound_where_nobody_answered_still_holds_its_devices_there() {
    let (a, b, told) = lost_and_tried_elsewhere(Err("BoundElsewhere")).await;
    assert!(told.starts_with("BoundElsewhere: "), "{told}");
    assert_eq!((a.held(), b.held().len()), ([("p1".to_owned(), 2)].into(), 0));
}

#[tokio::test]
async fn a_pod_that_is_bound_elsewhere_after_nobody_answered_holds_nothing_at_the_first_node() {
    let (a, b, told) = lost_and_tried_elsewhere(Ok(())).await;
    assert_eq!(told, "");
    assert_eq!((a.held().len(), b.held()), (0, [("p1".to_owned(), 2)].into()));
}

#[tokio::test]
async fn during_shutdown_binds_are_refused_and_those_under_way_end() {
    let (a, _b, scheduler) = two_nodes().await;
    let scheduler = Arc::new(scheduler);
    let pod = Pod::new("p1", 2);
    scheduler.filter(&pod, &["a", "b"]).await;
    a.next_reserve(NextReserve::AnswerAfter(Duration::from_millis(300)));
    let under_way = berth_testkit::spawn({
        let (scheduler, pod) = (Arc::clone(&scheduler), pod.clone());
        async move { scheduler.bind(&pod, "a").await }
    });
    let asked = eventually(SOON, async || {
        ensure!(!a.calls().is_empty());
        Ok(())
    });
    asked.await.unwrap();
    scheduler.start_shutdown();
    let refused = eventually(SOON, async || {
        let error = scheduler.bind(&Pod::new("p2", 1), "b").await;
        ensure!(error.starts_with("Draining: "), "{error}");
        Ok(())
    });
    refused.await.unwrap();
    assert_eq!(under_way.await.unwrap(), "");
    let scheduler = Arc::into_inner(scheduler).unwrap();
    assert!(scheduler.stop().await.is_clean());
}
