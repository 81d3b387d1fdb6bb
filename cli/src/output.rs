//! The one place that prints. Results go to standard output, everything said about the work to standard error.
//!
//! A result is a [`Report`]: its serde form is the JSON, its `render` the page for people.

mod allocations;
mod changes;
mod cluster;
mod devices;
mod explain;
mod grants;
mod node;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, IsTerminal as _, Write};

use berth_runtime::{Clock, SharedClock};
use serde::Serialize;
use serde_json::json;

use crate::{args::Format, error::CliError};

pub(crate) use allocations::Allocations;
pub(crate) use changes::ChangeLine;
pub(crate) use cluster::Simulated;
pub(crate) use devices::{DeviceChanged, DeviceList};
pub(crate) use explain::Explanation;
pub(crate) use grants::{ReleaseAnswer, ReserveAnswer};
pub(crate) use table::{Cell, Flow, Table, Tone};
pub(crate) use text::{gpu_list, plain, short_uuid};

/// What fits on a terminal next to another window. Cells that are longer go on in the next line.
const WIDTH: usize = 100;

/// Something that can be shown.
pub(crate) trait Report: Serialize {
    /// For people.
    fn render(&self, page: &mut Page);
}

/// A page for people, while it is being written.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    colours: bool,
    now_unix_ms: u64,
}

/// Where berthctl prints to.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    colours: bool,
    clock: SharedClock,
}

// === impl Output ===

impl Output {
    /// Colours only for a person at a terminal who did not object (see no-color.org).
    pub(crate) fn new(format: Format, clock: SharedClock) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let colours = io::stdout().is_terminal()
            && variable("NO_COLOR").is_none()
            && variable("TERM").is_some_and(|term| term != "dumb");
        Self { format, colours, clock }
    }

    /// The clock of the times that are printed.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// A result: a page, or one JSON document.
    pub(crate) fn show(&self, report: &impl Report) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => page(report, self.colours, self.clock.now_unix_ms()),
            Format::Json => json_text(serde_json::to_string_pretty(report))?,
        };
        print(&text)
    }

    /// One of many results: a line, or one line of JSON.
    pub(crate) fn show_line(&self, report: &impl Report) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => page(report, self.colours, self.clock.now_unix_ms()),
            Format::Json => json_text(serde_json::to_string(report))?,
        };
        print(&text)
    }

    /// Something said about the work. Lost where standard error is closed: there is nobody to tell.
    pub(crate) fn note(&self, text: &str) {
        let text = match self.format {
            Format::Table => format!("berthctl: {}\n", plain(text)),
            Format::Json => format!("{}\n", json!({ "note": text })),
        };
        let _nobody_listens = io::stderr().write_all(text.as_bytes());
    }

    /// Why there is no result.
    pub(crate) fn error(&self, error: &CliError) {
        if error.is_closed_pipe() {
            return;
        }
        let text = match self.format {
            Format::Table => {
                let hint = error.hint().map(|hint| format!("{hint}\n")).unwrap_or_default();
                format!(
                    "berthctl: {}: {}\n{hint}",
                    plain(error.reason()),
                    plain(&error.sentence())
                )
            }
            Format::Json => {
                let error = json!({
                    "reason": error.reason(),
                    "message": error.sentence(),
                    "hint": error.hint(),
                    "exitCode": error.exit_code(),
                });
                format!("{}\n", json!({ "error": error }))
            }
        };
        let _nobody_listens = io::stderr().write_all(text.as_bytes());
    }
}

fn page(report: &impl Report, colours: bool, now_unix_ms: u64) -> String {
    let mut page = Page {
        text: String::new(),
        colours,
        now_unix_ms,
    };
    report.render(&mut page);
    page.text
}

fn json_text(text: serde_json::Result<String>) -> Result<String, CliError> {
    text.map(|text| text + "\n")
        .map_err(|error| CliError::Output(error.into()))
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(CliError::Output)
}

// === impl Page ===

impl Page {
    pub(crate) fn line(&mut self, text: &str) {
        self.text.push_str(plain(text).trim_end());
        self.text.push('\n');
    }

    pub(crate) fn blank(&mut self) {
        self.text.push('\n');
    }

    pub(crate) fn table(&mut self, table: &Table) {
        table.render(WIDTH, self.colours, &mut self.text);
    }

    /// How long ago: `12s`, `5m`, `3h`, `9d`.
    pub(crate) fn since(&self, unix_ms: u64) -> String {
        text::duration(self.now_unix_ms.saturating_sub(unix_ms))
    }

    /// How long from now: `4m`; `overdue` where that has passed.
    pub(crate) fn until(&self, unix_ms: u64) -> String {
        match unix_ms.checked_sub(self.now_unix_ms) {
            // Up to the second, so that what was granted for 5m just now lapses in 5m.
            Some(left) if left > 0 => text::duration(left.div_ceil(1000).saturating_mul(1000)),
            _ => "overdue".to_owned(),
        }
    }
}
