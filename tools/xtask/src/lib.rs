//! `cargo xtask`: the one door to tests, soak, installation and generated files.
//!
//! Role: decide which commands make up a suite and report on them. What a test checks is in the
//! crates. Depends on none of the workspace's crates, so that it runs when they do not build.
#![forbid(unsafe_code)]

pub mod demo;
mod deps;
mod generate;
mod install;
mod packages;
mod soak;
mod suite;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [SUITE…]          install what is missing, then lint, build and run every test (what CI runs)
  soak [--list] [STEP…]  the long forms, alone on the machine; leaves bench/results/DATE-soak.md
  demo [--nodes N] [--fault F] [--check] [--keep] [--c-daemon | --mixed]
                         an all-active cluster in network namespaces loses a node while a client
                         copies a file, until Ctrl-C; see `demo --help`
  deps                   check who depends on whom, and list what each binary links
  gen [--check]          write man pages and completions to packaging/ (--check: compare only)
  install --prefix DIR   build in release mode and lay out bin/ sbin/ libexec/ctdb/ share/
";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<bool> {
    if let Some(rest) = demo::copy::arguments(args) {
        return demo::copy::run(rest).map(|()| true);
    }
    std::env::set_current_dir(suite::workspace_root())?;
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => {
            eprint!("{USAGE}");
            return Ok(false);
        }
    };
    match command {
        "test" => test::run(rest),
        "soak" => soak::run(rest),
        "demo" => demo::run(rest),
        "deps" => deps::run(),
        "gen" => generate::run(rest),
        "install" => install::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(true)
        }
        other => bail!("no command '{other}'\n{USAGE}"),
    }
}
