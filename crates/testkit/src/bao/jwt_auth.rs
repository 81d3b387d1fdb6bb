//! The JWT auth method: which token of another issuer becomes a token of ours, by the rules of a role.
//!
//! Order and words of the checks are those of OpenBao's plugin. Keys come in from outside: a login against a JWKS URL is
//! handled with the keys that the server has downloaded.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Answer, Refusal, Verb,
    core::Request,
    duration,
    jwt::{self, PublicKey},
    tokens::{NewToken, SYSTEM_TTL, Terms},
};

/// Tolerance for clocks that differ, where a role says nothing.
const SKEW: Duration = Duration::from_mins(1);
/// What a token without `exp` or `nbf` gets, where a role says nothing.
const LEEWAY: Duration = Duration::from_secs(150);

/// One mount of the method.
#[derive(Debug, Default)]
pub(super) struct JwtAuth {
    config: Option<Config>,
    roles: BTreeMap<String, Role>,
    /// The same user is the same entity at each login.
    entities: HashMap<String, Uuid>,
}

#[derive(Debug)]
struct Config {
    bound_issuer: String,
    default_role: String,
    keys: Keys,
    /// As written, for reading it back.
    body: Map<String, Value>,
}

#[derive(Debug)]
enum Keys {
    Pem(Vec<PublicKey>),
    Url(JwksUrl),
}

/// Where keys are downloaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JwksUrl {
    pub(super) url: String,
    /// Authorities that its certificate may be signed by.
    pub(super) ca_pem: Option<String>,
}

#[derive(Debug)]
struct Role {
    audiences: Vec<String>,
    subject: String,
    claims: Vec<(String, Vec<Value>)>,
    glob: bool,
    user_claim: String,
    /// Claim to metadata key.
    mappings: Vec<(String, String)>,
    policies: Vec<String>,
    terms: Terms,
    skew: Duration,
    expiration_leeway: Duration,
    not_before_leeway: Duration,
    body: Map<String, Value>,
}

// === impl JwtAuth ===

impl JwtAuth {
    pub(super) fn exists(&self, path: &str) -> bool {
        match path.split_once('/') {
            Some(("role", name)) => self.roles.contains_key(name),
            _ => path != "config" || self.config.is_some(),
        }
    }

    /// Where the server must download the keys from before a login.
    pub(super) fn jwks_url(&self) -> Option<&JwksUrl> {
        match &self.config.as_ref()?.keys {
            Keys::Url(url) => Some(url),
            Keys::Pem(_) => None,
        }
    }

    /// Everything but the login. `path` is what follows the mount.
    pub(super) fn handle(&mut self, path: &str, request: &Request) -> Result<Answer, Refusal> {
        match (path.split_once('/').unwrap_or((path, "")), request.verb) {
            (("config", ""), Verb::Read) => {
                let config = self.config.as_ref().ok_or(Refusal::NotFound)?;
                Ok(Answer::data(Value::Object(config.body.clone())))
            }
            (("config", ""), Verb::Write) => {
                self.config = Some(Config::parse(&request.body)?);
                Ok(Answer::nothing())
            }
            (("role", ""), Verb::List) if !self.roles.is_empty() => {
                let names: Vec<&String> = self.roles.keys().collect();
                Ok(Answer::data(json!({ "keys": names })))
            }
            (("role", ""), Verb::List) => Err(Refusal::NotFound),
            (("role", name), Verb::Read) => {
                let role = self.roles.get(name).ok_or(Refusal::NotFound)?;
                Ok(Answer::data(Value::Object(role.body.clone())))
            }
            (("role", name), Verb::Write) => {
                self.roles.insert(name.to_owned(), Role::parse(&request.body)?);
                Ok(Answer::nothing())
            }
            (("role", name), Verb::Delete) => {
                self.roles.remove(name);
                Ok(Answer::nothing())
            }
            (("config" | "role", _), _) => Err(Refusal::UnsupportedOperation),
            _ => Err(Refusal::UnsupportedPath),
        }
    }

    /// What a role says now about how long its tokens live.
    pub(super) fn terms(&self, role: &str) -> Option<Terms> {
        self.roles.get(role).map(|role| role.terms)
    }

    /// The token that the request's JWT earns. `now` in unix milliseconds.
    pub(super) fn login(&mut self, mount: &str, request: &Request, now: u64) -> Result<NewToken, Refusal> {
        let config = self.config.as_ref();
        let config = config.ok_or_else(|| Refusal::bad("could not load configuration"))?;
        let name = match request.body_text("role") {
            "" => config.default_role.as_str(),
            name => name,
        };
        if name.is_empty() {
            return Err(Refusal::bad("missing role"));
        }
        let role = self.roles.get(name);
        let role = role.ok_or_else(|| Refusal::bad(format!("role {name:?} could not be found")))?;
        let token = request.body_text("jwt");
        if token.is_empty() {
            return Err(Refusal::bad("missing token"));
        }
        let invalid = |why: &str| Refusal::bad(format!("error validating token: {why}"));
        let downloaded;
        let keys = match (&config.keys, &request.keys) {
            (Keys::Pem(keys), _) => keys,
            (Keys::Url(_), Some(Ok(set))) => {
                downloaded = PublicKey::from_jwks(set);
                &downloaded
            }
            (Keys::Url(_), Some(Err(why))) => {
                return Err(invalid(&format!("error verifying token signature: fetching keys {why}")));
            }
            (Keys::Url(_), None) => return Err(invalid("error verifying token signature: no keys")),
        };
        let claims = jwt::verify(token, keys)
            .map_err(|error| invalid(&format!("error verifying token signature: {error}")))?;
        role.accept(config, &claims, now / 1000).map_err(|why| invalid(&why))?;
        if role.audiences.is_empty() && claims.get("aud").is_some_and(|aud| !list(aud).is_empty()) {
            return Err(Refusal::bad("audience claim found in JWT but no audiences bound to the role"));
        }
        let user = claims.get(&role.user_claim);
        let user = user.ok_or_else(|| Refusal::bad(format!("claim {:?} not found in token", role.user_claim)))?;
        let user = user.as_str().ok_or_else(|| {
            Refusal::bad(format!("claim {:?} could not be converted to string", role.user_claim))
        })?;
        role.accept_claims(&claims)
            .map_err(|why| Refusal::bad(format!("error validating claims: {why}")))?;
        let mut meta: BTreeMap<String, String> = role
            .mappings
            .iter()
            .filter_map(|(claim, key)| Some((key.clone(), find(&claims, claim)?.as_str()?.to_owned())))
            .collect();
        meta.insert("role".to_owned(), name.to_owned());
        let entity = *self.entities.entry(user.to_owned()).or_insert_with(Uuid::new_v4);
        let method = mount.trim_end_matches('/').replace('/', "-");
        Ok(NewToken {
            policies: role.policies.clone(),
            terms: role.terms,
            path: format!("auth/{mount}login"),
            meta,
            display_name: format!("{method}-{user}"),
            entity: Some(entity),
            role: Some((mount.to_owned(), name.to_owned())),
            ..NewToken::default()
        })
    }
}

// === impl Config ===

impl Config {
    fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pems = body.get("jwt_validation_pubkeys").map(strings).unwrap_or_default();
        let url = text("jwks_url");
        let keys = match (pems.is_empty(), url.is_empty()) {
            (false, true) => {
                let keys = pems.iter().map(|pem| PublicKey::from_pem(pem)).collect::<Result<_, _>>();
                Keys::Pem(keys.map_err(|error| Refusal::bad(format!("error parsing public key: {error}")))?)
            }
            (true, false) => Keys::Url(JwksUrl {
                url,
                ca_pem: Some(text("jwks_ca_pem")).filter(|pem| !pem.is_empty()),
            }),
            _ => {
                return Err(Refusal::bad(
                    "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url', or \
                     'provider_config' must be set",
                ));
            }
        };
        Ok(Self {
            bound_issuer: text("bound_issuer"),
            default_role: text("default_role"),
            keys,
            body: body.clone(),
        })
    }
}

// === impl Role ===

impl Role {
    fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let time = |name: &str| duration::field(body.get(name), name).map(Option::unwrap_or_default);
        match text("role_type") {
            "jwt" => {}
            "" | "oidc" => return Err(Refusal::bad("the stand-in has no OIDC: say \"role_type\": \"jwt\"")),
            other => return Err(Refusal::bad(format!("invalid 'role_type': {other}"))),
        }
        let glob = match text("bound_claims_type") {
            "" | "string" => false,
            "glob" => true,
            other => return Err(Refusal::bad(format!("invalid 'bound_claims_type': {other}"))),
        };
        let user_claim = text("user_claim").to_owned();
        if user_claim.is_empty() {
            return Err(Refusal::bad("a user claim must be defined on the role"));
        }
        let listed = |name: &str| body.get(name).map(strings).unwrap_or_default();
        let pairs = |name: &str| body.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let audiences = listed("bound_audiences");
        let subject = text("bound_subject").to_owned();
        let claims: Vec<_> = pairs("bound_claims").iter().map(|(claim, value)| (claim.clone(), list(value))).collect();
        if audiences.is_empty() && subject.is_empty() && claims.is_empty() {
            return Err(Refusal::bad(
                "must have at least one bound constraint when creating/updating a role",
            ));
        }
        let mappings = pairs("claim_mappings");
        let mappings = mappings.iter().filter_map(|(claim, key)| Some((claim.clone(), key.as_str()?.to_owned())));
        let mut policies = listed("token_policies");
        // The older name.
        policies.extend(listed("policies"));
        if body.get("token_no_default_policy").and_then(Value::as_bool) != Some(true) {
            policies.push("default".to_owned());
        }
        policies.sort();
        policies.dedup();
        let terms = Terms {
            ttl: time("token_ttl")?,
            max_ttl: time("token_max_ttl")?,
            period: time("token_period")?,
            explicit_max_ttl: time("token_explicit_max_ttl")?,
        };
        if !terms.max_ttl.is_zero() && terms.ttl > terms.max_ttl {
            return Err(Refusal::bad("ttl should not be greater than max ttl"));
        }
        if terms.period > SYSTEM_TTL {
            return Err(Refusal::bad("'period' is greater than the backend's maximum lease TTL"));
        }
        let or = |given: Duration, default| if given.is_zero() { default } else { given };
        Ok(Self {
            audiences,
            subject,
            claims,
            glob,
            user_claim,
            mappings: mappings.collect(),
            policies,
            terms,
            skew: or(time("clock_skew_leeway")?, SKEW),
            expiration_leeway: or(time("expiration_leeway")?, LEEWAY),
            not_before_leeway: or(time("not_before_leeway")?, LEEWAY),
            body: body.clone(),
        })
    }

    /// The registered claims. `now` in unix seconds.
    fn accept(&self, config: &Config, claims: &Map<String, Value>, now: u64) -> Result<(), String> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if !config.bound_issuer.is_empty() && text("iss") != config.bound_issuer {
            return Err("invalid issuer (iss) claim".to_owned());
        }
        if !self.subject.is_empty() && text("sub") != self.subject {
            return Err("invalid subject (sub) claim".to_owned());
        }
        let audiences = claims.get("aud").map(strings).unwrap_or_default();
        if !self.audiences.is_empty() && !self.audiences.iter().any(|bound| audiences.contains(bound)) {
            return Err(
                "invalid audience (aud) claim: audience claim does not match any expected audience".to_owned(),
            );
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as u64);
        let (iat, nbf, exp) = (time("iat"), time("nbf"), time("exp"));
        if iat.or(nbf).or(exp).is_none() {
            return Err("no issued at (iat), not before (nbf), or expiration time (exp) claims in token".to_owned());
        }
        let starts = nbf.or(iat).unwrap_or_else(|| {
            exp.unwrap_or_default().saturating_sub(self.not_before_leeway.as_secs())
        });
        let ends = exp.unwrap_or_else(|| iat.max(nbf).unwrap_or_default() + self.expiration_leeway.as_secs());
        let skew = self.skew.as_secs();
        if now + skew < starts {
            return Err("invalid not before (nbf) claim: token not yet valid".to_owned());
        }
        if now.saturating_sub(skew) > ends {
            return Err("invalid expiration time (exp) claim: token is expired".to_owned());
        }
        if iat.is_some_and(|iat| now + skew < iat) {
            return Err("invalid issued at (iat) claim: token issued in the future".to_owned());
        }
        Ok(())
    }

    /// The claims that the role binds.
    fn accept_claims(&self, claims: &Map<String, Value>) -> Result<(), String> {
        for (claim, bound) in &self.claims {
            let Some(actual) = find(claims, claim) else {
                return Err(format!("claim {claim:?} is missing"));
            };
            let actual = list(&actual);
            let found = bound.iter().any(|bound| actual.iter().any(|actual| self.matches(bound, actual)));
            if !found {
                return Err(format!("claim {claim:?} does not match any associated bound claim values"));
            }
        }
        Ok(())
    }

    fn matches(&self, bound: &Value, actual: &Value) -> bool {
        match (bound.as_str(), actual.as_str()) {
            (Some(pattern), Some(text)) if self.glob => glob(pattern, text),
            _ => bound == actual,
        }
    }
}

/// A claim by name, or by JSON pointer where it begins with a slash.
fn find(claims: &Map<String, Value>, claim: &str) -> Option<Value> {
    if claim.starts_with('/') {
        Value::Object(claims.clone()).pointer(claim).cloned()
    } else {
        claims.get(claim).cloned()
    }
}

fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        other => vec![other.clone()],
    }
}

/// A list of strings, or one string with commas.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) if text.contains("-----BEGIN") => vec![text.clone()],
        Value::String(text) => text
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect(),
        _ => Vec::new(),
    }
}

/// `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_s_star_stands_for_anything() {
        for (pattern, text, fits) in [
            ("nvca*", "nvca-operator", true),
            ("*-operator", "nvca-operator", true),
            ("n*o*r", "nvca-operator", true),
            ("nvca", "nvca-operator", false),
            ("a*ab", "ab", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
