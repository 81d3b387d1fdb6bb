//! Who may do what: every verb that is needed is allowed, and what would be dangerous is not. Asked of the real API server.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use crate::kit::NAMESPACE;

/// `VERB RESOURCE[.GROUP][/SUBRESOURCE] [NAMESPACE [NAME]]`; without a namespace: in all of them.
pub(crate) const DAEMON: &[&str] = &[
    "get gpunodes.gpu.berth.dev",
    "list gpunodes.gpu.berth.dev",
    "watch gpunodes.gpu.berth.dev",
    "create gpunodes.gpu.berth.dev",
    "patch gpunodes.gpu.berth.dev",
    "patch gpunodes.gpu.berth.dev/status",
    "get nodes",
    "patch nodes",
    "create events default",
];
pub(crate) const SCHEDULER: &[&str] = &[
    "list gpunodes.gpu.berth.dev",
    "watch gpunodes.gpu.berth.dev",
    "list nodes",
    "watch nodes",
    "get pods",
    "list pods",
    "watch pods",
    "create pods/binding",
    "create events",
];
/// With KAI, in either mode.
pub(crate) const KAI: &[&str] = &[
    "patch pods",
    "patch pods/status",
    "list queues.scheduling.run.ai",
    "watch queues.scheduling.run.ai",
    "list pods kai-resource-reservation",
    "get secrets gpu berth-webhook-authority",
    "update secrets gpu berth-webhook-authority",
    "create secrets gpu",
    "get leases.coordination.k8s.io gpu berth-scheduler-kai",
    "update leases.coordination.k8s.io gpu berth-scheduler-kai",
    "create leases.coordination.k8s.io gpu",
    "create mutatingwebhookconfigurations.admissionregistration.k8s.io - berth-placement",
    "patch mutatingwebhookconfigurations.admissionregistration.k8s.io - berth-placement",
];
pub(crate) const BIND: &[&str] = &[
    "get podgroups.scheduling.run.ai",
    "list podgroups.scheduling.run.ai",
    "watch podgroups.scheduling.run.ai",
    "create podgroups.scheduling.run.ai",
    "patch podgroups.scheduling.run.ai",
    "get bindrequests.scheduling.run.ai",
    "create bindrequests.scheduling.run.ai",
];
/// Only with KAI.
pub(crate) const KAI_ONLY: &[&str] = &[
    "patch pods",
    "patch pods/status",
    "list queues.scheduling.run.ai",
    "get secrets gpu berth-webhook-authority",
    "create secrets gpu",
    "patch mutatingwebhookconfigurations.admissionregistration.k8s.io - berth-placement",
];
pub(crate) const OF_DAEMONS: &[&str] = &[
    "create gpunodes.gpu.berth.dev",
    "patch gpunodes.gpu.berth.dev/status",
    "patch nodes",
];
pub(crate) const OF_SCHEDULERS: &[&str] = &[
    "get pods",
    "list pods",
    "patch pods",
    "create pods/binding",
    "list nodes",
    "create events kube-system",
    "get secrets gpu",
    "create secrets gpu",
];
/// Nobody of ours needs any of these, whatever the mode.
pub(crate) const DANGEROUS: &[&str] = &[
    "* *",
    "create pods",
    "update pods",
    "delete pods",
    "deletecollection pods",
    "create pods/exec",
    "create pods/attach",
    "create pods/portforward",
    "create pods/ephemeralcontainers",
    "create pods/eviction",
    "list secrets gpu",
    "update leases.coordination.k8s.io gpu another",
    "delete leases.coordination.k8s.io gpu berth-scheduler-kai",
    "watch secrets gpu",
    "delete secrets gpu berth-webhook-authority",
    "get secrets gpu berth-node-authority",
    "get secrets gpu berth-client-authority",
    "get secrets kube-system",
    "create secrets kube-system",
    "get configmaps",
    "create serviceaccounts/token gpu",
    "impersonate users",
    "impersonate serviceaccounts",
    "escalate clusterroles.rbac.authorization.k8s.io",
    "bind clusterroles.rbac.authorization.k8s.io",
    "create clusterrolebindings.rbac.authorization.k8s.io",
    "create rolebindings.rbac.authorization.k8s.io gpu",
    "create nodes",
    "update nodes",
    "delete nodes",
    "patch nodes/status",
    "get nodes/proxy",
    "delete gpunodes.gpu.berth.dev",
    "delete podgroups.scheduling.run.ai",
    "delete bindrequests.scheduling.run.ai",
    "patch queues.scheduling.run.ai",
    "create deployments.apps gpu",
    "create daemonsets.apps gpu",
    "patch mutatingwebhookconfigurations.admissionregistration.k8s.io - another",
    "create validatingwebhookconfigurations.admissionregistration.k8s.io",
    "patch customresourcedefinitions.apiextensions.k8s.io",
    "create certificatesigningrequests.certificates.k8s.io",
];

/// Asserts the whole matrix for one service account: `needed` and nothing of `denied`.
pub(crate) async fn check(client: &Client, account: &str, needed: &[&[&str]], denied: &[&[&str]]) {
    for question in needed.iter().copied().flatten() {
        assert!(can(client, account, question).await, "{account} may not {question}");
    }
    for question in denied.iter().copied().flatten() {
        assert!(!can(client, account, question).await, "{account} may {question}");
    }
}

async fn can(client: &Client, account: &str, question: &str) -> bool {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{NAMESPACE}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{NAMESPACE}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(parse(question)),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}

fn parse(question: &str) -> ResourceAttributes {
    let mut words = question.split(' ').map(str::to_owned);
    let verb = words.next();
    let what = words.next().unwrap();
    let (what, subresource) = match what.split_once('/') {
        Some((what, sub)) => (what.to_owned(), Some(sub.to_owned())),
        None => (what, None),
    };
    let (resource, group) = match what.split_once('.') {
        Some((resource, group)) => (resource.to_owned(), group.to_owned()),
        None if what == "*" => (what.clone(), what),
        None => (what, String::new()),
    };
    ResourceAttributes {
        verb,
        resource: Some(resource),
        group: Some(group),
        subresource,
        namespace: words.next().filter(|namespace| namespace != "-"),
        name: words.next(),
        ..ResourceAttributes::default()
    }
}
