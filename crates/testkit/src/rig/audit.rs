//! Who asked the API server for what, by its audit log. Must not know who that may be.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde_json::Value;

/// The requests from one line of the log on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Lines of the whole log, to go on from.
    pub lines: usize,
    /// By the name of the program that asked, and then by what it asked for: `patch pods status`.
    pub by: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Requests {
    /// # Errors
    /// There is no such log, or a line of it is no audit event.
    pub fn since(log: &Path, line: usize) -> anyhow::Result<Self> {
        Self::read(&fs::read_to_string(log)?, line)
    }

    fn read(text: &str, line: usize) -> anyhow::Result<Self> {
        // The last line may be half-written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut requests = Self::default();
        for text in whole.lines() {
            requests.lines += 1;
            if requests.lines > line {
                let event: Value = serde_json::from_str(text).with_context(|| format!("no audit event: {text}"))?;
                requests.count(&event);
            }
        }
        Ok(requests)
    }

    fn count(&mut self, event: &Value) {
        let object = &event["objectRef"];
        let words = [&event["verb"], &object["resource"], &object["subresource"]];
        let what: Vec<_> = words.into_iter().filter_map(Value::as_str).collect();
        let agent = event["userAgent"].as_str().unwrap_or_default();
        let who = agent.split(['/', ' ']).next().unwrap_or_default();
        let asked = self.by.entry(who.to_owned()).or_default();
        *asked.entry(what.join(" ")).or_default() += 1;
    }

    /// What this program asked for.
    pub fn of(&self, program: &str) -> BTreeMap<String, u32> {
        self.by.get(program).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_who_asked_and_for_what_and_a_line_that_is_being_written_is_not() {
        let log = r#"{"userAgent":"nvca/1.2 (linux)","verb":"list","objectRef":{"resource":"nodes"}}
{"userAgent":"nvca/1.2 (linux)","verb":"patch","objectRef":{"resource":"pods","subresource":"status"}}
{"userAgent":"nvca-operator/1.2","verb":"get","objectRef":{"resource":"leases"}}
{"userAgent":"nvca/1.3","verb":"patch","objectRef":{"resource":"pods","subresource":"status"}}
{"verb":"get"}
{"userAgent":"nvca/1.2","ver"#;
        let counted = |all: &[(&str, u32)]| all.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
        let all = Requests::read(log, 0).unwrap();
        assert_eq!(all.lines, 5);
        assert_eq!(all.of("nvca"), counted(&[("list nodes", 1), ("patch pods status", 2)]));
        assert_eq!(all.of("nvca-operator"), counted(&[("get leases", 1)]));
        assert_eq!(all.of(""), counted(&[("get", 1)]));
        let later = Requests::read(log, 3).unwrap();
        assert_eq!(
            (later.lines, later.of("nvca")),
            (5, counted(&[("patch pods status", 1)]))
        );
        assert_eq!(Requests::read("", 0).unwrap(), Requests::default());
        assert!(Requests::read("nonsense\n", 0).is_err());
    }
}
