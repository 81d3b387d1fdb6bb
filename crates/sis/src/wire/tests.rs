//! The wire types against bodies that the real agent sent (`testdata/`): each is read, and written again as it was.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::*;
use crate::ClusterId;

fn again<T: Serialize + DeserializeOwned>(body: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(body.clone()).unwrap()).unwrap()
}

#[test]
fn the_registration_of_the_real_agent_is_read_and_written_as_it_was() {
    let body: Value = serde_json::from_str(include_str!("../../testdata/register-request.json")).unwrap();
    assert_eq!(again::<RegisterRequest>(&body), body);
    let request: RegisterRequest = serde_json::from_value(body).unwrap();
    let kinds = &request.gpus[0].instance_types;
    assert_eq!(
        (kinds[0].default, kinds[0].max_instances, kinds[4].node_type),
        (true, Some(24), Some(NodeType::Multi))
    );
}

#[test]
fn the_other_requests_of_the_real_agent_are_read_and_written_as_they_were() {
    let mut kinds = 0;
    for line in include_str!("../../testdata/agent-requests.jsonl").lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let (method, path) = (exchange["method"].as_str().unwrap(), exchange["path"].as_str().unwrap());
        let body = &exchange["body"];
        let written = match (method, path.rsplit('/').next().unwrap()) {
            ("POST", "heartbeat") => again::<Heartbeat>(body),
            ("PUT", "jwks") => again::<JwksUpdate>(body),
            ("PUT", _) => again::<Acknowledge>(body),
            _ => again::<InstanceUpdate>(body),
        };
        assert_eq!(&written, body, "{method} {path}");
        kinds += 1;
    }
    assert!(kinds >= 6, "{kinds}");
}

#[test]
fn the_answer_with_nats_on_holds_no_queues_and_nulls() {
    let text = include_str!("../../testdata/register-answer.json");
    let body: Value = serde_json::from_str(text).unwrap();
    assert_eq!(again::<RegisterAnswer>(&body), body);
    let answer: RegisterAnswer = serde_json::from_value(body).unwrap();
    assert_eq!(answer.credentials.termination_queue, Some(QueueCredentials::default()));
}

#[test]
fn an_unknown_action_is_no_order_and_secrets_stay_out_of_debug() {
    let answer: HeartbeatAnswer = serde_json::from_str(r#"{"action":"DANCE"}"#).unwrap();
    assert_eq!(answer.action, HeartbeatAction::Unknown);
    let credentials = QueueCredentials {
        secret_access_key: Some("hush".into()),
        ..QueueCredentials::default()
    };
    assert!(!format!("{credentials:?}").contains("hush"));
}

#[test]
fn an_answer_with_an_empty_cluster_id_is_no_answer() {
    assert!(serde_json::from_str::<ClusterCreated>(r#"{"clusterId":"","clusterGroupId":"g"}"#).is_err());
    assert!(serde_json::from_str::<ClusterCreated>(r#"{"clusterId":null,"clusterGroupId":"g"}"#).is_err());
}

#[test]
fn messages_are_read_with_what_they_hold_beyond_our_fields() {
    let text = r#"{"requestId":"r","messageBatchId":"b","sub":"","ncaId":"n","action":"RequestICMSInstances",
        "instanceCount":1,"requestedGPUCount":2,"instanceType":"NCP.GPU.L40","instanceTypeName":"NCP.GPU.L40_2x",
        "instanceTypeValue":"NCP.GPU.L40","functionDetails":{"functionId":"f","functionVersionId":"v","functionType":"DEFAULT"},
        "launchSpecification":{"environment":"QT1C","icmsEnvironment":"prod","cloudProvider":"NCP","gpuName":"L40","cacheSize":7}}"#;
    let message: CreationMessage = serde_json::from_str(text).unwrap();
    assert_eq!((message.requested_gpu_count, message.instance_count), (2, 1));
    assert_eq!(message.launch_specification.other["cacheSize"], 7);
    let cluster: ClusterId = "c-1".parse().unwrap();
    assert_eq!(creation_subjects(&cluster), "Create.NVCA.*.c-1.*.*");
    assert_eq!(termination_subject(&cluster), "Terminate.NVCA.c-1");
}
