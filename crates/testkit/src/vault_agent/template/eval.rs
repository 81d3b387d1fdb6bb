//! Rendering: values are JSON, printed as Go prints them.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Query, TemplateError,
    parse::{Call, Node, Operand, Pipe},
};

struct Scope<'a> {
    secrets: &'a BTreeMap<Query, &'a Value>,
    strict: bool,
    variables: Vec<(String, Value)>,
}

pub(super) fn render(nodes: &[Node], secrets: &BTreeMap<Query, &Value>, strict: bool) -> Result<String, TemplateError> {
    let mut scope = Scope {
        secrets,
        strict,
        variables: Vec::new(),
    };
    let mut text = String::new();
    scope.nodes(nodes, &Value::Null, &mut text)?;
    Ok(text)
}

impl Scope<'_> {
    /// Variables end with the block that they are set in.
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), TemplateError> {
        let depth = self.variables.len();
        for node in nodes {
            self.node(node, dot, out)?;
        }
        self.variables.truncate(depth);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&show(&self.pipe(pipe, dot)?)),
            Node::Set(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If { pipe, body, otherwise } => {
                let chosen = if truth(&self.pipe(pipe, dot)?) { body } else { otherwise };
                self.nodes(chosen, dot, out)?;
            }
            Node::With {
                variable,
                pipe,
                body,
                otherwise,
            } => {
                let value = self.pipe(pipe, dot)?;
                if truth(&value) {
                    let name = variable.iter().map(|name| (name.clone(), value.clone()));
                    self.inside(name.collect(), body, &value, out)?;
                } else {
                    self.nodes(otherwise, dot, out)?;
                }
            }
            Node::Range {
                key,
                value,
                pipe,
                body,
                otherwise,
            } => {
                let items: Vec<(Value, Value)> = match self.pipe(pipe, dot)? {
                    Value::Array(items) => items
                        .into_iter()
                        .enumerate()
                        .map(|(at, item)| (json!(at), item))
                        .collect(),
                    // Go goes through a map in the order of its keys.
                    Value::Object(items) => {
                        let mut items: Vec<_> = items.into_iter().collect();
                        items.sort_by(|(a, _), (b, _)| a.cmp(b));
                        items.into_iter().map(|(name, item)| (json!(name), item)).collect()
                    }
                    Value::Null => Vec::new(),
                    _ => return Err(TemplateError::WrongValue("range")),
                };
                if items.is_empty() {
                    self.nodes(otherwise, dot, out)?;
                }
                for (name, item) in items {
                    let names = [(key, name), (value, item.clone())];
                    let names = names
                        .into_iter()
                        .filter_map(|(name, value)| Some((name.clone()?, value)));
                    self.inside(names.collect(), body, &item, out)?;
                }
            }
        }
        Ok(())
    }

    fn inside(
        &mut self,
        names: Vec<(String, Value)>,
        body: &[Node],
        dot: &Value,
        out: &mut String,
    ) -> Result<(), TemplateError> {
        let depth = self.variables.len();
        self.variables.extend(names);
        self.nodes(body, dot, out)?;
        self.variables.truncate(depth);
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut piped = None;
        for call in pipe {
            let value = match call {
                Call::Value(operand) if piped.is_none() => self.operand(operand, dot)?,
                Call::Value(_) => return Err(TemplateError::WrongValue("a pipe's end")),
                Call::Secret(query) => {
                    let secret = self.secrets.get(query);
                    let secret = secret.ok_or_else(|| TemplateError::NoSecret(query.path.clone()))?;
                    (*secret).clone()
                }
                Call::Function(name, operands) => {
                    let operands = operands.iter().map(|operand| self.operand(operand, dot));
                    let mut arguments = operands.collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(piped.take());
                    self.function(name, &arguments)?
                }
            };
            piped = Some(value);
        }
        Ok(piped.unwrap_or_default())
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(fields) => self.fields(dot, fields, ""),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(other, _)| other == name);
                let (_, value) = found.ok_or_else(|| TemplateError::NoVariable(name.clone()))?;
                self.fields(value, fields, name)
            }
            Operand::Pipe(pipe) => self.pipe(pipe, dot),
        }
    }

    fn fields(&self, from: &Value, fields: &[String], name: &str) -> Result<Value, TemplateError> {
        let mut value = from;
        for (at, field) in fields.iter().enumerate() {
            value = match value {
                Value::Object(object) => match object.get(field) {
                    Some(value) => value,
                    // Only a map's own missing key is forgiven; a field of nothing never is.
                    None if at + 1 == fields.len() && !self.strict => return Ok(Value::Null),
                    None => return Err(missing(name, &fields[..at])),
                },
                _ => return Err(missing(name, &fields[..at])),
            };
        }
        Ok(value.clone())
    }

    fn function(&self, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(match (name, arguments) {
            ("index", [from, keys @ ..]) => {
                let mut value = from.clone();
                for key in keys {
                    let found = match (&value, key) {
                        (Value::Object(object), Value::String(key)) => object.get(key),
                        (Value::Array(items), Value::Number(at)) => {
                            at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?))
                        }
                        _ => None,
                    };
                    value = match found {
                        Some(found) => found.clone(),
                        None if self.strict => return Err(TemplateError::MissingKey("index".to_owned())),
                        None => Value::Null,
                    };
                }
                value
            }
            ("toJSON", [value]) => json!(html_safe(&value.to_string())),
            ("toJSONPretty", [value]) => json!(html_safe(&format!("{value:#}"))),
            ("base64Encode", [value]) => json!(STANDARD.encode(show(value).as_bytes())),
            ("base64Decode", [value]) => {
                let decoded = text(value).and_then(|text| STANDARD.decode(text).ok());
                let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
                json!(decoded.ok_or(TemplateError::WrongValue("base64Decode"))?)
            }
            ("trimSpace", [value]) => json!(show(value).trim()),
            ("toLower", [value]) => json!(show(value).to_lowercase()),
            ("toUpper", [value]) => json!(show(value).to_uppercase()),
            ("len", [Value::Array(items)]) => json!(items.len()),
            ("len", [Value::Object(items)]) => json!(items.len()),
            ("len", [Value::String(text)]) => json!(text.len()),
            ("eq", [first, others @ ..]) if !others.is_empty() => json!(others.contains(first)),
            ("ne", [a, b]) => json!(a != b),
            ("not", [value]) => json!(!truth(value)),
            ("and", [.., last]) => arguments.iter().find(|value| !truth(value)).unwrap_or(last).clone(),
            ("or", [.., last]) => arguments.iter().find(|value| truth(value)).unwrap_or(last).clone(),
            _ => return Err(TemplateError::WrongValue("a function")),
        })
    }
}

/// What Go prints for a map's missing key.
const NO_VALUE: &str = "<no value>";

fn missing(name: &str, fields: &[String]) -> TemplateError {
    let variable = if name.is_empty() {
        String::new()
    } else {
        format!("${name}")
    };
    TemplateError::MissingKey(format!("{variable}.{}", fields.join(".")))
}

/// Go's truth: not empty, not zero, not nil.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

/// As Go's `%v`.
fn show(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(NO_VALUE),
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(show).collect();
            Cow::Owned(format!("[{}]", items.join(" ")))
        }
        Value::Object(items) => {
            let mut items: Vec<_> = items.iter().collect();
            items.sort_by_key(|(name, _)| *name);
            let items: Vec<_> = items
                .iter()
                .map(|(name, item)| format!("{name}:{}", show(item)))
                .collect();
            Cow::Owned(format!("map[{}]", items.join(" ")))
        }
        other => Cow::Owned(other.to_string()),
    }
}

/// Go's JSON encoder writes these so that the text is safe inside HTML.
fn html_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
