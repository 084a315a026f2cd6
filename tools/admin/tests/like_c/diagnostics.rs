//! `ctdb_diagnostics`: usage as Debian's, and the errors a made-up cluster must give.

use std::ffi::OsStr;

use super::world::{Pair, World, output, pair, words};

/// Runs commands here; node 9 is down, and node 2 has another `/etc/hosts` and a wrong clock.
const ONNODE: &str = "#!/bin/sh
node=$1; shift
case \"$node $*\" in
9*) exit 255 ;;
'2 '*/etc/hosts*) [ \"$*\" = '[ -r /etc/hosts ]' ] || echo other; exit 0 ;;
'2 '*'date +%s'*) echo 1000; exit 0 ;;
*'[ -r'*/etc/hosts*) exit 0 ;;
*'[ -r'*) exit 1 ;;
*'date +%s'*) exec date +%s ;;
*) echo \"$node: $*\" ;;
esac
";

fn files(world: &World) {
    world.file("bin/onnode", ONNODE, 0o755);
    world.file("bin/ctdb", "#!/bin/sh\nprintf '|0|x|\\n|2|y|\\n|9|z|\\n'\n", 0o755);
}

fn world() -> Option<(Pair, World)> {
    let pair = pair("/usr/bin/ctdb_diagnostics", env!("CARGO_BIN_EXE_ctdb_diagnostics"))?;
    let mut world = World::new();
    let mut path = world.base().join("bin").into_os_string();
    path.push(":/usr/bin:/bin");
    world.set("PATH", path);
    Some((pair, world))
}

#[test]
fn command_lines_that_are_refused_answer_as_debians() {
    let Some((pair, world)) = world() else { return };
    for line in ["-h", "--help", "--he", "x", "-c x", "-- x", "-z", "--nosuch", "-n", "-cz"] {
        world.compare(&pair, &words(line), &files);
    }
}

/// The lines that are an interface: errors, their list at the end, their number.
fn errors(world: &World, program: &std::path::Path, args: &[&str]) -> (Vec<String>, Option<i32>) {
    world.rebuild(&files);
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let output = output(&mut world.command(program, &args));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text
        .lines()
        .filter(|line| {
            line.contains("ERROR")
                || line.starts_with("Diagnostics finished")
                || line.starts_with("NOT RUNNING")
                || *line == "9"
        })
        // The drift is that of this moment.
        .map(|line| line.split(" differs by ").next().unwrap().to_owned())
        .collect();
    (lines, output.status.code())
}

#[test]
fn the_same_errors_are_found_as_by_debians() {
    let Some((pair, world)) = world() else { return };
    for args in [&["--no-ads"][..], &["-n", "0,2"], &["-n", "0"]] {
        let ours = errors(&world, &pair.ours, args);
        assert_eq!(ours, errors(&world, &pair.theirs, args), "{args:?}");
        assert!(ours.0.len() > 10, "{ours:?}");
    }
}
