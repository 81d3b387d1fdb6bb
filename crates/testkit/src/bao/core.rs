//! The server without its sockets: a request and the clock's time in, an answer out.
//!
//! Owns what is mounted where, and the order of the checks: sealed, open to everybody, token, policy, route.

use std::collections::BTreeMap;

use berth_runtime::SharedClock;
use serde_json::{Map, Value};

use super::{
    Answer, Refusal,
    jwt_auth::{JwksUrl, JwtAuth},
    jwt_sign::JwtSign,
    kv::Kv,
    policy::Policies,
    tokens::Tokens,
};

/// What is asked of a path. POST and PUT are the same to OpenBao.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Read,
    Write,
    Delete,
    List,
}

/// One request, free of HTTP.
#[derive(Debug, Clone)]
pub struct Request {
    pub verb: Verb,
    /// What follows `/v1/`.
    pub path: String,
    /// From `X-Vault-Token` or `Authorization: Bearer`.
    pub token: Option<String>,
    pub body: Map<String, Value>,
    pub query: BTreeMap<String, String>,
    /// The key set that [`Bao::needs_keys`] asked for, or why there is none.
    pub keys: Option<Result<Value, String>>,
}

/// The server's state.
#[derive(Debug)]
pub struct Bao {
    pub(super) clock: SharedClock,
    pub(super) sealed: bool,
    pub(super) unseal_key: String,
    pub(super) tokens: Tokens,
    pub(super) policies: Policies,
    /// By mount path, with its slash at the end and without `auth/`.
    pub(super) auth: BTreeMap<String, JwtAuth>,
    pub(super) engines: BTreeMap<String, Engine>,
    /// Whether there is an engine that signs.
    pub(super) plugins: bool,
}

/// A secrets engine.
#[derive(Debug)]
pub(super) enum Engine {
    Kv(Kv),
    Sign(JwtSign),
}

// === impl Request ===

impl Request {
    pub fn new(verb: Verb, path: impl Into<String>) -> Self {
        Self {
            verb,
            path: path.into(),
            token: None,
            body: Map::new(),
            query: BTreeMap::new(),
            keys: None,
        }
    }

    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The body; anything else than an object is an empty one.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = match body {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        self
    }

    pub(super) fn body_text(&self, name: &str) -> &str {
        self.body.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn query_number(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.parse().ok()
    }
}

// === impl Bao ===

impl Bao {
    /// As `bao server -dev`: initialized, unsealed, with KV version 2 at `secret/`.
    pub fn dev(clock: SharedClock, root_token: &str, unseal_key: &str) -> Self {
        let mut tokens = Tokens::default();
        tokens.create_root(root_token, clock.now_unix_ms());
        Self {
            clock,
            sealed: false,
            unseal_key: unseal_key.to_owned(),
            tokens,
            policies: Policies::new(),
            auth: BTreeMap::new(),
            engines: BTreeMap::from([("secret/".to_owned(), Engine::Kv(Kv::default()))]),
            plugins: true,
        }
    }

    /// As it is where nobody has registered NVCF's plugin.
    #[must_use]
    pub fn without_plugins(self) -> Self {
        Self { plugins: false, ..self }
    }

    /// Answers.
    pub fn handle(&mut self, request: &Request) -> Answer {
        self.dispatch(request).unwrap_or_else(Answer::from)
    }

    /// Where a login's keys must be downloaded from before it is handled.
    pub(super) fn needs_keys(&self, request: &Request) -> Option<JwksUrl> {
        let (_, method) = self.login(request).filter(|_| !self.sealed)?;
        method.jwks_url().cloned()
    }

    /// A new signing key of the engine mounted there, now.
    pub(super) fn rotate(&mut self, mount: &str) -> Result<(), Refusal> {
        let now = self.now();
        match self.engines.get_mut(&format!("{}/", mount.trim_matches('/'))) {
            Some(Engine::Sign(sign)) => sign.rotate(now),
            _ => Err(Refusal::NoRoute(mount.to_owned())),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now_unix_ms()
    }

    fn dispatch(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let now = self.now();
        if let Some(answer) = self.open_system(request) {
            return answer;
        }
        if self.sealed {
            return Err(Refusal::Sealed);
        }
        self.tokens.expire(now);
        if let Some((mount, _)) = self.login(request) {
            let mount = mount.to_owned();
            let method = self.auth.get_mut(&mount).ok_or(Refusal::UnsupportedPath)?;
            let token = method.login(&mount, request, now)?;
            let id = self.tokens.create(token, now);
            let token = self.tokens.get(&id).ok_or(Refusal::BadToken)?;
            return Ok(Answer::auth(token.auth(now)));
        }
        if let Some((mount, "jwks")) = mounted(&self.engines, &request.path)
            && request.verb == Verb::Read
        {
            let mount = mount.to_owned();
            if let Some(Engine::Sign(sign)) = self.engines.get_mut(&mount) {
                return sign.jwks(now);
            }
        }
        let token = request.token.as_deref().and_then(|id| self.tokens.get(id));
        let token = token.ok_or(Refusal::BadToken)?;
        let (caller, policies) = (token.id.clone(), token.new.policies.clone());
        let capability = match request.verb {
            Verb::Read => "read",
            Verb::Delete => "delete",
            Verb::List => "list",
            Verb::Write if self.exists(&request.path) => "update",
            Verb::Write => "create",
        };
        let guarded = request.path == "sys/seal" || request.path.starts_with("sys/auth/");
        let allowed = self.policies.allows(&policies, &request.path, capability)
            && (!guarded || self.policies.allows(&policies, &request.path, "sudo"));
        if !allowed {
            return Err(Refusal::Denied);
        }
        self.route(request, &caller, now)
    }

    fn route(&mut self, request: &Request, caller: &str, now: u64) -> Result<Answer, Refusal> {
        let path = request.path.as_str();
        if let Some(path) = path.strip_prefix("sys/") {
            return self.system(path, request, caller, now);
        }
        if let Some(path) = path.strip_prefix("auth/token/") {
            return self.token(path, request, caller, now);
        }
        if let Some((mount, rest)) = path.strip_prefix("auth/").and_then(|path| mounted(&self.auth, path)) {
            let mount = mount.to_owned();
            let method = self.auth.get_mut(&mount).ok_or(Refusal::UnsupportedPath)?;
            return method.handle(rest, request);
        }
        let no_route = || Refusal::NoRoute(path.to_owned());
        let (mount, rest) = mounted(&self.engines, path).ok_or_else(no_route)?;
        let mount = mount.to_owned();
        match self.engines.get_mut(&mount).ok_or_else(no_route)? {
            Engine::Kv(kv) => kv.handle(rest, request, now),
            Engine::Sign(sign) => match (rest.strip_prefix("sign/"), request.verb) {
                (Some(role), Verb::Read | Verb::Write) => {
                    let signed = sign.sign(role, request, now)?;
                    let lease = self.tokens.lease(path, caller, signed.ttl, now);
                    Ok(Answer::leased(signed.data, &lease, signed.ttl.as_secs()))
                }
                _ => sign.handle(rest, request),
            },
        }
    }

    /// Whether a write changes what is there. Where OpenBao has no such check, every write is an update.
    fn exists(&self, path: &str) -> bool {
        if let Some(path) = path.strip_prefix("auth/") {
            return match mounted(&self.auth, path) {
                Some((mount, rest)) => self.auth.get(mount).is_none_or(|method| method.exists(rest)),
                None => true,
            };
        }
        match mounted(&self.engines, path).map(|(mount, rest)| (self.engines.get(mount), rest)) {
            Some((Some(Engine::Kv(kv)), rest)) => kv.exists(rest),
            Some((Some(Engine::Sign(sign)), rest)) => sign.exists(rest),
            _ => true,
        }
    }

    fn login(&self, request: &Request) -> Option<(&str, &JwtAuth)> {
        let path = request
            .path
            .strip_prefix("auth/")
            .filter(|_| request.verb == Verb::Write)?;
        let (mount, rest) = mounted(&self.auth, path).filter(|(_, rest)| *rest == "login")?;
        debug_assert_eq!(rest, "login");
        Some((mount, self.auth.get(mount)?))
    }
}

/// The mount that a path is below, and what follows it. Mounts cannot lie in one another, so there is at most one.
fn mounted<'a, 'p, T>(mounts: &'a BTreeMap<String, T>, path: &'p str) -> Option<(&'a str, &'p str)> {
    mounts
        .keys()
        .find_map(|mount| Some((mount.as_str(), path.strip_prefix(mount.as_str())?)))
}

#[cfg(test)]
mod tests;
