//! Loading `ctdb.conf`: text and a look at the surroundings in, values and findings out.
//!
//! Role: C's rules about what is an error, what is ignored and what is said about it. Reading the
//! file, and asking the file system, is the caller's ([`Surroundings`]).
//! Invariants
//! - Values change only when the whole file is acceptable: after an error, or where C stops
//!   reading, every option keeps its default, as in C.
//! - Findings come in the order in which C prints.
//!
//! Origin: `ctdb/conf/conf.c`, `ctdb/conf/ctdb_config.c`; output compared with `ctdb-config` 4.17;
//! `docs/spec/admin-interface.md` 2.4, 3.2.

use std::path::{Path, PathBuf};

use super::conf_file::{self, Entry, Stop, StopReason};
use super::finding::{Finding, Severity, nearest, shown};
use super::log_level::LogLevel;
use super::options::{self, OPTIONS, OptionSpec, SECTIONS, Value};
use super::validation::{self, Verdict};

/// How unknown sections and options are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Daemon, `dump`, `get`: ignored, visible at debug level.
    Lenient,
    /// `validate` and our own check: an error.
    Strict,
}

/// What a script option points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptState {
    Missing,
    NotAFile,
    NotExecutable,
    Executable,
}

/// The file system as far as validation asks about it.
pub trait Surroundings {
    /// Follows symbolic links.
    fn is_directory(&self, path: &Path) -> bool;
    /// Follows symbolic links.
    fn script_state(&self, path: &Path) -> ScriptState;
    /// Directory in which scripts are looked up.
    fn etc_dir(&self) -> PathBuf;
}

/// Values of all options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    values: Vec<Value>,
    defaults: Vec<Value>,
}

impl Table {
    /// Nothing configured. `default_log_level`: NOTICE in the daemon, ERROR in the tools.
    #[must_use]
    pub fn defaults(default_log_level: LogLevel) -> Self {
        let defaults: Vec<Value> =
            OPTIONS.iter().map(|option| option.default_value(default_log_level)).collect();
        Self { values: defaults.clone(), defaults }
    }

    /// The value of an option; `None` when there is no such option.
    #[must_use]
    pub fn get(&self, section: &str, name: &str) -> Option<&Value> {
        options::find(section.as_bytes(), name.as_bytes()).map(|index| &self.values[index])
    }

    /// Options with their values and whether that is the default, in the order of `dump`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static OptionSpec, &Value, bool)> {
        OPTIONS
            .iter()
            .zip(self.values.iter().zip(&self.defaults))
            .map(|(option, (value, default))| (option, value, value == default))
    }

    /// What `ctdb-config dump` prints.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for section in SECTIONS {
            out.extend_from_slice(format!("[{section}]\n").as_bytes());
            for (option, value, is_default) in self.iter() {
                if option.section != section || (is_default && !option.in_4_17) {
                    continue;
                }
                out.extend_from_slice(if is_default { b"\t# " } else { b"\t" });
                out.extend_from_slice(option.name.as_bytes());
                out.extend_from_slice(b" = ");
                out.extend_from_slice(&value.to_bytes());
                out.push(b'\n');
            }
        }
        out
    }
}

/// Result of [`load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub table: Table,
    pub findings: Vec<Finding>,
    /// The file is refused (C: `EINVAL`); `table` holds defaults.
    pub refused: bool,
    /// Why our daemon does not start with it: the first bad value, or the line at which C stops
    /// reading and takes the whole file as empty; it would serve other directories than those meant.
    pub obstacle: Option<Finding>,
}

/// Reads `text` as `ctdb.conf`.
pub fn load(
    text: &[u8],
    strictness: Strictness,
    default_log_level: LogLevel,
    around: &dyn Surroundings,
) -> Loaded {
    let mut loader = Loader {
        strictness,
        around,
        table: Table::defaults(default_log_level),
        set_on: vec![None; OPTIONS.len()],
        findings: Vec::new(),
        refused: false,
        obstacle: None,
        section: Section::None,
    };
    let parsed = conf_file::parse(text);
    for entry in &parsed.entries {
        match entry {
            Entry::Section { line, name } => loader.enter(*line, name),
            Entry::Setting { line, name, value } => loader.set(*line, name, value),
            Entry::Bare { line, text } => loader.findings.push(Finding::new(
                *line,
                Severity::Warning,
                format!("\"{}\" has no \"=\" and is ignored", shown(text)),
                "write \"option = value\", or put # before it to make it a comment",
            )),
        }
    }
    if let Some(stop) = parsed.stopped {
        let finding = stop_finding(stop);
        loader.obstacle.get_or_insert_with(|| finding.clone());
        loader.findings.push(finding);
    }
    if loader.refused || parsed.stopped.is_some() {
        loader.table = Table::defaults(default_log_level);
    }
    let Loader { table, findings, refused, obstacle, .. } = loader;
    Loaded { table, findings, refused, obstacle }
}

/// C says nothing, takes the file as empty and goes on; an administrator must hear of it.
fn stop_finding(stop: Stop) -> Finding {
    let (what, remedy) = match stop.reason {
        StopReason::UnclosedSection => (
            "the section header has no closing bracket: CTDB stops reading here and ignores the \
             whole file",
            "close the bracket on the same line",
        ),
        StopReason::NoName => (
            "the line begins with \"=\": CTDB stops reading here and ignores the whole file",
            "write the option's name before the \"=\"",
        ),
    };
    Finding::new(stop.line, Severity::Error, what, remedy)
}

enum Section {
    None,
    Known(&'static str),
    Unknown(String),
}

struct Loader<'a> {
    strictness: Strictness,
    around: &'a dyn Surroundings,
    table: Table,
    set_on: Vec<Option<u32>>,
    findings: Vec<Finding>,
    refused: bool,
    obstacle: Option<Finding>,
    section: Section,
}

impl Loader<'_> {
    /// An unknown name: an error when strict, otherwise a debug message.
    fn unknown(&mut self, finding: Finding, strict_text: Vec<u8>, lenient_text: Vec<u8>) {
        self.findings.push(match self.strictness {
            Strictness::Strict => {
                self.refused = true;
                finding.c_says(LogLevel::Error, strict_text)
            }
            Strictness::Lenient => finding.c_says(LogLevel::Debug, lenient_text),
        });
    }

    fn enter(&mut self, line: u32, name: &[u8]) {
        if let Some(section) = options::find_section(name) {
            self.section = Section::Known(section);
            return;
        }
        let name_shown = shown(name);
        let remedy = match nearest(name_shown.trim(), SECTIONS.into_iter()) {
            Some(section) => format!("write [{section}]"),
            None => format!("the sections are {}", SECTIONS.join(", ")),
        };
        self.section = Section::Unknown(name_shown.clone());
        self.unknown(
            Finding::new(
                line,
                Severity::Error,
                format!("there is no section [{name_shown}]"),
                remedy,
            ),
            quoted(&[b"conf: unknown section [", name, b"]"]),
            quoted(&[b"conf: ignoring unknown section [", name, b"]"]),
        );
    }

    fn set(&mut self, line: u32, name: &[u8], value: &[u8]) {
        let section = match &self.section {
            Section::Known(section) => *section,
            Section::Unknown(section) => {
                let what = format!("{} is in the unknown section [{section}]", shown(name));
                return self.homeless(line, name, what);
            }
            Section::None => {
                let what = format!("{} stands before the first section", shown(name));
                return self.homeless(line, name, what);
            }
        };
        let Some(index) = options::find(section.as_bytes(), name) else {
            let text =
                quoted(&[b"conf: unknown option [", section.as_bytes(), b"] -> \"", name, b"\""]);
            let finding = Finding::new(
                line,
                Severity::Error,
                format!("[{section}] has no option \"{}\"", shown(name)),
                unknown_option_remedy(section, name),
            );
            return self.unknown(finding, text.clone(), text);
        };
        let option = &OPTIONS[index];
        if let Some(earlier) = self.set_on[index].replace(line) {
            self.findings.push(Finding::new(
                line,
                Severity::Warning,
                format!("\"{}\" is set again; line {earlier} has no effect", option.name),
                "remove one of the two lines",
            ));
        }
        match self.value(option, line, value) {
            Ok(parsed) => self.table.values[index] = parsed,
            Err(finding) => {
                self.refused = true;
                self.obstacle.get_or_insert_with(|| finding.clone());
                self.findings.push(finding);
            }
        }
    }

    fn homeless(&mut self, line: u32, name: &[u8], what: String) {
        let text = quoted(&[b"conf: unknown section for option \"", name, b"\""]);
        let remedy = match OPTIONS.iter().find(|option| option.name.as_bytes() == name) {
            Some(option) => format!("put it below [{}]", option.section),
            None => "put it below the section it belongs to".to_owned(),
        };
        self.unknown(Finding::new(line, Severity::Error, what, remedy), text.clone(), text);
    }

    fn value(
        &mut self,
        option: &'static OptionSpec,
        line: u32,
        value: &[u8],
    ) -> Result<Value, Finding> {
        let place = format!("[{}] -> \"{}\"", option.section, option.name);
        if value.is_empty() {
            return Err(Finding::new(
                line,
                Severity::Error,
                format!("\"{}\" has no value", option.name),
                "write a value, or remove the line to use the default",
            )
            .c_says(LogLevel::Error, format!("conf: empty value {place}")));
        }
        let Some(parsed) = Value::parse(option.kind, value) else {
            let start = format!("conf: invalid value {place} = \"");
            let remedy = match option.kind {
                options::Kind::Switch => "write true or false",
                options::Kind::Number | options::Kind::Text => {
                    "write a number from 0 to 2147483647"
                }
            };
            return Err(Finding::new(
                line,
                Severity::Error,
                format!("\"{}\" is no value for \"{}\"", shown(value), option.name),
                remedy,
            )
            .c_says(LogLevel::Error, quoted(&[start.as_bytes(), value, b"\""])));
        };
        match validation::check(option, value, &parsed, self.around) {
            Verdict::Good => {}
            Verdict::Deprecated => self.findings.push(deprecated(option, line)),
            Verdict::Bad(complaint) => return Err(complaint.finding(option, line)),
        }
        self.suspicions(option, line, value);
        Ok(parsed)
    }

    /// What C takes without a word and an administrator hardly meant.
    fn suspicions(&mut self, option: &'static OptionSpec, line: u32, value: &[u8]) {
        let mut note = |what: String, remedy: &str| {
            self.findings.push(Finding::new(line, Severity::Warning, what, remedy));
        };
        if value.windows(2).any(|pair| matches!(pair, b" #" | b" ;")) {
            note(
                format!("the comment is part of the value of \"{}\"", option.name),
                "put comments on a line of their own",
            );
        }
        if let [b'"', .., b'"'] | [b'\'', .., b'\''] = value {
            note(
                format!("the quotes are part of the value of \"{}\"", option.name),
                "remove the quotes",
            );
        }
        if option.kind == options::Kind::Number && !value.iter().all(u8::is_ascii_digit) {
            let read = Value::parse(option.kind, value).map(|v| v.to_bytes()).unwrap_or_default();
            note(
                format!("\"{}\" is read as {}", shown(value), shown(&read)),
                "write a plain decimal number; times are in seconds",
            );
        } else if option.kind == options::Kind::Number && value.len() > 1 && value[0] == b'0' {
            note("a number that begins with 0 is octal".to_owned(), "remove the leading 0");
        }
    }
}

fn deprecated(option: &OptionSpec, line: u32) -> Finding {
    Finding::new(
        line,
        Severity::Note,
        format!("\"{}\" is the old name of \"cluster lock\"", option.name),
        "rename it once no node runs CTDB older than 4.16",
    )
    .c_says(
        LogLevel::Warning,
        format!("Configuration option [{}] -> {} is deprecated", option.section, option.name),
    )
}

fn unknown_option_remedy(section: &str, name: &[u8]) -> String {
    let text = shown(name);
    if section == "legacy" && text == "recmaster capability" {
        return "it is called \"leader capability\" in [cluster] now".to_owned();
    }
    let elsewhere = OPTIONS.iter().find(|option| option.name.as_bytes() == name);
    let in_section =
        || OPTIONS.iter().filter(|option| option.section == section).map(|option| option.name);
    match (elsewhere, nearest(&text, in_section())) {
        (Some(option), _) => format!("it belongs to [{}]", option.section),
        (None, Some(near)) => format!("write \"{near}\" (the case of letters counts)"),
        (None, None) => {
            format!("its options are: {}", in_section().collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[cfg(test)]
pub(crate) mod tests;
