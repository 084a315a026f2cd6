//! What is wrong with a file, once for C's ears and once for a human's.
//!
//! Role: the result of every parser here carries these. C's exact texts serve the tools that must
//! print what C prints; the richer form serves `ctdbd --check-config`.

use std::fmt;

use super::log_level::LogLevel;

/// How bad a finding is for our own check of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Probably not what was meant; the daemon starts.
    Warning,
    /// The daemon refuses to start.
    Error,
}

/// One line of C's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CLine {
    /// Printed when the debug level is at least this.
    pub level: LogLevel,
    /// Without newline. Bytes: it quotes the file.
    pub text: Vec<u8>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line of the file, from 1; `None` when it is about the file as a whole.
    pub line: Option<u32>,
    pub severity: Severity,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What to do about it, one sentence without a full stop.
    pub remedy: String,
    /// What C says, in order; empty where C is silent.
    pub c_lines: Vec<CLine>,
}

impl Finding {
    pub(crate) fn new(
        line: impl Into<Option<u32>>,
        severity: Severity,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            line: line.into(),
            severity,
            what: what.into(),
            remedy: remedy.into(),
            c_lines: Vec::new(),
        }
    }

    pub(crate) fn c_says(mut self, level: LogLevel, text: impl Into<Vec<u8>>) -> Self {
        self.c_lines.push(CLine { level, text: text.into() });
        self
    }
}

/// `line 7: error: WHAT; REMEDY`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// C's lines of all findings that are visible at `level`, in order.
pub fn c_lines(findings: &[Finding], level: LogLevel) -> impl Iterator<Item = &[u8]> {
    findings
        .iter()
        .flat_map(|finding| &finding.c_lines)
        .filter(move |line| line.level <= level)
        .map(|line| line.text.as_slice())
}

/// Bytes of a file for a human's eyes: what is not UTF-8 is replaced, control characters escaped.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The candidate closest to `word`, if it is close enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Words are short; a long one cannot be a typing error of an option name, and the table below
    // is quadratic.
    const WORD_MAX: usize = 64;
    if word.len() > WORD_MAX {
        return None;
    }
    candidates
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, letters compared without case.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase().into_bytes(), b.to_lowercase().into_bytes());
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (row, x) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, y) in b.iter().enumerate() {
            let replaced = previous[column] + usize::from(x != y);
            current.push(replaced.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_the_word_that_was_meant() {
        let words = ["cluster lock", "leader timeout", "transport"];
        assert_eq!(nearest("Cluster Lock", words.into_iter()), Some("cluster lock"));
        assert_eq!(nearest("leadr timeot", words.into_iter()), Some("leader timeout"));
        assert_eq!(nearest("colour", words.into_iter()), None);
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(shown(b"a\x1b[1m\xff"), "a\\u{1b}[1m\u{fffd}");
    }

    #[test]
    fn display_names_the_line_first() {
        let finding = Finding::new(7, Severity::Error, "x is wrong", "write y");
        assert_eq!(finding.to_string(), "line 7: error: x is wrong; write y");
    }
}
