//! `cargo xtask test`: what CI runs. Lints, then every test in its short form.

use std::{process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{
    deps, generate, packages, suite,
    suite::{Counts, Report, cargo},
};

/// A suite of tests: its name in the report, and the packages whose tests make it up.
struct Suite {
    name: &'static str,
    crates: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite { name: "wire", crates: &["ringmaster-protocol", "ringmaster-transport"] },
    Suite { name: "storage", crates: &["ringmaster-storage"] },
    Suite {
        name: "control",
        crates: &[
            "ringmaster-control",
            "ringmaster-daemon",
            "ringmaster-eventd",
            "ringmaster-guard",
            "ringmaster-host",
            "ringmaster-network",
        ],
    },
    Suite { name: "dataplane", crates: &["ringmaster-dataplane"] },
    Suite { name: "sim", crates: &["ringmaster-sim"] },
    Suite {
        name: "tool",
        crates: &["ringmaster-client", "ringmaster-ctdb", "ringmaster-admin", "ringmaster-xtask"],
    },
    Suite { name: "compat", crates: &["ringmaster-compat"] },
    Suite { name: "follow", crates: &["ringmaster-follow"] },
    Suite { name: "samba", crates: &["ringmaster-e2e"] },
];

/// Clusters of the suite `follow` that live side by side: they mostly wait.
const FOLLOW_CLUSTERS: &str = "6";

/// On C's daemons alone a scenario is tried out, by hand and in the soak: nothing of ours runs there.
const FOLLOW_FILTER: [&str; 3] = ["--", "--skip", "::ccc"];

pub(crate) fn run(args: &[String]) -> Result<bool> {
    for name in args {
        if name != "lint" && !SUITES.iter().any(|suite| suite.name == name) {
            let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            bail!("no suite '{name}'; there are: lint {}", names.join(" "));
        }
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let mut report = Report::default();

    let start = Instant::now();
    let packages: Vec<&str> = [packages::FOR_TESTS, packages::FOR_DEMO].concat();
    let missing = packages::ensure(&packages)?;
    if let Some(reason) = &missing {
        println!("skipped: tests beside the C implementation: {reason}");
    }
    report.note("packages", true, Counts::default(), start.elapsed());

    if wanted("lint") {
        lint(&mut report);
    }
    // One build of everything first, so that a suite's minutes are its own.
    report.step("build", &mut cargo("build --workspace --all-targets --keep-going"));
    for suite in SUITES.iter().filter(|suite| wanted(suite.name)) {
        let mut command = cargo("test --no-fail-fast");
        for name in suite.crates {
            command.args(["-p", name]);
        }
        if suite.name == "follow" {
            command.env("RUST_TEST_THREADS", FOLLOW_CLUSTERS).args(FOLLOW_FILTER);
        }
        require_all(&mut command, missing.is_none());
        report.step(suite.name, &mut command);
    }
    if wanted("dataplane") {
        let mut loom =
            cargo("test -p ringmaster-dataplane --lib --release --target-dir target/loom");
        report.step("loom", loom.env("RUSTFLAGS", "--cfg loom"));
    }
    if args.is_empty() {
        // Every benchmark runs once, small, so that none rots; nobody judges its speed here.
        report.step("bench smoke", &mut cargo("test -p ringmaster-bench --all-targets"));
    }
    Ok(report.close())
}

fn lint(report: &mut Report) {
    report.step("lint", &mut cargo("fmt --all --check"));
    report.step("lint", &mut cargo("clippy --workspace --all-targets -- -D warnings"));
    let mut doc = cargo("doc --workspace --no-deps --document-private-items");
    report.step("lint", doc.env("RUSTDOCFLAGS", "-D warnings"));
    let start = Instant::now();
    for (name, verdict) in [("deps", deps::run()), ("gen --check", generate::check())] {
        let ok = match verdict {
            Ok(ok) => ok,
            Err(error) => {
                eprintln!("xtask {name}: {error:#}");
                false
            }
        };
        report.note("lint", ok, Counts::default(), start.elapsed());
    }
}

/// Where everything is installed, a test that would skip itself is a failure.
fn require_all(command: &mut Command, everything_installed: bool) {
    if everything_installed && packages::is_root() {
        command.env("RINGMASTER_REQUIRE_ALL", "1");
    }
    command.current_dir(suite::workspace_root());
}
