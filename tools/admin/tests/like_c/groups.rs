//! `ctdb_natgw` and `ctdb_lvs`, with a `ctdb` that says whatever the case wants.

use super::world::{Pair, World, pair, words};

const HEADER: &str = "|Node|IP|Disconnected|Unknown|Banned|Disabled|Unhealthy|Stopped|Inactive|\
                      PartiallyOnline|ThisNode|";

/// The tool's word about nodes 10.0.0.1 …, by their flags in the tool's order.
fn tool(nodes: &[&str], status: u8) -> String {
    let mut script = String::from("#!/bin/sh\nif [ \"$1\" = -X ] ; then\ncat <<EOF\n");
    script += &format!("{HEADER}\n");
    for (pnn, flags) in nodes.iter().enumerate() {
        let flags: Vec<String> = flags.chars().map(String::from).collect();
        script += &format!("|{pnn}|10.0.0.{}|{}|0|N|\n", pnn + 1, flags.join("|"));
    }
    script += "EOF\nelse\ncat <<EOF\n";
    for pnn in 0..nodes.len() {
        script += &format!("pnn:{pnn} 10.0.0.{}       OK\n", pnn + 1);
    }
    script + &format!("EOF\nfi\nexit {status}\n")
}

fn programs() -> Option<[(Pair, &'static str, &'static str, &'static str); 2]> {
    let natgw = pair("/usr/libexec/ctdb/ctdb_natgw", env!("CARGO_BIN_EXE_ctdb_natgw"))?;
    let lvs = pair("/usr/libexec/ctdb/ctdb_lvs", env!("CARGO_BIN_EXE_ctdb_lvs"))?;
    Some([
        (natgw, "natgw_nodes", "events/legacy/11.natgw.options", "CTDB_NATGW_NODES"),
        (lvs, "lvs_nodes", "events/legacy/91.lvs.options", "CTDB_LVS_NODES"),
    ])
}

fn surroundings(world: &World, tool: &str) {
    let functions = std::fs::read("/etc/ctdb/functions").unwrap();
    world.file("functions", functions, 0o644);
    world.file("ctdb", tool, 0o755);
}

fn world() -> World {
    let mut world = World::new();
    let tool = world.base().join("ctdb");
    world.set("CTDB", tool);
    world
}

const COMMANDS: [&str; 3] = ["leader", "list", "status"];

/// Flags: disconnected, unknown, banned, disabled, unhealthy, stopped, inactive.
const HEALTH: [&[&str]; 9] = [
    &["0000000", "0000000", "0000000"],
    &["1000001", "0000000", "0000000"],
    &["0000100", "0000000", "0000000"],
    &["0000100", "0010001", "0001000"],
    &["0000011", "0000100", "0000011"],
    &["0000011", "0000011", "0000011"],
    &["0001000", "0001000", "1000001"],
    &["0100000", "0100000", "0000000"],
    &[],
];

#[test]
fn groups_of_nodes_are_described_as_by_debians() {
    let Some(programs) = programs() else { return };
    let world = world();
    let lists = [
        "10.0.0.1\n10.0.0.2\n10.0.0.3\n",
        "10.0.0.1\tfollower-only\n10.0.0.2\n10.0.0.3 follower-only\n",
        "10.0.0.2 follower-only\n",
        "# a word\n10.0.0.3\n10.0.0.9\n",
    ];
    for (pair, file, _, _) in &programs {
        for (health, command) in HEALTH.iter().flat_map(|h| COMMANDS.map(|command| (h, command))) {
            for list in lists {
                world.compare(pair, &words(command), &|world| {
                    surroundings(world, &tool(health, 0));
                    world.file(file, list, 0o644);
                });
            }
        }
    }
}

#[test]
fn mistakes_about_groups_are_answered_as_by_debians() {
    let Some(programs) = programs() else { return };
    let world = world();
    for (pair, file, options, variable) in &programs {
        for command in ["", "nonsense"] {
            world.compare(pair, &words(command), &|world| surroundings(world, "#!/bin/sh\n"));
        }
        for command in ["leader", "list", "status"] {
            // No file; one with nonsense in it; one elsewhere; a tool that fails.
            world.compare(pair, &words(command), &|world| surroundings(world, "#!/bin/sh\n"));
            world.compare(pair, &words(command), &|world| {
                surroundings(world, &tool(HEALTH[0], 0));
                world.file(file, "10.0.0.1 some thing\n", 0o644);
            });
            world.compare(pair, &words(command), &|world| {
                surroundings(world, &tool(HEALTH[0], 0));
                world.file("elsewhere", "10.0.0.2\n", 0o644);
                world.file(options, format!("{variable}=\"$CTDB_BASE/elsewhere\"\n"), 0o644);
            });
            world.compare(pair, &words(command), &|world| {
                surroundings(world, &tool(&[], 255));
                world.file(file, "10.0.0.1\n", 0o644);
            });
        }
    }
}
