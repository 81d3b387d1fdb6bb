//! `deploy/scripts/openbao-setup.sh` against OpenBao (or its stand-in), with the tokens of a real API server.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use berth_runtime::{Clock as _, SystemClock, tls};
use berth_sis::TokenRules;
use berth_testkit::{
    Process, Program,
    bao::{BaoClient, nvcf::NATS_CREDS},
    eventually,
    rig::{
        Part, Rig, RigConfig,
        bao::{ADDRESS, Choice, ROOT_TOKEN},
        inside,
    },
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::ClusterRoleBinding,
};
use kube::{Api, api::PostParams};
use nkeys::KeyPair;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const AUDIENCE: &str = "http://openbao-server.vault-system.svc.cluster.local:8200";
const OTHER: &str = "http://127.0.0.1:8201";

fn in_namespace(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        tls::install_crypto_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

/// How the script ended, and both its outputs.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    text: String,
}

/// The script, in front of a curl that writes down how it was called.
struct Script {
    home: tempfile::TempDir,
    token: &'static str,
}

impl Script {
    fn new(token: &'static str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let curl = home.path().join("curl");
        let text = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$HOME/calls\"\nenv >>\"$HOME/calls\"\nPATH=${PATH#*:} exec curl \"$@\"\n";
        fs::write(&curl, text).unwrap();
        fs::set_permissions(&curl, fs::Permissions::from_mode(0o755)).unwrap();
        Self { home, token }
    }

    fn run(&self, address: &str, args: &[&str]) -> Ended {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/scripts/openbao-setup.sh");
        let path = env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .arg(script)
            .args(["--address", address])
            .args(args)
            .env("PATH", format!("{}:{path}", self.home.path().display()))
            .env("HOME", self.home.path())
            .env("BAO_TOKEN", self.token)
            .env_remove("BAO_ADDR")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        Ended {
            code: output.status.code(),
            text: String::from_utf8(text).unwrap(),
        }
    }

    /// As `nk -gen user -pubout` prints it.
    fn nats_key(&self) -> (PathBuf, KeyPair) {
        let (path, key) = (self.home.path().join("nats.nk"), KeyPair::new_user());
        fs::write(&path, format!("{}\n{}\n", key.seed().unwrap(), key.public_key())).unwrap();
        (path, key)
    }

    /// Neither on a command line nor in an environment.
    fn never_showed(&self, secret: &str) {
        let calls = fs::read_to_string(self.home.path().join("calls")).unwrap();
        assert!(calls.contains("/v1/sys/auth") && !calls.contains(secret));
    }
}

/// A cluster whose keys everybody may read, with the two service accounts, and an OpenBao that nobody has set up.
struct Cluster {
    rig: Rig,
    _bao: Part,
    root: BaoClient,
}

impl Cluster {
    async fn up(choice: &Choice) -> Self {
        let config = RigConfig {
            nodes: 0,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let post = PostParams::default();
        let binding = json!({"metadata": {"name": "keys"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:service-account-issuer-discovery"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}]});
        let bindings: Api<ClusterRoleBinding> = Api::all(rig.client());
        let binding = serde_json::from_value(binding).unwrap();
        bindings.create(&post, &binding).await.unwrap();
        for (namespace, name) in [("nvca-system", "nvca"), ("nvca-operator", "nvca-operator")] {
            let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
            Api::<Namespace>::all(rig.client())
                .create(&post, &object)
                .await
                .unwrap();
            let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            let accounts: Api<ServiceAccount> = Api::namespaced(rig.client(), namespace);
            accounts.create(&post, &object).await.unwrap();
        }
        let bao = choice.start_server(rig.dir()).await.unwrap();
        Self {
            rig,
            _bao: bao,
            root: BaoClient::new(ADDRESS).token(ROOT_TOKEN),
        }
    }

    /// What a kubelet gives to a pod of that account.
    async fn jwt(&self, namespace: &str, account: &str, audience: &str) -> String {
        let request = json!({"spec": {"audiences": [audience], "expirationSeconds": 3600}});
        let request: TokenRequest = serde_json::from_value(request).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.rig.client(), namespace);
        let post = PostParams::default();
        let answer = accounts.create_token_request(account, &post, &request).await;
        answer.unwrap().status.unwrap().token
    }

    async fn log_in(&self, role: &str, jwt: &str) -> Result<BaoClient, String> {
        let auth = self.root.login("auth/jwt", role, jwt).await;
        let auth = auth.map_err(|error| error.to_string())?;
        assert_eq!(auth["lease_duration"], 43200);
        Ok(self.root.token(auth["client_token"].as_str().unwrap()))
    }
}

#[test]
fn rig_openbao_is_set_up_once_and_again_and_each_account_gets_what_is_its_own() {
    in_namespace(
        "rig_openbao_is_set_up_once_and_again_and_each_account_gets_what_is_its_own",
        async || {
            let choice = Choice::chosen();
            let cluster = Cluster::up(&choice).await;
            let script = Script::new(ROOT_TOKEN);
            let (nats, key) = script.nats_key();
            let ca = cluster.rig.dir().join("ca.crt");
            let args = [
                "--jwks-url=https://127.0.0.1:6443/openid/v1/jwks",
                "--issuer=https://kubernetes.default.svc",
                "--ca-file",
                ca.to_str().unwrap(),
                "--nats-creds-file",
                nats.to_str().unwrap(),
            ];
            let dry = script.run(ADDRESS, &[&args[..], &["--dry-run"]].concat());
            assert_eq!(dry.code, Some(0), "{}", dry.text);
            assert!(dry.text.contains("would mount auth/jwt"), "{}", dry.text);
            let methods = cluster.root.read("sys/auth").await.unwrap();
            assert!(methods["data"].get("jwt/").is_none(), "a dry run changed something");

            for expected in ["mount auth/jwt: done", "mount auth/jwt: there already"] {
                let ended = script.run(ADDRESS, &args);
                assert_eq!(ended.code, Some(0), "{}", ended.text);
                assert!(ended.text.contains(expected), "{}", ended.text);
                assert_eq!(ended.text.contains("SKIPPED"), !choice.signs_tokens(), "{}", ended.text);
                assert!(!ended.text.contains(ROOT_TOKEN) && !ended.text.contains(&key.seed().unwrap()));
            }
            script.never_showed(ROOT_TOKEN);
            script.never_showed(&key.seed().unwrap());
            let metadata = cluster.root.read("services/all/kv/metadata/nats/creds").await.unwrap();
            assert_eq!(metadata["data"]["current_version"], 1, "the same key was stored twice");

            let agent = cluster.jwt("nvca-system", "nvca", AUDIENCE).await;
            let operator = cluster.jwt("nvca-operator", "nvca-operator", AUDIENCE).await;
            let as_agent = cluster.log_in("nvca", &agent).await.unwrap();
            let as_operator = cluster.log_in("nvca-operator", &operator).await.unwrap();
            for client in [&as_agent, &as_operator] {
                let creds = client.read(NATS_CREDS).await.unwrap();
                assert_eq!(creds["data"]["data"]["key"], key.seed().unwrap());
                assert_eq!(creds["data"]["data"]["public_key"], key.public_key());
                let change = client.write(NATS_CREDS, json!({"data": {}})).await.unwrap_err();
                assert_eq!(change.status(), Some(403));
            }

            // Nobody is somebody else, nor comes with a token for another service.
            for (role, jwt) in [("nvca", &operator), ("nvca-operator", &agent)] {
                let refusal = cluster.log_in(role, jwt).await.err().unwrap();
                assert!(refusal.contains("claim"), "{refusal}");
            }
            let stray = cluster.jwt("nvca-system", "nvca", "somebody-else").await;
            let refusal = cluster.log_in("nvca", &stray).await.err().unwrap();
            assert!(refusal.contains("audience"), "{refusal}");

            if choice.signs_tokens() {
                signs(&as_agent, &as_operator).await;
            }
        },
    );
}

/// Tokens that SIS takes.
async fn signs(agent: &BaoClient, operator: &BaoClient) {
    let now = i64::try_from(SystemClock::new().now_unix_ms() / 1000).unwrap();
    let token = async |client: &BaoClient, path: &str| -> String {
        let answer: Value = client.read(path).await.unwrap();
        answer["data"]["token"].as_str().unwrap().to_owned()
    };
    let of_agent = token(agent, "services/sis-api/jwt/sign/nvca").await;
    let (claims, warning) = TokenRules::agent().check(&of_agent, now).unwrap();
    assert_eq!(claims.subject.as_deref(), Some("nvca"));
    assert!(warning.is_none(), "{warning:?}");
    let of_operator = token(operator, "services/sis-api/jwt/sign/nvca-operator").await;
    let (claims, warning) = TokenRules::cluster_management().check(&of_operator, now).unwrap();
    assert_eq!(claims.subject.as_deref(), Some("nvca-operator"));
    assert!(warning.is_none(), "{warning:?}");
    let reports = TokenRules {
        scope: "instance_request_update".to_owned(),
        ..TokenRules::agent()
    };
    reports.check(&of_agent, now).unwrap();
    reports.check(&of_operator, now).unwrap_err();
    token(agent, "services/reval/jwt/sign/nvca").await;

    for (client, path) in [
        (agent, "services/sis-api/jwt/sign/nvca-operator"),
        (operator, "services/sis-api/jwt/sign/nvca"),
        (operator, "services/reval/jwt/sign/nvca"),
    ] {
        let refusal = client.read(path).await.unwrap_err();
        assert_eq!(refusal.status(), Some(403), "{path}");
    }
}

async fn without_plugins() -> (Process, BaoClient) {
    let bao = Program::new("bao-standin", "berth-testkit")
        .raw_args(&["--listen=127.0.0.1:8201", "--root-token=r00t-0f-8201", "--no-plugins"])
        .spawn()
        .unwrap();
    let root = BaoClient::new(OTHER).token("r00t-0f-8201");
    let up = eventually(SOON, async || {
        root.read("sys/health").await?;
        Ok(())
    });
    up.await.unwrap();
    (bao, root)
}

#[test]
fn rig_openbao_without_the_plugin_gets_the_rest_and_is_told_what_is_missing() {
    in_namespace(
        "rig_openbao_without_the_plugin_gets_the_rest_and_is_told_what_is_missing",
        async || {
            let (_bao, root) = without_plugins().await;
            let script = Script::new("r00t-0f-8201");
            let ended = script.run(OTHER, &[]);
            assert_eq!(ended.code, Some(2), "{}", ended.text);
            assert!(ended.text.contains("give --jwks-url or --issuer"), "{}", ended.text);

            let jwks = "--jwks-url=https://127.0.0.1:6443/openid/v1/jwks";
            let ended = script.run(OTHER, &[jwks, "--audience=bao"]);
            assert_eq!(ended.code, Some(0), "{}", ended.text);
            assert!(
                ended.text.contains("SKIPPED: the plugin vault-plugin-secrets-jwt"),
                "{}",
                ended.text
            );
            let role = root.read("auth/jwt/role/nvca").await.unwrap();
            assert_eq!(role["data"]["bound_audiences"], json!(["bao"]));
            // The cluster is known: its keys need not be said again.
            let ended = script.run(OTHER, &[]);
            assert_eq!(ended.code, Some(0), "{}", ended.text);
            let config = root.read("auth/jwt/config").await.unwrap();
            assert_eq!(config["data"]["jwks_url"], "https://127.0.0.1:6443/openid/v1/jwks");

            root.delete("sys/mounts/services/all/kv").await.unwrap();
            let stranger = Script::new("a-wrong-token").run(OTHER, &[]);
            assert_eq!(stranger.code, Some(1), "{}", stranger.text);
            assert!(
                stranger.text.contains("403") && !stranger.text.contains("a-wrong-token"),
                "{}",
                stranger.text
            );
            root.write("sys/seal", json!({})).await.unwrap();
            let sealed = script.run(OTHER, &[]);
            assert_eq!(sealed.code, Some(1), "{}", sealed.text);
            assert!(sealed.text.contains("no unsealed OpenBao"), "{}", sealed.text);
        },
    );
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let script = Script::new("t");
    let none = script.home.path().join("none");
    let empty = script.home.path().join("empty");
    fs::write(&empty, "no key\n").unwrap();
    let named = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let wrong = [
        "--nonsense".to_owned(),
        "--audience=a b".to_owned(),
        "--jwks-url=keys".to_owned(),
        "--ca-file=x".to_owned(),
        "--token-file".to_owned(),
        named("token-file", &none),
        named("nats-creds-file", &empty),
    ];
    for arg in &wrong {
        let ended = script.run("http://127.0.0.1:1", &[arg]);
        assert_eq!(ended.code, Some(2), "{arg}: {}", ended.text);
        assert!(ended.text.contains("--help"), "{}", ended.text);
    }
    assert_eq!(script.run("nowhere", &[]).code, Some(2));
    assert_eq!(script.run("http://127.0.0.1:1", &[]).code, Some(1));
    let help = script.run("nowhere", &["--help"]);
    assert!(
        help.code == Some(0) && help.text.contains("--nats-creds-file"),
        "{}",
        help.text
    );
}
