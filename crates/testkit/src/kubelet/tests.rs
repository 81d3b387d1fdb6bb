use berth_proto::podresources::v1::pod_resources_lister_client::PodResourcesListerClient;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::eventually;

type Client = PodResourcesListerClient<Channel>;

fn kubelet() -> (TempDir, FakeKubelet, Client) {
    let dir = TempDir::new().unwrap();
    let kubelet = FakeKubelet::start(dir.path().join("kubelet.sock")).unwrap();
    let endpoint = Endpoint::from_shared(format!("unix://{}", kubelet.socket().display())).unwrap();
    (dir, kubelet, Client::new(endpoint.connect_lazy()))
}

async fn list(client: &mut Client) -> Result<Vec<PodResources>, Status> {
    Ok(client
        .list(ListPodResourcesRequest {})
        .await?
        .into_inner()
        .pod_resources)
}

#[tokio::test]
async fn assignments_are_listed_by_pod_and_container() {
    let (_dir, kubelet, mut client) = kubelet();
    assert!(list(&mut client).await.unwrap().is_empty());
    kubelet.assign("ns", "pod", "main", "nvidia.com/gpu", &["GPU-1", "GPU-2"]);
    kubelet.assign("ns", "pod", "main", "nvidia.com/mig-1g.10gb", &["MIG-1"]);
    kubelet.assign("ns", "pod", "side", "nvidia.com/gpu", &["GPU-3"]);
    kubelet.assign("other", "pod", "main", "nvidia.com/gpu", &["GPU-4"]);
    let claimed = ClaimResource {
        driver_name: "gpu.nvidia.com".into(),
        pool_name: "n".into(),
        device_name: "gpu-5".into(),
    };
    kubelet.assign_claim("other", "pod", "main", "claim", claimed.clone());
    let pods = list(&mut client).await.unwrap();
    assert_eq!(pods.len(), 2);
    let [main, side] = &pods[0].containers[..] else {
        panic!("{pods:?}")
    };
    assert_eq!((main.devices.len(), side.devices.len()), (2, 1));
    assert_eq!(main.devices[0].device_ids, ["GPU-1", "GPU-2"]);
    assert_eq!(pods[1].containers[0].dynamic_resources[0].claim_resources, [claimed]);
    kubelet.remove_pod("ns", "pod");
    assert_eq!(list(&mut client).await.unwrap().len(), 1);
    assert_eq!(kubelet.list_calls(), 3);
}

#[tokio::test]
async fn allocatable_devices_are_told_whether_assigned_or_not() {
    let (_dir, kubelet, mut client) = kubelet();
    kubelet.set_allocatable("nvidia.com/gpu", &["GPU-1", "GPU-2"]);
    let answer = client
        .get_allocatable_resources(AllocatableResourcesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.devices[0].device_ids, ["GPU-1", "GPU-2"]);
}

#[tokio::test]
async fn moods_are_what_a_client_sees() {
    let (_dir, kubelet, mut client) = kubelet();
    kubelet.set_mood(Mood::Failing);
    assert_eq!(list(&mut client).await.unwrap_err().code(), Code::Internal);
    kubelet.set_mood(Mood::RateLimited);
    assert_eq!(list(&mut client).await.unwrap_err().code(), Code::ResourceExhausted);
    kubelet.set_mood(Mood::Slow(Duration::from_mins(1)));
    tokio::time::timeout(Duration::from_millis(50), list(&mut client))
        .await
        .expect_err("slow");
    kubelet.set_mood(Mood::Well);
    list(&mut client).await.unwrap();
    assert_eq!(kubelet.list_calls(), 4);
}

#[tokio::test]
async fn a_kubelet_that_is_down_cuts_its_clients_and_comes_back_with_its_assignments() {
    let (_dir, mut kubelet, mut client) = kubelet();
    kubelet.assign("ns", "pod", "main", "nvidia.com/gpu", &["GPU-1"]);
    list(&mut client).await.unwrap();
    kubelet.go_down().await;
    assert!(kubelet.socket().exists(), "a killed kubelet leaves its socket behind");
    list(&mut client).await.unwrap_err();
    kubelet.come_up().unwrap();
    kubelet.come_up().expect_err("it is up");
    let back = eventually(Duration::from_secs(10), async || Ok(list(&mut client).await?))
        .await
        .unwrap();
    assert_eq!(back.len(), 1);
}
