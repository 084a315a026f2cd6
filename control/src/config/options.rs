//! Every option of `ctdb.conf`: section, name, type, default, and what C checks about its value.
//!
//! Role: the table that loading, `ctdb-config` and the diagnosis share. Reading a file into it:
//! `ctdb_conf.rs`; typed access for the daemon: `settings.rs`.
//! Invariants
//! - Order of [`OPTIONS`] is the order of `ctdb-config dump`.
//! - Options newer than CTDB 4.17 are known and honoured; `dump` mentions them only when set, so
//!   that an untouched configuration prints what Debian's 4.17 prints.
//!
//! Origin: `ctdb/conf/*_conf.c`; values compared with `ctdb-config` 4.17;
//! `docs/spec/admin-interface.md` 2.4, 3.2.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::log_level::LogLevel;
use super::paths;

/// Type of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// 0 to 2147483647.
    Number,
    Switch,
}

/// Value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `None`: not set and no default.
    Text(Option<OsString>),
    Number(u32),
    Switch(bool),
}

impl Value {
    /// As `ctdb-config get` prints it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(None) => Vec::new(),
            Self::Text(Some(text)) => text.as_bytes().to_vec(),
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Switch(on) => if *on { "true" } else { "false" }.into(),
        }
    }

    /// Reads `text`, which is not empty, as a value of `kind`; `None` where C calls it invalid.
    pub(crate) fn parse(kind: Kind, text: &[u8]) -> Option<Self> {
        match kind {
            Kind::Text => Some(Self::Text(Some(OsString::from_vec(text.to_vec())))),
            Kind::Number => number(text).map(Self::Number),
            Kind::Switch => {
                let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
                if is("true") || is("yes") {
                    Some(Self::Switch(true))
                } else if is("false") || is("no") {
                    Some(Self::Switch(false))
                } else {
                    None
                }
            }
        }
    }
}

/// What C checks once the value has the right type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    None,
    LogLocation,
    LogLevel,
    Transport,
    NodeAddress,
    /// Fine, but C warns that the option is deprecated.
    Deprecated,
    NotZero,
    Directory,
    /// An executable file below the configuration directory.
    Script,
    ScriptLogLevel,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub check: Check,
    default: DefaultValue,
    /// Known to CTDB 4.17.
    pub in_4_17: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefaultValue {
    Unset,
    Text(&'static str),
    Number(u32),
    Switch(bool),
    /// ERROR in C's tools, NOTICE in its daemon.
    LogLevelOfProgram,
}

impl OptionSpec {
    /// Value when the file does not mention the option.
    #[must_use]
    pub fn default_value(&self, default_log_level: LogLevel) -> Value {
        match self.default {
            DefaultValue::Unset => Value::Text(None),
            DefaultValue::Text(text) => Value::Text(Some(text.into())),
            DefaultValue::Number(number) => Value::Number(number),
            DefaultValue::Switch(on) => Value::Switch(on),
            DefaultValue::LogLevelOfProgram => Value::Text(Some(default_log_level.name().into())),
        }
    }

    const fn newer(mut self) -> Self {
        self.in_4_17 = false;
        self
    }

    const fn checked(mut self, check: Check) -> Self {
        self.check = check;
        self
    }
}

/// Largest number an option can hold.
pub const NUMBER_MAX: u32 = 0x7fff_ffff;

/// Sections in the order of `dump`.
pub const SECTIONS: [&str; 6] = ["logging", "cluster", "database", "event", "failover", "legacy"];

/// All options in the order of `dump`.
pub const OPTIONS: [OptionSpec; 23] = [
    text("logging", "location", DefaultValue::Text(paths::LOG_LOCATION))
        .checked(Check::LogLocation),
    text("logging", "log level", DefaultValue::LogLevelOfProgram).checked(Check::LogLevel),
    text("cluster", "transport", DefaultValue::Text("tcp")).checked(Check::Transport),
    text("cluster", "node address", DefaultValue::Unset).checked(Check::NodeAddress),
    text("cluster", "cluster lock", DefaultValue::Unset),
    text("cluster", "recovery lock", DefaultValue::Unset).checked(Check::Deprecated),
    text("cluster", "nodes list", DefaultValue::Unset).newer(),
    number_of("cluster", "leader timeout", 5).checked(Check::NotZero),
    switch("cluster", "leader capability", true),
    text("database", "volatile database directory", DefaultValue::Text(paths::VOLATILE_DIR))
        .checked(Check::Directory),
    text("database", "persistent database directory", DefaultValue::Text(paths::PERSISTENT_DIR))
        .checked(Check::Directory),
    text("database", "state database directory", DefaultValue::Text(paths::STATE_DIR))
        .checked(Check::Directory),
    text("database", "lock debug script", DefaultValue::Unset).checked(Check::Script),
    switch("database", "tdb mutexes", true),
    text("event", "debug script", DefaultValue::Unset).checked(Check::Script),
    switch("failover", "disabled", false),
    number_of("failover", "shutdown extra timeout", 0).newer(),
    number_of("failover", "shutdown failover timeout", 10).newer(),
    switch("legacy", "realtime scheduling", true),
    switch("legacy", "lmaster capability", true),
    switch("legacy", "start as stopped", false),
    switch("legacy", "start as disabled", false),
    text("legacy", "script log level", DefaultValue::Text("ERROR")).checked(Check::ScriptLogLevel),
];

/// Index into [`OPTIONS`]; sections match in any case, names exactly.
#[must_use]
pub fn find(section: &[u8], name: &[u8]) -> Option<usize> {
    OPTIONS.iter().position(|option| {
        option.section.as_bytes().eq_ignore_ascii_case(section) && option.name.as_bytes() == name
    })
}

/// The section as [`SECTIONS`] spells it.
#[must_use]
pub fn find_section(name: &[u8]) -> Option<&'static str> {
    SECTIONS.into_iter().find(|section| section.as_bytes().eq_ignore_ascii_case(name))
}

const fn option(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: DefaultValue,
) -> OptionSpec {
    OptionSpec { section, name, kind, check: Check::None, default, in_4_17: true }
}

const fn text(section: &'static str, name: &'static str, default: DefaultValue) -> OptionSpec {
    option(section, name, Kind::Text, default)
}

const fn number_of(section: &'static str, name: &'static str, default: u32) -> OptionSpec {
    option(section, name, Kind::Number, DefaultValue::Number(default))
}

const fn switch(section: &'static str, name: &'static str, default: bool) -> OptionSpec {
    option(section, name, Kind::Switch, DefaultValue::Switch(default))
}

/// C's `strtol` with base 0, then its range check: digits at the beginning count, none at all is 0.
fn number(text: &[u8]) -> Option<u32> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (base, digits) = match unsigned {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
            (16, rest)
        }
        [b'0', ..] => (8, unsigned),
        _ => (10, unsigned),
    };
    let mut value: u32 = 0;
    for digit in digits.iter().map_while(|&byte| char::from(byte).to_digit(base)) {
        value = value.checked_mul(base)?.checked_add(digit)?;
    }
    (value <= NUMBER_MAX && !(negative && value != 0)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_like_strtol_with_base_detection() {
        for (text, value) in [
            ("5", Some(5)),
            ("0x10", Some(16)),
            ("0X1G", Some(1)),
            ("010", Some(8)),
            ("08", Some(0)),
            ("+5", Some(5)),
            ("-0", Some(0)),
            ("5s", Some(5)),
            ("s5", Some(0)),
            ("0xg", Some(0)),
            ("2147483647", Some(NUMBER_MAX)),
            ("2147483648", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn switches_are_four_words_in_any_case() {
        let read = |text: &str| Value::parse(Kind::Switch, text.as_bytes());
        assert_eq!(read("YES"), Some(Value::Switch(true)));
        assert_eq!(read("False"), Some(Value::Switch(false)));
        for text in ["1", "0", "on", "off", "y", "t", "yess"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn section_names_ignore_case_and_option_names_do_not() {
        assert!(find(b"CLUSTER", b"transport").is_some());
        assert!(find(b"cluster", b"Transport").is_none());
    }

    #[test]
    fn every_option_belongs_to_a_section_and_sections_keep_their_order() {
        let mut last = 0;
        for option in &OPTIONS {
            let at = SECTIONS.iter().position(|s| *s == option.section).unwrap();
            assert!(at >= last, "{} -> {}", option.section, option.name);
            last = at;
        }
    }
}
