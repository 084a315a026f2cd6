//! `cargo xtask soak`: the long forms, alone on the machine. Leaves a dated result.
//!
//! Steps are a table; each is a command with its environment. The result names machine, kernel and
//! commit and keeps each step's closing lines, so that a figure can be traced to its run.

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    demo, packages, suite,
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

const STEPS: &[Step] = &[
    Step {
        name: "fuzz",
        about: "10 million inputs per family of decoders: no panic, hang, or memory above twice the packet",
        cargo: "run --release -p ringmaster-protocol --example fuzz_families -- --iterations 10000000 --seed SEED",
        env: &[],
        keep: 12,
    },
    Step {
        name: "byte-identity",
        about: "random operations by ours and by libtdb: files byte for byte the same",
        cargo: "test --release -p ringmaster-storage --test byte_identity --test transaction_libtdb -- --nocapture",
        env: &[("RINGMASTER_SOAK_SECONDS", "120"), ("RINGMASTER_SOAK", "1")],
        keep: 12,
    },
    Step {
        name: "crash-images",
        about: "every prefix of writes, unsynced ones lost or reordered: before or after the commit",
        cargo: "test --release -p ringmaster-storage --test transaction_crash --test recovery_samples -- --nocapture",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 12,
    },
    Step {
        name: "corruption",
        about: "a million damaged files: an error or the right answer",
        cargo: "test --release -p ringmaster-storage --test corruption --test damaged_open -- --nocapture",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 12,
    },
    Step {
        name: "torture",
        about: "libtdb processes and ours on one file, killed at random, 60 s per mode",
        cargo: "test --release -p ringmaster-storage --test torture --test torture_deaths --test killed --test reserve -- --nocapture",
        env: &[("RINGMASTER_SOAK_SECONDS", "60"), ("RINGMASTER_SOAK", "1")],
        keep: 16,
    },
    Step {
        name: "waiters",
        about: "1,000 rounds of contention with libtdb, holders killed: nobody sleeps on a free lock",
        cargo: "test --release -p ringmaster-storage --test waiters -- --nocapture",
        env: &[("RINGMASTER_SOAK_ROUNDS", "1000")],
        keep: 12,
    },
    Step {
        name: "storage-bench",
        about: "storage beside libtdb in the same run; ratio = libtdb's time / ours",
        cargo: "run --release -p ringmaster-bench --bin storage_vs_libtdb",
        env: &[],
        keep: 60,
    },
    Step {
        name: "codec-bench",
        about: "decode and encode cost per packet",
        cargo: "bench -p ringmaster-bench --bench protocol -- --quiet",
        env: &[],
        keep: 60,
    },
    Step {
        name: "reactor-stress",
        about: "5 minutes per reactor: streams that come and go on few buffers, every byte checked",
        cargo: "test --release -p ringmaster-transport --lib stress -- --nocapture --test-threads=1",
        env: &[("RINGMASTER_SOAK_SECONDS", "300")],
        keep: 12,
    },
    Step {
        name: "mixed-load",
        about: "10 minutes of load with faults, 1, 2 and 4 shards on both reactors: nothing grows, counters exact",
        cargo: "test --release -p ringmaster-compat --test mixed_load -- --nocapture",
        env: &[("RINGMASTER_SOAK_SECONDS", "600")],
        keep: 14,
    },
    Step {
        name: "hostile-node",
        about: "10 minutes of mutated packets from a peer: our daemon lives, serves and does not grow",
        cargo: "test --release -p ringmaster-compat --test hostile -- --nocapture",
        env: &[("RINGMASTER_SOAK_SECONDS", "600")],
        keep: 6,
    },
    Step {
        name: "follow",
        about: "our daemon among C's: every scenario with loads a hundred times as long, 10 minutes of a node and clients gone mad",
        cargo: "test --release -p ringmaster-follow --test follow -- --nocapture --skip churn",
        env: &[
            ("RINGMASTER_SOAK", "1"),
            ("RINGMASTER_SOAK_SECONDS", "600"),
            ("RUST_TEST_THREADS", "3"),
        ],
        keep: 60,
    },
    Step {
        name: "vacuum-load",
        about: "1,000 records a second made and deleted on each node for 5 minutes, without vacuuming and with: C's alone, then mixed",
        cargo: "test --release -p ringmaster-follow --test follow -- --nocapture churn",
        env: &[("RINGMASTER_SOAK_SECONDS", "300"), ("RUST_TEST_THREADS", "1")],
        keep: 30,
    },
    Step {
        name: "many-clients",
        about: "5,000 clients and a million records in one volatile database: memory and descriptors beside C's",
        cargo: "test --release -p ringmaster-compat --test many_clients -- --nocapture",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 18,
    },
    Step {
        name: "idle",
        about: "10 minutes of nothing to do: at most 0.1 % of a processor",
        cargo: "test --release -p ringmaster-compat --test idle -- --nocapture",
        env: &[("RINGMASTER_SOAK_SECONDS", "600")],
        keep: 8,
    },
    Step {
        name: "node-bench",
        about: "one node of ours beside one of C's, alone on the machine, judged by the targets",
        cargo: "run --release -p ringmaster-bench --bin ringmaster -- bench --pin --targets --rounds 9",
        env: &[],
        keep: 90,
    },
    Step {
        name: "nodes-bench",
        about: "2, 3 and 4 nodes of ours beside C's under records that move, free and on one processor, judged by the targets",
        cargo: "run --release -p ringmaster-bench --bin ringmaster -- bench --nodes 2,3,4 --free-and-pinned --targets --seconds 2",
        env: &[],
        keep: 110,
    },
    Step {
        name: "compat-c",
        about: "the C tool on the C daemon prints what is committed",
        cargo: "test --release -p ringmaster-compat --test cases -- --nocapture",
        env: &[("RINGMASTER_COMPAT_VERIFY", "1")],
        keep: 12,
    },
    Step {
        name: "smbtorture",
        about: "269 tests of Samba: what passes on C's daemon passes on ours, as it comes, on 4 shards, on epoll",
        cargo: "run --release -p ringmaster-e2e --bin smbtorture-list",
        env: &[],
        keep: 24,
    },
    Step {
        name: "smbd-kills",
        about: "500 servers and 20 daemons killed at work, C's daemon and ours: nothing leaks, hangs or is lost",
        cargo: "test --release -p ringmaster-e2e --test samba -- killed",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 60,
    },
    Step {
        name: "big-file",
        about: "a file of 2 GiB through SMB and back, equal checksums (CI: 1 GiB)",
        cargo: "test --release -p ringmaster-e2e --test samba -- large_file",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 12,
    },
    Step {
        name: "sessions",
        about: "400 sessions of smbclient at the same time, all with one file open (CI: 200)",
        cargo: "test --release -p ringmaster-e2e --test samba -- sessions_at_once",
        env: &[("RINGMASTER_SOAK", "1")],
        keep: 12,
    },
    Step {
        name: "address-sanitizer",
        about: "storage's tests under AddressSanitizer: the files that map and lock, beside libtdb",
        cargo: "test --target x86_64-unknown-linux-gnu -p ringmaster-storage --lib --tests --target-dir target/asan --no-fail-fast -q",
        // The toolchain of the project carries the sanitizer's runtime; only the flag is not stable.
        // Leaks: the tests forget guards on purpose, to die with a lock held. SIGBUS: one test's point.
        env: &[
            ("RUSTC_BOOTSTRAP", "1"),
            ("RUSTFLAGS", "-Zsanitizer=address"),
            ("ASAN_OPTIONS", "detect_leaks=0:handle_sigbus=0"),
        ],
        keep: 100,
    },
    Step {
        name: "miri",
        about: "the pure parts of storage and the codec under miri (nightly component)",
        cargo: "+nightly miri test -p ringmaster-storage --lib format",
        env: &[],
        keep: 6,
    },
    Step {
        name: "deny",
        about: "licences and sources of all dependencies",
        cargo: "deny check bans licenses sources",
        env: &[],
        keep: 6,
    },
];

/// Tools that a step needs and that may be missing: such a step is reported as skipped.
const NEEDS: &[(&str, &str)] = &[("miri", "+nightly miri --version"), ("deny", "deny --version")];

/// Programs that a step starts and that its own command does not build.
const STARTS: &[(&str, &str)] = &[
    ("mixed-load", OUR_DAEMON),
    ("hostile-node", OUR_DAEMON),
    ("follow", OUR_DAEMON_AND_TOOL),
    ("vacuum-load", OUR_DAEMON_AND_TOOL),
    ("many-clients", OUR_DAEMON),
    ("idle", OUR_DAEMON),
    ("node-bench", OUR_DAEMON),
    ("nodes-bench", OUR_DAEMON),
    ("smbtorture", demo::BUILD),
    ("smbd-kills", demo::BUILD),
    ("big-file", demo::BUILD),
    ("sessions", demo::BUILD),
];

const OUR_DAEMON: &str =
    "build --release -p ringmaster-daemon -p ringmaster-eventd -p ringmaster-admin";

const OUR_DAEMON_AND_TOOL: &str = "build --release -p ringmaster-daemon -p ringmaster-eventd \
                                   -p ringmaster-admin -p ringmaster-ctdb";

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
    if let Some(reason) = packages::ensure(&[packages::FOR_TESTS, packages::FOR_DEMO].concat())? {
        bail!("soak compares with the C implementation: {reason}");
    }
    // Fresh for every soak, and printed: a finding can be repeated.
    let seed = jiff::Zoned::now().strftime("%Y%m%d%H%M").to_string();
    let mut page = heading(args)?;
    writeln!(page, "- seed: {seed}")?;
    let path = result_path();
    let mut all_ok = true;
    for step in STEPS.iter().filter(|step| args.is_empty() || args.iter().any(|a| a == step.name)) {
        println!("\n== {}: {}", step.name, step.about);
        if let Some(missing) = missing_tool(step.name) {
            println!("skipped: cargo {missing} does not work here");
            writeln!(page, "\n## {}: skipped\n\n`cargo {missing}` does not work here.", step.name)?;
            continue;
        }
        if let Some((_, build)) = STARTS.iter().find(|(name, _)| *name == step.name)
            && !suite::run(&mut step_command(build))?.ok
        {
            bail!("step {}: cargo {build} failed", step.name);
        }
        let mut command = step_command(&step.cargo.replace("SEED", &seed));
        command.env("RINGMASTER_REQUIRE_ALL", "1").envs(step.env.iter().copied());
        let outcome = suite::run(&mut command)?;
        all_ok &= outcome.ok;
        describe(&mut page, step, &outcome)?;
        // After each step: a soak that is cut off keeps what it has.
        fs::write(&path, &page).with_context(|| format!("cannot write {path}"))?;
    }
    let verdict = if all_ok { "all steps passed" } else { "A STEP FAILED" };
    writeln!(page, "\nVerdict: {verdict}.")?;
    fs::write(&path, page).with_context(|| format!("cannot write {path}"))?;
    println!("\n{verdict}; result in {path}");
    Ok(all_ok)
}

/// `cargo ARGS`; `+TOOLCHAIN` first needs the `cargo` that rustup put in the path.
fn step_command(args: &str) -> Command {
    if !args.starts_with('+') {
        return cargo(args);
    }
    let mut command = Command::new("cargo");
    command.args(args.split_whitespace()).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command
}

/// The command that shows that a step's tool is missing.
fn missing_tool(step: &str) -> Option<&'static str> {
    let (_, probe) = NEEDS.iter().find(|(name, _)| *name == step)?;
    let works = step_command(probe).output().is_ok_and(|output| output.status.success());
    (!works).then_some(probe)
}

fn heading(steps: &[String]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "# Soak of {}\n", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z"))?;
    writeln!(page, "- commit: {}", first_line(&mut git("rev-parse HEAD")))?;
    writeln!(page, "- machine: {}, {} processors", processor(), threads())?;
    writeln!(page, "- kernel: {}", first_line(Command::new("uname").arg("-sr")))?;
    writeln!(page, "- command: {}", format!("cargo xtask soak {}", steps.join(" ")).trim_end())?;
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
