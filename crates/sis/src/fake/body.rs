//! JSON bodies as the service's library reads them: what it takes beyond the letter, and what it says of the rest.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::message::Answer;

/// The fields of a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Map<String, Value>);

/// Its values by index: an integer in the JSON is one.
pub(super) struct Enum {
    pub(super) class: &'static str,
    pub(super) values: &'static [&'static str],
}

impl Fields {
    /// A body that must be an object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Answer> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if text.trim_ascii().is_empty() || text.trim_ascii() == b"null" {
            // The real text goes on with the signature of a Java method.
            return Err(Answer::error(400, "Required request body is missing"));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(parse_error("Cannot deserialize value: an object is expected")),
            Err(error) => Err(parse_error(&error.to_string())),
        }
    }

    pub(super) const fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    pub(super) fn raw(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A number or a boolean is a text, too.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Answer> {
        match self.raw(name) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(flag) => Ok(Some(flag.to_string())),
            other => Err(mismatch("java.lang.String", other)),
        }
    }

    /// Absent and blank are alike.
    pub(super) fn filled(&self, name: &str) -> Result<Option<String>, Answer> {
        Ok(self.text(name)?.filter(|text| !text.trim().is_empty()))
    }

    /// A numeric text is a number, a fraction is cut off; absent is 0.
    #[expect(clippy::cast_possible_truncation, reason = "that is what the service does")]
    pub(super) fn int(&self, name: &str) -> Result<i64, Answer> {
        match self.raw(name) {
            Value::Null => Ok(0),
            Value::Number(number) => Ok(number
                .as_i64()
                .unwrap_or_else(|| number.as_f64().unwrap_or_default() as i64)),
            Value::String(text) => text.trim().parse().map_err(|_| mismatch("int", self.raw(name))),
            other => Err(mismatch("int", other)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Answer> {
        match self.raw(name) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) if matches!(text.as_str(), "true" | "false") => Ok(text == "true"),
            other => Err(mismatch("boolean", other)),
        }
    }

    /// A set of texts; a null in it is no text, and the service stumbles over it later.
    pub(super) fn texts(&self, name: &str) -> Result<Option<BTreeSet<String>>, Answer> {
        match self.raw(name) {
            Value::Null => Ok(None),
            Value::Array(items) if items.iter().any(Value::is_null) => Err(Answer::error(500, "Internal Server Error")),
            Value::Array(items) => {
                let texts = items.iter().map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    Value::Number(number) => Ok(number.to_string()),
                    other => Err(mismatch("java.lang.String", other)),
                });
                texts.collect::<Result<_, _>>().map(Some)
            }
            other => Err(mismatch("java.util.Set<java.lang.String>", other)),
        }
    }

    pub(super) fn one_of(&self, name: &str, kind: &Enum) -> Result<Option<String>, Answer> {
        match self.raw(name) {
            Value::Null => Ok(None),
            Value::String(text) if kind.values.contains(&text.as_str()) => Ok(Some(text.clone())),
            Value::String(text) => {
                let (class, values) = (kind.class, kind.values.join(", "));
                Err(parse_error(&format!(
                    "Cannot deserialize value of type `{class}` from String \"{text}\": not one of the values accepted \
                     for Enum class: [{values}]"
                )))
            }
            Value::Number(number) => {
                let index = number.as_u64().and_then(|index| usize::try_from(index).ok());
                let value = index.and_then(|index| kind.values.get(index));
                value
                    .map(|value| Some((*value).to_owned()))
                    .ok_or_else(|| mismatch(kind.class, self.raw(name)))
            }
            other => Err(mismatch(kind.class, other)),
        }
    }

    /// A list of objects; absent and null are empty.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Option<Self>>, Answer> {
        let items = match self.raw(name) {
            Value::Null => return Ok(Vec::new()),
            Value::Array(items) => items,
            other => return Err(mismatch("java.util.List", other)),
        };
        let objects = items.iter().map(|item| match item {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(Self(fields.clone()))),
            other => Err(mismatch("object", other)),
        });
        objects.collect()
    }
}

pub(super) fn parse_error(what: &str) -> Answer {
    Answer::error(400, format!("JSON parse error: {what}"))
}

fn mismatch(class: &str, value: &Value) -> Answer {
    let token = match value {
        Value::Null => "Null value",
        Value::Bool(_) => "Boolean value",
        Value::Number(_) => "Number value",
        Value::String(_) => "String value",
        Value::Array(_) => "Array value (token `JsonToken.START_ARRAY`)",
        Value::Object(_) => "Object value (token `JsonToken.START_OBJECT`)",
    };
    parse_error(&format!("Cannot deserialize value of type `{class}` from {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOUR: Enum = Enum {
        class: "Colour",
        values: &["RED", "BLUE"],
    };

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_taken_as_generously_as_by_the_service() {
        let body = fields("\u{feff}{\"a\":5,\"b\":\"8\",\"c\":1.9,\"d\":1,\"a\":6,\"e\":0}");
        assert_eq!(body.text("a").unwrap().unwrap(), "6", "the last of two counts");
        assert_eq!(
            (
                body.int("b").unwrap(),
                body.int("c").unwrap(),
                body.int("none").unwrap()
            ),
            (8, 1, 0)
        );
        assert_eq!(
            body.one_of("e", &COLOUR).unwrap().unwrap(),
            "RED",
            "an integer is an index"
        );
        assert!(fields(r#"{"a":"  "}"#).filled("a").unwrap().is_none());
    }

    #[test]
    fn what_is_no_json_is_told_as_a_parse_error() {
        for bad in [
            "{,}",
            "{\"a\":1,}",
            "{} x",
            "{'a':1}",
            "/* */ {}",
            "{\"a\":\"\u{1}\"}",
            "[]",
        ] {
            let answer = Fields::parse(bad.as_bytes()).unwrap_err();
            let text = String::from_utf8(answer.body).unwrap();
            assert!(
                answer.status == 400 && text.starts_with("{\"error\":\"JSON parse error: "),
                "{bad}: {text}"
            );
        }
        assert_eq!(Fields::parse(b"null").unwrap_err().status, 400);
        let wrong = fields(r#"{"a":"red"}"#).one_of("a", &COLOUR).unwrap_err();
        let text = String::from_utf8(wrong.body).unwrap();
        assert!(
            text.contains(r#"from String \"red\": not one of the values accepted for Enum class: [RED, BLUE]"#),
            "{text}"
        );
    }
}
