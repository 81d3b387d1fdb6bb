//! Tokens and leases: who may ask, for how long, and what ends with whom.
//!
//! Owns time: everything here is compared with the `now` that comes in, in unix milliseconds. A token that ends takes its
//! children and its leases with it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Refusal,
    duration::{ms, rfc3339},
};

/// OpenBao's own default and maximum, where nothing else is said.
pub(super) const SYSTEM_TTL: Duration = Duration::from_hours(768);

/// How long a token lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Zero: the system's.
    pub(super) ttl: Duration,
    /// From the token's creation; zero: the system's.
    pub(super) max_ttl: Duration,
    /// Not zero: each renewal gives this long again, without a maximum.
    pub(super) period: Duration,
    /// A maximum that also binds periodic tokens; zero: none.
    pub(super) explicit_max_ttl: Duration,
}

/// What a new token is.
#[derive(Debug, Default)]
pub(super) struct NewToken {
    pub(super) id: Option<String>,
    pub(super) policies: Vec<String>,
    pub(super) terms: Terms,
    /// Where it came from: `auth/jwt/login`.
    pub(super) path: String,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) display_name: String,
    pub(super) entity: Option<Uuid>,
    pub(super) parent: Option<String>,
    /// The auth role that it was made by: renewals take its terms as they are then.
    pub(super) role: Option<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) id: String,
    accessor: String,
    pub(super) new: NewToken,
    created: u64,
    /// `None`: a root token, for ever.
    expires: Option<u64>,
    renewed: Option<u64>,
}

/// What was handed out for a time.
#[derive(Debug)]
struct Lease {
    owner: String,
    issued: u64,
    expires: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    tokens: BTreeMap<String, Token>,
    leases: BTreeMap<String, Lease>,
}

// === impl Tokens ===

impl Tokens {
    /// Makes a token that lives for ever.
    pub(super) fn create_root(&mut self, id: &str, now: u64) {
        let new = NewToken {
            id: Some(id.to_owned()),
            policies: vec!["root".to_owned()],
            path: "auth/token/root".to_owned(),
            display_name: "root".to_owned(),
            ..NewToken::default()
        };
        self.insert(new, now, None);
    }

    /// Makes a token and returns its id.
    pub(super) fn create(&mut self, new: NewToken, now: u64) -> String {
        let lives = first_ttl(&new.terms);
        self.insert(new, now, Some(now + ms(lives)))
    }

    fn insert(&mut self, mut new: NewToken, now: u64, expires: Option<u64>) -> String {
        let id = new
            .id
            .take()
            .unwrap_or_else(|| format!("s.{}", &Uuid::new_v4().simple().to_string()[..24]));
        let accessor = Uuid::new_v4().simple().to_string()[..24].to_owned();
        let token = Token {
            id: id.clone(),
            accessor,
            new,
            created: now,
            expires,
            renewed: None,
        };
        self.tokens.insert(id.clone(), token);
        id
    }

    /// Ends what has run out.
    pub(super) fn expire(&mut self, now: u64) {
        let over: Vec<String> = self
            .tokens
            .values()
            .filter(|token| token.expires.is_some_and(|expires| expires <= now))
            .map(|token| token.id.clone())
            .collect();
        for id in over {
            self.revoke(&id);
        }
        self.leases.retain(|_, lease| lease.expires > now);
    }

    pub(super) fn get(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// The token, its children, and what was leased to them.
    pub(super) fn revoke(&mut self, id: &str) {
        self.tokens.remove(id);
        self.leases.retain(|_, lease| lease.owner != id);
        let children: Vec<String> = self
            .tokens
            .values()
            .filter(|token| token.new.parent.as_deref() == Some(id))
            .map(|token| token.id.clone())
            .collect();
        for child in children {
            self.revoke(&child);
        }
    }

    /// Gives a token more time: `increment`, or what its terms say, and no more than they allow.
    pub(super) fn renew(
        &mut self,
        id: &str,
        terms: Option<Terms>,
        increment: Duration,
        now: u64,
    ) -> Result<(), Refusal> {
        let token = self.tokens.get_mut(id).ok_or(Refusal::BadToken)?;
        if token.expires.is_none() {
            return Err(Refusal::bad("lease is not renewable"));
        }
        if let Some(terms) = terms {
            token.new.terms = terms;
        }
        let terms = token.new.terms;
        let wanted = if !terms.period.is_zero() {
            terms.period
        } else if increment.is_zero() {
            first_ttl(&terms)
        } else {
            increment
        };
        let mut until = now + ms(wanted);
        if terms.period.is_zero() {
            until = until.min(token.created + ms(or_system(terms.max_ttl)));
        }
        if !terms.explicit_max_ttl.is_zero() {
            until = until.min(token.created + ms(terms.explicit_max_ttl));
        }
        token.expires = Some(until);
        token.renewed = Some(now);
        Ok(())
    }

    /// Leases something to a token, with which it ends at the latest. Returns the lease's id.
    pub(super) fn lease(&mut self, path: &str, owner: &str, ttl: Duration, now: u64) -> String {
        let id = format!("{path}/{}", &Uuid::new_v4().simple().to_string()[..24]);
        let lease = Lease {
            owner: owner.to_owned(),
            issued: now,
            expires: now + ms(ttl),
        };
        self.leases.insert(id.clone(), lease);
        id
    }

    /// A lease as `sys/leases/lookup` tells it.
    pub(super) fn lookup_lease(&self, id: &str, now: u64) -> Result<Value, Refusal> {
        let lease = self.leases.get(id).ok_or_else(|| Refusal::bad("invalid lease"))?;
        Ok(json!({
            "id": id, "issue_time": rfc3339(lease.issued), "expire_time": rfc3339(lease.expires),
            "last_renewal": null, "renewable": false, "ttl": lease.expires.saturating_sub(now) / 1000,
        }))
    }

    /// No engine here leases anything that can be renewed.
    pub(super) fn renew_lease(&self, id: &str) -> Refusal {
        if self.leases.contains_key(id) {
            Refusal::bad("lease is not renewable")
        } else {
            Refusal::bad("lease not found")
        }
    }

    pub(super) fn revoke_lease(&mut self, id: &str) {
        self.leases.remove(id);
    }
}

// === impl Token ===

impl Token {
    /// As `auth/token/lookup-self` tells it.
    pub(super) fn lookup(&self, now: u64) -> Value {
        let new = &self.new;
        let mut data = json!({
            "id": self.id, "accessor": self.accessor, "policies": new.policies, "path": new.path, "meta": new.meta,
            "display_name": new.display_name, "num_uses": 0, "orphan": new.parent.is_none(),
            "creation_time": self.created / 1000, "creation_ttl": self.expires.map_or(0, |_| first_ttl(&new.terms).as_secs()),
            "expire_time": self.expires.map(rfc3339), "ttl": self.ttl(now),
            "explicit_max_ttl": new.terms.explicit_max_ttl.as_secs(), "entity_id": self.entity(), "type": "service",
        });
        if !new.terms.period.is_zero() {
            data["period"] = json!(new.terms.period.as_secs());
        }
        if let Some(expires) = self.expires {
            data["renewable"] = json!(true);
            data["issue_time"] = json!(rfc3339(self.created));
            data["expire_time"] = json!(rfc3339(expires));
        }
        if let Some(renewed) = self.renewed {
            data["last_renewal"] = json!(rfc3339(renewed));
            data["last_renewal_time"] = json!(renewed / 1000);
        }
        data
    }

    /// As a login or a renewal tells it.
    pub(super) fn auth(&self, now: u64) -> Value {
        let new = &self.new;
        json!({
            "client_token": self.id, "accessor": self.accessor, "policies": new.policies, "token_policies": new.policies,
            "metadata": new.meta, "lease_duration": self.ttl(now), "renewable": self.expires.is_some(),
            "entity_id": self.entity(), "token_type": "service", "orphan": new.parent.is_none(),
            "mfa_requirement": null, "num_uses": 0,
        })
    }

    fn ttl(&self, now: u64) -> u64 {
        self.expires.map_or(0, |expires| expires.saturating_sub(now) / 1000)
    }

    fn entity(&self) -> String {
        self.new.entity.map(|id| id.to_string()).unwrap_or_default()
    }
}

fn or_system(ttl: Duration) -> Duration {
    if ttl.is_zero() { SYSTEM_TTL } else { ttl }
}

fn first_ttl(terms: &Terms) -> Duration {
    let ttl = if terms.period.is_zero() {
        or_system(terms.ttl).min(or_system(terms.max_ttl))
    } else {
        terms.period
    };
    match terms.explicit_max_ttl {
        Duration::ZERO => ttl,
        max => ttl.min(max),
    }
}
