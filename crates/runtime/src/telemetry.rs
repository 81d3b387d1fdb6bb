//! Logs and traces of the process. Logs go to stderr, always; traces only where `--otlp-endpoint` says.
//!
//! `otlp` and [`trace_context`] are the only files that know OpenTelemetry.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::iter::successors;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber, error, info};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt as log, reload};

use crate::BuildInfo;
use crate::args::{LogFormat, TelemetryArgs};

mod json;
mod otlp;
pub mod trace_context;

/// Kubernetes' client: it logs each answer that it cannot read, whole, and that may be a list of Secrets. The error goes to
/// whoever asked.
const TELLS_ANSWERS: &str = "kube_client::client";

/// The process's telemetry. Keep it until the end: [`Self::flush`] sends what is left.
#[derive(Debug)]
#[must_use = "traces that were not flushed are lost"]
pub struct Telemetry {
    log_level: LogLevel,
    traces: Option<otlp::Traces>,
}

/// Reads and changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogLevel {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
}

/// Why telemetry could not start, or a filter was refused.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`{filter}` is no log filter: write a level (error, warn, info, debug, trace, off) or TARGET=LEVEL,…")]
    BadFilter {
        filter: String,
        #[source]
        source: Option<tracing_subscriber::filter::ParseError>,
    },
    #[error("`{endpoint}` is no OTLP endpoint: write e.g. http://127.0.0.1:4317")]
    BadEndpoint {
        endpoint: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("telemetry was started twice in one process")]
    AlreadyStarted(#[source] tracing_subscriber::util::TryInitError),
    #[error("the log filter can no longer be changed")]
    Detached(#[source] reload::Error),
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts logs and, if asked for, traces, and logs the start line. With `--otlp-endpoint` it must be called inside
    /// the tokio runtime; a collector that is down neither fails nor slows the process.
    ///
    /// # Errors
    /// A bad filter or endpoint, or a second start.
    pub fn start(args: &TelemetryArgs, build: BuildInfo) -> Result<Self, TelemetryError> {
        let TelemetryArgs {
            log_level,
            log_format,
            otlp_endpoint,
        } = args;
        let (filter, log_level) = LogLevel::layer(log_level)?;
        let traces = otlp_endpoint
            .as_deref()
            .map(|url| otlp::Traces::start(url, build))
            .transpose()?;
        Registry::default()
            .with(filter)
            .with(without_answers())
            .with(log_layer(*log_format, io::stderr))
            .with(traces.as_ref().map(otlp::Traces::layer))
            .try_init()
            .map_err(TelemetryError::AlreadyStarted)?;
        log_panics();
        let BuildInfo { name, version, git } = build;
        info!(name, version, git, pid = std::process::id(), "starting");
        Ok(Self { log_level, traces })
    }

    /// For the admin endpoint's `PUT /log-level`.
    pub fn log_level(&self) -> LogLevel {
        self.log_level.clone()
    }

    /// Sends the traces that are left, for at most `deadline`.
    pub async fn flush(self, deadline: Duration) {
        if let Some(traces) = self.traces {
            traces.flush(deadline).await;
        }
    }
}

// === impl LogLevel ===

impl LogLevel {
    /// The filter as the first layer of a subscriber, and the handle that changes it. [`Telemetry::start`] calls it; so
    /// do tests with a subscriber of their own.
    ///
    /// # Errors
    /// A bad filter.
    pub fn layer(filter: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Self), TelemetryError> {
        let (layer, handle) = reload::Layer::new(parse_filter(filter)?);
        Ok((
            layer,
            Self {
                handle: Arc::new(handle),
            },
        ))
    }

    /// What is logged now.
    ///
    /// # Errors
    /// The subscriber is gone.
    pub fn get(&self) -> Result<String, TelemetryError> {
        self.handle
            .with_current(ToString::to_string)
            .map_err(TelemetryError::Detached)
    }

    /// Logs by `filter` from now on. A bad filter changes nothing.
    ///
    /// # Errors
    /// A bad filter, or the subscriber is gone.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse_filter(filter)?;
        self.handle.reload(parsed).map_err(TelemetryError::Detached)?;
        info!(filter, "log level changed");
        Ok(())
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.get().ok()).finish()
    }
}

// === impl TelemetryError ===

impl TelemetryError {
    /// Stable name of the error.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadFilter { .. } => "BadLogFilter",
            Self::BadEndpoint { .. } => "BadOtlpEndpoint",
            Self::AlreadyStarted(_) => "TelemetryAlreadyStarted",
            Self::Detached(_) => "LogFilterDetached",
        }
    }
}

/// An error and all its causes on one line, for people. Our errors do not repeat their causes.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let chain = successors(Some(error), |error| (*error).source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The levels of Go programs whose values files we take.
fn ours(filter: &str) -> &str {
    match filter.trim().to_ascii_lowercase().as_str() {
        "warning" => "warn",
        "fatal" | "panic" => "error",
        _ => filter,
    }
}

/// Whatever the filter says.
fn without_answers() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| metadata.target() != TELLS_ANSWERS)
}

/// `tracing` takes a mistyped level (`debgu`) for the name of a target and then logs nothing else: refuse a bare word
/// that is no level.
fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = ours(filter);
    let bad = |source| TelemetryError::BadFilter {
        filter: filter.to_owned(),
        source,
    };
    let bare_words = filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.contains(['=', '[', ']']));
    for word in bare_words {
        // An empty word would pass for "error".
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(bad(None));
        }
    }
    EnvFilter::builder().parse(filter).map_err(|source| bad(Some(source)))
}

fn log_layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let is_terminal = io::stderr().is_terminal();
    let layer = log::layer().with_writer(writer);
    match format {
        LogFormat::Auto if is_terminal => layer.boxed(),
        LogFormat::Text => layer.with_ansi(is_terminal).boxed(),
        LogFormat::Auto | LogFormat::Json => layer.event_format(json::Lines).fmt_fields(JsonFields::new()).boxed(),
    }
}

/// Panics appear in the log as every other event does, whole and in the log's format.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        error!(
            message = panic.payload_as_str().unwrap_or("panic"),
            panic = true,
            location = panic.location().map(ToString::to_string),
            thread = thread.name(),
        );
    }));
}

#[cfg(test)]
mod tests;
