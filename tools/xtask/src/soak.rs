//! `cargo xtask soak`: the long forms, alone on the machine. Leaves a dated result.
//!
//! Steps are a table; each is a command with its environment. The result names machine, kernel and
//! commit and keeps each step's closing lines, so that a figure can be traced to its run.

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    packages, suite,
    suite::{Outcome, cargo},
};

struct Step {
    name: &'static str,
    about: &'static str,
    cargo: &'static str,
    env: &'static [(&'static str, &'static str)],
    /// Lines of output kept in the result, from the end.
    keep: usize,
}

const STEPS: &[Step] = &[];

pub(crate) fn run(args: &[String]) -> Result<bool> {
    if args.iter().any(|arg| arg == "--list") {
        for step in STEPS {
            println!("{:<20} {}", step.name, step.about);
        }
        return Ok(true);
    }
    for name in args {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step '{name}'; `cargo xtask soak --list` names them");
        }
    }
    if let Some(reason) = packages::ensure(packages::FOR_TESTS)? {
        bail!("soak compares with the C implementation: {reason}");
    }
    let mut page = heading()?;
    let mut all_ok = true;
    for step in STEPS.iter().filter(|step| args.is_empty() || args.iter().any(|a| a == step.name)) {
        let mut command = cargo(step.cargo);
        command.env("RINGMASTER_REQUIRE_ALL", "1").envs(step.env.iter().copied());
        println!("\n== {}: {}", step.name, step.about);
        let outcome = suite::run(&mut command)?;
        all_ok &= outcome.ok;
        describe(&mut page, step, &outcome)?;
    }
    let verdict = if all_ok { "all steps passed" } else { "A STEP FAILED" };
    writeln!(page, "\nVerdict: {verdict}.")?;
    let path = result_path();
    fs::write(&path, page).with_context(|| format!("cannot write {path}"))?;
    println!("\n{verdict}; result in {path}");
    Ok(all_ok)
}

fn heading() -> Result<String> {
    let mut page = String::new();
    writeln!(page, "# Soak of {}\n", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z"))?;
    writeln!(page, "- commit: {}", first_line(&mut git("rev-parse HEAD")))?;
    writeln!(page, "- machine: {}, {} processors", processor(), threads())?;
    writeln!(page, "- kernel: {}", first_line(Command::new("uname").arg("-sr")))?;
    writeln!(page, "- command: cargo xtask soak")?;
    Ok(page)
}

fn describe(page: &mut String, step: &Step, outcome: &Outcome) -> Result<()> {
    let verdict = if outcome.ok { "passed" } else { "FAILED" };
    writeln!(page, "\n## {}: {verdict}\n\n{}", step.name, step.about)?;
    let env: String = step.env.iter().map(|(key, value)| format!("{key}={value} ")).collect();
    writeln!(page, "`{env}cargo {}`, {}\n", step.cargo, minutes(outcome.took))?;
    let lines: Vec<&str> = outcome.output.lines().filter(|line| !line.trim().is_empty()).collect();
    writeln!(page, "```text")?;
    for line in &lines[lines.len().saturating_sub(step.keep)..] {
        writeln!(page, "{line}")?;
    }
    writeln!(page, "```")?;
    Ok(())
}

fn minutes(took: Duration) -> String {
    format!("{:.1} minutes", took.as_secs_f64() / 60.0)
}

fn result_path() -> String {
    let day = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let mut path = format!("bench/results/{day}-soak.md");
    let mut number = 2;
    while Path::new(&path).exists() {
        path = format!("bench/results/{day}-soak-{number}.md");
        number += 1;
    }
    path
}

fn git(args: &str) -> Command {
    let mut command = Command::new("git");
    command.args(args.split_whitespace());
    command
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor").to_owned()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}
