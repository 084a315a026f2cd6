//! `ping_pong`: command lines that end by themselves.

use super::world::{World, nothing, pair, words};

#[test]
fn command_lines_that_end_answer_as_debians() {
    let Some(pair) = pair("/usr/bin/ping_pong", env!("CARGO_BIN_EXE_ping_pong")) else { return };
    let world = World::new();
    for line in [
        "",
        "x",
        "-h",
        "-z f 1",
        "f 0",
        "f abc",
        "f -1",
        "f 0x3",
        "-l",
        "-l f",
        "-l f g",
        "-cl f",
        "f -l",
        "/nonexistent/f",
        "/nonexistent/f 0",
        "/nonexistent/f 2",
        "-l /nonexistent/f",
        "base 3",
        "--help",
        "-rw f",
        "/dev/full 2",
        "-m /dev/null 2",
    ] {
        world.compare(&pair, &words(line), &nothing);
    }
}
