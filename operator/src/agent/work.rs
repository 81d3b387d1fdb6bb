//! What SIS asks for, run as pods, and what became of it, told to SIS.
//!
//! ```text
//! queue (NATS) ──message──► book ◄──pods, ICMSRequests── cluster (watches)
//!                            │ jobs            ▲ outcomes
//!                            └──────► rim ─────┘   (Kubernetes, SIS, the streams)
//! ```
//! [`book`] and what is under it are pure: they say what is to be done, and every job may be repeated. What this process must
//! not forget is in the `ICMSRequest`s, so that another one goes on where it stopped.

mod book;
mod cause;
mod cluster;
mod heard;
mod launch;
mod limits;
mod message;
pub(super) mod metrics;
mod pod;
mod queue;
mod removed;
mod request;
mod rim;
mod trouble;
mod waiting;
mod watch;

use std::{collections::BTreeMap, error::Error, fmt, sync::Arc, time::Duration};

use berth_kube_api::nvcf::icms_request::ICMSRequest;
use berth_runtime::{SharedClock, secret_file::SecretFile};
use berth_sis::{ClusterId, SisClient, wire::MaintenanceMode};
use futures_util::StreamExt as _;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, watch as channel},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    book::{Arrival, Book, Job},
    cluster::{Cluster, reference},
    heard::Heard,
    launch::{Site, launch},
    limits::Limits,
    message::{Wish, termination},
    metrics::Metrics,
    pod::Seen,
    queue::{Incoming, Kind, Queue},
    removed::Removed,
    request::{Effect, Moment, Outcome, Request, Ticket},
    rim::{Open, Order, Rim},
    waiting::Waiting,
    watch::Change,
};
use crate::{
    agent::{heartbeat::maintenance, seam::Orders},
    agent_config::{AgentConfig, GoDuration},
    webhook::Gates,
};

/// How exact waits are.
const TICK: Duration = Duration::from_millis(500);
/// Messages on their way in.
const INCOMING: usize = 32;
/// For jobs that are being done when the process ends.
const LAST_JOBS: Duration = Duration::from_secs(5);

/// How many instances with so many GPUs of that name can be had now. It must count what [`Parts::allocation`] says as taken.
pub type Fits = Arc<dyn Fn(&str, u32) -> u32 + Send + Sync>;

/// What the work needs.
pub struct Parts {
    pub client: Client,
    pub sis: SisClient,
    pub cluster: ClusterId,
    /// As it is now. The namespace and the address of NATS are read once.
    pub config: channel::Receiver<Arc<AgentConfig>>,
    /// With the NATS key.
    pub secrets: SecretFile,
    pub fits: Fits,
    pub orders: channel::Receiver<Orders>,
    /// GPUs that wishes hold, by name.
    pub allocation: channel::Sender<BTreeMap<String, u32>>,
    pub clock: SharedClock,
}

/// What becomes of a message.
enum Fate {
    /// It is settled later.
    Kept(&'static str),
    Again(Duration),
    Dropped,
}

/// The queues, the requests and their pods.
pub struct Work {
    rim: Arc<Rim>,
    queue: Queue,
    config: channel::Receiver<Arc<AgentConfig>>,
    fits: Fits,
    orders: channel::Receiver<Orders>,
    allocation: channel::Sender<BTreeMap<String, u32>>,
    clock: SharedClock,
    book: Book,
    /// Creations.
    heard: Heard,
    removed: Removed,
    waiting: Waiting,
    tickets: Ticket,
    metrics: Metrics,
    jobs: JoinSet<Option<(Job, Outcome)>>,
}

impl Work {
    pub fn new(parts: Parts, registry: &mut Registry) -> Self {
        let config = Arc::clone(&parts.config.borrow());
        let namespace = config.agent.requests_namespace.clone();
        let rim = Rim {
            cluster: Cluster::new(&parts.client, &namespace),
            sis: parts.sis,
            cluster_id: parts.cluster.clone(),
            namespace,
            handles: Mutex::default(),
            owners: Mutex::default(),
        };
        Self {
            rim: Arc::new(rim),
            queue: Queue {
                url: config.agent.nats_url.clone(),
                cluster: parts.cluster,
                secrets: parts.secrets,
            },
            config: parts.config,
            fits: parts.fits,
            orders: parts.orders,
            allocation: parts.allocation,
            clock: parts.clock,
            book: Book::default(),
            heard: Heard::default(),
            removed: Removed::default(),
            waiting: Waiting::default(),
            tickets: 0,
            metrics: Metrics::register(registry),
            jobs: JoinSet::new(),
        }
    }

    /// Until `stop`. What is there goes on without this process, and the next one finds it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut requests = self.rim.cluster.follow_requests();
        let mut pods = self.rim.cluster.follow_pods();
        let (to, mut messages) = mpsc::channel(INCOMING);
        let (hears, mut heard) = channel::channel(false);
        let mut queue = Some(self.queue.clone().run(to, hears));
        let mut queues = JoinSet::new();
        // Requests first, then their pods, then messages: nobody is taken for lost who was not looked for.
        let (mut has_requests, mut has_pods) = (false, false);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if has_pods {
                self.came_again(&mut heard);
                self.start_jobs();
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
                Some(change) = requests.next() => match change {
                    Change::Here(object) => self.request(&object),
                    Change::Gone(name) => self.gone(&name),
                    Change::Listing => {}
                    Change::Listed => has_requests = true,
                },
                Some(change) = pods.next(), if has_requests => match change {
                    Change::Here(pod) => self.book.saw(&Seen::of(&pod)),
                    Change::Gone(name) => self.book.lost(&name),
                    Change::Listing => self.book.looking(),
                    Change::Listed => {
                        self.book.all_seen();
                        has_pods = true;
                        queue.take().map(|queue| queues.spawn(queue));
                    }
                },
                Some(incoming) = messages.recv(), if has_pods => self.message(incoming),
                Some(done) = self.jobs.join_next() => if let Some((job, outcome)) = well(done) {
                    self.metrics.job(job.kind(), &outcome);
                    self.done(job, outcome);
                },
                Some(ended) = queues.join_next() => well(ended),
            }
        }
        drop(messages);
        let rest = async { while self.jobs.join_next().await.is_some() {} };
        if timeout(LAST_JOBS, rest).await.is_err() {
            debug!("some jobs are left to the next process");
        }
    }

    /// After a while of listening every message that is not settled was heard again.
    fn came_again(&mut self, heard: &mut channel::Receiver<bool>) {
        let now = self.clock.monotonic();
        let was_broken = heard.has_changed().unwrap_or(true);
        self.heard.now(*heard.borrow_and_update(), was_broken, now);
        if let Some(before) = self.heard.before(now) {
            let mut handles = self.rim.handles.lock();
            for ticket in self.book.came_again(before) {
                handles.remove(&ticket);
            }
        }
    }

    /// Gives out what is to be done, and says what is held.
    fn start_jobs(&mut self) {
        let held = self.book.allocation();
        self.allocation.send_if_modified(|told| {
            let changed = *told != held;
            *told = held;
            changed
        });
        let config = Arc::clone(&self.config.borrow());
        self.book.limit(Limits::of(&config));
        if must_end(&config, *self.orders.borrow()) {
            self.book.drain();
        }
        for job in self.book.jobs(self.clock.now_unix_ms()) {
            let request = match &job {
                Job::Wish(name, _) => self.book.wish(name),
                Job::Settle(_) | Job::Disown { .. } => None,
            };
            let order = Order::of(job, request, &self.rim, request.and_then(Request::ticket));
            let (rim, site) = (Arc::clone(&self.rim), self.site());
            self.jobs.spawn(async move {
                let outcome = rim.run(&order, &site).await;
                Some((order.job, outcome))
            });
        }
    }

    /// An `ICMSRequest` is not there any more.
    fn gone(&mut self, name: &str) {
        if !self.removed.told(name) {
            self.rim.owners.lock().remove(name);
            self.book.deleted(name);
        }
    }

    fn done(&mut self, job: Job, outcome: Outcome) {
        let removed = match &job {
            Job::Wish(name, Effect::Remove) if outcome == Outcome::Done => Some(name.clone()),
            _ => None,
        };
        self.book.done(job, outcome, self.clock.now_unix_ms());
        if let Some(name) = removed
            && let Some(object) = self.rim.owners.lock().remove(&name)
        {
            self.removed.add(name, object.uid);
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            unix_ms: self.clock.now_unix_ms(),
            steady: self.clock.monotonic(),
        }
    }

    fn site(&self) -> Site {
        let config = self.config.borrow();
        Site {
            namespace: self.rim.namespace.clone(),
            cluster_name: config.cluster.name.clone(),
            region: config.cluster.region.clone(),
            gates: Gates::of(&config),
            ready_timeout: GoDuration(config.workload.times.worker_startup()).to_string(),
            pull_secrets: config.workload.image_pull_secrets.clone(),
            function_env: config.workload.function_env_overrides.clone(),
            task_env: config.workload.task_env_overrides.clone(),
        }
    }

    fn refusal(&self, wish: &Wish) -> Option<String> {
        let error = launch(wish, &self.site(), None).err()?;
        let (name, reason) = (&wish.name, error.reason());
        warn!(
            name,
            reason,
            error = &error as &dyn Error,
            "cannot be done here: it is refused"
        );
        Some(error.to_string())
    }

    /// An `ICMSRequest` as it is now: an earlier process's, or our own.
    fn request(&mut self, object: &ICMSRequest) {
        let name = object.name_any();
        let is_deleted = object.metadata.deletion_timestamp.is_some();
        if self.removed.has(&name, object.metadata.uid.as_deref()) {
            return;
        }
        if self.book.wish(&name).is_none() {
            match Request::kept(object, |wish| self.refusal(wish), self.moment()) {
                Ok(request) => self.book.keep(request),
                Err(error) => {
                    let reason = error.reason();
                    warn!(
                        name,
                        reason,
                        error = &error as &dyn Error,
                        "an ICMSRequest that is none of ours"
                    );
                    if is_deleted {
                        self.release(name);
                    }
                    return;
                }
            }
        }
        self.rim.owners.lock().insert(name.clone(), reference(object));
        if is_deleted {
            self.book.deleted(&name);
        }
    }

    /// Nobody knows what to tidy up for it: its deletion must not wait for ever.
    fn release(&mut self, name: String) {
        let rim = Arc::clone(&self.rim);
        self.jobs.spawn(async move {
            if let Err(error) = rim.cluster.release(&name).await {
                warn!(name, error = &error as &dyn Error, "an ICMSRequest keeps its finalizer");
            }
            None
        });
    }

    fn message(&mut self, incoming: Incoming) {
        let Incoming {
            kind,
            payload,
            receipt,
            handle,
        } = incoming;
        self.tickets += 1;
        let ticket = self.tickets;
        let read = match kind {
            Kind::Creation => Wish::parse(&payload).map(|wish| self.wish(wish, ticket, &receipt)),
            Kind::Termination => termination(&payload).map(|message| {
                info!(receipt, request = message.request_id, instances = ?message.instance_ids, "to be terminated");
                let stale = self.book.end(&message, ticket);
                drop(stale.and_then(|stale| self.rim.handles.lock().remove(&stale)));
                Fate::Kept("taken")
            }),
        };
        let handle = Arc::new(handle);
        let fate = read.unwrap_or_else(|error| {
            let reason = error.reason();
            let error = &error as &dyn Error;
            warn!(receipt, reason, error, "a message that nobody can act on is dropped");
            Fate::Dropped
        });
        let (word, after) = match fate {
            Fate::Kept(word) => {
                self.metrics.message(kind.name(), word);
                self.rim.handles.lock().insert(ticket, Open { handle, receipt });
                return;
            }
            Fate::Again(after) => ("waits", Some(after)),
            Fate::Dropped => ("dropped", None),
        };
        self.metrics.message(kind.name(), word);
        self.jobs.spawn(async move {
            let told = match after {
                Some(after) => handle.again(after).await,
                None => handle.give_up().await,
            };
            if let Err(error) = told {
                let error = &error as &dyn Error;
                warn!(
                    receipt,
                    error, "the message will come again when its stream gives up waiting"
                );
            }
            None
        });
    }

    fn wish(&mut self, wish: Wish, ticket: Ticket, receipt: &str) -> Fate {
        let refused = self.refusal(&wish);
        let (name, gpu, gpus, instances) = (wish.name.clone(), wish.gpu.clone(), wish.gpus, wish.instances);
        // The stream has forgotten it.
        let stale = self.book.wish(&name).and_then(Request::ticket);
        drop(stale.and_then(|stale| self.rim.handles.lock().remove(&stale)));
        let fits = Arc::clone(&self.fits);
        let now = self.moment();
        let arrival = self
            .book
            .arrived(wish, refused.as_deref(), ticket, |gpu, gpus| fits(gpu, gpus), now);
        if !matches!(arrival, Arrival::Wait(_)) {
            self.waiting.taken(&name);
        }
        match arrival {
            Arrival::Taken if refused.is_some() => Fate::Kept("refused"),
            Arrival::Taken => {
                info!(receipt, name, gpu, gpus, instances, "taken on");
                Fate::Kept("taken")
            }
            Arrival::Known => {
                debug!(receipt, name, "known");
                Fate::Kept("known")
            }
            Arrival::Wait(after) => {
                if self.waiting.waits(&name, now.steady) {
                    info!(receipt, name, gpu, gpus, instances, "no room: it waits");
                }
                Fate::Again(after)
            }
        }
    }
}

/// The cluster is emptied.
fn must_end(config: &AgentConfig, orders: Orders) -> bool {
    orders == Orders::Leave || maintenance(config).1 == MaintenanceMode::CordonAndDrain
}

/// A panic in a part is the whole's.
fn well<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}
