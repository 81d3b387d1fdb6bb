//! Who asks, by the token. Texts and headers are those that were seen of the real service.

use serde_json::Value;

use super::{
    Fake,
    jwt::{Jwt, Verdict},
    message::{Answer, Request},
    time::iso_s,
};
use crate::ClusterId;

/// Before the id of a cluster in the audience of its own tokens.
const AUDIENCE: &str = "nvcf-icms:";
pub(super) const LONGEST: usize = 2048;
const LEEWAY: i64 = 60;
const FULL: &str = "Full authentication is required to access this resource";
const DECODE: &str = "An error occurred while attempting to decode the Jwt: ";
/// What a cluster's own keys may sign with.
const CLUSTER_ALGORITHMS: [&str; 6] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Principal {
    pub(super) subject: Option<String>,
    scopes: Vec<String>,
    issuer: String,
    /// The token is a cluster's own: which cluster it names.
    cluster: Option<String>,
}

/// Why a token is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// Said without `error=`: the service could not, or would not, look at it.
    Full,
    /// Said with `error="invalid_token"` and this text.
    Token(String),
}

impl Principal {
    /// The scope check, which comes after that of the body.
    pub(super) fn needs(&self, any_of: &[&str]) -> Result<(), Answer> {
        let has = any_of.iter().any(|scope| self.scopes.iter().any(|own| own == scope));
        if has {
            Ok(())
        } else {
            Err(Answer::error(403, "Access Denied"))
        }
    }

    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    /// Whether it may act for the cluster that the path names.
    pub(super) fn is(&self, fake: &Fake, cluster: &str) -> Result<(), Answer> {
        if let Some(own) = &self.cluster {
            let stored = fake.read(|state| state.by_id.get(own).and_then(|row| row.oidc_issuer.clone()));
            if stored.as_deref() != Some(self.issuer.as_str()) {
                let issuer = &self.issuer;
                let text = format!("{own} provided clusterId is not matching with OIDC workload token issuer {issuer}");
                return Err(Answer::error(409, text));
            }
            if own != cluster {
                return Err(Answer::error(409, "PSAT token audience does not match path clusterId"));
            }
            return Ok(());
        }
        let Some(subject) = &self.subject else {
            return Err(Answer::error(500, "Internal Server Error"));
        };
        if subject == cluster || ClusterId::of_client(subject).as_str() == cluster {
            return Ok(());
        }
        let text = format!("{cluster} provided clusterId is not matching with {subject} clientId from auth token");
        Err(Answer::error(409, text))
    }
}

/// The size filter, which stands before everything.
pub(super) fn too_long(request: &Request) -> Option<Answer> {
    let token = bearer(request)?;
    (token.len() > LONGEST).then(|| Answer::security(431, "JWT exceeds maximum size of 2048 bytes"))
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.header("authorization")?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The 401 of a request without a usable token.
pub(super) fn unauthorized(request: &Request, bad: &Bad) -> Answer {
    let host = request.header("host").unwrap_or("localhost");
    let metadata = format!("resource_metadata=\"http://{host}/.well-known/oauth-protected-resource\"");
    let (text, challenge) = match bad {
        Bad::Full => (FULL, format!("Bearer {metadata}")),
        Bad::Token(text) => (
            text.as_str(),
            format!(
                "Bearer error=\"invalid_token\", error_description=\"{text}\", \
                 error_uri=\"https://tools.ietf.org/html/rfc6750#section-3.1\", {metadata}"
            ),
        ),
    };
    Answer::security(401, format!("Authentication failure - {text}")).with("WWW-Authenticate", challenge)
}

/// Who asks, or the 401.
pub(super) async fn authenticate(fake: &Fake, request: &Request) -> Result<Principal, Answer> {
    let Some(token) = bearer(request) else {
        return Err(unauthorized(request, &Bad::Full));
    };
    let body = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if body.is_empty() || !body.bytes().all(allowed) {
        return Err(unauthorized(
            request,
            &Bad::Token("Bearer token is malformed".to_owned()),
        ));
    }
    principal(fake, token).await.map_err(|bad| unauthorized(request, &bad))
}

async fn principal(fake: &Fake, token: &str) -> Result<Principal, Bad> {
    let strict = !fake.config.cluster_identity;
    let Some(jwt) = Jwt::parse(token) else {
        // The text of a token without dots; others were not seen.
        let why = "Invalid JWT serialization: Missing dot delimiter(s)";
        return Err(if strict { Bad::Token(why.to_owned()) } else { Bad::Full });
    };
    if has_odd_claims(&jwt) {
        return Err(Bad::Full);
    }
    let issuer = jwt.text("iss").unwrap_or_default().to_owned();
    if fake.keys.is_trusted(&issuer) {
        return of_issuer(fake, &jwt, issuer).await;
    }
    match (strict, issuer.is_empty()) {
        (true, true) => Err(Bad::Token("Missing issuer".to_owned())),
        (true, false) => Err(Bad::Token("Invalid issuer".to_owned())),
        (false, _) => of_cluster(fake, &jwt, true),
    }
}

fn has_odd_claims(jwt: &Jwt<'_>) -> bool {
    let times = ["exp", "nbf", "iat"];
    let is_odd_time = times.iter().any(|claim| {
        jwt.claims
            .get(*claim)
            .is_some_and(|value| !value.is_number() && !value.is_null())
    });
    is_odd_time || jwt.claims.get("scopes").is_some_and(Value::is_null)
}

async fn of_issuer(fake: &Fake, jwt: &Jwt<'_>, issuer: String) -> Result<Principal, Bad> {
    if jwt.algorithm().eq_ignore_ascii_case("none") {
        return Err(Bad::Token("Unsupported algorithm of none".to_owned()));
    }
    let kid = jwt.header.get("kid").and_then(Value::as_str);
    let keys = fake.keys.of(&issuer, kid).await.ok_or(Bad::Full)?;
    signed(jwt.verify(&keys, &["ES256"]))?;
    check_type(jwt)?;
    check_times(jwt, fake.now_unix_s(), true)?;
    let cluster = cluster_audiences(jwt).into_iter().next();
    let subject = jwt.text("sub").map(str::to_owned);
    // A token of an issuer that looks like a cluster's is judged as one.
    let cluster = cluster.filter(|_| subject.as_deref().is_some_and(is_agent));
    Ok(Principal {
        subject,
        scopes: jwt.texts("scopes"),
        issuer,
        cluster,
    })
}

/// A token that a cluster signed. `with_subject`: also whether it is the agent's.
pub(super) fn of_cluster(fake: &Fake, jwt: &Jwt<'_>, with_subject: bool) -> Result<Principal, Bad> {
    let named = cluster_audiences(jwt);
    let [cluster] = named.as_slice() else {
        return Err(Bad::Full);
    };
    let stored = fake.read(|state| state.by_id.get(cluster).and_then(|row| row.jwks.clone()));
    let keys = stored
        .and_then(|jwks| serde_json::from_str::<Value>(&jwks).ok())
        .ok_or(Bad::Full)?;
    let keys = keys["keys"].as_array().cloned().unwrap_or_default();
    signed(jwt.verify(&keys, &CLUSTER_ALGORITHMS))?;
    check_times(jwt, fake.now_unix_s(), false)?;
    let subject = jwt.text("sub").unwrap_or_default();
    if with_subject && !is_agent(subject) {
        return Err(Bad::Token(format!("Unauthorized subject: {subject}")));
    }
    Ok(Principal {
        subject: Some(subject.to_owned()),
        scopes: ["nvca-cluster", "instance_request_update"].map(str::to_owned).to_vec(),
        issuer: jwt.text("iss").unwrap_or_default().to_owned(),
        cluster: Some(cluster.clone()),
    })
}

/// The clusters that the audience names.
pub(super) fn cluster_audiences(jwt: &Jwt<'_>) -> Vec<String> {
    let audiences = jwt.texts("aud");
    audiences
        .iter()
        .filter_map(|audience| audience.strip_prefix(AUDIENCE))
        .map(str::to_owned)
        .collect()
}

pub(super) fn is_agent(subject: &str) -> bool {
    let of_kubernetes = subject
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let is_spiffe = subject.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    of_kubernetes.is_some_and(|(_, account)| account == "nvca")
        || is_spiffe.is_some_and(|(_, path)| path == "nvcf/nvca")
}

fn signed(verdict: Verdict) -> Result<(), Bad> {
    let why = match verdict {
        Verdict::Good => return Ok(()),
        Verdict::Forged => "Invalid signature",
        Verdict::NoKey => "Another algorithm expected, or no matching key(s) found",
    };
    Err(Bad::Token(format!("{DECODE}Signed JWT rejected: {why}")))
}

fn check_type(jwt: &Jwt<'_>) -> Result<(), Bad> {
    let kind = jwt.header.get("typ").and_then(Value::as_str);
    if kind.is_none_or(|kind| kind.eq_ignore_ascii_case("JWT")) {
        return Ok(());
    }
    Err(Bad::Token(format!(
        "{DECODE}the given typ value needs to be one of [JWT]"
    )))
}

fn check_times(jwt: &Jwt<'_>, now: i64, is_issuer: bool) -> Result<(), Bad> {
    let (expires, starts, issued) = (jwt.time("exp"), jwt.time("nbf"), jwt.time("iat"));
    let bad = |text: String| Err(Bad::Token(format!("{DECODE}{text}")));
    let shown = |at: i64| iso_s(u64::try_from(at).unwrap_or_default());
    if is_issuer && expires.zip(issued).is_some_and(|(expires, issued)| expires <= issued) {
        return bad("expiresAt must be after issuedAt".to_owned());
    }
    if let Some(at) = expires.filter(|at| now - at > LEEWAY) {
        return bad(if is_issuer {
            format!("Jwt expired at {}", shown(at))
        } else {
            "Expired JWT".to_owned()
        });
    }
    if let Some(at) = starts.filter(|at| at - now > LEEWAY) {
        return bad(format!("Jwt used before {}", shown(at)));
    }
    Ok(())
}

impl Fake {
    fn now_unix_s(&self) -> i64 {
        i64::try_from(self.now_unix_ms() / 1000).unwrap_or(i64::MAX)
    }
}
