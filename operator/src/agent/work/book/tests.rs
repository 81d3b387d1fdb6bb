//! Several wishes, and the messages about them.

use serde_json::json;

use super::*;
use crate::agent::work::{cause::Told, pod::PodState};

const NOW: u64 = 1_800_000_000_000;
const AT: Moment = Moment {
    unix_ms: NOW,
    steady: Duration::ZERO,
};

fn wish(batch: &str, gpus: u32) -> Wish {
    Wish::of(
        json!({"requestId": "r-1", "messageBatchId": batch, "ncaId": "n", "action": "RequestSpotInstances",
        "instanceCount": 1, "requestedGPUCount": gpus, "instanceType": "NCP.GPU.H100",
        "launchSpecification": {"gpuName": "H100", "containerImage": "i"}}),
    )
    .unwrap()
}

fn end(instances: &[&str]) -> TerminationMessage {
    TerminationMessage {
        request_id: "r-1".to_owned(),
        instance_ids: instances.iter().map(|id| (*id).to_owned()).collect(),
        ..TerminationMessage::default()
    }
}

/// Does everything well; the jobs in order.
fn run(book: &mut Book) -> Vec<Job> {
    let mut all = Vec::new();
    loop {
        let jobs = book.jobs(NOW);
        if jobs.is_empty() {
            return all;
        }
        for job in jobs {
            all.push(job.clone());
            book.done(job, Outcome::Done, NOW);
        }
        assert!(all.len() < 200, "it does not end: {all:?}");
    }
}

fn reports(jobs: &[Job]) -> Vec<(&str, &str)> {
    let told = jobs.iter().filter_map(|job| match job {
        Job::Wish(_, Effect::Report(instance, told)) => Some((instance.as_str(), told)),
        _ => None,
    });
    let word = |told: &Told| match told {
        Told::Terminated(cause) => cause.word(),
        told => told.word(),
    };
    told.map(|(instance, told)| (instance, word(told))).collect()
}

fn running(batches: &[&str]) -> Book {
    let mut book = Book::default();
    for (batch, ticket) in batches.iter().zip(1..) {
        assert_eq!(book.arrived(wish(batch, 2), None, ticket, |_, _| 8, AT), Arrival::Taken);
    }
    run(&mut book);
    for batch in batches {
        let instance = wish(batch, 2).instance(0);
        book.saw(&Seen {
            instance,
            state: PodState::Running,
            version: "1".to_owned(),
            ips: Default::default(),
            started: None,
            gone_by: None,
        });
    }
    run(&mut book);
    book
}

#[test]
fn one_that_does_not_fit_waits_and_the_smaller_one_behind_it_goes_on() {
    let mut book = Book::default();
    let room = |_: &str, gpus: u32| 4 / gpus;
    assert_eq!(book.arrived(wish("big", 8), None, 1, room, AT), Arrival::Wait(NO_ROOM));
    assert_eq!(book.arrived(wish("small", 2), None, 2, room, AT), Arrival::Taken);
    assert_eq!(book.allocation(), BTreeMap::from([("H100".to_owned(), 2)]));
    assert_eq!(run(&mut book).iter().filter(|job| job.kind() == "make").count(), 1);
}

#[test]
fn what_cannot_be_done_here_needs_no_room() {
    let mut book = Book::default();
    let arrival = book.arrived(wish("b", 8), Some("no Helm"), 1, |_, _| 0, AT);
    assert_eq!(arrival, Arrival::Taken);
    let jobs = run(&mut book);
    assert_eq!(reports(&jobs).len(), 1);
    assert!(book.wish(&wish("b", 8).name).is_none(), "nothing is left of it");
}

#[test]
fn a_message_that_comes_again_is_known_even_without_room() {
    let mut book = running(&["a"]);
    assert_eq!(book.arrived(wish("a", 2), None, 9, |_, _| 0, AT), Arrival::Known);
    assert_eq!(run(&mut book), [Job::Wish(wish("a", 2).name, Effect::Settle(9))]);
}

#[test]
fn a_termination_ends_the_one_it_names_and_is_settled_when_that_is_kept() {
    let mut book = running(&["a", "b"]);
    let (a, b) = (wish("a", 2), wish("b", 2));
    let first = a.instance(0);
    assert_eq!(book.end(&end(&[&first]), 40), None);
    let jobs = run(&mut book);
    let order: Vec<_> = jobs.iter().map(Job::kind).collect();
    assert_eq!(order, ["delete", "save", "settle"]);
    assert_eq!(jobs.last(), Some(&Job::Settle(40)));
    book.lost(&first);
    let jobs = run(&mut book);
    assert_eq!(reports(&jobs), [(first.as_str(), "instance-terminated-by-user")]);
    assert!(book.wish(&a.name).is_none());
    assert!(book.wish(&b.name).is_some(), "its sibling stays");
    assert_eq!(book.allocation()["H100"], 2);
}

#[test]
fn instances_that_nobody_knows_are_told_once_each_and_tried_again_in_trouble() {
    let mut book = running(&["a"]);
    let known = wish("a", 2).instance(0);
    assert_eq!(book.end(&end(&["0-sr-none", &known]), 40), None);
    let disown = Job::Disown {
        ticket: 40,
        request_id: "r-1".to_owned(),
        instance: "0-sr-none".to_owned(),
    };
    let jobs = book.jobs(NOW);
    assert!(jobs.contains(&disown), "{jobs:?}");
    for job in jobs {
        let outcome = if job == disown {
            Outcome::Later(None)
        } else {
            Outcome::Done
        };
        book.done(job, outcome, NOW);
    }
    let jobs = run(&mut book);
    assert!(!jobs.contains(&Job::Settle(40)), "it is not done with: {jobs:?}");
    assert_eq!(book.jobs(NOW + RETRY_MS), std::slice::from_ref(&disown));
    book.done(disown, Outcome::Done, NOW);
    assert_eq!(run(&mut book), [Job::Settle(40)]);
}

#[test]
fn a_termination_that_comes_again_takes_the_place_of_the_one_before() {
    let mut book = Book::default();
    assert_eq!(book.end(&end(&["0-sr-none"]), 1), None);
    for ticket in 2..100 {
        assert_eq!(book.end(&end(&["0-sr-none"]), ticket), Some(ticket - 1));
    }
    assert_eq!(
        book.end(&end(&["1-sr-none"]), 100),
        None,
        "another instance is another message"
    );
    let disowned = book.jobs(0).into_iter().filter(|job| matches!(job, Job::Disown { .. }));
    assert_eq!(disowned.count(), 2);
}

#[test]
fn for_maintenance_everything_ends_once() {
    let mut book = running(&["b-1", "b-2"]);
    let names: Vec<_> = ["b-1", "b-2"].map(|batch| wish(batch, 2).instance(0)).to_vec();
    book.drain();
    assert_eq!(reports(&run(&mut book)), [], "no word before they are gone");
    book.drain();
    for name in &names {
        book.lost(name);
    }
    let jobs = run(&mut book);
    let mut told = reports(&jobs);
    told.sort_unstable();
    let mut wanted: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "instance-terminated-service-maintenance"))
        .collect();
    wanted.sort_unstable();
    assert_eq!(told, wanted);
    assert_eq!(book.allocation(), BTreeMap::new());
}

#[test]
fn a_deleted_request_is_drained_and_told() {
    let mut book = running(&["a"]);
    let wish = wish("a", 2);
    book.deleted(&wish.name);
    assert_eq!(
        run(&mut book).iter().map(Job::kind).collect::<Vec<_>>(),
        ["delete", "save"]
    );
    book.lost(&wish.instance(0));
    let jobs = run(&mut book);
    assert_eq!(
        reports(&jobs),
        [(wish.instance(0).as_str(), "instance-terminated-sync-action")]
    );
    assert_eq!(jobs.last(), Some(&Job::Wish(wish.name, Effect::Remove)));
    assert_eq!(book.allocation(), BTreeMap::new());
}
