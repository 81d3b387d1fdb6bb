//! Where a parser stopped and of what kind the mistake is, without a word of what it read: that may be a secret. Pure.

use std::fmt;

use serde_json::error::Category;

/// JSON that is not what it should be. The parser's own error quotes values, this one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Misread {
    category: Category,
    /// From 1; 0 where the parser read no text.
    line: usize,
    column: usize,
}

impl From<&serde_json::Error> for Misread {
    fn from(error: &serde_json::Error) -> Self {
        Self {
            category: error.classify(),
            line: error.line(),
            column: error.column(),
        }
    }
}

impl From<serde_json::Error> for Misread {
    fn from(error: serde_json::Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.category {
            Category::Io => "it cannot be read",
            Category::Syntax => "it is no JSON",
            Category::Data => "a value has another form than it must have, or is missing",
            Category::Eof => "it ends too early",
        })?;
        if self.line > 0 {
            write!(f, " (line {}, column {})", self.line, self.column)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, from_value, json};

    use super::*;

    #[test]
    fn a_parsers_error_is_told_without_what_it_read() {
        let told = |error: serde_json::Error| Misread::from(error).to_string();
        let error = from_str::<Vec<u32>>("[1,\n\"s3cret\"]").unwrap_err();
        assert!(error.to_string().contains("s3cret"), "the parser quotes: {error}");
        let text = told(error);
        assert!(text.contains("another form") && text.contains("line 2"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        let text = told(from_value::<u32>(json!("s3cret")).unwrap_err());
        assert!(!text.contains("s3cret") && !text.contains("line"), "{text}");
        assert!(told(from_str::<u32>("[1").unwrap_err()).contains("another form"));
        assert!(told(from_str::<Vec<u32>>("[1").unwrap_err()).contains("too early"));
        assert!(told(from_str::<Vec<u32>>("[1}").unwrap_err()).contains("no JSON"));
    }
}
