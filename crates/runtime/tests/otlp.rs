//! Traces to a collector that is there, and to one that is not.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, also outside of the tests' own functions"
)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use berth_testkit::{Process, Program, spawn};
use bytes::{Buf as _, Bytes};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_secs(20);

/// Takes every export as the bytes it came as, and answers with an empty message.
#[derive(Clone)]
struct Collector(mpsc::Sender<Bytes>);

#[derive(Clone, Copy, Default)]
struct RawBytes;

impl Codec for RawBytes {
    type Encode = ();
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawBytes {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for RawBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

impl UnaryService<Bytes> for Collector {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.0
            .try_send(request.into_inner())
            .expect("room for a handful of exports");
        ready(Ok(Response::new(())))
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move { Ok(Grpc::new(RawBytes).unary(collector, request).await) })
    }
}

async fn end(mut process: Process) -> String {
    process.terminate().unwrap();
    let status = process.wait(SOON).await.unwrap();
    assert!(status.success(), "{}", process.stderr());
    process.stderr()
}

fn fixture(endpoint: &str) -> Program {
    Program::new("runtime-fixture", "berth-runtime").raw_args(&["--otlp-endpoint", endpoint, "--requests", "3"])
}

fn holds(export: &[u8], text: &str) -> bool {
    export.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn spans_reach_the_collector_before_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exports) = mpsc::channel(16);
    drop(spawn(
        Server::builder()
            .add_service(Collector(sender))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    ));

    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    assert!(!log.contains("trace"), "nothing to complain about: {log}");
    let mut received = Vec::new();
    while let Ok(export) = exports.try_recv() {
        received.extend_from_slice(&export);
    }
    for text in [
        "runtime-fixture",
        "service.version",
        "/request/0",
        "/request/2",
        "served",
    ] {
        assert!(holds(&received, text), "{text} is not in {} bytes", received.len());
    }
    assert!(
        !holds(&received, "accept-tcp"),
        "spans that wrap whole tasks are no traces"
    );
}

#[tokio::test]
async fn a_collector_that_is_not_there_neither_blocks_nor_floods_the_log() {
    // Bound and closed: nobody answers there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    let complaints = log.lines().filter(|line| line.contains("WARN")).count();
    assert!(
        log.contains("the trace collector is out of reach") && complaints <= 2,
        "{log}"
    );
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let log = end(fixture(&endpoint).start().await.unwrap()).await;
    assert!(log.contains("some traces could not be sent before the end"), "{log}");
    drop(listener);
}
