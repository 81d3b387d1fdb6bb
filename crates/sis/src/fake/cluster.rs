//! Clusters and groups, read and deleted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Fake, auth::Principal, create::SOURCES, listing::told, message::Answer, state::Row};
use crate::check::REGIONS;

type Query = BTreeMap<String, String>;

pub(super) fn list(fake: &Fake, who: &Principal, nca: &str, query: &Query) -> Result<Answer, Answer> {
    let others = flag(query, "includeAuthorizedClusters")?;
    who.needs(&["cluster-management"])?;
    let now = fake.now_unix_ms();
    let clusters = fake.read(|state| {
        // By name, which is how they are kept.
        let mut clusters: Vec<Value> = state.of_account(nca).map(|row| told(state, &row, now)).collect();
        if others {
            let is_shared =
                |row: &&Row| row.nca_id != nca && (row.authorized.contains(nca) || row.authorized.contains("*"));
            clusters.extend(state.by_id.values().filter(is_shared).map(|row| told(state, row, now)));
        }
        clusters
    });
    Ok(Answer::ok(&json!(clusters)))
}

fn flag(query: &Query, name: &str) -> Result<bool, Answer> {
    match query.get(name).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("" | "false" | "off" | "no" | "0") => Ok(false),
        Some("true" | "on" | "yes" | "1") => Ok(true),
        Some(_) => {
            let value = query.get(name).cloned().unwrap_or_default();
            Err(Answer::error(400, format!("{name} has invalid value: {value}")))
        }
    }
}

pub(super) fn get(fake: &Fake, who: &Principal, nca: &str, id: &str) -> Result<Answer, Answer> {
    who.needs(&["cluster-management"])?;
    let now = fake.now_unix_ms();
    fake.read(|state| {
        let Some(row) = state.by_id.get(id) else {
            let text = format!("Can not find any cluster for {nca} ncaId and {id} clusterId");
            return Err(Answer::error(404, text));
        };
        if row.nca_id != nca {
            return Err(Answer::error(
                409,
                format!("{nca} ncaId doesn't exists for {id} clusterId"),
            ));
        }
        Ok(Answer::ok(&told(state, row, now)))
    })
}

pub(super) fn delete(fake: &Fake, who: &Principal, nca: &str, id: &str) -> Result<Answer, Answer> {
    who.needs(&["cluster-management"])?;
    fake.change(|state| {
        let Some(row) = state.by_id.get(id) else {
            let text = format!("Could not find any cluster registered with id {id}");
            return Err(Answer::error(404, text));
        };
        if row.nca_id != nca {
            let text = format!(
                "The provided cluster ID is registered with different ncaId. Specified ncaId {nca}, ncaId associated for \
                 cluster {}",
                row.nca_id
            );
            return Err(Answer::error(409, text));
        }
        let active: Vec<String> = state.active(id).into_iter().map(|(instance, ..)| instance).collect();
        if !active.is_empty() {
            let text =
                format!("Cluster un-registration failed, terminate following active instances [{}]", active.join(", "));
            return Err(Answer::error(409, text));
        }
        state.remove(id);
        Ok(Answer::empty(200))
    })
}

pub(super) fn versions(who: &Principal) -> Result<Answer, Answer> {
    who.needs(&["cluster-management"])?;
    Ok(Answer::ok(
        &json!({"clusterRegions": REGIONS.as_slice(), "clusterSources": SOURCES}),
    ))
}

pub(super) fn groups(fake: &Fake, who: &Principal, nca: &str, query: &Query) -> Result<Answer, Answer> {
    if let Some(usage) = query
        .get("instanceTypeUsage")
        .filter(|usage| !matches!(usage.as_str(), "DEFAULT" | "CONTAINER"))
    {
        let text =
            format!("Invalid {usage} value for instanceTypeUsage provided, expected values: DEFAULT | CONTAINER");
        return Err(Answer::error(400, text));
    }
    who.needs(&["cluster_listing"])?;
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    fake.read(|state| {
        for row in state
            .of_account(nca)
            .filter(|row| row.registered.is_some() && !row.gpus.is_empty())
        {
            groups.entry(row.group_id.clone()).or_default().push(row);
        }
    });
    let groups: Vec<Value> = groups.values().filter_map(|rows| group(rows)).collect();
    Ok(Answer::ok(&json!({ "clusterGroups": groups })))
}

fn group(rows: &[Row]) -> Option<Value> {
    let first = rows.first()?;
    let mut gpus: BTreeMap<String, Value> = BTreeMap::new();
    for gpu in rows.iter().flat_map(|row| &row.gpus) {
        let kinds = gpu["instanceTypes"].as_array().into_iter().flatten().map(|kind| {
            json!({"name": kind["name"], "value": kind["value"], "description": kind["description"],
                "default": kind["default"], "nodeType": kind["nodeType"]})
        });
        let kinds: Vec<Value> = kinds.collect();
        let name = gpu["name"].as_str().unwrap_or_default().to_owned();
        gpus.entry(name.clone())
            .or_insert_with(|| json!({"name": name, "instanceTypes": kinds}));
    }
    let clusters = rows
        .iter()
        .map(|row| json!({"k8sVersion": row.k8s_version, "id": row.cluster_id, "name": row.name}));
    Some(
        json!({"id": first.group_id, "name": first.group_name, "ncaId": first.nca_id,
        "authorizedNcaIds": first.authorized, "gpus": gpus.values().collect::<Vec<_>>(),
        "clusters": clusters.collect::<Vec<_>>()}),
    )
}
