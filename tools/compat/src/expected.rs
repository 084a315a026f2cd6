//! Expected output: one committed file per family, made by the C tool on C daemons.
//!
//! Role: results to text and back into blocks by case. The text is compared as a whole, so that
//! what a person reads in the file is what is checked.
//! Invariants: pure; rendering is injective (a missing last newline shows), so equal text means
//! equal output.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Step};
use crate::run::RunOutput;

/// First line of every file.
const HEADER: &str = "# Output of the C tool on C daemons; made by RINGMASTER_COMPAT_REFRESH=1.\n";

/// One `run:` step and its normalised output, as text.
#[must_use]
pub fn render_run(step: &Step, output: &RunOutput) -> String {
    let mut text = format!("run@{}: {}\nexit: {}\n", step.node, step.line, output.status);
    render_lines(&mut text, '|', &output.stdout);
    render_lines(&mut text, '!', &output.stderr);
    text
}

fn render_lines(text: &mut String, mark: char, output: &str) {
    for line in output.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => drop(writeln!(text, "{mark}{line}")),
            None => drop(writeln!(text, "{mark}{line}\n{mark}\\ no newline at the end")),
        }
    }
}

/// Lines of each side that a difference shows.
const SHOWN_MAX: usize = 30;

/// Blocks by case name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    blocks: BTreeMap<String, String>,
}

impl Expected {
    /// Reads a file's text; what precedes the first case is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut blocks = BTreeMap::new();
        let mut current: Option<(&str, String)> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("case: ") {
                if let Some((name, block)) = current.replace((name, String::new())) {
                    blocks.insert(name.to_owned(), block);
                }
            } else if let Some((_, block)) = &mut current
                && !line.is_empty()
            {
                block.push_str(line);
                block.push('\n');
            }
        }
        if let Some((name, block)) = current {
            blocks.insert(name.to_owned(), block);
        }
        Self { blocks }
    }

    /// What the C tool printed in `case`, if it is known.
    #[must_use]
    pub fn block(&self, case: &str) -> Option<&str> {
        self.blocks.get(case).map(String::as_str)
    }

    /// Sets the block of a case.
    pub fn set(&mut self, case: &str, block: String) {
        self.blocks.insert(case.to_owned(), block);
    }

    /// The file's text for `cases`, in their order; blocks of other cases are dropped.
    #[must_use]
    pub fn render(&self, cases: &[Case]) -> String {
        let mut text = HEADER.to_owned();
        for case in cases {
            if let Some(block) = self.block(&case.name) {
                let _ = write!(text, "\ncase: {}\n{block}", case.name);
            }
        }
        text
    }
}

/// The lines in which two blocks differ, `-` expected and `+` found, with what is equal before and
/// after left out.
#[must_use]
pub fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same_start = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let (expected, found) = (&expected[same_start..], &found[same_start..]);
    let same_end =
        expected.iter().rev().zip(found.iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = format!("after {same_start} equal lines:\n");
    put_lines(&mut text, '-', &expected[..expected.len() - same_end]);
    put_lines(&mut text, '+', &found[..found.len() - same_end]);
    text
}

fn put_lines(text: &mut String, mark: char, lines: &[&str]) {
    for line in lines.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "    {mark} {line}");
    }
    if lines.len() > SHOWN_MAX {
        let _ = writeln!(text, "    {mark} … and {} more lines", lines.len() - SHOWN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::StepKind;

    fn run(stdout: &str) -> String {
        let step = Step { node: 1, kind: StepKind::Run, line: "ctdb pnn".into() };
        let output = RunOutput { stdout: stdout.into(), stderr: "oh\n\n".into(), status: 3 };
        render_run(&step, &output)
    }

    #[test]
    fn a_missing_newline_at_the_end_shows() {
        assert_eq!(run("1\n"), "run@1: ctdb pnn\nexit: 3\n|1\n!oh\n!\n");
        assert_ne!(run("1\n"), run("1"));
        assert_ne!(run(""), run("\n"));
    }

    #[test]
    fn blocks_survive_the_file() {
        let family = "case: b\nrun: x\ncase: a\nrun: y\n";
        let family = crate::case::Family::parse("f", family).unwrap();
        let mut expected = Expected::default();
        expected.set("a", run("1\n\n"));
        expected.set("b", run(""));
        let text = expected.render(&family.cases);
        assert_eq!(Expected::parse(&text), expected);
        assert!(text.find("case: b") < text.find("case: a"), "{text}");
    }

    #[test]
    fn a_difference_shows_only_what_differs() {
        let text = difference("a\nb\nc\n", "a\nx\ny\nc\n");
        assert_eq!(text, "after 1 equal lines:\n    - b\n    + x\n    + y\n");
        let long = difference("", &"x\n".repeat(SHOWN_MAX + 2));
        assert_eq!(long.lines().count(), SHOWN_MAX + 2);
        assert!(long.ends_with("    + … and 2 more lines\n"), "{long}");
    }
}
