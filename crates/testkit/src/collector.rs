//! A stand-in for a collector of traces: takes what is exported to it as bytes, and knows nothing of what they say.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, UnaryService},
    transport::Server,
};

/// Clones share what was received.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Bytes>>>);

impl Collector {
    /// Listens, and says where.
    pub async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let collector = Self::default();
        let service = Server::builder().add_service(collector.clone());
        drop(crate::spawn(
            service.serve_with_incoming(TcpListenerStream::new(listener)),
        ));
        (collector, endpoint)
    }

    /// Whether one export holds all of these.
    pub fn holds(&self, all: &[&[u8]]) -> bool {
        let holds = |export: &Bytes, part: &[u8]| export.windows(part.len()).any(|window| window == part);
        let exports = self.0.lock();
        exports.iter().any(|export| all.iter().all(|part| holds(export, part)))
    }
}

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
        self.0.lock().push(request.into_inner());
        ready(Ok(Response::new(())))
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<::http::Request<Body>> for Collector {
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move { Ok(Grpc::new(RawBytes).unary(collector, request).await) })
    }
}
