//! Policies: which paths a token may do what with. The language is HCL's `path "…" { capabilities = […] }`, or its JSON.
//!
//! Precedence is that of the documentation (concepts, policies, "policy syntax"): an exact path wins; among patterns the
//! one whose first wildcard comes later, then the one without a trailing `*`, then fewer `+`, then the longer, then the
//! lexicographically larger.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::Value;

use super::Refusal;

/// What every token may do.
const DEFAULT: &str = r#"
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
"#;

const KNOWN: [&str; 8] = ["create", "read", "update", "patch", "delete", "list", "sudo", "deny"];

/// Rights by path pattern.
pub(super) type Rules = BTreeMap<String, BTreeSet<String>>;

/// All policies by name; `root` is not among them: it allows everything.
#[derive(Debug)]
pub(super) struct Policies {
    by_name: BTreeMap<String, Policy>,
}

#[derive(Debug)]
struct Policy {
    text: String,
    rules: Rules,
}

// === impl Policies ===

impl Policies {
    pub(super) fn new() -> Self {
        let mut policies = Self {
            by_name: BTreeMap::new(),
        };
        let written = policies.write("default", DEFAULT);
        debug_assert!(written.is_ok(), "{written:?}");
        policies
    }

    pub(super) fn write(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        let rules = parse(text).map_err(|what| Refusal::bad(format!("failed to parse policy: {what}")))?;
        let text = text.to_owned();
        self.by_name.insert(name.to_lowercase(), Policy { text, rules });
        Ok(())
    }

    pub(super) fn read(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|policy| policy.text.as_str())
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    pub(super) fn names(&self) -> Vec<String> {
        let root = "root".to_owned();
        self.by_name.keys().cloned().chain([root]).collect()
    }

    /// What these policies together allow on a path.
    pub(super) fn capabilities(&self, names: &[String], path: &str) -> BTreeSet<String> {
        if names.iter().any(|name| name == "root") {
            return BTreeSet::from(["root".to_owned()]);
        }
        let mut rules = Rules::new();
        for policy in names.iter().filter_map(|name| self.by_name.get(name)) {
            for (pattern, granted) in &policy.rules {
                rules
                    .entry(pattern.clone())
                    .or_default()
                    .extend(granted.iter().cloned());
            }
        }
        let best = rules
            .iter()
            .filter(|(pattern, _)| matches(pattern, path))
            .max_by(|(a, _), (b, _)| precedence(a, b));
        match best {
            Some((_, granted)) if granted.contains("deny") => BTreeSet::new(),
            Some((_, granted)) => granted.clone(),
            None => BTreeSet::new(),
        }
    }

    pub(super) fn allows(&self, names: &[String], path: &str, capability: &str) -> bool {
        let granted = self.capabilities(names, path);
        granted.contains("root") || granted.contains(capability)
    }
}

/// `+` stands for one segment, a trailing `*` for any rest.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut wanted = pattern.split('/').peekable();
    let mut given = path.split('/');
    while let Some(want) = wanted.next() {
        let Some(have) = given.next() else { return false };
        let last = wanted.peek().is_none();
        let fits = match (want, last && open) {
            ("+", _) => !have.is_empty(),
            (want, true) => have.starts_with(want),
            (want, false) => have == want,
        };
        if !fits {
            return false;
        }
    }
    open || given.next().is_none()
}

fn precedence(a: &str, b: &str) -> Ordering {
    let key = |pattern: &str| {
        let wildcard = pattern.find(['*', '+']).unwrap_or(usize::MAX);
        let closed = !pattern.ends_with('*');
        let segments = pattern.matches('+').count();
        (wildcard, closed, usize::MAX - segments, pattern.len())
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

fn parse(text: &str) -> Result<Rules, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(json) => parse_json(&json),
        Err(_) => parse_hcl(text),
    }
}

fn parse_json(json: &Value) -> Result<Rules, String> {
    let paths = json["path"].as_object().ok_or("no \"path\"")?;
    let mut rules = Rules::new();
    for (pattern, body) in paths {
        let listed = body["capabilities"].as_array().into_iter().flatten();
        insert(&mut rules, pattern, listed.filter_map(Value::as_str))?;
    }
    Ok(rules)
}

fn insert<'a>(rules: &mut Rules, pattern: &str, granted: impl Iterator<Item = &'a str>) -> Result<(), String> {
    if pattern.contains("+*") {
        return Err(format!(
            "path {pattern:?}: invalid use of wildcards ('+*' is forbidden)"
        ));
    }
    let all = rules.entry(pattern.trim_start_matches('/').to_owned()).or_default();
    for capability in granted {
        if !KNOWN.contains(&capability) {
            return Err(format!("path {pattern:?}: invalid capability {capability:?}"));
        }
        all.insert(capability.to_owned());
    }
    Ok(())
}

/// The subset of HCL that policies are written in. Parameter constraints are refused: the stand-in would not enforce them.
fn parse_hcl(text: &str) -> Result<Rules, String> {
    let words = tokenize(text)?;
    let mut words = words.iter().map(String::as_str);
    let mut rules = Rules::new();
    while let Some(word) = words.next() {
        expect(Some(word), "path")?;
        let pattern = quoted(words.next())?;
        expect(words.next(), "{")?;
        loop {
            match words.next() {
                Some("}") => break,
                Some("capabilities") => {}
                Some("policy") => return Err("the deprecated \"policy\" attribute is not supported".to_owned()),
                other => return Err(format!("unsupported {} in path {pattern:?}", other.unwrap_or("end"))),
            }
            expect(words.next(), "=")?;
            expect(words.next(), "[")?;
            let mut granted = Vec::new();
            loop {
                match words.next() {
                    Some("]") => break,
                    Some(",") => {}
                    word => granted.push(quoted(word)?),
                }
            }
            insert(&mut rules, pattern, granted.into_iter())?;
        }
        rules.entry(pattern.trim_start_matches('/').to_owned()).or_default();
    }
    Ok(rules)
}

fn expect(word: Option<&str>, wanted: &str) -> Result<(), String> {
    match word {
        Some(word) if word == wanted => Ok(()),
        other => Err(format!("expected {wanted}, found {}", other.unwrap_or("the end"))),
    }
}

fn quoted(word: Option<&str>) -> Result<&str, String> {
    word.and_then(|word| word.strip_prefix('"'))
        .ok_or_else(|| format!("expected a string, found {}", word.unwrap_or("the end")))
}

/// Names, signs, and strings with their opening quote kept as a mark. Comments go.
fn tokenize(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with('#') || rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            0
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or("a string does not end")?;
            words.push(rest[..=end].to_owned());
            end + 2
        } else if "{}[]=,".contains(first) {
            words.push(first.to_string());
            1
        } else {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("unexpected {first:?}"));
            }
            words.push(rest[..end].to_owned());
            end
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(text: &str) -> Policies {
        let mut policies = Policies::new();
        policies.write("p", text).unwrap();
        policies
    }

    fn allowed(text: &str, path: &str, capability: &str) -> bool {
        policies(text).allows(&["p".to_owned()], path, capability)
    }

    #[test]
    fn a_star_is_a_prefix_and_a_plus_is_one_segment() {
        let text = r#"
            # read everything of one service
            path "services/all/kv/*" { capabilities = ["read", "list"] }
            path "services/+/jwt/sign/nvca" { capabilities = ["create", "update"] } // sign"#;
        assert!(allowed(text, "services/all/kv/data/nats/creds", "read"));
        assert!(!allowed(text, "services/all/kv/data/nats/creds", "update"));
        assert!(allowed(text, "services/sis-api/jwt/sign/nvca", "update"));
        assert!(!allowed(text, "services/a/b/jwt/sign/nvca", "update"));
        assert!(!allowed(text, "services/sis-api/jwt/sign/nvca-operator", "update"));
        assert!(!allowed(text, "sys/mounts", "read"));
    }

    #[test]
    fn the_most_specific_rule_wins_and_deny_beats_its_like() {
        let text = r#"
            path "kv/*" { capabilities = ["read"] }
            path "kv/data/secret" { capabilities = ["deny"] }
            path "kv/data/+/open" { capabilities = ["update"] }
            path "kv/data/a/*" { capabilities = ["list"] }"#;
        assert!(allowed(text, "kv/data/other", "read"));
        assert!(!allowed(text, "kv/data/secret", "read"));
        assert!(allowed(text, "kv/data/b/open", "update") && !allowed(text, "kv/data/b/open", "read"));
        assert!(allowed(text, "kv/data/a/open", "list"));
        let mut two = policies(r#"path "x" { capabilities = ["read"] }"#);
        two.write("q", r#"{"path": {"x": {"capabilities": ["deny"]}}}"#)
            .unwrap();
        assert!(!two.allows(&["p".to_owned(), "q".to_owned()], "x", "read"));
    }

    #[test]
    fn bad_policies_are_told() {
        for (text, told) in [
            (r#"path "x" { capabilities = ["fly"] }"#, "invalid capability"),
            (r#"path "x" { allowed_parameters = {} }"#, "unsupported"),
            ("path x {}", "expected a string"),
            (r#"path "x { }"#, "does not end"),
            (r#"path "a/+*" { capabilities = ["read"] }"#, "forbidden"),
        ] {
            let error = Policies::new().write("p", text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn root_may_everything_and_an_unknown_policy_nothing() {
        let policies = Policies::new();
        assert!(policies.allows(&["root".to_owned()], "sys/seal", "update"));
        assert!(!policies.allows(&["unknown".to_owned()], "sys/seal", "update"));
        assert!(policies.allows(&["default".to_owned()], "auth/token/lookup-self", "read"));
    }
}
