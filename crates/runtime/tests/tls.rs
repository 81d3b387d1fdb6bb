//! TLS over real sockets: who gets in, as whom, and what happens when the files change.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, also outside of the tests' own functions"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use berth_proto::podresources::v1::pod_resources_lister_client::PodResourcesListerClient;
use berth_proto::podresources::v1::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use berth_proto::podresources::v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    PodResources,
};
use berth_runtime::identity::ClientIdentity;
use berth_runtime::listen::{Listen, PeerInfo};
use berth_runtime::tls::{ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles, TlsStatus};
use berth_runtime::{Shutdown, SystemClock, Tasks, dial, metrics};
use berth_testkit::certs::{Ca, Issued, Subject};
use berth_testkit::{eventually, spawn};
use prometheus_client::encoding::text::encode;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

/// Much more than an event and its settling take, and less than the poll that backs events up.
const SOON: Duration = Duration::from_secs(10);

/// Tells its caller who it is, as the name of a pod.
struct WhoAmI;

#[tonic::async_trait]
impl PodResourcesLister for WhoAmI {
    async fn list(
        &self,
        request: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let peer = request
            .extensions()
            .get::<PeerInfo>()
            .ok_or_else(|| Status::internal("no peer"))?;
        let pod = PodResources {
            name: format!("{:?}", peer.identity()),
            ..PodResources::default()
        };
        Ok(Response::new(ListPodResourcesResponse {
            pod_resources: vec![pod],
        }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

struct Rig {
    dir: TempDir,
    tls: ServerTls,
    addr: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A server with the files `server.crt`, `server.key` and, if there are any, `clients.crt` in `dir`.
fn serve(dir: TempDir) -> Rig {
    let at = |name: &str| dir.path().join(name);
    let client_ca = Some(at("clients.crt")).filter(|path| path.exists());
    let files = ServerTlsFiles {
        cert: at("server.crt"),
        key: at("server.key"),
        client_ca,
    };
    let tls = ServerTls::new(files, SystemClock::shared());
    let mut listen = Listen::new();
    let addr = listen.tcp("127.0.0.1:0".parse().unwrap(), Some(tls.clone())).unwrap();
    let stop = CancellationToken::new();
    let incoming = listen.start(&Tasks::new(Shutdown::new()), &stop);
    let service = PodResourcesListerServer::new(WhoAmI);
    let serve = Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    drop(spawn(serve));
    drop(spawn(tls.clone().follow(stop.clone())));
    Rig { dir, tls, addr, stop }
}

impl Rig {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn channel(&self, client: &ClientTls) -> Channel {
        let target = format!("https://localhost:{}", self.addr.port()).parse().unwrap();
        dial::channel(&target, Some(client)).unwrap()
    }

    /// Until the files as they are now have been looked at.
    async fn status(&self, holds: impl FnMut(&TlsStatus) -> bool) -> TlsStatus {
        let mut status = self.tls.status();
        let status = tokio::time::timeout(SOON, status.wait_for(holds)).await;
        status.expect("the status in time").unwrap().clone()
    }

    async fn problem(&self, reason: &str) -> String {
        let is = |status: &TlsStatus| status.problem.as_ref().is_some_and(|problem| problem.reason == reason);
        self.status(is).await.problem.unwrap().message
    }

    /// The certificate that a new connection gets.
    async fn shown(&self, trusted: &Ca) -> anyhow::Result<CertificateDer<'static>> {
        let ca = trusted.write(self.path(), "trusted-for-this-look");
        let config = ClientTls::new(ClientTlsFiles { ca, identity: None }).load()?;
        let stream = TcpStream::connect(self.addr).await?;
        let stream = TlsConnector::from(config)
            .connect("localhost".try_into()?, stream)
            .await?;
        let shown = stream.get_ref().1.peer_certificates().context("no certificate")?;
        Ok(shown[0].clone().into_owned())
    }
}

async fn who_am_i(channel: Channel) -> Result<String, Status> {
    let answer = PodResourcesListerClient::new(channel)
        .list(ListPodResourcesRequest {})
        .await?;
    Ok(answer.into_inner().pod_resources.remove(0).name)
}

fn client(rig: &Rig, trusted: &Ca, identity: Option<&Issued>) -> ClientTls {
    let identity = identity.map(|issued| {
        let files = issued.write(rig.path(), "client");
        (files.cert, files.key)
    });
    ClientTls::new(ClientTlsFiles {
        ca: trusted.write(rig.path(), "ca"),
        identity,
    })
}

fn dir_with_server(issued: &Issued) -> TempDir {
    let dir = TempDir::new().unwrap();
    issued.write(dir.path(), "server");
    dir
}

#[tokio::test]
async fn without_client_authority_a_client_is_anonymous_and_the_server_is_verified() {
    let (ca, stranger) = (Ca::new("ca"), Ca::new("stranger"));
    let rig = serve(dir_with_server(&ca.localhost()));
    let known = who_am_i(rig.channel(&client(&rig, &ca, None))).await.unwrap();
    assert_eq!(known, format!("{:?}", ClientIdentity::Anonymous));
    let refused = who_am_i(rig.channel(&client(&rig, &stranger, None))).await.unwrap_err();
    assert!(format!("{refused:?}").contains("UnknownIssuer"), "{refused:?}");
}

#[tokio::test]
async fn mutual_tls_lets_in_the_authoritys_clients_only_and_knows_their_names() {
    let (ca, stranger) = (Ca::new("ca"), Ca::new("stranger"));
    let dir = dir_with_server(&ca.localhost());
    ca.write(dir.path(), "clients");
    let rig = serve(dir);

    let spiffe = "spiffe://cluster.local/ns/berth/sa/scheduler";
    let subject = Subject::new("berth-scheduler")
        .dns("scheduler.berth")
        .uri(spiffe)
        .ip("10.0.0.7");
    let known = who_am_i(rig.channel(&client(&rig, &ca, Some(&ca.client(&subject)))))
        .await
        .unwrap();
    let sans = ["scheduler.berth", spiffe, "10.0.0.7"].map(str::to_owned).to_vec();
    let expected = ClientIdentity::Tls {
        common_name: Some("berth-scheduler".to_owned()),
        sans,
    };
    assert_eq!(known, format!("{expected:?}"));

    who_am_i(rig.channel(&client(&rig, &ca, None)))
        .await
        .expect_err("no certificate");
    let forged = stranger.client(&subject);
    who_am_i(rig.channel(&client(&rig, &ca, Some(&forged))))
        .await
        .expect_err("another authority's certificate");
    let expired = ca.client(&subject.clone().expired());
    who_am_i(rig.channel(&client(&rig, &ca, Some(&expired))))
        .await
        .expect_err("an expired certificate");
    let for_servers = ca.server(&subject);
    who_am_i(rig.channel(&client(&rig, &ca, Some(&for_servers))))
        .await
        .expect_err("a server's certificate");
}

#[tokio::test]
async fn a_reload_goes_from_good_over_every_kind_of_broken_to_good_and_serves_all_the_while() {
    let ca = Ca::new("ca");
    let (first, second) = (ca.localhost(), ca.localhost());
    let rig = serve(dir_with_server(&first));
    let before = rig.shown(&ca).await.unwrap();
    let write = |name: &str, text: &str| fs::write(rig.path().join(name), text).unwrap();

    write("server.crt", "garbage");
    assert!(rig.problem("CertificateMissing").await.contains("server.crt"));
    assert_eq!(rig.shown(&ca).await.unwrap(), before);

    write(
        "server.crt",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    rig.problem("CertificateInvalid").await;
    assert_eq!(rig.shown(&ca).await.unwrap(), before);

    write("server.crt", &second.cert_pem);
    let mismatch = rig.problem("KeyMismatch").await;
    assert!(
        mismatch.contains("server.key") && mismatch.contains("server.crt"),
        "{mismatch}"
    );
    assert_eq!(rig.shown(&ca).await.unwrap(), before);

    fs::remove_file(rig.path().join("server.key")).unwrap();
    assert!(rig.problem("CertificateUnreadable").await.contains("server.key"));
    assert_eq!(rig.shown(&ca).await.unwrap(), before);

    write(
        "server.key",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    );
    let bad_key = rig.problem("KeyInvalid").await;
    assert!(
        !bad_key.contains("c2VjcmV0") && !bad_key.contains("secret"),
        "no byte of a key is told: {bad_key}"
    );

    ca.server(&Subject::new("localhost").dns("localhost").expired())
        .write(rig.path(), "server");
    rig.problem("CertificateExpired").await;
    assert_eq!(rig.shown(&ca).await.unwrap(), before);

    second.write(rig.path(), "server");
    rig.status(|status| status.problem.is_none()).await;
    assert_ne!(rig.shown(&ca).await.unwrap(), before);
    who_am_i(rig.channel(&client(&rig, &ca, None))).await.unwrap();
}

#[tokio::test]
async fn files_that_come_late_are_put_to_use_and_counted() {
    let ca = Ca::new("ca");
    let rig = serve(TempDir::new().unwrap());
    let mut registry = metrics::registry(berth_runtime::BuildInfo::of("test"));
    rig.tls.register_metrics(&mut registry);
    rig.problem("CertificateUnreadable").await;
    rig.shown(&ca).await.unwrap_err();
    ca.localhost().write(rig.path(), "server");
    let status = rig.status(|status| status.serving_until_unix_ms.is_some()).await;
    assert_eq!(status.problem, None);
    rig.shown(&ca).await.unwrap();

    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("berth_tls_loads_total 1\n"), "{text}");
    assert!(
        text.contains("berth_tls_load_failures_total 0\n"),
        "late is not bad: {text}"
    );
    let expiry = status.serving_until_unix_ms.unwrap() / 1000;
    assert!(
        text.contains(&format!("berth_tls_certificate_not_after_seconds {expiry}\n")),
        "{text}"
    );
}

#[tokio::test]
async fn a_replaced_client_authority_shuts_out_the_old_clients() {
    let (ca, next_ca) = (Ca::new("ca"), Ca::new("next"));
    let dir = dir_with_server(&ca.localhost());
    ca.write(dir.path(), "clients");
    let rig = serve(dir);
    let subject = Subject::new("berth-scheduler");
    let old = client(&rig, &ca, Some(&ca.client(&subject)));
    who_am_i(rig.channel(&old)).await.unwrap();
    next_ca.write(rig.path(), "clients");
    let shut_out = eventually(SOON, async || match who_am_i(rig.channel(&old)).await {
        Ok(_) => anyhow::bail!("the old client still gets in"),
        Err(_) => Ok(()),
    });
    shut_out.await.unwrap();
    who_am_i(rig.channel(&client(&rig, &ca, Some(&next_ca.client(&subject)))))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mounted_secret_is_followed_through_its_symlink_swap() {
    let ca = Ca::new("ca");
    let dir = TempDir::new().unwrap();
    let put = |root: &Path, version: &str| {
        fs::create_dir(root.join(version)).unwrap();
        ca.localhost().write(&root.join(version), "server");
        symlink(version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    put(dir.path(), "..2026_1");
    for file in ["server.crt", "server.key"] {
        symlink(Path::new("..data").join(file), dir.path().join(file)).unwrap();
    }
    let rig = serve(dir);
    let mut shown = rig.shown(&ca).await.unwrap();
    for version in ["..2026_2", "..2026_3"] {
        put(rig.path(), version);
        let next = eventually(SOON, async || {
            let next = rig.shown(&ca).await?;
            anyhow::ensure!(next != shown, "still the old certificate");
            Ok(next)
        });
        shown = next.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_takes_its_renewed_files_at_the_next_connection_of_the_same_channel() {
    let (ca, next_ca) = (Ca::new("ca"), Ca::new("next"));
    let rig = serve(dir_with_server(&next_ca.localhost()));
    let channel = rig.channel(&client(&rig, &ca, None));
    who_am_i(channel.clone())
        .await
        .expect_err("the server's authority is not trusted yet");
    next_ca.write(rig.path(), "ca");
    who_am_i(channel.clone()).await.unwrap();
    fs::remove_file(rig.path().join("ca.crt")).unwrap();
    who_am_i(channel).await.expect("the connection stands");
    let other = ClientTls::new(ClientTlsFiles {
        ca: rig.path().join("ca.crt"),
        identity: None,
    });
    let error = who_am_i(rig.channel(&other)).await.unwrap_err();
    assert!(format!("{error:?}").contains("ca.crt"), "the file is named: {error:?}");
}

#[tokio::test]
async fn plain_text_garbage_and_silence_do_not_keep_a_tls_server_from_serving() {
    let ca = Ca::new("ca");
    let rig = serve(dir_with_server(&ca.localhost()));
    let _silent = TcpStream::connect(rig.addr).await.unwrap();
    let mut garbage = TcpStream::connect(rig.addr).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The server may send an alert or just close.
    drop(garbage.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"));
    who_am_i(rig.channel(&client(&rig, &ca, None))).await.unwrap();
}
