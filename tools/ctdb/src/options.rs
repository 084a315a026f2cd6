//! The command line by popt's rules.
//!
//! Role: argv to [`Options`] and words, exactly as the C tool reads it; pure.
//! Invariants
//! - Options are found anywhere, also after the command word. `--` ends them, a lone `-` is a word.
//! - Long names are matched whole. Short ones may be bundled; a value is the rest of the bundle
//!   (after one `=`), else the next argument, whatever it looks like.
//! - Reading stops at the first error, and at the first request for help.
//!
//! Origin: `docs/spec/admin-interface.md` 1.1; popt's behaviour as observed with the 4.17 tool.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Flag,
    /// A C `int`, in decimal, octal (`0…`) or hexadecimal (`0x…`).
    Int,
    /// Any text.
    Text,
}

/// Which tool introduced an option. Only [`Origin::Classic`] ones appear in output that scripts
/// may compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In Samba's 4.17 tool.
    Classic,
    /// In Samba's development tree.
    Master,
    /// Ours.
    Ringmaster,
}

/// Names an option for the code that acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Debug,
    TimeLimit,
    Node,
    MachineY,
    Separator,
    MachineX,
    Verbose,
    MaxRuntime,
    Json,
    Watch,
    Color,
    Help,
    Usage,
}

/// One row of the option table.
#[derive(Debug)]
pub struct OptionSpec {
    pub id: Id,
    pub short: Option<char>,
    pub long: Option<&'static str>,
    pub value: Value,
    /// Placeholder of the value in help texts.
    pub placeholder: &'static str,
    /// As the usage text prints it.
    pub help: &'static str,
    /// A sentence or two for the manual page.
    pub about: &'static str,
    pub origin: Origin,
}

macro_rules! option {
    ($id:ident, $short:expr, $long:expr, $value:ident $placeholder:literal, $origin:ident, $help:literal, $about:literal) => {
        OptionSpec {
            id: Id::$id,
            short: $short,
            long: $long,
            value: Value::$value,
            placeholder: $placeholder,
            help: $help,
            about: $about,
            origin: Origin::$origin,
        }
    };
}

/// All options; classic ones in the order of the C tool's help.
#[rustfmt::skip]
pub static OPTIONS: [OptionSpec; 13] = [
    option!(Debug, Some('d'), Some("debug"), Text "STRING", Classic,
        "debug level",
        "How much the tool reports about its own work on standard error: ERROR (default), WARNING, NOTICE, INFO or DEBUG. An unknown word counts as ERROR."),
    option!(TimeLimit, Some('t'), Some("timelimit"), Int "INT", Classic,
        "timelimit (in seconds)",
        "Time limit of each single request to a daemon. Default 10; a negative number means no limit."),
    option!(Node, Some('n'), Some("node"), Int "INT", Classic,
        "node specification - integer",
        "Number of the node to ask. Default: the node the tool runs on. One number only; commands that take several nodes take them as an argument."),
    option!(MachineY, Some('Y'), None, Flag "", Classic,
        "enable machine readable output",
        "Machine readable output: rows of fields between separators."),
    option!(Separator, Some('x'), Some("separator"), Text "CHAR", Classic,
        "specify separator for machine readable output",
        "Separator of machine readable output, any text; default \"|\". Does not switch machine readable output on."),
    option!(MachineX, Some('X'), None, Flag "", Classic,
        "enable machine parsable output with separator |",
        "The same as -Y."),
    option!(Verbose, Some('v'), Some("verbose"), Flag "", Classic,
        "enable verbose output",
        "More details, for commands that have them (ip)."),
    option!(MaxRuntime, Some('T'), Some("maxruntime"), Int "INT", Classic,
        "die if runtime exceeds this limit (in seconds)",
        "Limit of the whole run. 0 or absent: the environment variable CTDB_TIMEOUT, else 120."),
    option!(Json, Some('j'), Some("json"), Flag "", Master,
        "enable JSON output",
        "Output of a reporting command as one JSON document. Excludes -X and -Y."),
    option!(Watch, None, Some("watch"), Int "SECONDS", Ringmaster,
        "repeat a reporting command",
        "Repeat a reporting command every SECONDS until interrupted. -T then limits each round."),
    option!(Color, None, Some("color"), Text "WHEN", Ringmaster,
        "colour: auto, always or never",
        "Colours in human readable output: always, never, or auto (default): only on a terminal, and not when NO_COLOR is set."),
    option!(Help, Some('?'), Some("help"), Flag "", Classic,
        "Show this help message",
        "Print the options and stop."),
    option!(Usage, None, Some("usage"), Flag "", Classic,
        "Display brief usage message",
        "Print the synopsis and stop."),
];

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// The options of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub debug: Option<OsString>,
    /// Seconds; negative = no limit.
    pub time_limit: i32,
    /// Seconds; 0 = not given, negative = as large as the C tool's alarm makes of it.
    pub max_runtime: i32,
    /// −1 = not given.
    pub node: i32,
    pub machine: bool,
    pub separator: OsString,
    pub verbose: bool,
    pub json: bool,
    pub watch: Option<i32>,
    pub color: Color,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug: None,
            time_limit: 10,
            max_runtime: 0,
            node: -1,
            machine: false,
            separator: "|".into(),
            verbose: false,
            json: false,
            watch: None,
            color: Color::Auto,
        }
    }
}

impl Options {
    /// The node asked for with `-n`, as the number that goes on the wire.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        (self.node != -1).then_some(self.node.cast_unsigned())
    }

    /// Limit of one request; `None` = wait for ever.
    #[must_use]
    pub fn request_timeout(&self) -> Option<Duration> {
        u64::try_from(self.time_limit).ok().map(Duration::from_secs)
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run the words (the first one names the command).
    Run { options: Options, words: Vec<OsString> },
    /// `--help`
    Help { options: Options },
    /// `--usage`
    Usage { options: Options },
}

/// popt's reasons for refusing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    MissingArgument,
    UnwantedArgument,
    BadNumber,
    Overflow,
    /// Not popt's: a word outside the option's list.
    BadWord,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown option",
            Self::MissingArgument => "missing argument",
            Self::UnwantedArgument => "option does not take an argument",
            Self::BadNumber => "invalid numeric value",
            Self::Overflow => "number too large or too small",
            Self::BadWord => "invalid value",
        })
    }
}

/// A refused command line: the argument that holds the mistake, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid option {}: {reason}", option.to_string_lossy())]
pub struct BadOption {
    pub option: OsString,
    pub reason: Reason,
}

/// Reads `arguments` (without the program name).
///
/// `posix_order`: the environment asks for POSIX order (`POSIXLY_CORRECT` or `POSIX_ME_HARDER`
/// is set): the first word ends the options. That word is the program's name, which the C tool
/// shows to popt, so that no option is recognised at all.
///
/// # Errors
/// The first argument that popt refuses.
pub fn parse(arguments: &[OsString], posix_order: bool) -> Result<Parsed, BadOption> {
    if posix_order {
        return Ok(Parsed::Run { options: Options::default(), words: arguments.to_vec() });
    }
    let mut scan = Scan { arguments, next: 0 };
    let mut options = Options::default();
    let mut words = Vec::new();
    while let Some(argument) = scan.take() {
        let bytes = argument.as_bytes();
        match bytes {
            b"--" => {
                words.extend_from_slice(&arguments[scan.next..]);
                break;
            }
            [b'-', _, ..] => {}
            _ => {
                words.push(argument.clone());
                continue;
            }
        }
        let asked = match bytes.strip_prefix(b"--") {
            Some(long) => scan.long(long, &mut options)?,
            None => scan.bundle(&bytes[1..], &mut options)?,
        };
        match asked {
            Some(Asked::Help) => return Ok(Parsed::Help { options }),
            Some(Asked::Usage) => return Ok(Parsed::Usage { options }),
            None => {}
        }
    }
    Ok(Parsed::Run { options, words })
}

enum Asked {
    Help,
    Usage,
}

struct Scan<'a> {
    arguments: &'a [OsString],
    next: usize,
}

impl<'a> Scan<'a> {
    fn take(&mut self) -> Option<&'a OsString> {
        let argument = self.arguments.get(self.next)?;
        self.next += 1;
        Some(argument)
    }

    /// The argument last taken is the one popt names in its error.
    fn refuse(&self, reason: Reason) -> BadOption {
        let option = self.arguments.get(self.next.wrapping_sub(1)).cloned().unwrap_or_default();
        BadOption { option, reason }
    }

    fn long(&mut self, text: &[u8], options: &mut Options) -> Result<Option<Asked>, BadOption> {
        let equals = text.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let spec = OPTIONS
            .iter()
            .find(|spec| spec.long.is_some_and(|long| long.as_bytes() == name))
            .ok_or_else(|| self.refuse(Reason::Unknown))?;
        self.apply(spec, value, options)
    }

    fn bundle(
        &mut self,
        mut rest: &[u8],
        options: &mut Options,
    ) -> Result<Option<Asked>, BadOption> {
        while let Some((&short, tail)) = rest.split_first() {
            let spec = OPTIONS
                .iter()
                .find(|spec| spec.short == Some(char::from(short)))
                .ok_or_else(|| self.refuse(Reason::Unknown))?;
            let takes_value = spec.value != Value::Flag;
            let value = match tail {
                [] => None,
                [b'=', ..] if !takes_value => {
                    return Err(self.refuse(Reason::UnwantedArgument));
                }
                _ if !takes_value => None,
                [b'=', value @ ..] => Some(value),
                value => Some(value),
            };
            if let Some(asked) = self.apply(spec, value, options)? {
                return Ok(Some(asked));
            }
            rest = if takes_value { &[] } else { tail };
        }
        Ok(None)
    }

    fn apply(
        &mut self,
        spec: &OptionSpec,
        inline: Option<&[u8]>,
        options: &mut Options,
    ) -> Result<Option<Asked>, BadOption> {
        if spec.value == Value::Flag {
            if inline.is_some() {
                return Err(self.refuse(Reason::UnwantedArgument));
            }
            match spec.id {
                Id::MachineX | Id::MachineY => options.machine = true,
                Id::Verbose => options.verbose = true,
                Id::Json => options.json = true,
                Id::Help => return Ok(Some(Asked::Help)),
                Id::Usage => return Ok(Some(Asked::Usage)),
                _ => {}
            }
            return Ok(None);
        }
        let value = match inline {
            Some(value) => value,
            None => self.take().ok_or_else(|| self.refuse(Reason::MissingArgument))?.as_bytes(),
        };
        match spec.id {
            Id::Debug => options.debug = Some(owned(value)),
            Id::Separator => options.separator = owned(value),
            Id::Color => {
                options.color = match value {
                    b"auto" => Color::Auto,
                    b"always" => Color::Always,
                    b"never" => Color::Never,
                    _ => return Err(self.refuse(Reason::BadWord)),
                }
            }
            Id::TimeLimit => options.time_limit = self.int(value)?,
            Id::MaxRuntime => options.max_runtime = self.int(value)?,
            Id::Node => options.node = self.int(value)?,
            Id::Watch => {
                let seconds = self.int(value)?;
                if seconds < 1 {
                    return Err(self.refuse(Reason::BadWord));
                }
                options.watch = Some(seconds);
            }
            _ => {}
        }
        Ok(None)
    }

    fn int(&self, text: &[u8]) -> Result<i32, BadOption> {
        let number = c_integer(text).ok_or_else(|| self.refuse(Reason::BadNumber))?;
        i32::try_from(number).map_err(|_| self.refuse(Reason::Overflow))
    }
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The whole of `text` as C's `strtoll(…, 0)` reads it: leading blanks, a sign, then decimal,
/// octal or hexadecimal digits; the empty text is 0. `None`: something else is in it. Saturates
/// far outside the range of an `int`.
fn c_integer(text: &[u8]) -> Option<i128> {
    if text.is_empty() {
        return Some(0);
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(hex) => (16, hex),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number: i128 = 0;
    for digit in digits.chars() {
        let digit = digit.to_digit(radix)?;
        number = number.saturating_mul(i128::from(radix)).saturating_add(i128::from(digit));
    }
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Parsed, BadOption> {
        let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        parse(&arguments, false)
    }

    fn run(text: &str) -> (Options, Vec<String>) {
        match line(text).unwrap() {
            Parsed::Run { options, words } => {
                (options, words.into_iter().map(|w| w.into_string().unwrap()).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        line(text).unwrap_err().to_string()
    }

    #[test]
    fn options_are_found_after_the_command_word() {
        let (options, words) = run("ip -v all -X");
        assert!(options.verbose && options.machine);
        assert_eq!(words, ["ip", "all"]);
    }

    #[test]
    fn a_value_may_be_bundled_joined_or_separate() {
        for text in ["-n1 x", "-n=1 x", "-vn 1 x", "--node=1 x", "--node 1 x", "x -n 0x1"] {
            assert_eq!(run(text).0.node(), Some(1), "{text}");
        }
        assert_eq!(run("-n -1 x").0.node(), None);
        assert_eq!(run("-n -2 x").0.node(), Some(4_294_967_294));
        assert_eq!(run("--node= x").0.node(), Some(0));
    }

    #[test]
    fn double_dash_ends_the_options_and_a_lone_dash_is_a_word() {
        assert_eq!(run("version -- -v").1, ["version", "-v"]);
        assert_eq!(run("- version").1, ["-", "version"]);
    }

    #[test]
    fn posix_order_leaves_no_options_at_all() {
        let arguments = ["-v", "ip"].map(OsString::from);
        let parsed = parse(&arguments, true).unwrap();
        let words = arguments.to_vec();
        assert_eq!(parsed, Parsed::Run { options: Options::default(), words });
    }

    #[test]
    fn refusals_name_the_argument_that_popt_names() {
        // Captured from the 4.17 tool.
        for (text, expected) in [
            ("-vZX version", "Invalid option -vZX: unknown option"),
            ("-n abc version", "Invalid option abc: invalid numeric value"),
            ("-nabc version", "Invalid option -nabc: invalid numeric value"),
            ("--node=abc version", "Invalid option --node=abc: invalid numeric value"),
            (
                "-n 99999999999999999999999 x",
                "Invalid option 99999999999999999999999: number too large or too small",
            ),
            ("-n 2147483648 x", "Invalid option 2147483648: number too large or too small"),
            ("--nod=1 version", "Invalid option --nod=1: unknown option"),
            ("-node=1 version", "Invalid option -node=1: invalid numeric value"),
            ("-t", "Invalid option -t: missing argument"),
            ("--timelimit", "Invalid option --timelimit: missing argument"),
            ("-v=3 x", "Invalid option -v=3: option does not take an argument"),
            ("--help=3", "Invalid option --help=3: option does not take an argument"),
            ("-n 08 x", "Invalid option 08: invalid numeric value"),
            ("version -v --bogus", "Invalid option --bogus: unknown option"),
            ("ban -5", "Invalid option -5: unknown option"),
        ] {
            assert_eq!(refusal(text), expected, "{text}");
        }
    }

    #[test]
    fn help_wins_over_what_follows_it_and_loses_to_what_precedes_it() {
        assert!(matches!(line("--usage --bogus"), Ok(Parsed::Usage { .. })));
        assert!(matches!(line("-v?"), Ok(Parsed::Help { .. })));
        assert!(line("--bogus --usage").is_err());
    }
}
