//! A template's text and the words of its actions.

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Word>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    /// `with`, `secret`, `true` …
    Name(String),
    /// `.`, `.Data.data.key`: the fields.
    Field(Vec<String>),
    /// `$x`, `$x.Data`: name and fields.
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    /// `|`, `:=`, `,`, `(`, `)`.
    Sign(&'static str),
}

/// Splits the text at its delimiters. `{{-` and `-}}` take the white space beside them away; comments vanish.
pub(super) fn lex(text: &str, left: &str, right: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(at) = rest.find(left) {
        let (before, action) = (&rest[..at], &rest[at + left.len()..]);
        let end = end_of(action, right).ok_or(TemplateError::Unclosed)?;
        let (mut inner, after) = (&action[..end], &action[end + right.len()..]);
        let mut before = if trim { before.trim_start() } else { before };
        if let Some(trimmed) = inner
            .strip_prefix('-')
            .filter(|rest| rest.starts_with(char::is_whitespace))
        {
            inner = trimmed;
            before = before.trim_end();
        }
        let trimmed = inner
            .strip_suffix('-')
            .filter(|rest| rest.ends_with(char::is_whitespace));
        trim = trimmed.is_some();
        inner = trimmed.unwrap_or(inner).trim();
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        if !inner.starts_with("/*") {
            pieces.push(Piece::Action(words(inner)?));
        }
        rest = after;
    }
    let last = if trim { rest.trim_start() } else { rest };
    if !last.is_empty() {
        pieces.push(Piece::Text(last.to_owned()));
    }
    Ok(pieces)
}

/// The right delimiter outside of strings.
fn end_of(action: &str, right: &str) -> Option<usize> {
    if action.trim_start_matches(['-', ' ']).starts_with("/*") {
        let closed = action.find("*/")?;
        return action[closed..].find(right).map(|at| closed + at);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in action.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if action[at..].starts_with(right) => return Some(at),
            None if c == '"' || c == '`' => quote = Some(c),
            _ => {}
        }
    }
    None
}

fn words(action: &str) -> Result<Vec<Word>, TemplateError> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '|' => sign(&mut words, "|"),
            ',' => sign(&mut words, ","),
            '(' => sign(&mut words, "("),
            ')' => sign(&mut words, ")"),
            ':' if rest.starts_with(":=") => sign(&mut words, ":="),
            '"' => {
                let (text, length) = string(rest)?;
                words.push(Word::Text(text));
                length
            }
            '`' => {
                let end = rest[1..].find('`').ok_or(TemplateError::Unclosed)?;
                words.push(Word::Text(rest[1..=end].to_owned()));
                end + 2
            }
            _ => {
                let end = rest
                    .find(|c: char| !c.is_alphanumeric() && !"_.$-".contains(c))
                    .unwrap_or(rest.len());
                let unexpected = || TemplateError::Unexpected(first.to_string());
                let word = rest.get(..end).filter(|word| !word.is_empty()).ok_or_else(unexpected)?;
                words.push(classify(word)?);
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

fn sign(words: &mut Vec<Word>, sign: &'static str) -> usize {
    words.push(Word::Sign(sign));
    sign.len()
}

fn classify(word: &str) -> Result<Word, TemplateError> {
    let fields = |path: &str| -> Vec<String> {
        path.split('.')
            .filter(|field| !field.is_empty())
            .map(str::to_owned)
            .collect()
    };
    if word.starts_with('.') {
        return Ok(Word::Field(fields(word)));
    }
    if let Some(variable) = word.strip_prefix('$') {
        let (name, path) = variable.split_once('.').unwrap_or((variable, ""));
        return Ok(Word::Variable(name.to_owned(), fields(path)));
    }
    if let Ok(number) = word.parse() {
        return Ok(Word::Number(number));
    }
    if word.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Ok(Word::Name(word.to_owned()));
    }
    Err(TemplateError::Unexpected(word.to_owned()))
}

/// A quoted string with Go's common escapes, and its length in the text.
fn string(text: &str) -> Result<(String, usize), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                Some((_, c)) => return Err(TemplateError::Unexpected(format!("\\{c}"))),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err(TemplateError::Unclosed)
}
