//! Runs every wanted test of smbtorture on all subjects and compares with the committed list, or
//! writes it (`RINGMASTER_TORTURE_REFRESH=1`). `cargo xtask soak smbtorture` runs it.
//!
//! Arguments, if any, are parts of names: only such tests are run, and only their rows compared.
//! The column "ours" is our daemon in every form: it passes when it passes on all of them.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use ringmaster_e2e::{
    Lab, Subject, closing, exit_code, in_worlds, inside_of, missing,
    share::{LANES, smbtorture},
    torture::{LIST, LONG, List, Row, State, Verdict, verdicts, wanted},
};
use ringmaster_xtask::demo::wait;

/// Set to write the list instead of comparing.
const REFRESH: &str = "RINGMASTER_TORTURE_REFRESH";
/// How often every test is run, and how often once more where the runs break the rule.
const ROUNDS: usize = 3;
const MORE_ROUNDS: usize = 7;
/// The longest that one test may take, in seconds; then it has failed.
const TEST_S: u32 = 900;
const LONG_TEST_S: u32 = 3000;
/// After how many runs a word is said.
const SAY_EACH: usize = 100;
/// What a line with a verdict begins with.
const VERDICT: &str = "verdict: ";

/// All runs of a test on a subject.
type Runs = BTreeMap<(String, &'static str), Vec<Verdict>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    exit_code(match inside_of(&args) {
        Err(error) => Err(error),
        Ok(Some((subject, tests))) => inside(subject, tests),
        Ok(None) => outside(&args),
    })
}

/// Runs the tests that are named, in several lanes, and prints their verdicts.
fn inside(subject: Subject, tests: &[String]) -> Result<bool> {
    let lab = Lab::start(subject)?;
    let waiting = Mutex::new(tests.iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        let lane = |number| {
            let (lab, next) = (&lab, &next);
            scope.spawn(move || -> Result<()> {
                while let Some(test) = next() {
                    println!("{VERDICT}{:?} {test}", run(lab, number, test)?);
                }
                Ok(())
            })
        };
        let lanes: Vec<_> = (0..LANES).map(lane).collect();
        for lane in lanes {
            match lane.join() {
                Ok(done) => done?,
                Err(_) => bail!("a lane panicked"),
            }
        }
        Ok(())
    })?;
    closing(tests.len(), 0);
    Ok(true)
}

fn run(lab: &Lab, lane: usize, test: &str) -> Result<Verdict> {
    let limit_s = if LONG.contains(&test) { LONG_TEST_S } else { TEST_S };
    let output = smbtorture(lab, limit_s, lane, &[test]).output().context("smbtorture")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    // Without a word about it: it ended early, or was ended.
    Ok(verdicts(&printed).last().map_or(Verdict::Fail, |(_, verdict)| *verdict))
}

fn outside(words: &[String]) -> Result<bool> {
    if let Some(reason) = missing() {
        bail!("smbtorture's tests cannot run here: {reason}");
    }
    let listed = wait::success("smbtorture --list", wait::limited(60, "smbtorture").arg("--list"))?;
    let all = wanted(&listed);
    let chosen =
        |test: &&str| words.is_empty() || words.iter().any(|word| test.contains(word.as_str()));
    let tests: Vec<&str> = all.iter().copied().filter(chosen).collect();
    println!("{} tests, {ROUNDS} times on {} subjects", tests.len(), Subject::ALL.len());
    let mut runs = Runs::new();
    run_all(&tests, ROUNDS, &mut runs)?;
    let doubtful: Vec<&str> = tests.iter().copied().filter(|test| in_doubt(&runs, test)).collect();
    if !doubtful.is_empty() {
        println!("{MORE_ROUNDS} times more: {doubtful:?}");
        run_all(&doubtful, MORE_ROUNDS, &mut runs)?;
    }
    let found = tests.iter().map(|test| Ok(((*test).to_owned(), row(&runs, test)?)));
    judge(&List(found.collect::<Result<_>>()?), &all, &runs)
}

/// Runs `tests` so often on all subjects and adds what became of them.
fn run_all(tests: &[&str], rounds: usize, runs: &mut Runs) -> Result<()> {
    let long = |test: &&&str| LONG.contains(*test);
    let others = (0..rounds).flat_map(|_| tests.iter().filter(|test| !long(test)));
    let work: Vec<String> =
        tests.iter().filter(long).chain(others).map(|test| (*test).to_owned()).collect();
    let heard = Mutex::new(Vec::<((String, &str), Verdict)>::new());
    let taken = |subject: Subject, line: &str| {
        let Some((verdict, test)) =
            line.strip_prefix(VERDICT).and_then(|rest| rest.split_once(' '))
        else {
            return false;
        };
        let verdict = match verdict {
            "Pass" => Verdict::Pass,
            "Skip" => Verdict::Skip,
            _ => Verdict::Fail,
        };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(((test.to_owned(), subject.name()), verdict));
        if heard.len().is_multiple_of(SAY_EACH) {
            println!("    … {} of {}", heard.len(), work.len() * Subject::ALL.len());
        }
        true
    };
    for (subject, done) in in_worlds(Subject::ALL, &work, taken) {
        done.with_context(|| format!("subject {}", subject.name()))?;
    }
    for (which, verdict) in heard.into_inner().unwrap_or_else(PoisonError::into_inner) {
        runs.entry(which).or_default().push(verdict);
    }
    Ok(())
}

/// The runs of a test on some subjects together.
fn state(runs: &Runs, test: &str, subjects: &[Subject]) -> Result<State> {
    let of = |subject: &Subject| runs.get(&(test.to_owned(), subject.name())).cloned();
    let all: Vec<Verdict> = subjects.iter().filter_map(of).flatten().collect();
    State::of(&all).with_context(|| format!("{test} was never run"))
}

fn row(runs: &Runs, test: &str) -> Result<Row> {
    Ok(Row { c: state(runs, test, &[Subject::C])?, ours: state(runs, test, Subject::OURS)? })
}

fn in_doubt(runs: &Runs, test: &str) -> bool {
    row(runs, test).is_ok_and(Row::breaks_the_rule)
}

/// Compares or writes, and says what was found.
fn judge(found: &List, all: &[&str], runs: &Runs) -> Result<bool> {
    for (test, row) in found.0.iter().filter(|(_, row)| row.breaks_the_rule()) {
        println!("BREAKS THE RULE: {test}: {row:?}");
        for subject in Subject::ALL {
            println!("  {:<11}{:?}", subject.name(), runs.get(&(test.clone(), subject.name())));
        }
    }
    let kept = !found.0.values().any(|row| row.breaks_the_rule());
    let committed = List::parse(LIST)?;
    let mut merged = committed.clone();
    merged.0.retain(|test, _| all.contains(&test.as_str()));
    merged.0.extend(found.0.iter().map(|(test, row)| (test.clone(), *row)));
    let mut same = true;
    for (test, row) in &merged.0 {
        let before = committed.0.get(test);
        if before != Some(row) {
            println!("{test}: {before:?} in the list, now {row:?}");
            // What is flaky may look steady for a while, and the other way round.
            same &= before.is_some_and(|before| comparable(*before, *row));
        }
    }
    same &= committed.0.keys().all(|test| merged.0.contains_key(test));
    print!("{}", found.counts());
    if std::env::var_os(REFRESH).is_some() {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("smbtorture/tests.list");
        std::fs::write(&file, merged.render()).with_context(|| format!("{}", file.display()))?;
        println!("written: {}", file.display());
        return Ok(kept);
    }
    if !same {
        println!("the list is not true; {REFRESH}=1 writes it");
    }
    Ok(kept && same)
}

/// Two rows that differ in nothing but luck.
fn comparable(one: Row, other: Row) -> bool {
    let alike = |a: State, b: State| a == b || a == State::Flaky || b == State::Flaky;
    alike(one.c, other.c) && alike(one.ours, other.ours)
}
