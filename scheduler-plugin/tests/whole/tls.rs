//! Certificates on both sides: kube-scheduler must show one, and the scheduler shows one to its daemons.

use std::path::Path;

use axum::body::{Body, to_bytes};
use berth_runtime::{
    dial,
    tls::{ClientTls, ClientTlsFiles, install_crypto_provider},
};
use berth_testkit::{
    Program,
    certs::{Ca, IssuedFiles, Subject},
};
use http::Request;
use tower::{Service as _, ServiceExt as _};

use crate::scheduler::{Pod, Scheduler};

/// An authority, and what it signed.
struct Certs {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl Certs {
    fn new() -> Self {
        install_crypto_provider();
        Self {
            dir: tempfile::tempdir().unwrap(),
            ca: Ca::new("test"),
        }
    }

    fn ca(&self) -> String {
        path(&self.ca.write(self.dir.path(), "ca"))
    }

    fn server(&self) -> IssuedFiles {
        self.ca.localhost().write(self.dir.path(), "server")
    }

    fn client(&self, name: &str) -> IssuedFiles {
        self.ca.client(&Subject::new(name)).write(self.dir.path(), name)
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// One request over HTTP/2, as Go's client makes it over TLS: the status, or why there was none.
async fn post(addr: &str, files: ClientTlsFiles, path: &str, body: String) -> Result<(u16, String), String> {
    let target = format!("https://{addr}").parse().unwrap();
    let mut channel = dial::channel(&target, Some(&ClientTls::new(files))).unwrap();
    let request = Request::post(path)
        .body(tonic::body::Body::new(Body::from(body)))
        .unwrap();
    let channel = channel.ready().await.map_err(|error| error.to_string())?;
    let response = channel.call(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
    Ok((status, String::from_utf8(body.into()).unwrap()))
}

#[tokio::test]
async fn with_tls_only_a_client_with_a_certificate_is_served() {
    let certs = Certs::new();
    let (ca, server, client) = (certs.ca(), certs.server(), certs.client("kube-scheduler"));
    let (cert, key) = (path(&server.cert), path(&server.key));
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let scheduler = Scheduler::start(&["http://127.0.0.1:1".to_owned()], &flags);
    let addr = scheduler.addresses.extender.clone().unwrap();
    let body = || Pod::new("p", 1).args(&["n"]).to_string();
    let known = ClientTlsFiles {
        ca: ca.clone().into(),
        identity: Some((client.cert, client.key)),
    };
    let (status, answer) = post(&addr, known, "/filter", body()).await.unwrap();
    assert_eq!((status, answer.contains("UnknownNode: ")), (200, true), "{answer}");
    let anonymous = ClientTlsFiles {
        ca: ca.into(),
        identity: None,
    };
    post(&addr, anonymous, "/filter", body()).await.unwrap_err();
    assert!(scheduler.stop().await.is_clean());
}

#[tokio::test]
async fn a_daemon_grants_to_the_certificate_that_it_allows() {
    let certs = Certs::new();
    let (ca, server, client) = (certs.ca(), certs.server(), certs.client("scheduler"));
    let daemon = Program::berthd()
        .arg("--node-name", "node")
        .arg("--simulate", "dgx-h100")
        .arg("--kubelet-socket", "none")
        .arg("--tls-cert", path(&server.cert))
        .arg("--tls-key", path(&server.key))
        .arg("--tls-client-ca", &ca)
        .arg("--allow", "cn:scheduler");
    let daemon = daemon.start().await.unwrap();
    let target = daemon.grpc().replace("http://", "https://");
    let place = async |identity: IssuedFiles, uid: &str| {
        let (cert, key) = (path(&identity.cert), path(&identity.key));
        let flags = ["--node-ca", &ca, "--node-cert", &cert, "--node-key", &key];
        let scheduler = Scheduler::start(std::slice::from_ref(&target), &flags);
        let pod = Pod::new(uid, 1);
        scheduler.until_fits(&pod, &["node"], &["node"]).await;
        scheduler.bind(&pod, "node").await
    };
    assert_eq!(place(client, "p1").await, "");
    let error = place(certs.client("stranger"), "p2").await;
    assert!(
        error.starts_with("IdentityNotAllowed: ") && error.contains("--allow cn:stranger"),
        "{error}"
    );
}
