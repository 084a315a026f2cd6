//! `ping_pong`: tests how fast, and whether at all, a file system carries byte-range locks.
//!
//! Role: pass a lock along the bytes of a file, always taking the next before giving the last
//! back, so that instances on several nodes push each other around; print the rate once a second.
//! Invariants
//! - The file is opened once: closing any descriptor of it would drop the process's locks.
//! - What is printed, and where, is what C's prints; scripts of vendors read it.
//!
//! Origin: `ctdb/utils/ping_pong/ping_pong.c`; system calls and output taken from runs of 4.17;
//! `docs/spec/admin-interface.md` 2.7.

mod map;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cmdline::leading_number;
use crate::errno;
use crate::output::say;
use crate::posix_lock::{self, Holder, Range};
use map::SharedBytes;

const USAGE: &str = "\
ping_pong -rwmc <file> <num_locks>
ping_pong -l <file>

Options
 -r    do reads
 -w    do writes
 -m    use mmap
 -c    check locks
 -l    test for working byte range locks
";

/// A valid command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Arguments {
    reads: bool,
    writes: bool,
    mapped: bool,
    checks: bool,
    test_only: bool,
    operands: Vec<OsString>,
}

impl Arguments {
    /// GNU `getopt`: options anywhere before `--`. The error is the first unknown letter.
    fn parse(args: &[OsString], posixly_correct: bool) -> Result<Self, u8> {
        let mut parsed = Self::default();
        let mut rest = args.iter();
        for arg in rest.by_ref() {
            let bytes = arg.as_bytes();
            if bytes == b"--" {
                break;
            }
            if bytes.len() < 2 || bytes[0] != b'-' {
                parsed.operands.push(arg.clone());
                if posixly_correct {
                    break;
                }
                continue;
            }
            for &letter in &bytes[1..] {
                match letter {
                    b'r' => parsed.reads = true,
                    b'w' => parsed.writes = true,
                    b'm' => parsed.mapped = true,
                    b'c' => parsed.checks = true,
                    b'l' => parsed.test_only = true,
                    unknown => return Err(unknown),
                }
            }
        }
        parsed.operands.extend(rest.cloned());
        Ok(parsed)
    }
}

/// `atoi`, kept within what a file offset can be.
fn lock_count(text: &OsStr) -> i64 {
    leading_number(text).min(i64::from(i32::MAX))
}

/// The whole program; `args` begins with the program's name. Runs until it is interrupted.
#[must_use]
pub fn run(args: &[OsString], posixly_correct: bool) -> ExitCode {
    let (program, args) = match args.split_first() {
        Some((program, args)) => (program.to_string_lossy().into_owned(), args),
        None => (String::from("ping_pong"), args),
    };
    let arguments = match Arguments::parse(args, posixly_correct) {
        Ok(arguments) => arguments,
        Err(letter) => {
            let mut text = format!("{program}: invalid option -- '").into_bytes();
            text.push(letter);
            text.extend_from_slice(b"'\nUnknown option '?'\n");
            let _ = io::stderr().write_all(&text);
            return ExitCode::FAILURE;
        }
    };
    let operands = arguments.operands.as_slice();
    let needed = if arguments.test_only { 1 } else { 2 };
    // C makes the file before it looks for the second operand, so a missing one leaves it behind.
    let file = match operands.first().map(|path| open(Path::new(path))) {
        Some(None) => return ExitCode::FAILURE,
        Some(Some(file)) if operands.len() >= needed => file,
        Some(Some(_)) | None => {
            say(USAGE);
            return ExitCode::FAILURE;
        }
    };
    if arguments.test_only {
        return test_locks(&file);
    }
    let count = lock_count(&operands[1]);
    if count <= 0 {
        say("num_locks should be > 0\n");
        return ExitCode::FAILURE;
    }
    ping_pong(&arguments, &file, count)
}

fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).ok()
}

/// `-l`: the first instance holds the whole file until a key is pressed, the second tells who has
/// it.
fn test_locks(file: &File) -> ExitCode {
    const WHOLE_FILE: Range = Range { start: 0, len: 0 };
    if posix_lock::try_lock(file.as_fd(), WHOLE_FILE).is_err() {
        say("file already locked, calling check_lock to tell us who has it locked:\n");
        check_lock(file, WHOLE_FILE);
        say("Working POSIX byte range locks\n");
        return ExitCode::SUCCESS;
    }
    say("Holding lock, press any key to continue...\n");
    say("You should run the same command on another node now.\n");
    let _ = io::stdin().read(&mut [0]);
    say("Good bye.\n");
    ExitCode::SUCCESS
}

fn check_lock(file: &File, range: Range) {
    match posix_lock::holder(file.as_fd(), range) {
        Ok(None) => {}
        Ok(Some(Holder { pid, kind, start, len })) => say(format!(
            "check_lock failed: lock held: pid='{pid}', type='{kind}', start='{start}', \
             len='{len}'\n"
        )),
        Err(error) => say(format!("error calling fcntl F_GETLCK: {}\n", errno::text(&error))),
    }
}

fn ping_pong(arguments: &Arguments, file: &File, count: i64) -> ExitCode {
    let len = count.unsigned_abs() + 1;
    if let Err(error) = file.set_len(len) {
        say(format!("ftruncate failed: {}\n", errno::text(&error)));
        return ExitCode::SUCCESS;
    }
    let bytes = if arguments.mapped {
        match SharedBytes::map(file, len) {
            Ok(map) => Bytes::Mapped(map),
            Err(error) => {
                say(format!("mmap failed: {}\n", errno::text(&error)));
                return ExitCode::SUCCESS;
            }
        }
    } else {
        Bytes::File
    };
    if let Err(error) = posix_lock::lock(file.as_fd(), Range::byte(0)) {
        say(format!("initial lock at 0 failed! - {}\n", errno::text(&error)));
        return ExitCode::SUCCESS;
    }
    let run = Run { arguments, file, bytes, count };
    // Only a failing lock, read or write ends this; it has been reported.
    let _ = run.forever();
    ExitCode::FAILURE
}

enum Bytes {
    File,
    Mapped(SharedBytes),
}

struct Run<'a> {
    arguments: &'a Arguments,
    file: &'a File,
    bytes: Bytes,
    count: i64,
}

/// Reported already.
struct Failed;

impl Run<'_> {
    fn forever(&self) -> Result<std::convert::Infallible, Failed> {
        let mut seen = vec![0u8; usize::try_from(self.count).map_err(|_| Failed)?];
        let (mut at, mut rounds, mut locks) = (0usize, 0usize, 0u32);
        let (mut increment, mut increment_shown) = (0u8, 0u8);
        let mut since = Instant::now();
        loop {
            let next = (at + 1) % seen.len();
            let (here, there) = (Self::byte(at), Self::byte(next));
            posix_lock::lock(self.file.as_fd(), there)
                .map_err(|error| failed(&format!("lock at {next} failed! - "), &error))?;
            if self.arguments.checks {
                check_lock(self.file, here);
            }
            if self.arguments.reads {
                let value = self.read(at)?;
                increment = value.wrapping_sub(seen[at]);
                seen[at] = value;
            }
            if self.arguments.writes {
                self.write(at, seen[at].wrapping_add(1))?;
            }
            posix_lock::unlock(self.file.as_fd(), here)
                .map_err(|error| failed(&format!("unlock at {at} failed! - "), &error))?;
            at = next;
            locks = locks.wrapping_add(1);
            rounds = rounds.saturating_add(1);
            if rounds > seen.len() && increment != increment_shown {
                increment_shown = increment;
                say(format!("data increment = {increment}\n"));
            }
            if since.elapsed() > Duration::from_secs(1) {
                let rate = f64::from(locks) / since.elapsed().as_secs_f64();
                say(format!("{rate:8.0} locks/sec\r"));
                (since, locks) = (Instant::now(), 0);
            }
        }
    }

    fn byte(at: usize) -> Range {
        Range::byte(i64::try_from(at).expect("less than the number of locks, an i64"))
    }

    fn read(&self, at: usize) -> Result<u8, Failed> {
        match &self.bytes {
            Bytes::Mapped(map) => Ok(map.load(at)),
            Bytes::File => {
                let mut byte = [0];
                match self.file.read_at(&mut byte, at as u64) {
                    Ok(1) => Ok(byte[0]),
                    _ => {
                        say(format!("read failed at {at}\n"));
                        Err(Failed)
                    }
                }
            }
        }
    }

    fn write(&self, at: usize, value: u8) -> Result<(), Failed> {
        match &self.bytes {
            Bytes::Mapped(map) => map.store(at, value),
            Bytes::File => {
                if !matches!(self.file.write_at(&[value], at as u64), Ok(1)) {
                    say(format!("write failed at {at}\n"));
                    return Err(Failed);
                }
            }
        }
        Ok(())
    }
}

fn failed(what: &str, error: &io::Error) -> Failed {
    say(format!("{what}{}\n", errno::text(error)));
    Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, u8> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Arguments::parse(&args, false)
    }

    #[test]
    fn options_are_bundled_and_mix_with_operands() {
        let expected = Arguments {
            reads: true,
            writes: true,
            operands: vec!["f".into(), "3".into()],
            ..Arguments::default()
        };
        assert_eq!(parse("-rw f 3"), Ok(expected.clone()));
        assert_eq!(parse("f -r 3 -w"), Ok(expected));
        assert_eq!(parse("-rx f"), Err(b'x'));
        assert_eq!(parse("-- -x").map(|a| a.operands), Ok(vec!["-x".into()]));
    }

    #[test]
    fn the_number_of_locks_is_read_like_atoi() {
        for (text, count) in [("3x", 3), ("0x3", 0), ("abc", 0), (" 7", 7), ("-4", -4)] {
            assert_eq!(lock_count(OsStr::new(text)), count, "{text}");
        }
    }

    #[test]
    fn a_run_ends_with_the_first_write_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, [0; 3]).unwrap();
        let file = File::open(&path).unwrap();
        let arguments = Arguments { writes: true, ..Arguments::default() };
        let run = Run { arguments: &arguments, file: &file, bytes: Bytes::File, count: 2 };
        // A descriptor for reading takes no write lock either: whichever fails first ends it.
        assert!(run.forever().is_err());
    }
}
