//! `kubectl berth …`: berthctl by the name that kubectl looks for.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    berth_cli::main(env::args_os())
}
