use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;

use super::*;
use crate::Shutdown;
use crate::tls::ServerTlsFiles;
use crate::{ManualClock, SystemClock};

fn start(listen: Listen) -> (Incoming, CancellationToken, Tasks) {
    let tasks = Tasks::new(Shutdown::new());
    let stop = CancellationToken::new();
    (listen.start(&tasks, &stop), stop, tasks)
}

async fn next(incoming: &mut Incoming) -> Conn {
    tokio::time::timeout(Duration::from_secs(10), incoming.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn tcp_and_unix_clients_arrive_in_one_stream_with_their_identities() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut listen = Listen::new();
    let addr = listen.tcp("127.0.0.1:0".parse().unwrap(), None).unwrap();
    listen.unix(&socket).unwrap();
    let (mut incoming, _stop, _tasks) = start(listen);

    let tcp = TcpStream::connect(addr).await.unwrap();
    let conn = next(&mut incoming).await;
    assert_eq!(conn.peer().identity(), &ClientIdentity::Loopback);
    assert_eq!(conn.peer().remote(), Some(tcp.local_addr().unwrap()));

    let mut unix = UnixStream::connect(&socket).await.unwrap();
    let mut conn = next(&mut incoming).await;
    let ClientIdentity::Unix { pid, .. } = *conn.peer().identity() else {
        panic!("{:?}", conn.peer())
    };
    assert_eq!(pid, i32::try_from(std::process::id()).ok());
    assert!(conn.peer().is_local() && conn.peer().remote().is_none());

    unix.write_all(b"ping").await.unwrap();
    let mut seen = [0; 4];
    conn.read_exact(&mut seen).await.unwrap();
    conn.write_all(&seen).await.unwrap();
    conn.shutdown().await.unwrap();
    let mut answer = String::new();
    unix.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ping");
}

#[tokio::test]
async fn plain_tcp_is_refused_off_loopback_and_the_error_says_what_to_do() {
    let mut listen = Listen::new();
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9440"] {
        let error = listen.tcp(addr.parse().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("--tls-cert") && error.contains("127.0.0.1"), "{error}");
    }
    let no_files = ServerTlsFiles {
        cert: "a".into(),
        key: "b".into(),
        client_ca: None,
    };
    let tls = ServerTls::new(no_files, ManualClock::at_unix_ms(0).shared());
    listen.tcp("0.0.0.0:0".parse().unwrap(), Some(tls)).unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Listen::new().tcp(addr, None).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {addr}"));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_gets_its_mode_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/berth/a.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    // The standard library's listener leaves its file behind, as a killed process does.
    drop(StdUnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut listen = Listen::new();
    listen.unix(&socket).unwrap();
    StdUnixStream::connect(&socket).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    drop(listen);
    assert!(!socket.exists(), "it is removed when it closes");
    fs::remove_dir_all(dir.path().join("run")).unwrap();
    Listen::new().unix(&socket).unwrap();
    let made = fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(
        made.permissions().mode() & 0o022,
        0,
        "nobody else may put a socket there"
    );
}

#[tokio::test]
async fn a_live_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut first = Listen::new();
    first.unix(&socket).unwrap();
    let error = Listen::new().unix(&socket).unwrap_err();
    assert!(matches!(error, ListenError::SocketInUse { .. }), "{error:?}");
    assert!(error.to_string().starts_with(socket.to_str().unwrap()), "{error}");
    StdUnixStream::connect(&socket).unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("precious");
    fs::write(&file, "data").unwrap();
    let error = Listen::new().unix(&file).unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[tokio::test]
async fn a_socket_that_another_process_has_put_in_its_place_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut listen = Listen::new();
    listen.unix(&socket).unwrap();
    fs::remove_file(&socket).unwrap();
    let _other = StdUnixListener::bind(&socket).unwrap();
    drop(listen);
    StdUnixStream::connect(&socket).unwrap();
}

#[tokio::test]
async fn stopping_closes_the_endpoints_and_ends_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut listen = Listen::new();
    let addr = listen.tcp("127.0.0.1:0".parse().unwrap(), None).unwrap();
    listen.unix(&socket).unwrap();
    let (mut incoming, stop, tasks) = start(listen);
    stop.cancel();
    assert!(
        tokio::time::timeout(Duration::from_secs(10), incoming.next())
            .await
            .unwrap()
            .is_none()
    );
    tasks.join().await;
    TcpStream::connect(addr).await.unwrap_err();
    assert!(!socket.exists());
}

#[tokio::test]
async fn http_knows_its_client_and_answers_what_is_in_progress_when_it_stops() {
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::sync::Notify;

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut listen = Listen::new();
    listen.unix(&socket).unwrap();
    let (incoming, stop, tasks) = start(listen);
    let (in_progress, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let page = {
        let (in_progress, go_on) = (Arc::clone(&in_progress), Arc::clone(&go_on));
        async move |ConnectInfo(peer): ConnectInfo<PeerInfo>| {
            in_progress.notify_one();
            go_on.notified().await;
            peer.identity().to_string()
        }
    };
    drop(tasks.spawn(
        "http",
        serve_http(incoming, Router::new().route("/", get(page)), stop.clone()),
    ));

    let mut client = UnixStream::connect(&socket).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let idle = UnixStream::connect(&socket).await.unwrap();
    in_progress.notified().await;
    stop.cancel();
    go_on.notify_one();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("uid "),
        "{answer}"
    );
    tokio::time::timeout(Duration::from_secs(10), tasks.join())
        .await
        .expect("an idle client holds nothing up");
    drop(idle);
}

#[tokio::test]
async fn too_many_connections_wait_until_one_closes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut listen = Listen::new();
    listen.unix(&socket).unwrap();
    let (mut incoming, _stop, _tasks) = start(listen);
    let mut clients = Vec::new();
    let mut served = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        clients.push(UnixStream::connect(&socket).await.unwrap());
        served.push(next(&mut incoming).await);
    }
    clients.push(UnixStream::connect(&socket).await.unwrap());
    tokio::time::timeout(Duration::from_millis(50), incoming.next())
        .await
        .expect_err("it has to wait");
    served.pop();
    next(&mut incoming).await;
}

#[tokio::test]
async fn without_a_certificate_tls_connections_are_refused_and_the_server_lives() {
    let no_files = ServerTlsFiles {
        cert: "/nonexistent/a".into(),
        key: "/nonexistent/b".into(),
        client_ca: None,
    };
    let tls = ServerTls::new(no_files, SystemClock::shared());
    let status = tls.status().borrow().clone();
    assert_eq!(status.serving_until_unix_ms, None);
    let problem = status.problem.unwrap();
    assert_eq!(problem.reason, "CertificateUnreadable");
    assert!(
        problem.message.contains("/nonexistent/a") && problem.message.contains("No such file"),
        "{problem:?}"
    );

    let mut listen = Listen::new();
    let addr = listen.tcp("127.0.0.1:0".parse().unwrap(), Some(tls)).unwrap();
    let (_incoming, _stop, tasks) = start(listen);
    for _ in 0..2 {
        let mut client = TcpStream::connect(addr).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }
    assert_eq!(tasks.running(), ["accept-tcp"]);
}
