//! The certificates of the agent's webhooks: an authority that stays, in a Secret; a serving certificate, renewed in time.
//!
//! Owns the two Secrets' contents. Read back from the cluster, so that neither a restart of the operator nor a rollout of the
//! agent makes a new authority. Pure: the time is passed in.

use berth_runtime::authority::{self, Authority, AuthorityError, Serving};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::manifest::{fingerprint, object};
use crate::names;

const SUBJECT: &str = "nvca webhook authority";
/// Annotation: when it was made, unix milliseconds.
const MADE: &str = "nvca-operator.nvcf.nvidia.io/made-unix-ms";
/// Annotation: of the data, and of the authority that signed it.
const SUM: &str = "nvca-operator.nvcf.nvidia.io/sum";
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
    /// Those that the Secrets hold, as far as they are whole and young enough; else those of `before`, which may not have been
    /// heard of yet; new ones for the rest.
    ///
    /// # Errors
    /// The crypto provider makes no key.
    pub(super) fn of(
        ca: Option<&Value>,
        server: Option<&Value>,
        before: Option<&Self>,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        let held = ca.filter(|secret| is_whole(secret, "")).and_then(|secret| {
            let authority = Authority::of_parts(text(secret, "ca.key")?, text(secret, "ca.pem")?)?;
            Some((authority, made(secret)?))
        });
        let held = held.or_else(|| before.map(|it| (it.authority.clone(), it.authority_made)));
        let (authority, authority_made) = match held {
            Some((authority, made)) if !authority::is_old(Some(made), now) => (authority, made),
            old => {
                let old = old.map(|(authority, _)| authority);
                (Authority::new(SUBJECT, now, old.as_ref())?, now)
            }
        };
        let is_young = |made: u64| now.saturating_sub(made) < RENEWED_AFTER_MS;
        let held = server
            .filter(|secret| is_whole(secret, authority.trusted()))
            .and_then(|secret| {
                let certificate = text(secret, "tls.crt")?;
                let key = text(secret, "tls.key")?;
                Some((Serving { certificate, key }, made(secret)?))
            });
        let before = before.filter(|it| it.authority == authority);
        let held = held.or_else(|| before.map(|it| (it.serving.clone(), it.serving_made)));
        let (serving, serving_made) = match held.filter(|(_, made)| is_young(*made)) {
            Some(held) => held,
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
        seal(&mut ca, "");
        let mut server = secret(names::WEBHOOK_CERTIFICATE, "kubernetes.io/tls", self.serving_made);
        server["data"] = json!({"tls.crt": bytes(&self.serving.certificate), "tls.key": bytes(&self.serving.key)});
        seal(&mut server, self.authority.trusted());
        [ca, server]
    }
}

fn secret(name: &str, kind: &str, made: u64) -> Value {
    let mut secret = object("v1", "Secret", Some(names::SYSTEM_NAMESPACE), name);
    secret["type"] = json!(kind);
    secret["metadata"]["annotations"] = json!({MADE: made.to_string()});
    secret
}

/// So that what was changed by hand, and a certificate of another authority, is found out.
fn seal(secret: &mut Value, authority: &str) {
    let sum = sum(secret, authority);
    secret["metadata"]["annotations"][SUM] = json!(sum);
}

fn is_whole(secret: &Value, authority: &str) -> bool {
    secret["metadata"]["annotations"][SUM] == json!(sum(secret, authority))
}

fn sum(secret: &Value, authority: &str) -> String {
    fingerprint(&format!("{authority}{}", secret["data"]))
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
        let first = Certificates::of(None, None, None, NOW).unwrap();
        let [ca, server] = first.secrets();
        let again = Certificates::of(Some(&ca), Some(&server), None, NOW + DAY).unwrap();
        assert_eq!(again.secrets(), [ca, server]);
        assert_eq!(again.ca_bundle(), first.ca_bundle());
    }

    #[test]
    fn the_serving_certificate_is_renewed_and_the_authority_stays() {
        let [ca, server] = Certificates::of(None, None, None, NOW).unwrap().secrets();
        let later = Certificates::of(Some(&ca), Some(&server), None, NOW + 31 * DAY).unwrap();
        let [ca_later, server_later] = later.secrets();
        assert_eq!(ca_later, ca);
        assert_ne!(server_later["data"]["tls.crt"], server["data"]["tls.crt"]);
        let lost = Certificates::of(Some(&ca), None, None, NOW).unwrap();
        assert_eq!(lost.secrets()[0], ca);
    }

    #[test]
    fn a_secret_that_holds_garbage_is_made_anew() {
        let [mut ca, server] = Certificates::of(None, None, None, NOW).unwrap().secrets();
        ca["data"]["ca.key"] = json!("AAAA");
        let new = Certificates::of(Some(&ca), Some(&server), None, NOW).unwrap();
        assert_ne!(new.secrets()[1]["data"]["tls.crt"], server["data"]["tls.crt"]);
    }

    #[test]
    fn a_certificate_of_another_authority_and_a_change_by_hand_are_found_out() {
        let [mut ca, server] = Certificates::of(None, None, None, NOW).unwrap().secrets();
        let [other, _] = Certificates::of(None, None, None, NOW).unwrap().secrets();
        let mixed = Certificates::of(Some(&other), Some(&server), None, NOW).unwrap();
        assert_eq!(mixed.secrets()[0], other);
        assert_ne!(mixed.secrets()[1]["data"]["tls.crt"], server["data"]["tls.crt"]);
        ca["data"]["ca.pem"] = json!("AAAA");
        let repaired = Certificates::of(Some(&ca), Some(&server), None, NOW).unwrap();
        assert_ne!(repaired.ca_bundle(), json!("AAAA"));
    }

    #[test]
    fn what_was_made_a_moment_ago_and_not_heard_of_is_made_once() {
        let first = Certificates::of(None, None, None, NOW).unwrap();
        let again = Certificates::of(None, None, Some(&first), NOW).unwrap();
        assert_eq!(again.secrets(), first.secrets());
    }
}
