//! The client: one request with its deadline, token and checks; the calls are in `client/`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use berth_runtime::{Misread, SharedClock};
use reqwest::{
    Method, Url,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::{debug, warn};

use crate::{Backoff, ClusterId, RetryPolicy, SisError, TokenFile, TokenRules, error::Refusal};

mod agent;
mod cluster;

/// A connection is made within this, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// The service itself gives up on its database after ten.
const DEADLINE: Duration = Duration::from_secs(15);
/// More than any answer has, the list of a large account included.
const LONGEST_ANSWER: usize = 4 << 20;
/// Of a text that is told on.
const LONGEST_TEXT: usize = 400;
const CLUSTER_ID: HeaderName = HeaderName::from_static("x-nv-cluster-id");

/// Where the service is and who asks.
#[derive(Debug, Clone)]
pub struct SisConfig {
    /// E.g. `http://api.sis.svc.cluster.local:8080`.
    pub url: String,
    /// Sent as `Host` in place of the URL's, for a gateway that routes by it.
    pub host: Option<String>,
    /// E.g. `nvca/2.52.1`.
    pub user_agent: String,
    pub retry: RetryPolicy,
    /// Of one request, from the connection to the last byte; `None`: 15 s.
    pub deadline: Option<Duration>,
}

/// Asks the service. Clones share one connection pool and one token file.
#[derive(Debug, Clone)]
pub struct SisClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    base: Url,
    host: Option<HeaderValue>,
    token: TokenFile,
    rules: TokenRules,
    retry: RetryPolicy,
    deadline: Duration,
    clock: SharedClock,
    /// Spreads retries; another one for each request.
    seed: AtomicU64,
}

/// The client cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("`{url}` is no address of SIS: write e.g. http://api.sis.svc.cluster.local:8080")]
    Url { url: String },
    #[error("`{host}` cannot be a Host header")]
    Host { host: String },
    #[error("no HTTP client can be made")]
    Http(#[source] Box<reqwest::Error>),
}

/// One request, without its token.
#[derive(Debug, Clone)]
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    cluster: Option<&'a ClusterId>,
    body: Option<Vec<u8>>,
    /// May be sent again when it is not known whether it was carried out.
    repeats: bool,
}

impl SisClient {
    /// Makes no request yet. The process must have a crypto provider (`berth_runtime::tls::install_crypto_provider`).
    ///
    /// # Errors
    /// The URL or the host is none.
    pub fn new(
        config: &SisConfig,
        token: TokenFile,
        rules: TokenRules,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        let bad = || SetupError::Url {
            url: config.url.clone(),
        };
        let base = Url::parse(config.url.trim()).map_err(|_| bad())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() || base.cannot_be_a_base() {
            return Err(bad());
        }
        let host = config.host.as_ref().filter(|host| !host.is_empty());
        let host = host.map(|host| HeaderValue::from_str(host).map_err(|_| SetupError::Host { host: host.clone() }));
        let http = reqwest::Client::builder()
            .user_agent(config.user_agent.clone())
            .connect_timeout(CONNECT)
            // A redirected request would carry the token to somebody else.
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(2)
            // The service closes an idle connection after 60 s: the client must be first.
            .pool_idle_timeout(Duration::from_secs(45))
            .build()
            .map_err(|error| SetupError::Http(Box::new(error)))?;
        let seed = AtomicU64::new(clock.now_unix_ms());
        Ok(Self {
            shared: Arc::new(Shared {
                http,
                base,
                host: host.transpose()?,
                token,
                rules,
                retry: config.retry,
                deadline: config.deadline.unwrap_or(DEADLINE),
                clock,
                seed,
            }),
        })
    }

    pub fn token_file(&self) -> &TokenFile {
        &self.shared.token
    }

    /// Looks at the token as it is now, without a request.
    ///
    /// # Errors
    /// What the service would refuse it for.
    pub fn check_token(&self) -> Result<(), crate::TokenError> {
        self.authorization(None).map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, SisError> {
        let url = self.url(&call);
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|error| SisError::Nonsense {
            url,
            why: format!("its answer is not what this call answers: {}", Misread::from(error)),
        })
    }

    /// For calls whose answer is empty.
    async fn tell(&self, call: Call<'_>) -> Result<(), SisError> {
        self.send(call).await.map(drop)
    }

    async fn send(&self, call: Call<'_>) -> Result<Vec<u8>, SisError> {
        let Shared { retry, clock, seed, .. } = &*self.shared;
        let start = clock.monotonic();
        let mut backoff = Backoff::new(retry.first, retry.most, seed.fetch_add(0x9e37_79b9, Ordering::Relaxed));
        let mut attempt = 1;
        loop {
            let error = match self.once(&call).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            let may_repeat = call.repeats || !error.is_outcome_unknown();
            if attempt >= retry.attempts || !error.is_transient() || !may_repeat {
                return Err(error);
            }
            let wait = backoff.after(error.retry_after());
            if clock.monotonic().saturating_sub(start) + wait > retry.total {
                return Err(error);
            }
            debug!(reason = error.reason(), attempt, ?wait, "SIS: trying again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Vec<u8>, SisError> {
        let limit = self.shared.deadline;
        let answered = tokio::time::timeout(limit, self.exchange(call)).await;
        answered.unwrap_or(Err(SisError::Deadline { limit }))
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Vec<u8>, SisError> {
        let url = self.url(call);
        let unreachable = |error: reqwest::Error| SisError::Unreachable {
            url: url.clone(),
            // Without its URL, which would be told twice.
            source: Box::new(error.without_url()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization(call.cluster)?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.shared.host.clone().map(|host| (HOST, host)));
        let cluster = call
            .cluster
            .and_then(|cluster| HeaderValue::from_str(cluster.as_str()).ok());
        headers.extend(cluster.map(|cluster| (CLUSTER_ID, cluster)));
        let mut request = self.shared.http.request(call.method.clone(), &url).headers(headers);
        if let Some(body) = &call.body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(reqwest::header::CONTENT_TYPE, json).body(body.clone());
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                let why = format!("its answer is longer than {LONGEST_ANSWER} bytes");
                return Err(SisError::Nonsense { url: url.clone(), why });
            }
            body.extend_from_slice(&chunk);
        }
        if status.as_u16() == 200 {
            return Ok(body);
        }
        if status.is_success() || status.is_redirection() {
            let why = format!("it answered {status}");
            return Err(SisError::Nonsense { url, why });
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let refusal = Refusal {
            status: status.as_u16(),
            authenticate: header(WWW_AUTHENTICATE).unwrap_or_default(),
            retry_after: header(RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
            text: text_of(&body),
        };
        Err(refusal.into_error())
    }

    /// The token as it is now, once it has passed the checks.
    fn authorization(&self, cluster: Option<&ClusterId>) -> Result<HeaderValue, crate::TokenError> {
        let Shared {
            token, rules, clock, ..
        } = &*self.shared;
        let token = token.read()?;
        let now = i64::try_from(clock.now_unix_ms() / 1000).unwrap_or(i64::MAX);
        let (claims, warning) = rules.check(token.expose(), now)?;
        if let Some(cluster) = cluster {
            rules.check_subject(&claims, cluster)?;
        }
        if let Some(warning) = warning {
            warn!(reason = warning.reason(), "{warning}");
        }
        let header = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut header = header.map_err(|_| crate::TokenError::Malformed)?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn url(&self, call: &Call<'_>) -> String {
        let base = self.shared.base.as_str().trim_end_matches('/');
        let mut url = base.to_owned();
        for segment in call.path {
            url.push('/');
            url.push_str(segment);
        }
        url
    }
}

impl<'a> Call<'a> {
    const fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            cluster: None,
            body: None,
            repeats: true,
        }
    }

    /// Says for which cluster, and demands a token of that cluster.
    const fn of(mut self, cluster: &'a ClusterId) -> Self {
        self.cluster = Some(cluster);
        self
    }

    fn json(mut self, body: &impl Serialize) -> Self {
        // Our own types: maps have text keys, nothing else can fail.
        self.body = serde_json::to_vec(body).ok();
        self
    }

    /// Carried out twice, it would make two.
    const fn never_twice(mut self) -> Self {
        self.repeats = false;
        self
    }
}

// === impl SetupError ===

impl SetupError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Url { .. } => "SisUrlInvalid",
            Self::Host { .. } => "SisHostInvalid",
            Self::Http(_) => "SisClient",
        }
    }
}

/// What a refusal says: `error`, or `detail` of a problem document, or the start of what is no JSON.
fn text_of(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => ["error", "detail"]
            .into_iter()
            .find_map(|key| json[key].as_str().map(str::to_owned))
            .unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}
