//! The key-value engine, version 2: versions, check-and-set, soft deletion, metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Answer, Refusal, Verb, core::Request, duration::rfc3339};

/// Versions kept of a secret that says nothing else.
const MAX_VERSIONS: usize = 10;

/// One mount of the engine.
#[derive(Debug, Default)]
pub(super) struct Kv {
    secrets: BTreeMap<String, Secret>,
}

#[derive(Debug)]
struct Secret {
    versions: BTreeMap<u64, Version>,
    current: u64,
    created: u64,
    updated: u64,
    cas_required: bool,
    /// Zero: the engine's default.
    max_versions: usize,
    custom_metadata: Value,
}

#[derive(Debug, Clone)]
struct Version {
    /// `None`: destroyed.
    data: Option<Map<String, Value>>,
    created: u64,
    deleted: Option<u64>,
}

// === impl Kv ===

impl Kv {
    /// Whether a write to this path changes something, which needs `update` and not `create`.
    pub(super) fn exists(&self, path: &str) -> bool {
        let key = path.split_once('/').map_or("", |(_, key)| key);
        self.secrets.contains_key(key)
    }

    /// `path` is what follows the mount: `data/NAME`.
    pub(super) fn handle(&mut self, path: &str, request: &Request, now: u64) -> Result<Answer, Refusal> {
        let (part, key) = path.split_once('/').unwrap_or((path, ""));
        match (part, request.verb) {
            ("data", Verb::Read) => self.read(key, request.query_number("version"), now),
            ("data", Verb::Write) => self.write(key, &request.body, now),
            ("data", Verb::Delete) => Ok(self.delete_latest(key, now)),
            ("delete", Verb::Write) => self.each(key, &request.body, |version| {
                version.deleted.get_or_insert(now);
            }),
            ("undelete", Verb::Write) => self.each(key, &request.body, |version| version.deleted = None),
            ("destroy", Verb::Write) => self.each(key, &request.body, |version| version.data = None),
            ("metadata", Verb::Read) => self.metadata(key),
            ("metadata", Verb::Write) => Ok(self.write_metadata(key, &request.body, now)),
            ("metadata", Verb::Delete) => {
                self.secrets.remove(key);
                Ok(Answer::nothing())
            }
            ("metadata", Verb::List) => self.list(key),
            ("data" | "delete" | "undelete" | "destroy", _) => Err(Refusal::UnsupportedOperation),
            _ => Err(Refusal::UnsupportedPath),
        }
    }

    fn read(&self, key: &str, version: Option<u64>, now: u64) -> Result<Answer, Refusal> {
        let secret = self.secrets.get(key).ok_or(Refusal::NotFound)?;
        let number = version.filter(|number| *number > 0).unwrap_or(secret.current);
        let version = secret.versions.get(&number).ok_or(Refusal::NotFound)?;
        let mut metadata = version.metadata();
        metadata["version"] = json!(number);
        metadata["custom_metadata"] = secret.custom_metadata.clone();
        let deleted = version.deleted.is_some_and(|deleted| deleted <= now);
        match &version.data {
            Some(data) if !deleted => Ok(Answer::data(json!({"data": data, "metadata": metadata}))),
            _ => Ok(Answer::gone(json!({"data": null, "metadata": metadata}))),
        }
    }

    fn write(&mut self, key: &str, body: &Map<String, Value>, now: u64) -> Result<Answer, Refusal> {
        if key.is_empty() {
            return Err(Refusal::bad("missing path"));
        }
        let data = body.get("data").and_then(Value::as_object);
        let data = data.ok_or_else(|| Refusal::bad("no data provided"))?.clone();
        let known = self.secrets.get(key);
        let current = known.map_or(0, |secret| secret.current);
        match body.get("options").and_then(|options| options.get("cas")) {
            Some(cas) => {
                let cas = cas.as_u64().or_else(|| cas.as_str()?.parse().ok());
                let cas = cas.ok_or_else(|| Refusal::bad("error parsing check-and-set parameter"))?;
                if cas != current {
                    return Err(Refusal::bad(
                        "check-and-set parameter did not match the current version",
                    ));
                }
            }
            None if known.is_some_and(|secret| secret.cas_required) => {
                return Err(Refusal::bad("check-and-set parameter required for this call"));
            }
            None => {}
        }
        let secret = self.secrets.entry(key.to_owned()).or_insert_with(|| Secret::new(now));
        secret.current += 1;
        secret.updated = now;
        let version = Version {
            data: Some(data),
            created: now,
            deleted: None,
        };
        let mut answer = version.metadata();
        answer["version"] = json!(secret.current);
        answer["custom_metadata"] = secret.custom_metadata.clone();
        secret.versions.insert(secret.current, version);
        let most = if secret.max_versions == 0 {
            MAX_VERSIONS
        } else {
            secret.max_versions
        };
        while secret.versions.len() > most {
            secret.versions.pop_first();
        }
        Ok(Answer::data(answer))
    }

    fn delete_latest(&mut self, key: &str, now: u64) -> Answer {
        if let Some(secret) = self.secrets.get_mut(key)
            && let Some(version) = secret.versions.get_mut(&secret.current)
        {
            version.deleted.get_or_insert(now);
        }
        Answer::nothing()
    }

    /// Changes the versions that the body names.
    fn each(
        &mut self,
        key: &str,
        body: &Map<String, Value>,
        mut change: impl FnMut(&mut Version),
    ) -> Result<Answer, Refusal> {
        let numbers: Vec<u64> = match body.get("versions") {
            Some(Value::Array(numbers)) => numbers
                .iter()
                .filter_map(|number| number.as_u64().or_else(|| number.as_str()?.parse().ok()))
                .collect(),
            Some(Value::String(text)) => text
                .split(',')
                .filter_map(|number| number.trim().parse().ok())
                .collect(),
            _ => Vec::new(),
        };
        if numbers.is_empty() {
            return Err(Refusal::bad("No version number provided"));
        }
        let secret = self.secrets.get_mut(key).ok_or(Refusal::NotFound)?;
        for number in numbers {
            if let Some(version) = secret
                .versions
                .get_mut(&number)
                .filter(|version| version.data.is_some())
            {
                change(version);
            }
        }
        Ok(Answer::nothing())
    }

    fn metadata(&self, key: &str) -> Result<Answer, Refusal> {
        let secret = self.secrets.get(key).ok_or(Refusal::NotFound)?;
        let versions: Map<String, Value> = secret
            .versions
            .iter()
            .map(|(number, version)| (number.to_string(), version.metadata()))
            .collect();
        Ok(Answer::data(json!({
            "versions": versions, "current_version": secret.current,
            "oldest_version": secret.versions.first_key_value().map_or(0, |(number, _)| *number),
            "created_time": rfc3339(secret.created), "updated_time": rfc3339(secret.updated),
            "max_versions": secret.max_versions, "cas_required": secret.cas_required,
            "delete_version_after": "0s", "custom_metadata": secret.custom_metadata,
        })))
    }

    fn write_metadata(&mut self, key: &str, body: &Map<String, Value>, now: u64) -> Answer {
        let secret = self.secrets.entry(key.to_owned()).or_insert_with(|| Secret::new(now));
        if let Some(required) = body.get("cas_required").and_then(Value::as_bool) {
            secret.cas_required = required;
        }
        if let Some(most) = body.get("max_versions").and_then(Value::as_u64) {
            secret.max_versions = usize::try_from(most).unwrap_or(usize::MAX);
        }
        if let Some(custom) = body.get("custom_metadata") {
            secret.custom_metadata = custom.clone();
        }
        secret.updated = now;
        Answer::nothing()
    }

    /// The names right below a folder; a folder's own name ends with a slash.
    fn list(&self, folder: &str) -> Result<Answer, Refusal> {
        let folder = match folder.trim_end_matches('/') {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let mut names: Vec<String> = self
            .secrets
            .keys()
            .filter_map(|key| key.strip_prefix(&folder))
            .map(|rest| rest.find('/').map_or(rest, |end| &rest[..=end]).to_owned())
            .collect();
        names.dedup();
        if names.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(Answer::data(json!({"keys": names})))
    }
}

// === impl Secret ===

impl Secret {
    fn new(now: u64) -> Self {
        Self {
            versions: BTreeMap::new(),
            current: 0,
            created: now,
            updated: now,
            cas_required: false,
            max_versions: 0,
            custom_metadata: Value::Null,
        }
    }
}

// === impl Version ===

impl Version {
    fn metadata(&self) -> Value {
        json!({
            "created_time": rfc3339(self.created),
            "deletion_time": self.deleted.map(rfc3339).unwrap_or_default(),
            "destroyed": self.data.is_none(),
        })
    }
}
