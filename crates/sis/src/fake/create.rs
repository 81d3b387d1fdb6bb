//! `POST …/clusters`: not idempotent, without a lock, in the order of checks that was seen.

use std::collections::BTreeSet;

use serde_json::json;
use uuid::Uuid;

use super::{
    Fake,
    auth::Principal,
    body::{Enum, Fields},
    gpus, jwks,
    message::Answer,
    state::{Row, State},
};
use crate::{ClusterId, check};

const LONGEST: usize = 32;
/// The attributes that are known of; the real service knows six more.
const ATTRIBUTES: [&str; 8] = [
    "AccountIsolation",
    "CacheOptimized",
    "HostIsolation",
    "KataRuntimeIsolation",
    "NVLinkOptimized",
    "OVCSecurityEnforcements",
    "PassthroughGPUEnabled",
    "TimeSlicingGPUEnabled",
];
pub(super) const SOURCES: [&str; 2] = ["ngc-managed", "helm-managed"];
pub(super) const PROVIDER: Enum = Enum {
    class: "com.nvidia.icms.inbound.rest.model.byoc.ClusterProviderEnum",
    values: &[
        "ON-PREM",
        "DGX-CLOUD",
        "AWS",
        "OCI",
        "AZURE",
        "GDN",
        "GFN",
        "GCP",
        "NCP",
    ],
};

pub(super) async fn create(fake: &Fake, who: &Principal, nca: &str, body: &Fields) -> Result<Answer, Answer> {
    let row = parse(body)?;
    let parsed_gpus = gpus::parse(body)?;
    who.needs(&["cluster-management"])?;
    check_alone(
        &row,
        || fake.read(|state| state.by_name.contains_key(&State::key(nca, &row.name))),
        nca,
    )?;
    let row = fake.read(|state| settled(state, row, nca, &parsed_gpus, body))?;
    // The real service looks and writes without a lock.
    tokio::time::sleep(fake.config.race_window).await;
    let answer = json!({"clusterId": row.cluster_id, "clusterGroupId": row.group_id});
    fake.change(|state| state.put(row));
    Ok(Answer::ok(&answer))
}

/// The body as a row, once its required fields are there.
fn parse(body: &Fields) -> Result<Row, Answer> {
    let provider = body.one_of("cloudProvider", &PROVIDER)?;
    let mut missing = Vec::new();
    for name in ["clusterName", "clusterGroupName", "ncaId", "nvcaVersion", "region"] {
        if body.filled(name)?.is_none() {
            missing.push(format!("{name} must be provided"));
        }
    }
    if provider.is_none() {
        missing.push("cloudProvider must not be null".to_owned());
    }
    one_at_random(missing)?;
    let client_id = ["oAuthClientId", "oauthClientId", "OAuthClientId", "ssaClientId"];
    let mut given = None;
    for name in client_id {
        given = match given {
            None => body.filled(name)?,
            some => some,
        };
    }
    let text = |name: &str| body.text(name).map(Option::unwrap_or_default);
    Ok(Row {
        name: text("clusterName")?,
        group_name: text("clusterGroupName")?,
        nca_id: text("ncaId")?,
        nvca_version: text("nvcaVersion")?,
        region: text("region")?,
        provider: provider.unwrap_or_default(),
        description: body.text("clusterDescription")?,
        authorized: body.texts("authorizedNCAIds")?.unwrap_or_default(),
        capabilities: body.texts("capabilities")?.unwrap_or_default(),
        attributes: body.texts("attributes")?.unwrap_or_default(),
        custom_attributes: body.raw("customAttributes").clone(),
        client_id: given,
        source: body.filled("clusterSource")?.unwrap_or_else(|| SOURCES[0].to_owned()),
        key_id: body.text("clusterKeyId")?,
        configurations: body.raw("clusterConfigurations").clone(),
        configuration_files: body.raw("clusterConfigurationFiles").clone(),
        jwks: body.filled("jwks")?,
        oidc_issuer: body.filled("oidcIssuer")?.map(|issuer| issuer.trim().to_owned()),
        ..Row::default()
    })
}

/// Of several mistakes the service tells one, another one each time.
pub(super) fn one_at_random(mut texts: Vec<String>) -> Result<(), Answer> {
    if texts.is_empty() {
        return Ok(());
    }
    // The low bits of a random UUID: the only randomness that is needed here.
    let index = usize::try_from(Uuid::new_v4().as_u128() % texts.len() as u128).unwrap_or_default();
    Err(Answer::error(400, texts.swap_remove(index)))
}

/// What is checked before the group is looked at (400).
fn check_alone(row: &Row, exists: impl FnOnce() -> bool, nca: &str) -> Result<(), Answer> {
    let name = &row.name;
    if !is_label(name) {
        let format = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
        let text = format!("Provided clusterName {name} is not with RFC1123 subdomain format {format}");
        return Err(Answer::error(400, text));
    }
    if exists() {
        return Err(Answer::error(
            400,
            format!("Cluster with clusterName {name} already exists"),
        ));
    }
    if row.nca_id != nca {
        // The two are swapped in the real text, too.
        let text = format!(
            "The provided {nca} nca-id in request does not match {} nca-id provided in path",
            row.nca_id
        );
        return Err(Answer::error(400, text));
    }
    check_words(row)
}

/// Attributes, region, source (400), also of an update.
pub(super) fn check_words(row: &Row) -> Result<(), Answer> {
    if let Some(unknown) = row
        .attributes
        .iter()
        .find(|attribute| !ATTRIBUTES.contains(&attribute.as_str()))
    {
        let known = ATTRIBUTES.join(", ");
        let text = format!("The provided {unknown} attribute is not a known attribute. Known attributes: [{known}]");
        return Err(Answer::error(400, text));
    }
    let region = &row.region;
    if !check::REGIONS.contains(&region.to_lowercase().as_str()) {
        let text = format!("The provided {region} region is not one of the supported regions");
        return Err(Answer::error(400, text));
    }
    let source = &row.source;
    if !SOURCES.contains(&source.to_lowercase().as_str()) {
        let text = format!("The provided {source} cluster source is not one of the supported sources");
        return Err(Answer::error(400, text));
    }
    Ok(())
}

/// The checks against what is there, and the row as it will be stored.
fn settled(state: &State, mut row: Row, nca: &str, parsed: &[gpus::Gpu], body: &Fields) -> Result<Row, Answer> {
    row.region = row.region.to_lowercase();
    row.source = row.source.to_lowercase();
    let peers = state.group(nca, &row.group_name);
    if peers.is_empty() {
        check_lengths(&row.name, &row.group_name, row.description.as_deref())?;
    }
    let derived = row.client_id.as_deref().map(ClusterId::of_client);
    if let (Some(id), Some(client)) = (&derived, &row.client_id)
        && state.by_id.contains_key(id.as_str())
    {
        let text = format!("Provided {client} client ID is already registered with another cluster");
        return Err(Answer::error(409, text));
    }
    if peers.first().is_some_and(|peer| peer.provider != row.provider) {
        let text = format!(
            "Specified cloudProvider {} is different than cloudProvider of clusterGroup",
            row.provider
        );
        return Err(Answer::error(409, text));
    }
    check_authorized(&row.authorized, nca, peers.is_empty() && row.client_id.is_none())?;
    gpus::check_discovery(&row, parsed)?;
    gpus::check(parsed)?;
    gpus::check_peers(parsed, &peers, Some(&row))?;
    if body.raw("jwks").is_string()
        && let Some(text) = &row.jwks
    {
        jwks::check_owner(state, &jwks::parse_sized(text)?, "")?;
    }
    row.gpus = gpus::to_store(parsed);
    row.cluster_id = derived.map_or_else(|| Uuid::new_v4().to_string(), |id| id.to_string());
    row.group_id = peers
        .first()
        .map_or_else(|| Uuid::new_v4().to_string(), |peer| peer.group_id.clone());
    Ok(row)
}

/// The limits of a new group (412).
pub(super) fn check_lengths(name: &str, group: &str, description: Option<&str>) -> Result<(), Answer> {
    let fields = [
        ("name", name),
        ("group name", group),
        ("description", description.unwrap_or_default()),
    ];
    for (field, value) in fields {
        if value.chars().count() > LONGEST {
            // What stands between is not known of the real text.
            let text = format!("The cluster {field} {value} exceeds the limit of {LONGEST} chars");
            return Err(Answer::error(412, text));
        }
    }
    Ok(())
}

/// Who else may use the cluster (409). `is_external`: a cluster of nobody's client in a group of its own.
pub(super) fn check_authorized(authorized: &BTreeSet<String>, nca: &str, is_external: bool) -> Result<(), Answer> {
    let text = if authorized.contains(nca) {
        format!("Specified ncaId {nca} is duplicated in the set of authorized ncaIds.")
    } else if authorized.contains("*") && authorized.len() > 1 {
        "If specified authorized nca ids contains * then it should not have other entries.".to_owned()
    } else if authorized.contains("*") && is_external {
        "External clusters can not be publicly accessible".to_owned()
    } else {
        return Ok(());
    };
    Err(Answer::error(409, text))
}

fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = bytes.first().is_some_and(|b| is_inner(*b)) && bytes.last().is_some_and(|b| is_inner(*b));
    ends && bytes.iter().all(|byte| is_inner(*byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::CloudProvider;

    #[test]
    fn the_providers_are_those_of_the_wire_in_their_order() {
        let ours: Vec<&str> = CloudProvider::ALL.into_iter().map(CloudProvider::as_str).collect();
        assert_eq!(ours, PROVIDER.values);
    }
}
