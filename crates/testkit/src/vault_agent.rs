//! A stand-in for the vault agent that the injector puts into pods: it logs in with the pod's token, renders the templates
//! into files, and keeps them fresh.
//!
//! Owns the life of the files: written as a whole or not at all, kept when the server is sealed, slow or away, renewed
//! before what they hold runs out. It must not know what is in them, and shows no secret in a log or an error. On a kwok
//! node no container runs, so a test runs this with a folder in the place of the container's root.
//!
//! Times are the real agent's: a token is renewed after two thirds of its life, a lease that cannot be renewed is fetched
//! again after nine tenths, and what has no lease every five minutes (`static_secret_render_interval`). Where the real one
//! ends after many failures and is started again by the kubelet, this one goes on.

mod config;
mod files;
mod schedule;
mod template;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_runtime::SharedClock;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bao::{BaoClient, ClientError};

pub use config::{AgentConfig, ConfigError};
pub use template::{Query, Template, TemplateError};

use config::File;
use schedule::{after_failure, refetch_after, renew_after};

/// Takes a line for the log; no line holds a secret.
pub type Log = Box<dyn Fn(&str) + Send + Sync>;

/// One container's agent.
pub struct Agent {
    config: AgentConfig,
    client: BaoClient,
    /// Stands in the place of the container's `/`.
    root: PathBuf,
    clock: SharedClock,
    log: Log,
    files: Vec<(File, Template)>,
    session: Option<Session>,
    fetched: BTreeMap<Query, Fetched>,
}

struct Session {
    client: BaoClient,
    renew_at: Duration,
}

struct Fetched {
    secret: Value,
    again_at: Duration,
}

/// Why a file is not there, or not fresh.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error("cannot log in as {role} at {mount}")]
    Login {
        mount: String,
        role: String,
        #[source]
        source: ClientError,
    },
    #[error("cannot read the token {path}")]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the template {path}")]
    Source {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch {path}")]
    Fetch {
        path: String,
        #[source]
        source: ClientError,
    },
    #[error("cannot renew the token")]
    Renew(#[source] ClientError),
    #[error("cannot render {destination}")]
    Template {
        destination: String,
        #[source]
        source: TemplateError,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

// === impl Agent ===

impl Agent {
    /// `root` stands in the place of the container's `/`; `address` in that of the configured server's.
    pub fn new(config: AgentConfig, root: PathBuf, address: Option<&str>, clock: SharedClock, log: Log) -> Self {
        let mut client = BaoClient::new(address.unwrap_or(&config.address)).deadline(config.client_timeout);
        if let Some(pem) = config
            .ca_cert
            .as_ref()
            .and_then(|path| fs::read_to_string(below(&root, path)).ok())
        {
            client = client.ca(pem);
        }
        Self {
            config,
            client,
            root,
            clock,
            log,
            files: Vec::new(),
            session: None,
            fetched: BTreeMap::new(),
        }
    }

    /// Renders until `stop`; with `exit_after_auth` only until every file is there.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = match self.round().await {
                Ok(_) if self.config.exit_after_auth => return,
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    let wait = after_failure(failures, self.config.min_backoff, self.config.max_backoff);
                    let error = anyhow::Error::from(error);
                    (self.log)(&format!("{error:#}; again in {} ms", wait.as_millis()));
                    wait
                }
            };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Does what is due: logs in or renews, fetches, writes. Returns the time until something is due again.
    ///
    /// # Errors
    /// The first failure; what could be done in spite of it is done.
    pub async fn round(&mut self) -> Result<Duration, AgentError> {
        self.load_templates()?;
        let client = self.logged_in().await?;
        let mut first_error = None;
        for query in self.queries() {
            let due = self
                .fetched
                .get(&query)
                .is_none_or(|fetched| fetched.again_at <= self.clock.monotonic());
            if !due {
                continue;
            }
            if let Err(source) = self.fetch(&client, &query).await {
                let status = source.status();
                let path = query.path.clone();
                first_error.get_or_insert(AgentError::Fetch { path, source });
                match status {
                    // The token may be the reason: a new one next time.
                    Some(403) => self.session = None,
                    Some(_) => {}
                    // Nobody answers: asking for more would only take as long again.
                    None => break,
                }
            }
        }
        let rendered = self.render();
        if let Some(error) = first_error {
            return Err(error);
        }
        rendered?;
        let renewal = self.session.as_ref().map(|session| session.renew_at);
        let next = self
            .fetched
            .values()
            .map(|fetched| fetched.again_at)
            .chain(renewal)
            .min();
        Ok(next.unwrap_or_default().saturating_sub(self.clock.monotonic()))
    }

    fn load_templates(&mut self) -> Result<(), AgentError> {
        if !self.files.is_empty() {
            return Ok(());
        }
        let mut files = Vec::new();
        for file in &self.config.files {
            let text = match &file.source {
                Some(path) => {
                    let path = below(&self.root, path);
                    fs::read_to_string(&path).map_err(|source| AgentError::Source { path, source })?
                }
                None => file.contents.clone(),
            };
            let template = Template::parse(&text, &file.left, &file.right).map_err(|source| AgentError::Template {
                destination: file.destination.clone(),
                source,
            })?;
            files.push((file.clone(), template));
        }
        self.files = files;
        Ok(())
    }

    fn queries(&self) -> Vec<Query> {
        let mut queries: Vec<Query> = self.files.iter().flat_map(|(_, template)| template.queries()).collect();
        queries.sort();
        queries.dedup();
        queries
    }

    /// The client of a session that is not about to run out.
    async fn logged_in(&mut self) -> Result<BaoClient, AgentError> {
        let now = self.clock.monotonic();
        match &self.session {
            Some(session) if session.renew_at > now => return Ok(session.client.clone()),
            Some(session) => {
                let client = session.client.clone();
                match client.write("auth/token/renew-self", json!({})).await {
                    Ok(answer) => {
                        let renew_at = now + renew_after(&answer["auth"]);
                        (self.log)("renewed the token");
                        self.session = Some(Session {
                            client: client.clone(),
                            renew_at,
                        });
                        return Ok(client);
                    }
                    // The server knows the token no more, or the role is gone: a new login tells.
                    Err(error) if error.status().is_some_and(|status| status != 503) => self.session = None,
                    Err(error) => return Err(AgentError::Renew(error)),
                }
            }
            None => {}
        }
        let path = below(&self.root, &self.config.token_path);
        let jwt = fs::read_to_string(&path).map_err(|source| AgentError::Token { path, source })?;
        let (mount, role) = (&self.config.mount, &self.config.role);
        let auth = self.client.login(mount, role, jwt.trim()).await;
        let auth = auth.map_err(|source| AgentError::Login {
            mount: mount.clone(),
            role: role.clone(),
            source,
        })?;
        let token = auth["client_token"].as_str().unwrap_or_default();
        (self.log)(&format!("logged in as {role}"));
        for sink in &self.config.sinks {
            let path = below(&self.root, sink);
            files::write(&path, token, 0o640).map_err(|source| AgentError::Write { path, source })?;
        }
        let client = self.client.token(token);
        // Leases end with the token that they belong to.
        self.fetched.clear();
        self.session = Some(Session {
            client: client.clone(),
            renew_at: now + renew_after(&auth),
        });
        Ok(client)
    }

    async fn fetch(&mut self, client: &BaoClient, query: &Query) -> Result<(), ClientError> {
        let answer = if query.parameters.is_empty() {
            client.read(&query.path).await?
        } else {
            client.write(&query.path, json!(query.parameters)).await?
        };
        let again_at = self.clock.monotonic() + refetch_after(&answer, self.config.render_interval);
        let secret = json!({
            "RequestID": answer["request_id"], "LeaseID": answer["lease_id"], "Renewable": answer["renewable"],
            "LeaseDuration": answer["lease_duration"], "Data": answer["data"],
        });
        self.fetched.insert(query.clone(), Fetched { secret, again_at });
        Ok(())
    }

    /// Writes every file whose secrets are all there, where it differs from what is there.
    fn render(&self) -> Result<(), AgentError> {
        for (file, template) in &self.files {
            let secrets: BTreeMap<Query, &Value> = self
                .fetched
                .iter()
                .map(|(query, fetched)| (query.clone(), &fetched.secret))
                .collect();
            if template.queries().iter().any(|query| !secrets.contains_key(query)) {
                continue;
            }
            let text = template
                .render(&secrets, file.error_on_missing_key)
                .map_err(|source| AgentError::Template {
                    destination: file.destination.clone(),
                    source,
                })?;
            let path = below(&self.root, &file.destination);
            if files::differs(&path, &text) {
                files::write(&path, &text, file.mode).map_err(|source| AgentError::Write { path, source })?;
                (self.log)(&format!("rendered {}", file.destination));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// === impl AgentError ===

impl AgentError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Login { .. } => "Login",
            Self::Token { .. } => "Token",
            Self::Source { .. } => "Source",
            Self::Fetch { .. } => "Fetch",
            Self::Renew(_) => "Renew",
            Self::Template { .. } => "Template",
            Self::Write { .. } => "Write",
        }
    }
}

/// A container's absolute path below the folder that stands for its root.
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests;
