//! `ctdb-eventd -P PID -S FD`.
//!
//! Origin: `docs/spec/wire-protocol.md` 8.1; `docs/spec/cluster-semantics.md` 10.1.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::FromRawFd,
};

use rustix::io::FdFlags;

const USAGE: &str = "\
Usage: ctdb-eventd [-P PID] [-S FD]
  -P, --pid=PID         end when this process ends
  -S, --startup-fd=FD   write four zero bytes to this descriptor when ready
";

/// The command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// The process to end with.
    pub(super) watched: Option<i32>,
    startup_fd: Option<i32>,
}

impl Arguments {
    /// # Errors
    /// Text for standard error.
    pub(super) fn parse(args: &[OsString]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut words = args.iter().map(|arg| arg.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let target = match name {
                "-P" | "--pid" => &mut parsed.watched,
                "-S" | "--startup-fd" => &mut parsed.startup_fd,
                _ => return Err(format!("ctdb-eventd: no option {word}\n{USAGE}")),
            };
            let value = value.or_else(|| words.next()).unwrap_or_default();
            let number = value.parse().ok().filter(|number: &i32| *number >= 0);
            let bad = || format!("ctdb-eventd: {name} wants a number, not '{value}'\n{USAGE}");
            *target = Some(number.ok_or_else(bad)?);
        }
        Ok(parsed)
    }

    /// Tells whoever started us that the socket is there. Keep what is returned: its end tells them
    /// that we are gone.
    ///
    /// # Errors
    /// What could not be written where.
    pub(super) fn say_ready(self) -> Result<Option<File>, String> {
        let Some(fd) = self.startup_fd else { return Ok(None) };
        let failed =
            |error: io::Error| format!("cannot write to the start-up descriptor {fd}: {error}");
        // Whether it is open at all is asked through its name, which needs no trust.
        std::fs::metadata(format!("/proc/self/fd/{fd}")).map_err(failed)?;
        // SAFETY: the descriptor is open (above) and was made for us by whoever started us; this
        // process got its number from the command line and opens it here for the first time.
        let mut pipe = unsafe { File::from_raw_fd(fd) };
        // Scripts must not keep it open when we are gone.
        rustix::io::fcntl_setfd(&pipe, FdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        pipe.write_all(&0_u32.to_ne_bytes()).map_err(failed)?;
        Ok(Some(pipe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_have_two_forms() {
        let expected = Ok(Arguments { watched: Some(7), startup_fd: Some(3) });
        assert_eq!(parsed(&["-P", "7", "-S", "3"]), expected);
        assert_eq!(parsed(&["--pid=7", "--startup-fd=3"]), expected);
        assert_eq!(parsed(&[]), Ok(Arguments::default()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(parsed(&["-P", "x"]).unwrap_err().contains("'x'"));
        assert!(parsed(&["-S"]).unwrap_err().contains("-S"));
        assert!(parsed(&["--fast"]).unwrap_err().contains("--fast"));
    }
}
