//! Where the token comes from: a file with the token alone, or OpenBao's `secrets.json` with several secrets.

use std::{path::Path, sync::Arc};

use berth_runtime::secret_file::SecretFile;
use serde_json::Value;

use super::TokenError;

/// A token in a file. Clones share one file. Its `follow` may run beside; reading does not need it.
#[derive(Debug, Clone)]
pub struct TokenFile {
    file: SecretFile,
}

impl TokenFile {
    pub const fn new(file: SecretFile) -> Self {
        Self { file }
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// For whoever waits for a new one.
    pub const fn secret(&self) -> &SecretFile {
        &self.file
    }

    /// The token as the file has it now; the last good one where the file gives none.
    pub(crate) fn read(&self) -> Result<Token, TokenError> {
        let path = || self.file.path().to_owned();
        let secret = self.file.read().map_err(|source| TokenError::Missing { source })?;
        let found = secret.expose_str().and_then(find);
        found.map(Token).ok_or_else(|| TokenError::NotInFile { path: path() })
    }
}

/// The token itself. Not shown.
pub(crate) struct Token(Arc<str>);

impl Token {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// `kv.tokens.icms`, or `sis` as older templates call it, of a JSON file; else the whole file.
fn find(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    if !text.starts_with('{') {
        return (!text.is_empty()).then(|| text.into());
    }
    let json: Value = serde_json::from_str(text).ok()?;
    let tokens = &json["kv"]["tokens"];
    let named = ["icms", "sis"].into_iter().filter_map(|key| tokens[key].as_str());
    named.map(str::trim).find(|token| !token.is_empty()).map(Into::into)
}

// So that no derived `Debug` of a holder can show it.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_alone_and_among_other_secrets_by_either_name() {
        assert_eq!(find(" abc\n").as_deref(), Some("abc"));
        assert_eq!(
            find(r#"{"kv":{"tokens":{"icms":"t1","sis":"t2"}}}"#).as_deref(),
            Some("t1")
        );
        assert_eq!(
            find(r#"{"kv":{"tokens":{"icms":"","sis":"t2"}}}"#).as_deref(),
            Some("t2")
        );
        assert_eq!(find(r#"{"kv":{"nats":{}}}"#), None);
        assert_eq!(find(r#"{"kv":{"tok"#), None, "half a file is no token");
        assert_eq!(find("  "), None);
    }
}
