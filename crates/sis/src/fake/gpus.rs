//! GPUs and their instance types in a creation, an update or a registration: what is taken, and how it is stored.

use serde_json::{Map, Value, json};

use super::{body::Fields, message::Answer, state::Row};
use crate::check::DYNAMIC_DISCOVERY;

const LONGEST_NAME: usize = 22;

/// Of one GPU of the body, once it passed the checks of its fields.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    name: String,
    stored: Value,
    kinds: Vec<(String, Value)>,
    defaults: usize,
}

/// The list `gpus`, checked field by field (400).
pub(super) fn parse(body: &Fields) -> Result<Vec<Gpu>, Answer> {
    let blank = |text: &str| Answer::error(400, text);
    let mut gpus = Vec::new();
    for gpu in body.objects("gpus")? {
        let gpu = gpu.ok_or_else(|| blank("must not be null"))?;
        let name = gpu.filled("name")?.ok_or_else(|| blank("must not be blank"))?;
        if !gpu.has("instanceTypes") || gpu.raw("instanceTypes").is_null() {
            return Err(blank("must not be null"));
        }
        let mut kinds = Vec::new();
        let mut defaults = 0;
        for kind in gpu.objects("instanceTypes")? {
            let kind = kind.ok_or_else(|| blank("must not be null"))?;
            let kind_name = kind
                .filled("name")?
                .ok_or_else(|| blank("Instance name must not blank"))?;
            kind.filled("value")?
                .ok_or_else(|| blank("Instance value must not blank"))?;
            defaults += usize::from(kind.flag("default")?);
            kinds.push((kind_name, stored(&kind)?));
        }
        if kinds.is_empty() {
            return Err(blank("must not be empty"));
        }
        let list: Vec<&Value> = kinds.iter().map(|(_, kind)| kind).collect();
        let stored = json!({"name": name, "capacity": gpu.int("capacity")?, "instanceTypes": list});
        gpus.push(Gpu {
            name,
            stored,
            kinds,
            defaults,
        });
    }
    Ok(gpus)
}

fn stored(kind: &Fields) -> Result<Value, Answer> {
    let mut stored = Map::new();
    for name in [
        "name",
        "value",
        "description",
        "systemMemory",
        "gpuMemory",
        "cpuArch",
        "os",
        "driverVersion",
        "storage",
    ] {
        if let Some(text) = kind.text(name)? {
            stored.insert(name.to_owned(), json!(text));
        }
    }
    for name in ["cpuCores", "gpuCount"] {
        stored.insert(name.to_owned(), json!(kind.int(name)?));
    }
    stored.insert("default".to_owned(), json!(kind.flag("default")?));
    stored.insert(
        "nodeType".to_owned(),
        json!(kind.text("nodeType")?.unwrap_or_else(|| "SINGLE".to_owned())),
    );
    Ok(Value::Object(stored))
}

/// Names of GPUs (400), then the one default of each (409).
pub(super) fn check(gpus: &[Gpu]) -> Result<(), Answer> {
    for Gpu { name, .. } in gpus {
        let length = name.chars().count();
        if length > LONGEST_NAME {
            let text = format!("GPU name chars must be <={LONGEST_NAME}, provided {name} GPU name is of {length} size");
            return Err(Answer::error(400, text));
        }
        if !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            let text = format!(
                "GPU name '{name}' contains invalid characters. Only alphanumeric characters, hyphens (-), and \
                 underscores (_) are allowed."
            );
            return Err(Answer::error(400, text));
        }
    }
    if let Some(Gpu { name, defaults, .. }) = gpus.iter().find(|gpu| gpu.defaults != 1) {
        let text = format!(
            "There should be exactly one default instance type for each gpu, however gpu {name} is having {defaults} \
             default instance types"
        );
        return Err(Answer::error(409, text));
    }
    Ok(())
}

/// The rule of dynamic discovery (412), before the others.
pub(super) fn check_discovery(row: &Row, gpus: &[Gpu]) -> Result<(), Answer> {
    let is_dynamic = is_dynamic(row);
    let text = match (is_dynamic, gpus.is_empty()) {
        (false, true) => "does not contain DynamicGPUDiscovery so gpus must be provided",
        (true, false) => "contains DynamicGPUDiscovery so gpus must not be provided",
        _ => return Ok(()),
    };
    Err(Answer::error(412, format!("Cluster capabilities {text}")))
}

pub(super) fn is_dynamic(row: &Row) -> bool {
    row.capabilities.contains(DYNAMIC_DISCOVERY)
}

/// Members of a group that share a GPU must offer it in the same shapes (409).
pub(super) fn check_peers(gpus: &[Gpu], peers: &[Row], authorized: Option<&Row>) -> Result<(), Answer> {
    for gpu in gpus {
        let sharing = peers.iter().filter_map(|peer| {
            let theirs = peer.gpus.iter().find(|other| other["name"] == json!(gpu.name))?;
            Some((peer, theirs))
        });
        for (peer, theirs) in sharing {
            let theirs = theirs["instanceTypes"].as_array().cloned().unwrap_or_default();
            let differs = |(name, kind): &(String, Value)| {
                let other = theirs.iter().find(|other| other["name"] == json!(name));
                other.is_none_or(|other| spec(other) != spec(kind))
            };
            let lost = theirs
                .iter()
                .find(|other| gpu.kinds.iter().all(|(name, _)| other["name"] != json!(name)));
            let first = gpu
                .kinds
                .iter()
                .find(|kind| differs(kind))
                .map(|(name, _)| name.clone());
            let first = first.or_else(|| lost.and_then(|other| other["name"].as_str()).map(str::to_owned));
            if let Some(kind) = first {
                let name = &gpu.name;
                let text = format!(
                    "Specified instance type spec is not matching with the {kind} instance type spec of the cluster \
                     sharing {name} gpu in cluster group"
                );
                return Err(Answer::error(409, text));
            }
            if authorized.is_some_and(|row| row.authorized != peer.authorized) {
                let text = "Authorized nca ids are not matching with the authorized nca ids of the cluster having shared gpu(s)";
                return Err(Answer::error(409, text));
            }
        }
    }
    Ok(())
}

/// What two instance types of one name must have in common. Which fields count was not seen: all but the words.
fn spec(kind: &Value) -> Vec<&Value> {
    ["value", "cpuCores", "systemMemory", "gpuMemory", "gpuCount"]
        .iter()
        .map(|name| &kind[*name])
        .collect()
}

pub(super) fn to_store(gpus: &[Gpu]) -> Vec<Value> {
    gpus.iter().map(|gpu| gpu.stored.clone()).collect()
}

/// Names of the instance types that `gpus` offer.
pub(super) fn kind_names(gpus: &[Value]) -> Vec<String> {
    let kinds = gpus
        .iter()
        .flat_map(|gpu| gpu["instanceTypes"].as_array().into_iter().flatten());
    kinds
        .filter_map(|kind| kind["name"].as_str())
        .map(str::to_owned)
        .collect()
}
