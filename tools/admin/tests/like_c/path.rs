//! `ctdb-path`.

use super::world::{World, nothing, pair, raw, words};

fn programs() -> Option<super::world::Pair> {
    pair("/usr/libexec/ctdb/ctdb-path", env!("CARGO_BIN_EXE_ctdb-path"))
}

const LINES: [&str; 34] = [
    "",
    "config",
    "config x",
    "pidfile",
    "pidfile ctdbd",
    "pidfile a b",
    "socket ctdbd",
    "socket eventd",
    "socket \"\"",
    "datadir",
    "datadir append x/y",
    "etcdir",
    "etcdir append \"\"",
    "rundir",
    "rundir append",
    "rundir append x y",
    "rundir foo",
    "vardir",
    "vardir append /x",
    "foo",
    "conf",
    "-h",
    "--help",
    "config -h",
    "pidfile --help",
    "-hh config",
    "-x",
    "config -x",
    "-hx",
    "-h=x",
    "--help=x",
    "--hel",
    "-- config",
    "- config",
];

#[test]
fn every_command_line_of_ctdb_path_answers_as_debians() {
    let Some(pair) = programs() else { return };
    let mut world = World::new();
    for line in LINES {
        world.compare(&pair, &words(line), &nothing);
    }
    world.compare_os(&pair, &[raw(b"vardir"), raw(b"append"), raw(b"\xe9")], &nothing);
    world.compare_os(&pair, &[raw(b"-\xe9")], &nothing);
    world.set("POSIXLY_CORRECT", "1");
    world.compare(&pair, &["config", "-h"], &nothing);
}

#[test]
fn the_environment_decides_where_things_are_as_for_debians() {
    let Some(pair) = programs() else { return };
    let mut world = World::new();
    let commands =
        ["config", "socket ctdbd", "socket eventd", "pidfile ctdbd", "vardir", "datadir"];
    let compare = |world: &World| {
        for line in commands {
            world.compare(&pair, &words(line), &nothing);
        }
    };
    world.set("CTDB_BASE", "/a/");
    compare(&world);
    world.set("CTDB_SOCKET", "/elsewhere");
    compare(&world);
    world.unset("CTDB_TEST_MODE");
    compare(&world);
    world.set("CTDB_TEST_MODE", "");
    compare(&world);
    // Test mode without a base aborts; the usage needs no path and does not.
    world.unset("CTDB_SOCKET");
    world.unset("CTDB_BASE");
    compare(&world);
    world.compare(&pair, &["-h"], &nothing);
}
