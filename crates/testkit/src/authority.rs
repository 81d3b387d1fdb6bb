//! Who signs SIS's tokens: a key of its own, its key set over HTTP, and tokens with any claims. Stands in for OpenBao where
//! only the tokens matter; for its whole way of working see `bao`.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::spawn;

/// SIS's own issuer, as OpenBao signs for it.
pub const ISSUER: &str = "http://api.sis.svc.cluster.local";

/// Signs tokens as OpenBao does, and serves the key set while it lives.
#[derive(Debug)]
pub struct Authority {
    key: EcdsaKeyPair,
    key_set: String,
}

impl Authority {
    /// On any free port of this machine.
    pub async fn start() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let set =
            json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1", "x": x, "y": y}]});
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let key_set = format!("http://{}/jwks", listener.local_addr().expect("a bound address"));
        let router = Router::new().route("/jwks", get(async move || Json(set)));
        drop(spawn(async move { axum::serve(listener, router).await }));
        Self { key, key_set }
    }

    /// URL of the key set.
    pub fn key_set(&self) -> &str {
        &self.key_set
    }

    /// What `fake-sis --issuer` takes.
    pub fn issuer(&self) -> String {
        format!("{ISSUER}={}", self.key_set)
    }

    /// A token as the operator's signing role makes it, once its claims were changed.
    pub fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = unix_seconds();
        let mut claims = json!({
            "iss": ISSUER, "sub": "nvca-operator", "aud": ["nvca-operator"], "scopes": ["cluster-management"],
            "iat": now, "nbf": now, "exp": now + 600,
        });
        change(&mut claims);
        let part = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", BASE64.encode(signature.as_ref()))
    }

    /// `secrets.json` as OpenBao's agent renders it, with such a token.
    pub fn secrets(&self, change: impl FnOnce(&mut Value)) -> String {
        json!({"kv": {"tokens": {"icms": self.token(change)}}}).to_string()
    }
}

#[expect(clippy::disallowed_methods, reason = "a token's times are the wall clock's")]
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}
