//! The key sets that clusters store: their form, their size, and that no two clusters share one.

use serde_json::Value;

use super::{jwt::fingerprint, message::Answer, state::State};

pub(super) const LONGEST: usize = 65_536;

/// The keys of a text that may be stored (400).
pub(super) fn parse(text: &str) -> Result<Vec<Value>, Answer> {
    let bad = |what: &str| Answer::error(400, format!("Invalid JWKS format: {what}"));
    let set: Value = serde_json::from_str(text).map_err(|_| bad("Invalid JSON object"))?;
    if !set.is_object() {
        return Err(bad("Invalid JSON object"));
    }
    let keys = set.get("keys").ok_or_else(|| bad("Missing required \"keys\" member"))?;
    keys.as_array()
        .cloned()
        .ok_or_else(|| bad("Missing required \"keys\" member"))
}

/// As in a creation and a registration: the size as a 400.
pub(super) fn parse_sized(text: &str) -> Result<Vec<Value>, Answer> {
    if text.len() > LONGEST {
        let text = format!("JWKS payload exceeds maximum allowed size of {LONGEST} bytes");
        return Err(Answer::error(400, text));
    }
    parse(text)
}

/// No other cluster has these keys (409).
pub(super) fn check_owner(state: &State, keys: &[Value], cluster: &str) -> Result<(), Answer> {
    let wanted = fingerprint(keys);
    let owner = state.by_id.values().find(|row| {
        let stored = row.jwks.as_deref().and_then(|text| parse(text).ok());
        row.cluster_id != cluster && stored.is_some_and(|stored| fingerprint(&stored) == wanted)
    });
    let Some(owner) = owner else { return Ok(()) };
    let id = &owner.cluster_id;
    let text = format!(
        "JWKS signing keys are already registered by cluster {id}. Each cluster must have unique signing keys."
    );
    Err(Answer::error(409, text))
}
