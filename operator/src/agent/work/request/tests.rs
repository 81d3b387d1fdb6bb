//! Wishes step by step: the effects that come out, with outcomes put in.

use berth_kube_api::nvcf::icms_request::ICMSRequest;
use serde_json::json;

use super::*;
use crate::agent::work::{
    pod::PodState,
    trouble::{Finding, Trouble},
};

const NOW: u64 = 1_800_000_000_000;
const AT: Moment = Moment {
    unix_ms: NOW,
    steady: STEADY,
};
const STEADY: Duration = Duration::from_secs(1);

fn wish(instances: u32) -> Wish {
    Wish::of(
        json!({"requestId": "r-1", "messageBatchId": "b-1", "ncaId": "n", "action": "RequestSpotInstances",
        "instanceCount": instances, "requestedGPUCount": 2, "instanceType": "NCP.GPU.H100",
        "launchSpecification": {"gpuName": "H100", "containerImage": "i"}}),
    )
    .unwrap()
}

fn new(instances: u32) -> Request {
    Request::new(wish(instances), None, 7, AT)
}

fn seen(request: &Request, index: u32, state: PodState) -> Seen {
    Seen {
        instance: request.wish.instance(index),
        state,
        version: "1".to_owned(),
        ips: ["1.1.1.1".to_owned(), "2.2.2.2".to_owned()],
        started: Some(NOW),
        gone_by: None,
    }
}

/// Does everything that is wanted now, well; the effects as words.
fn run(request: &mut Request, now: u64) -> Vec<String> {
    let mut words = Vec::new();
    request.judge(now, &Limits::default());
    while let Some(effect) = request.next(now) {
        assert_eq!(request.next(now), None, "one at a time");
        let word = match &effect {
            Effect::Report(_, Told::Terminated(cause)) => format!("{} {}", key(&effect), cause.word()),
            Effect::Report(_, told) => format!("{} {}", key(&effect), told.word()),
            effect => key(effect),
        };
        words.push(word.replace(&request.wish.name, "sr"));
        request.done(effect, Outcome::Done, now);
        assert!(words.len() < 100, "it does not end: {words:?}");
    }
    words
}

/// Two instances that run.
fn running() -> Request {
    let mut request = new(2);
    run(&mut request, NOW);
    for index in 0..2 {
        request.saw(&seen(&request, index, PodState::Running));
    }
    run(&mut request, NOW);
    request
}

/// As another process finds it.
fn restarted(request: &Request) -> Request {
    let mut object = request.object("nvcf-backend", "receipt");
    object.status = Some(request.saved.clone());
    let text = serde_json::to_string(&object).unwrap();
    let object: ICMSRequest = serde_json::from_str(&text).unwrap();
    Request::kept(&object, |_| None, AT).unwrap()
}

fn next(request: &mut Request, now: u64) -> Effect {
    request.next(now).expect("something to do")
}

#[test]
fn a_wish_is_kept_acknowledged_settled_made_and_told() {
    let mut request = new(2);
    assert_eq!(
        run(&mut request, NOW),
        [
            "store",
            "acknowledge",
            "settle 7",
            "make 0-sr",
            "report 0-sr starting",
            "make 1-sr",
            "report 1-sr starting",
            "save",
        ]
    );
    assert_eq!(
        (request.gpus(), request.status().request_status.as_str()),
        (4, "RequestInstancesInProgress")
    );
    request.saw(&seen(&request, 1, PodState::Running));
    assert_eq!(run(&mut request, NOW), ["report 1-sr running", "save"]);
    request.saw(&seen(&request, 1, PodState::Running));
    assert_eq!(run(&mut request, NOW), [""; 0], "nothing changed: nothing to do");
    request.saw(&seen(&request, 0, PodState::Running));
    run(&mut request, NOW);
    assert_eq!(request.status().request_status, "RequestCompleted");
}

#[test]
fn a_state_is_told_again_after_five_minutes() {
    let mut request = running();
    assert_eq!(run(&mut request, NOW + 299_999), [""; 0]);
    assert_eq!(
        run(&mut request, NOW + 300_000),
        ["report 0-sr running", "report 1-sr running", "save"]
    );
}

#[test]
fn the_end_of_one_of_two_is_told_once_when_its_pod_is_gone_and_its_sibling_runs_on() {
    let mut request = running();
    let first = request.wish.instance(0);
    request.end(&first, Cause::User);
    assert_eq!(
        run(&mut request, NOW),
        ["delete 0-sr", "save"],
        "no word before it is gone"
    );
    request.end(&first, Cause::User);
    assert_eq!(run(&mut request, NOW), [""; 0], "asked again: nothing more");
    assert_eq!(request.gpus(), 4, "its GPUs are not free yet");
    request.lost(&first);
    assert_eq!(
        run(&mut request, NOW),
        ["report 0-sr instance-terminated-by-user", "save"]
    );
    assert_eq!(request.gpus(), 2);
    assert_eq!(
        run(&mut request, NOW + 300_000),
        ["report 1-sr running", "save"],
        "the end is not told again"
    );
    let second = request.wish.instance(1);
    request.end(&second, Cause::User);
    run(&mut request, NOW);
    request.lost(&second);
    let words = run(&mut request, NOW);
    assert_eq!(words, ["report 1-sr instance-terminated-by-user", "save", "remove"]);
    assert!(request.is_removed());
}

#[test]
fn a_pod_that_vanishes_is_told_as_not_found_and_not_made_again() {
    let mut request = running();
    let first = request.wish.instance(0);
    request.lost(&first);
    assert_eq!(run(&mut request, NOW), ["report 0-sr instance-not-found", "save"]);
    // Its last echo comes late.
    request.saw(&seen(&request, 0, PodState::Running));
    assert_eq!(run(&mut request, NOW), [""; 0]);
}

#[test]
fn a_pod_without_a_node_for_ten_minutes_ends_for_want_of_room() {
    let mut request = new(1);
    run(&mut request, NOW);
    request.saw(&seen(&request, 0, suffering(&[(Trouble::NoNode, NOW)])));
    assert_eq!(run(&mut request, NOW + 299_999), [""; 0]);
    run(&mut request, NOW + 599_999);
    assert_eq!(run(&mut request, NOW + 600_000), ["delete 0-sr", "save"]);
    request.lost(&request.wish.instance(0));
    assert_eq!(
        run(&mut request, NOW + 600_000),
        ["report 0-sr instance-terminated-no-capacity", "save", "remove"]
    );
}

fn suffering(troubles: &[(Trouble, u64)]) -> PodState {
    let finding = |(trouble, since): &(Trouble, u64)| Finding {
        trouble: *trouble,
        since: *since,
        text: format!("{trouble:?}"),
    };
    PodState::Waiting(troubles.iter().map(finding).collect())
}

#[test]
fn trouble_that_lasts_ends_an_instance_and_is_told_and_its_siblings_run_on() {
    let mut request = running();
    let first = request.wish.instance(0);
    let troubles = [(Trouble::Restarts, NOW), (Trouble::Degraded, NOW)];
    request.saw(&seen(&request, 0, suffering(&troubles)));
    assert_eq!(run(&mut request, NOW), ["report 0-sr starting", "save"]);
    run(&mut request, NOW + 599_999);
    // The agent was away meanwhile: the pod's own time counts.
    let mut request = restarted(&request);
    for (index, state) in [suffering(&troubles), PodState::Running].into_iter().enumerate() {
        request.saw(&seen(&request, u32::try_from(index).unwrap(), state));
    }
    let words = run(&mut request, NOW + 600_000);
    assert_eq!(words[0], "delete 0-sr", "{words:?}");
    request.lost(&first);
    let effect = next(&mut request, NOW + 600_000);
    let told = Told::Terminated(Cause::Trouble(Trouble::Restarts, "Restarts".to_owned()));
    assert_eq!(effect, Effect::Report(first, told));
    request.done(effect, Outcome::Done, NOW + 600_000);
    assert_eq!(run(&mut request, NOW + 600_000), ["save"]);
    assert_eq!((request.gpus(), request.is_removed()), (2, false));
}

#[test]
fn a_pod_that_came_out_of_its_trouble_unseen_goes_on() {
    let mut request = running();
    let name = request.wish.instance(0);
    request.saw(&seen(&request, 0, suffering(&[(Trouble::ImagePull, NOW)])));
    let later = NOW + 600_000;
    request.judge(later, &Limits::default());
    // The API server has another version of it by now.
    let delete = Effect::Delete(name.clone(), Some("1".to_owned()));
    run_to(&mut request, &delete);
    request.done(delete, Outcome::Later(None), later);
    request.saw(&seen(&request, 0, PodState::Running));
    let words = run(&mut request, later + 60_000);
    assert!(!words.iter().any(|word| word.starts_with("delete")), "{words:?}");
}

#[test]
fn a_pod_whose_node_does_not_answer_is_purged_five_minutes_after_it_had_to_be_gone() {
    let deleted = |request: &Request, index| Seen {
        gone_by: Some(NOW),
        ..seen(request, index, PodState::Waiting(Vec::new()))
    };
    // The cluster deleted the one; the other has to end anyway.
    let mut request = running();
    let second = request.wish.instance(1);
    request.end(&second, Cause::User);
    run(&mut request, NOW);
    for index in 0..2 {
        request.saw(&deleted(&request, index));
    }
    let words = run(&mut request, NOW + 299_999);
    assert!(!words.iter().any(|word| word.starts_with("purge")), "{words:?}");
    let words = run(&mut request, NOW + 300_000);
    assert_eq!(words, ["purge 0-sr", "purge 1-sr", "save"]);
    assert_eq!(run(&mut request, NOW + 300_000), [""; 0], "no storm");
    assert_eq!(run(&mut request, NOW + 301_000), ["purge 0-sr", "purge 1-sr"]);
    for index in 0..2 {
        request.lost(&request.wish.instance(index));
    }
    assert_eq!(
        run(&mut request, NOW + 302_000),
        [
            "report 0-sr failed",
            "report 1-sr instance-terminated-by-user",
            "save",
            "remove"
        ]
    );
}

#[test]
fn trouble_that_passes_ends_nothing() {
    let mut request = running();
    request.saw(&seen(&request, 0, suffering(&[(Trouble::Degraded, NOW)])));
    run(&mut request, NOW + 1_799_999);
    request.saw(&seen(&request, 0, PodState::Running));
    let words = run(&mut request, NOW + 1_800_000);
    assert!(!words.iter().any(|word| word.starts_with("delete")), "{words:?}");
}

#[test]
fn a_failed_pod_is_deleted_and_told_with_its_reason() {
    let mut request = new(1);
    run(&mut request, NOW);
    request.saw(&seen(
        &request,
        0,
        PodState::Over(Cause::Admission("no device".to_owned())),
    ));
    assert_eq!(run(&mut request, NOW), ["delete 0-sr", "save"]);
    let status = request.status();
    assert_eq!(
        status.instances[&request.wish.instance(0)].termination_message,
        "no device"
    );
    request.lost(&request.wish.instance(0));
    assert_eq!(
        run(&mut request, NOW),
        ["report 0-sr instance-terminated-admission-error", "save", "remove"]
    );
}

#[test]
fn what_cannot_be_made_here_is_acknowledged_and_refused_in_words() {
    let mut request = Request::new(wish(1), Some("Helm charts are not supported"), 7, AT);
    assert_eq!(next(&mut request, NOW), Effect::Store);
    assert_eq!(request.gpus(), 0);
    request.done(Effect::Store, Outcome::Done, NOW);
    let mut told = None;
    while let Some(effect) = request.next(NOW) {
        assert!(!matches!(effect, Effect::Make(_) | Effect::Delete(..)), "{effect:?}");
        if let Effect::Report(_, Told::Terminated(cause)) = &effect {
            told = Some(cause.message().to_owned());
        }
        request.done(effect, Outcome::Done, NOW);
    }
    assert_eq!(told.as_deref(), Some("Helm charts are not supported"));
    assert!(request.is_removed());
}

#[test]
fn a_pod_that_the_api_server_refuses_is_told_with_its_words() {
    let mut request = new(1);
    while let Some(effect) = request.next(NOW) {
        let outcome = match &effect {
            Effect::Make(_) => Outcome::Refused {
                status: 422,
                text: "name is too long".to_owned(),
            },
            _ => Outcome::Done,
        };
        if let Effect::Report(_, told) = &effect {
            assert_eq!(*told, Told::Terminated(Cause::Refused("name is too long".to_owned())));
        }
        request.done(effect, outcome, NOW);
    }
    assert!(request.is_removed());
}

#[test]
fn a_message_that_comes_again_makes_nothing_twice_and_is_settled() {
    let mut request = running();
    request.redelivered(9, STEADY);
    assert_eq!(run(&mut request, NOW), ["settle 9"]);
    // It comes again while the first is being settled.
    let mut request = new(1);
    while let Some(effect) = request.next(NOW) {
        if effect == Effect::Settle(7) {
            request.redelivered(8, STEADY);
        }
        let is_second = effect == Effect::Settle(8);
        request.done(effect, Outcome::Done, NOW);
        if is_second {
            return;
        }
    }
    panic!("the second was never settled");
}

#[test]
fn a_wish_is_not_settled_before_the_control_plane_took_the_word_and_trouble_waits_longer_and_longer() {
    let mut request = new(1);
    let mut tries = Vec::new();
    for second in 0..200 {
        let now = NOW + second * 1000;
        while let Some(effect) = request.next(now) {
            let outcome = match effect {
                Effect::Acknowledge => {
                    tries.push(second);
                    Outcome::Later(None)
                }
                Effect::Store | Effect::Save(_) => Outcome::Done,
                effect => panic!("{effect:?} came before the word was taken"),
            };
            request.done(effect, outcome, now);
        }
    }
    let late = tries.split_off(5);
    assert_eq!(tries, [0, 1, 3, 7, 15]);
    assert!(
        late.iter().eq((25..200).step_by(10).collect::<Vec<_>>().iter()),
        "an outage of whatever length: {late:?}"
    );
    let now = NOW + 243_000;
    assert_eq!(next(&mut request, now), Effect::Acknowledge);
    request.done(Effect::Acknowledge, Outcome::Later(Some(Duration::from_mins(2))), now);
    assert_eq!(request.next(now + 119_999), None, "the control plane's own wish counts");
    assert_eq!(next(&mut request, now + 120_000), Effect::Acknowledge);
}

#[test]
fn a_pod_that_may_have_been_made_is_deleted_by_its_name_when_its_instance_ends() {
    for there in [true, false] {
        let mut request = new(2);
        while let Some(effect) = request.next(NOW) {
            let outcome = match &effect {
                Effect::Make(name) if *name == request.wish.instance(0) => Outcome::Later(None),
                _ => Outcome::Done,
            };
            request.done(effect, outcome, NOW);
        }
        let name = request.wish.instance(0);
        request.end(&name, Cause::User);
        let delete = next(&mut request, NOW);
        assert_eq!(
            delete,
            Effect::Delete(name.clone(), None),
            "its name is known, and nothing was seen of it"
        );
        let outcome = if there {
            Outcome::Done
        } else {
            Outcome::Refused {
                status: 404,
                text: String::new(),
            }
        };
        request.done(delete, outcome, NOW);
        if there {
            assert_eq!(run(&mut request, NOW), ["save"], "not told before it is gone");
            request.lost(&name);
        }
        assert_eq!(
            run(&mut request, NOW),
            ["report 0-sr instance-terminated-by-user", "save"]
        );
        for _again in 0..2 {
            request.saw(&seen(&request, 0, PodState::Running));
            assert_eq!(run(&mut request, NOW), ["delete 0-sr", "save"], "it came after all");
            request.lost(&name);
            assert_eq!(run(&mut request, NOW), ["save"], "and its end is not told twice");
        }
    }
}

#[test]
fn a_task_that_runs_for_too_long_is_purged_and_told_and_a_function_is_not() {
    let hour = 3_600_000;
    for (action, longest, ends) in [
        ("RequestSpotInstancesForTask", "PT1H", true),
        ("RequestSpotInstancesForTask", "", false),
        ("RequestSpotInstances", "PT1H", false),
    ] {
        let mut message = wish(1).raw;
        message["action"] = json!(action);
        message["launchSpecification"]["maxRuntimeDuration"] = json!(longest);
        let mut request = Request::new(Wish::of(message).unwrap(), None, 7, AT);
        run(&mut request, NOW);
        request.saw(&seen(&request, 0, PodState::Running));
        run(&mut request, NOW);
        let name = request.wish.instance(0);
        let limits = Limits::default();
        request.judge(NOW + hour + 299_999, &limits);
        assert!(
            !request
                .wanted(NOW + hour + 299_999)
                .contains(&Effect::Purge(name.clone())),
            "its own word first"
        );
        let late = NOW + hour + 300_000;
        request.judge(late, &limits);
        assert_eq!(
            request.wanted(late).contains(&Effect::Purge(name.clone())),
            ends,
            "{action} {longest}"
        );
        assert!(
            !request.wanted(late).iter().any(|it| matches!(it, Effect::Delete(..))),
            "it had its time"
        );
        if ends {
            request.lost(&name);
            assert_eq!(
                run(&mut request, late),
                [
                    &format!("report {} running", name.replace(&request.wish.name, "sr")),
                    "save",
                    "remove"
                ]
            );
        }
    }
}

#[test]
fn a_task_in_trouble_ends_by_its_trouble_also_after_its_time() {
    let mut message = wish(1).raw;
    message["action"] = json!("RequestSpotInstancesForTask");
    message["launchSpecification"]["maxRuntimeDuration"] = json!("PT1H");
    let mut request = Request::new(Wish::of(message).unwrap(), None, 7, AT);
    run(&mut request, NOW);
    let finding = Finding {
        trouble: Trouble::Degraded,
        since: NOW,
        text: String::new(),
    };
    request.saw(&seen(&request, 0, PodState::Waiting(vec![finding])));
    request.judge(NOW + 7_200_000, &Limits::default());
    assert!(matches!(next(&mut request, NOW + 7_200_000), Effect::Delete(..)));
}

/// Its one instance came to its end, and the stream did not hear that the message is done with.
fn over_and_unsettled() -> Request {
    let mut request = new(1);
    while let Some(effect) = request.next(NOW) {
        let outcome = if matches!(effect, Effect::Settle(_)) {
            Outcome::Later(None)
        } else {
            Outcome::Done
        };
        request.done(effect, outcome, NOW);
    }
    let name = request.wish.instance(0);
    request.saw(&seen(&request, 0, PodState::Over(Cause::Succeeded)));
    while let Some(effect) = request.next(NOW) {
        request.done(effect, Outcome::Done, NOW);
    }
    request.lost(&name);
    assert_eq!(run(&mut request, NOW), ["report 0-sr succeeded", "save"], "it stays");
    request
}

#[test]
fn a_request_that_is_over_stays_until_its_message_is_settled() {
    let mut request = over_and_unsettled();
    assert_eq!(
        run(&mut request, NOW + 1_000),
        ["settle 7", "save", "remove"],
        "it is tried again"
    );

    let mut request = over_and_unsettled();
    request.redelivered(9, STEADY);
    assert_eq!(run(&mut request, NOW), ["settle 9", "save", "remove"], "it came again");

    // Another process finds it: nothing is made again.
    let mut request = restarted(&over_and_unsettled());
    request.all_seen();
    assert_eq!(run(&mut request, NOW + 3_600_000), [""; 0]);
    request.redelivered(1, STEADY);
    assert_eq!(run(&mut request, NOW), ["settle 1", "save", "remove"]);
}

#[test]
fn a_message_that_does_not_come_again_was_settled() {
    let mut request = over_and_unsettled();
    assert_eq!(
        request.came_again(Duration::from_millis(999)),
        None,
        "it may be on its way"
    );
    assert_eq!(run(&mut request, NOW), [""; 0]);
    assert_eq!(request.came_again(STEADY), Some(7));
    assert_eq!(run(&mut request, NOW), ["save", "remove"]);

    let mut request = restarted(&over_and_unsettled());
    request.all_seen();
    assert_eq!(request.came_again(STEADY), None, "it had no ticket");
    assert_eq!(run(&mut request, NOW), ["save", "remove"]);
}

fn run_to(request: &mut Request, wanted: &Effect) {
    while let Some(effect) = request.next(NOW) {
        if effect == *wanted {
            return;
        }
        request.done(effect, Outcome::Done, NOW);
    }
    panic!("{wanted:?} was never wanted");
}

#[test]
fn a_wish_that_is_cancelled_before_it_is_taken_on_leaves_nothing() {
    let cancelled = || Outcome::Refused {
        status: 412,
        text: "canceled".to_owned(),
    };
    let mut request = new(1);
    run_to(&mut request, &Effect::Acknowledge);
    request.done(Effect::Acknowledge, cancelled(), NOW);
    assert_eq!(run(&mut request, NOW), ["settle 7", "save", "remove"]);

    // Not known yet is not cancelled, for a while.
    let unknown = || Outcome::Refused {
        status: 404,
        text: "unknown".to_owned(),
    };
    let mut request = new(1);
    run_to(&mut request, &Effect::Acknowledge);
    request.done(Effect::Acknowledge, unknown(), NOW + 299_999);
    assert!(!request.unwanted);
    run_to_at(&mut request, NOW + 300_999);
    request.done(Effect::Acknowledge, unknown(), NOW + 300_999);
    assert!(request.unwanted);
}

fn run_to_at(request: &mut Request, now: u64) {
    while let Some(effect) = request.next(now) {
        if effect == Effect::Acknowledge {
            return;
        }
        request.done(effect, Outcome::Done, now);
    }
    panic!("it was never tried again");
}

#[test]
fn an_instance_that_the_control_plane_does_not_want_any_more_goes_and_an_end_that_it_does_not_take_is_over() {
    let refused = || Outcome::Refused {
        status: 412,
        text: "over".to_owned(),
    };
    let mut request = new(1);
    let report = |request: &Request, told| Effect::Report(request.wish.instance(0), told);
    run_to(&mut request, &report(&new(1), Told::Starting));
    let effect = report(&request, Told::Starting);
    request.done(effect, refused(), NOW);
    assert_eq!(run(&mut request, NOW), ["delete 0-sr", "save"]);
    request.lost(&request.wish.instance(0));
    let effect = report(&request, Told::Terminated(Cause::Unwanted));
    assert_eq!(next(&mut request, NOW), effect);
    request.done(effect, refused(), NOW);
    assert_eq!(run(&mut request, NOW), ["save", "remove"]);
}

#[test]
fn trouble_with_reports_does_not_keep_a_pod_from_going() {
    let mut request = running();
    let first = request.wish.instance(0);
    let effect = next(&mut request, NOW + 300_000);
    assert_eq!(key(&effect), format!("report {first}"));
    request.end(&first, Cause::User);
    request.done(effect, Outcome::Later(None), NOW + 300_000);
    assert_eq!(next(&mut request, NOW + 300_000), Effect::Delete(first, None));
}

#[test]
fn another_process_goes_on_where_this_one_stopped() {
    let mut request = restarted(&running());
    request.looking();
    request.saw(&seen(&request, 0, PodState::Running));
    request.all_seen();
    assert_eq!(
        run(&mut request, NOW),
        ["report 0-sr running", "report 1-sr instance-not-found", "save"],
        "the one runs, the other went meanwhile"
    );

    // It stopped between the order to end and the end.
    let mut ending = running();
    let first = ending.wish.instance(0);
    ending.end(&first, Cause::User);
    run(&mut ending, NOW);
    let mut request = restarted(&ending);
    request.looking();
    request.saw(&seen(&request, 1, PodState::Running));
    request.all_seen();
    assert_eq!(
        run(&mut request, NOW),
        ["report 0-sr instance-terminated-by-user", "report 1-sr running", "save"]
    );

    // It stopped before anything was made.
    let mut early = new(1);
    run_to(&mut early, &Effect::Acknowledge);
    let mut request = restarted(&early);
    request.looking();
    request.all_seen();
    assert_eq!(
        run(&mut request, NOW),
        ["acknowledge", "make 0-sr", "report 0-sr starting", "save"]
    );

    // It stopped after the last word.
    let mut over = running();
    over.end_all(&Cause::Deleted);
    run(&mut over, NOW);
    for index in 0..2 {
        let name = over.wish.instance(index);
        over.lost(&name);
    }
    run_to(&mut over, &Effect::Remove);
    let mut request = restarted(&over);
    request.looking();
    request.all_seen();
    assert_eq!(run(&mut request, NOW), ["remove"]);
}

#[test]
fn a_pod_that_came_and_went_while_the_watch_was_broken_is_told_and_one_that_is_being_made_is_not_lost() {
    let mut request = new(2);
    let make = Effect::Make(request.wish.instance(1));
    run_to(&mut request, &make);
    request.looking();
    // The list may have been answered before this pod was there.
    request.done(make, Outcome::Done, NOW);
    request.all_seen();
    assert_eq!(
        run(&mut request, NOW),
        ["report 0-sr instance-not-found", "report 1-sr starting", "save"]
    );
    request.saw(&seen(&request, 1, PodState::Running));
    request.looking();
    request.all_seen();
    assert_eq!(
        run(&mut request, NOW),
        ["report 1-sr running", "save"],
        "it was seen before"
    );

    let mut request = new(1);
    run(&mut request, NOW);
    request.looking();
    request.saw(&seen(&request, 0, PodState::Running));
    request.all_seen();
    assert_eq!(run(&mut request, NOW), ["report 0-sr running", "save"]);
}

#[test]
fn the_object_has_the_labels_by_which_others_find_it() {
    let object = new(1).object("nvcf-backend", "Create.NVCA.Function.c.H100.NCP|GPU|H100:1");
    let labels = object.metadata.labels.unwrap();
    assert_eq!(labels["icms-request-id"], "r-1");
    assert_eq!(labels["nca-id"], "nca-n-nca");
    assert_eq!(labels["SQSMessageID"].len(), 63);
    assert_eq!(object.metadata.finalizers.unwrap(), ["nvca.finalizers.nvidia.io"]);
    assert_eq!(object.spec.creation_msg_info["requestId"], "r-1");
}
