//! The command line, by the rules of the shell's `getopts`: options end at the first other word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A valid command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// `-c`
    pub(super) current_directory: bool,
    /// `-f`
    pub(super) nodes_file: Option<OsString>,
    /// `-i`
    pub(super) stdin: bool,
    /// `-n`
    pub(super) names: bool,
    /// `-p`
    pub(super) parallel: bool,
    /// `-P`
    pub(super) push: bool,
    /// `-q`
    pub(super) quiet: bool,
    /// `-v`
    pub(super) verbose: bool,
    /// Node specification.
    pub(super) nodes: OsString,
    /// The rest, joined by blanks.
    pub(super) command: OsString,
}

/// Why the usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// `-h`, `-?` or too few words.
    Usage,
    BadOption {
        reason: &'static str,
        letter: u8,
    },
}

impl Arguments {
    pub(super) fn parse(args: &[OsString]) -> Result<Self, Refused> {
        let mut parsed = Self::default();
        let mut rest = args;
        while let [first, tail @ ..] = rest {
            let bytes = first.as_bytes();
            if bytes.len() < 2 || bytes[0] != b'-' {
                break;
            }
            rest = tail;
            if bytes == b"--" {
                break;
            }
            let mut letters = &bytes[1..];
            while let [letter, more @ ..] = letters {
                letters = more;
                match letter {
                    b'c' => parsed.current_directory = true,
                    b'n' => parsed.names = true,
                    b'p' => parsed.parallel = true,
                    b'q' => parsed.quiet = true,
                    b'v' => parsed.verbose = true,
                    b'P' => parsed.push = true,
                    b'i' => parsed.stdin = true,
                    b'h' | b'?' => return Err(Refused::Usage),
                    b'f' if !more.is_empty() => {
                        parsed.nodes_file = Some(OsString::from_vec(more.to_vec()));
                        letters = &[];
                    }
                    b'f' => {
                        let [file, after @ ..] = rest else {
                            let reason = "option requires an argument";
                            return Err(Refused::BadOption { reason, letter: b'f' });
                        };
                        parsed.nodes_file = Some(file.clone());
                        rest = after;
                    }
                    &letter => {
                        return Err(Refused::BadOption { reason: "illegal option", letter });
                    }
                }
            }
        }
        let [nodes, command @ ..] = rest else { return Err(Refused::Usage) };
        if command.is_empty() {
            return Err(Refused::Usage);
        }
        parsed.nodes.clone_from(nodes);
        parsed.command = command.join(OsStr::new(" "));
        Ok(parsed)
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
    fn options_end_at_the_first_other_word() {
        let parsed = parse("-pq -ffile -c 0 ls -l -v").unwrap();
        assert!(parsed.parallel && parsed.quiet && parsed.current_directory && !parsed.verbose);
        assert_eq!(parsed.nodes_file, Some("file".into()));
        assert_eq!((parsed.nodes, parsed.command), ("0".into(), "ls -l -v".into()));
    }

    #[test]
    fn a_double_dash_ends_the_options() {
        let parsed = parse("-f x -- -n ls").unwrap();
        assert_eq!((parsed.nodes, parsed.names), ("-n".into(), false));
    }

    #[test]
    fn too_few_words_and_bad_options_are_refused() {
        for line in ["-h", "-?", "0", "-p 0", ""] {
            assert_eq!(parse(line), Err(Refused::Usage), "{line}");
        }
        assert_eq!(
            parse("-pz 0 x"),
            Err(Refused::BadOption { reason: "illegal option", letter: b'z' })
        );
        assert_eq!(
            parse("-f"),
            Err(Refused::BadOption { reason: "option requires an argument", letter: b'f' })
        );
    }
}
