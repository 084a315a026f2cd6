//! What C checks about a value of `ctdb.conf` that already has the right type.
//!
//! Role: one function per [`Check`]; the complaint carries C's text and ours.
//! Origin: `ctdb/conf/{logging,cluster,database,event,legacy}_conf.c`; texts taken from runs of
//! `ctdb-config` 4.17; `docs/spec/admin-interface.md` 3.2.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ctdb_conf::{ScriptState, Surroundings};
use super::finding::{Finding, Severity, shown};
use super::log_level::LogLevel;
use super::options::{Check, OptionSpec, Value};

/// Outcome of [`check`].
pub(super) enum Verdict {
    Good,
    /// Good, and C warns.
    Deprecated,
    Bad(Complaint),
}

/// Why a value is refused.
pub(super) struct Complaint {
    /// C's line before the general one; empty where it has none.
    c_text: Vec<u8>,
    what: String,
    remedy: String,
}

impl Complaint {
    fn new(c_text: Vec<u8>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { c_text, what: what.into(), remedy: remedy.into() }
    }

    /// With C's closing line.
    pub(super) fn finding(self, option: &OptionSpec, line: u32) -> Finding {
        let mut finding = Finding::new(line, Severity::Error, self.what, self.remedy);
        if !self.c_text.is_empty() {
            finding = finding.c_says(LogLevel::Error, self.c_text);
        }
        finding.c_says(
            LogLevel::Error,
            format!("conf: validation for option \"{}\" failed", option.name),
        )
    }
}

/// Validates `text`, which was read as `parsed`.
pub(super) fn check(
    option: &OptionSpec,
    text: &[u8],
    parsed: &Value,
    around: &dyn Surroundings,
) -> Verdict {
    let complaint = match option.check {
        Check::None => None,
        Check::Deprecated => return Verdict::Deprecated,
        Check::LogLocation => log_location(text, around),
        Check::LogLevel => log_level(text, Vec::new()),
        Check::ScriptLogLevel => log_level(text, invalid_value(option, text)),
        Check::Transport => transport(option, text),
        Check::NodeAddress => node_address(option, text),
        Check::NotZero => not_zero(option, parsed),
        Check::Directory => directory(option, text, around),
        Check::Script => script(option, text, around),
    };
    complaint.map_or(Verdict::Good, Verdict::Bad)
}

fn invalid_value(option: &OptionSpec, value: &[u8]) -> Vec<u8> {
    let start = format!("Invalid value for [{}] -> {} = ", option.section, option.name);
    [start.as_bytes(), value].concat()
}

fn log_level(text: &[u8], c_text: Vec<u8>) -> Option<Complaint> {
    LogLevel::parse(text).is_none().then(|| {
        let what = format!("there is no log level \"{}\"", shown(text));
        Complaint::new(c_text, what, "write ERROR, WARNING, NOTICE, INFO or DEBUG")
    })
}

fn transport(option: &OptionSpec, text: &[u8]) -> Option<Complaint> {
    (text != b"tcp").then(|| {
        Complaint::new(
            invalid_value(option, text),
            format!("there is no transport \"{}\"", shown(text)),
            "write tcp; RDMA between nodes is set in ringmaster.conf",
        )
    })
}

fn node_address(option: &OptionSpec, text: &[u8]) -> Option<Complaint> {
    let address = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    address.is_none().then(|| {
        Complaint::new(
            invalid_value(option, text),
            format!("\"{}\" is not an IP address", shown(text)),
            "write one of the addresses of the nodes file, without port or interface",
        )
    })
}

fn not_zero(option: &OptionSpec, parsed: &Value) -> Option<Complaint> {
    (*parsed == Value::Number(0)).then(|| {
        let what = format!("\"{}\" is 0", option.name);
        Complaint::new(invalid_value(option, b"0"), what, "write a number of seconds")
    })
}

fn directory(option: &OptionSpec, text: &[u8], around: &dyn Surroundings) -> Option<Complaint> {
    (!around.is_directory(Path::new(OsStr::from_bytes(text)))).then(|| {
        Complaint::new(
            [option.name.as_bytes(), b" \"", text, b"\" does not exist"].concat(),
            format!("{} is not a directory", shown(text)),
            "create it, or name another",
        )
    })
}

fn log_location(text: &[u8], around: &dyn Surroundings) -> Option<Complaint> {
    match LogLocation::parse(text) {
        Some(LogLocation::File(path)) => {
            let directory = PathBuf::from(OsStr::from_bytes(dirname(path)));
            (!around.is_directory(&directory)).then(|| {
                let what = format!("{} is not a directory", shown(dirname(path)));
                Complaint::new(Vec::new(), what, "create it, or log to another place")
            })
        }
        Some(_) => None,
        None => Some(Complaint::new(
            Vec::new(),
            format!("\"{}\" is no place to log to", shown(text)),
            "write file:PATH, syslog, syslog:nonblocking, syslog:udp, \
             syslog:udp-rfc5424 or journald",
        )),
    }
}

fn script(option: &OptionSpec, text: &[u8], around: &dyn Surroundings) -> Option<Complaint> {
    let path = script_path(&around.etc_dir(), text);
    let path_shown = shown(path.as_os_str().as_bytes());
    let (ending, remedy) = match around.script_state(&path) {
        ScriptState::Executable => return None,
        ScriptState::Missing => ("does not exist", "put the script there".to_owned()),
        ScriptState::NotAFile => ("is not a file", "name a script".to_owned()),
        ScriptState::NotExecutable => ("is not executable", format!("chmod +x {path_shown}")),
    };
    let path = path.as_os_str().as_bytes();
    let c_text = [option.name.as_bytes(), b" ", path, b" ", ending.as_bytes()].concat();
    Some(Complaint::new(c_text, format!("{path_shown} {ending}"), remedy))
}

/// Where a debug script lies: its base name below the configuration directory.
#[must_use]
pub fn script_path(etc_dir: &Path, value: &[u8]) -> PathBuf {
    let mut path = etc_dir.as_os_str().to_owned();
    path.push("/");
    path.push(OsStr::from_bytes(basename(value)));
    path.into()
}

/// POSIX `basename()`.
fn basename(path: &[u8]) -> &[u8] {
    let Some(last) = path.iter().rposition(|&b| b != b'/') else {
        return if path.is_empty() { b"." } else { b"/" };
    };
    let start = path[..last].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    &path[start..=last]
}

/// POSIX `dirname()`.
fn dirname(path: &[u8]) -> &[u8] {
    let Some(last) = path.iter().rposition(|&b| b != b'/') else {
        return if path.is_empty() { b"." } else { b"/" };
    };
    let Some(slash) = path[..last].iter().rposition(|&b| b == b'/') else { return b"." };
    match path[..slash].iter().rposition(|&b| b != b'/') {
        Some(end) => &path[..=end],
        None => b"/",
    }
}

/// `[logging] location`, cut at colons as C does (`strtok`: runs of them count once).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLocation<'a> {
    /// `file` or `file:` without a path.
    Stderr,
    File(&'a [u8]),
    Syslog,
    SyslogNonblocking,
    SyslogUdp,
    SyslogUdpRfc5424,
    /// Not C's.
    Journald,
}

impl<'a> LogLocation<'a> {
    /// `None` where C's validation fails.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut words = text.split(|&b| b == b':').filter(|word| !word.is_empty());
        match (words.next()?, words.next()) {
            (b"file", None) => Some(Self::Stderr),
            (b"file", Some(path)) => Some(Self::File(path)),
            (b"syslog", None) => Some(Self::Syslog),
            (b"syslog", Some(b"nonblocking")) => Some(Self::SyslogNonblocking),
            (b"syslog", Some(b"udp")) => Some(Self::SyslogUdp),
            (b"syslog", Some(b"udp-rfc5424")) => Some(Self::SyslogUdpRfc5424),
            (b"journald", None) => Some(Self::Journald),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_locations_are_cut_at_colons_as_c_cuts_them() {
        for (text, location) in [
            ("file:/tmp/nod:x/y", Some(LogLocation::File(b"/tmp/nod"))),
            ("file::/x", Some(LogLocation::File(b"/x"))),
            (":file", Some(LogLocation::Stderr)),
            ("file:", Some(LogLocation::Stderr)),
            ("syslog::udp", Some(LogLocation::SyslogUdp)),
            ("syslog:udp:x", Some(LogLocation::SyslogUdp)),
            ("syslog:nonblocking", Some(LogLocation::SyslogNonblocking)),
            ("journald", Some(LogLocation::Journald)),
            ("syslog:foo", None),
            ("SYSLOG", None),
            ("filex", None),
            (":", None),
        ] {
            assert_eq!(LogLocation::parse(text.as_bytes()), location, "{text}");
        }
    }

    #[test]
    fn names_of_paths_are_those_of_posix() {
        for (path, directory, file) in [
            ("/a/b", "/a", "b"),
            ("a", ".", "a"),
            ("/a", "/", "a"),
            ("a/b//", "a", "b"),
            ("a//b", "a", "b"),
            ("/", "/", "/"),
            ("", ".", "."),
            ("..", ".", ".."),
            ("//a", "/", "a"),
        ] {
            assert_eq!(dirname(path.as_bytes()), directory.as_bytes(), "{path}");
            assert_eq!(basename(path.as_bytes()), file.as_bytes(), "{path}");
        }
    }
}
