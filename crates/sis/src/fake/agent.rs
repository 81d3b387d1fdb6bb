//! The agent's calls: registration, credentials, heartbeat, key set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Fake,
    auth::Principal,
    body::{Enum, Fields},
    create::one_at_random,
    gpus, jwks,
    message::Answer,
    state::{Beat, Row},
    time::iso_ms,
};

const STATUS: Enum = Enum {
    class: "com.nvidia.icms.inbound.rest.model.byoc.ClusterStatusEnum",
    values: &[
        "READY",
        "PAUSED",
        "FAILED",
        "ABANDONED",
        "NOT_READY",
        "UNHEALTHY",
        "DELETED",
        "CORDON",
        "CORDON_AND_DRAIN",
    ],
};
const REGISTRABLE: [&str; 3] = ["READY", "CORDON", "CORDON_AND_DRAIN"];
const HEALTH: Enum = Enum {
    class: "com.nvidia.icms.inbound.rest.model.byoc.NvcaHealthStatusEnum",
    values: &["healthy", "unhealthy"],
};
const NOT_REGISTRABLE: &str = "Cluster status must be one of [READY, CORDON, CORDON_AND_DRAIN]";

pub(super) fn register(fake: &Fake, who: &Principal, id: &str, body: &Fields) -> Result<Answer, Answer> {
    let status = body.one_of("status", &STATUS)?;
    let version = body.filled("k8sVersion")?;
    let mut missing = Vec::new();
    if status.is_none() {
        missing.push("status must not be null".to_owned());
    }
    if version.is_none() {
        missing.push("k8sVersion must be provided".to_owned());
    }
    one_at_random(missing)?;
    let parsed = gpus::parse(body)?;
    who.needs(&["nvca-cluster"])?;
    who.is(fake, id)?;
    let now = iso_ms(fake.now_unix_ms());
    fake.change(|state| {
        let Some(row) = state.by_id.get(id).cloned() else {
            return Err(Answer::error(
                404,
                format!("Cluster with clusterId {id} doesn't exists"),
            ));
        };
        let status = status.unwrap_or_default();
        if !REGISTRABLE.contains(&status.as_str()) {
            return Err(Answer::error(400, NOT_REGISTRABLE));
        }
        let mut row = Row {
            registered: Some(status),
            k8s_version: version,
            last_connected: Some(now),
            targeting: body.flag("allowClusterTargeting")?,
            nvca_version: body.filled("nvcaVersion")?.unwrap_or_else(|| row.nvca_version.clone()),
            ..row
        };
        // A static cluster keeps the GPUs that it was created with.
        if gpus::is_dynamic(&row) {
            if parsed.is_empty() {
                return Err(Answer::error(400, "GPUs are not provided in the request"));
            }
            gpus::check(&parsed)?;
            let peers: Vec<Row> = state.group(&row.nca_id, &row.group_name);
            let peers: Vec<Row> = peers.into_iter().filter(|peer| peer.cluster_id != id).collect();
            gpus::check_peers(&parsed, &peers, None)?;
            let offered = gpus::to_store(&parsed);
            check_removed(&row.gpus, &offered, &state.active(id))?;
            row.gpus = offered;
        }
        // A blank key set: the issuer is ignored, too.
        if let Some(text) = body.filled("jwks")? {
            jwks::check_owner(state, &jwks::parse_sized(&text)?, id)?;
            row.jwks = Some(text);
            if let Some(issuer) = body.filled("oidcIssuer")? {
                row.oidc_issuer = Some(issuer.trim().to_owned());
            }
        }
        let answer = json!({"clusterId": row.cluster_id, "clusterGroupId": row.group_id, "credentials": queues()});
        state.put(row);
        Ok(Answer::ok(&answer))
    })
}

/// With NATS on there is nothing to hand out.
fn queues() -> Value {
    json!({"creationQueue": {}, "clusterCreationQueue": {}, "clusterCreationQueueForTasks": {},
        "terminationQueue": {"url": null, "queueType": null, "accessKeyId": null, "secretAccessKey": null,
            "sessionToken": null, "expiresAt": null}})
}

/// A type with instances cannot go.
fn check_removed(old: &[Value], new: &[Value], active: &[(String, String, String, String)]) -> Result<(), Answer> {
    let (old, new) = (gpus::kind_names(old), gpus::kind_names(new));
    let is_in_use = |kind: &&String| active.iter().any(|(_, _, _, used)| used == *kind);
    let removed: Vec<String> = old
        .iter()
        .filter(|kind| !new.contains(kind))
        .filter(is_in_use)
        .cloned()
        .collect();
    if removed.is_empty() {
        return Ok(());
    }
    let instances: Vec<&str> = active
        .iter()
        .filter(|(_, _, _, kind)| removed.contains(kind))
        .map(|(id, ..)| id.as_str())
        .collect();
    let text = format!(
        "cluster registration failed, active instances exists for removed [{}] instanceTypes, active instances [{}]",
        removed.join(", "),
        instances.join(", ")
    );
    Err(Answer::error(409, text))
}

pub(super) fn credentials(fake: &Fake, who: &Principal, id: &str) -> Result<Answer, Answer> {
    who.needs(&["nvca-cluster"])?;
    who.is(fake, id)?;
    fake.read(|state| match state.by_id.get(id) {
        None => Err(Answer::error(
            404,
            format!("Cluster with clusterId {id} doesn't exists"),
        )),
        Some(row) if row.registered.is_none() => Err(Answer::error(400, NOT_REGISTRABLE)),
        Some(_) => Ok(Answer::ok(&queues())),
    })
}

pub(super) fn heartbeat(fake: &Fake, who: &Principal, id: &str, body: &Fields) -> Result<Answer, Answer> {
    let status = body.one_of("status", &HEALTH)?;
    let mut missing = Vec::new();
    if status.is_none() {
        missing.push("status must not be null".to_owned());
    }
    let usage = if let Value::Object(usage) = body.raw("gpuUsage") {
        usage.clone()
    } else {
        missing.push("gpuUsage must not be null".to_owned());
        serde_json::Map::new()
    };
    one_at_random(missing)?;
    let mut numbers = BTreeMap::new();
    for (gpu, usage) in usage {
        let Value::Object(usage) = usage else {
            return Err(Answer::error(500, "Internal Server Error"));
        };
        let usage = Fields::of(usage);
        numbers.insert(
            gpu,
            [usage.int("available")?, usage.int("capacity")?, usage.int("allocated")?],
        );
    }
    let upgrade = body.filled("upgradeStatus")?;
    who.needs(&["nvca-cluster"])?;
    who.is(fake, id)?;
    let now = fake.now_unix_ms();
    fake.change(|state| {
        let Some(row) = state.by_id.get_mut(id) else {
            return Err(Answer::error(
                404,
                format!("Cluster with clusterId {id} does not exist"),
            ));
        };
        if upgrade.is_some() {
            row.upgrade_status = upgrade;
        }
        let beat = Beat {
            at_unix_ms: now,
            healthy: status.as_deref() == Some("healthy"),
            usage: numbers,
        };
        state.beats.insert(id.to_owned(), beat);
        Ok(Answer::ok(&json!({"action": "ACCEPTED"})))
    })
}

pub(super) fn jwks(fake: &Fake, who: &Principal, id: &str, body: &Fields) -> Result<Answer, Answer> {
    if !fake.config.cluster_identity {
        return Err(Answer::empty(404));
    }
    let text = body
        .filled("jwks")?
        .ok_or_else(|| Answer::error(400, "jwks is required"))?;
    if text.len() > jwks::LONGEST {
        return Err(Answer::empty(413));
    }
    let keys = jwks::parse(&text)?;
    who.needs(&["nvca-cluster", "cluster-management"])?;
    if !who.has("cluster-management") {
        who.is(fake, id)?;
    }
    fake.change(|state| {
        if !state.by_id.contains_key(id) {
            return Err(Answer::error(404, format!("Cluster {id} not found")));
        }
        jwks::check_owner(state, &keys, id)?;
        if let Some(row) = state.by_id.get_mut(id) {
            row.jwks = Some(text);
            if let Some(issuer) = body.filled("oidcIssuer")? {
                row.oidc_issuer = Some(issuer.trim().to_owned());
            }
        }
        Ok(Answer::empty(200))
    })
}
