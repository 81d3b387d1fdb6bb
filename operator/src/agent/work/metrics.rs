//! How many messages came and what became of them; which jobs were done and how. Decides nothing.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{queue::Kind, request::Outcome};

const QUEUES: [&str; 2] = [Kind::Creation.name(), Kind::Termination.name()];

#[derive(Debug, Clone)]
pub(in crate::agent) struct Metrics {
    messages: Family<Message, Counter>,
    jobs: Family<Job, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Message {
    queue: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Job {
    job: &'static str,
    outcome: &'static str,
}

impl Metrics {
    pub(in crate::agent) fn register(registry: &mut Registry) -> Self {
        let (messages, jobs) = (Family::<Message, Counter>::default(), Family::<Job, Counter>::default());
        let help = "Messages by queue and what became of them (taken, known, waits, refused, dropped)";
        registry.register("nvca_queue_message_processed", help, messages.clone());
        let help = "What was done for requests, by kind and outcome (done, later, refused)";
        registry.register("nvca_work_jobs", help, jobs.clone());
        // There before the first one: whoever counts sees that one, too.
        for queue in QUEUES {
            for outcome in ["taken", "known", "waits", "refused", "dropped"] {
                drop(messages.get_or_create(&Message { queue, outcome }));
            }
        }
        for job in ["make", "report", "settle"] {
            drop(jobs.get_or_create(&Job { job, outcome: "done" }));
        }
        Self { messages, jobs }
    }

    pub(super) fn message(&self, queue: &'static str, outcome: &'static str) {
        self.messages.get_or_create(&Message { queue, outcome }).inc();
    }

    pub(super) fn job(&self, job: &'static str, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Later(_) => "later",
            Outcome::Refused { .. } => "refused",
        };
        self.jobs.get_or_create(&Job { job, outcome }).inc();
    }
}
