//! Traces to an OpenTelemetry collector. Nothing of this exists unless an endpoint was given.
//!
//! A bounded queue and a thread of the SDK's stand between the program and the collector: when the collector is slow or
//! gone, spans are dropped, and the log says so once per outage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::{Metadata, Subscriber, info, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::TelemetryError;
use crate::BuildInfo;
use crate::tasks::TASK_SPAN_TARGET;

/// One export, from the first byte to the collector's answer.
const EXPORT_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

/// Tells the log when the collector goes and when it comes back, and nothing in between.
#[derive(Debug)]
struct EdgeLogged<E> {
    exporter: E,
    failing: AtomicBool,
}

impl Traces {
    pub(super) fn start(endpoint: &str, build: BuildInfo) -> Result<Self, TelemetryError> {
        let bad = |source| TelemetryError::BadEndpoint {
            endpoint: endpoint.to_owned(),
            source,
        };
        let is_url = endpoint
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.scheme_str() == Some("http"));
        if !is_url || Handle::try_current().is_err() {
            return Err(bad(None));
        }
        let exporter = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_DEADLINE)
            .build()
            .map_err(|error| bad(Some(error.into())))?;
        let resource = Resource::builder()
            .with_service_name(build.name)
            .with_attribute(opentelemetry::KeyValue::new("service.version", build.version))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(EdgeLogged {
                exporter,
                failing: AtomicBool::new(false),
            })
            .with_resource(resource)
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self { provider })
    }

    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("berth"))
            .with_filter(filter_fn(is_traced))
    }

    pub(super) async fn flush(self, deadline: Duration) {
        let provider = self.provider;
        // The SDK blocks its caller until the queue is empty.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
        if !matches!(tokio::time::timeout(deadline, flush).await, Ok(Ok(Ok(())))) {
            warn!("some traces could not be sent before the end");
        }
    }
}

/// Not the exporter's own transport (every export would cause the next one), and not the spans that wrap whole tasks (a
/// trace that holds them never ends).
fn is_traced(metadata: &Metadata<'_>) -> bool {
    const TRANSPORT: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];
    let target = metadata.target();
    let root = target.split("::").next().unwrap_or(target);
    target != TASK_SPAN_TARGET && !TRANSPORT.contains(&root) && !root.starts_with("opentelemetry")
}

impl<E: SpanExporter> SpanExporter for EdgeLogged<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                warn!(
                    error = error as &dyn std::error::Error,
                    "the trace collector is out of reach; traces are dropped"
                );
            }
            Ok(()) if was_failing => info!("the trace collector is back"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use opentelemetry_sdk::error::OTelSdkError;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Scripted(Mutex<Vec<bool>>);

    impl SpanExporter for Scripted {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            let works = self.0.lock().remove(0);
            if works {
                Ok(())
            } else {
                Err(OTelSdkError::InternalFailure("scripted".to_owned()))
            }
        }
    }

    /// One export per result.
    pub(in crate::telemetry) fn export_with_results(works: &[bool]) {
        let exporter = EdgeLogged {
            exporter: Scripted(Mutex::new(works.to_vec())),
            failing: AtomicBool::new(false),
        };
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in works {
            let export = std::pin::pin!(exporter.export(Vec::new()));
            assert!(
                export.poll(&mut context).is_ready(),
                "the scripted exporter never waits"
            );
        }
    }
}
