//! The JWT auth method: which token of another issuer becomes a token of ours, by the rules of a role.
//!
//! Order and words of the checks are those of OpenBao's plugin. Keys come in from outside: a login against a JWKS URL is
//! handled with the keys that the server has downloaded.

mod role;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Answer, Refusal, Verb,
    core::Request,
    jwt::{self, PublicKey},
    tokens::{NewToken, Terms},
};

use role::{Role, find, list, strings};

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
                return Err(invalid(&format!(
                    "error verifying token signature: fetching keys {why}"
                )));
            }
            (Keys::Url(_), None) => return Err(invalid("error verifying token signature: no keys")),
        };
        let claims =
            jwt::verify(token, keys).map_err(|error| invalid(&format!("error verifying token signature: {error}")))?;
        role.accept(&config.bound_issuer, &claims, now / 1000)
            .map_err(|why| invalid(&why))?;
        if role.audiences.is_empty() && claims.get("aud").is_some_and(|aud| !list(aud).is_empty()) {
            return Err(Refusal::bad(
                "audience claim found in JWT but no audiences bound to the role",
            ));
        }
        let user = claims.get(&role.user_claim);
        let user = user.ok_or_else(|| Refusal::bad(format!("claim {:?} not found in token", role.user_claim)))?;
        let user = user
            .as_str()
            .ok_or_else(|| Refusal::bad(format!("claim {:?} could not be converted to string", role.user_claim)))?;
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
                let keys = pems
                    .iter()
                    .map(|pem| PublicKey::from_pem(pem))
                    .collect::<Result<_, _>>();
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
