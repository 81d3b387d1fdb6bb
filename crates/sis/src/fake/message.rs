//! A request and an answer, free of any socket.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What the container sends for what it cannot parse.
const CONTAINER_PAGE: &str = "<!doctype html><html lang=\"en\"><head><title>HTTP Status 400 \u{2013} Bad Request</title></head>\
<body><h1>HTTP Status 400 \u{2013} Bad Request</h1></body></html>";

/// A request as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// In the order in which they came; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer. `Content-Length`, `Date` and `Connection` are the transport's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

// === impl Request ===

impl Request {
    /// The first of this name: of two, the first counts.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Decoded; of two of one name the first counts.
    pub fn query(&self) -> BTreeMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form(query)
    }
}

/// `a=b&c=d` with its escapes undone.
pub(super) fn form(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) else {
            continue;
        };
        fields.entry(key).or_insert(value);
    }
    fields
}

/// Undoes `%41`, and `+` in a form; `None` for a bad escape or what is not UTF-8 then.
pub(super) fn unescape(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            b'+' if is_form => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

// === impl Answer ===

impl Answer {
    /// Nothing but a status.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::empty(status).with_body("application/json", body.to_string())
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// What handlers raise: `{"error": …}`.
    pub fn error(status: u16, text: impl Into<String>) -> Self {
        Self::json(status, &json!({"error": text.into()}))
    }

    /// What the security layer writes: the same, in another character set.
    pub fn security(status: u16, text: impl Into<String>) -> Self {
        let body = json!({"error": text.into()}).to_string();
        Self::empty(status).with_body("application/json;charset=ISO-8859-1", body)
    }

    /// What the framework says of a route, a method or a media type.
    pub fn problem(status: u16, title: &str, detail: &str, instance: &str) -> Self {
        let body = json!({"detail": detail, "instance": instance, "status": status, "title": title});
        Self::empty(status).with_body("application/problem+json", body.to_string())
    }

    /// What the container says of what it cannot parse.
    pub fn container() -> Self {
        Self::empty(400).with_body("text/html;charset=utf-8", CONTAINER_PAGE.to_owned())
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn with_body(mut self, kind: &str, body: String) -> Self {
        self.headers.push(("Content-Type", kind.to_owned()));
        self.body = body.into_bytes();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_forms_are_decoded_and_the_first_of_two_counts() {
        let request = Request {
            target: "/a?x=1%202&x=3&y=a+b&bad=%zz&flag".into(),
            ..Request::default()
        };
        let query = request.query();
        assert_eq!(
            (request.path(), query["x"].as_str(), query["y"].as_str()),
            ("/a", "1 2", "a b")
        );
        assert_eq!((query.get("bad"), query["flag"].as_str()), (None, ""));
        assert_eq!(
            (unescape("a+b%2F", false).as_deref(), unescape("%4", false)),
            (Some("a+b/"), None)
        );
    }
}
