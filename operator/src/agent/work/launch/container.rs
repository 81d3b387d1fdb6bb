//! Pods of functions and tasks that are containers, built from a launch specification as the real agent builds them. Pure.
//!
//! One difference: the worker's environment, which holds tokens, is a Secret and not in the pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Pod, Secret},
    jiff::SignedDuration,
};
use serde_json::{Map, Value, json};

use super::{Launch, LaunchError, Site, decode, environment::Environment, object, secrets::Secrets, words};
use crate::agent::work::message::Wish;

/// In seconds: of a function, and of a task that says nothing.
const FUNCTION_GRACE: i64 = 120;
const TASK_GRACE: i64 = 900;

/// What differs between a function and a task.
struct Kind {
    container: &'static str,
    image: &'static str,
    args: &'static str,
    env: &'static str,
    data: (&'static str, &'static str),
    restart: &'static str,
}

const FUNCTION: Kind = Kind {
    container: "inference",
    image: "INFERENCE_CONTAINER",
    args: "INFERENCE_CONTAINER_ARGS",
    env: "INFERENCE_CONTAINER_ENV",
    data: ("inference-data", "/var/inf"),
    restart: "Always",
};
const TASK: Kind = Kind {
    container: "task",
    image: "TASK_CONTAINER",
    args: "TASK_CONTAINER_ARGS",
    env: "TASK_CONTAINER_ENV",
    data: ("task-data", "/var/task"),
    restart: "Never",
};

pub(super) fn launch(wish: &Wish, site: &Site) -> Result<Launch, LaunchError> {
    let specification = &wish.message.launch_specification;
    let kind = if wish.is_task { &TASK } else { &FUNCTION };
    let mut environment = Environment::parse(specification.environment.as_deref().unwrap_or_default())?;
    environment.override_with(if wish.is_task {
        &site.task_env
    } else {
        &site.function_env
    });
    let secrets = Secrets::of(wish, &environment)?;
    let image = environment.get(kind.image).or(specification.container_image.as_deref());
    let image = image
        .filter(|image| !image.is_empty())
        .ok_or(LaunchError::Missing("container image"))?
        .to_owned();
    let utils = environment
        .get("UTILS_CONTAINER")
        .ok_or(LaunchError::Missing("UTILS_CONTAINER"))?
        .to_owned();
    let init = environment.get("INIT_CONTAINER").map(str::to_owned);
    let args = environment.get(kind.args).unwrap_or_default();
    let args = words::split(args).ok_or_else(|| LaunchError::unreadable(kind.args, "a quote has no end"))?;
    let own = environment.pairs(kind.env)?;
    let name = environment
        .get(if wish.is_task { "TASK_NAME" } else { "FUNCTION_NAME" })
        .map(str::to_owned);
    let pull = pull_secrets(wish, &environment)?;
    complete(&mut environment, wish, site);
    let worker: Secret = object(
        "the worker's environment",
        json!({"metadata": {"name": format!("{}-environment", wish.name)}, "stringData": environment.into_map()}),
    )?;
    let parts = Parts {
        kind,
        image,
        utils,
        init,
        args,
        own,
        secrets,
        pull: pull.iter().filter_map(|secret| secret.metadata.name.clone()).collect(),
        annotation: name,
    };
    let mut pods = BTreeMap::new();
    for index in 0..wish.instances {
        let instance = wish.instance(index);
        pods.insert(instance.clone(), parts.pod(wish, &instance)?);
    }
    Ok(Launch {
        secrets: pull.into_iter().chain([worker]).collect(),
        config_maps: Vec::new(),
        pods,
    })
}

struct Parts {
    kind: &'static Kind,
    image: String,
    utils: String,
    init: Option<String>,
    args: Vec<String>,
    own: BTreeMap<String, String>,
    secrets: Option<Secrets>,
    pull: Vec<String>,
    /// The function's or task's name.
    annotation: Option<String>,
}

impl Parts {
    fn pod(&self, wish: &Wish, instance: &str) -> Result<Pod, LaunchError> {
        let (data, data_path) = self.kind.data;
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        let mut info = mount("instance-data", "/var/run/nvcf/info");
        let models = [
            mount("model-data", "/config/models"),
            mount("model-data", "/config/resources"),
        ];
        let worker = |name: &str, image: &str, mounts: Vec<Value>| {
            json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "env": ids(instance),
                "envFrom": [{"secretRef": {"name": format!("{}-environment", wish.name)}}],
                "resources": {"requests": {"cpu": "4", "memory": "4Gi"}},
                "securityContext": {"capabilities": {"drop": ["NET_RAW"]}}, "volumeMounts": mounts})
        };
        let mut utils = worker(
            "utils",
            &self.utils,
            vec![
                mount("config-data", "/config/shared"),
                mount(data, data_path),
                info.clone(),
            ],
        );
        utils["ports"] = json!([{"containerPort": 8080, "name": "health"}]);
        let probe = |path: &str, period: i32, failures: i32, timeout: i32| {
            json!({"httpGet": {"path": path, "port": 8080}, "periodSeconds": period, "failureThreshold": failures,
                "timeoutSeconds": timeout})
        };
        utils["startupProbe"] = probe("/v1/health/live", 1, 60, 1);
        utils["livenessProbe"] = probe("/v1/health/live", 10, 2, 1);
        utils["readinessProbe"] = probe("/v1/health/ready", 10, 2, 6);
        let mut init_mounts = models.to_vec();
        init_mounts.extend([mount("config-data", "/config/shared"), info.clone()]);
        let init = self.init.as_ref().map(|image| worker("init", image, init_mounts));
        info["readOnly"] = json!(true);
        let mut mounts = models.to_vec();
        mounts.extend([mount(data, data_path), info, mount("dshm", "/dev/shm")]);
        let workload = json!({"name": self.kind.container, "image": self.image, "imagePullPolicy": "IfNotPresent",
            "args": self.args, "env": self.workload_env(wish, instance), "volumeMounts": mounts,
            "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}});
        let empty = |name: &str| json!({"name": name, "emptyDir": {}});
        let pull = self.pull.iter().map(|name| json!({"name": name}));
        let mut annotations = Map::new();
        if let Some(name) = &self.annotation {
            let keys = if wish.is_task {
                ["task-name", "TASK_NAME"]
            } else {
                ["function-name", "FUNCTION_NAME"]
            };
            annotations.extend(keys.map(|key| (key.to_owned(), json!(name))));
        }
        let mut pod = json!({
            "metadata": {"annotations": annotations},
            "spec": {
                "containers": [workload, utils],
                "initContainers": init.into_iter().collect::<Vec<_>>(),
                "imagePullSecrets": pull.collect::<Vec<_>>(),
                "restartPolicy": self.kind.restart,
                "terminationGracePeriodSeconds": grace(wish),
                "volumes": [empty("model-data"), empty("config-data"), empty(data), empty("instance-data"),
                    {"name": "dshm", "emptyDir": {"medium": "Memory"}}],
            },
        });
        if let Some(secrets) = &self.secrets {
            secrets.add_to(&mut pod);
        }
        object("the pod", pod)
    }

    /// The user's own, and what says where and as what it runs: taken from the pod, so that both say the same.
    fn workload_env(&self, wish: &Wish, instance: &str) -> Vec<Value> {
        let of_annotation = |name: &str, key: &str| field(name, &format!("metadata.annotations['{key}']"));
        let of_label = |name: &str, key: &str| field(name, &format!("metadata.labels['{key}']"));
        let mut env = vec![
            of_annotation("NVCF_REGION", "nvcf.nvidia.io/region"),
            of_annotation("NVCF_INSTANCETYPE", "nvcf.nvidia.io/instance-type-name"),
            of_annotation("NVCF_INSTANCETYPE_VALUE", "nvcf.nvidia.io/instance-type-value"),
            of_annotation("NVCF_BACKEND", "nvcf.nvidia.io/backend"),
            of_annotation("NVCF_ENV", "nvcf.nvidia.io/environment"),
        ];
        if wish.is_task {
            env.extend([
                of_annotation("NVCT_NCA_ID", "nca-id"),
                of_label("NVCT_TASK_ID", "task-id"),
                of_annotation("NVCT_TASK_NAME", "task-name"),
                json!({"name": "NVCT_INSTANCE_ID", "value": instance}),
                json!({"name": "NVCT_PROGRESS_FILE_PATH", "value": "/var/task/results/progress"}),
                json!({"name": "NVCT_RESULTS_DIR", "value": "/var/task/results"}),
            ]);
        } else {
            env.extend([
                of_annotation("NVCF_NCA_ID", "nca-id"),
                of_label("NVCF_FUNCTION_ID", "function-id"),
                of_label("NVCF_FUNCTION_VERSION_ID", "function-version-id"),
                of_annotation("NVCF_FUNCTION_NAME", "function-name"),
            ]);
        }
        env.extend(ids(instance));
        let taken: Vec<Value> = env.iter().map(|entry| entry["name"].clone()).collect();
        let own = self.own.iter().filter(|(name, _)| !taken.contains(&json!(name)));
        own.map(|(name, value)| json!({"name": name, "value": value}))
            .chain(env.clone())
            .collect()
    }
}

fn ids(instance: &str) -> Vec<Value> {
    ["INSTANCE_ID", "NVCF_INSTANCE_ID"]
        .map(|name| json!({"name": name, "value": instance}))
        .to_vec()
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// What the worker is told besides what came.
fn complete(environment: &mut Environment, wish: &Wish, site: &Site) {
    let message = &wish.message;
    let launch = &message.launch_specification;
    let provider = launch.cloud_provider.as_deref().unwrap_or_default();
    let other = |key: &str| launch.other.get(key).and_then(Value::as_str).unwrap_or_default();
    let more = [
        ("INSTANCE_TYPE", message.instance_type.as_str()),
        ("INSTANCE_TYPE_NAME", &message.instance_type_name),
        ("INSTANCE_TYPE_VALUE", wish.type_value()),
        (
            "ICMS_ENVIRONMENT",
            launch.icms_environment.as_deref().unwrap_or_default(),
        ),
        ("CLOUD_PROVIDER", provider),
        ("NVCF_CLOUD_PROVIDER", provider),
        ("GPU_NAME", &wish.gpu),
        ("ATTACHED_GPU_COUNT", &wish.gpus.to_string()),
        (
            "INFERENCE_READY_TIMEOUT",
            if wish.is_task { "" } else { &site.ready_timeout },
        ),
        ("NVCT_MAX_RUN_TIME_DURATION", other("maxRuntimeDuration")),
        ("NVCT_RESULT_HANDLING_STRATEGY", other("resultHandlingStrategy")),
    ];
    for (name, value) in more {
        environment.set(name, value);
    }
}

fn grace(wish: &Wish) -> i64 {
    if !wish.is_task {
        return FUNCTION_GRACE;
    }
    let said = wish
        .message
        .launch_specification
        .other
        .get("terminationGracePeriodDuration");
    let said: Option<SignedDuration> = said.and_then(Value::as_str).and_then(|text| text.parse().ok());
    said.map(|said| said.as_secs())
        .filter(|said| *said > 0)
        .unwrap_or(TASK_GRACE)
}

/// Credentials of registries, as Kubernetes wants them.
fn pull_secrets(wish: &Wish, environment: &Environment) -> Result<Vec<Secret>, LaunchError> {
    let json = |name: &'static str| -> Result<Value, LaunchError> {
        let Some(base64) = environment.get(name) else {
            return Ok(Value::Null);
        };
        // The error of a parser could show a piece of a password.
        serde_json::from_slice(&decode(name, base64)?).map_err(|_| LaunchError::unreadable(name, &"it is no JSON"))
    };
    let workload = json("CONTAINER_REGISTRIES_CREDENTIALS")?;
    let workload = workload["k8sSecrets"].as_array().cloned().unwrap_or_default();
    let worker = json("SIDECAR_REGISTRY_CREDENTIAL")?;
    let worker = worker["auths"].is_object().then_some(worker);
    let all = [("workload", workload), ("worker", worker.into_iter().collect())];
    let all = all.into_iter().flat_map(|(whose, configs)| {
        let numbered = configs.into_iter().enumerate();
        numbered.map(move |(index, config)| (format!("{whose}-{}-regcred-{index}", wish.name), config))
    });
    let secret = |(name, config): (String, Value)| {
        object(
            "a pull secret",
            json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": config.to_string()}}),
        )
    };
    all.map(secret).collect()
}
