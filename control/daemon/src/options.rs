//! The daemon's command line: C's, and `--check-config`.
//!
//! Origin: `docs/spec/admin-interface.md` 3.8.

use std::ffi::OsString;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Serve, in the background.
    Daemon,
    /// Serve, in the foreground; the log goes to standard error.
    Interactive,
    /// Say what is wrong with the configuration.
    CheckConfig,
    /// Print help; exit with 0 if asked for.
    Help { asked: bool },
    /// Print usage; exit with 0.
    Usage,
}

/// C's help, and ours.
pub(crate) const HELP: &str = "\
Usage: ctdbd [OPTION...]
  -i, --interactive     don't fork, log to stderr
      --check-config    read all configuration files, say what is wrong in which
                        line and how to mend it, and exit

Help options:
  -?, --help            Show this help message
      --usage           Display brief usage message
";

/// C's usage, and ours.
pub(crate) const USAGE: &str =
    "Usage: ctdbd [-i?] [-i|--interactive] [--check-config] [-?|--help] [--usage]\n";

/// Reads the command line. Surplus words and unknown options show the help, as in C.
pub(crate) fn parse(args: &[OsString]) -> Run {
    let mut run = Run::Daemon;
    for arg in args {
        match arg.to_str() {
            Some("-i" | "--interactive") => run = Run::Interactive,
            Some("--check-config") => return Run::CheckConfig,
            Some("-?" | "--help") => return Run::Help { asked: true },
            Some("--usage") => return Run::Usage,
            _ => return Run::Help { asked: false },
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Run {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_cs_and_one_more() {
        assert_eq!(parsed(&[]), Run::Daemon);
        assert_eq!(parsed(&["-i"]), Run::Interactive);
        assert_eq!(parsed(&["--interactive"]), Run::Interactive);
        assert_eq!(parsed(&["--check-config"]), Run::CheckConfig);
        assert_eq!(parsed(&["--help"]), Run::Help { asked: true });
        assert_eq!(parsed(&["surplus"]), Run::Help { asked: false });
        assert_eq!(parsed(&["-i", "surplus"]), Run::Help { asked: false });
    }
}
