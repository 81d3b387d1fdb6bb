//! TLS: who may connect, who may change things, and certificates that come, go bad and are renewed.

use std::fs;

use berth_proto::node::v1::GetNodeRequest;
use berth_runtime::{
    dial,
    tls::{ClientTls, ClientTlsFiles},
};
use berth_testkit::{
    Process, Program,
    certs::{Ca, IssuedFiles, Subject},
};
use std::path::Path;
use tonic::Code;

use crate::support::{Client, Daemon, SOON, reason, reserve, simulated, whole};

struct Pki {
    ca: Ca,
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let pki = Self {
            ca: Ca::new("test authority"),
            dir: tempfile::tempdir().unwrap(),
        };
        pki.ca.write(pki.dir.path(), "ca");
        pki.ca.localhost().write(pki.dir.path(), "server");
        pki
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn daemon(&self) -> Program {
        simulated()
            .arg("--tls-cert", self.path("server.crt"))
            .arg("--tls-key", self.path("server.key"))
            .arg("--tls-client-ca", self.path("ca.crt"))
    }

    fn client(&self, process: &Process, identity: Option<&IssuedFiles>) -> Client {
        let identity = identity.map(|files| (files.cert.clone(), files.key.clone()));
        let tls = ClientTls::new(ClientTlsFiles {
            ca: self.dir.path().join("ca.crt"),
            identity,
        });
        let target = process.grpc().replace("http://", "https://").parse().unwrap();
        Client::new(dial::channel(&target, Some(&tls)).unwrap())
    }

    fn issue(&self, dir: &Path, name: &str) -> IssuedFiles {
        self.ca.client(&Subject::new(name)).write(dir, name)
    }
}

#[tokio::test]
async fn clients_are_known_by_their_certificate_and_allowed_by_name() {
    let pki = Pki::new();
    let scheduler = pki.issue(pki.dir.path(), "berth-scheduler");
    let viewer = pki.issue(pki.dir.path(), "viewer");
    let stranger = Ca::new("stranger")
        .client(&Subject::new("berth-scheduler"))
        .write(pki.dir.path(), "stranger");
    let daemon = Daemon::start(pki.daemon().arg("--allow", "cn:berth-scheduler")).await;

    let mut allowed = pki.client(&daemon.process, Some(&scheduler));
    let granted = reserve(&mut allowed, "a", whole(1)).await.unwrap().allocation.unwrap();
    assert_eq!(granted.client, "certificate cn:berth-scheduler");

    let mut reader = pki.client(&daemon.process, Some(&viewer));
    reader
        .get_node(GetNodeRequest {})
        .await
        .expect("reading is open to whoever may connect");
    let denied = reserve(&mut reader, "b", whole(1)).await.unwrap_err();
    assert_eq!(
        (denied.code(), reason(&denied).as_str()),
        (Code::PermissionDenied, "IdentityNotAllowed")
    );
    assert!(denied.message().contains("--allow cn:viewer"), "{}", denied.message());

    for identity in [None, Some(&stranger)] {
        let mut outsider = pki.client(&daemon.process, identity);
        let refused = outsider.get_node(GetNodeRequest {}).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok, "no verified certificate, no connection");
    }
    assert!(!daemon.process.stderr().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_stops_the_start_and_is_named() {
    let pki = Pki::new();
    fs::remove_file(pki.dir.path().join("server.key")).unwrap();
    let ended = pki.daemon().run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("TLS cannot be served"), "{}", ended.stderr);
    assert!(ended.stderr.contains("server.key"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_certificate_that_goes_bad_later_is_told_and_the_good_one_stays_in_use() {
    let pki = Pki::new();
    let viewer = pki.issue(pki.dir.path(), "viewer");
    let mut daemon = Daemon::start(pki.daemon()).await;
    daemon.until_condition("TlsReady", true).await;

    let good = fs::read(pki.dir.path().join("server.crt")).unwrap();
    fs::write(pki.dir.path().join("server.crt"), "no certificate").unwrap();
    let bad = daemon.until_condition("TlsReady", false).await;
    assert_eq!(bad.reason, "CertificateMissing");
    assert!(
        bad.message.contains("server.crt") && bad.message.contains("stays in use"),
        "{}",
        bad.message
    );
    let mut client = pki.client(&daemon.process, Some(&viewer));
    client
        .get_node(GetNodeRequest {})
        .await
        .expect("new connections get the certificate that was good last");

    fs::write(pki.dir.path().join("server.crt"), good).unwrap();
    daemon.until_condition("TlsReady", true).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_new_connections() {
    let mut pki = Pki::new();
    let mut daemon = Daemon::start(pki.daemon()).await;
    daemon.until_condition("TlsReady", true).await;
    // Everything is renewed, even the authority: only who trusts the new one can tell that it is served.
    pki.ca = Ca::new("new authority");
    pki.ca.write(pki.dir.path(), "ca");
    pki.ca.localhost().write(pki.dir.path(), "server");
    let viewer = pki.issue(pki.dir.path(), "viewer");
    let served = berth_testkit::eventually(SOON, async || {
        let mut client = pki.client(&daemon.process, Some(&viewer));
        Ok(client.get_node(GetNodeRequest {}).await?)
    });
    served.await.unwrap();
}

#[tokio::test]
async fn the_network_is_not_served_without_tls() {
    let ended = simulated().arg("--listen", "0.0.0.0:0").run(SOON).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("without TLS") && ended.stderr.contains("--tls-cert"),
        "{}",
        ended.stderr
    );

    let pki = Pki::new();
    Daemon::start(pki.daemon().arg("--listen", "0.0.0.0:0")).await;
}
