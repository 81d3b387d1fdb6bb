use super::*;
use crate::ManualClock;

fn readiness() -> (Readiness, ManualClock) {
    let clock = ManualClock::at_unix_ms(0);
    (Readiness::new(clock.shared()), clock)
}

fn names(readiness: &Readiness) -> Vec<&'static str> {
    readiness.pending().into_iter().map(|pending| pending.name).collect()
}

#[test]
fn ready_when_the_last_part_is_ready_whatever_the_order() {
    let (readiness, _) = readiness();
    let journal = readiness.register("journal");
    let nvml = readiness.register("nvml");
    let kubelet = readiness.register("kubelet");
    assert_eq!(names(&readiness), ["journal", "nvml", "kubelet"]);
    nvml.ready();
    assert_eq!(names(&readiness), ["journal", "kubelet"]);
    kubelet.ready();
    assert!(!readiness.is_ready());
    journal.ready();
    assert!(readiness.is_ready() && readiness.pending().is_empty());
}

#[test]
fn a_part_may_lose_its_readiness_and_says_why_and_since_when() {
    let (readiness, clock) = readiness();
    let kubelet = readiness.register("kubelet");
    clock.advance(Duration::from_secs(3));
    kubelet.ready();
    clock.advance(Duration::from_secs(100));
    kubelet.not_ready("the kubelet does not answer");
    clock.advance(Duration::from_secs(5));
    kubelet.not_ready("connection refused");
    clock.advance(Duration::from_secs(2));
    let pending = Pending {
        name: "kubelet",
        reason: "connection refused".into(),
        since: Duration::from_secs(7),
    };
    assert_eq!(readiness.pending(), [pending]);
    kubelet.ready();
    assert!(readiness.is_ready());
}

#[test]
fn dropping_a_ready_part_withdraws_it() {
    let (readiness, _) = readiness();
    let part = readiness.register("replay");
    part.ready();
    drop(part);
    assert!(readiness.is_ready());
}

#[test]
fn a_part_that_ends_before_it_was_ready_keeps_the_process_not_ready() {
    let (readiness, _) = readiness();
    drop(readiness.register("replay"));
    assert!(!readiness.is_ready());
    assert_eq!(readiness.pending()[0].reason, "ended before it was ready");
}

#[test]
fn a_panic_does_not_pass_for_readiness() {
    let (readiness, _) = readiness();
    let part = readiness.register("replay");
    part.ready();
    let panicked = thread::scope(|scope| {
        scope
            .spawn(move || {
                let _part = part;
                panic!("scripted")
            })
            .join()
            .is_err()
    });
    assert!(panicked && !readiness.is_ready());
}

#[test]
fn shutting_down_is_not_ready_whatever_the_parts_say() {
    let (readiness, _) = readiness();
    let part = readiness.register("journal");
    part.ready();
    readiness.shut_down();
    part.ready();
    assert!(!readiness.is_ready());
    assert_eq!(names(&readiness), ["shutdown"]);
    drop(part);
    assert_eq!(names(&readiness), ["shutdown"]);
}

#[tokio::test]
async fn subscribers_see_every_turn_once() {
    let (readiness, _) = readiness();
    let part = readiness.register("journal");
    let mut ready = readiness.subscribe();
    assert!(!*ready.borrow_and_update());
    part.not_ready("another reason");
    assert!(!ready.has_changed().unwrap(), "still not ready: nothing to tell");
    part.ready();
    ready.changed().await.unwrap();
    assert!(*ready.borrow_and_update());
}
