//! The command line, by the rules of `getopt(1)`: options anywhere, long names may be shortened.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

pub(super) const USAGE: &str = "\
Usage: ctdb_diagnostics [OPTION] ...
  options:
    -n <nodes>  Comma separated list of nodes to operate on
    -c          Ignore comment lines (starting with '#') in file comparisons
    -w          Ignore whitespace in file comparisons
    --no-ads    Do not use commands that assume an Active Directory Server
";

/// A valid command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) nodes: Option<String>,
    pub(super) ignore_comments: bool,
    pub(super) ignore_blanks: bool,
    pub(super) no_ads: bool,
    /// `-l`, not in the usage, which is 4.17's: only this node, without ssh.
    pub(super) local: bool,
}

/// The usage is shown, after a reason when there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: Option<String>,
}

impl Arguments {
    pub(super) fn parse(args: &[OsString]) -> Result<Self, Refused> {
        let refused = |reason: String| Refused { reason: Some(reason) };
        let usage = Refused { reason: None };
        let mut parsed = Self::default();
        let (mut rest, mut surplus, mut help) = (args.iter(), false, false);
        while let Some(arg) = rest.next() {
            let bytes = arg.as_bytes();
            if bytes == b"--" {
                surplus |= rest.next().is_some();
                break;
            }
            if let Some(long) = bytes.strip_prefix(b"--") {
                let matches = |name: &str| name.as_bytes().starts_with(long);
                match (matches("no-ads"), matches("help")) {
                    (true, false) => parsed.no_ads = true,
                    (false, true) => help = true,
                    _ => {
                        let word = super::lossy(arg);
                        return Err(refused(format!("unrecognized option '{word}'")));
                    }
                }
                continue;
            }
            if bytes.len() < 2 || bytes[0] != b'-' {
                surplus = true;
                continue;
            }
            let mut letters = &bytes[1..];
            while let [letter, more @ ..] = letters {
                letters = more;
                match letter {
                    b'c' => parsed.ignore_comments = true,
                    b'w' => parsed.ignore_blanks = true,
                    b'l' => parsed.local = true,
                    b'h' => help = true,
                    b'n' => {
                        let value = if more.is_empty() {
                            rest.next().map(|word| word.as_bytes()).ok_or_else(|| {
                                refused("option requires an argument -- 'n'".to_owned())
                            })?
                        } else {
                            more
                        };
                        parsed.nodes = Some(String::from_utf8_lossy(value).into_owned());
                        letters = &[];
                    }
                    other => {
                        let letter = char::from(*other);
                        return Err(refused(format!("invalid option -- '{letter}'")));
                    }
                }
            }
        }
        if help || surplus { Err(usage) } else { Ok(parsed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Refused> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Arguments::parse(&args)
    }

    #[test]
    fn options_are_understood_in_all_their_forms() {
        let parsed = parse("-cw -n0,2 --no").unwrap();
        assert!(parsed.ignore_comments && parsed.ignore_blanks && parsed.no_ads);
        assert_eq!(parsed.nodes, Some("0,2".into()));
        assert_eq!(parse("-n ok").unwrap().nodes, Some("ok".into()));
    }

    #[test]
    fn everything_else_is_refused() {
        for line in ["-h", "--help", "x", "-- x", "-c x"] {
            assert_eq!(parse(line), Err(Refused { reason: None }), "{line}");
        }
        for line in ["-z", "--nosuch", "-n"] {
            assert!(parse(line).unwrap_err().reason.is_some(), "{line}");
        }
    }
}
