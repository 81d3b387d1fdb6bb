//! Server reflection, both versions, so that `grpcurl` needs no .proto file.
//!
//! A reflection stream ends when its client ends it, which would hold the shutdown. So at the end of the process the
//! requests of every open stream are cut off: the service takes that for the client's end, and ends the stream.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    body::Body,
    codegen::{Service, http::Request},
    server::NamedService,
    service::RoutesBuilder,
};
use tonic_reflection::server::{Builder, Error};

/// Adds both versions for the services of these names, which `descriptors` describe; their streams end when `end` is
/// cancelled.
///
/// # Errors
/// The descriptors cannot be read.
pub fn add(
    routes: &mut RoutesBuilder,
    services: &[&str],
    descriptors: &'static [u8],
    end: &CancellationToken,
) -> Result<(), Error> {
    let builder = |reflection: &str| builder(reflection, services, descriptors);
    routes.add_service(UntilEnd {
        service: builder("grpc.reflection.v1").build_v1()?,
        end: end.clone(),
    });
    routes.add_service(UntilEnd {
        service: builder("grpc.reflection.v1alpha").build_v1alpha()?,
        end: end.clone(),
    });
    Ok(())
}

/// What is served here: by name, since the descriptors may hold other services too.
fn builder(reflection: &str, services: &[&str], descriptors: &'static [u8]) -> Builder<'static> {
    let ours = Builder::configure().register_encoded_file_descriptor_set(descriptors);
    services
        .iter()
        .fold(ours, |builder, name| builder.with_service_name(*name))
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that a client can show the details of an error.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name(format!("{reflection}.ServerReflection"))
}

#[derive(Debug, Clone)]
struct UntilEnd<S> {
    service: S,
    end: CancellationToken,
}

struct UntilCancelled<S> {
    stream: S,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S: NamedService> NamedService for UntilEnd<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for UntilEnd<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let end = Box::pin(self.end.clone().cancelled_owned());
        self.service.call(request.map(|body| {
            let stream = axum::body::Body::new(body).into_data_stream();
            Body::new(axum::body::Body::from_stream(UntilCancelled { stream, end }))
        }))
    }
}

impl<S: Stream + Unpin> Stream for UntilCancelled<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.stream).poll_next(cx)
    }
}
