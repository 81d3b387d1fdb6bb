//! Command lines: flag groups that several programs share, and a variable for every flag.
//!
//! Precedence: flag, then variable, then default. `--state-dir` of berthd is also `BERTHD_STATE_DIR`.

use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Command, CommandFactory, Parser, ValueEnum};
use serde::Serialize;

use crate::identity::{IdentityRule, IdentityRules};
use crate::telemetry::with_causes;
use crate::tls::{ClientTlsFiles, ServerTlsFiles};

mod duration;

pub use duration::{HumanDuration, ParseDurationError};

/// How a program logs and traces.
#[derive(Debug, Clone, Serialize, clap::Args)]
#[command(next_help_heading = "Logs and traces")]
pub struct TelemetryArgs {
    /// What to log: a level, or a list such as `info,berth_ledger=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// How to write logs (always to stderr): `auto` is text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// Send traces to this OpenTelemetry collector by gRPC, e.g. `http://127.0.0.1:4317`
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// Where the admin endpoint listens. A program gives its default port with
/// `#[command(mut_arg("admin", |arg| arg.default_value("127.0.0.1:9441")))]`.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct AdminArgs {
    /// Serve /metrics, /livez, /readyz, /debug and /log-level here
    // Not marked as required: the program's `mut_arg` gives the default.
    #[arg(long, value_name = "ADDR", required = false)]
    pub admin: SocketAddr,
}

/// The certificates a server shows and demands. All files are re-read when they change.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificate chain that this server shows, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Demand a client certificate signed by one of these authorities, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// The certificates a client trusts and shows. All files are re-read when a connection is made.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct ClientTlsArgs {
    /// Trust servers signed by one of these authorities, PEM (needed for https)
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Certificate chain that this client shows, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// Who may change things.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
pub struct IdentityArgs {
    /// Also let this client change things: `uid:N`, `gid:N` (unix socket), `cn:NAME`, `san:NAME` (verified client
    /// certificate) or `loopback` (anybody on this machine over plain TCP). Repeatable. Root and the daemon's own user
    /// always may, over the unix socket; reading is open to whoever can connect
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    pub allow: Vec<IdentityRule>,
}

// === impl the groups ===

impl TlsArgs {
    /// The files, if TLS is on.
    pub fn files(&self) -> Option<ServerTlsFiles> {
        let Self {
            tls_cert,
            tls_key,
            tls_client_ca,
        } = self.clone();
        Some(ServerTlsFiles {
            cert: tls_cert?,
            key: tls_key?,
            client_ca: tls_client_ca,
        })
    }
}

impl ClientTlsArgs {
    /// The files, if any server is to be trusted.
    pub fn files(&self) -> Option<ClientTlsFiles> {
        let Self {
            tls_ca,
            tls_cert,
            tls_key,
        } = self.clone();
        Some(ClientTlsFiles {
            ca: tls_ca?,
            identity: tls_cert.zip(tls_key),
        })
    }
}

impl IdentityArgs {
    /// The defaults (root, and the user this process runs as) and what was given.
    pub fn rules(&self) -> IdentityRules {
        IdentityRules::local_defaults().with(self.allow.iter().cloned())
    }
}

/// Parses the process's command line. On `--help`, `--version` or a mistake it prints what clap has to say and ends the
/// process, with code 2 for a mistake.
pub fn parse_args<T: Parser>(env_prefix: &str) -> T {
    parse_args_from(env_prefix, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Ends the process as for a mistake, with code 2: the flags of `T` parse, and cannot be used all the same.
pub fn refuse<T: CommandFactory>(error: &(dyn Error + 'static)) -> ! {
    let message = format!("{}\n", with_causes(error));
    T::command().error(ErrorKind::ValueValidation, message).exit()
}

/// As [`parse_args`], from `args` (the first is the program's name), and without ending the process.
///
/// # Errors
/// `--help`, `--version` or a mistake.
pub fn parse_args_from<T: Parser>(
    env_prefix: &str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<T, clap::Error> {
    let mut command = with_env_prefix(T::command(), env_prefix);
    let matches = command.try_get_matches_from_mut(args)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Gives every long flag of `command` and of its subcommands a variable: `--log-level` gets `{prefix}_LOG_LEVEL`. Flags
/// that name a variable of their own keep it. Switches take `true/false`, `yes/no`, `on/off`, `1/0`.
pub fn with_env_prefix(command: Command, prefix: &str) -> Command {
    command
        .mut_args(|arg| {
            let Some(long) = arg.get_long() else { return arg };
            if arg.get_env().is_some() || matches!(long, "help" | "version") {
                return arg;
            }
            // Leaked on purpose, once per flag and process: clap wants names that live for ever.
            let variable: &'static str = format!("{prefix}_{}", long.replace('-', "_").to_uppercase()).leak();
            let is_switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
            let arg = arg.env(variable);
            if is_switch {
                arg.value_parser(BoolishValueParser::new())
            } else {
                arg
            }
        })
        .mut_subcommands(|subcommand| with_env_prefix(subcommand, prefix))
}

#[cfg(test)]
mod tests;
