//! Developer commands, and the two that a user needs: `cargo xtask demo` and `cargo xtask test`.
//!
//! Owns how the project is built, checked and shown; must not hold anything that a shipped program needs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

mod codegen;
mod demo;
mod grpcurl;
mod process;
mod rig;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Berth")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job end to end on this machine: four nodes, a scheduler, function pods, a GPU that breaks.
    Demo {
        /// Keep everything running after the last table, until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Every check and every test, as CI runs them.
    Test {
        /// Only these steps; see --list.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Name the steps and stop.
        #[arg(long)]
        list: bool,
    },
    /// A real Kubernetes control plane with GPU nodes: `rig up`, `rig down`, `rig --help`.
    #[command(disable_help_flag = true)]
    Rig {
        /// For the rig; `tools` alone builds the real parts and names their folder.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Rules that the compiler does not know: file headers, sizes, who may depend on whom.
    Tidy,
    /// Writes the generated pages (docs/cli.md, docs/metrics.md).
    Codegen {
        /// Change nothing; fail where a page is not what the code says.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Demo { keep } => demo::run(keep),
        Command::Test { only, list } => test::run(&only, list),
        Command::Rig { args } => rig::run(&args),
        Command::Tidy => tidy::run(),
        Command::Codegen { check } => codegen::run(check),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
