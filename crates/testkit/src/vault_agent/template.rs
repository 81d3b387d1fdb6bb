//! Templates: the subset of consul-template's language that NVCF's and the injector's templates are written in.
//!
//! `with`, `range`, `if` and `else`, variables, pipes, white-space trimming, comments; `secret` with literal arguments;
//! `index`, `toJSON`, `toJSONPretty`, `base64Encode`, `base64Decode`, `trimSpace`, `toLower`, `toUpper`, `len`, `eq`, `ne`,
//! `not`, `and`, `or`. Anything else is an error when the template is read, not when it is rendered. No error holds a value.
//! Language: the documentation of Go's package text/template, and consul-template's own of its functions.

mod eval;
mod lex;
mod parse;

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

/// A template, ready to be rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What a template reads: `secret "PATH" "NAME=VALUE" …`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    pub path: String,
    /// With parameters it is a write.
    pub parameters: BTreeMap<String, String>,
}

/// What is wrong with a template, or with the secret that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("an action does not end")]
    Unclosed,
    #[error("unexpected {0:?}")]
    Unexpected(String),
    #[error("{0:?} is not closed with end")]
    NoEnd(&'static str),
    #[error("the stand-in has no function {0:?}")]
    NoFunction(String),
    #[error("undefined variable {0:?}")]
    NoVariable(String),
    #[error("secret takes literal strings: a path, then NAME=VALUE")]
    SecretArguments,
    #[error("no secret at {0}")]
    NoSecret(String),
    #[error("{0} has no field of that name")]
    MissingKey(String),
    #[error("{0} cannot take that value")]
    WrongValue(&'static str),
}

// === impl Template ===

impl Template {
    /// Reads a template with these delimiters, `{{` and `}}` as a rule.
    pub fn parse(text: &str, left: &str, right: &str) -> Result<Self, TemplateError> {
        let tokens = lex::lex(text, left, right)?;
        parse::parse(tokens).map(|nodes| Self { nodes })
    }

    /// Everything that it reads.
    pub fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        parse::queries(&self.nodes, &mut queries);
        queries
    }

    /// The text, with these secrets. A missing key is `<no value>`, or an error where it shall be.
    pub fn render(
        &self,
        secrets: &BTreeMap<Query, &Value>,
        error_on_missing_key: bool,
    ) -> Result<String, TemplateError> {
        eval::render(&self.nodes, secrets, error_on_missing_key)
    }
}

// === impl TemplateError ===

impl TemplateError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unclosed => "Unclosed",
            Self::Unexpected(_) => "Unexpected",
            Self::NoEnd(_) => "NoEnd",
            Self::NoFunction(_) => "NoFunction",
            Self::NoVariable(_) => "NoVariable",
            Self::SecretArguments => "SecretArguments",
            Self::NoSecret(_) => "NoSecret",
            Self::MissingKey(_) => "MissingKey",
            Self::WrongValue(_) => "WrongValue",
        }
    }
}

#[cfg(test)]
mod tests;
