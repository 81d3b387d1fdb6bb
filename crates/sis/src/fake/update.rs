//! `PUT …/clusters/{id}`: what is left out is in part kept and in part reset; into another group much is lost.

use serde_json::Value;
use uuid::Uuid;

use super::{
    Fake,
    auth::Principal,
    body::Fields,
    create::{PROVIDER, SOURCES, check_authorized, check_lengths, check_words, one_at_random},
    gpus,
    message::Answer,
    state::{Row, State},
};

pub(super) fn update(fake: &Fake, who: &Principal, nca: &str, id: &str, body: &Fields) -> Result<Answer, Answer> {
    let provider = body.one_of("cloudProvider", &PROVIDER)?;
    let mut missing = Vec::new();
    for name in ["clusterGroupName", "nvcaVersion", "region"] {
        if body.filled(name)?.is_none() {
            missing.push(format!("{name} must be provided"));
        }
    }
    if provider.is_none() {
        missing.push("cloudProvider must not be null".to_owned());
    }
    one_at_random(missing)?;
    let parsed = gpus::parse(body)?;
    who.needs(&["cluster-management"])?;
    fake.change(|state| {
        let stored = state.by_id.get(id).cloned();
        let mut row = stored.clone().unwrap_or_default();
        let text = |name: &str| body.text(name).map(Option::unwrap_or_default);
        row.nvca_version = text("nvcaVersion")?;
        row.region = text("region")?;
        row.provider = provider.unwrap_or_default();
        row.source = body.filled("clusterSource")?.unwrap_or_else(|| SOURCES[0].to_owned());
        row.attributes = body.texts("attributes")?.unwrap_or_default();
        row.authorized = body.texts("authorizedNCAIds")?.unwrap_or_default();
        row.capabilities = body.texts("capabilities")?.unwrap_or_default();
        check_words(&row)?;
        let Some(old) = stored else {
            return Err(Answer::error(404, format!("Cluster with clusterId {id} does not exist")));
        };
        if old.nca_id != nca {
            let owner = &old.nca_id;
            let text = format!(
                "There exists an entry for the cluster with different ncaId. Specified ncaId {owner}, existing ncaId {nca}"
            );
            return Err(Answer::error(409, text));
        }
        let group = text("clusterGroupName")?;
        let peers: Vec<Row> = state.group(nca, &group).into_iter().filter(|peer| peer.cluster_id != id).collect();
        let stays = group == old.group_name;
        check_authorized(&row.authorized, nca, !stays && peers.is_empty() && old.client_id.is_none())?;
        let row = if stays {
            same_group(&old, row, &parsed, &peers, body)?
        } else {
            let description = body.text("clusterDescription")?;
            other_group(state, &old, row, group, &peers, description.as_deref(), &parsed)?
        };
        state.put(Row {
            region: row.region.to_lowercase(),
            source: row.source.to_lowercase(),
            ..row
        });
        Ok(Answer::empty(200))
    })
}

fn same_group(old: &Row, mut row: Row, parsed: &[gpus::Gpu], peers: &[Row], body: &Fields) -> Result<Row, Answer> {
    gpus::check_discovery(&row, parsed)?;
    gpus::check(parsed)?;
    gpus::check_peers(parsed, peers, Some(&row))?;
    if row.provider != old.provider {
        return Err(Answer::error(
            409,
            "Cloud provider can not be changed when cluster group is same",
        ));
    }
    // Left out or null: kept. An empty description clears it.
    if let Some(description) = body.text("clusterDescription")? {
        row.description = Some(description).filter(|text| !text.is_empty());
    }
    if let Some(key) = body.text("clusterKeyId")? {
        row.key_id = Some(key);
    }
    if !body.raw("customAttributes").is_null() {
        row.custom_attributes = body.raw("customAttributes").clone();
    }
    row.configurations = body.raw("clusterConfigurations").clone();
    row.configuration_files = body.raw("clusterConfigurationFiles").clone();
    if !parsed.is_empty() {
        row.gpus = gpus::to_store(parsed);
    }
    Ok(row)
}

fn other_group(
    state: &State,
    old: &Row,
    mut row: Row,
    group: String,
    peers: &[Row],
    description: Option<&str>,
    parsed: &[gpus::Gpu],
) -> Result<Row, Answer> {
    if peers.is_empty() {
        check_lengths("", &group, description)?;
    }
    gpus::check_discovery(&row, parsed)?;
    gpus::check(parsed)?;
    if peers.first().is_some_and(|peer| peer.provider != row.provider) {
        let text = format!(
            "Specified cloudProvider {} is different than cloudProvider of clusterGroup",
            row.provider
        );
        return Err(Answer::error(409, text));
    }
    let is_alone = state.group(&old.nca_id, &old.group_name).len() < 2;
    let active: Vec<String> = state.active(&old.cluster_id).into_iter().map(|(id, ..)| id).collect();
    if is_alone && !active.is_empty() {
        let text = format!(
            "Cluster reconfiguration failed, terminate following active instances [{}]",
            active.join(", ")
        );
        return Err(Answer::error(409, text));
    }
    row.group_id = peers
        .first()
        .map_or_else(|| Uuid::new_v4().to_string(), |peer| peer.group_id.clone());
    row.group_name = group;
    row.gpus = Vec::new();
    row.description = None;
    row.key_id = None;
    row.configurations = Value::Null;
    row.configuration_files = Value::Null;
    // A defect of the real service: the cluster's own tokens are worthless from now on.
    row.jwks = None;
    row.oidc_issuer = None;
    Ok(row)
}
