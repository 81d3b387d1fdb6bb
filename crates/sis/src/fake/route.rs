//! Which handler a request goes to, and everything that is checked before one is called, in the service's order.

use serde_json::json;

use super::{
    Fake, agent, auth,
    body::Fields,
    cluster, create, instance, introspect,
    message::{Answer, Request, unescape},
    update,
};

/// What the security layer adds to the answers of every route that it guards.
const SECURITY_HEADERS: [(&str, &str); 7] = [
    (
        "Vary",
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    ),
    ("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "0"),
];
const KNOWN_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Routes that need a token.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    Clusters { nca: String },
    Cluster { nca: String, id: String },
    ClusterVersions,
    ClusterGroups { nca: String },
    Register { id: String },
    Credentials { id: String },
    Heartbeat { id: String },
    Jwks { id: String },
    Instances { id: String },
    Request { id: String },
    Instance { request: String, id: String },
    Ask,
}

/// Routes that need none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Health,
    V1Health,
    Specification,
    Resource,
    Introspect,
    NatsAuthorize,
}

/// What a body must be.
enum Body {
    None,
    Json,
    Form,
}

/// The whole answer to a request.
pub(super) async fn answer(fake: &Fake, request: Request) -> Answer {
    if has_bad_escape(request.path()) {
        return Answer::container();
    }
    if let Some(open) = open(fake, request.path()) {
        return answer_open(fake, open, &request);
    }
    let mut answer = guarded(fake, &request).await.unwrap_or_else(|refused| refused);
    for (name, value) in SECURITY_HEADERS {
        answer = answer.with(name, value);
    }
    answer
}

async fn guarded(fake: &Fake, request: &Request) -> Result<Answer, Answer> {
    let path = request.path();
    if let Some(refused) = auth::too_long(request) {
        return Err(refused);
    }
    let is_preflight = request.method == "OPTIONS" && request.header("access-control-request-method").is_some();
    if is_preflight && request.header("origin").is_some() {
        return Ok(Answer::empty(200));
    }
    let is_odd = path.contains("//") || path.contains(';') || path.contains("..");
    if is_odd || !KNOWN_METHODS.contains(&request.method.as_str()) {
        return Err(auth::unauthorized(request, &auth::Bad::Full));
    }
    let who = auth::authenticate(fake, request).await?;
    let Some(route) = route(path) else {
        let detail = format!("No static resource {}.", path.trim_start_matches('/'));
        return Err(Answer::problem(404, "Not Found", &detail, path));
    };
    let allowed = route.methods();
    let method = if request.method == "HEAD" {
        "GET"
    } else {
        request.method.as_str()
    };
    if method == "OPTIONS" {
        return Ok(Answer::empty(200).with("Allow", options(allowed)));
    }
    if !allowed.contains(&method) {
        let detail = format!("Method '{}' is not supported.", request.method);
        let answer = Answer::problem(405, "Method Not Allowed", &detail, path);
        return Err(answer.with("Allow", allowed.join(", ")));
    }
    acceptable(request)?;
    let body = match route.body(method) {
        Body::Json => {
            json_body(request)?;
            Fields::parse(&request.body)?
        }
        Body::None | Body::Form => Fields::default(),
    };
    match (route, method) {
        (Route::Clusters { nca }, "GET") => cluster::list(fake, &who, &nca, &request.query()),
        (Route::Clusters { nca }, _) => create::create(fake, &who, &nca, &body).await,
        (Route::Cluster { nca, id }, "GET") => cluster::get(fake, &who, &nca, &id),
        (Route::Cluster { nca, id }, "PUT") => update::update(fake, &who, &nca, &id, &body),
        (Route::Cluster { nca, id }, _) => cluster::delete(fake, &who, &nca, &id),
        (Route::ClusterVersions, _) => cluster::versions(&who),
        (Route::ClusterGroups { nca }, _) => cluster::groups(fake, &who, &nca, &request.query()),
        (Route::Register { id }, _) => agent::register(fake, &who, &id, &body),
        (Route::Credentials { id }, _) => agent::credentials(fake, &who, &id),
        (Route::Heartbeat { id }, _) => agent::heartbeat(fake, &who, &id, &body),
        (Route::Jwks { id }, _) => agent::jwks(fake, &who, &id, &body),
        (Route::Instances { id }, _) => instance::list(fake, &who, &id),
        (Route::Request { id }, _) => instance::acknowledge(fake, &who, &id, &body),
        (Route::Instance { request, id }, _) => instance::report(fake, &who, &request, &id, &body),
        (Route::Ask, "POST") => instance::ask(fake, &who, request).await,
        (Route::Ask, "DELETE") => instance::terminate(fake, &who, &request.query()).await,
        (Route::Ask, _) => instance::describe(fake, &who, &request.query()),
    }
}

fn route(path: &str) -> Option<Route> {
    let rest = path.strip_prefix("/v1/")?;
    let parts: Vec<String> = rest
        .split('/')
        .map(|part| unescape(part, false))
        .collect::<Option<_>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let own = |text: &str| text.to_owned();
    // Both names of the accounts.
    let account = match parts.as_slice() {
        ["accounts", rest @ ..] | ["si", "accounts", rest @ ..] => rest,
        _ => &[],
    };
    Some(match (account, parts.as_slice()) {
        ([nca, "clusters"], _) => Route::Clusters { nca: own(nca) },
        ([nca, "clusters", id], _) => Route::Cluster {
            nca: own(nca),
            id: own(id),
        },
        ([_, "clusterVersions"], _) => Route::ClusterVersions,
        (_, ["si", "accounts", nca, "clusterGroups"]) => Route::ClusterGroups { nca: own(nca) },
        (_, ["nvca", "clusters", id, "register"]) => Route::Register { id: own(id) },
        (_, ["nvca", "clusters", id, "credentials"]) => Route::Credentials { id: own(id) },
        (_, ["nvca", "clusters", id, "heartbeat"]) => Route::Heartbeat { id: own(id) },
        (_, ["nvca", "clusters", id, "jwks"]) => Route::Jwks { id: own(id) },
        (_, ["si", "clusters", id, "instances"]) => Route::Instances { id: own(id) },
        (_, ["sirs", id]) => Route::Request { id: own(id) },
        (_, ["sirs", request, id]) => Route::Instance {
            request: own(request),
            id: own(id),
        },
        (_, ["si"]) => Route::Ask,
        _ => return None,
    })
}

fn open(fake: &Fake, path: &str) -> Option<Open> {
    let open = match path {
        "/health" => Open::Health,
        "/v1/health" => Open::V1Health,
        "/v3/openapi" => Open::Specification,
        "/.well-known/oauth-protected-resource" => Open::Resource,
        "/v1/nvca/tokens/introspect" | "/v1/si/oidc/token/introspect" | "/v1/si/oidc/tokens/introspect" => {
            Open::Introspect
        }
        "/v1/nvca/nats-authorize" | "/v1/si/oidc/nats-authorize" | "/v1/si/oidc/natsAuthorize" => Open::NatsAuthorize,
        _ => return None,
    };
    let needs_clusters = matches!(open, Open::Introspect | Open::NatsAuthorize);
    (fake.config.cluster_identity || !needs_clusters).then_some(open)
}

fn answer_open(fake: &Fake, open: Open, request: &Request) -> Answer {
    let needs_post = matches!(open, Open::Introspect | Open::NatsAuthorize);
    let allowed: &[&str] = if needs_post { &["POST"] } else { &["GET"] };
    let method = if request.method == "HEAD" {
        "GET"
    } else {
        request.method.as_str()
    };
    if method == "OPTIONS" {
        return Answer::empty(200).with("Allow", options(allowed));
    }
    if !allowed.contains(&method) {
        let detail = format!("Method '{}' is not supported.", request.method);
        return Answer::problem(405, "Method Not Allowed", &detail, request.path()).with("Allow", allowed.join(", "));
    }
    let body = || {
        acceptable(request)?;
        json_body(request)?;
        Fields::parse(&request.body)
    };
    match open {
        Open::Health => introspect::health(fake),
        Open::V1Health => Answer::ok(&json!({"status": "UP"})),
        // The real document is long; a test wants to know that it is there.
        Open::Specification => {
            Answer::ok(&json!({"openapi": "3.1.0", "info": {"title": "ICMS", "version": "v1"}, "paths": {}}))
        }
        Open::Resource => {
            let host = request.header("host").unwrap_or("localhost");
            Answer::ok(
                &json!({"resource": format!("http://{host}"), "bearer_methods_supported": ["header"],
                "tls_client_certificate_bound_access_tokens": true}),
            )
        }
        Open::Introspect => body().map_or_else(|refused| refused, |body| introspect::introspect(fake, &body)),
        Open::NatsAuthorize => body().map_or_else(|refused| refused, |body| introspect::nats_authorize(fake, &body)),
    }
}

impl Route {
    const fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Clusters { .. } => &["GET", "POST"],
            Self::Cluster { .. } => &["GET", "PUT", "DELETE"],
            Self::ClusterVersions | Self::ClusterGroups { .. } | Self::Credentials { .. } | Self::Instances { .. } => {
                &["GET"]
            }
            Self::Register { .. } | Self::Jwks { .. } | Self::Request { .. } => &["PUT"],
            Self::Heartbeat { .. } | Self::Instance { .. } => &["POST"],
            Self::Ask => &["GET", "POST", "DELETE"],
        }
    }

    fn body(&self, method: &str) -> Body {
        match (self, method) {
            (Self::Ask, _) => Body::Form,
            (_, "POST" | "PUT") => Body::Json,
            _ => Body::None,
        }
    }
}

/// `%2F`, or a `%` without two digits behind it.
fn has_bad_escape(path: &str) -> bool {
    path.to_ascii_lowercase().contains("%2f") || unescape(path, false).is_none()
}

fn options(allowed: &[&str]) -> String {
    let mut names = Vec::new();
    for name in allowed {
        names.push(*name);
        if *name == "GET" {
            names.push("HEAD");
        }
    }
    names.push("OPTIONS");
    names.join(",")
}

/// Whether the client takes JSON.
fn acceptable(request: &Request) -> Result<(), Answer> {
    let Some(accept) = request.header("accept").filter(|accept| !accept.trim().is_empty()) else {
        return Ok(());
    };
    let mut takes_json = false;
    for range in accept.split(',') {
        let kind = range.split(';').next().unwrap_or_default().trim();
        let Some((kind, sub)) = kind
            .split_once('/')
            .filter(|(kind, sub)| !kind.is_empty() && !sub.is_empty())
        else {
            if kind == "*" {
                takes_json = true;
                continue;
            }
            return Err(Answer::empty(406));
        };
        takes_json |= matches!((kind, sub), ("*" | "application", "*") | ("application", "json"));
    }
    if takes_json {
        return Ok(());
    }
    let detail = "Acceptable representations: [application/json].";
    Err(Answer::problem(406, "Not Acceptable", detail, request.path()))
}

/// Whether the body says that it is JSON.
fn json_body(request: &Request) -> Result<(), Answer> {
    let said = request.header("content-type").filter(|kind| !kind.trim().is_empty());
    let said = said.unwrap_or("application/octet-stream");
    let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    let detail = format!("Content-Type '{}' is not supported.", said.replace("; ", ";"));
    let answer = Answer::problem(415, "Unsupported Media Type", &detail, request.path());
    Err(answer.with(
        "Accept",
        "application/json, application/cbor, application/yaml, application/*+json",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_routes_under_both_names_and_trailing_slashes_to_none() {
        let clusters = Some(Route::Clusters { nca: "a b".into() });
        assert_eq!(route("/v1/accounts/a%20b/clusters"), clusters);
        assert_eq!(route("/v1/si/accounts/a%20b/clusters"), clusters);
        assert_eq!(
            route("/v1/si/accounts/n/clusterGroups"),
            Some(Route::ClusterGroups { nca: "n".into() })
        );
        for nowhere in [
            "/v1/accounts/n/clusters/",
            "/v1/accounts/n/clusterGroups",
            "/V1/accounts/n/clusters",
            "/",
            "/v1",
        ] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
        assert_eq!(options(&["GET", "POST"]), "GET,HEAD,POST,OPTIONS");
    }
}
