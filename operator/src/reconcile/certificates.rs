//! The certificates of the agent's webhooks: an authority that stays, in a Secret; a serving certificate, renewed in time.
//!
//! Owns the two Secrets' contents. Read back from the cluster, so that neither a restart of the operator nor a rollout of the
//! agent makes a new authority. Pure: the time is passed in.

use berth_runtime::authority::{self, Authority, AuthorityError, Serving};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::manifest::object;
use crate::names;

const SUBJECT: &str = "nvca webhook authority";
/// Annotation: when it was made, unix milliseconds.
const MADE: &str = "nvca-operator.nvcf.nvidia.io/made-unix-ms";
const SERVING_DAYS: u64 = 90;
const RENEWED_AFTER_MS: u64 = 30 * 86_400_000;

/// All that the webhooks need.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    authority: Authority,
    authority_made: u64,
    serving: Serving,
    serving_made: u64,
}

impl Certificates {
    /// Those that the Secrets hold, as far as they are good and young enough; new ones for the rest.
    ///
    /// # Errors
    /// The crypto provider makes no key.
    pub(super) fn of(ca: Option<&Value>, server: Option<&Value>, now: u64) -> Result<Self, AuthorityError> {
        let kept = ca.and_then(|secret| {
            let authority = Authority::of_parts(text(secret, "ca.key")?, text(secret, "ca.pem")?)?;
            Some((authority, made(secret)?))
        });
        let (authority, authority_made, is_new) = match kept {
            Some((authority, made)) if !authority::is_old(Some(made), now) => (authority, made, false),
            old => {
                let before = old.map(|(authority, _)| authority);
                (Authority::new(SUBJECT, now, before.as_ref())?, now, true)
            }
        };
        let kept = server.filter(|_| !is_new).and_then(|secret| {
            let certificate = text(secret, "tls.crt")?;
            let key = text(secret, "tls.key")?;
            let made = made(secret)?;
            let is_young = now.saturating_sub(made) < RENEWED_AFTER_MS;
            is_young.then_some((Serving { certificate, key }, made))
        });
        let (serving, serving_made) = match kept {
            Some(kept) => kept,
            None => (authority.serving(SUBJECT, server_names(), now, SERVING_DAYS)?, now),
        };
        Ok(Self {
            authority,
            authority_made,
            serving,
            serving_made,
        })
    }

    /// For webhook configurations, in base64.
    pub(super) fn ca_bundle(&self) -> Value {
        json!(ByteString(self.authority.trusted().as_bytes().to_vec()))
    }

    /// The two Secrets.
    pub(super) fn secrets(&self) -> [Value; 2] {
        let mut ca = secret(names::WEBHOOK_CA, "Opaque", self.authority_made);
        ca["data"] = json!({"ca.pem": bytes(self.authority.trusted()), "ca.key": bytes(self.authority.key())});
        let mut server = secret(names::WEBHOOK_CERTIFICATE, "kubernetes.io/tls", self.serving_made);
        server["data"] = json!({"tls.crt": bytes(&self.serving.certificate), "tls.key": bytes(&self.serving.key)});
        [ca, server]
    }
}

fn secret(name: &str, kind: &str, made: u64) -> Value {
    let mut secret = object("v1", "Secret", Some(names::SYSTEM_NAMESPACE), name);
    secret["type"] = json!(kind);
    secret["metadata"]["annotations"] = json!({MADE: made.to_string()});
    secret
}

fn server_names() -> Vec<String> {
    let service = format!("{}.{}", names::AGENT, names::SYSTEM_NAMESPACE);
    vec![
        format!("{service}.svc"),
        format!("{service}.svc.cluster.local"),
        service,
    ]
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn text(secret: &Value, key: &str) -> Option<String> {
    let ByteString(bytes) = serde_json::from_value(secret["data"][key].clone()).ok()?;
    String::from_utf8(bytes).ok()
}

fn made(secret: &Value) -> Option<u64> {
    secret["metadata"]["annotations"][MADE].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const DAY: u64 = 86_400_000;

    #[test]
    fn a_restart_finds_the_same_certificates_again() {
        let first = Certificates::of(None, None, NOW).unwrap();
        let [ca, server] = first.secrets();
        let again = Certificates::of(Some(&ca), Some(&server), NOW + DAY).unwrap();
        assert_eq!(again.secrets(), [ca, server]);
        assert_eq!(again.ca_bundle(), first.ca_bundle());
    }

    #[test]
    fn the_serving_certificate_is_renewed_and_the_authority_stays() {
        let [ca, server] = Certificates::of(None, None, NOW).unwrap().secrets();
        let later = Certificates::of(Some(&ca), Some(&server), NOW + 31 * DAY).unwrap();
        let [ca_later, server_later] = later.secrets();
        assert_eq!(ca_later, ca);
        assert_ne!(server_later["data"]["tls.crt"], server["data"]["tls.crt"]);
        let lost = Certificates::of(Some(&ca), None, NOW).unwrap();
        assert_eq!(lost.secrets()[0], ca);
    }

    #[test]
    fn a_secret_that_holds_garbage_is_made_anew() {
        let [mut ca, server] = Certificates::of(None, None, NOW).unwrap().secrets();
        ca["data"]["ca.key"] = json!("AAAA");
        let new = Certificates::of(Some(&ca), Some(&server), NOW).unwrap();
        assert_ne!(new.secrets()[1]["data"]["tls.crt"], server["data"]["tls.crt"]);
    }
}
