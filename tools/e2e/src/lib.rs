//! Runs the same end-to-end cases on Debian's daemon and on ours, each on hosts of its own.
//!
//! Role: one world per subject (see `ringmaster_xtask::demo`), both at the same time, the cases in
//! order inside; libtest's lines, so that everybody can count. What is checked is in `tests/`.
//! Invariants
//! - A case that fails does not stop the later ones; the verdict is the conjunction of all.
//! - Nothing is left behind: a world goes with its first process.
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use ringmaster_xtask::demo::{
    self,
    cluster::{self, Cluster, Daemon},
    host::Host,
    world::{self, World},
};

/// Set to `1` where a skipped test counts as a failed one (CI).
const REQUIRE_ALL: &str = "RINGMASTER_REQUIRE_ALL";
/// First argument of the copy inside; the next one is the subject.
const INSIDE: &str = "--inside";
/// What the closing line of the inside begins with.
const CLOSING: &str = "closing: ";

/// Whose daemon a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Debian's.
    C,
    /// Ours.
    Ours,
}

/// A name, and what must succeed.
pub type Case = (&'static str, fn(&Lab) -> Result<()>);

/// Where a case works: one served node and a client.
pub struct Lab {
    /// Whose daemon runs.
    pub subject: Subject,
    /// The hosts.
    pub cluster: Cluster,
}

impl Lab {
    /// The node with the server.
    ///
    /// # Panics
    /// Never: a lab is made with one node.
    #[must_use]
    pub fn node(&self) -> &Host {
        self.cluster.nodes.first().expect("a lab is made with one node")
    }
}

impl Subject {
    const ALL: [Self; 2] = [Self::C, Self::Ours];

    const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Ours => "ours",
        }
    }

    fn daemon(self) -> Result<Daemon> {
        Ok(match self {
            Self::C => Daemon::C,
            Self::Ours => Daemon::Ours(own_binaries()?),
        })
    }
}

/// The folder with our binaries: two above this test's, `target/debug/deps`.
fn own_binaries() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let folder = program.ancestors().nth(2).context("a test lies in target/PROFILE/deps")?;
    Ok(folder.to_owned())
}

/// The test program. Arguments that are no options select cases by a part of their name.
#[must_use]
pub fn main(cases: &[Case]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((first, rest)) if first == INSIDE => inside(cases, rest),
        _ => outside(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn outside(args: &[String]) -> Result<bool> {
    if let Some(reason) = missing() {
        if std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1") {
            bail!("{REQUIRE_ALL} is set, but: {reason}");
        }
        println!("skipped: {reason}");
        return Ok(true);
    }
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let start = Instant::now();
    let verdicts = thread::scope(|scope| {
        let run = |subject| scope.spawn(move || one_world(subject, args));
        let running = Subject::ALL.map(|subject| (subject, run(subject)));
        running.map(|(subject, thread)| match thread.join() {
            Ok(verdict) => verdict.with_context(|| format!("subject {}", subject.name())),
            Err(_) => bail!("the thread of subject {} panicked", subject.name()),
        })
    });
    let (mut passed, mut failed) = (0, 0);
    for verdict in verdicts {
        match verdict {
            Ok((some, others)) => {
                passed += some;
                failed += others;
            }
            Err(error) => {
                println!("{error:#}");
                failed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s",
        start.elapsed().as_secs_f64()
    );
    if passed == 0 && failed == 0 {
        bail!("no case is called like {words:?}");
    }
    Ok(failed == 0)
}

/// Why the cases cannot run here.
fn missing() -> Option<String> {
    let programs =
        ["/usr/sbin/ctdbd", "/usr/sbin/smbd", "/usr/bin/smbclient", "/usr/bin/smbtorture"];
    if let Some(program) = programs.into_iter().find(|program| !Path::new(program).exists()) {
        return Some(format!(
            "{program} is missing (Debian: apt-get install ctdb samba smbclient samba-testsuite)"
        ));
    }
    if let Ok(daemon) = Subject::Ours.daemon()
        && let Some(binary) = daemon.missing()
    {
        return Some(format!("{} is not built: cargo build --bins", binary.display()));
    }
    world::missing()
}

/// Runs all cases of one subject, passing on what they print: how many passed and failed.
fn one_world(subject: Subject, args: &[String]) -> Result<(usize, usize)> {
    let own = [INSIDE.to_owned(), subject.name().to_owned()];
    let mut command = world::again(own.iter().chain(args).map(OsString::from))?;
    let (output, input) = std::io::pipe().context("no pipe")?;
    command.stderr(input.try_clone()?).stdout(input);
    let reader = thread::spawn(move || {
        let mut closing = None;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.strip_prefix(CLOSING) {
                Some(counts) => closing = Some(counts.to_owned()),
                None => println!("{:<5}{line}", subject.name()),
            }
        }
        closing
    });
    let status = world::run(command)?;
    let Ok(Some(closing)) = reader.join() else {
        bail!("it ended early: {status}");
    };
    let (passed, failed) = closing.split_once(' ').context("the closing line has two numbers")?;
    Ok((passed.parse()?, failed.parse()?))
}

/// The copy inside: brings the host up and runs the cases.
fn inside(cases: &[Case], args: &[String]) -> Result<bool> {
    let (name, words) = args.split_first().context("the inside is told its subject")?;
    let subject = Subject::ALL.into_iter().find(|subject| subject.name() == name);
    let subject = subject.with_context(|| format!("no subject '{name}'"))?;
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let world = World::prepare(None)?;
    let lab = Lab { subject, cluster: Cluster::make(&world, &subject.daemon()?, 1)? };
    demo::serve(&lab.cluster)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        match case(&lab) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f64());
            }
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED\n{error:#}\n{}", cluster::last_words(lab.node()));
            }
        }
    }
    println!("{CLOSING}{passed} {failed}");
    Ok(failed == 0)
}

/// PIDs of the processes of this world whose names begin with `name`; zombies do not count.
///
/// # Errors
/// When there is no list of processes.
pub fn processes(name: &str) -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context("no list of processes")?;
    let is_named = |pid: &u32| {
        // "PID (NAME) STATE …"; gone by now: none of ours.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.split_once(" (").is_some_and(|(_, rest)| rest.starts_with(name))
            && stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(is_named).collect())
}
