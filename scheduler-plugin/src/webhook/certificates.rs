//! The webhook's certificates: one authority for all replicas, in a Secret; a serving certificate for each process, renewed
//! daily; the API server is told the authority in the MutatingWebhookConfiguration. Nobody else is needed for any of it, and what
//! others delete or empty is put right within minutes.

use std::{fs, io, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use berth_runtime::{
    SharedClock,
    authority::{self, Authority, AuthorityError, Serving},
    kubernetes::{ApiError, DEADLINE, within},
    tls::ServerTls,
};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{debug, info, warn};

use super::{Reached, WebhookConfig};

/// Also the MutatingWebhookConfiguration's name.
const NAME: &str = "berth-placement";
const SECRET: &str = "berth-webhook-authority";
const MANAGER: &str = "berth-scheduler";
/// Annotation of the Secret: when the newest authority was made, unix milliseconds.
const MADE: &str = "gpu.berth.dev/made-unix-ms";
const SUBJECT: &str = "berth-scheduler webhook authority";
/// Pods go by a webhook that somebody emptied or deleted, or whose authority was replaced.
const LOOK: Duration = Duration::from_mins(5);
/// A serving certificate is valid for a week and replaced every day.
const SERVING_DAYS: u64 = 7;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const RETRY: Duration = Duration::from_secs(2);

/// Keeps all of them fresh.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) config: WebhookConfig,
    pub(super) addr: SocketAddr,
    pub(super) clock: SharedClock,
    pub(super) tls: ServerTls,
}

/// The serving certificate that is in use.
#[derive(Debug)]
struct Signed {
    at_unix_ms: u64,
    /// Who is trusted by whoever trusts it.
    by: String,
}

/// Never with a byte of a key.
#[derive(Debug, Error)]
enum CertificateError {
    #[error("the API server did not take or give what the webhook needs")]
    Api(#[from] ApiError),
    #[error("a certificate cannot be made")]
    Make(#[from] AuthorityError),
    #[error("the serving certificate cannot be written to {0}: give a directory that can be by --webhook-certs")]
    Write(String, #[source] io::Error),
    #[error("the Secret {SECRET} does not hold an authority: delete it, and a new one is made")]
    Secret,
}

impl Keeper {
    /// For ever.
    pub(super) async fn run(self, client: Client) {
        let mut signed = None;
        loop {
            let wait = match self.renew(&client, &mut signed).await {
                Ok(()) => LOOK,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the webhook is not ready: trying on"
                    );
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn renew(&self, client: &Client, signed: &mut Option<Signed>) -> Result<(), CertificateError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.config.namespace);
        let authority = self.authority(&secrets).await?;
        let now = self.clock.now_unix_ms();
        let is_fresh =
            |signed: &Signed| signed.by == authority.trusted() && now.saturating_sub(signed.at_unix_ms) < DAY_MS;
        if !signed.as_ref().is_some_and(is_fresh) {
            self.serve_by(&authority).await?;
            *signed = Some(Signed {
                at_unix_ms: now,
                by: authority.trusted().to_owned(),
            });
        }
        let hooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let hook = configuration(&self.config.reached, self.addr, authority.trusted());
        let params = PatchParams::apply(MANAGER).force();
        within(DEADLINE, hooks.patch(NAME, &params, &Patch::Apply(&hook))).await?;
        debug!(addr = %self.addr, "the API server knows the webhook");
        Ok(())
    }

    async fn serve_by(&self, authority: &Authority) -> Result<(), CertificateError> {
        let Serving { certificate, key } = self.serving(authority)?;
        let dir = &self.config.certificates;
        write(dir, &certificate, &key).map_err(|error| CertificateError::Write(dir.display().to_string(), error))?;
        // Whoever is told of the webhook before it can answer lets pods go by.
        let mut serving = self.tls.status();
        let ready = serving.wait_for(|status| status.serving_until_unix_ms.is_some());
        drop(tokio::time::timeout(DEADLINE, ready).await);
        info!(addr = %self.addr, "the webhook has a certificate");
        Ok(())
    }

    /// The one in the Secret, or a new one. Of two replicas that make one at the same time one wins, and both use that.
    async fn authority(&self, secrets: &Api<Secret>) -> Result<Authority, CertificateError> {
        loop {
            let now = self.clock.now_unix_ms();
            let kept = match within(DEADLINE, secrets.get(SECRET)).await {
                Ok(secret) => Some(secret),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            let Some(kept) = kept else {
                let secret = secret(&Authority::new(SUBJECT, now, None)?, now, None);
                match within(DEADLINE, secrets.create(&PostParams::default(), &secret)).await {
                    Ok(_) => info!(secret = SECRET, "an authority for the webhook was made"),
                    Err(error) if error.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            };
            let authority = authority_of(&kept).ok_or(CertificateError::Secret)?;
            if !is_old(&kept, now) {
                return Ok(authority);
            }
            let next = secret(
                &Authority::new(SUBJECT, now, Some(&authority))?,
                now,
                kept.resource_version(),
            );
            match within(DEADLINE, secrets.replace(SECRET, &PostParams::default(), &next)).await {
                Ok(_) => info!(
                    secret = SECRET,
                    "the authority of the webhook was replaced; the old one stays trusted"
                ),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn serving(&self, authority: &Authority) -> Result<Serving, CertificateError> {
        let names = names(&self.config.reached, self.addr);
        Ok(authority.serving(SUBJECT, names, self.clock.now_unix_ms(), SERVING_DAYS)?)
    }
}

fn authority_of(secret: &Secret) -> Option<Authority> {
    let data = secret.data.as_ref()?;
    let text = |name: &str| String::from_utf8(data.get(name)?.0.clone()).ok();
    Authority::of_parts(text("ca.key")?, text("ca.crt")?)
}

fn secret(authority: &Authority, now: u64, version: Option<String>) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut secret = Secret {
        data: Some(
            [
                ("ca.crt".to_owned(), bytes(authority.trusted())),
                ("ca.key".to_owned(), bytes(authority.key())),
            ]
            .into(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    secret.metadata.name = Some(SECRET.to_owned());
    secret.metadata.annotations = Some([(MADE.to_owned(), now.to_string())].into());
    secret.metadata.resource_version = version;
    secret
}

fn is_old(secret: &Secret, now: u64) -> bool {
    authority::is_old(secret.annotations().get(MADE).and_then(|text| text.parse().ok()), now)
}

fn names(reached: &Reached, addr: SocketAddr) -> Vec<String> {
    match reached {
        Reached::Direct => vec![addr.ip().to_string(), "localhost".to_owned()],
        Reached::Service { namespace, name, .. } => vec![
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
            format!("{name}.{namespace}"),
        ],
    }
}

/// The key is readable to nobody else, and there is never a certificate without its key.
fn write(dir: &Path, cert: &str, key: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, text) in [("tls.key", key), ("tls.crt", cert)] {
        let unfinished = dir.join(format!(".{name}"));
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        io::Write::write_all(&mut options.open(&unfinished)?, text.as_bytes())?;
        fs::rename(unfinished, dir.join(name))?;
    }
    Ok(())
}

fn configuration(reached: &Reached, addr: SocketAddr, trusted: &str) -> Value {
    let mut client = json!({"caBundle": ByteString(trusted.as_bytes().to_vec())});
    match reached {
        Reached::Direct => client["url"] = json!(format!("https://{addr}/mutate")),
        Reached::Service { namespace, name, port } => {
            client["service"] = json!({"namespace": namespace, "name": name, "port": port, "path": "/mutate"});
        }
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [{
            "name": "placement.gpu.berth.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            // Without Berth pods go through plain KAI.
            "failurePolicy": "Ignore",
            "timeoutSeconds": 1,
            "sideEffects": "None",
            // Another webhook may put the pod on KAI after this one was asked.
            "reinvocationPolicy": "IfNeeded",
            "matchConditions": [{"name": "kai", "expression": "object.spec.schedulerName == 'kai-scheduler'"}],
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                "values": ["kube-system", "kai-scheduler", "kai-resource-reservation"],
            }]},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                "scope": "Namespaced",
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use berth_runtime::{ManualClock, tls::ServerTlsFiles};

    use super::*;
    use crate::testing::api_double;

    const NOW: u64 = 1_800_000_000_000;

    fn keeper(dir: &Path) -> Keeper {
        Keeper {
            config: WebhookConfig {
                listen: "127.0.0.1:0".parse().unwrap(),
                reached: "berth/webhook".parse().unwrap(),
                certificates: dir.to_owned(),
                namespace: "berth".to_owned(),
            },
            addr: "127.0.0.1:9453".parse().unwrap(),
            clock: ManualClock::at_unix_ms(NOW).shared(),
            tls: ServerTls::new(
                ServerTlsFiles {
                    cert: dir.join("tls.crt"),
                    key: dir.join("tls.key"),
                    client_ca: None,
                },
                ManualClock::at_unix_ms(NOW).shared(),
            ),
        }
    }

    #[test]
    fn the_serving_certificate_is_written_for_this_user_alone_and_taken_by_the_server() {
        let dir = tempfile::tempdir().unwrap();
        berth_runtime::tls::install_crypto_provider();
        let keeper = keeper(dir.path());
        let authority = Authority::new(SUBJECT, NOW, None).unwrap();
        let Serving { certificate, key } = keeper.serving(&authority).unwrap();
        write(dir.path(), &certificate, &key).unwrap();
        let files = ServerTlsFiles {
            cert: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
            client_ca: None,
        };
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&files.key).unwrap().permissions());
        assert_eq!(mode & 0o077, 0);
        let status = ServerTls::new(files, keeper.clock.clone()).status().borrow().clone();
        assert_eq!(status.problem, None);
        let until = status.serving_until_unix_ms.unwrap();
        assert!(
            (NOW + 6 * 86_400_000..=NOW + 7 * 86_400_000).contains(&until),
            "{until}"
        );
    }

    #[tokio::test]
    async fn what_others_did_to_the_webhook_is_put_right_and_a_certificate_is_kept_for_a_day_or_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        berth_runtime::tls::install_crypto_provider();
        let authority = || Authority::new(SUBJECT, NOW, None).unwrap();
        let (one, other) = (authority(), authority());
        // One is served already: nobody waits for the first.
        let Serving { certificate, key } = keeper(dir.path()).serving(&one).unwrap();
        write(dir.path(), &certificate, &key).unwrap();
        let clock = ManualClock::at_unix_ms(NOW);
        let keeper = Keeper {
            clock: clock.shared(),
            ..keeper(dir.path())
        };
        let kept = |authority: &Authority| (200, json!(secret(authority, NOW, None)));
        let told = || (200, json!({"metadata": {"name": NAME}}));
        let looks = [&one, &one, &other, &other];
        let answers = looks.iter().flat_map(|authority| [kept(authority), told()]);
        let (client, double) = api_double::client(answers);
        let (mut signed, mut certificates) = (None, Vec::new());
        for passes in [0, 1000, 1000, DAY_MS] {
            clock.advance(Duration::from_millis(passes));
            keeper.renew(&client, &mut signed).await.unwrap();
            certificates.push(fs::read(dir.path().join("tls.crt")).unwrap());
        }
        assert_eq!(certificates[0], certificates[1]);
        assert!(certificates[1] != certificates[2] && certificates[2] != certificates[3]);
        let trusted = double.patches().into_iter();
        let trusted: Vec<_> = trusted
            .map(|hook| hook["webhooks"][0]["clientConfig"]["caBundle"].clone())
            .collect();
        let bundle = |authority: &Authority| json!(ByteString(authority.trusted().as_bytes().to_vec()));
        assert_eq!(
            trusted,
            looks.map(bundle),
            "told each time: somebody may have emptied it"
        );
    }

    #[test]
    fn an_authority_is_read_back_from_its_secret() {
        let authority = Authority::new(SUBJECT, NOW, None).unwrap();
        let kept = secret(&authority, NOW, None);
        assert_eq!(authority_of(&kept).as_ref(), Some(&authority));
        assert!(!is_old(&kept, NOW) && is_old(&kept, NOW + 366 * 86_400_000) && is_old(&Secret::default(), NOW));
        assert!(authority_of(&Secret::default()).is_none());
    }

    #[test]
    fn the_configuration_lets_pods_through_where_berth_is_away() {
        let addr = "127.0.0.1:9453".parse().unwrap();
        let direct = configuration(&Reached::Direct, addr, "pem");
        let hook = &direct["webhooks"][0];
        assert_eq!(
            (&hook["failurePolicy"], &hook["timeoutSeconds"]),
            (&json!("Ignore"), &json!(1))
        );
        assert_eq!(
            hook["clientConfig"],
            json!({"caBundle": "cGVt", "url": "https://127.0.0.1:9453/mutate"})
        );
        serde_json::from_value::<MutatingWebhookConfiguration>(direct.clone()).unwrap();
        let service = configuration(&"a/b:1".parse().unwrap(), addr, "pem");
        assert_eq!(service["webhooks"][0]["clientConfig"]["service"]["path"], "/mutate");
    }
}
