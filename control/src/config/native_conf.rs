//! `ringmaster.conf`: settings that C does not know, kept out of `ctdb.conf` so that this stays
//! valid for the C daemon.
//!
//! Role: text to typed settings. Same line syntax as `ctdb.conf`; unlike there nothing is ignored.
//! Invariants
//! - Every line that is not understood refuses the file, with its number and a remedy.
//! - A missing or empty file means the defaults.

use ringmaster_protocol::keepalive::SambaVersion;

use super::conf_file::{self, Entry, StopReason};
use super::finding::{Finding, Severity, nearest, shown};

/// Most shards a daemon will start.
pub const SHARDS_MAX: u16 = 32;

/// Number of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// By the number of cores the process may use.
    #[default]
    Auto,
    /// 1 to [`SHARDS_MAX`].
    Fixed(u16),
}

/// What drives a shard's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReactorChoice {
    /// io_uring where the kernel allows it, else epoll with a warning.
    #[default]
    Auto,
    /// io_uring or no start.
    Uring,
    Epoll,
}

/// RDMA between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RdmaChoice {
    /// Where both ends have it.
    #[default]
    Auto,
    Off,
}

/// Every setting of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeConf {
    /// `[dataplane] shards`.
    pub shards: Shards,
    /// `[dataplane] reactor`.
    pub reactor: ReactorChoice,
    /// `[transport] rdma`.
    pub rdma: RdmaChoice,
    /// `[transport] samba version`, which keepalives tell other nodes; `None`: that of the `smbd`
    /// of this host.
    pub samba_version: Option<SambaVersion>,
}

struct NativeOption {
    section: &'static str,
    name: &'static str,
    values: &'static str,
    /// False when the value is none of [`NativeOption::values`].
    apply: fn(&mut NativeConf, &str) -> bool,
}

const SECTIONS: [&str; 2] = ["dataplane", "transport"];

const OPTIONS: [NativeOption; 4] = [
    NativeOption {
        section: "dataplane",
        name: "shards",
        values: "auto or a number from 1 to 32",
        apply: |conf, value| choose(&mut conf.shards, shards(value)),
    },
    NativeOption {
        section: "dataplane",
        name: "reactor",
        values: "auto, io_uring or epoll",
        apply: |conf, value| {
            let choice = match value {
                "auto" => Some(ReactorChoice::Auto),
                "io_uring" => Some(ReactorChoice::Uring),
                "epoll" => Some(ReactorChoice::Epoll),
                _ => None,
            };
            choose(&mut conf.reactor, choice)
        },
    },
    NativeOption {
        section: "transport",
        name: "rdma",
        values: "auto or off",
        apply: |conf, value| {
            let choice = match value {
                "auto" => Some(RdmaChoice::Auto),
                "off" => Some(RdmaChoice::Off),
                _ => None,
            };
            choose(&mut conf.rdma, choice)
        },
    },
    NativeOption {
        section: "transport",
        name: "samba version",
        values: "auto, or the cluster's MAJOR.MINOR, for example 4.17",
        apply: |conf, value| {
            let choice = match value {
                "auto" => Some(None),
                version => parse_version(version).map(Some),
            };
            choose(&mut conf.samba_version, choice)
        },
    },
];

/// `4.17`, or a longer form of it like `4.17.12-Debian`.
#[must_use]
pub fn parse_version(text: &str) -> Option<SambaVersion> {
    let mut numbers = text.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some(SambaVersion::new(major, minor[..digits].parse().ok()?))
}

fn shards(value: &str) -> Option<Shards> {
    if value == "auto" {
        return Some(Shards::Auto);
    }
    let count: u16 = value.parse().ok()?;
    (1..=SHARDS_MAX).contains(&count).then_some(Shards::Fixed(count))
}

fn choose<T>(slot: &mut T, choice: Option<T>) -> bool {
    match choice {
        Some(choice) => {
            *slot = choice;
            true
        }
        None => false,
    }
}

/// Reads the file.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines; never empty.
pub fn parse(text: &[u8]) -> Result<NativeConf, Vec<Finding>> {
    let parsed = conf_file::parse(text);
    let (mut conf, mut findings) = (NativeConf::default(), Vec::new());
    let mut section = String::new();
    let mut seen: [Option<u32>; OPTIONS.len()] = [None; OPTIONS.len()];
    for entry in &parsed.entries {
        let complaint = match entry {
            Entry::Section { name, .. } => {
                section = shown(name).to_lowercase();
                (!SECTIONS.contains(&section.as_str())).then(|| {
                    let remedy = match nearest(&section, SECTIONS.into_iter()) {
                        Some(near) => format!("write [{near}]"),
                        None => format!("the sections are {}", SECTIONS.join(", ")),
                    };
                    (format!("there is no section [{section}]"), remedy)
                })
            }
            Entry::Setting { line, name, value } => {
                set(&mut conf, &mut seen, *line, &section, &shown(name), value)
            }
            Entry::Bare { text, .. } => Some((
                format!("\"{}\" has no \"=\"", shown(text)),
                "write \"option = value\", or put # before it".to_owned(),
            )),
        };
        if let Some((what, remedy)) = complaint {
            findings.push(Finding::new(entry.line(), Severity::Error, what, remedy));
        }
    }
    if let Some(stop) = parsed.stopped {
        let (what, remedy) = match stop.reason {
            StopReason::UnclosedSection => {
                ("the section header has no closing bracket", "close it on the same line")
            }
            StopReason::NoName => ("the line begins with \"=\"", "write the option's name first"),
        };
        findings.push(Finding::new(stop.line, Severity::Error, what, remedy));
    }
    if findings.is_empty() { Ok(conf) } else { Err(findings) }
}

/// `None`, or what is wrong and what to do.
fn set(
    conf: &mut NativeConf,
    seen: &mut [Option<u32>; OPTIONS.len()],
    line: u32,
    section: &str,
    name: &str,
    value: &[u8],
) -> Option<(String, String)> {
    let Some(index) = OPTIONS.iter().position(|o| o.section == section && o.name == name) else {
        return Some(unknown(section, name));
    };
    let option = &OPTIONS[index];
    if let Some(earlier) = seen[index].replace(line) {
        let what = format!("{name} is on line {earlier} already");
        return Some((what, "remove one of the two lines".to_owned()));
    }
    let understood = std::str::from_utf8(value).is_ok_and(|value| (option.apply)(conf, value));
    (!understood).then(|| {
        (format!("\"{}\" is no value for {name}", shown(value)), format!("write {}", option.values))
    })
}

fn unknown(section: &str, name: &str) -> (String, String) {
    let what = if section.is_empty() {
        format!("{name} stands before the first section")
    } else {
        format!("[{section}] has no option \"{name}\"")
    };
    let in_section =
        || OPTIONS.iter().filter(|option| option.section == section).map(|option| option.name);
    let remedy = if let Some(option) = OPTIONS.iter().find(|option| option.name == name) {
        format!("put it below [{}]", option.section)
    } else if let Some(near) = nearest(name, in_section()) {
        format!("write \"{near}\"")
    } else if section.is_empty() || in_section().next().is_none() {
        "settings of CTDB itself belong into ctdb.conf".to_owned()
    } else {
        let names: Vec<_> = in_section().collect();
        format!(
            "its options are: {}; settings of CTDB itself belong into ctdb.conf",
            names.join(", ")
        )
    };
    (what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse(b"# nothing\n"), Ok(NativeConf::default()));
    }

    #[test]
    fn every_setting_is_read() {
        let conf = parse(
            b"[dataplane]\nshards = 4\nreactor = epoll\n[Transport]\nrdma = off\n\
                          samba version = 4.17\n",
        );
        assert_eq!(
            conf,
            Ok(NativeConf {
                shards: Shards::Fixed(4),
                reactor: ReactorChoice::Epoll,
                rdma: RdmaChoice::Off,
                samba_version: Some(SambaVersion::new(4, 17)),
            })
        );
    }

    #[test]
    fn a_version_is_read_from_what_samba_says() {
        for (text, expected) in [
            ("4.17", Some(SambaVersion::new(4, 17))),
            ("4.17.12-Debian", Some(SambaVersion::new(4, 17))),
            ("4.25pre1", Some(SambaVersion::new(4, 25))),
            ("4", None),
            ("4.", None),
            ("4.x", None),
            ("", None),
            ("70000.1", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }

    #[test]
    fn everything_that_is_not_understood_is_an_error_with_line_and_remedy() {
        let text = "x = 1\n[dataplane]\nshard = 4\nshards = 0\nrdma = off\nreactor = epoll\n\
                    reactor = epoll\nnonsense\n[cluster]\ntransport = tcp\n[transport\n";
        let shown: Vec<String> =
            parse(text.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 1: error: x stands before the first section; settings of CTDB itself belong \
                 into ctdb.conf",
                "line 3: error: [dataplane] has no option \"shard\"; write \"shards\"",
                "line 4: error: \"0\" is no value for shards; write auto or a number from 1 to 32",
                "line 5: error: [dataplane] has no option \"rdma\"; put it below [transport]",
                "line 7: error: reactor is on line 6 already; remove one of the two lines",
                "line 8: error: \"nonsense\" has no \"=\"; write \"option = value\", or put # \
                 before it",
                "line 9: error: there is no section [cluster]; the sections are dataplane, \
                 transport",
                "line 10: error: [cluster] has no option \"transport\"; settings of CTDB itself \
                 belong into ctdb.conf",
                "line 11: error: the section header has no closing bracket; close it on the same \
                 line",
            ]
        );
    }
}
