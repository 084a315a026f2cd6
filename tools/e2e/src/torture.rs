//! smbtorture's tests, what became of each on either daemon, and the list that is committed.
//!
//! Role: pure: text to states and back. Who runs smbtorture: `src/bin/smbtorture_list.rs` (all of
//! them, several times) and the `samba` test (a pick).
//! Invariants
//! - The rule of the list: a test that passes on C's daemon passes on ours.
//! - A state is what all runs said: one run that differs makes a test flaky.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result, bail};

/// The committed list.
pub const LIST: &str = include_str!("../smbtorture/tests.list");

/// What stands above the rows.
const HEADING: &str = "\
# Tests of Debian's smbtorture 4.17 against Debian's smbd, on C's daemon and on ours, one node.
# Written by `RINGMASTER_TORTURE_REFRESH=1 cargo xtask soak smbtorture`; without the variable the
# soak step compares. The rule: what passes on C's daemon passes on ours.
# A test that fails on both asks for something that this smbd, or its configuration, does not have.
# on C  ours   test
";

/// Suites of which every test is in the list.
pub const SUITES: &[&str] = &[
    "smb2.lock",
    "smb2.oplock",
    "smb2.lease",
    "smb2.dir",
    "smb2.create",
    "smb2.create_no_streams",
    "smb2.rename",
    "smb2.read",
    "smb2.compound",
    "smb2.compound_find",
    "smb2.compound_async",
    "base",
];

/// Parts of [`SUITES`] that are left out, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("base.bench-", "a benchmark: never fails, may never end"),
    ("base.iometer", "a benchmark"),
    ("base.scan-", "lists what a server knows, judges nothing"),
    ("base.trans2-scan", "lists what a server knows, judges nothing"),
    ("base.aliases", "lists what a server knows, judges nothing"),
    ("base.casetable", "prints the server's table of letters"),
    ("base.utable", "prints the server's table of letters"),
    ("base.nttrans", "lists what a server knows, judges nothing"),
    ("base.smb", "lists what a server knows, judges nothing"),
    ("smb2.create.bench-", "a benchmark"),
];

/// Tests that take ten minutes and more; they are run once.
pub const LONG: &[&str] = &["base.deny1", "base.deny2"];

/// What became of a test in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It failed, ended early, or did not end.
    Fail,
    /// smbtorture itself decided not to run it.
    Skip,
}

/// What is known about a test on one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Passed in every run.
    Pass,
    /// Failed in every run.
    Fail,
    /// Skipped by smbtorture.
    Skip,
    /// Not the same in every run.
    Flaky,
}

impl State {
    const ALL: [Self; 4] = [Self::Pass, Self::Fail, Self::Skip, Self::Flaky];

    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Flaky => "flaky",
        }
    }

    /// What several runs say together; `None` without a run.
    #[must_use]
    pub fn of(runs: &[Verdict]) -> Option<Self> {
        let first = *runs.first()?;
        if runs.iter().any(|run| *run != first) {
            return Some(Self::Flaky);
        }
        Some(match first {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Skip => Self::Skip,
        })
    }
}

/// A test on both daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// On Debian's daemon.
    pub c: State,
    /// On ours.
    pub ours: State,
}

impl Row {
    /// Passes on C's daemon, and not on ours.
    #[must_use]
    pub fn breaks_the_rule(self) -> bool {
        self.c == State::Pass && self.ours != State::Pass
    }
}

/// All rows, by the test's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub BTreeMap<String, Row>);

impl List {
    /// Reads the file.
    ///
    /// # Errors
    /// For a line that is no row: with its number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rows = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let row = parse_row(line).with_context(|| format!("line {}: {line}", index + 1))?;
            if rows.insert(row.0.clone(), row.1).is_some() {
                bail!("line {}: {} is there twice", index + 1, row.0);
            }
        }
        Ok(Self(rows))
    }

    /// The file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = HEADING.to_owned();
        for (test, row) in &self.0 {
            let _ = writeln!(text, "{:<7} {:<7}{test}", row.c.name(), row.ours.name());
        }
        text
    }

    /// Names of the tests of `suites` that pass on both daemons, without those that begin with
    /// one of `slow`.
    #[must_use]
    pub fn pick(&self, suites: &[&str], slow: &[&str]) -> Vec<&str> {
        let passes = |row: &Row| row.c == State::Pass && row.ours == State::Pass;
        let within = |test: &str, suite: &str| {
            test.strip_prefix(suite).is_some_and(|rest| rest.starts_with('.'))
        };
        let rows = self.0.iter().filter(|(_, row)| passes(row));
        rows.map(|(test, _)| test.as_str())
            .filter(|test| suites.iter().any(|suite| within(test, suite)))
            .filter(|test| !slow.contains(test))
            .collect()
    }

    /// How many tests are in each pair of states, for people.
    #[must_use]
    pub fn counts(&self) -> String {
        let mut text = String::new();
        for c in State::ALL {
            for ours in State::ALL {
                let count = self.0.values().filter(|row| **row == Row { c, ours }).count();
                if count > 0 {
                    let _ = writeln!(text, "{} on C, {} on ours: {count}", c.name(), ours.name());
                }
            }
        }
        text
    }
}

/// "STATE STATE TEST": the name is last, because some have blanks.
fn parse_row(line: &str) -> Result<(String, Row)> {
    let (c, rest) = state_and_rest(line)?;
    let (ours, test) = state_and_rest(rest)?;
    if test.is_empty() {
        bail!("no test is named");
    }
    Ok((test.to_owned(), Row { c, ours }))
}

fn state_and_rest(text: &str) -> Result<(State, &str)> {
    let (word, rest) = text.split_once(' ').context("two states and a test are needed")?;
    let state = State::ALL.into_iter().find(|state| state.name() == word);
    let state = state.with_context(|| format!("no state '{word}'"))?;
    Ok((state, rest.trim_start()))
}

/// A test as `smbtorture --list` names it, `SUITE.CASE.TEST`, by the name that runs it alone: where
/// case and test have one name it stands once.
#[must_use]
pub fn short_name(listed: &str) -> &str {
    match listed.rsplit_once('.') {
        Some((rest, test)) if rest.ends_with(&format!(".{test}")) => rest,
        _ => listed,
    }
}

/// The tests out of what `smbtorture --list` prints that belong into the list.
#[must_use]
pub fn wanted(listed: &str) -> Vec<&str> {
    let within = |test: &str| {
        SUITES
            .iter()
            .any(|suite| test.strip_prefix(suite).is_some_and(|rest| rest.starts_with('.')))
    };
    let left_out = |test: &str| LEFT_OUT.iter().any(|(part, _)| test.starts_with(part));
    let names = listed.lines().map(str::trim).map(short_name);
    names.filter(|test| within(test) && !left_out(test)).collect()
}

/// The verdicts in what smbtorture printed, in order, with the names that it prints.
#[must_use]
pub fn verdicts(printed: &str) -> Vec<(String, Verdict)> {
    let words = [
        ("success: ", Verdict::Pass),
        ("failure: ", Verdict::Fail),
        ("error: ", Verdict::Fail),
        ("skip: ", Verdict::Skip),
    ];
    let read = |line: &str| {
        let (name, verdict) =
            words.iter().find_map(|(word, verdict)| Some((line.strip_prefix(word)?, *verdict)))?;
        // "failure: NAME [" begins the lines with the reason.
        Some((name.trim_end_matches(" [").to_owned(), verdict))
    };
    printed.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> List {
        List::parse(text).expect("a good list")
    }

    #[test]
    fn nothing_in_the_committed_list_passes_on_c_and_not_on_ours() {
        let list = list(LIST);
        let bad: Vec<_> = list.0.iter().filter(|(_, row)| row.breaks_the_rule()).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(list.0.len() > 200, "the list is there: {}", list.0.len());
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        assert_eq!(list(LIST).render(), LIST);
        let text = format!("{HEADING}flaky   fail   base.delaywrite.update of write time\n");
        assert_eq!(list(&text).render(), text);
    }

    #[test]
    fn lines_that_are_no_rows_are_refused_with_their_number() {
        for line in ["pass", "pass pass", "pass maybe smb2.x", "pass pass ", "smb2.x pass pass"] {
            let error = List::parse(&format!("# \n{line}\n")).expect_err(line);
            assert!(format!("{error:#}").starts_with("line 2: "), "{error:#}");
        }
        let twice = List::parse("pass pass a.b\npass fail a.b\n").expect_err("twice");
        assert!(twice.to_string().contains("twice"), "{twice}");
    }

    #[test]
    fn the_rule_is_broken_by_what_passes_only_on_c() {
        let row = |c, ours| Row { c, ours }.breaks_the_rule();
        assert!(row(State::Pass, State::Fail));
        assert!(row(State::Pass, State::Flaky));
        assert!(row(State::Pass, State::Skip));
        assert!(!row(State::Pass, State::Pass));
        assert!(!row(State::Flaky, State::Fail));
        assert!(!row(State::Fail, State::Pass));
    }

    #[test]
    fn one_run_that_differs_makes_a_test_flaky() {
        use Verdict::{Fail, Pass, Skip};
        assert_eq!(State::of(&[]), None);
        assert_eq!(State::of(&[Pass, Pass]), Some(State::Pass));
        assert_eq!(State::of(&[Fail]), Some(State::Fail));
        assert_eq!(State::of(&[Skip, Skip]), Some(State::Skip));
        assert_eq!(State::of(&[Pass, Pass, Fail]), Some(State::Flaky));
    }

    #[test]
    fn the_pick_has_what_passes_on_both_and_is_not_slow() {
        let list = list(
            "pass pass smb2.lock.one\npass pass smb2.lock.slow\nfail fail smb2.lock.two\n\
             flaky pass smb2.lock.three\npass pass smb2.locker.four\npass pass base.five\n",
        );
        assert_eq!(list.pick(&["smb2.lock"], &["smb2.lock.slow"]), ["smb2.lock.one"]);
    }

    #[test]
    fn listed_tests_get_the_name_that_runs_them_alone() {
        let listed = "Version 4.17\nsmb2.lock.async.async\nsmb2.lockx.a.a\n\
                      base.delaywrite.finfo update.finfo update\nbase.unlink.unlink\n\
                      base.bench-torture.bench-torture\nbase.fdpass\nrpc.x.y\n";
        assert_eq!(
            wanted(listed),
            ["smb2.lock.async", "base.delaywrite.finfo update", "base.unlink", "base.fdpass"]
        );
    }

    #[test]
    fn verdicts_are_read_with_and_without_a_reason() {
        let printed = "time: 2026\ntest: a\nsuccess: a\nfailure: b c [\nsuccess is not here\n]\n\
                       error: d [\n]\nskip: e [\nno\n]\n";
        let expected = [
            ("a", Verdict::Pass),
            ("b c", Verdict::Fail),
            ("d", Verdict::Fail),
            ("e", Verdict::Skip),
        ];
        let expected = expected.map(|(name, verdict)| (name.to_owned(), verdict));
        assert_eq!(verdicts(printed), expected);
    }
}
