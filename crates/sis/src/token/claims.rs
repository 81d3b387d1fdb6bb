//! What a JSON Web Token says, read leniently and unverified.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// The claims that a check needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub issuer: Option<String>,
    pub subject: Option<String>,
    pub audiences: Vec<String>,
    pub scopes: Vec<String>,
    /// Unix seconds.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub not_before: Option<i64>,
}

impl Claims {
    /// Of a compact JWT; `None` if it is none.
    pub fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        payload.is_object().then(|| Self {
            issuer: text(&payload["iss"]),
            subject: text(&payload["sub"]),
            audiences: texts(&payload["aud"]),
            scopes: texts(&payload["scopes"]),
            expires_at: payload["exp"].as_i64(),
            not_before: payload["nbf"].as_i64(),
        })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A list, or one text that is one entry: that is how the service reads `scopes` too.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}
