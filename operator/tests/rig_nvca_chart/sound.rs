//! What helm makes of values, without a cluster.

use std::time::Duration;

use berth_operator::{
    agent_config::{AgentConfig, Times},
    names as known,
};
use serde_json::{Value, json};

use crate::kit::{NAMESPACE, ORIGINAL, Tools, VALUES, names, object, read};

const TOGGLES: &[&str] = &[
    "",
    "--set vault.enabled=false,vault.existingSecret=tokens",
    "--set podDisruptionBudget.enabled=true,replicaCount=3",
    "--set podDisruptionBudget.enabled=true,podDisruptionBudget.maxUnavailable=0",
    "--set tolerations[0].operator=Exists,agent.tolerations[0].key=gpu,priorityClassName=system-cluster-critical",
    "--set nodeSelector.key=nvcf.nvidia.com/workload,nodeSelector.value=control-plane",
    "--set imagePullSecrets[0].name=nvcr-pull-secret,serviceAccount.annotations.a=b",
    "--set networkPolicy.customPolicies[0].metadata.name=mine,networkPolicy.customPolicies[1].kind=NetworkPolicy",
    "--set serviceAccount.create=false,cleanup.enabled=false,generateImagePullSecret=true",
    "--set clusterName=a-1,clusterID=c,clusterGroupID=g,ncaID=n,selfManaged.region=EastUS,selfManaged.cloudProvider=AZURE",
    "--set vault.address=http://bao:8200,vault.audience=x,image.tag=1.2.3,drainTimeout=2m,logLevel=debug",
    "--set agent.workerDegradationPeriod=1h30m,agent.functionEnvOverrides.UTILS_CONTAINER=u:2,agent.taskEnvOverrides.INIT_CONTAINER=i:2 \
     --set agent.workload.tolerations[0].operator=Exists \
     --set-string 'agentConfig.mergeConfig=workload: {podScheduledThreshold: 20m\\, taskEnvOverrides: {INIT_CONTAINER: \"i:3\"}}'",
    "--set logLevel=warning",
    "--set 'logLevel=info\\,berth_operator=debug'",
];

#[test]
fn rig_nvca_chart_is_sound_with_every_kind_of_values() {
    let tools = Tools::new(None);
    for flags in TOGGLES {
        tools.shell(&format!(
            "helm lint CHART --strict --kube-version 1.34.0 -f {VALUES} {flags}"
        ));
        let objects = tools.template(flags).unwrap_or_else(|told| panic!("{flags}: {told}"));
        for object in &objects {
            let labels = &object["metadata"]["labels"];
            assert_eq!(
                labels["app.kubernetes.io/instance"], "nvca-operator",
                "the clean-up script would miss {object}"
            );
            for rule in object["rules"].as_array().into_iter().flatten() {
                let text = rule.to_string();
                for word in ["\"*\"", "escalate", "\"bind\"", "impersonate", "deletecollection"] {
                    assert!(!text.contains(word), "{rule}");
                }
            }
            let pod = &object["spec"]["template"]["spec"];
            let lists = ["initContainers", "containers"].map(|list| pod[list].as_array().into_iter().flatten());
            for container in lists.into_iter().flatten() {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            }
        }
    }
}

#[test]
fn rig_nvca_chart_does_what_its_values_say() {
    let tools = Tools::new(None);
    let deployment = |flags: &str| object(&tools.template(flags).unwrap(), "Deployment", "nvca-operator").clone();
    let plain = deployment(TOGGLES[0]);
    let template = &plain["spec"]["template"];
    assert_eq!(
        names(&template["spec"]["initContainers"]),
        ["nvca-self-managed-bootstrap"]
    );
    assert_eq!(
        names(&template["spec"]["containers"]),
        ["nvca-operator", "nvca-mirror", "nvca-bootstrap-watch"]
    );
    assert_eq!(
        template["metadata"]["annotations"]["vault.hashicorp.com/role"],
        "nvca-operator"
    );
    assert!(template["spec"]["nodeSelector"].is_null());

    let bare = deployment(TOGGLES[1])["spec"]["template"].clone();
    assert!(bare["metadata"]["annotations"].is_null());
    assert_eq!(
        bare["spec"]["volumes"],
        json!([{"name": "secrets", "secret": {"secretName": "tokens"}}])
    );
    let args = bare["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(args.contains(&json!("--agent-secret=tokens")), "{args:?}");
    let args = template["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(args.contains(&json!("--agent-secret=")), "{args:?}");
    let readers = ["nvca-self-managed-bootstrap", "nvca-operator", "nvca-bootstrap-watch"];
    let lists = ["initContainers", "containers"].map(|list| bare["spec"][list].as_array().unwrap().iter());
    for container in lists.into_iter().flatten() {
        let reads = container["volumeMounts"][0]["mountPath"] == "/home/app/vault";
        assert_eq!(
            reads,
            readers.contains(&container["name"].as_str().unwrap()),
            "{container}"
        );
    }

    let budget =
        |flags: &str| object(&tools.template(flags).unwrap(), "PodDisruptionBudget", "nvca-operator")["spec"].clone();
    assert_eq!(budget(TOGGLES[2])["minAvailable"], 1);
    assert_eq!(budget(TOGGLES[3])["maxUnavailable"], 0);
    assert_eq!(deployment(TOGGLES[2])["spec"]["replicas"], 3);
    let placed = deployment(TOGGLES[4])["spec"]["template"]["spec"].clone();
    assert_eq!(placed["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(placed["priorityClassName"], "system-cluster-critical");
    let selector = json!({"nvcf.nvidia.com/workload": "control-plane"});
    assert_eq!(
        deployment(TOGGLES[5])["spec"]["template"]["spec"]["nodeSelector"],
        selector
    );
    let pulls = json!([{"name": "nvcr-pull-secret"}]);
    let objects = tools.template(TOGGLES[6]).unwrap();
    assert_eq!(
        object(&objects, "ServiceAccount", "nvca-operator")["imagePullSecrets"],
        pulls
    );
    for kind in ["Deployment", "Job"] {
        let found = objects.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(found["spec"]["template"]["spec"]["imagePullSecrets"], pulls, "{kind}");
    }
    let objects = tools.template(TOGGLES[7]).unwrap();
    let policies = &object(&objects, "ConfigMap", "nvcf-custom-network-policies")["data"];
    assert_eq!(
        policies.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["mine", "policy-1"]
    );
    let objects = tools.template(TOGGLES[8]).unwrap();
    assert!(
        !objects
            .iter()
            .any(|object| object["kind"] == "ServiceAccount" || object["kind"] == "Job")
    );
    let objects = tools.template(TOGGLES[9]).unwrap();
    let dto = object(&objects, "ConfigMap", "nvcfbackend-self-managed")["data"]["cluster-dto.yaml"].clone();
    let dto: Value = serde_saphyr::from_str(dto.as_str().unwrap()).unwrap();
    assert_eq!(
        [&dto["clusterName"], &dto["region"], &dto["ncaID"]],
        ["a-1", "EastUS", "n"]
    );
}

/// What the operator merges into the agent's configuration.
#[test]
fn rig_nvca_chart_hands_on_what_the_agent_is_to_be_told() {
    let tools = Tools::new(None);
    let is_merge = |object: &&Value| object["metadata"]["name"] == known::AGENT_CONFIG_MERGE;
    assert_eq!(tools.template("").unwrap().iter().find(is_merge), None);
    let objects = tools.template(TOGGLES[11]).unwrap();
    let map = objects.iter().find(is_merge).unwrap();
    assert_eq!(map["metadata"]["namespace"], NAMESPACE);
    let text = map["data"][known::AGENT_CONFIG_KEY].as_str().unwrap();
    let config = AgentConfig::parse(text.as_bytes()).unwrap();
    let workload = &config.workload;
    assert_eq!(workload.times.worker_degradation(), Duration::from_mins(90));
    assert_eq!(workload.times.pod_scheduled(), Duration::from_mins(20));
    assert_eq!(workload.function_env_overrides["UTILS_CONTAINER"], "u:2");
    assert_eq!(workload.task_env_overrides["INIT_CONTAINER"], "i:3", "mergeConfig wins");
    assert_eq!(workload.tolerations, [json!({"operator": "Exists"})]);
    // What values.yaml shows are keys of the agent.
    let shown = read("deploy/charts/nvca-operator/values.yaml");
    let shown: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let shown = AgentConfig::parse(shown.join("\n").as_bytes()).unwrap().workload.times;
    assert_eq!(serde_json::to_value(&shown).unwrap().as_object().unwrap().len(), 6);
    let all = |times: &Times| {
        [
            times.pod_scheduled(),
            times.image_pull(),
            times.init(),
            times.restarts(),
            times.worker_startup(),
            times.worker_degradation(),
        ]
    };
    assert_eq!(all(&shown), all(&Times::default()));
}

#[test]
fn rig_nvca_chart_gives_the_clean_up_the_time_that_draining_takes() {
    let tools = Tools::new(None);
    for (flags, seconds) in [
        ("", 300),
        ("--set cleanup=null,drainTimeout=null", 300),
        ("--set cleanup.timeoutSeconds=900", 900),
        ("--set drainTimeout=1500ms,cleanup.timeoutSeconds=10", 70),
        ("--set drainTimeout=090s", 510),
        ("--set drainTimeout=10m", 3060),
        ("--set drainTimeout=2h,cleanup.timeoutSeconds=900", 36060),
    ] {
        let objects = tools.template(flags).unwrap();
        let job = object(&objects, "Job", "nvca-operator-pre-delete-cleanup");
        assert_eq!(job["spec"]["activeDeadlineSeconds"], seconds, "{flags}");
    }
}

#[test]
fn rig_nvca_chart_refuses_values_that_make_no_sense_and_says_why() {
    let tools = Tools::new(None);
    for (flags, tells) in [
        (
            "--set selfManaged.nvcaVersion=",
            "selfManaged.nvcaVersion is empty: name the agent's version",
        ),
        ("--set image.repository=", "image.repository is empty"),
        (
            "--set nvcaImage.repositoryOverride=",
            "nvcaImage.repositoryOverride is empty",
        ),
        (
            "--set nvcaImage.repositoryOverride=r/nvca:1",
            "/nvcaImage/repositoryOverride",
        ),
        (
            "--set ngcConfig.clusterSource=ngc-managed",
            "value must be 'self-managed'",
        ),
        ("--set region=us-west-1", "additional properties 'region' not allowed"),
        (
            "--set selfManaged.Region=x",
            "additional properties 'Region' not allowed",
        ),
        ("--set clusterName=a.b", "/clusterName"),
        (
            "--set clusterName=a23456789-123456789-123456789-123",
            "maxLength: got 33, want 32",
        ),
        (
            "--set selfManaged.region=mars-1",
            "selfManaged.region `mars-1` is unknown: the control plane takes one of us-east-1",
        ),
        ("--set selfManaged.cloudProvider=aws", "'ON-PREM', 'DGX-CLOUD'"),
        ("--set selfManaged.icmsServiceURL=sis", "/selfManaged/icmsServiceURL"),
        (
            "--set vault.enabled=false",
            "name a Secret with the key secrets.json in vault.existingSecret",
        ),
        ("--set replicaCount=0", "/replicaCount"),
        (
            "--set selfManaged.gpuManualInstanceConfigB64=W10=",
            "remove the one or the other",
        ),
        (
            "--set selfManaged.featureGateValues={SelfHosted}",
            "add the one or the other",
        ),
        (
            "--set networkPolicy.clusterNetworkCIDRs={ten}",
            "/networkPolicy/clusterNetworkCIDRs/0",
        ),
        ("--set drainTimeout=25", "/drainTimeout"),
        ("--set logLevel=loud", "/logLevel"),
        (
            "--set agent.workerDegradationPeriod=soon",
            "/agent/workerDegradationPeriod",
        ),
        ("--set agent.functionEnvOverrides.A-B=x", "'A-B' does not match"),
        ("--set agent.workload.affinity=x", "'affinity' not allowed"),
        ("--set agentConfig.merge=x", "'merge' not allowed"),
        (
            "--set-string 'agentConfig.mergeConfig=a: ['",
            "agentConfig.mergeConfig is no mapping in YAML",
        ),
        (
            "--set-string 'agentConfig.mergeConfig=[a]'",
            "agentConfig.mergeConfig is no mapping in YAML",
        ),
    ] {
        let told = tools.template(flags).unwrap_err();
        assert!(told.contains(tells), "{flags}: {told}");
    }
}

/// `helm upgrade --reuse-values` brings the values of an older chart, without the newer keys.
#[test]
fn rig_nvca_chart_takes_values_that_lack_any_of_its_keys() {
    let tools = Tools::new(None);
    let defaults: Value = serde_saphyr::from_str(&read("deploy/charts/nvca-operator/values.yaml")).unwrap();
    let needed = ["image", "nvcaImage", "selfManaged"];
    let keys = defaults.as_object().unwrap().keys();
    let lacking: Vec<String> = keys
        .filter(|key| !needed.contains(&key.as_str()))
        .map(|key| format!("--set {key}=null"))
        .collect();
    let parts = [
        "selfManaged",
        "image",
        "nvcaImage",
        "agent",
        "vault",
        "cleanup",
        "networkPolicy",
    ];
    let lacking_parts: Vec<String> = parts
        .iter()
        .flat_map(|part| defaults[*part].as_object().unwrap().keys().map(move |key| (part, key)))
        .filter(|(_, key)| !["nvcaVersion", "repository", "repositoryOverride"].contains(&key.as_str()))
        .map(|(part, key)| format!("--set {part}.{key}=null"))
        .collect();
    let full = tools.template("").unwrap();
    let (all, all_parts) = (lacking.join(" "), lacking_parts.join(" "));
    for flags in lacking.iter().chain([&all, &all_parts]) {
        let objects = tools.template(flags).unwrap_or_else(|told| panic!("{flags}: {told}"));
        let text = json!(objects).to_string();
        assert!(!text.contains("<nil>") && !text.contains("<no value>"), "{flags}");
        assert_eq!(objects.len(), full.len(), "{flags}");
        // What a cluster is does not hang on what is not said.
        let maps = [&full, &objects].map(|all| object(all, "ConfigMap", "nvcfbackend-self-managed")["data"].clone());
        assert!(
            flags.contains("featureGateValues") || maps[0] == maps[1],
            "{flags}: {}",
            maps[1]
        );
    }
}

#[test]
fn rig_nvca_chart_takes_the_values_of_the_original_chart() {
    let tools = Tools::new(None);
    let page = tools.template("").unwrap();
    // The page's file has the last word.
    let both = tools.template(&format!("-f {ORIGINAL} -f {VALUES}")).unwrap();
    assert_eq!(both.len(), page.len());
    let text = object(&both, "ConfigMap", "nvcfbackend-self-managed")["data"].to_string();
    assert!(
        text.contains("nats.example.invalid") && text.contains("KAIScheduler"),
        "{text}"
    );
}
