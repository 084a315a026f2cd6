//! `ctdb_mutex_fcntl_helper`: what it says, and that both programs exclude each other.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};

use super::world::{Pair, World, nothing, pair, spawn, words};

fn programs() -> Option<Pair> {
    pair("/usr/libexec/ctdb/ctdb_mutex_fcntl_helper", env!("CARGO_BIN_EXE_ctdb_mutex_fcntl_helper"))
}

#[test]
fn command_lines_that_end_answer_as_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    for line in [
        "",
        "a b c d",
        "lock x",
        "lock -1",
        "lock \"\"",
        "lock 99999999999999999999",
        "lock 5 x",
        "lock 5 -1",
        "/nonexistent/x",
        ".",
        "\"\"",
        "/nonexistent/x 5x 6",
    ] {
        world.compare(&pair, &words(line), &nothing);
    }
}

/// Started, and has said its character.
struct Holder {
    child: Child,
    said: u8,
}

impl Holder {
    fn start(world: &World, program: &Path, args: &[&str]) -> Self {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let mut command = world.command(program, &args);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut said = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self { child, said: said[0] }
    }

    /// Waits for the end and returns what it wrote to standard error.
    fn complaint(mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        text
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn both_programs_exclude_each_other_and_themselves() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    for holder in [&pair.theirs, &pair.ours] {
        for other in [&pair.theirs, &pair.ours] {
            world.rebuild(&nothing);
            let held = Holder::start(&world, holder, &["lock", "1"]);
            assert_eq!(held.said, b'0');
            let contender = Holder::start(&world, other, &["lock"]);
            assert_eq!(contender.said, b'1');
            assert_eq!(contender.complaint(), "");
            held.kill();
            let heir = Holder::start(&world, other, &["lock", "0"]);
            assert_eq!(heir.said, b'0');
            heir.kill();
        }
    }
}

#[test]
fn a_lock_file_that_vanished_or_was_replaced_ends_both_programs_with_the_same_words() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    let lose = |program: &Path, replace: bool| {
        world.rebuild(&nothing);
        let held = Holder::start(&world, program, &["lock", "1"]);
        let path = world.root().join("lock");
        std::fs::rename(&path, world.root().join("away")).unwrap();
        if replace {
            std::fs::write(&path, "").unwrap();
        }
        held.complaint()
    };
    for replace in [false, true] {
        let ours = lose(&pair.ours, replace);
        assert_eq!(ours, lose(&pair.theirs, replace));
        assert!(ours.contains("lock lost"), "{ours}");
    }
}

#[test]
fn a_holder_whose_parent_is_gone_gives_up_the_lock() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    world.rebuild(&nothing);
    let script = "\"$0\" lock 1 </dev/null & read -r line; exit 0";
    let mut shell = world.command(Path::new("/bin/sh"), &[]);
    shell.args(["-c", script]).arg(&pair.ours);
    let mut shell = spawn(shell.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut said = [0];
    let mut stdout = shell.stdout.take().unwrap();
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(said, *b"0");
    drop(shell.stdin.take());
    shell.wait().unwrap();
    // The holder keeps the pipe open until it ends.
    assert_eq!(stdout.read(&mut said).unwrap(), 0);
    let heir = Holder::start(&world, &pair.theirs, &["lock", "0"]);
    assert_eq!(heir.said, b'0');
    heir.kill();
}

#[test]
fn a_ping_timeout_of_one_second_does_not_lose_a_good_lock() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    world.rebuild(&nothing);
    // Debian's gives up here at once: its sign of life comes just when the second is over.
    let mut held = Holder::start(&world, &pair.ours, &["lock", "1", "1"]);
    std::fs::remove_file(world.root().join("lock")).unwrap();
    let mut text = String::new();
    held.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    held.child.wait().unwrap();
    assert!(text.contains("open failed (ret=2)"), "{text}");
}
