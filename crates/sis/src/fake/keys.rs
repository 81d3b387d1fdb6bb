//! The trusted issuers' key sets: fetched when first needed, kept, fetched again for a key that is not known.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;

/// The service gives up on a key set after this.
const DEADLINE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct KeySets {
    urls: BTreeMap<String, String>,
    cached: Mutex<BTreeMap<String, Vec<Value>>>,
    http: reqwest::Client,
}

impl KeySets {
    pub(super) fn new(issuers: Vec<(String, String)>) -> Self {
        Self {
            urls: issuers.into_iter().collect(),
            cached: Mutex::default(),
            http: reqwest::Client::new(),
        }
    }

    pub(super) fn is_trusted(&self, issuer: &str) -> bool {
        self.urls.contains_key(issuer)
    }

    /// The issuer's keys; with `kid`, fetched anew if none is called so. `None`: there are none to be had.
    pub(super) async fn of(&self, issuer: &str, kid: Option<&str>) -> Option<Vec<Value>> {
        let cached = self.cached.lock().get(issuer).cloned();
        if let Some(keys) = cached
            && kid.is_none_or(|kid| keys.iter().any(|key| key["kid"].as_str() == Some(kid)))
        {
            return Some(keys);
        }
        let fetched = self.fetch(self.urls.get(issuer)?).await?;
        self.cached.lock().insert(issuer.to_owned(), fetched.clone());
        Some(fetched)
    }

    async fn fetch(&self, url: &str) -> Option<Vec<Value>> {
        let answer = async {
            let response = self.http.get(url).send().await.ok()?;
            let set: Value = response.error_for_status().ok()?.json().await.ok()?;
            set["keys"].as_array().cloned()
        };
        tokio::time::timeout(DEADLINE, answer).await.ok().flatten()
    }
}
