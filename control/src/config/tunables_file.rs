//! Files with `TUNABLE = VALUE` lines, read once when the daemon starts.
//!
//! Role: text to assignments. Nothing in such a file stops the daemon: what is wrong is reported
//! and skipped.
//! Origin: `ctdb/server/ctdb_tunables.c`; messages and number rules tried with `ctdbd` 4.17;
//! `docs/spec/admin-interface.md` 3.5.

use ringmaster_protocol::tunable::{TUNABLES, Tunable};

use super::conf_file::{self, Entry};
use super::finding::{Finding, Severity, nearest, shown};
use super::log_level::LogLevel;

/// What the file sets, in its order (a later line wins), and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunablesFile {
    pub assignments: Vec<(Tunable, u32)>,
    pub findings: Vec<Finding>,
}

/// Reads one file. C's lines come without the prefix that C puts before them: the function's name
/// in 4.17, the file's path later.
#[must_use]
pub fn parse(text: &[u8]) -> TunablesFile {
    let parsed = conf_file::parse(text);
    let mut file = TunablesFile::default();
    for entry in &parsed.entries {
        match entry {
            Entry::Section { line, name } => file.findings.push(section(*line, name)),
            Entry::Setting { line, name, value } => match assignment(*line, name, value) {
                Ok((tunable, value, doubt)) => {
                    file.assignments.push((tunable, value));
                    file.findings.extend(doubt);
                }
                Err(finding) => file.findings.push(*finding),
            },
            Entry::Bare { line, text } => file.findings.push(no_value(*line, text)),
        }
    }
    if let Some(stop) = parsed.stopped {
        let finding = Finding::new(
            stop.line,
            Severity::Error,
            "this line ends the reading of the file; what follows is ignored",
            "write TUNABLE=VALUE on every line, or # before a comment",
        );
        file.findings.push(finding.c_says(LogLevel::Error, "Syntax error"));
    }
    file
}

type Assignment = (Tunable, u32, Option<Finding>);

fn assignment(line: u32, name: &[u8], value: &[u8]) -> Result<Assignment, Box<Finding>> {
    if value.is_empty() {
        return Err(Box::new(no_value(line, name)));
    }
    let tunable = Tunable::from_name(name).ok_or_else(|| Box::new(unknown(line, name)))?;
    if tunable.info().obsolete {
        let finding = Finding::new(
            line,
            Severity::Warning,
            format!("{} no longer exists and is ignored", shown(name)),
            "remove the line",
        );
        return Err(Box::new(finding.c_says(LogLevel::Error, cite(b"Obsolete tunable", name))));
    }
    let wide = number(value).ok_or_else(|| {
        let finding = Finding::new(
            line,
            Severity::Error,
            format!("\"{}\" is no value for {}", shown(value), tunable.info().name),
            "write a number from 0 to 4294967295 and nothing after it",
        );
        let text = [b"Invalid value \"", value, b"\" for tunable \"", name, b"\""].concat();
        Box::new(finding.c_says(LogLevel::Error, text))
    })?;
    let [a, b, c, d, ..] = wide.to_le_bytes();
    let value_read = u32::from_le_bytes([a, b, c, d]);
    let doubt =
        (u64::from(value_read) != wide || value != value_read.to_string().as_bytes()).then(|| {
            Finding::new(
                line,
                Severity::Note,
                format!("\"{}\" is read as {value_read}", shown(value)),
                "write a plain decimal number",
            )
        });
    Ok((tunable, value_read, doubt))
}

/// `strtoul` with base 0 that must use up the text and refuses a minus sign.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.starts_with('+') {
        return None;
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if text.len() > 1 && text.starts_with('0') && !text[1..].starts_with('+') => {
            u64::from_str_radix(&text[1..], 8).ok()
        }
        None => text.parse().ok(),
    }
}

fn section(line: u32, name: &[u8]) -> Finding {
    Finding::new(
        line,
        Severity::Warning,
        format!("there are no sections in this file; [{}] is ignored", shown(name)),
        "remove the line",
    )
    .c_says(
        LogLevel::Error,
        [b"Invalid line for section [", name, b"] - sections not supported "].concat(),
    )
}

fn no_value(line: u32, name: &[u8]) -> Finding {
    Finding::new(
        line,
        Severity::Error,
        format!("{} has no value", shown(name)),
        "write TUNABLE=VALUE, or remove the line",
    )
    .c_says(LogLevel::Error, cite(b"Invalid line containing", name))
}

fn unknown(line: u32, name: &[u8]) -> Finding {
    let names = TUNABLES.into_iter().map(|t| t.info()).filter(|info| !info.obsolete);
    let remedy = match nearest(&shown(name), names.map(|info| info.name)) {
        Some(near) => format!("write {near}"),
        None => "\"ctdb listvars\" shows their names".to_owned(),
    };
    Finding::new(line, Severity::Error, format!("there is no tunable {}", shown(name)), remedy)
        .c_says(LogLevel::Error, cite(b"Unknown tunable", name))
}

fn cite(what: &[u8], name: &[u8]) -> Vec<u8> {
    [what, b" \"", name, b"\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c_text(text: &str) -> Vec<String> {
        let file = parse(text.as_bytes());
        let lines = super::super::finding::c_lines(&file.findings, LogLevel::Error);
        lines.map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn complaints_are_those_of_ctdbd() {
        assert_eq!(
            c_text(
                "foo=1\nMaxRedirectCount=3\nKeepaliveInterval=7x\nKeepaliveInterval=-1\n\
                 KeepaliveLimit = \nKeepaliveLimit\nElectionTimeout = 1 2\nElectionTimeout=08\n\
                 ElectionTimeout= 4 # x\nEnableBans=0x\nControlTimeout=18446744073709551617\n\
                 [foo]\n=x\nfoo=1\n"
            ),
            [
                "Unknown tunable \"foo\"",
                "Obsolete tunable \"MaxRedirectCount\"",
                "Invalid value \"7x\" for tunable \"KeepaliveInterval\"",
                "Invalid value \"-1\" for tunable \"KeepaliveInterval\"",
                "Invalid line containing \"KeepaliveLimit\"",
                "Invalid line containing \"KeepaliveLimit\"",
                "Invalid value \"1 2\" for tunable \"ElectionTimeout\"",
                "Invalid value \"08\" for tunable \"ElectionTimeout\"",
                "Invalid value \"4 # x\" for tunable \"ElectionTimeout\"",
                "Invalid value \"0x\" for tunable \"EnableBans\"",
                "Invalid value \"18446744073709551617\" for tunable \"ControlTimeout\"",
                "Invalid line for section [foo] - sections not supported ",
                "Syntax error",
            ]
        );
    }

    #[test]
    fn values_are_read_as_ctdbd_reads_them() {
        let file = parse(
            b"ElectionTimeout=4294967298\nrecovertimeout=+7\nKeepaliveLimit=0X11\n\
              KeepaliveInterval=010\nNoIPFailback=18446744073709551615\nMonitorInterval = 0\n",
        );
        assert_eq!(
            file.assignments,
            [
                (Tunable::ElectionTimeout, 2),
                (Tunable::RecoverTimeout, 7),
                (Tunable::KeepaliveLimit, 17),
                (Tunable::KeepaliveInterval, 8),
                (Tunable::NoIPFailback, u32::MAX),
                (Tunable::MonitorInterval, 0),
            ]
        );
    }
}
