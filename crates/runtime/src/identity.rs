//! Who is at the other end of a connection, and whether they may change things.
//!
//! An identity is only ever what the kernel (unix socket) or TLS (verified certificate) vouches for. Safe defaults: over
//! the unix socket root and the user the daemon runs as may change things; plain loopback TCP may only read, because
//! any user of the machine can connect to it, until `--allow loopback` says otherwise.

use std::fmt;
use std::fs;
use std::str::FromStr;

use serde::Serialize;

/// The client of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdentity {
    /// A process on this machine, by the unix socket's peer credentials.
    Unix { uid: u32, gid: u32, pid: Option<i32> },
    /// A verified client certificate: its common name and its subject alternative names (DNS, URI, IP, e-mail).
    Tls {
        common_name: Option<String>,
        sans: Vec<String>,
    },
    /// Somebody on this machine, over plain TCP.
    Loopback,
    /// Somebody over TLS without a client certificate, or over plain TCP from elsewhere.
    Anonymous,
}

/// One client, or kind of client, that may change things. Its text form is the value of `--allow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum IdentityRule {
    Uid(u32),
    Gid(u32),
    CommonName(String),
    San(String),
    Loopback,
}

/// Everybody who may change things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityRules {
    allowed: Vec<IdentityRule>,
}

/// The text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a client: write uid:NUMBER, gid:NUMBER, cn:NAME, san:NAME or loopback")]
pub struct ParseIdentityRuleError(String);

/// The client may only read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{identity} may only read here; to let it change things, start the server with {hint}")]
pub struct Denied {
    pub identity: ClientIdentity,
    hint: String,
}

// === impl ClientIdentity ===

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix {
                uid,
                gid,
                pid: Some(pid),
            } => write!(f, "uid {uid} gid {gid} pid {pid}"),
            Self::Unix { uid, gid, pid: None } => write!(f, "uid {uid} gid {gid}"),
            Self::Tls {
                common_name: Some(name),
                ..
            } => write!(f, "certificate cn:{name}"),
            Self::Tls { sans, .. } => write!(f, "certificate san:{}", sans.first().map_or("", String::as_str)),
            Self::Loopback => f.write_str("a plain TCP client on this machine"),
            Self::Anonymous => f.write_str("a client without a certificate"),
        }
    }
}

// === impl IdentityRule ===

impl IdentityRule {
    fn matches(&self, identity: &ClientIdentity) -> bool {
        match (self, identity) {
            (Self::Uid(allowed), ClientIdentity::Unix { uid, .. }) => allowed == uid,
            (Self::Gid(allowed), ClientIdentity::Unix { gid, .. }) => allowed == gid,
            (Self::CommonName(allowed), ClientIdentity::Tls { common_name, .. }) => {
                common_name.as_ref() == Some(allowed)
            }
            (Self::San(allowed), ClientIdentity::Tls { sans, .. }) => sans.contains(allowed),
            (Self::Loopback, ClientIdentity::Loopback) => true,
            _ => false,
        }
    }
}

impl FromStr for IdentityRule {
    type Err = ParseIdentityRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = match text.split_once(':') {
            None if text == "loopback" => Some(Self::Loopback),
            Some(("uid", number)) => number.parse().ok().map(Self::Uid),
            Some(("gid", number)) => number.parse().ok().map(Self::Gid),
            Some(("cn", name)) if !name.is_empty() => Some(Self::CommonName(name.to_owned())),
            Some(("san", name)) if !name.is_empty() => Some(Self::San(name.to_owned())),
            _ => None,
        };
        rule.ok_or_else(|| ParseIdentityRuleError(text.to_owned()))
    }
}

impl fmt::Display for IdentityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Gid(gid) => write!(f, "gid:{gid}"),
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::San(name) => write!(f, "san:{name}"),
            Self::Loopback => f.write_str("loopback"),
        }
    }
}

impl From<IdentityRule> for String {
    fn from(rule: IdentityRule) -> Self {
        rule.to_string()
    }
}

// === impl IdentityRules ===

impl IdentityRules {
    /// Root and the user this process runs as.
    pub fn local_defaults() -> Self {
        let mut allowed = vec![IdentityRule::Uid(0)];
        allowed.extend(own_uid().filter(|uid| *uid != 0).map(IdentityRule::Uid));
        Self { allowed }
    }

    /// Nobody.
    pub fn nobody() -> Self {
        Self { allowed: Vec::new() }
    }

    /// These and `more`.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = IdentityRule>) -> Self {
        self.allowed.extend(more);
        self
    }

    /// Whether `identity` may change things.
    ///
    /// # Errors
    /// It may not; the error says which flag would let it.
    pub fn allows(&self, identity: &ClientIdentity) -> Result<(), Denied> {
        if self.allowed.iter().any(|rule| rule.matches(identity)) {
            return Ok(());
        }
        Err(Denied {
            identity: identity.clone(),
            hint: hint(identity),
        })
    }
}

impl Denied {
    /// Stable name of this refusal, for the wire and for metrics.
    pub const fn reason(&self) -> &'static str {
        "IdentityNotAllowed"
    }
}

fn hint(identity: &ClientIdentity) -> String {
    match identity {
        ClientIdentity::Unix { uid, .. } => format!("--allow uid:{uid}"),
        ClientIdentity::Tls {
            common_name: Some(name),
            ..
        } => format!("--allow cn:{name}"),
        ClientIdentity::Tls { sans, .. } => format!("--allow san:{}", sans.first().map_or("NAME", String::as_str)),
        ClientIdentity::Loopback => "--allow loopback, or use its unix socket".to_owned(),
        ClientIdentity::Anonymous => "--tls-client-ca and --allow cn:NAME".to_owned(),
    }
}

/// The effective user of this process, as /proc tells it.
fn own_uid() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests;
