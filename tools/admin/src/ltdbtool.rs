//! `ltdbtool`: shows the records of a CTDB database file, or copies them with another header.
//!
//! Role: the command line and what is done to each record. Files: `ringmaster-storage`.
//! Invariants
//! - Input files are only read, without locks; files of the other byte order too.
//! - The output file must not exist before.
//! - Standard output, standard error and exit status are those of C's tool. Two differences: what
//!   breaks off says why and fails, and a negative `-S` counts as a large one (C's tool then prints
//!   memory in front of the record).
//!
//! Origin: tried with `ltdbtool` 4.17; `docs/spec/admin-interface.md` 2.2.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::foreign::ForeignDatabase;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::open::{OpenError, OpenOptions, open};

use crate::errno;

/// Exit status of every failure.
const FAILED: u8 = 255;
/// Size of a record header, and of one on a 32-bit machine (no padding at the end).
const HEADER_LEN: usize = 24;
const HEADER_LEN_32: usize = 20;

const USAGE: &str = "\
Usage: ltdbtool dump [-e] [-p] [-s{0|32|64}] <idb>
       ltdbtool convert [-e] [-s{0|32|64}] [-o{0|32|64}] <idb> <odb>
       ltdbtool {help|-h}
";

const HELP: &str = "\
Usage: ltdbtool [options] <command>

Options:
   -s {0|32|64}    specify how to determine the ctdb record header size
                   for the input database:
                   0: no ctdb header
                   32: ctdb header size of a 32 bit system (20 bytes)
                   64: ctdb header size of a 64 bit system (24 bytes)
                   default: 32 or 64 depending on the system architecture

   -S <num>        the number of bytes to interpret as ctdb record header
                   for the input database (beware!)

   -o {0|32|64}    specify how to determine the ctdb record header size
                   for the output database
                   0: no ctdb header
                   32: ctdb header size of a 32 bit system (20 bytes)
                   64: ctdb header size of a 64 bit system (24 bytes)
                   default: 32 or 64 depending on the system architecture

   -O <num>        the number of bytes to interpret as ctdb record header
                   for the output database (beware!)

   -e              Include empty records, defaults to off

   -p              print header (for the dump command), defaults to off

   -h              print this help

Commands:
  help                         print this help
  dump <db>                    dump the db to stdout
  convert <in_db> <out_db>     convert the db

";

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    /// Bytes of header in the input, at most [`HEADER_LEN`].
    input_header: usize,
    /// The same for the output.
    output_header: usize,
    keep_empty: bool,
    print_header: bool,
    words: Vec<OsString>,
}

/// How a command line ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Early {
    Help,
    /// What to say before the usage.
    Usage(Vec<u8>),
}

/// Runs the tool; returns the exit status. `args` starts with the program's name.
pub fn run(args: &[OsString], posixly_correct: bool) -> u8 {
    let job = match parse(args, posixly_correct) {
        Ok(job) => job,
        Err(Early::Help) => return say_help(),
        Err(Early::Usage(complaint)) => return complain_usage(&complaint),
    };
    let words: Vec<&OsStr> = job.words.iter().map(OsString::as_os_str).collect();
    match words.as_slice() {
        [command, ..] if *command == "help" => say_help(),
        [command, input] if *command == "dump" => dump(&job, Path::new(input)),
        [command, input, output] if *command == "convert" => {
            convert(&job, Path::new(input), Path::new(output))
        }
        _ => complain_usage(b""),
    }
}

fn say_help() -> u8 {
    // Nobody is left to tell when standard output is closed.
    let _ = io::stdout().write_all(HELP.as_bytes());
    0
}

fn complain_usage(complaint: &[u8]) -> u8 {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(complaint).and_then(|()| stderr.write_all(USAGE.as_bytes()));
    FAILED
}

/// Reads options as `getopt(3)` does.
fn parse(args: &[OsString], posixly_correct: bool) -> Result<Job, Early> {
    let program = args.first().map_or(&b"ltdbtool"[..], |name| name.as_bytes());
    let complain = |what: &str, option: u8| {
        let text = [program, b": ", what.as_bytes(), b" -- '", &[option], b"'\n"].concat();
        Early::Usage(text)
    };
    let mut job = Job {
        input_header: HEADER_LEN,
        output_header: HEADER_LEN,
        keep_empty: false,
        print_header: false,
        words: Vec::new(),
    };
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            break;
        }
        if bytes.first() != Some(&b'-') || bytes.len() == 1 {
            job.words.push(arg.clone());
            if posixly_correct {
                break;
            }
            continue;
        }
        let mut letters = &bytes[1..];
        while let Some((option, rest)) = letters.split_first() {
            letters = rest;
            match option {
                b'e' => job.keep_empty = true,
                b'p' => job.print_header = true,
                b'h' => return Err(Early::Help),
                b's' | b'S' | b'o' | b'O' => {
                    let value = if rest.is_empty() {
                        let next = args.next();
                        next.ok_or_else(|| complain("option requires an argument", *option))?
                            .as_bytes()
                    } else {
                        rest
                    };
                    letters = &[];
                    let number = number(value);
                    let len = match option {
                        b's' | b'o' => named_len(number).ok_or(Early::Usage(Vec::new()))?,
                        _ => usize::try_from(number).unwrap_or(HEADER_LEN).min(HEADER_LEN),
                    };
                    match option {
                        b's' | b'S' => job.input_header = len,
                        _ => job.output_header = len,
                    }
                }
                other => return Err(complain("invalid option", *other)),
            }
        }
    }
    job.words.extend(args.cloned());
    Ok(job)
}

/// Header size of a kind of machine.
fn named_len(kind: u64) -> Option<usize> {
    match kind {
        0 => Some(0),
        32 => Some(HEADER_LEN_32),
        64 => Some(HEADER_LEN),
        _ => None,
    }
}

/// A number as `strtoul(3)` reads it: leading blanks, a sign, digits, whatever follows; 0 without
/// digits, the largest number instead of an overflow.
fn number(text: &[u8]) -> u64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let mut value = Some(0_u64);
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    }
    match value {
        None => u64::MAX,
        Some(value) if negative => value.wrapping_neg(),
        Some(value) => value,
    }
}

/// An input file of either byte order.
enum Input {
    Native(Box<Handle>),
    Foreign(Box<ForeignDatabase>),
}

impl Input {
    fn open(path: &Path) -> Result<Self, String> {
        match open(path, &OpenOptions::read_only()) {
            Ok(handle) => Ok(Self::Native(Box::new(handle))),
            Err(OpenError::ForeignOrder { .. }) => match ForeignDatabase::open(path) {
                Ok(database) => Ok(Self::Foreign(Box::new(database))),
                Err(_) => Err(errno::name(libc::EIO)),
            },
            // libtdb fails here without setting errno.
            Err(OpenError::NeedsRecovery { .. }) => Err("Success".to_owned()),
            Err(error) => Err(errno::name(error.errno())),
        }
    }

    fn for_each(&mut self, visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), String> {
        match self {
            Self::Native(handle) => {
                handle.for_each(visit).map(|_count| ()).map_err(|error| error.to_string())
            }
            Self::Foreign(database) => database.for_each(visit).map_err(|error| error.to_string()),
        }
    }
}

fn open_input(path: &Path) -> Option<Input> {
    let opened = Input::open(path);
    if let Err(reason) = &opened {
        let _ = writeln!(io::stderr(), "tdbopen in: {reason}");
    }
    opened.ok()
}

/// The header of a record with its padding, and where it does not reach, C's default.
struct RecordHeader([u8; HEADER_LEN]);

impl RecordHeader {
    /// The first `len` bytes of the value; `None` (and a complaint) if it has fewer.
    fn of(key: &[u8], value: &[u8], len: usize) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN];
        bytes[8..12].fill(0xFF); // dmaster -1
        let Some(found) = value.get(..len) else {
            let mut text = b"Value too short to contain a ctdb header: ".to_vec();
            text.extend_from_slice(&quoted(key));
            text.extend_from_slice(b" = ");
            text.extend_from_slice(&quoted(value));
            text.push(b'\n');
            let _ = io::stderr().write_all(&text);
            return None;
        };
        bytes[..len].copy_from_slice(found);
        if bytes[HEADER_LEN_32..] != [0; HEADER_LEN - HEADER_LEN_32] {
            let warning = b"Warning: header padding isn't zero! Wrong header size?\n";
            let _ = io::stderr().write_all(warning);
        }
        Some(Self(bytes))
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(word)
    }

    fn print(&self, out: &mut Vec<u8>) {
        let mut rsn = [0; 8];
        rsn.copy_from_slice(&self.0[..8]);
        let (rsn, dmaster, flags) =
            (u64::from_ne_bytes(rsn), self.word(8).cast_signed(), self.word(16));
        out.extend_from_slice(
            format!("dmaster: {dmaster}\nrsn: {rsn}\nflags: 0x{flags:X}\n").as_bytes(),
        );
    }
}

/// Bytes in quotes; those that are no printable ASCII, quotes and backslashes as `\XX`.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = vec![b'"'];
    for byte in bytes {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            text.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            text.extend_from_slice(&[b'\\', DIGITS[high], DIGITS[low]]);
        }
    }
    text.push(b'"');
    text
}

fn dump(job: &Job, path: &Path) -> u8 {
    let Some(mut input) = open_input(path) else { return FAILED };
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut text = Vec::new();
    let read = input.for_each(|key, value| {
        let Some(header) = RecordHeader::of(key, value, job.input_header) else { return false };
        let data = &value[job.input_header..];
        if data.is_empty() && !job.keep_empty {
            return true;
        }
        text.clear();
        text.extend_from_slice(format!("{{\nkey({}) = ", key.len()).as_bytes());
        text.extend_from_slice(&quoted(key));
        text.push(b'\n');
        if job.print_header {
            header.print(&mut text);
        }
        text.extend_from_slice(format!("data({}) = ", data.len()).as_bytes());
        text.extend_from_slice(&quoted(data));
        text.extend_from_slice(b"\n}\n");
        stdout.write_all(&text).is_ok()
    });
    // Nobody is left to tell when standard output is closed.
    let _ = stdout.flush();
    ended(read)
}

fn convert(job: &Job, input: &Path, output: &Path) -> u8 {
    let Some(mut input) = open_input(input) else { return FAILED };
    let options = OpenOptions { exclusive: true, ..OpenOptions::create(0, Flags::DEFAULT) };
    let mut target = match open(output, &options) {
        Ok(target) => target,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tdbopen out: {}", errno::name(error.errno()));
            return FAILED;
        }
    };
    let mut failed = None;
    let read = input.for_each(|key, value| {
        let Some(header) = RecordHeader::of(key, value, job.input_header) else { return false };
        let data = &value[job.input_header..];
        if data.is_empty() && !job.keep_empty {
            return true;
        }
        let header = &header.0[..job.output_header];
        match target.store(key, &[header, data], StoreMode::Replace) {
            Ok(Stored::Done) => true,
            Ok(_) => {
                failed = Some("the output is locked by somebody else".to_owned());
                false
            }
            Err(error) => {
                failed = Some(format!("cannot store a record: {error}"));
                false
            }
        }
    });
    ended(failed.map_or(read, Err))
}

fn ended(outcome: Result<(), String>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Job, Early> {
        let args: Vec<_> = ["ltdbtool"].iter().chain(words).map(OsString::from).collect();
        parse(&args, false)
    }

    #[test]
    fn numbers_are_read_as_the_c_library_reads_them() {
        for (text, value) in [
            ("64", 64),
            (" 064x", 64),
            ("+32", 32),
            ("", 0),
            ("abc", 0),
            ("0x20", 0),
            ("-1", u64::MAX),
            ("99999999999999999999", u64::MAX),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn options_may_be_bundled_stand_anywhere_and_end_with_two_dashes() {
        let job = parsed(&["dump", "-pes32", "--", "-e"]).unwrap();
        assert!(job.print_header && job.keep_empty);
        assert_eq!((job.input_header, job.output_header), (20, 24));
        assert_eq!(job.words, ["dump", "-e"]);
        assert_eq!(parsed(&["-S", "999"]).unwrap().input_header, 24);
        assert_eq!(parsed(&["-s", "5"]), Err(Early::Usage(Vec::new())));
        assert_eq!(parsed(&["-h", "-x"]), Err(Early::Help));
        assert!(matches!(parsed(&["-x", "-h"]), Err(Early::Usage(_))));
    }

    #[test]
    fn unprintable_bytes_quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted(b"a\"\\\n\x7f\xff~ "), b"\"a\\22\\5C\\0A\\7F\\FF~ \"");
    }
}
