//! From pieces to a tree, with every name checked.

use std::{collections::BTreeMap, iter::Peekable, vec::IntoIter};

use serde_json::{Value, json};

use super::{
    Query, TemplateError,
    lex::{Piece, Word},
};

/// What can stand at the head of a call, besides `secret`.
pub(super) const FUNCTIONS: [&str; 13] = [
    "index",
    "toJSON",
    "toJSONPretty",
    "base64Encode",
    "base64Decode",
    "trimSpace",
    "toLower",
    "toUpper",
    "len",
    "eq",
    "ne",
    "not",
    "and",
];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    /// `{{ $x := … }}`
    Set(String, Pipe),
    With {
        variable: Option<String>,
        pipe: Pipe,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
    If {
        pipe: Pipe,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Range {
        key: Option<String>,
        value: Option<String>,
        pipe: Pipe,
        body: Vec<Self>,
        otherwise: Vec<Self>,
    },
}

/// Calls, each of which gets the one before it as its last argument.
pub(super) type Pipe = Vec<Call>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Value(Operand),
    Function(String, Vec<Operand>),
    Secret(Query),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Pipe(Pipe),
}

type Words = Peekable<IntoIter<Word>>;

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces.into_iter();
    match block(&mut pieces, None)? {
        (nodes, Close::Text) => Ok(nodes),
        (_, Close::End) => Err(TemplateError::Unexpected("end".to_owned())),
        (_, Close::Else(_)) => Err(TemplateError::Unexpected("else".to_owned())),
    }
}

/// What closed a block.
enum Close {
    Text,
    End,
    /// With what follows: `if …`.
    Else(Vec<Word>),
}

fn block(pieces: &mut IntoIter<Piece>, opened: Option<&'static str>) -> Result<(Vec<Node>, Close), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let words = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(words) => words,
        };
        match words.first() {
            Some(Word::Name(name)) if name == "end" => return Ok((nodes, Close::End)),
            Some(Word::Name(name)) if name == "else" => return Ok((nodes, Close::Else(words[1..].to_vec()))),
            Some(Word::Name(name)) if matches!(name.as_str(), "with" | "if" | "range") => {
                nodes.push(control(words, pieces)?);
            }
            _ => nodes.push(simple(words)?),
        }
    }
    match opened {
        Some(name) => Err(TemplateError::NoEnd(name)),
        None => Ok((nodes, Close::Text)),
    }
}

fn control(words: Vec<Word>, pieces: &mut IntoIter<Piece>) -> Result<Node, TemplateError> {
    let variables = variables(&words);
    let mut rest = words.into_iter().peekable();
    let name: &'static str = match rest.next() {
        Some(Word::Name(name)) if name == "with" => "with",
        Some(Word::Name(name)) if name == "range" => "range",
        Some(Word::Name(name)) if name == "if" => "if",
        _ => return Err(TemplateError::Unexpected("else".to_owned())),
    };
    if !variables.is_empty() {
        while rest.next().is_some_and(|word| word != Word::Sign(":=")) {}
    }
    let pipe = whole_pipe(rest.collect::<Vec<_>>())?;
    let (body, end) = block(pieces, Some(name))?;
    let otherwise = match end {
        Close::Else(more) if more.is_empty() => match block(pieces, Some(name))? {
            (otherwise, Close::End) => otherwise,
            _ => return Err(TemplateError::Unexpected("else".to_owned())),
        },
        Close::Else(more) => vec![control(more, pieces)?],
        Close::End => Vec::new(),
        Close::Text => return Err(TemplateError::NoEnd(name)),
    };
    let mut variables = variables.into_iter();
    Ok(match (name, variables.len()) {
        ("with", 0 | 1) => Node::With {
            variable: variables.next(),
            pipe,
            body,
            otherwise,
        },
        ("if", 0) => Node::If { pipe, body, otherwise },
        ("range", 0 | 1) => Node::Range {
            key: None,
            value: variables.next(),
            pipe,
            body,
            otherwise,
        },
        ("range", 2) => Node::Range {
            key: variables.next(),
            value: variables.next(),
            pipe,
            body,
            otherwise,
        },
        _ => return Err(TemplateError::Unexpected(":=".to_owned())),
    })
}

/// The names before `:=`.
fn variables(words: &[Word]) -> Vec<String> {
    let Some(at) = words.iter().position(|word| *word == Word::Sign(":=")) else {
        return Vec::new();
    };
    let names = words[..at].iter().filter_map(|word| match word {
        Word::Variable(name, _) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

fn simple(mut words: Vec<Word>) -> Result<Node, TemplateError> {
    if let [Word::Variable(name, _), Word::Sign(":="), ..] = words.as_slice() {
        let name = name.clone();
        return whole_pipe(words.split_off(2)).map(|pipe| Node::Set(name, pipe));
    }
    whole_pipe(words).map(Node::Print)
}

fn whole_pipe(words: Vec<Word>) -> Result<Pipe, TemplateError> {
    let mut words = words.into_iter().peekable();
    let calls = pipe(&mut words)?;
    match words.next() {
        None => Ok(calls),
        Some(word) => Err(unexpected(&word)),
    }
}

/// Up to the end or a closing parenthesis.
fn pipe(words: &mut Words) -> Result<Pipe, TemplateError> {
    let mut calls = vec![call(words)?];
    while words.next_if_eq(&Word::Sign("|")).is_some() {
        calls.push(call(words)?);
    }
    Ok(calls)
}

fn call(words: &mut Words) -> Result<Call, TemplateError> {
    let function =
        words.next_if(|word| matches!(word, Word::Name(name) if !matches!(name.as_str(), "true" | "false" | "nil")));
    let mut operands = Vec::new();
    while let Some(word) = words.next_if(|word| !matches!(word, Word::Sign("|" | ")"))) {
        operands.push(operand(word, words)?);
    }
    match function {
        Some(Word::Name(name)) if name == "secret" => secret(&operands),
        Some(Word::Name(name)) if name == "or" || FUNCTIONS.contains(&name.as_str()) => {
            Ok(Call::Function(name, operands))
        }
        Some(Word::Name(name)) => Err(TemplateError::NoFunction(name)),
        _ => match (operands.pop(), operands.len()) {
            (Some(operand), 0) => Ok(Call::Value(operand)),
            (Some(_), _) => Err(TemplateError::Unexpected("a second value".to_owned())),
            (None, _) => Err(TemplateError::Unexpected("nothing".to_owned())),
        },
    }
}

fn operand(word: Word, words: &mut Words) -> Result<Operand, TemplateError> {
    Ok(match word {
        Word::Text(text) => Operand::Literal(json!(text)),
        Word::Number(number) => Operand::Literal(json!(number)),
        Word::Name(name) if name == "true" || name == "false" => Operand::Literal(json!(name == "true")),
        Word::Field(fields) => Operand::Field(fields),
        Word::Variable(name, fields) => Operand::Variable(name, fields),
        Word::Sign("(") => {
            let inner = pipe(words)?;
            match words.next() {
                Some(Word::Sign(")")) => Operand::Pipe(inner),
                _ => return Err(TemplateError::Unclosed),
            }
        }
        other => return Err(unexpected(&other)),
    })
}

fn secret(operands: &[Operand]) -> Result<Call, TemplateError> {
    let mut texts = operands.iter().map(|operand| match operand {
        Operand::Literal(Value::String(text)) => Ok(text.as_str()),
        _ => Err(TemplateError::SecretArguments),
    });
    let path = texts.next().ok_or(TemplateError::SecretArguments)??;
    let mut parameters = BTreeMap::new();
    for text in texts {
        let (name, value) = text?.split_once('=').ok_or(TemplateError::SecretArguments)?;
        parameters.insert(name.to_owned(), value.to_owned());
    }
    Ok(Call::Secret(Query {
        path: path.trim_matches('/').to_owned(),
        parameters,
    }))
}

fn unexpected(word: &Word) -> TemplateError {
    TemplateError::Unexpected(match word {
        Word::Name(text) | Word::Text(text) => text.clone(),
        Word::Field(fields) => format!(".{}", fields.join(".")),
        Word::Variable(name, _) => format!("${name}"),
        Word::Number(number) => number.to_string(),
        Word::Sign(sign) => (*sign).to_owned(),
    })
}

/// Every secret that the nodes read, in any branch.
pub(super) fn queries(nodes: &[Node], found: &mut Vec<Query>) {
    for node in nodes {
        let (pipe, blocks): (&Pipe, [&[Node]; 2]) = match node {
            Node::Text(_) => continue,
            Node::Print(pipe) | Node::Set(_, pipe) => (pipe, [&[], &[]]),
            Node::With {
                pipe, body, otherwise, ..
            }
            | Node::If { pipe, body, otherwise }
            | Node::Range {
                pipe, body, otherwise, ..
            } => (pipe, [body, otherwise]),
        };
        in_pipe(pipe, found);
        for block in blocks {
            queries(block, found);
        }
    }
}

fn in_pipe(pipe: &Pipe, found: &mut Vec<Query>) {
    for call in pipe {
        let operands = match call {
            Call::Secret(query) => {
                found.push(query.clone());
                continue;
            }
            Call::Value(operand) => std::slice::from_ref(operand),
            Call::Function(_, operands) => operands,
        };
        for operand in operands {
            if let Operand::Pipe(pipe) = operand {
                in_pipe(pipe, found);
            }
        }
    }
}
