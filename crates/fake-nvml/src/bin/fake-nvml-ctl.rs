//! `fake-nvml-ctl`: scripts the fake NVML library while programs use it.

use std::{error::Error, io, process::ExitCode};

use berth_fake_nvml::ctl::{Args, run};
use clap::Parser;

fn main() -> ExitCode {
    let Err(error) = run(Args::parse(), &mut io::stdout().lock()) else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    #[expect(clippy::print_stderr, reason = "a command line tool says on stderr why it failed")]
    {
        eprintln!("fake-nvml-ctl: {text}");
    }
    ExitCode::FAILURE
}
