//! `sys/…` and `auth/token/…`: health, seal, mounts, policies, leases, and a token's own affairs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    Answer, Refusal, Verb,
    core::{Bao, Engine, Request},
    duration,
    jwt_auth::JwtAuth,
    jwt_sign::JwtSign,
    kv::Kv,
    tokens::{NewToken, Terms},
};

/// What the stand-in says it is: the API that it follows, and that it is none.
const VERSION: &str = "2.6.2-standin";

impl Bao {
    /// What answers without a token, sealed or not.
    pub(super) fn open_system(&mut self, request: &Request) -> Option<Result<Answer, Refusal>> {
        let answer = match (request.path.as_str(), request.verb) {
            ("sys/health", Verb::Read) => Ok(self.health(request)),
            ("sys/init", Verb::Read) => Ok(Answer::raw(200, json!({"initialized": true}))),
            ("sys/seal-status", Verb::Read) => Ok(Answer::raw(200, self.seal_status())),
            ("sys/unseal", Verb::Write) => self.unseal(request),
            _ => return None,
        };
        Some(answer)
    }

    fn health(&self, request: &Request) -> Answer {
        let asked = |name: &str| request.query_number(name).and_then(|code| u16::try_from(code).ok());
        let status = if self.sealed {
            asked("sealedcode").unwrap_or(503)
        } else {
            asked("activecode").unwrap_or(200)
        };
        let mut body = json!({
            "initialized": true, "sealed": self.sealed, "standby": false, "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled", "server_time_utc": self.now() / 1000, "version": VERSION,
        });
        if !self.sealed {
            body["cluster_name"] = json!("berth-standin");
            body["cluster_id"] = json!("00000000-0000-0000-0000-000000000000");
        }
        Answer::raw(status, body)
    }

    fn seal_status(&self) -> Value {
        json!({
            "type": "shamir", "initialized": true, "sealed": self.sealed, "t": 1, "n": 1, "progress": 0, "nonce": "",
            "version": VERSION, "build_date": "", "migration": false, "recovery_seal": false, "storage_type": "inmem",
        })
    }

    fn unseal(&mut self, request: &Request) -> Result<Answer, Refusal> {
        match request.body_text("key") {
            "" => {
                return Err(Refusal::bad(
                    "'key' must be specified in request body as JSON, or 'reset' set to true",
                ));
            }
            key if key == self.unseal_key => self.sealed = false,
            _ if self.sealed => return Err(Refusal::bad("Unseal failed, invalid key")),
            _ => {}
        }
        Ok(Answer::raw(200, self.seal_status()))
    }

    pub(super) fn system(&mut self, path: &str, request: &Request, caller: &str, now: u64) -> Result<Answer, Refusal> {
        let (part, rest) = path.split_once('/').unwrap_or((path, ""));
        match (part, rest, request.verb) {
            ("seal", "", Verb::Write) => {
                self.sealed = true;
                Ok(Answer::nothing())
            }
            ("mounts", "", Verb::Read) => Ok(Answer::data(self.mounts())),
            ("mounts", path, Verb::Write) => self.mount(path, request),
            ("mounts", path, Verb::Delete) => {
                self.engines.remove(&folder(path));
                Ok(Answer::nothing())
            }
            ("auth", "", Verb::Read) => Ok(Answer::data(self.auth_mounts())),
            ("auth", path, Verb::Write) => self.mount_auth(path, request),
            ("auth", path, Verb::Delete) => {
                self.auth.remove(&folder(path));
                Ok(Answer::nothing())
            }
            ("policies", rest, verb) if rest == "acl" || rest.starts_with("acl/") => {
                let name = rest.strip_prefix("acl").unwrap_or_default().trim_matches('/');
                self.policy(name, verb, request)
            }
            ("policy", name, verb) => self.policy(name, verb, request),
            ("capabilities-self", "", Verb::Write) => Ok(self.capabilities(request, caller)),
            ("leases", "lookup", Verb::Write) => {
                let lease = self.tokens.lookup_lease(request.body_text("lease_id"), now)?;
                Ok(Answer::data(lease))
            }
            ("leases", "renew", Verb::Write) => Err(self.tokens.renew_lease(request.body_text("lease_id"))),
            ("leases", "revoke", Verb::Write) => {
                self.tokens.revoke_lease(request.body_text("lease_id"));
                Ok(Answer::nothing())
            }
            ("seal" | "mounts" | "auth" | "capabilities-self" | "leases", ..) => Err(Refusal::UnsupportedOperation),
            _ => Err(Refusal::UnsupportedPath),
        }
    }

    fn mount(&mut self, path: &str, request: &Request) -> Result<Answer, Refusal> {
        let path = folder(path);
        refuse_overlap(&path, self.engines.keys())?;
        let version = request
            .body
            .get("options")
            .and_then(|options| options["version"].as_str());
        let engine = match (request.body_text("type"), version) {
            ("kv-v2", _) | ("kv", Some("2")) => Engine::Kv(Kv::default()),
            ("vault-plugin-secrets-jwt", _) if self.plugins => Engine::Sign(JwtSign::new()),
            (other, _) => {
                return Err(Refusal::bad(format!(
                    "plugin not found in the catalog: {other} (the stand-in has kv version 2 and vault-plugin-secrets-jwt)"
                )));
            }
        };
        self.engines.insert(path, engine);
        Ok(Answer::nothing())
    }

    fn mount_auth(&mut self, path: &str, request: &Request) -> Result<Answer, Refusal> {
        let path = folder(path);
        refuse_overlap(&path, self.auth.keys())?;
        match request.body_text("type") {
            "jwt" => self.auth.insert(path, JwtAuth::default()),
            other => {
                let has = "the stand-in has jwt";
                return Err(Refusal::bad(format!(
                    "plugin not found in the catalog: {other} ({has})"
                )));
            }
        };
        Ok(Answer::nothing())
    }

    fn mounts(&self) -> Value {
        let mounts = self.engines.iter().map(|(path, engine)| {
            let (kind, options) = match engine {
                Engine::Kv(_) => ("kv", json!({"version": "2"})),
                Engine::Sign(_) => ("vault-plugin-secrets-jwt", Value::Null),
            };
            (path.clone(), json!({"type": kind, "options": options}))
        });
        Value::Object(mounts.collect())
    }

    fn auth_mounts(&self) -> Value {
        let token = ("token/".to_owned(), json!({"type": "token"}));
        let methods = self.auth.keys().map(|path| (path.clone(), json!({"type": "jwt"})));
        Value::Object(methods.chain([token]).collect())
    }

    fn policy(&mut self, name: &str, verb: Verb, request: &Request) -> Result<Answer, Refusal> {
        match (name, verb) {
            ("", Verb::List | Verb::Read) => Ok(Answer::data(json!({"keys": self.policies.names()}))),
            (name, Verb::Read) => {
                let text = self.policies.read(name).ok_or(Refusal::NotFound)?;
                Ok(Answer::data(json!({"name": name, "policy": text})))
            }
            ("root", Verb::Write) => Err(Refusal::bad("cannot update \"root\" policy")),
            ("root" | "default", Verb::Delete) => Err(Refusal::bad(format!("cannot delete {name:?} policy"))),
            (_, Verb::Write) if request.body_text("policy").is_empty() => {
                Err(Refusal::bad("'policy' parameter not supplied or empty"))
            }
            (name, Verb::Write) => {
                self.policies.write(name, request.body_text("policy"))?;
                Ok(Answer::nothing())
            }
            (name, Verb::Delete) => {
                self.policies.delete(name);
                Ok(Answer::nothing())
            }
            (_, Verb::List) => Err(Refusal::UnsupportedPath),
        }
    }

    fn capabilities(&self, request: &Request, caller: &str) -> Answer {
        let policies = self
            .tokens
            .get(caller)
            .map(|token| token.new.policies.clone())
            .unwrap_or_default();
        let paths = request.body.get("paths").or_else(|| request.body.get("path"));
        let paths = paths
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let mut told = Map::new();
        for path in paths {
            let granted = self.policies.capabilities(&policies, path);
            let granted = if granted.is_empty() {
                json!(["deny"])
            } else {
                json!(granted)
            };
            told.insert(path.to_owned(), granted);
        }
        Answer::data(Value::Object(told))
    }

    pub(super) fn token(&mut self, path: &str, request: &Request, caller: &str, now: u64) -> Result<Answer, Refusal> {
        match (path, request.verb) {
            ("lookup-self", Verb::Read) => {
                let token = self.tokens.get(caller).ok_or(Refusal::BadToken)?;
                Ok(Answer::data(token.lookup(now)))
            }
            ("renew-self", Verb::Write) => {
                let increment = duration::field(request.body.get("increment"), "increment")?.unwrap_or_default();
                let terms = self.terms_of(caller)?;
                self.tokens.renew(caller, terms, increment, now)?;
                let token = self.tokens.get(caller).ok_or(Refusal::BadToken)?;
                Ok(Answer::auth(token.auth(now)))
            }
            ("revoke-self", Verb::Write) => {
                self.tokens.revoke(caller);
                Ok(Answer::nothing())
            }
            ("create", Verb::Write) => {
                let id = self.tokens.create(self.child(request, caller)?, now);
                let token = self.tokens.get(&id).ok_or(Refusal::BadToken)?;
                Ok(Answer::auth(token.auth(now)))
            }
            ("lookup-self" | "renew-self" | "revoke-self" | "create", _) => Err(Refusal::UnsupportedOperation),
            _ => Err(Refusal::UnsupportedPath),
        }
    }

    /// What the role that made a token says now; `None`: no role made it.
    fn terms_of(&self, token: &str) -> Result<Option<Terms>, Refusal> {
        let Some((mount, role)) = self.tokens.get(token).and_then(|token| token.new.role.as_ref()) else {
            return Ok(None);
        };
        let terms = self.auth.get(mount).and_then(|method| method.terms(role));
        match terms {
            Some(terms) => Ok(Some(terms)),
            None => Err(Refusal::Internal(format!("role {role} does not exist during renewal"))),
        }
    }

    fn child(&self, request: &Request, caller: &str) -> Result<NewToken, Refusal> {
        let time = |name: &str| duration::field(request.body.get(name), name).map(Option::unwrap_or_default);
        let parent = self.tokens.get(caller).ok_or(Refusal::BadToken)?;
        let asked: Vec<String> = match request.body.get("policies").and_then(Value::as_array) {
            Some(policies) => policies.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => parent.new.policies.clone(),
        };
        let root = parent.new.policies.iter().any(|policy| policy == "root");
        if !root
            && !asked
                .iter()
                .all(|policy| policy == "default" || parent.new.policies.contains(policy))
        {
            return Err(Refusal::bad("child policies must be subset of parent"));
        }
        let mut policies = asked;
        if !policies.iter().any(|policy| policy == "root") {
            policies.push("default".to_owned());
        }
        policies.sort();
        policies.dedup();
        let orphan = request.body.get("no_parent").and_then(Value::as_bool) == Some(true);
        Ok(NewToken {
            id: Some(request.body_text("id").to_owned()).filter(|id| !id.is_empty()),
            policies,
            terms: Terms {
                ttl: time("ttl")?,
                max_ttl: Duration::ZERO,
                period: time("period")?,
                explicit_max_ttl: time("explicit_max_ttl")?,
            },
            path: "auth/token/create".to_owned(),
            display_name: "token".to_owned(),
            parent: Some(caller.to_owned()).filter(|_| !orphan),
            ..NewToken::default()
        })
    }
}

fn folder(path: &str) -> String {
    format!("{}/", path.trim_matches('/'))
}

/// No mount may lie in another.
fn refuse_overlap<'a>(path: &str, mut mounts: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    match mounts.find(|mount| mount.starts_with(path) || path.starts_with(mount.as_str())) {
        Some(mount) => Err(Refusal::bad(format!("path is already in use at {mount}"))),
        None => Ok(()),
    }
}
