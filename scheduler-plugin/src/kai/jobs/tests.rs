//! What a pod keeps and what it gives back, on an API server that gives prepared answers.

use berth_runtime::ManualClock;
use serde_json::json;

use super::*;
use crate::{
    extender::{Limits, Top},
    kai::pod::tests::pod,
    pods::Held,
    testing::{self, api_double},
};

fn jobs(client: kube::Client) -> Jobs {
    let clock = ManualClock::at_unix_ms(0);
    let limits = Limits {
        max_body_bytes: 0,
        max_requests: 0,
        filter_top: Top::from(1),
        body_deadline: Duration::ZERO,
    };
    let parts = testing::extender(testing::cluster(&clock, [testing::report("n", 0)]), &clock, limits);
    Jobs {
        client: ClientBox(client),
        decider: Arc::clone(&parts.decider),
        pods: Arc::clone(&parts.pods),
        reserver: parts.reserver.clone(),
        binder: KubernetesBinder::new(clock.shared()).0,
        deadline: Duration::from_secs(1),
        require_top: 0,
        groups_made: Arc::default(),
    }
}

#[tokio::test]
async fn what_kais_binder_is_at_keeps_what_it_holds_where_its_gang_is_left_to_kai() {
    let node: NodeName = "n".parse().unwrap();
    for is_asked in [true, false] {
        let object = pod(|_| {});
        let pod = KaiPod::of(&object).unwrap();
        let (client, double) = api_double::client([(200, json!(object)), (200, json!(object))]);
        let jobs = jobs(client);
        let ask = Ask {
            shape: pod.shape.clone(),
            decision: Uuid::nil(),
        };
        jobs.pods.remember(pod.pod.clone(), ask);
        let seen = jobs.pods.get(&pod.pod.uid).unwrap();
        let held = Held {
            node: node.clone(),
            shape: pod.shape.clone(),
            plan: berth_placement::Plan::default(),
        };
        seen.set_held(Some(held.clone()));
        if is_asked {
            seen.stays_on(&node);
        }
        let place = Place {
            reserved: Reserved {
                node: node.clone(),
                plan: held.plan.clone(),
                existing: true,
                deadline_unix_ms: 0,
                arbiter: Arbiter::Daemon,
            },
            decision: Uuid::nil(),
            top: vec![node.clone()],
        };
        assert_eq!(jobs.leave_to_kai(&pod, Some(place)).await, Ended::HandedOver);
        assert_eq!(double.patches().len(), 1);
        assert_eq!(jobs.pods.held(&pod.pod.uid), is_asked.then_some(held));
    }
}

#[tokio::test]
async fn where_a_request_to_kais_binder_is_there_and_cannot_be_read_it_may_be_the_pods_own() {
    let refused = |code, reason| (code, api_double::refused(code, reason));
    let pod = KaiPod::of(&pod(|_| {})).unwrap();
    let (node, other) = ("n".parse().unwrap(), "m".parse().unwrap());
    let exists = || refused(409, "AlreadyExists");
    let request = |node| (200, objects::bind_request(&pod, node, &[]));
    for (answers, outcome) in [
        (vec![exists(), request(&node)], Ok(())),
        (vec![exists(), request(&other)], Err((BOUND_ELSEWHERE, false))),
        (
            vec![exists(), refused(429, "TooManyRequests")],
            Err(("ApiTooManyRequests", true)),
        ),
        (
            vec![refused(429, "TooManyRequests")],
            Err(("ApiTooManyRequests", false)),
        ),
    ] {
        let (client, double) = api_double::client(answers.clone());
        let asked = jobs(client).ask_binder(&pod, &node, &[]).await;
        let asked = match &asked {
            Ok(()) => Ok(()),
            Err(not) => Err((not.reason.as_str(), not.outcome_unknown)),
        };
        assert_eq!(asked, outcome, "{answers:?}");
        double.patches();
    }
}
