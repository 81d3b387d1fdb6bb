//! What the control plane's own parts ask without a token: whose a token is, what it may do on NATS, whether all is well.

use serde_json::{Value, json};

use super::{
    Fake,
    auth::{self, Bad},
    body::Fields,
    jwt::Jwt,
    message::Answer,
};

pub(super) fn health(fake: &Fake) -> Answer {
    match &fake.publisher {
        Some(publisher) if !publisher.is_connected() => Answer::json(503, &json!({"status": "DOWN"})),
        _ => Answer::ok(&json!({"status": "UP"})),
    }
}

pub(super) fn introspect(fake: &Fake, body: &Fields) -> Answer {
    let token = match body.filled("token") {
        Ok(Some(token)) => token,
        Ok(None) => return Answer::error(400, "must not be blank"),
        Err(refused) => return refused,
    };
    if token.len() > auth::LONGEST {
        return Answer::json(431, &json!({"active": false, "error": "JWT exceeds 2048 byte limit"}));
    }
    let inactive = |error: &str| Answer::ok(&json!({"active": false, "error": error}));
    let Some(jwt) = Jwt::parse(&token) else {
        return inactive("JWT verification failed");
    };
    let named = auth::cluster_audiences(&jwt);
    let [cluster] = named.as_slice() else {
        return inactive("Audience must contain cluster ID in format nvcf-icms:{clusterId}");
    };
    let has_keys = fake.read(|state| state.by_id.get(cluster).is_some_and(|row| row.jwks.is_some()));
    if !has_keys {
        return inactive("No cluster found with valid JWKS for the provided audience");
    }
    // The issuer is not compared: that is the real service's gap.
    if auth::of_cluster(fake, &jwt, true).is_err() {
        return inactive("JWT verification failed");
    }
    let subject = jwt.text("sub").unwrap_or_default();
    let kind = if subject.starts_with("spiffe://") {
        "spiffe"
    } else {
        "psat"
    };
    let claim = |name: &str| jwt.claims.get(name).cloned().unwrap_or(Value::Null);
    Answer::ok(
        &json!({"active": true, "sub": subject, "aud": claim("aud"), "iss": claim("iss"), "cluster_id": cluster,
        "token_type": kind}),
    )
}

pub(super) fn nats_authorize(fake: &Fake, body: &Fields) -> Answer {
    let mut fields = Vec::new();
    for name in ["account", "pluginName", "payload"] {
        match body.filled(name) {
            Ok(Some(value)) => fields.push(value),
            Ok(None) => return Answer::error(400, "must not be blank"),
            Err(refused) => return refused,
        }
    }
    let (account, plugin, payload) = (&fields[0], &fields[1], &fields[2]);
    if account != "APP" || plugin != "oidc" {
        return Answer::empty(403);
    }
    if payload.len() > auth::LONGEST {
        return Answer::empty(431);
    }
    let Some(jwt) = Jwt::parse(payload) else {
        return Answer::empty(400);
    };
    let named = auth::cluster_audiences(&jwt);
    let [cluster] = named.as_slice() else {
        return Answer::empty(400);
    };
    if let Err(Bad::Full | Bad::Token(_)) = auth::of_cluster(fake, &jwt, true) {
        return Answer::empty(401);
    }
    Answer::ok(
        &json!({"userId": format!("cluster-{cluster}"), "account": "APP", "ttl": 3_600_000_000_000_u64,
        "permissions": {"publish": {"allow": subjects(cluster)}, "subscribe": {"allow": ["_INBOX.>"]}}}),
    )
}

/// Eight subjects; how the real ones are written was only seen in outline.
fn subjects(cluster: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    for stream in [crate::wire::CREATION_STREAM, crate::wire::TERMINATION_STREAM] {
        let durable = format!("{stream}-{cluster}");
        subjects.push(format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}.>"));
        subjects.push(format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"));
        subjects.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"));
        subjects.push(format!("$JS.ACK.{stream}.{durable}.>"));
    }
    subjects
}
