//! Runs the same end-to-end cases on Debian's daemon and on ours, each on hosts of its own.
//!
//! Role: one world per subject (see `ringmaster_xtask::demo`), all at the same time, the cases in
//! order inside; libtest's lines, so that everybody can count. What is checked is in `tests/`.
//! - `subject`: whose daemon; `share`: what Samba has beside the demo's configuration
//! - `torture`: smbtorture's list of tests; `usage`: what a daemon holds; `count`: our own clients
//!
//! Invariants
//! - A case that fails does not stop the later ones; the verdict is the conjunction of all.
//! - Nothing is left behind: a world goes with its first process.
#![forbid(unsafe_code)]

pub mod count;
pub mod random;
pub mod share;
pub mod subject;
pub mod torture;
pub mod usage;

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use ringmaster_xtask::demo::{
    self,
    cluster::{self, Cluster},
    host::Host,
    world::{self, World},
};

pub use subject::Subject;

/// Set to `1` where a skipped test counts as a failed one (CI).
const REQUIRE_ALL: &str = "RINGMASTER_REQUIRE_ALL";
/// Set for the long forms.
const SOAK: &str = "RINGMASTER_SOAK";
/// First argument of the copy inside; the next one is the subject.
const INSIDE: &str = "--inside";
/// Limits the subjects: `--on=ours,c`.
const ON: &str = "--on=";
/// What the closing line of the inside begins with.
const CLOSING: &str = "closing: ";

/// Something that must succeed.
pub struct Case {
    /// The sentence that must stay true.
    pub name: &'static str,
    /// Where it runs.
    pub on: &'static [Subject],
    /// Runs it.
    pub run: fn(&Lab) -> Result<()>,
}

/// Where a case works: served nodes, mostly one, and a client.
pub struct Lab {
    /// Whose daemon runs.
    pub subject: Subject,
    /// The hosts.
    pub cluster: Cluster,
}

impl Lab {
    /// Brings hosts, daemon and Samba up; only inside of a world.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn start(subject: Subject) -> Result<Self> {
        let world = World::prepare(None)?;
        let lab = Self { subject, cluster: Cluster::make(&world, &[subject.daemon()?], "")? };
        subject.configure(lab.node())?;
        share::configure(&lab)?;
        demo::serve(&lab.cluster)?;
        subject.verify(lab.node())?;
        Ok(lab)
    }

    /// The node with the server, or the first of them.
    ///
    /// # Panics
    /// Never: a lab is made with a node.
    #[must_use]
    pub fn node(&self) -> &Host {
        self.cluster.nodes.first().expect("a lab is made with a node")
    }
}

/// `short` in CI, `long` in a soak.
pub fn size<T>(short: T, long: T) -> T {
    if std::env::var_os(SOAK).is_some() { long } else { short }
}

/// The test program. Arguments that are no options select cases by a part of their name.
#[must_use]
pub fn main(cases: &[Case]) -> ExitCode {
    main_on(cases, Lab::start)
}

/// The same on hosts that `start` brings up.
#[must_use]
pub fn main_on(cases: &[Case], start: fn(Subject) -> Result<Lab>) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match (args.split_first(), inside_of(&args)) {
        (_, Err(error)) => Err(error),
        (_, Ok(Some((subject, rest)))) => inside(cases, start, subject, rest),
        (Some((first, rest)), _) if first == count::ARGUMENT => count::run(rest).map(|()| true),
        _ => outside(cases, &args),
    };
    exit_code(done)
}

/// Says what went wrong.
#[must_use]
pub fn exit_code(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What command line and table of cases come to.
struct Choice<'a> {
    words: Vec<&'a str>,
    subjects: Option<Vec<&'a str>>,
}

impl<'a> Choice<'a> {
    fn new(args: &'a [String]) -> Self {
        let words = args.iter().filter(|arg| !arg.starts_with('-')).map(String::as_str).collect();
        let on = args.iter().find_map(|arg| arg.strip_prefix(ON));
        Self { words, subjects: on.map(|list| list.split(',').collect()) }
    }

    fn cases(&self, all: &'a [Case], subject: Subject) -> Vec<&'a Case> {
        if self.subjects.as_ref().is_some_and(|names| !names.contains(&subject.name())) {
            return Vec::new();
        }
        let named = |case: &Case| {
            self.words.is_empty() || self.words.iter().any(|word| case.name.contains(word))
        };
        all.iter().filter(|case| case.on.contains(&subject) && named(case)).collect()
    }
}

fn outside(cases: &[Case], args: &[String]) -> Result<bool> {
    if let Some(reason) = missing() {
        if std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1") {
            bail!("{REQUIRE_ALL} is set, but: {reason}");
        }
        println!("skipped: {reason}");
        return Ok(true);
    }
    let choice = Choice::new(args);
    let subjects: Vec<Subject> = Subject::ALL
        .iter()
        .copied()
        .filter(|subject| !choice.cases(cases, *subject).is_empty())
        .collect();
    if subjects.is_empty() {
        bail!("no case is called like {:?}", choice.words);
    }
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for (subject, verdict) in in_worlds(&subjects, args, |_, _| false) {
        match verdict {
            Ok((some, others)) => {
                passed += some;
                failed += others;
            }
            Err(error) => {
                println!("subject {}: {error:#}", subject.name());
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
    Ok(failed == 0)
}

/// Why no world with Samba can be made here.
#[must_use]
pub fn missing() -> Option<String> {
    let programs = [
        "/usr/sbin/ctdbd",
        "/usr/sbin/smbd",
        "/usr/sbin/winbindd",
        "/usr/bin/smbclient",
        "/usr/bin/smbtorture",
        share::VFS_MODULE,
    ];
    if let Some(program) = programs.into_iter().find(|program| !Path::new(program).exists()) {
        return Some(format!(
            "{program} is missing (Debian: apt-get install ctdb samba samba-testsuite \
             samba-vfs-modules smbclient winbind)"
        ));
    }
    if let Ok(daemon) = Subject::Ours.daemon()
        && let Some(binary) = daemon.missing()
    {
        return Some(format!("{} is not built: cargo build --bins", binary.display()));
    }
    world::missing()
}

/// Runs this program again, once per subject and all at the same time, as `--inside SUBJECT ARGS…`;
/// gives what each said it closed with (see [`closing`]). Lines that `taken` does not want are
/// passed on.
pub fn in_worlds(
    subjects: &[Subject],
    args: &[String],
    taken: impl Fn(Subject, &str) -> bool + Sync,
) -> Vec<(Subject, Result<(usize, usize)>)> {
    thread::scope(|scope| {
        let taken = &taken;
        let run = |subject| scope.spawn(move || one_world(subject, args, taken));
        let running: Vec<_> = subjects.iter().map(|subject| (*subject, run(*subject))).collect();
        let joined = running.into_iter().map(|(subject, thread)| match thread.join() {
            Ok(verdict) => (subject, verdict),
            Err(_) => (subject, Err(anyhow::anyhow!("its thread panicked"))),
        });
        joined.collect()
    })
}

/// One of [`in_worlds`].
fn one_world(
    subject: Subject,
    args: &[String],
    taken: &(impl Fn(Subject, &str) -> bool + Sync),
) -> Result<(usize, usize)> {
    let own = [INSIDE.to_owned(), subject.name().to_owned()];
    let mut command = world::again(own.iter().chain(args).map(OsString::from))?;
    let (output, input) = std::io::pipe().context("no pipe")?;
    command.stderr(input.try_clone()?).stdout(input);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut closing = None;
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match line.strip_prefix(CLOSING) {
                    Some(counts) => closing = Some(counts.to_owned()),
                    None if taken(subject, &line) => {}
                    None => println!("{:<11}{line}", subject.name()),
                }
            }
            closing
        });
        let status = world::run(command)?;
        let Ok(Some(closing)) = reader.join() else {
            bail!("it ended early: {status}");
        };
        let (passed, failed) =
            closing.split_once(' ').context("the closing line has two numbers")?;
        Ok((passed.parse()?, failed.parse()?))
    })
}

/// The last line of an inside.
pub fn closing(passed: usize, failed: usize) {
    println!("{CLOSING}{passed} {failed}");
}

/// Subject and further arguments of the copy inside; `None` in the copy outside.
///
/// # Errors
/// When there is no such subject.
pub fn inside_of(args: &[String]) -> Result<Option<(Subject, &[String])>> {
    match args {
        [first, name, rest @ ..] if first == INSIDE => {
            let subject = Subject::named(name).with_context(|| format!("no subject '{name}'"))?;
            Ok(Some((subject, rest)))
        }
        _ => Ok(None),
    }
}

/// The copy inside: brings the host up and runs the cases.
fn inside(
    cases: &[Case],
    start: fn(Subject) -> Result<Lab>,
    subject: Subject,
    rest: &[String],
) -> Result<bool> {
    let lab = start(subject)?;
    let (mut passed, mut failed) = (0, 0);
    for case in Choice::new(rest).cases(cases, subject) {
        let start = Instant::now();
        match (case.run)(&lab) {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({:.1} s)", case.name, start.elapsed().as_secs_f64());
            }
            Err(error) => {
                failed += 1;
                let words = cluster::last_words(lab.node());
                println!("test {} ... FAILED\n{error:#}\n{words}", case.name);
            }
        }
    }
    closing(passed, failed);
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
