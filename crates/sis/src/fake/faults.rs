//! Faults on demand, the clock's head start, and a record of what was asked.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message::Answer;

/// Exchanges that are kept.
const KEPT: usize = 2000;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    /// Never an answer; the connection stays.
    Hang,
    /// The connection is closed without one.
    Close,
}

/// One fault, for requests whose line (`METHOD /path?query`) holds `on`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Empty: every request.
    pub on: String,
    /// How often; `None`: until it is taken away.
    pub times: Option<u32>,
    pub hang: bool,
    pub delay_ms: u64,
    /// Answered in place of the real answer; nothing is carried out.
    pub status: Option<u16>,
    /// Of that answer; `None`: an error's.
    pub body: Option<Value>,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// The request is carried out and its answer lost.
    pub lose: bool,
}

/// An exchange, without headers and bodies.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    at_unix_ms: u64,
    request: String,
    /// 0: none.
    status: u16,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    active: Vec<Fault>,
    exchanges: VecDeque<Exchange>,
    ahead_ms: u64,
}

impl Faults {
    pub(super) fn set(&mut self, faults: Vec<Fault>) {
        self.active = faults;
    }

    pub(super) fn active(&self) -> &[Fault] {
        &self.active
    }

    /// The first fault for this request, once less.
    pub(super) fn take(&mut self, line: &str) -> Fault {
        let hit = self
            .active
            .iter_mut()
            .find(|fault| fault.times != Some(0) && line.contains(&fault.on));
        hit.map_or_else(Fault::default, |fault| {
            fault.times = fault.times.map(|times| times - 1);
            fault.clone()
        })
    }

    pub(super) fn record(&mut self, at_unix_ms: u64, request: &str, status: u16) {
        if self.exchanges.len() == KEPT {
            self.exchanges.pop_front();
        }
        let request = request.to_owned();
        self.exchanges.push_back(Exchange {
            at_unix_ms,
            request,
            status,
        });
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.iter().cloned().collect()
    }

    pub(super) const fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    pub(super) const fn advance(&mut self, ms: u64) {
        self.ahead_ms += ms;
    }
}

impl Fault {
    pub(super) fn answer(&self, status: u16) -> Answer {
        let text = if status == 500 {
            "Internal Server Error"
        } else {
            "fault on demand"
        };
        let error = || json!({ "error": text });
        let answer = Answer::json(status, &self.body.clone().unwrap_or_else(error));
        match self.retry_after {
            Some(seconds) => answer.with("Retry-After", seconds.to_string()),
            None => answer,
        }
    }
}
