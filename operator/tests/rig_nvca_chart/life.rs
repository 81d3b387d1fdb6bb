//! The page from "Manual Cluster Registration" to "Uninstalling", and what comes after: installed again, cleaned up.

use std::time::Duration;

use berth_testkit::Program;
use serde_json::Value;

use crate::{
    cluster::{Cluster, SOON, in_rig},
    pods::{Place, is_allowed},
};

const CREATE: &str = "POST /v1/accounts/nvcf-default/clusters";
const OPERATOR: &str = "app.kubernetes.io/name=nvca-operator";
const UNINSTALL: &str = "helm uninstall nvca-operator -n nvca-operator";
const FORGET: &str = "kubectl delete cm nvca-cluster-registration -n nvca-operator --ignore-not-found";

impl Cluster {
    /// Where the operator's pod is, after its init container; both ids.
    pub(crate) async fn registered(&self) -> (Place, (String, String)) {
        let place = self.running("nvca-operator", OPERATOR).await;
        self.bootstrap(&place).await;
        (place, self.registration().await)
    }

    /// `helm uninstall` to its end, with the hook's program at work in the hook's pod. What helm said.
    async fn uninstall(&self) -> String {
        let args: Vec<_> = UNINSTALL.split(' ').skip(1).collect();
        let mut helm = Program::at(self.rig.tools().join("helm")).raw_args(&args);
        for (variable, value) in self.tools.environment() {
            helm = helm.env(variable, value);
        }
        let mut helm = helm.spawn().unwrap();
        let place = self
            .running("nvca-operator", "app.kubernetes.io/name=nvca-operator-cleanup")
            .await;
        let cleanup = self.program(&place, "cleanup").await;
        let ended = cleanup.run(Duration::from_mins(2)).await.unwrap();
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("nothing of the operator is left"),
            "{}",
            ended.stderr
        );
        is_allowed(&ended.stderr);
        // The kubelet's part.
        let name = place.pod["metadata"]["name"].as_str().unwrap();
        self.tools.shell(&format!(
            "kubectl patch pod {name} -n nvca-operator --subresource=status --type=merge -p '{{\"status\":{{\"phase\":\"Succeeded\"}}}}'"
        ));
        let status = helm.wait(SOON).await.unwrap();
        let told = helm.stdout() + &helm.stderr();
        assert!(status.success(), "{told}");
        told
    }

    /// Nothing of the release, of the operator, or of the agent: only who the cluster is.
    async fn only_the_registration_is_left(&self) {
        let kinds = self.tools.shell("kubectl api-resources --verbs=list -o name");
        let kinds = kinds.split_whitespace().collect::<Vec<_>>().join(",");
        for label in [
            "app.kubernetes.io/instance=nvca-operator",
            "app.kubernetes.io/managed-by=nvca-operator",
        ] {
            let command = format!("kubectl get {kinds} -A -l {label} -o name --ignore-not-found");
            let is_it = |left: &str| {
                let mut left = left
                    .lines()
                    .filter(|line| !line.starts_with("Warning") && !line.contains("customresourcedefinition"));
                left.all(|line| line == "configmap/nvca-cluster-registration")
            };
            self.until(&command, is_it).await;
        }
        let command = "kubectl get namespaces -o name";
        self.until(command, |left| {
            !left.contains("nvca-system") && !left.contains("nvcf-backend")
        })
        .await;
        self.tools
            .shell("kubectl get cm nvca-cluster-registration -n nvca-operator");
    }
}

#[test]
fn rig_nvca_chart_uninstalled_and_installed_again_is_the_same_cluster() {
    in_rig(
        "life::rig_nvca_chart_uninstalled_and_installed_again_is_the_same_cluster",
        async |cluster| {
            cluster.install("");
            let (place, ids) = cluster.registered().await;
            let mut operator = cluster.operator(&place).await;
            cluster.until_there("deployment/nvca -n nvca-system").await;

            // "Manual Cluster Registration", but for what needs a kubelet. A pod that is replaced ends in good order.
            operator.terminate().unwrap();
            assert!(operator.wait(SOON).await.unwrap().success(), "{}", operator.stderr());
            is_allowed(&operator.stderr());
            cluster
                .tools
                .shell("kubectl rollout restart deployment nvca-operator -n nvca-operator");
            cluster
                .tools
                .shell("kubectl rollout status deployment nvca-operator -n nvca-operator --timeout=120s");
            let (place, again) = cluster.registered().await;
            assert_eq!(again, ids);
            let operator = cluster.operator(&place).await;

            // "Uninstalling", step by step.
            let told = cluster
                .tools
                .shell("kubectl delete nvcfbackends --all -n nvca-operator --timeout=60s");
            assert!(told.contains("nvcf-default") && told.contains("deleted"), "{told}");
            let pods = cluster.tools.shell("kubectl get pods -n nvca-system");
            assert!(pods.contains("No resources found in nvca-system namespace."), "{pods}");
            let told = cluster.uninstall().await;
            assert!(told.contains("[ConfigMap] nvca-cluster-registration"), "{told}");
            is_allowed(&operator.stderr());
            drop(operator);
            cluster.only_the_registration_is_left().await;

            // Installed again, the ids are there before anybody asks, and the ConfigMap is Helm's again.
            cluster.install("");
            assert_eq!(cluster.registration().await, ids);
            assert_eq!(cluster.registered().await.1, ids);
            assert_eq!(cluster.asked(CREATE).await, 1, "it was registered twice");
            is_helms(cluster, true);

            // Step 4: with nothing to remember it is found again.
            cluster.tools.shell(&format!("{UNINSTALL} --no-hooks"));
            cluster.tools.shell(FORGET);
            cluster.install("");
            let map = cluster.tools.get("cm nvca-cluster-registration -n nvca-operator");
            assert!(map["data"].is_null(), "an id is nothing that a chart knows: {map}");
            assert_eq!(cluster.registered().await.1, ids);

            // One that the program made after somebody had deleted it: helm has nothing to do with it, and does not mind.
            cluster.tools.shell(FORGET);
            assert_eq!(cluster.registered().await.1, ids);
            is_helms(cluster, false);
            cluster.install("");
            assert_eq!(cluster.registration().await, ids);
            cluster.tools.shell(&format!("{UNINSTALL} --no-hooks"));
            assert_eq!(cluster.registration().await, ids);
            cluster.install("");
            assert_eq!(cluster.registered().await.1, ids);
            assert_eq!(cluster.asked(CREATE).await, 1, "it was registered twice");

            // Steps 5 and 6.
            cluster.tools.shell(&format!("{UNINSTALL} --no-hooks"));
            cluster.tools.shell(
                "kubectl delete crd \
                   nvcfbackends.nvcf.nvidia.io \
                   miniservices.nvca.nvcf.nvidia.io \
                   storagerequests.nvca.nvcf.nvidia.io \
                   --ignore-not-found",
            );
            cluster
                .tools
                .shell("kubectl delete namespace nvca-operator nvca-system nvca-modelcache-init --ignore-not-found");
            let left = cluster.tools.shell("kubectl get namespaces -o name");
            assert!(!left.contains("nvca"), "{left}");
        },
    );
}

/// Who owns the label that Helm looks at when it takes an object up again.
fn is_helms(cluster: &Cluster, is: bool) {
    let map = cluster
        .tools
        .shell("kubectl get cm nvca-cluster-registration -n nvca-operator -o json --show-managed-fields");
    let map: Value = serde_json::from_str(&map).unwrap();
    assert_eq!(
        map["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm",
        is,
        "{map}"
    );
    assert_eq!(map["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let fields = map["metadata"]["managedFields"].as_array().unwrap().iter();
    let ours = fields.filter(|entry| entry["manager"] == "nvca-self-managed");
    let ours: Vec<_> = ours.map(|entry| &entry["fieldsV1"]["f:metadata"]).collect();
    assert!(
        !ours.is_empty() && ours.iter().all(|of| of["f:labels"].is_null()),
        "{map}"
    );
}

/// What functions hold, with finalizers that nobody serves.
const STUCK: &str = r"kubectl apply -f - <<'END'
apiVersion: v1
kind: Namespace
metadata: {name: sr-1, labels: {nvca.nvcf.nvidia.io/workload-instance-type: miniservice}}
---
apiVersion: nvca.nvcf.nvidia.io/v1alpha1
kind: MiniService
metadata: {name: m, finalizers: [nvca.nvcf.nvidia.io/miniservice-finalizer]}
spec: {namespace: sr-1}
---
apiVersion: nvca.nvcf.nvidia.io/v1
kind: StorageRequest
metadata: {name: s, namespace: sr-1, finalizers: [nvca.nvcf.nvidia.io/storage-request-finalizer]}
spec: {}
---
apiVersion: nvca.nvcf.nvidia.io/v2beta1
kind: ICMSRequest
metadata: {name: r, namespace: nvcf-backend, finalizers: [nvca.finalizers.nvidia.io]}
spec: {}
END
kubectl label --field-manager=nvca node gpu-0000 nvca.nvcf.nvidia.io/instance-type=NCP.GPU.H100
";

#[test]
fn rig_nvca_chart_cleans_up_before_it_goes_although_operator_and_agent_are_dead() {
    in_rig(
        "life::rig_nvca_chart_cleans_up_before_it_goes_although_operator_and_agent_are_dead",
        async |cluster| {
            cluster.install("--set drainTimeout=5s");
            let (place, ids) = cluster.registered().await;
            let operator = cluster.operator(&place).await;
            cluster.until_there("mutatingwebhookconfiguration/nvca").await;
            drop(operator);
            cluster.nobody_comes_back();
            cluster.tools.shell(STUCK);
            let told = cluster.uninstall().await;
            assert!(told.contains("[ConfigMap] nvca-cluster-registration"), "{told}");
            cluster.only_the_registration_is_left().await;
            let labels = cluster
                .tools
                .shell("kubectl get nodes --show-labels; kubectl get namespaces");
            assert!(
                !labels.contains("nvca.nvcf.nvidia.io/instance-type") && !labels.contains("sr-1"),
                "{labels}"
            );
            assert_eq!(cluster.registration().await, ids);
        },
    );
}

#[test]
fn rig_nvca_chart_is_the_same_cluster_after_a_forced_clean_up_that_keeps_the_registration() {
    in_rig(
        "life::rig_nvca_chart_is_the_same_cluster_after_a_forced_clean_up_that_keeps_the_registration",
        async |cluster| {
            cluster.install("--set imagePullSecrets[0].name=p,podDisruptionBudget.enabled=true");
            let (place, ids) = cluster.registered().await;
            let operator = cluster.operator(&place).await;
            cluster.until_there("mutatingwebhookconfiguration/nvca").await;
            drop(operator);
            let told = cluster
                .tools
                .shell("deploy/scripts/force-cleanup-nvcf.sh --keep-registration");
            assert!(told.contains("Done"), "{told}");
            cluster.only_the_registration_is_left().await;
            let left = cluster
                .tools
                .shell("kubectl get cm,sa,role,rolebinding,pdb,deploy,secret -n nvca-operator -o name");
            let mut left: Vec<_> = left.lines().collect();
            left.sort_unstable();
            // The cluster's own, in every namespace.
            let own = [
                "configmap/kube-root-ca.crt",
                "configmap/nvca-cluster-registration",
                "serviceaccount/default",
            ];
            assert_eq!(left, own);
            cluster.install("");
            assert_eq!(cluster.registration().await, ids);
            assert_eq!(cluster.registered().await.1, ids);
            assert_eq!(cluster.asked(CREATE).await, 1, "it was registered twice");
        },
    );
}
