//! What the service remembers, and its file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StateError;

/// A heartbeat counts for this long.
pub(super) const HEARTBEAT_MS: u64 = 600_000;

/// Everything. By id and by name apart, as in the real database: a race makes them differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) by_id: BTreeMap<String, Row>,
    /// Key: account, a slash, the name.
    pub(super) by_name: BTreeMap<String, Listed>,
    /// By cluster id, also of clusters that are gone.
    pub(super) beats: BTreeMap<String, Beat>,
    pub(super) requests: BTreeMap<String, Asked>,
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Row {
    pub(super) cluster_id: String,
    pub(super) group_id: String,
    pub(super) name: String,
    pub(super) group_name: String,
    pub(super) description: Option<String>,
    pub(super) nca_id: String,
    pub(super) authorized: BTreeSet<String>,
    pub(super) provider: String,
    pub(super) region: String,
    pub(super) capabilities: BTreeSet<String>,
    pub(super) attributes: BTreeSet<String>,
    pub(super) custom_attributes: Value,
    pub(super) gpus: Vec<Value>,
    pub(super) nvca_version: String,
    pub(super) client_id: Option<String>,
    pub(super) source: String,
    pub(super) key_id: Option<String>,
    pub(super) configurations: Value,
    pub(super) configuration_files: Value,
    pub(super) jwks: Option<String>,
    pub(super) oidc_issuer: Option<String>,
    /// As its agent registered it.
    pub(super) registered: Option<String>,
    pub(super) last_connected: Option<String>,
    pub(super) k8s_version: Option<String>,
    pub(super) upgrade_status: Option<String>,
    pub(super) targeting: bool,
}

/// What the list by name holds of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) cluster_id: String,
    pub(super) group_id: String,
    pub(super) group_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Beat {
    pub(super) at_unix_ms: u64,
    pub(super) healthy: bool,
    /// GPU name → `{available, capacity, allocated}`.
    pub(super) usage: BTreeMap<String, [i64; 3]>,
}

/// A request for instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    pub(super) nca_id: String,
    pub(super) cluster_id: String,
    pub(super) gpu: String,
    pub(super) kind_name: String,
    pub(super) kind_value: String,
    pub(super) count: i64,
    /// `open`, `active`, `closed`, `canceled`.
    pub(super) state: String,
    /// E.g. `pending-evaluation`.
    pub(super) status: String,
    pub(super) acknowledged: i64,
    /// Instance id → state.
    pub(super) instances: BTreeMap<String, String>,
    /// Instance id → what was said of its end.
    pub(super) ends: BTreeMap<String, Value>,
    pub(super) is_task: bool,
}

/// The file with the state.
#[derive(Debug)]
pub(super) struct Store {
    path: Option<PathBuf>,
}

impl State {
    pub(super) fn key(nca: &str, name: &str) -> String {
        format!("{nca}/{name}")
    }

    /// The account's clusters by name: one entry for each name, with the group that the name has.
    pub(super) fn of_account<'a>(&'a self, nca: &'a str) -> impl Iterator<Item = Row> + 'a {
        self.by_name.iter().filter_map(move |(key, listed)| {
            let (account, name) = key.split_once('/')?;
            let row = self.by_id.get(&listed.cluster_id).filter(|_| account == nca)?;
            Some(Row {
                name: name.to_owned(),
                group_id: listed.group_id.clone(),
                group_name: listed.group_name.clone(),
                ..row.clone()
            })
        })
    }

    /// The clusters of the account's group of exactly this name.
    pub(super) fn group(&self, nca: &str, group: &str) -> Vec<Row> {
        self.of_account(nca).filter(|row| row.group_name == group).collect()
    }

    pub(super) fn put(&mut self, row: Row) {
        let listed = Listed {
            cluster_id: row.cluster_id.clone(),
            group_id: row.group_id.clone(),
            group_name: row.group_name.clone(),
        };
        self.by_name.insert(Self::key(&row.nca_id, &row.name), listed);
        self.by_id.insert(row.cluster_id.clone(), row);
    }

    pub(super) fn remove(&mut self, cluster: &str) {
        self.by_id.remove(cluster);
        self.by_name.retain(|_, listed| listed.cluster_id != cluster);
    }

    /// The last heartbeat, if it still counts.
    pub(super) fn beat(&self, cluster: &str, now: u64) -> Option<&Beat> {
        self.beats
            .get(cluster)
            .filter(|beat| now.saturating_sub(beat.at_unix_ms) < HEARTBEAT_MS)
    }

    /// What a reader is told: computed, not stored.
    pub(super) fn status(&self, row: &Row, now: u64) -> String {
        match row.registered.as_deref() {
            None => "NOT_READY".to_owned(),
            Some("READY") => {
                let is_healthy = self.beat(&row.cluster_id, now).is_some_and(|beat| beat.healthy);
                if is_healthy { "READY" } else { "UNHEALTHY" }.to_owned()
            }
            Some(other) => other.to_owned(),
        }
    }

    /// Instances of the cluster that are not over: id, request, state, the type's name.
    pub(super) fn active(&self, cluster: &str) -> Vec<(String, String, String, String)> {
        let requests = self.requests.iter().filter(|(_, asked)| asked.cluster_id == cluster);
        let instances = requests.flat_map(|(request, asked)| {
            let running = asked.instances.iter().filter(|(_, state)| *state != "terminated");
            running.map(|(id, state)| (id.clone(), request.clone(), state.clone(), asked.kind_name.clone()))
        });
        instances.collect()
    }
}

impl Store {
    pub(super) fn in_dir(dir: Option<PathBuf>) -> Self {
        Self {
            path: dir.map(|dir| dir.join("state.json")),
        }
    }

    pub(super) fn load(&self) -> Result<State, StateError> {
        let Some(path) = &self.path else {
            return Ok(State::default());
        };
        let failed = |source| StateError {
            path: path.clone(),
            source,
        };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whole, by renaming.
    pub(super) fn save(&self, state: &State) -> Result<(), StateError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let unfinished = path.with_extension("tmp");
        let write = || {
            fs::write(&unfinished, serde_json::to_vec_pretty(state)?)?;
            fs::rename(&unfinished, path)
        };
        write().map_err(|source| StateError {
            path: path.clone(),
            source,
        })
    }
}
