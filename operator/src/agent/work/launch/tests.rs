//! Wishes in, objects out.

use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use serde_json::json;

use super::*;

type Edit = fn(&mut Value);

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn environment(more: &str) -> String {
    let registries = base64(r#"{"k8sSecrets":[{"auths":{"r.example":{"auth":"eA=="}}}]}"#);
    let sidecar = base64(r#"{"auths":{"w.example":{"auth":"eQ=="}}}"#);
    let own = base64(r#"[{"key":"MINE","value":"1"},{"key":"NVCF_REGION","value":"forged"}]"#);
    base64(&format!(
        "INFERENCE_CONTAINER=r.example/f:1\nUTILS_CONTAINER=w.example/utils:1\nINIT_CONTAINER=w.example/init:1\n\
         INFERENCE_CONTAINER_ARGS=--port 80 --name 'a b'\nINFERENCE_CONTAINER_ENV={own}\nFUNCTION_NAME=f\n\
         NVCF_WORKER_TOKEN=hush\nCONTAINER_REGISTRIES_CREDENTIALS={registries}\nSIDECAR_REGISTRY_CREDENTIAL={sidecar}\n{more}"
    ))
}

fn message() -> Value {
    json!({"requestId": "r-1", "messageBatchId": "b-1", "ncaId": "n", "action": "RequestSpotInstances",
        "instanceCount": 1, "requestedGPUCount": 2, "instanceType": "NCP.GPU.H100",
        "instanceTypeName": "NCP.GPU.H100_2x", "instanceTypeValue": "NCP.GPU.H100",
        "functionDetails": {"functionType": "DEFAULT", "functionId": "f-1", "functionVersionId": "v-1"},
        "launchSpecification": {"gpuName": "H100", "cloudProvider": "NCP", "icmsEnvironment": "prod",
            "environment": environment("")}})
}

fn site() -> Site {
    Site {
        namespace: "nvcf-backend".to_owned(),
        cluster_name: "c".to_owned(),
        region: "us-west-1".to_owned(),
        gates: Gates {
            kai: true,
            tolerations: Vec::new(),
        },
        ready_timeout: "2h0m0s".to_owned(),
        pull_secrets: vec!["mirrored".to_owned()],
        ..Site::default()
    }
}

fn launched(edit: impl FnOnce(&mut Value)) -> Result<Launch, LaunchError> {
    let mut message = message();
    edit(&mut message);
    let owner = OwnerReference {
        name: "sr".to_owned(),
        ..OwnerReference::default()
    };
    launch(&wish(message), &site(), Some(&owner))
}

fn wish(message: Value) -> Wish {
    Wish::of(message).unwrap()
}

fn only_pod(launch: &Launch) -> Value {
    assert_eq!(launch.pods.len(), 1);
    serde_json::to_value(launch.pods.values().next().unwrap()).unwrap()
}

#[test]
fn a_container_function_becomes_the_pod_that_the_real_agent_makes() {
    let launch = launched(|_| {}).unwrap();
    let pod = only_pod(&launch);
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("0-sr-") && launch.pods.contains_key(name));
    let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
    for (key, value) in [
        ("kai.scheduler/queue", "default-queue"),
        ("function-version-id", "v-1"),
        ("icms-request-id", "r-1"),
        ("GPU_COUNT", "2"),
        ("nca-id", "nca-n-nca"),
        ("performance_class", "NCP.GPU.H100"),
    ] {
        assert_eq!(labels[key], value, "{key}");
    }
    assert_eq!(annotations["nvcf.nvidia.io/instance-type-name"], "NCP.GPU.H100_2x");
    assert_eq!(annotations["function-name"], "f");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], "sr");
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["schedulerName"], &spec["restartPolicy"]),
        (&json!("kai-scheduler"), &json!("Always"))
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["terminationGracePeriodSeconds"], 120);
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"],
        json!(["NCP.GPU.H100"])
    );
    assert_eq!(spec["tolerations"][0]["key"], "nvidia.com/gpu");
    let (inference, utils) = (&spec["containers"][0], &spec["containers"][1]);
    assert_eq!(
        (&inference["name"], &inference["image"]),
        (&json!("inference"), &json!("r.example/f:1"))
    );
    assert_eq!(inference["args"], json!(["--port", "80", "--name", "a b"]));
    assert_eq!(inference["resources"]["limits"], json!({"nvidia.com/gpu": "2"}));
    let env: BTreeMap<_, _> = inference["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it))
        .collect();
    assert_eq!(env["MINE"]["value"], "1");
    assert_eq!(env["INSTANCE_ID"]["value"], name);
    assert_eq!(
        env["NVCF_REGION"]["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.annotations['nvcf.nvidia.io/region']"
    );
    assert_eq!(inference["env"].as_array().unwrap().len(), env.len(), "no name twice");
    assert_eq!(
        (&utils["name"], &utils["image"]),
        (&json!("utils"), &json!("w.example/utils:1"))
    );
    assert_eq!(utils["readinessProbe"]["httpGet"]["path"], "/v1/health/ready");
    assert_eq!(utils["resources"].get("limits"), None);
    assert_eq!(spec["initContainers"][0]["image"], "w.example/init:1");
    let pull: Vec<_> = spec["imagePullSecrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(pull.len(), 3);
    assert!(pull[0].starts_with("workload-sr-") && pull[1].starts_with("worker-sr-") && pull[2] == "mirrored");
    assert!(!pod.to_string().contains("hush"), "no token in the pod");
}

#[test]
fn tokens_and_registries_are_in_secrets_of_the_request() {
    let launch = launched(|_| {}).unwrap();
    let kinds: Vec<_> = launch
        .secrets
        .iter()
        .map(|secret| secret.type_.as_deref().unwrap_or("Opaque"))
        .collect();
    assert_eq!(
        kinds,
        [
            "kubernetes.io/dockerconfigjson",
            "kubernetes.io/dockerconfigjson",
            "Opaque"
        ]
    );
    let texts = launch.secrets[2].string_data.as_ref().unwrap();
    assert_eq!(
        (
            texts["NVCF_WORKER_TOKEN"].as_str(),
            texts["ATTACHED_GPU_COUNT"].as_str()
        ),
        ("hush", "2")
    );
    assert_eq!(texts["INSTANCE_TYPE_NAME"], "NCP.GPU.H100_2x");
    for secret in &launch.secrets {
        assert_eq!(secret.metadata.namespace.as_deref(), Some("nvcf-backend"));
        assert_eq!(secret.metadata.labels.as_ref().unwrap()["icms-request-id"], "r-1");
        assert_eq!(secret.metadata.owner_references.as_ref().unwrap().len(), 1);
    }
}

#[test]
fn a_task_runs_to_its_end() {
    let launch = launched(|message| {
        message["action"] = json!("RequestSpotInstancesForTask");
        message["taskDetails"] = json!({"taskId": "t-1"});
        let launch = &mut message["launchSpecification"];
        launch["environment"] = json!(environment("TASK_CONTAINER=r.example/t:1\nTASK_NAME=t\n"));
        launch["terminationGracePeriodDuration"] = json!("PT5M");
    });
    let pod = only_pod(&launch.unwrap());
    assert!(pod["metadata"]["name"].as_str().unwrap().ends_with("-task"));
    assert_eq!(pod["metadata"]["labels"]["task-id"], "t-1");
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 300);
    assert_eq!(pod["spec"]["containers"][0]["image"], "r.example/t:1");
    assert_eq!(pod["spec"]["containers"][0]["name"], "task");
}

const ESS: &str =
    "FUNCTION_SECRETS_PRESENT=true\nSECRETS_ASSERTION_TOKEN=whisper\nESS_AGENT_CONTAINER=w.example/ess:1\n";

#[test]
fn a_function_with_secrets_has_them_fetched_before_it_starts_and_while_it_runs() {
    let launch = launched(|message| {
        message["launchSpecification"]["environment"] = json!(environment(ESS));
    });
    let launch = launch.unwrap();
    let pod = only_pod(&launch);
    let spec = &pod["spec"];
    let names = |list: &Value| -> Vec<_> {
        let list = list.as_array().unwrap().iter();
        list.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&spec["containers"]), ["ess", "inference", "utils"]);
    // Its configuration is the first one's work.
    assert_eq!(names(&spec["initContainers"]), ["init", "ess-init"]);
    for (container, is_first) in [(&spec["initContainers"][1], "true"), (&spec["containers"][0], "false")] {
        assert_eq!(container["image"], "w.example/ess:1");
        assert_eq!(container["args"], json!(["-config=/config/ess-agent/config.hcl"]));
        assert_eq!(
            container["env"],
            json!([{"name": "ESS_AGENT_INIT", "value": is_first},
                {"name": "SECRET_DEST", "value": "/var/secrets/secrets.json"},
                {"name": "SECRET_PATH", "value": "functions/f-1/versions/v-1"}])
        );
        assert_eq!(
            container["resources"]["limits"],
            json!({"cpu": "250m", "memory": "128Mi"})
        );
    }
    let mounted = |container: &Value| -> Vec<(String, bool)> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let mounts = mounts.filter(|it| matches!(it["name"].as_str().unwrap(), "secret-data" | "ess-data"));
        mounts
            .map(|it| (it["mountPath"].as_str().unwrap().to_owned(), it["readOnly"] == true))
            .collect()
    };
    let (secrets, config) = ("/var/secrets".to_owned(), "/config/ess-agent".to_owned());
    assert_eq!(mounted(&spec["containers"][1]), [(secrets.clone(), true)]);
    assert_eq!(
        mounted(&spec["containers"][2]),
        [(secrets.clone(), true), (config.clone(), false)]
    );
    assert_eq!(mounted(&spec["initContainers"][0]), [(config.clone(), false)]);
    assert_eq!(mounted(&spec["containers"][0]), [(secrets, false), (config, false)]);
    assert!(names(&spec["volumes"]).ends_with(&["secret-data".to_owned(), "ess-data".to_owned()]));
    // The GPUs are still the function's.
    assert_eq!(spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu"), None);
    assert_eq!(spec["containers"][1]["resources"]["limits"]["nvidia.com/gpu"], "2");
    assert!(!pod.to_string().contains("whisper"), "no token in the pod");

    let task = launched(|message| {
        message["action"] = json!("RequestSpotInstancesForTask");
        message["taskDetails"] = json!({"taskId": "t-1"});
        let text = environment(&format!("TASK_CONTAINER=r.example/t:1\n{ESS}"));
        message["launchSpecification"]["environment"] = json!(text);
    });
    let pod = only_pod(&task.unwrap());
    assert_eq!(pod["spec"]["containers"][0]["env"][2]["value"], "tasks/t-1/secrets");
}

#[test]
fn finished_artifacts_are_taken_and_dressed() {
    let pod = r#"{"metadata": {"labels": {"mine": "1"}}, "spec": {"containers": [{"name": "utils"}, {"name": "inference"}],
        "affinity": {"podAntiAffinity": {}}, "terminationGracePeriodSeconds": 7}}"#;
    let secret = "metadata:\n  name: s\nstringData:\n  a: b\n";
    let launch = launched(|message| {
        message["instanceCount"] = json!(2);
        message["launchArtifacts"] = json!([
            {"artifactType": "SECRET_SPEC", "artifactSpec": base64(secret)},
            {"artifactType": "POD_SPEC", "artifactSpec": base64(pod)},
            {"artifactType": "INIT_CACHE_JOB_SPEC", "artifactSpec": ""},
        ]);
    })
    .unwrap();
    assert_eq!((launch.pods.len(), launch.secrets.len()), (2, 1));
    let pod = serde_json::to_value(launch.pods.values().next().unwrap()).unwrap();
    assert_eq!(pod["metadata"]["labels"]["mine"], "1");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 7);
    assert_eq!(pod["spec"]["affinity"].get("podAntiAffinity"), None);
    assert_eq!(
        pod["spec"]["containers"][1]["resources"]["limits"]["nvidia.com/gpu"],
        "2"
    );
    assert_eq!(pod["spec"]["schedulerName"], "kai-scheduler");
}

#[test]
fn what_is_not_supported_or_not_there_is_told_in_plain_words() {
    let edits: [(&str, &str, Edit); 9] = [
        ("LaunchUnsupported", "Helm", |message| {
            message["launchSpecification"]["helmChart"] = json!("oci://x");
        }),
        ("LaunchUnsupported", "LLM", |message| {
            message["functionDetails"]["functionType"] = json!("LLM");
        }),
        ("LaunchUnsupported", "telemetry", |message| {
            message["launchSpecification"]["telemetries"] = json!({});
        }),
        ("LaunchIncomplete", "SECRETS_ASSERTION_TOKEN", |message| {
            message["launchSpecification"]["environment"] = json!(environment("FUNCTION_SECRETS_PRESENT=true"));
        }),
        ("LaunchIncomplete", "ESS_AGENT_CONTAINER", |message| {
            message["launchSpecification"]["environment"] = json!(environment("SECRETS_ASSERTION_TOKEN=hush"));
        }),
        ("LaunchIncomplete", "container image", |message| {
            message["launchSpecification"]["environment"] = json!(base64("UTILS_CONTAINER=u"));
        }),
        ("LaunchUnreadable", "environment", |message| {
            message["launchSpecification"]["environment"] = json!("%%");
        }),
        ("LaunchUnreadable", "INFERENCE_CONTAINER_ARGS", |message| {
            message["launchSpecification"]["environment"] = json!(environment("INFERENCE_CONTAINER_ARGS='open"));
        }),
        ("LaunchUnreadable", "NEW_SPEC", |message| {
            message["launchArtifacts"] = json!([{"artifactType": "NEW_SPEC", "artifactSpec": ""}]);
        }),
    ];
    for (reason, tells, edit) in edits {
        let error = launched(edit).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(tells), "{error}");
    }
}

#[test]
fn the_cluster_overrides_what_workers_are_told_each_kind_by_its_own() {
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<_, _> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let site = Site {
        function_env: env(&[
            ("utils_container", "mine/utils:2"),
            ("INIT_CONTAINER", ""),
            ("NEW", "1"),
        ]),
        task_env: env(&[("UTILS_CONTAINER", "mine/utils:3")]),
        ..site()
    };
    let toleration: Toleration = serde_json::from_value(json!({"key": "a", "operator": "Exists"})).unwrap();
    let site = Site {
        gates: Gates {
            tolerations: vec![toleration.clone()],
            ..site.gates
        },
        ..site
    };
    let function = launch(&wish(message()), &site, None).unwrap();
    let spec = function.pods.values().next().unwrap().spec.clone().unwrap();
    let image = |spec: &PodSpec| {
        spec.containers
            .iter()
            .find(|it| it.name == "utils")
            .unwrap()
            .image
            .clone()
    };
    assert_eq!(image(&spec).as_deref(), Some("mine/utils:2"));
    assert_eq!(spec.init_containers, Some(Vec::new()), "an empty one is none");
    assert!(spec.tolerations.unwrap().contains(&toleration));
    let told = function.secrets.last().unwrap().string_data.clone().unwrap();
    assert_eq!(
        (told["NEW"].as_str(), told["NVCF_WORKER_TOKEN"].as_str()),
        ("1", "hush")
    );

    let mut task = message();
    task["action"] = json!("RequestSpotInstancesForTask");
    task["launchSpecification"]["environment"] = json!(environment("TASK_CONTAINER=t:1"));
    let task = launch(&wish(task), &site, None).unwrap();
    let spec = task.pods.values().next().unwrap().spec.clone().unwrap();
    assert_eq!(image(&spec).as_deref(), Some("mine/utils:3"));
    assert_eq!(spec.init_containers.unwrap().len(), 1);
}

#[test]
fn nothing_of_what_cannot_be_read_is_told() {
    let edits: [Edit; 3] = [
        |message| message["launchSpecification"]["environment"] = json!("s3cret%"),
        |message| {
            let spec = base64("containers: [{name: a, env: s3cret}]");
            message["launchArtifacts"] = json!([{"artifactType": "POD_SPEC", "artifactSpec": spec}]);
        },
        |message| {
            let spec = base64("metadata: {name: a}\nstringData: s3cret");
            message["launchArtifacts"] = json!([{"artifactType": "SECRET_SPEC", "artifactSpec": spec}]);
        },
    ];
    for edit in edits {
        let error = launched(edit).unwrap_err();
        assert_eq!(error.reason(), "LaunchUnreadable", "{error}");
        // 37 is the letter that is no base64.
        let is_told = ["s3cret", "37"].into_iter().any(|it| error.to_string().contains(it));
        assert!(!is_told, "{error}");
    }
    let error = object::<Secret>("a Secret", json!({"stringData": "s3cret"})).unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
