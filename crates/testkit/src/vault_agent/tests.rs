//! The agent against a stand-in of the server, with a clock that moves when told.

use std::sync::Arc;

use berth_runtime::{ManualClock, Shutdown, Tasks};
use parking_lot::Mutex;

use super::*;
use crate::bao::{
    Bao,
    jwt::Signer,
    server::{BaoServer, Faults},
};

const START: u64 = 1_800_000_000_000;

struct Bench {
    dir: tempfile::TempDir,
    clock: ManualClock,
    server: BaoServer,
    root: BaoClient,
    shutdown: Shutdown,
    log: Arc<Mutex<String>>,
}

impl Bench {
    async fn new() -> Self {
        let clock = ManualClock::at_unix_ms(START);
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let bao = Bao::dev(clock.shared(), "root", "key");
        let local = "127.0.0.1:0".parse().unwrap();
        let server = BaoServer::start(bao, local, Faults::default(), &tasks, &shutdown).unwrap();
        let root = server.client().token("root");
        let issuer = Signer::generate("cluster").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let put = async |path: &str, body: Value| root.write(path, body).await.map(drop).unwrap();
        put("sys/auth/jwt", json!({"type": "jwt"})).await;
        put(
            "auth/jwt/config",
            json!({"jwt_validation_pubkeys": [issuer.public_pem()]}),
        )
        .await;
        let policy = r#"path "*" { capabilities = ["read", "update"] }"#;
        put("sys/policies/acl/all", json!({ "policy": policy })).await;
        let role = json!({"role_type": "jwt", "bound_audiences": ["bao"], "user_claim": "sub", "token_policies": ["all"],
            "token_ttl": "1h", "token_max_ttl": "3h"});
        put("auth/jwt/role/nvca", role).await;
        put("sys/mounts/sis/jwt", json!({"type": "vault-plugin-secrets-jwt"})).await;
        put("sis/jwt/config", json!({"jwt_ttl": "30m"})).await;
        put("sis/jwt/roles/nvca", json!({"claims": {"sub": "nvca"}})).await;
        put("secret/data/nats", json!({"data": {"key": "one"}})).await;
        let claims = json!({"sub": "x", "aud": "bao", "iat": START / 1000, "exp": START / 1000 + 36000});
        let jwt = issuer.sign(claims.as_object().unwrap()).unwrap();
        files::write(&below(dir.path(), "/var/run/token"), &jwt, 0o600).unwrap();
        let log = Arc::default();
        Self {
            dir,
            clock,
            server,
            root,
            shutdown,
            log,
        }
    }

    fn agent(&self) -> Agent {
        let template = r#"{{ with secret "secret/data/nats" }}{{ .Data.data.key }}{{ end }}"#;
        let signed = r#"{{ with secret "sis/jwt/sign/nvca" }}{{ .Data.token }}{{ end }}"#;
        let config = json!({
            "auto_auth": {"method": {"type": "kubernetes", "mount_path": "auth/jwt", "min_backoff": "10ms", "max_backoff": "20ms",
                "config": {"role": "nvca", "token_path": "/var/run/token"}},
                "sink": [{"type": "file", "config": {"path": "/home/vault/.vault-token"}}]},
            "vault": {"address": self.server.client().address()},
            "template": [{"destination": "/vault/secrets/nats", "contents": template},
                {"destination": "/vault/secrets/icms", "contents": signed, "perms": "0400"}],
        });
        let log = Arc::clone(&self.log);
        let log: Log = Box::new(move |line| {
            let mut all = log.lock();
            all.push_str(line);
            all.push('\n');
        });
        let config = AgentConfig::parse(config.to_string().as_bytes()).unwrap();
        let config = config.client_timeout(Duration::from_millis(300));
        Agent::new(config, self.dir.path().to_owned(), None, self.clock.shared(), log)
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(below(self.dir.path(), path)).unwrap_or_default()
    }

    async fn change(&self) {
        let body = json!({"data": {"key": "two"}});
        self.root.write("secret/data/nats", body).await.unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.trigger("the test is over");
    }
}

#[tokio::test]
async fn files_are_rendered_and_the_log_holds_no_secret() {
    let bench = Bench::new().await;
    let mut agent = bench.agent();
    let next = agent.round().await.unwrap();
    assert_eq!(bench.file("/vault/secrets/nats"), "one");
    let icms = bench.file("/vault/secrets/icms");
    assert_eq!(icms.split('.').count(), 3, "{icms}");
    assert!(bench.file("/home/vault/.vault-token").starts_with("s."));
    // The static secret is looked at first.
    assert_eq!(next, Duration::from_mins(5));
    let log = bench.log.lock().clone();
    assert!(log.contains("rendered /vault/secrets/nats"), "{log}");
    assert!(
        !log.contains("one\n") && !log.contains(&icms) && !log.contains("s."),
        "{log}"
    );
}

#[tokio::test]
async fn a_changed_secret_and_a_lease_near_its_end_are_rendered_again() {
    let bench = Bench::new().await;
    let mut agent = bench.agent();
    agent.round().await.unwrap();
    let first = bench.file("/vault/secrets/icms");
    bench.change().await;
    bench.clock.advance(Duration::from_mins(4));
    agent.round().await.unwrap();
    assert_eq!(bench.file("/vault/secrets/nats"), "one");
    bench.clock.advance(Duration::from_mins(1));
    agent.round().await.unwrap();
    assert_eq!(bench.file("/vault/secrets/nats"), "two");
    assert_eq!(bench.file("/vault/secrets/icms"), first);
    bench.clock.advance(Duration::from_mins(22));
    agent.round().await.unwrap();
    assert_ne!(bench.file("/vault/secrets/icms"), first);
}

#[tokio::test]
async fn the_token_is_renewed_and_replaced_at_its_maximum() {
    let bench = Bench::new().await;
    let mut agent = bench.agent();
    agent.round().await.unwrap();
    let token = bench.file("/home/vault/.vault-token");
    for _ in 0..4 {
        bench.clock.advance(Duration::from_mins(40));
        agent.round().await.unwrap();
    }
    assert_eq!(bench.file("/home/vault/.vault-token"), token);
    assert_eq!(bench.log.lock().matches("renewed the token").count(), 4);
    bench.clock.advance(Duration::from_mins(40));
    agent.round().await.unwrap();
    assert_ne!(bench.file("/home/vault/.vault-token"), token);
    let revoked = bench.server.client().token(&bench.file("/home/vault/.vault-token"));
    revoked.write("auth/token/revoke-self", json!({})).await.unwrap();
    bench.clock.advance(Duration::from_mins(5));
    // The fetch tells that the token is gone; the next round logs in.
    assert!(matches!(agent.round().await, Err(AgentError::Fetch { .. })));
    agent.round().await.unwrap();
}

#[tokio::test]
async fn a_sealed_a_slow_and_an_absent_server_leave_the_last_good_files() {
    let bench = Bench::new().await;
    let mut agent = bench.agent();
    agent.round().await.unwrap();
    let good = bench.file("/vault/secrets/icms");
    bench.change().await;

    bench.root.write("sys/seal", json!({})).await.unwrap();
    bench.clock.advance(Duration::from_mins(28));
    let sealed = agent.round().await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(sealed)).contains("Vault is sealed"));
    bench.root.write("sys/unseal", json!({"key": "key"})).await.unwrap();

    bench.server.set_faults(Faults {
        slow: Duration::from_secs(1),
        hang: false,
    });
    let slow = agent.round().await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(slow)).contains("did not answer within 0.3 s"));
    bench.server.set_faults(Faults {
        slow: Duration::ZERO,
        hang: true,
    });
    assert!(agent.round().await.is_err());
    assert_eq!(
        (bench.file("/vault/secrets/icms"), bench.file("/vault/secrets/nats")),
        (good.clone(), "one".to_owned())
    );

    bench.server.set_faults(Faults::default());
    agent.round().await.unwrap();
    assert_ne!(bench.file("/vault/secrets/icms"), good);
    assert_eq!(bench.file("/vault/secrets/nats"), "two");
}

#[tokio::test]
async fn a_token_file_that_comes_late_is_waited_for() {
    let bench = Bench::new().await;
    let path = below(bench.dir.path(), "/var/run/token");
    let jwt = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut agent = bench.agent();
    assert_eq!(agent.round().await.unwrap_err().reason(), "Token");
    fs::write(&path, jwt).unwrap();
    agent.round().await.unwrap();
    assert_eq!(bench.file("/vault/secrets/nats"), "one");
}

#[tokio::test]
async fn one_secret_that_is_refused_does_not_keep_the_other_away() {
    let bench = Bench::new().await;
    bench.root.delete("sis/jwt/roles/nvca").await.unwrap();
    let mut agent = bench.agent();
    let error = agent.round().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Fetch { path, .. } if path == "sis/jwt/sign/nvca"),
        "{error}"
    );
    assert_eq!(bench.file("/vault/secrets/nats"), "one");
    assert_eq!(bench.file("/vault/secrets/icms"), "");
}

#[tokio::test]
async fn an_init_container_s_agent_ends_when_every_file_is_there() {
    let bench = Bench::new().await;
    bench.root.write("sys/seal", json!({})).await.unwrap();
    let mut agent = bench.agent();
    agent.config.exit_after_auth = true;
    let running = crate::spawn(agent.run(CancellationToken::new()));
    let tried = async || {
        anyhow::ensure!(bench.log.lock().contains("Vault is sealed"), "not yet");
        Ok(())
    };
    crate::eventually(Duration::from_secs(5), tried).await.unwrap();
    assert!(!running.is_finished());
    bench.root.write("sys/unseal", json!({"key": "key"})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bench.file("/vault/secrets/nats"), "one");
}
