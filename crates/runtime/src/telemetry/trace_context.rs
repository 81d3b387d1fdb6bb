//! W3C trace context (<https://www.w3.org/TR/trace-context/>) across HTTP and gRPC. Without `--otlp-endpoint` nothing is
//! read and nothing is sent.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use opentelemetry::global;
use opentelemetry::propagation::{Extractor, Injector};
use tonic::Status;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Headers<'a>(&'a HeaderMap);
struct HeadersMut<'a>(&'a mut HeaderMap);

/// Writes the current span's context into the headers of a request that goes out.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut HeadersMut(headers)));
}

/// [`inject`] as a tonic interceptor: `Client::with_interceptor(channel, inject_grpc)`.
pub fn inject_grpc(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    inject(request.metadata_mut().as_mut());
    Ok(request)
}

/// A span for a request that came in, child of the caller's span if it sent one. Fits tonic's `Server::trace_fn` and
/// tower-http's `TraceLayer::make_span_with`.
pub fn request_span<B>(request: &Request<B>) -> Span {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(request.headers())));
    // Fails when traces are off; then there is no parent to have.
    let _ = span.set_parent(parent);
    span
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
