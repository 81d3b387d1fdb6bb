//! Tells a parent process which addresses were bound when it asked for port 0.
//!
//! A test, a demo or a load generator sets `BERTH_ADDRESS_FILE` to a path and waits for that file to appear.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The variable that names the file. Hidden: it is for whoever starts the process, not for its operator.
pub const ADDRESS_FILE_VARIABLE: &str = "BERTH_ADDRESS_FILE";

/// What was bound. Absent is what this program does not serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Addresses {
    /// `IP:PORT` of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// `IP:PORT` of the admin endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Path of the unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// `IP:PORT` of another HTTP service: the one that the program is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// `IP:PORT` of the scheduler extender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extender: Option<String>,
    /// `IP:PORT` of the admission webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// Writes `addresses` to the file that [`ADDRESS_FILE_VARIABLE`] names, at once and whole; without the variable it does
/// nothing. Call it when every listener is bound.
///
/// # Errors
/// The file cannot be written.
pub fn write_addresses(addresses: &Addresses) -> io::Result<()> {
    match env::var_os(ADDRESS_FILE_VARIABLE) {
        Some(path) => write_to(&PathBuf::from(path), addresses),
        None => Ok(()),
    }
}

fn write_to(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    fs::write(&unfinished, serde_json::to_vec(addresses)?)?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_only_what_is_served_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("addresses.json");
        let addresses = Addresses {
            grpc: Some("127.0.0.1:1234".to_owned()),
            ..Addresses::default()
        };
        write_to(&path, &addresses).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"grpc":"127.0.0.1:1234"}"#);
        assert_eq!(serde_json::from_str::<Addresses>(&text).unwrap(), addresses);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no unfinished file is left"
        );
    }
}
