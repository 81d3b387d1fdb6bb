//! berthctl: looks into the book of a GPU node's daemon, changes it, and runs commands on leased GPUs.
//!
//! ```text
//! args ──► commands ──► client ──► berthd             (convert: wire <-> view, the only place that knows both)
//!             │      └► scheduler ──► berth-scheduler
//!             │            │
//!             └─► run      └─► view ──► output         (one page or one JSON document; nothing else prints)
//! ```
//! What each exit code means is in `error::exit`, and in `berthctl --help`.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod convert;
mod diff;
mod error;
mod output;
mod run;
mod scheduler;
mod selector;
mod signals;
#[cfg(test)]
mod testing;
mod view;

use std::{ffi::OsString, process::ExitCode};

use berth_runtime::{SystemClock, tls};
use clap::FromArgMatches as _;

use crate::{
    args::{Cli, Format},
    error::CliError,
    output::Output,
};

pub use args::command;

/// The whole program. `args` begins with the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Some(step) = run::exec::requested() {
        let output = Output::new(Format::Table, SystemClock::shared());
        return finish(step.run(), &output);
    }
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output and is no failure; clap knows. A closed pipe is none either.
            let _nobody_listens = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::exit::USAGE));
        }
    };
    tls::install_crypto_provider();
    let output = Output::new(cli.global.output, SystemClock::shared());
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::System {
            what: "to start",
            source,
        })
        .and_then(|runtime| runtime.block_on(commands::run(&cli, &output)));
    finish(outcome, &output)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args = args.into_iter().peekable();
    let mut command = command();
    // As kubectl's plugin it is called by that name, and says so.
    if args
        .peek()
        .is_some_and(|name| name.to_string_lossy().ends_with("kubectl-berth"))
    {
        command = command.bin_name("kubectl berth");
    }
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn finish(outcome: Result<ExitCode, CliError>, output: &Output) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
