use std::io::Write;

use parking_lot::Mutex;
use tracing::{Dispatch, debug, warn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::*;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    fn writer(&self) -> BoxMakeWriter {
        let log = self.clone();
        BoxMakeWriter::new(move || log.clone())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `body` with `subscriber` as this thread's. A second one is alive all the while: `tracing` asks a lone one only on
/// the thread that changes a level, so that a test on another thread would silence this one.
fn under(subscriber: impl Into<Dispatch>, body: impl FnOnce()) {
    let _second = Dispatch::new(Registry::default());
    tracing::dispatcher::with_default(&subscriber.into(), body);
}

#[test]
fn the_log_level_changes_while_the_process_runs() {
    let log = Log::default();
    let (filter, level) = LogLevel::layer("warn").unwrap();
    let subscriber = Registry::default()
        .with(filter)
        .with(log_layer(LogFormat::Text, log.writer()));
    under(subscriber, || {
        debug!("one");
        warn!("two");
        level.set("warn,berth_runtime=debug").unwrap();
        debug!("three");
        level.set("off").unwrap();
        warn!("four");
        assert_eq!(level.get().unwrap(), "off");
    });
    let text = log.text();
    assert!(text.contains("two") && text.contains("three"), "{text}");
    assert!(!text.contains("one") && !text.contains("four"), "{text}");
}

#[test]
fn an_answer_of_the_api_server_that_cannot_be_read_is_in_no_log() {
    let log = Log::default();
    let (filter, level) = LogLevel::layer("trace").unwrap();
    let subscriber = Registry::default()
        .with(filter)
        .with(without_answers())
        .with(log_layer(LogFormat::Text, log.writer()));
    under(subscriber, || {
        let tell = || warn!(target: TELLS_ANSWERS, "s3cret");
        tell();
        level.set("info,kube_client::client=warn").unwrap();
        tell();
        warn!(target: "kube_client", "plain");
    });
    let text = log.text();
    assert!(!text.contains("s3cret") && text.contains("plain"), "{text}");
}

#[test]
fn a_bad_filter_is_refused_and_changes_nothing() {
    let (filter, level) = LogLevel::layer("info").unwrap();
    let subscriber = Registry::default().with(filter);
    for bad in ["debgu", "", "info,", "berth=loud", "info,[", "a b"] {
        let error = level.set(bad).unwrap_err();
        assert_eq!(error.reason(), "BadLogFilter", "{bad}");
        assert!(error.to_string().contains("TARGET=LEVEL"), "{error}");
        assert_eq!(level.get().unwrap(), "info");
    }
    for good in [
        "WARN",
        "info,berth_ledger=debug",
        "off",
        "[request{path=x}]=debug,error",
    ] {
        level.set(good).unwrap();
    }
    drop(subscriber);
    assert_eq!(level.set("info").unwrap_err().reason(), "LogFilterDetached");
}

#[test]
fn a_level_that_go_programs_know_is_the_nearest_of_ours() {
    for (theirs, ours) in [
        ("warning", "warn"),
        ("Warning", "warn"),
        ("fatal", "error"),
        ("panic", "error"),
    ] {
        assert_eq!(parse_filter(theirs).unwrap().to_string(), ours);
    }
    // In a list there may be targets of these names.
    assert!(parse_filter("info,fatal").is_err());
    assert_eq!(parse_filter("fatal=info").unwrap().to_string(), "fatal=info");
}

#[test]
fn json_logs_are_one_object_a_line_with_the_fields_on_top() {
    let log = Log::default();
    let subscriber = Registry::default().with(log_layer(LogFormat::Json, log.writer()));
    let cause = io::Error::other("no space");
    let error = TelemetryError::BadEndpoint {
        endpoint: "x".to_owned(),
        source: Some(cause.into()),
    };
    under(subscriber, || {
        let _task = tracing::info_span!("task", task = "journal", node = "a").entered();
        let _batch = tracing::info_span!("batch", node = "b").entered();
        warn!(
            error = &error as &dyn Error,
            bytes = 7,
            ratio = 0.5,
            seen = true,
            "not\nwritten"
        );
    });
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(text.starts_with(r#"{"timestamp":"20"#), "{text}");
    let expected = serde_json::json!({
        "timestamp": line["timestamp"],
        "level": "WARN",
        "message": "not\nwritten",
        "target": "berth_runtime::telemetry::tests",
        "error": "`x` is no OTLP endpoint: write e.g. http://127.0.0.1:4317: no space",
        "bytes": 7,
        "ratio": 0.5,
        "seen": true,
        "span": {"name": "batch", "task": "journal", "node": "b"},
    });
    assert_eq!(
        line, expected,
        "an error comes with its causes, a span with its parents' fields"
    );
}

#[test]
fn a_bad_collector_address_is_refused_in_plain_words() {
    let build = BuildInfo::of("test");
    for bad in ["collector", "127.0.0.1:4317", "ftp://x:1", "https://x:4317", ""] {
        let error = otlp::Traces::start(bad, build).unwrap_err();
        assert_eq!(error.reason(), "BadOtlpEndpoint");
        assert!(error.to_string().contains("http://127.0.0.1:4317"), "{error}");
    }
}

#[test]
fn an_outage_of_the_collector_is_told_once_and_its_end_too() {
    let log = Log::default();
    let subscriber = Registry::default().with(log_layer(LogFormat::Text, log.writer()));
    under(subscriber, || {
        otlp::tests::export_with_results(&[true, false, false, false, true, true, false]);
    });
    let text = log.text();
    assert_eq!(text.matches("out of reach").count(), 2, "{text}");
    assert_eq!(text.matches("collector is back").count(), 1, "{text}");
}

#[tokio::test]
async fn trace_context_goes_out_with_a_request_and_is_the_parent_where_it_comes_in() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let subscriber = Registry::default().with(tracing_opentelemetry::layer().with_tracer(tracer));
    under(subscriber, || {
        let client = tracing::info_span!("client");
        let sent = client
            .in_scope(|| trace_context::inject_grpc(tonic::Request::new(())))
            .unwrap();
        let header = sent
            .metadata()
            .get("traceparent")
            .expect("a W3C header")
            .to_str()
            .unwrap()
            .to_owned();
        let trace_id = client.context().span().span_context().trace_id().to_string();
        assert!(header.starts_with(&format!("00-{trace_id}-")), "{header}");

        let received = http::Request::builder()
            .uri("/x")
            .header("traceparent", &header)
            .body(())
            .unwrap();
        let server = trace_context::request_span(&received);
        assert_eq!(server.context().span().span_context().trace_id().to_string(), trace_id);

        let strange = http::Request::builder()
            .uri("/x")
            .header("traceparent", "garbage")
            .body(())
            .unwrap();
        let alone = trace_context::request_span(&strange);
        assert_ne!(alone.context().span().span_context().trace_id().to_string(), trace_id);
    });
}
