//! `onnode`, with stand-ins for ssh, rsync and ctdb.

use super::world::{Pair, World, output, pair, spawn, words};

/// Says how it was called and runs the command here, except on hosts called `bad…`.
const SSH: &str = "#!/bin/sh
echo \"ssh got: $*\"
[ \"$1\" = -n ] && shift
node=$1; shift
case $node in bad*) exit 7;; esac
eval \"$*\"
";

const CTDB: &str = "#!/bin/sh
base=${0%/bin/ctdb}
[ -e \"$base/broken\" ] && { echo no daemon; exit 3; }
case \"$*\" in
pnn) echo nonsense >&2; echo 2 ;;
'-X status') cat \"$base/status\" ;;
esac
";

const STATUS: &str = "|Node|IP|Disconnected|Unknown|Banned|Disabled|Unhealthy|Stopped|Inactive|\
PartiallyOnline|ThisNode|
|0|10.0.0.1|0|0|0|0|0|0|0|0|Y|
|2|10.0.0.3|0|0|0|0|1|0|0|0|N|
|4|10.0.0.5|1|0|0|0|0|0|1|0|N|
|5|10.0.0.6|0|0|0|0|0|0|0|1|N|
";

fn files(world: &World) {
    world.file("nodes", "10.0.0.1\n#10.0.0.2\n10.0.0.3 # x\n\n10.0.0.5\n 10.0.0.6", 0o644);
    world.file("others", "#\nbad1\nhere\n#\n", 0o644);
    world.file("bin/ssh", SSH, 0o755);
    world.file("bin/rsync", "#!/bin/sh\necho \"rsync($RSYNC_RSH) $*\"\nexit 4\n", 0o755);
    world.file("bin/ctdb", CTDB, 0o755);
    world.file("status", STATUS, 0o644);
}

fn world() -> Option<(Pair, World)> {
    let pair = pair("/usr/bin/onnode", env!("CARGO_BIN_EXE_onnode"))?;
    let mut world = World::new();
    let mut path = world.base().join("bin").into_os_string();
    path.push(":/usr/bin:/bin");
    world.set("PATH", path);
    Some((pair, world))
}

#[test]
fn specifications_options_and_errors_answer_as_debians() {
    let Some((pair, world)) = world() else { return };
    for line in [
        "",
        "-h",
        "-?",
        "0",
        "-z",
        "-f",
        "-pz 0 x",
        "all echo hi",
        "0 echo hi",
        "ok echo x",
        "healthy echo x",
        "con echo x",
        "connected echo x",
        "any echo x",
        "1 echo x",
        "9 echo x",
        "09 echo x",
        "0,4 echo x",
        "0-2 echo x",
        "4-5 echo x",
        "2-0 echo x",
        "foo echo x",
        "-n bad1,foo echo x",
        "-n foo-bar echo x",
        "\"\" echo x",
        "0, echo x",
        "0,,4 echo x",
        "1234 echo x",
        "+1 echo x",
        "1-2-3 echo x",
        "-q all echo x",
        "-v 0 echo x",
        "-qv 0 echo x",
        "-f others all echo x",
        "-fothers 1,2 echo x",
        "-f others 2 echo x",
        "-f nofile 0 echo x",
        "-f /nonexistent/x 0 echo x",
        "-c 0 pwd",
        "-i 0 cat",
        "-p 0 echo x",
        "-pi 0 cat",
        "-- 0 echo -n x",
        "0 exit 5",
        "all exit 5",
        "ok,9 echo x",
        "-P 0 /a b",
        "-Pv 0 /a",
        "-P 0,4 a",
        "-Pq 0,4 a",
        "-Pp 0 a",
        "ok,con,0 echo x",
    ] {
        world.compare(&pair, &words(line), &files);
    }
}

#[test]
fn the_way_to_a_node_is_configured_as_for_debians() {
    let Some((pair, mut world)) = world() else { return };
    let with_conf = |conf: &'static str| {
        move |world: &World| {
            files(world);
            world.file("onnode.conf", conf, 0o644);
        }
    };
    let function = with_conf("mine () { echo \"mine $*\"; return 9; }\nONNODE_SSH=mine\n");
    world.compare(&pair, &["0,4", "echo", "x"], &function);
    world.compare(&pair, &["-v", "-i", "0", "cat"], &function);
    world.compare(&pair, &["0", "echo", "x"], &with_conf("# nothing\n"));
    let mut ssh = world.base().join("bin/ssh").into_os_string();
    ssh.push("  first second");
    world.set("ONNODE_SSH", ssh);
    world.compare(&pair, &["0", "echo", "x"], &files);
    world.compare(&pair, &["-P", "0", "/a"], &files);
    world.set("ONNODE_SSH", "");
    world.compare(&pair, &["0", "echo", "x"], &files);
}

#[test]
fn a_cluster_that_does_not_answer_is_reported_as_by_debians() {
    let Some((pair, world)) = world() else { return };
    let broken = |world: &World| {
        files(world);
        world.file("broken", "", 0o644);
    };
    for line in ["ok echo x", "any echo x", "0,con echo x", "all echo x"] {
        world.compare(&pair, &words(line), &broken);
    }
    let no_nodes = |world: &World| {
        files(world);
        std::fs::remove_file(world.base().join("nodes")).unwrap();
    };
    for line in ["all echo x", "foo echo x", "-n foo echo x"] {
        world.compare(&pair, &words(line), &no_nodes);
    }
    let empty = |world: &World| {
        files(world);
        world.file("nodes", "", 0o644);
    };
    for line in ["all echo x", "0 echo x", "-p all echo x"] {
        world.compare(&pair, &words(line), &empty);
    }
}

#[test]
fn parallel_lines_carry_the_node_and_the_status_is_the_last_bad_one() {
    let Some((pair, world)) = world() else { return };
    for program in [&pair.theirs, &pair.ours] {
        world.rebuild(&files);
        let args =
            ["-p", "-n", "all,bad2", "echo a; echo b >&2; printf c"].map(std::ffi::OsStr::new);
        let output = output(&mut world.command(program, &args));
        assert_eq!(output.status.code(), Some(7), "{}", program.display());
        assert_eq!(output.stderr, b"");
        // Nodes finish in any order, but each one's lines come in order.
        let text = String::from_utf8(output.stdout).unwrap();
        for node in ["10.0.0.1", "10.0.0.3", "10.0.0.5", "10.0.0.6"] {
            let at = |line: &str| text.find(&format!("[{node}] {line}"));
            let order = [at("ssh got: -n"), at("a\n"), at("b\n"), at("c")];
            assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{text}");
        }
        assert!(text.contains("[bad2] ssh got: -n bad2"), "{text}");
    }
}

#[test]
fn a_signal_ends_the_remote_commands_of_a_parallel_run() {
    use std::io::{BufRead, BufReader};
    let Some((pair, world)) = world() else { return };
    world.rebuild(&files);
    let args = ["-p", "0,4", "echo up; exec sleep 1000"].map(std::ffi::OsStr::new);
    let mut command = world.command(&pair.ours, &args);
    let mut child = spawn(command.stdout(std::process::Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut up = 0;
    while up < 2 {
        up += usize::from(lines.next().unwrap().unwrap().ends_with("up"));
    }
    let kill = format!("kill -TERM {}", child.id());
    assert!(output(std::process::Command::new("sh").args(["-c", &kill])).status.success());
    // The pipe ends only when both sleeps are gone.
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
