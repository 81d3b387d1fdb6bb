//! berthctl.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    berth_cli::main(env::args_os())
}
