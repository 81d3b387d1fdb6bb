//! What can go wrong with a rig, told so that one can act on it.

use std::{io, path::Path};

use thiserror::Error;

/// Why a rig or a part of it is not there.
#[derive(Debug, Error)]
pub enum RigError {
    #[error("{what}: {hint}")]
    Io {
        what: String,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "a rig runs only in a network namespace without a route out; start it through `inside` or `cargo xtask rig up`"
    )]
    NotIsolated,
    #[error("cannot make a namespace: {0}")]
    Namespace(String),
    #[error("the real parts are not built: {0}")]
    Tools(String),
    #[error("KAI cannot be started: {0}")]
    Kai(String),
    #[error("OpenBao or its injector: {0}")]
    Bao(String),
    #[error("{part} cannot be started: {hint}")]
    Start {
        part: String,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("port {port} for {part} is in use: another rig in this namespace, or one that did not end")]
    PortInUse { part: String, port: u16 },
    #[error("{part} ended ({status}); its last lines:\n{log}")]
    Died { part: String, status: String, log: String },
    #[error("{what} within {seconds} s; the last lines of {part}:\n{log}")]
    Late {
        what: String,
        part: String,
        seconds: u64,
        log: String,
    },
    #[error("no part is called {name}; there are {known:?}")]
    UnknownPart { name: String, known: Vec<&'static str> },
    #[error("the API server refused: {what}")]
    Api {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{0}")]
    Pki(#[from] rcgen::Error),
}

impl RigError {
    pub(super) fn io(what: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            what: what.as_ref().display().to_string(),
            hint: hint(&source),
            source,
        }
    }

    pub(super) fn start(part: &str, source: io::Error) -> Self {
        Self::Start {
            part: part.to_owned(),
            hint: hint(&source),
            source,
        }
    }

    pub(super) fn api(what: impl Into<String>, source: kube::Error) -> Self {
        Self::Api {
            what: what.into(),
            source: Box::new(source),
        }
    }
}

/// What to do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::NotFound => "not there",
        _ => "failed",
    }
}
