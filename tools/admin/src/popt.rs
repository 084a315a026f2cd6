//! Command lines by the rules of popt, which all C tools of CTDB use.
//!
//! Role: separate options from words. What an option does is the caller's.
//! Invariants
//! - Options may stand anywhere before `--`; with `POSIXLY_CORRECT` only before the first word.
//! - Short options may be bundled; a value may follow directly, after `=`, or as the next word,
//!   which may then look like an option. Long names are not abbreviated.
//!
//! Origin: tried with `ctdb-config` and `ctdb-path` 4.17 (popt 1.19).

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One option. Of two with the same name the first in the table counts.
#[derive(Clone, Copy, Debug)]
pub struct Opt<Id> {
    pub id: Id,
    pub short: Option<u8>,
    pub long: &'static str,
    pub takes_value: bool,
}

/// An option that cannot be taken: the word it stands in, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    pub word: OsString,
    pub reason: &'static str,
}

/// How a parse ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<Stop> {
    /// Words that are not options, in order.
    Words(Vec<OsString>),
    /// The handler ended the parse.
    Stopped(Stop),
}

/// Goes through `args` (without the program's name) and calls `handle` for each option.
///
/// # Errors
/// The first option that is unknown, lacks its value, or has one it does not take.
pub fn parse<Id: Copy, Stop>(
    args: &[OsString],
    options: &[Opt<Id>],
    posixly_correct: bool,
    mut handle: impl FnMut(Id, &OsStr) -> ControlFlow<Stop>,
) -> Result<Parsed<Stop>, BadOption> {
    let mut words = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            words.push(arg.clone());
            if posixly_correct {
                break;
            }
            continue;
        }
        let bad = |reason| BadOption { word: arg.clone(), reason };
        if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|&b| b == b'=') {
                Some(equals) => (&long[..equals], Some(&long[equals + 1..])),
                None => (long, None),
            };
            let option = options
                .iter()
                .find(|option| option.long.as_bytes() == name)
                .ok_or_else(|| bad(UNKNOWN))?;
            let value = match (option.takes_value, value) {
                (false, None) => OsStr::new(""),
                (false, Some(_)) => return Err(bad(UNWANTED)),
                (true, Some(value)) => OsStr::from_bytes(value),
                (true, None) => rest.next().ok_or_else(|| bad(MISSING))?,
            };
            if let ControlFlow::Break(stop) = handle(option.id, value) {
                return Ok(Parsed::Stopped(stop));
            }
            continue;
        }
        let mut letters = &bytes[1..];
        while let [letter, tail @ ..] = letters {
            let option = options
                .iter()
                .find(|option| option.short == Some(*letter))
                .ok_or_else(|| bad(UNKNOWN))?;
            letters = tail;
            let value = if !option.takes_value {
                if tail.first() == Some(&b'=') {
                    return Err(bad(UNWANTED));
                }
                OsString::new()
            } else if tail.is_empty() {
                rest.next().ok_or_else(|| bad(MISSING))?.clone()
            } else {
                letters = &[];
                OsString::from_vec(tail.strip_prefix(b"=").unwrap_or(tail).to_vec())
            };
            if let ControlFlow::Break(stop) = handle(option.id, &value) {
                return Ok(Parsed::Stopped(stop));
            }
        }
    }
    words.extend(rest.cloned());
    Ok(Parsed::Words(words))
}

const UNKNOWN: &str = "unknown option";
const MISSING: &str = "missing argument";
const UNWANTED: &str = "option does not take an argument";

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [Opt<char>; 2] = [
        Opt { id: 'h', short: Some(b'h'), long: "help", takes_value: false },
        Opt { id: 'd', short: Some(b'd'), long: "debug", takes_value: true },
    ];

    type Seen = Vec<(char, String)>;

    fn run(line: &str, posixly_correct: bool) -> Result<(Seen, Vec<String>), BadOption> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut seen = Vec::new();
        let parsed = parse(&args, &OPTIONS, posixly_correct, |id, value| {
            seen.push((id, value.to_str().unwrap().to_owned()));
            ControlFlow::<()>::Continue(())
        })?;
        let Parsed::Words(words) = parsed else { unreachable!("the handler never stops") };
        Ok((seen, words.into_iter().map(|word| word.into_string().unwrap()).collect()))
    }

    #[test]
    fn values_follow_directly_after_equals_or_as_the_next_word() {
        for line in ["-dx", "-d=x", "-d x", "--debug=x", "--debug x"] {
            assert_eq!(run(line, false), Ok((vec![('d', "x".into())], vec![])), "{line}");
        }
        assert_eq!(run("-hd -h", false), Ok((vec![('h', "".into()), ('d', "-h".into())], vec![])));
    }

    #[test]
    fn words_and_options_mix_until_the_double_dash() {
        let words = |list: &[&str]| list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            run("a -h b -- -x -", false),
            Ok((vec![('h', "".into())], words(&["a", "b", "-x", "-"])))
        );
        assert_eq!(run("a -h", true), Ok((vec![], words(&["a", "-h"]))));
    }

    #[test]
    fn a_bad_option_is_named_with_its_whole_word() {
        for (line, word, reason) in [
            ("-hx", "-hx", UNKNOWN),
            ("--hel", "--hel", UNKNOWN),
            ("---", "---", UNKNOWN),
            ("a -d", "-d", MISSING),
            ("--debug", "--debug", MISSING),
            ("--help=x", "--help=x", UNWANTED),
            ("-h=x", "-h=x", UNWANTED),
        ] {
            assert_eq!(run(line, false), Err(BadOption { word: word.into(), reason }), "{line}");
        }
    }
}
