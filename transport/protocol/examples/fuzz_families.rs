//! Long fuzzing without a nightly compiler: mutated packets at full speed.
//!
//! ```text
//! cargo run --release -p ringmaster-protocol --example fuzz_families -- --iterations 10000000 --seed 7
//! ```
//! `--family NAME` runs one family only. Exit status 1 and a replayable finding when a check fails.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use support::counting::CountingAllocator;
use support::driver::run;
use support::families::families;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

struct Options {
    iterations: u64,
    seed: u64,
    family: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { iterations: 1_000_000, seed: 1, family: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--iterations" => options.iterations = number()?,
            "--seed" => options.seed = number()?,
            "--family" => options.family = Some(value),
            _ => return Err(format!("{name}: unknown option")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!(
                "{message}\nusage: fuzz_families [--iterations N] [--seed S] [--family NAME]"
            );
            return ExitCode::from(2);
        }
    };
    let chosen = |name: &str| options.family.as_ref().is_none_or(|family| family == name);
    let mut ran = 0;
    for family in families().iter().filter(|family| chosen(family.name)) {
        ran += 1;
        let start = Instant::now();
        match run(family, options.iterations, options.seed) {
            Ok(outcome) => println!(
                "{}: {} inputs, {} decoded, {:.1} s",
                family.name,
                outcome.inputs,
                outcome.decoded,
                start.elapsed().as_secs_f64()
            ),
            Err(finding) => {
                println!(
                    "{}: FAILED at seed {} iteration {}: {}\n{:02x?}",
                    family.name, finding.seed, finding.iteration, finding.message, finding.input
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if ran == 0 {
        eprintln!(
            "no such family; there are: {:?}",
            families().iter().map(|family| family.name).collect::<Vec<_>>()
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
