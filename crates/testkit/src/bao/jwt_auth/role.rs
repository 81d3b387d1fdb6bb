//! A role: which claims it asks for, and what it gives. The words of its refusals are those of OpenBao's plugin.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::bao::{
    Refusal, duration,
    tokens::{SYSTEM_TTL, Terms},
};

/// Tolerance for clocks that differ, where a role says nothing.
const SKEW: Duration = Duration::from_mins(1);
/// What a token without `exp` or `nbf` gets, where a role says nothing.
const LEEWAY: Duration = Duration::from_secs(150);

#[derive(Debug)]
pub(super) struct Role {
    pub(super) audiences: Vec<String>,
    subject: String,
    claims: Vec<(String, Vec<Value>)>,
    glob: bool,
    pub(super) user_claim: String,
    /// Claim to metadata key.
    pub(super) mappings: Vec<(String, String)>,
    pub(super) policies: Vec<String>,
    pub(super) terms: Terms,
    skew: Duration,
    expiration_leeway: Duration,
    not_before_leeway: Duration,
    pub(super) body: Map<String, Value>,
}

// === impl Role ===

impl Role {
    pub(super) fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
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
        let claims: Vec<_> = pairs("bound_claims")
            .iter()
            .map(|(claim, value)| (claim.clone(), list(value)))
            .collect();
        if audiences.is_empty() && subject.is_empty() && claims.is_empty() {
            return Err(Refusal::bad(
                "must have at least one bound constraint when creating/updating a role",
            ));
        }
        let mappings = pairs("claim_mappings");
        let mappings = mappings
            .iter()
            .filter_map(|(claim, key)| Some((claim.clone(), key.as_str()?.to_owned())));
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

    /// The registered claims; `issuer` is empty where any will do. `now` in unix seconds.
    pub(super) fn accept(&self, issuer: &str, claims: &Map<String, Value>, now: u64) -> Result<(), String> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if !issuer.is_empty() && text("iss") != issuer {
            return Err("invalid issuer (iss) claim".to_owned());
        }
        if !self.subject.is_empty() && text("sub") != self.subject {
            return Err("invalid subject (sub) claim".to_owned());
        }
        let audiences = claims.get("aud").map(strings).unwrap_or_default();
        if !self.audiences.is_empty() && !self.audiences.iter().any(|bound| audiences.contains(bound)) {
            return Err("invalid audience (aud) claim: audience claim does not match any expected audience".to_owned());
        }
        let time = |name: &str| {
            // Seconds, and a fraction where somebody likes it.
            let seconds = claims.get(name)?.as_f64()?;
            Duration::try_from_secs_f64(seconds).ok().map(|since| since.as_secs())
        };
        let (iat, nbf, exp) = (time("iat"), time("nbf"), time("exp"));
        if iat.or(nbf).or(exp).is_none() {
            return Err("no issued at (iat), not before (nbf), or expiration time (exp) claims in token".to_owned());
        }
        let starts = nbf
            .or(iat)
            .unwrap_or_else(|| exp.unwrap_or_default().saturating_sub(self.not_before_leeway.as_secs()));
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
    pub(super) fn accept_claims(&self, claims: &Map<String, Value>) -> Result<(), String> {
        for (claim, bound) in &self.claims {
            let Some(actual) = find(claims, claim) else {
                return Err(format!("claim {claim:?} is missing"));
            };
            let actual = list(&actual);
            let found = bound
                .iter()
                .any(|bound| actual.iter().any(|actual| self.matches(bound, actual)));
            if !found {
                return Err(format!(
                    "claim {claim:?} does not match any associated bound claim values"
                ));
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
pub(super) fn find(claims: &Map<String, Value>, claim: &str) -> Option<Value> {
    if claim.starts_with('/') {
        Value::Object(claims.clone()).pointer(claim).cloned()
    } else {
        claims.get(claim).cloned()
    }
}

pub(super) fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.clone(),
        other => vec![other.clone()],
    }
}

/// A list of strings, or one string with commas.
pub(super) fn strings(value: &Value) -> Vec<String> {
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
