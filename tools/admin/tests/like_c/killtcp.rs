//! `ctdb_killtcp`: the command line. What it does to connections: `control/network/tests`.

use super::world::{World, nothing, pair, words};

#[test]
fn every_mistake_to_ctdb_killtcp_is_answered_as_debians() {
    let Some(pair) = pair("/usr/libexec/ctdb/ctdb_killtcp", env!("CARGO_BIN_EXE_ctdb_killtcp"))
    else {
        return;
    };
    let world = World::new();
    for line in ["", "lo x", "lo 1 2 3", "lo a b", "lo 1.2.3.4 1.2.3.4:5", "lo 1.2.3.4:5 ::1", "lo"]
    {
        world.compare(&pair, &words(line), &nothing);
    }
}
