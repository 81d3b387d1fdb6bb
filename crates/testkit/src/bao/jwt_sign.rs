//! The engine that signs JSON Web Tokens, mounted at `services/NAME/jwt`: vault-plugin-secrets-jwt as NVCF uses it.
//!
//! A role says the issuer and the claims; the engine adds the times and a key. `jwks` is open to everybody. A key signs for
//! `key_ttl`; then there is a new one, and the old one stays in the key set for as long as a token of its can live.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Answer, Refusal, Verb,
    core::Request,
    duration::{self, ms, show},
    jwt::Signer,
};

/// Claims that only the engine sets.
const RESERVED: [&str; 5] = ["exp", "iat", "nbf", "iss", "jti"];

/// One mount of the engine.
#[derive(Debug)]
pub(super) struct JwtSign {
    name: String,
    config: Config,
    roles: BTreeMap<String, Role>,
    keys: Vec<Key>,
    /// Keys ever made: their names count on, so that no key set shows two of one name.
    made: u32,
}

#[derive(Debug)]
struct Config {
    key_ttl: Duration,
    jwt_ttl: Duration,
    set_iat: bool,
    set_jti: bool,
    set_nbf: bool,
    issuer: String,
    allowed_claims: Vec<String>,
}

#[derive(Debug, Default)]
struct Role {
    issuer: String,
    claims: Map<String, Value>,
}

#[derive(Debug)]
struct Key {
    signer: Signer,
    made: u64,
}

/// A signed token and how long it lives.
pub(super) struct Signed {
    pub(super) data: Value,
    pub(super) ttl: Duration,
}

// === impl JwtSign ===

impl JwtSign {
    pub(super) fn new() -> Self {
        Self {
            name: Uuid::new_v4().to_string(),
            config: Config {
                key_ttl: Duration::from_hours(12),
                jwt_ttl: Duration::from_mins(5),
                set_iat: true,
                set_jti: true,
                set_nbf: true,
                issuer: String::new(),
                allowed_claims: vec!["aud".to_owned(), "sub".to_owned()],
            },
            roles: BTreeMap::new(),
            keys: Vec::new(),
            made: 0,
        }
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        match path.split_once('/') {
            Some(("roles", name)) => self.roles.contains_key(name),
            _ => true,
        }
    }

    /// Everything but signing and the key set. `path` is what follows the mount.
    pub(super) fn handle(&mut self, path: &str, request: &Request) -> Result<Answer, Refusal> {
        match (path.split_once('/').unwrap_or((path, "")), request.verb) {
            (("config", ""), Verb::Read) => Ok(Answer::data(self.config.show())),
            (("config", ""), Verb::Write) => {
                self.config.update(&request.body)?;
                Ok(Answer::data(self.config.show()))
            }
            (("roles", ""), Verb::List) if !self.roles.is_empty() => {
                let names: Vec<&String> = self.roles.keys().collect();
                Ok(Answer::data(json!({ "keys": names })))
            }
            (("roles", ""), Verb::List) => Err(Refusal::NotFound),
            (("roles", name), Verb::Read) => {
                let role = self.roles.get(name).ok_or(Refusal::NotFound)?;
                Ok(Answer::data(json!({"issuer": role.issuer, "claims": role.claims})))
            }
            (("roles", name), Verb::Write) => {
                let role = self.roles.entry(name.to_owned()).or_default();
                if let Some(issuer) = request.body.get("issuer").and_then(Value::as_str) {
                    issuer.clone_into(&mut role.issuer);
                }
                if let Some(claims) = request.body.get("claims").and_then(Value::as_object) {
                    if let Some(reserved) = claims.keys().find(|claim| RESERVED.contains(&claim.as_str())) {
                        return Err(Refusal::bad(format!("claim {reserved} not permitted")));
                    }
                    role.claims.clone_from(claims);
                }
                Ok(Answer::nothing())
            }
            (("roles", name), Verb::Delete) => {
                self.roles.remove(name);
                Ok(Answer::nothing())
            }
            (("config" | "roles" | "jwks" | "sign", _), _) => Err(Refusal::UnsupportedOperation),
            _ => Err(Refusal::UnsupportedPath),
        }
    }

    /// Signs a role's claims, and the caller's where the configuration allows them.
    pub(super) fn sign(&mut self, name: &str, request: &Request, now: u64) -> Result<Signed, Refusal> {
        let role = self.roles.get(name).ok_or_else(|| Refusal::bad("unknown role"))?;
        let mut claims = match request.body.get("claims") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(claims)) => claims.clone(),
            Some(_) => return Err(Refusal::bad("claims not a map")),
        };
        for claim in claims.keys() {
            if !self.config.allowed_claims.contains(claim) {
                return Err(Refusal::bad(format!("claim {claim} not permitted")));
            }
            if role.claims.contains_key(claim) {
                let why = "not permitted, already provided via role configuration";
                return Err(Refusal::bad(format!("claim {claim} {why}")));
            }
        }
        claims.extend(role.claims.clone());
        let seconds = now / 1000;
        claims.insert("exp".to_owned(), json!(seconds + self.config.jwt_ttl.as_secs()));
        for (set, claim) in [(self.config.set_iat, "iat"), (self.config.set_nbf, "nbf")] {
            if set {
                claims.insert(claim.to_owned(), json!(seconds));
            }
        }
        if self.config.set_jti {
            claims.insert("jti".to_owned(), json!(Uuid::new_v4()));
        }
        let issuer = [&role.issuer, &self.config.issuer]
            .into_iter()
            .find(|issuer| !issuer.is_empty());
        if let Some(issuer) = issuer {
            claims.insert("iss".to_owned(), json!(issuer));
        }
        self.turn_keys(now)?;
        let key = self.keys.last().ok_or_else(|| Refusal::Internal("no key".to_owned()))?;
        let token = key
            .signer
            .sign(&claims)
            .map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(Signed {
            data: json!({ "token": token }),
            ttl: self.config.jwt_ttl,
        })
    }

    /// The public keys, for everybody.
    pub(super) fn jwks(&mut self, now: u64) -> Result<Answer, Refusal> {
        self.turn_keys(now)?;
        let keys: Vec<Value> = self.keys.iter().map(|key| key.signer.jwk()).collect();
        Ok(Answer::raw(200, json!({ "keys": keys })))
    }

    /// A new key, whatever the age of the old one.
    pub(super) fn rotate(&mut self, now: u64) -> Result<(), Refusal> {
        self.made += 1;
        let kid = format!("{}/{}", self.name, self.made);
        let signer = Signer::generate(kid).map_err(|error| Refusal::Internal(error.to_string()))?;
        self.keys.push(Key { signer, made: now });
        Ok(())
    }

    fn turn_keys(&mut self, now: u64) -> Result<(), Refusal> {
        let (key_ttl, jwt_ttl) = (ms(self.config.key_ttl), ms(self.config.jwt_ttl));
        if self.keys.last().is_none_or(|key| key.made + key_ttl <= now) {
            self.rotate(now)?;
        }
        // A key signed until the next was made; what it signed then is over a token's life later.
        let successors = self.keys.iter().skip(1);
        let over = successors.take_while(|next| next.made + jwt_ttl <= now).count();
        self.keys.drain(..over);
        Ok(())
    }
}

// === impl Config ===

impl Config {
    fn update(&mut self, body: &Map<String, Value>) -> Result<(), Refusal> {
        if body
            .get("sig_alg")
            .and_then(Value::as_str)
            .is_some_and(|alg| alg != "ES256")
        {
            return Err(Refusal::bad(
                "unknown/unsupported signature algorithm, must be one of [ES256]",
            ));
        }
        let time = |name: &str, old: Duration| duration::field(body.get(name), name).map(|given| given.unwrap_or(old));
        self.key_ttl = time("key_ttl", self.key_ttl)?;
        self.jwt_ttl = time("jwt_ttl", self.jwt_ttl)?;
        for (name, flag) in [
            ("set_iat", &mut self.set_iat),
            ("set_jti", &mut self.set_jti),
            ("set_nbf", &mut self.set_nbf),
        ] {
            *flag = body.get(name).and_then(Value::as_bool).unwrap_or(*flag);
        }
        if let Some(issuer) = body.get("issuer").and_then(Value::as_str) {
            issuer.clone_into(&mut self.issuer);
        }
        if let Some(claims) = body.get("allowed_claims").and_then(Value::as_array) {
            self.allowed_claims = claims.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        Ok(())
    }

    fn show(&self) -> Value {
        json!({
            "sig_alg": "ES256", "key_ttl": show(self.key_ttl), "jwt_ttl": show(self.jwt_ttl), "set_iat": self.set_iat,
            "set_jti": self.set_jti, "set_nbf": self.set_nbf, "issuer": self.issuer,
            "allowed_claims": self.allowed_claims,
        })
    }
}
