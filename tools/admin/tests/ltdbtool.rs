//! The same command lines, run with Debian's `ltdbtool` and with ours: both streams, exit status
//! and the records of converted files must be the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its surroundings must fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::open::{OpenOptions, open};

const THEIRS: &str = "/usr/bin/ltdbtool";

fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ltdbtool"))
}

/// `false`: the C tool is missing, and the test is skipped.
fn have_c() -> bool {
    let found = Path::new(THEIRS).exists();
    if !found {
        assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "skipped: no {THEIRS}");
        println!("skipped: no {THEIRS} (package ctdb)");
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs a tool under the name `ltdbtool` in a directory, so that file names look the same.
fn run(program: &Path, directory: &Path, args: &[&str], posixly_correct: bool) -> Outcome {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.arg0("ltdbtool").args(args).current_dir(directory).env_remove("POSIXLY_CORRECT");
    if posixly_correct {
        command.env("POSIXLY_CORRECT", "1");
    }
    let output = command.output().unwrap();
    Outcome {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn header(rsn: u64, dmaster: u32, first: u32, flags: u32, padding: u32) -> Vec<u8> {
    let mut bytes = rsn.to_le_bytes().to_vec();
    for word in [dmaster, first, flags, padding] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Files with headers, without, too short for one, with padding that is not zero, and the samples.
fn prepare(directory: &Path) {
    let file = |name: &str, records: &[(&[u8], Vec<u8>)]| {
        let mut handle =
            open(&directory.join(name), &OpenOptions::create(7, Flags::DEFAULT)).unwrap();
        for (key, value) in records {
            let stored = handle.store(key, &[value], StoreMode::Insert).unwrap();
            assert_eq!(stored, Stored::Done);
        }
    };
    let text = b"payload \"quoted\" \\ back\n\t\x7f\x80 end";
    let usual: Vec<(&[u8], Vec<u8>)> = vec![
        (b"one", [header(1, 2, 3, 4, 0), text.to_vec()].concat()),
        (b"large", [header(u64::MAX, u32::MAX, 7, 0x8000_0001, 0), vec![0; 300]].concat()),
        (b"empty", header(9, 9, 9, 9, 0)),
        (b"", [header(1, 1, 1, 1, 0), b"empty key".to_vec()].concat()),
    ];
    file("usual.tdb", &usual);
    let mut padded = usual.clone();
    padded.push((b"padded", [header(1 << 63, 5, 7, 9, 9), b"v".to_vec()].concat()));
    file("padded.tdb", &padded);
    file("short.tdb", &[(b"short", header(1, 2, 3, 4, 0)[..20].to_vec()), (b"k", vec![])]);
    file("none.tdb", &[]);
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../storage/tests/samples");
    for name in [
        "ctdb-records-7.tdb",
        "two-bigendian-3.tdb",
        "two-bigendian-jenkins-3.tdb",
        "mutex-3.tdb",
        "emptykey-3.tdb",
        "tx4-died-after-magic-3.tdb",
    ] {
        std::fs::copy(samples.join(name), directory.join(name)).unwrap();
    }
    std::fs::write(directory.join("text"), b"this is no database at all").unwrap();
    std::fs::write(directory.join("zero"), b"").unwrap();
    std::fs::create_dir(directory.join("dir")).unwrap();
}

const FILES: [&str; 14] = [
    "usual.tdb",
    "padded.tdb",
    "short.tdb",
    "none.tdb",
    "ctdb-records-7.tdb",
    "two-bigendian-3.tdb",
    "two-bigendian-jenkins-3.tdb",
    "mutex-3.tdb",
    "emptykey-3.tdb",
    "tx4-died-after-magic-3.tdb",
    "text",
    "zero",
    "dir",
    "missing.tdb",
];

// Not compared: a negative `-S`, with which C's tool prints memory in front of the record.
#[test]
fn dumps_are_those_of_the_c_tool() {
    if !have_c() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    for name in FILES {
        for options in [
            "",
            "-e",
            "-p",
            "-e -p",
            "-pe -s 0",
            "-pes32",
            "-s64",
            "-p -S 22 -e",
            "-S abc",
            "-S 10 -p",
            "-S 99 -e",
            "-o 32",
            "-s 064",
            "-s +32 -p",
        ] {
            let mut args: Vec<_> = options.split_whitespace().collect();
            args.extend(["dump", name]);
            let expected = run(Path::new(THEIRS), directory.path(), &args, false);
            let found = run(&ours(), directory.path(), &args, false);
            assert_eq!(found, expected, "ltdbtool {args:?}");
        }
    }
}

#[test]
fn command_lines_are_understood_as_the_c_tool_understands_them() {
    if !have_c() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    for line in [
        "",
        "dump",
        "dump usual.tdb extra",
        "convert usual.tdb",
        "convert a b c",
        "foo",
        "help",
        "help foo",
        "-h",
        "-h -x",
        "-x -h",
        "-x",
        "--help",
        "-s",
        "-s 5",
        "-s 5 -h",
        "-o 33",
        "-S",
        "-O",
        "-e help",
        "dump -p usual.tdb",
        "dump -- usual.tdb",
        "-- dump usual.tdb",
        "- dump",
        "dump -",
        "-s 4294967328 dump usual.tdb",
        "-pz dump usual.tdb",
        "-e-p dump usual.tdb",
        "convert missing.tdb out.tdb",
        "convert usual.tdb none.tdb",
        "convert usual.tdb dir",
        "convert usual.tdb nowhere/out.tdb",
        "convert text none.tdb",
    ] {
        for posixly_correct in [false, true] {
            let args: Vec<_> = line.split_whitespace().collect();
            let expected = run(Path::new(THEIRS), directory.path(), &args, posixly_correct);
            let found = run(&ours(), directory.path(), &args, posixly_correct);
            assert_eq!(found, expected, "ltdbtool {line}, POSIXLY_CORRECT {posixly_correct}");
        }
    }
}

#[test]
fn converted_files_are_those_of_the_c_tool_byte_for_byte() {
    if !have_c() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let output = directory.path().join("out.tdb");
    for name in FILES {
        for options in [
            "",
            "-e",
            "-s 0 -o 64",
            "-s 0 -o 32 -e",
            "-o 0",
            "-e -o 32",
            "-e -s 32 -o 64",
            "-S 22 -O 5 -e",
            "-O 40",
            "-S 8 -o 64",
        ] {
            let mut args: Vec<_> = options.split_whitespace().collect();
            args.extend(["convert", name, "out.tdb"]);
            let convert = |program: &Path| {
                let outcome = run(program, directory.path(), &args, false);
                let file = std::fs::read(&output).ok();
                if file.is_some() {
                    std::fs::remove_file(&output).unwrap();
                }
                (outcome, file)
            };
            let (expected, their_file) = convert(Path::new(THEIRS));
            let (found, our_file) = convert(&ours());
            assert_eq!(found, expected, "ltdbtool {args:?}");
            assert!(our_file == their_file, "ltdbtool {args:?}: another file");
        }
    }
}

#[test]
fn a_chain_that_breaks_off_fails_the_dump() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken.tdb");
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../storage/tests/samples");
    let mut image = std::fs::read(samples.join("two-oldhash-3.tdb")).unwrap();
    // The next record of the only chain lies outside the file.
    image[4024..4028].copy_from_slice(&0x7FFF_FFF0_u32.to_le_bytes());
    std::fs::write(&file, &image).unwrap();
    let found = run(&ours(), directory.path(), &["-s0", "dump", "broken.tdb"], false);
    assert_eq!(found.status, Some(255));
    assert!(!found.stderr.is_empty(), "C's tool fails without a word; ours gives the reason");
}
