//! Asks the kubelet what it assigned, again and again: its PodResources endpoint can only be polled.
//!
//! Often while a reservation waits to be confirmed, at once when a pod was released whose devices only the kubelet can free,
//! seldom otherwise, with growing pauses while it does not answer. It
//! has a call limit that it shares among all its clients, so one call at a time. What the kubelet told last stays in the
//! book while it is down.
//!
//! Whether there is a kubelet at all: see [`KubeletChoice`]. Where that is left open, the directory of its socket decides,
//! and is looked at now and then: a kubelet that is installed later is found.

mod convert;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_ledger::{Claim, ClaimState};
use berth_proto::podresources::v1::{ListPodResourcesRequest, pod_resources_lister_client::PodResourcesListerClient};
use berth_runtime::{
    SharedClock,
    dial::{self, DialError, Target},
};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::{
    book::Book,
    conditions::{ConditionType, Finding},
    config::KubeletChoice,
    metrics::Metrics,
};

/// Poll this often while reservations wait to be confirmed.
const BUSY: Duration = Duration::from_secs(2);
/// And this often otherwise: what goes (a pod that ended) is seen this late.
const IDLE: Duration = Duration::from_secs(10);
/// At least this long between two polls, also where a pod was released.
const HURRY: Duration = Duration::from_secs(1);
/// A released pod that the kubelet tells of for longer is not waited for in a hurry: some kubelets go on for ever.
const HURRY_FOR: Duration = Duration::from_mins(1);
/// First pause after a failure; doubles up to [`IDLE`].
const RETRY: Duration = Duration::from_millis(500);
/// For one call. The kubelet answers from memory in milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often to look for a kubelet where there was none.
const LOOK: Duration = Duration::from_secs(30);
/// A node has a few hundred pods; each costs a few hundred bytes.
const MAX_ANSWER: usize = 16 << 20;

/// How a poll ends: the metric's label, and but for the first the condition's reason.
pub(crate) const POLL_OUTCOMES: [&str; 5] = [
    ANSWERED,
    "KubeletTimeout",
    "KubeletUnreachable",
    "KubeletRateLimited",
    "KubeletFailed",
];
const ANSWERED: &str = "Answered";

/// Why the kubelet was not heard.
#[derive(Debug, Error)]
enum PollError {
    #[error("it did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    #[error("it cannot be reached at {}", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: Box<Status>,
    },
    #[error("it refuses calls because it gets too many")]
    RateLimited(#[source] Box<Status>),
    #[error("it answers with an error")]
    Failed(#[source] Box<Status>),
}

struct Kubelet {
    socket: PathBuf,
    client: PodResourcesListerClient<Channel>,
    /// Told already, so that each is logged once.
    unknown: BTreeSet<String>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The book has it.
    Counted,
    /// It names GPUs by index and the driver has told none yet. The book would open without those that are held.
    TooEarly,
}

/// Follows the kubelet until `stop`.
pub(crate) async fn follow(
    choice: KubeletChoice,
    book: Book,
    metrics: Metrics,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<(), DialError> {
    let socket = match choice {
        KubeletChoice::None => {
            book.observe_no_kubelet(none("NoKubelet", "there is no kubelet here, as --kubelet-socket says"))
                .await;
            return Ok(());
        }
        KubeletChoice::At(socket) => socket,
        KubeletChoice::IfPresent(socket) => {
            if stop
                .run_until_cancelled(wait_for_kubelet(&socket, &book))
                .await
                .is_none()
            {
                return Ok(());
            }
            socket
        }
    };
    let client = PodResourcesListerClient::new(dial::channel(&Target::Unix(socket.clone()), None)?)
        .max_decoding_message_size(MAX_ANSWER);
    let kubelet = Kubelet {
        socket,
        client,
        unknown: BTreeSet::new(),
    };
    stop.run_until_cancelled(poll(kubelet, &book, &metrics, &clock)).await;
    Ok(())
}

/// Returns at once where there is one. Else the book is told that there is none, until there is.
async fn wait_for_kubelet(socket: &Path, book: &Book) {
    let is_there = || socket.parent().is_some_and(Path::is_dir);
    if is_there() {
        return;
    }
    info!(socket = %socket.display(), "no kubelet on this machine: nobody confirms reservations");
    book.observe_no_kubelet(none(
        "NoKubelet",
        "this machine has no kubelet; reservations live by their deadlines",
    ))
    .await;
    while !is_there() {
        sleep(LOOK).await;
    }
    info!(socket = %socket.display(), "a kubelet has come");
}

fn none(reason: &'static str, message: &'static str) -> Finding {
    ConditionType::KubeletReachable.holds(reason, message)
}

async fn poll(mut kubelet: Kubelet, book: &Book, metrics: &Metrics, clock: &SharedClock) {
    let mut retry = RETRY;
    loop {
        match kubelet.ask(book).await {
            Ok(heard) => {
                metrics.polled(ANSWERED);
                retry = RETRY;
                match heard {
                    Heard::Counted => pause(book, clock).await,
                    Heard::TooEarly => wait_for_devices(book).await,
                }
            }
            Err(error) => {
                metrics.polled(error.reason());
                debug!(error = &error as &dyn std::error::Error, "the kubelet was not heard");
                book.note(error.finding()).await;
                sleep(retry).await;
                retry = (retry * 2).min(IDLE);
            }
        }
    }
}

/// Until the next poll is due. What is reserved or released meanwhile is noticed in time.
async fn pause(book: &Book, clock: &SharedClock) {
    tokio::select! {
        () = pause_for_reservations(book) => {}
        () = pause_for_released(book, clock) => {}
    }
}

async fn pause_for_released(book: &Book, clock: &SharedClock) {
    sleep(HURRY).await;
    let is_awaited = |claim: &Claim| match claim.state {
        ClaimState::Foreign {
            since_unix_ms,
            released: true,
        } => Duration::from_millis(clock.now_unix_ms().saturating_sub(since_unix_ms)) < HURRY_FOR,
        _ => false,
    };
    let mut views = book.views().subscribe();
    let awaited = views.wait_for(|view| view.book.claims.iter().any(|claim| is_awaited(claim)));
    if awaited.await.is_err() {
        // The book is closed: the other pause ends it.
        std::future::pending::<()>().await;
    }
}

async fn pause_for_reservations(book: &Book) {
    let mut waited = Duration::ZERO;
    while waited < IDLE {
        sleep(BUSY).await;
        waited += BUSY;
        let view = book.views().current();
        if view
            .book
            .claims
            .iter()
            .any(|claim| matches!(claim.state, ClaimState::Reserved { .. }))
        {
            return;
        }
    }
}

/// At most until the next poll would be due: whether the kubelet answers is to be told meanwhile.
async fn wait_for_devices(book: &Book) {
    let mut views = book.views().subscribe();
    let known = async {
        let found = views.wait_for(|view| !view.book.node.devices.is_empty()).await.is_ok();
        if !found {
            // The book is closed: the end of this task is near, and not to be spent on asking.
            std::future::pending::<()>().await;
        }
    };
    // Err: the pause is over.
    timeout(IDLE, known).await.ok();
}

impl Kubelet {
    async fn ask(&mut self, book: &Book) -> Result<Heard, PollError> {
        let call = self.client.list(Request::new(ListPodResourcesRequest {}));
        let response = match timeout(DEADLINE, call).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(PollError::of(status, &self.socket)),
            Err(_) => return Err(PollError::Timeout),
        };
        let view = book.views().current();
        let devices = &view.book.node.devices;
        let found = convert::assigned(response, |index| {
            devices
                .iter()
                .find(|device| device.index == index)
                .map(|device| device.uuid.clone())
        });
        if found.lacks_index && devices.is_empty() {
            book.note(ConditionType::KubeletReachable.holds(
                "Answering",
                "the kubelet answers; what it assigned counts when the driver has told its devices",
            ))
            .await;
            return Ok(Heard::TooEarly);
        }
        for unknown in found.unknown.difference(&self.unknown) {
            warn!(
                assigned = unknown,
                "the kubelet assigned something that names no GPU: it is not counted"
            );
        }
        self.unknown = found.unknown;
        let answering = ConditionType::KubeletReachable.holds("Answering", "the kubelet tells what it assigned");
        book.observe_kubelet(found.pods, answering).await;
        Ok(Heard::Counted)
    }
}

impl PollError {
    fn of(status: Status, socket: &Path) -> Self {
        // A status that came over the wire has no source; one that tonic made of a broken connection has.
        let made_here = std::error::Error::source(&status).is_some();
        let source = Box::new(status);
        match source.code() {
            Code::DeadlineExceeded => Self::Timeout,
            Code::ResourceExhausted => Self::RateLimited(source),
            Code::Unavailable | Code::Unknown if made_here => Self::Unreachable {
                socket: socket.to_owned(),
                source,
            },
            _ => Self::Failed(source),
        }
    }

    const fn reason(&self) -> &'static str {
        let [_, timeout, unreachable, rate_limited, failed] = POLL_OUTCOMES;
        match self {
            Self::Timeout => timeout,
            Self::Unreachable { .. } => unreachable,
            Self::RateLimited(_) => rate_limited,
            Self::Failed(_) => failed,
        }
    }

    fn finding(&self) -> Finding {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        let advice = match self {
            Self::Unreachable { .. } => {
                "; it may be starting; else see that the socket's directory is mounted and that this is root"
            }
            Self::Timeout | Self::RateLimited(_) | Self::Failed(_) => "",
        };
        let message = format!("{}{advice}; what it told last is kept", causes.join(": "));
        ConditionType::KubeletReachable.fails(self.reason(), message)
    }
}
