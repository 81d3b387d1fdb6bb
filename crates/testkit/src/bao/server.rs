//! The stand-in on a socket: HTTP in front of the core, key downloads for logins, and faults on demand.
//!
//! Faults are set through a path that the real server does not have: `PUT /standin/faults {"slow_ms": 500, "hang": true}`;
//! `PUT /standin/rotate {"mount": "services/sis-api/jwt"}` makes a new signing key.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use berth_runtime::{
    Shutdown, Tasks,
    listen::{Listen, ListenError, serve_http},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Answer, Bao, BaoClient, Refusal, Request, Verb, jwt_auth::JwksUrl};

/// OpenBao's own limit on a request's body.
const BODY: usize = 32 << 20;
/// The longest that a key download may take.
const KEYS: Duration = Duration::from_secs(5);

/// A server that listens. It ends with the [`Shutdown`] that it was started with.
#[derive(Debug, Clone)]
pub struct BaoServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// How it misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Each answer comes this much later.
    pub slow: Duration,
    /// No answer at all, for as long as this is set.
    pub hang: bool,
}

#[derive(Debug)]
struct Shared {
    bao: Mutex<Bao>,
    faults: Mutex<Faults>,
}

// === impl BaoServer ===

impl BaoServer {
    /// Listens there (port 0: any free port) and serves until `shutdown`.
    pub fn start(
        bao: Bao,
        address: SocketAddr,
        faults: Faults,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Result<Self, ListenError> {
        let mut listen = Listen::new();
        let address = listen.tcp(address, None)?;
        let incoming = listen.start(tasks, shutdown.started());
        let shared = Arc::new(Shared {
            bao: Mutex::new(bao),
            faults: Mutex::new(faults),
        });
        let routes = Router::new()
            .fallback(serve)
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(Arc::clone(&shared));
        drop(tasks.spawn("bao", serve_http(incoming, routes, shutdown.started().clone())));
        Ok(Self { address, shared })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client without a token.
    pub fn client(&self) -> BaoClient {
        BaoClient::new(&format!("http://{}", self.address))
    }

    pub fn set_faults(&self, faults: Faults) {
        *self.shared.faults.lock() = faults;
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let answer = if let Some(path) = path.strip_prefix("/standin/") {
        control(&shared, path, &body)
    } else {
        misbehave(&shared).await;
        match parse(&method, &path, query, &headers, &body) {
            Ok(request) => handle(&shared, request).await,
            Err(refusal) => refusal.into(),
        }
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match answer.body {
        None => status.into_response(),
        // A line each, as the real server ends its answers.
        Some(body) => (
            status,
            [(header::CONTENT_TYPE, "application/json")],
            format!("{body}\n"),
        )
            .into_response(),
    }
}

async fn handle(shared: &Shared, mut request: Request) -> Answer {
    let wanted = shared.bao.lock().needs_keys(&request);
    if let Some(source) = wanted {
        request.keys = Some(download(&source).await);
    }
    shared.bao.lock().handle(&request)
}

async fn download(source: &JwksUrl) -> Result<Value, String> {
    let after_scheme = source.url.find("://").map_or(0, |at| at + 3);
    let slash = source.url[after_scheme..].find('/').map(|at| at + after_scheme);
    let (server, path) = source.url.split_at(slash.unwrap_or(source.url.len()));
    let mut client = BaoClient::new(server).deadline(KEYS);
    if let Some(pem) = &source.ca_pem {
        client = client.ca(pem.clone());
    }
    match client.exchange("GET", path, &Value::Null).await {
        Ok((200, keys)) => Ok(keys),
        Ok((status, _)) => Err(format!("oidc: get keys failed: status {status}")),
        Err(error) => Err(format!("oidc: get keys failed: {error}")),
    }
}

async fn misbehave(shared: &Shared) {
    let slow = shared.faults.lock().slow;
    if !slow.is_zero() {
        sleep(slow).await;
    }
    while shared.faults.lock().hang {
        sleep(Duration::from_millis(20)).await;
    }
}

fn control(shared: &Shared, path: &str, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match path {
        "faults" => {
            *shared.faults.lock() = Faults {
                slow: Duration::from_millis(body["slow_ms"].as_u64().unwrap_or_default()),
                hang: body["hang"].as_bool().unwrap_or_default(),
            };
            Answer::nothing()
        }
        "rotate" => match shared.bao.lock().rotate(body["mount"].as_str().unwrap_or_default()) {
            Ok(()) => Answer::nothing(),
            Err(refusal) => refusal.into(),
        },
        other => Refusal::NoRoute(other.to_owned()).into(),
    }
}

fn parse(
    method: &Method,
    path: &str,
    query: BTreeMap<String, String>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Request, Refusal> {
    let path = path.strip_prefix("/v1/").ok_or(Refusal::NotFound)?;
    let listed = query.get("list").is_some_and(|list| list == "true");
    let verb = match method.as_str() {
        "GET" | "HEAD" if !listed => Verb::Read,
        "GET" | "LIST" => Verb::List,
        "PUT" | "POST" => Verb::Write,
        "DELETE" => Verb::Delete,
        _ => return Err(Refusal::UnsupportedOperation),
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text("x-vault-token").or_else(|| text("authorization")?.strip_prefix("Bearer "));
    let body = match (verb, body) {
        (Verb::Write, []) | (Verb::Read | Verb::List | Verb::Delete, _) => json!({}),
        (Verb::Write, body) => serde_json::from_slice(body)
            .map_err(|error| Refusal::bad(format!("failed to parse JSON input: {error}")))?,
    };
    let mut request = Request::new(verb, path.trim_end_matches('/')).body(body);
    request.token = token.map(str::to_owned);
    request.query = query;
    Ok(request)
}
