//! Log levels as C's configuration and `-d` options spell them.
//!
//! Role: text to level. What a level means for our tracing is the daemon's table.
//! Origin: `ctdb/common/logging.c: debug_level_parse`, found by trying `ctdb-config -d`;
//! `docs/spec/admin-interface.md` 1.9.

/// C's five levels, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

impl LogLevel {
    /// All of them, most severe first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warning, Self::Notice, Self::Info, Self::Debug];

    /// Understands any prefix of a name in any case (the first name in order wins) and numbers
    /// from 0 to 10: digits at the beginning count, what follows them does not.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.first()?.is_ascii_digit() {
            return Self::from_number(leading_number(text)?);
        }
        Self::ALL.into_iter().find(|level| {
            let name = level.name().as_bytes();
            name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
        })
    }

    /// As in the log file and in `ctdb getdebug`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }

    /// The number on the wire (`GET_DEBUGLEVEL`).
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Error => 0,
            Self::Warning => 1,
            Self::Notice => 3,
            Self::Info => 5,
            Self::Debug => 10,
        }
    }

    /// The level a number stands for; `None` above 10.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Error),
            1 | 2 => Some(Self::Warning),
            3 | 4 => Some(Self::Notice),
            5..=9 => Some(Self::Info),
            10 => Some(Self::Debug),
            _ => None,
        }
    }
}

/// `strtoul` in base 10, narrowed to 32 bits as C does; `None` beyond 64 bits.
fn leading_number(text: &[u8]) -> Option<u32> {
    let mut value: u64 = 0;
    for digit in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    let [a, b, c, d, ..] = value.to_le_bytes();
    Some(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_prefix_in_any_case() {
        for (text, level) in [
            ("ERROR", LogLevel::Error),
            ("e", LogLevel::Error),
            ("warn", LogLevel::Warning),
            ("NOT", LogLevel::Notice),
            ("debug", LogLevel::Debug),
        ] {
            assert_eq!(LogLevel::parse(text.as_bytes()), Some(level), "{text}");
        }
        for text in ["ERRORX", "foo", "-1", "+1", " 2", ""] {
            assert_eq!(LogLevel::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_prefixes_up_to_ten() {
        for (text, level) in [
            ("0x2", Some(LogLevel::Error)),
            ("2x", Some(LogLevel::Warning)),
            ("010", Some(LogLevel::Debug)),
            ("11", None),
            ("4294967298", Some(LogLevel::Warning)),
            ("18446744073709551618", None),
        ] {
            assert_eq!(LogLevel::parse(text.as_bytes()), level, "{text}");
        }
    }

    #[test]
    fn numbers_of_the_wire_come_back() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::from_number(level.number()), Some(level));
        }
    }
}
