//! Logs for machines: one JSON object a line, the event's fields on top, those of the spans around it under `span`.
//!
//! Written here because tracing-subscriber's own format drops the causes of an error.

use std::error::Error;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::with_causes;

pub(super) struct Lines;

/// In the order in which they were set: a line starts with its time, its level and its message.
struct Fields(Vec<(String, Value)>);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Fields(Vec::new());
        line.set("timestamp", timestamp);
        line.set("level", event.metadata().level().as_str());
        event.record(&mut line);
        line.set("target", event.metadata().target());

        let mut spans = Fields(Vec::new());
        for span in ctx.event_scope().into_iter().flat_map(Scope::from_root) {
            spans.set("name", span.name());
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                // What is not an object (a span without fields) has nothing to add.
                let fields: Map<_, _> = serde_json::from_str(fields).unwrap_or_default();
                fields.into_iter().for_each(|(name, value)| spans.set(&name, value));
            }
        }
        if !spans.0.is_empty() {
            line.set("span", Value::Object(spans.0.into_iter().collect()));
        }
        writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

impl Fields {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field.name(), with_causes(value));
    }
}
