//! A stand-in for the kubelet's PodResources endpoint, version 1, on a unix socket: assignments by script, and the ways
//! in which a real one disappoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use berth_proto::podresources::v1::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use berth_proto::podresources::v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ClaimResource, ContainerDevices, ContainerResources,
    DynamicResource, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// For the end of calls that are being answered.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// How the kubelet answers.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Answers, but only after this long.
    Slow(Duration),
    /// Fails every call.
    Failing,
    /// Refuses every call as the real one does above its call limit (100 a second, KEP-606).
    RateLimited,
}

/// The kubelet of one node, with threads of its own, as if it were another process. It goes away when it is dropped.
#[derive(Debug)]
pub struct FakeKubelet {
    socket: PathBuf,
    shared: Arc<Mutex<Shared>>,
    /// Its end cuts every connection, which aborting a tonic server alone does not.
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Shared {
    mood: Mood,
    /// By namespace and name.
    pods: BTreeMap<(String, String), PodResources>,
    allocatable: BTreeMap<String, Vec<String>>,
    list_calls: u64,
}

#[derive(Debug)]
struct Lister(Arc<Mutex<Shared>>);

// === impl FakeKubelet ===

impl FakeKubelet {
    /// Listens on `socket`, with nothing assigned.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn start(socket: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let mut kubelet = Self {
            socket: socket.into(),
            shared: Arc::default(),
            runtime: None,
        };
        kubelet.come_up()?;
        Ok(kubelet)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The pod runs; nothing is given to it, besides what it has.
    pub fn run_pod(&self, namespace: &str, pod: &str, container: &str) {
        self.with_container(namespace, pod, container, |_| {});
    }

    /// Gives `devices` of `resource` to a pod's container, besides what it has.
    pub fn assign(&self, namespace: &str, pod: &str, container: &str, resource: &str, devices: &[&str]) {
        let devices = ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: owned(devices),
        };
        self.with_container(namespace, pod, container, |container| container.devices.push(devices));
    }

    /// Gives a device to a pod's container by a ResourceClaim (DRA).
    pub fn assign_claim(&self, namespace: &str, pod: &str, container: &str, claim: &str, resource: ClaimResource) {
        let claim = DynamicResource {
            claim_name: claim.to_owned(),
            claim_namespace: namespace.to_owned(),
            claim_resources: vec![resource],
        };
        self.with_container(namespace, pod, container, |container| {
            container.dynamic_resources.push(claim);
        });
    }

    /// The pod is gone.
    pub fn remove_pod(&self, namespace: &str, pod: &str) {
        self.shared.lock().pods.remove(&(namespace.to_owned(), pod.to_owned()));
    }

    /// What the node has of `resource`, assigned or not.
    pub fn set_allocatable(&self, resource: &str, devices: &[&str]) {
        self.shared
            .lock()
            .allocatable
            .insert(resource.to_owned(), owned(devices));
    }

    /// From the next call on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.lock().mood = mood;
    }

    /// How often somebody asked for the assignments.
    pub fn list_calls(&self) -> u64 {
        self.shared.lock().list_calls
    }

    /// The kubelet is stopped: connections are cut, the socket stays behind and refuses. Assignments are kept.
    pub async fn go_down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_DEADLINE)).await;
            ended.expect("the stand-in ends");
        }
    }

    /// The kubelet starts (again).
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn come_up(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.runtime.is_none(), "it is up already");
        // As the real one does.
        if self.socket.exists() {
            fs::remove_file(&self.socket)?;
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kubelet")
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&self.socket).with_context(|| format!("bind {}", self.socket.display()))?
        };
        let service = PodResourcesListerServer::new(Lister(Arc::clone(&self.shared)));
        let serve = Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener));
        drop(runtime.spawn(serve));
        self.runtime = Some(runtime);
        Ok(())
    }

    fn with_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        change: impl FnOnce(&mut ContainerResources),
    ) {
        let mut shared = self.shared.lock();
        let key = (namespace.to_owned(), pod.to_owned());
        let pod = shared.pods.entry(key).or_insert_with(|| PodResources {
            name: pod.to_owned(),
            namespace: namespace.to_owned(),
            containers: Vec::new(),
        });
        let index = pod
            .containers
            .iter()
            .position(|known| known.name == container)
            .unwrap_or_else(|| {
                pod.containers.push(ContainerResources {
                    name: container.to_owned(),
                    ..ContainerResources::default()
                });
                pod.containers.len() - 1
            });
        change(&mut pod.containers[index]);
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

// === impl Lister ===

impl Lister {
    async fn answer<T>(&self, answer: impl FnOnce(&mut Shared) -> T) -> Result<Response<T>, Status> {
        let mood = self.0.lock().mood.clone();
        match mood {
            Mood::Well => {}
            Mood::Slow(delay) => tokio::time::sleep(delay).await,
            Mood::Failing => return Err(Status::internal("scripted failure")),
            Mood::RateLimited => return Err(Status::resource_exhausted("rejected by rate limit")),
        }
        Ok(Response::new(answer(&mut self.0.lock())))
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _request: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.0.lock().list_calls += 1;
        self.answer(|shared| ListPodResourcesResponse {
            pod_resources: shared.pods.values().cloned().collect(),
        })
        .await
    }

    async fn get_allocatable_resources(
        &self,
        _request: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        self.answer(|shared| {
            let devices = shared
                .allocatable
                .iter()
                .map(|(resource_name, device_ids)| ContainerDevices {
                    resource_name: resource_name.clone(),
                    device_ids: device_ids.clone(),
                });
            AllocatableResourcesResponse {
                devices: devices.collect(),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests;
