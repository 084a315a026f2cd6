//! What a recovery does to databases, and what stops it.

use ringmaster_protocol::{
    Destination, Encode, Pnn, Srvid,
    control::ControlOpcode,
    database::DbFlags,
    node::NodeFlags,
    process::{DisableMessage, RecMode, SrvidMessage},
    tunable::Tunable,
};

use super::{
    cluster::{Cluster, Setup, pnn},
    model::Database,
};

const PLAIN: Setup = Setup { lock: false, fast_start: false, ours: false };
const ALL: [usize; 3] = [0, 1, 2];

fn volatile(name: &str) -> Database {
    Database::new(name, DbFlags::NONE)
}

/// A new cluster whose nodes have these copies of one database; node 2 will lead.
fn with_copies(copies: [Option<Database>; 3]) -> Cluster {
    let mut cluster = Cluster::new(3, PLAIN);
    for (node, copy) in copies.into_iter().enumerate() {
        if let Some(copy) = copy {
            cluster.nodes[node].databases.insert(7, copy);
        }
    }
    cluster
}

fn content(cluster: &Cluster, node: usize) -> Vec<(String, u64, u32, String)> {
    cluster.nodes[node].databases[&7].content()
}

fn record(key: &str, rsn: u64, dmaster: u32, value: &str) -> (String, u64, u32, String) {
    (key.to_owned(), rsn, dmaster, value.to_owned())
}

fn wants_recovery(cluster: &mut Cluster) {
    cluster.enter(0, |cx| cx.state_mut().recovery_mode = RecMode::Active);
}

#[test]
fn every_node_gets_the_newest_copy_and_the_leader_owns_it() {
    let mut cluster = with_copies([
        Some(volatile("db").with("a", 5, 0, "newest").with("b", 1, 0, "only").with("c", 3, 0, "x")),
        Some(volatile("db").with("a", 4, 1, "old").with("c", 4, 1, "")),
        None,
    ]);
    cluster.settle(20, &ALL);
    for node in [0, 1] {
        let expected = [record("a", 5, 2, "newest"), record("b", 1, 2, "only")];
        assert_eq!(content(&cluster, node), expected, "node {node}");
    }
    // The leader's store rule raises its own copy's number.
    assert_eq!(content(&cluster, 2), [record("a", 6, 2, "newest"), record("b", 2, 2, "only")]);
}

#[test]
fn a_persistent_database_is_taken_as_a_whole_from_the_highest_sequence_number() {
    let persistent = |seqnum, value: &str| {
        let copy = Database::new("db", DbFlags::PERSISTENT).with("a", seqnum, 1, value);
        Some(Database { seqnum, ..copy })
    };
    let mut cluster = with_copies([
        persistent(4, "four"),
        persistent(9, "nine"),
        // A higher record number counts for nothing.
        Some(Database { seqnum: 8, ..persistent(10, "eight").unwrap() }),
    ]);
    cluster.settle(20, &ALL);
    for node in ALL {
        assert_eq!(content(&cluster, node), [record("a", 9, 1, "nine")], "node {node}");
    }
}

#[test]
fn records_of_a_node_that_was_inactive_do_not_come_back() {
    let mut cluster = with_copies([
        Some(volatile("db").with("a", 5, 0, "x")),
        Some(volatile("db")),
        Some(volatile("db")),
    ]);
    cluster.settle(20, &ALL);
    cluster.leave(0, NodeFlags::STOPPED);
    cluster.run_until(40, "without node 0", |cluster| {
        cluster.settled(&[1, 2]) && cluster.state(1, |state| state.vnn_map.map.len()) == 2
    });
    for node in [1, 2] {
        cluster.nodes[node].databases.get_mut(&7).unwrap().records.clear();
    }
    cluster.set_flags(0, 0, |_| NodeFlags::NONE);
    cluster.settle(40, &ALL);
    for node in ALL {
        assert_eq!(content(&cluster, node), [], "node {node}");
    }
}

#[test]
fn many_databases_are_recovered_at_once() {
    let mut cluster = Cluster::new(3, PLAIN);
    for node in ALL {
        for id in 0..20 {
            let copy = volatile(&format!("db{id}")).with("key", 3, node, "value");
            cluster.nodes[node].databases.insert(id, copy);
        }
    }
    cluster.settle(20, &ALL);
    let generation = cluster.state(0, |state| state.vnn_map.generation);
    for node in ALL {
        let databases = cluster.nodes[node].databases.values();
        assert_eq!(databases.filter(|db| db.generation == generation && !db.frozen).count(), 20);
    }
}

#[test]
fn large_databases_are_pushed_in_batches_with_signs_of_life_between() {
    let mut copy = volatile("db");
    for number in 0..100 {
        copy = copy.with(&format!("key{number:03}"), 1, 0, "0123456789");
    }
    let mut cluster = with_copies([Some(copy), None, None]);
    for node in ALL {
        cluster.enter(node, |cx| cx.state_mut().tunables.set(Tunable::RecBufferSizeLimit, 200));
    }
    cluster.settle(20, &ALL);
    assert_eq!(content(&cluster, 1).len(), 100);
    assert!(cluster.sent(2, ControlOpcode::PING) > 3, "{}", cluster.sent(2, ControlOpcode::PING));
}

#[test]
fn a_step_that_fails_once_is_repeated_within_the_recovery() {
    for opcode in [
        ControlOpcode::GET_DBNAME,
        ControlOpcode::DB_FREEZE,
        ControlOpcode::DB_TRANSACTION_START,
        ControlOpcode::DB_PULL,
        ControlOpcode::WIPE_DATABASE,
        ControlOpcode::DB_PUSH_START,
        ControlOpcode::DB_PUSH_CONFIRM,
        ControlOpcode::DB_TRANSACTION_COMMIT,
        ControlOpcode::DB_THAW,
    ] {
        let copy = || Some(volatile("db").with("a", 5, 0, "x"));
        let mut cluster = with_copies([copy(), copy(), copy()]);
        cluster.nodes[1].refuses.insert(opcode, 1);
        cluster.settle(20, &ALL);
        assert_eq!(cluster.sent(2, ControlOpcode::SETVNNMAP), 3, "{opcode}: one recovery");
        assert_eq!(content(&cluster, 0)[0].3, "x");
    }
}

#[test]
fn a_step_that_fails_for_all_is_repeated_in_the_next_round() {
    for opcode in [
        ControlOpcode::GET_NODEMAP,
        ControlOpcode::GET_CAPABILITIES,
        ControlOpcode::GET_DBMAP,
        ControlOpcode::SET_RECMODE,
        ControlOpcode::START_RECOVERY,
        ControlOpcode::SETVNNMAP,
        ControlOpcode::END_RECOVERY,
        ControlOpcode::MODIFY_FLAGS,
        ControlOpcode::IPREALLOCATED,
    ] {
        let mut cluster = Cluster::new(3, PLAIN);
        cluster.nodes[0].refuses.insert(opcode, 2);
        cluster.settle(40, &ALL);
    }
}

#[test]
fn a_node_that_spoils_pulls_is_banned_and_the_others_go_on() {
    let copy = |node| Some(volatile("db").with("a", 5, node, "x"));
    let mut cluster = with_copies([copy(0), copy(1), copy(2)]);
    cluster.nodes[1].refuses.insert(ControlOpcode::DB_PULL, u32::MAX);
    cluster.run_until(40, "banned", |cluster| {
        cluster.state(1, |state| state.own_flags()) == NodeFlags::BANNED
    });
    cluster.settle(40, &[0, 2]);
}

#[test]
fn a_pull_that_loses_batches_is_not_believed() {
    let mut cluster = with_copies([
        Some(volatile("db").with("a", 5, 0, "x")),
        Some(volatile("db")),
        Some(volatile("db")),
    ]);
    cluster.nodes[0].loses_batches = true;
    cluster.run_for(12_000);
    assert!(!cluster.settled(&ALL), "no service without the records of node 0");
    assert_eq!(content(&cluster, 0), [record("a", 5, 0, "x")], "and they are still there");
    cluster.nodes[0].loses_batches = false;
    cluster.settle(40, &ALL);
    assert_eq!(content(&cluster, 1), [record("a", 5, 2, "x")]);
}

#[test]
fn a_push_that_is_not_confirmed_in_full_is_not_committed() {
    let copy = |node| Some(volatile("db").with("a", 5, node, "x"));
    let mut cluster = with_copies([copy(0), copy(1), copy(2)]);
    cluster.nodes[1].miscounts = true;
    cluster.run_for(20_000);
    assert_eq!(cluster.sent(2, ControlOpcode::DB_TRANSACTION_COMMIT), 0);
    assert!(!cluster.settled(&ALL));
    cluster.nodes[1].miscounts = false;
    cluster.settle(20, &ALL);
}

#[test]
fn a_database_of_two_kinds_is_not_recovered() {
    let replicated = Database::new("db", DbFlags::REPLICATED);
    let mut cluster =
        with_copies([Some(volatile("db").with("a", 1, 0, "x")), Some(replicated), None]);
    cluster.run_for(30_000);
    assert!(!cluster.settled(&ALL));
    assert_eq!(cluster.sent(2, ControlOpcode::START_RECOVERY), 0, "nobody is disturbed");
}

#[test]
fn readonly_and_sticky_are_no_difference() {
    let flags = DbFlags::READONLY | DbFlags::STICKY;
    let mut cluster =
        with_copies([Some(volatile("db")), Some(Database { flags, ..volatile("db") }), None]);
    cluster.settle(20, &ALL);
}

#[test]
fn a_leader_that_becomes_inactive_during_its_recovery_gives_it_up() {
    // It went on, and made itself the dmaster of all records on the other nodes.
    let copy = |node| Some(volatile("db").with("a", 5, node, "x"));
    let mut cluster = with_copies([copy(0), copy(1), copy(2)]);
    cluster.run_until(20, "the freeze", |cluster| cluster.sent(2, ControlOpcode::DB_FREEZE) > 0);
    cluster.leave(2, NodeFlags::STOPPED);
    let sent = |cluster: &Cluster| cluster.sent(2, ControlOpcode::DB_TRANSACTION_COMMIT);
    cluster.settle(60, &[0, 1]);
    assert_eq!(sent(&cluster), 0);
    for node in [0, 1] {
        let dmaster = content(&cluster, node)[0].2;
        assert_ne!(dmaster, 2, "node {node}");
    }
}

#[test]
fn a_leader_that_dies_in_the_middle_loses_nothing() {
    for opcode in [
        ControlOpcode::SETVNNMAP,
        ControlOpcode::DB_FREEZE,
        ControlOpcode::DB_PULL,
        ControlOpcode::WIPE_DATABASE,
        ControlOpcode::DB_PUSH_START,
        ControlOpcode::DB_PUSH_CONFIRM,
        ControlOpcode::DB_TRANSACTION_COMMIT,
        ControlOpcode::DB_THAW,
        ControlOpcode::END_RECOVERY,
    ] {
        let mut cluster = with_copies([
            Some(volatile("db").with("a", 5, 0, "x")),
            Some(volatile("db")),
            Some(volatile("db")),
        ]);
        cluster.run_until(20, "the step", |cluster| cluster.sent(2, opcode) > 0);
        cluster.kill(2);
        cluster.run_until(60, "service", |cluster| {
            cluster.settled(&[0, 1]) && cluster.leader(0) != Some(2)
        });
        for node in [0, 1] {
            let records = content(&cluster, node);
            assert_eq!(records.len(), 1, "{opcode}: node {node}");
            assert_eq!((records[0].0.as_str(), records[0].3.as_str()), ("a", "x"));
        }
    }
}

#[test]
fn a_member_that_dies_in_the_middle_is_left_out() {
    let copy = |node| Some(volatile("db").with("a", 5, node, "x"));
    let mut cluster = with_copies([copy(0), copy(1), copy(2)]);
    cluster.run_until(20, "a pull", |cluster| cluster.sent(2, ControlOpcode::DB_PULL) > 0);
    cluster.kill(0);
    cluster.settle(20, &[1, 2]);
    assert_eq!(cluster.state(1, |state| state.vnn_map.map.clone()), [pnn(1), pnn(2)]);
}

#[test]
fn streams_leave_nothing_behind() {
    let copy = |node| Some(volatile("db").with("a", 5, node, "x"));
    let mut cluster = with_copies([copy(0), copy(1), copy(2)]);
    let listening = |cluster: &Cluster| cluster.nodes[2].listening.len();
    cluster.run_until(20, "a pull", |cluster| cluster.sent(2, ControlOpcode::DB_PULL) > 0);
    cluster.kill(0);
    cluster.settle(30, &[1, 2]);
    cluster.run_for(5_000);
    assert_eq!(listening(&cluster), super::super::messages::SRVIDS.len());
    assert!(cluster.state(2, |state| state.recd.pulls.is_empty() && state.mailbox.is_empty()));
}

fn disable(cluster: &mut Cluster, srvid: Srvid, timeout: u32) {
    let request = DisableMessage { pnn: Some(pnn(0)), srvid: Srvid(0xCE00), timeout };
    cluster.message(0, Destination::Node(pnn(2)), srvid, &request.to_bytes());
    cluster.run_for(10);
}

fn answers(cluster: &Cluster) -> Vec<i32> {
    let to = |(to, srvid, _): &&(usize, Srvid, Vec<u8>)| *to == 0 && *srvid == Srvid(0xCE00);
    let value = |data: &Vec<u8>| i32::from_le_bytes(*data.first_chunk().unwrap());
    cluster.replies.iter().filter(to).map(|(_, _, data)| value(data)).collect()
}

#[test]
fn disabled_recoveries_wait_and_are_made_up_for() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.run_for(20_000);
    disable(&mut cluster, Srvid::DISABLE_RECOVERIES, 30);
    assert_eq!(answers(&cluster), [2]);
    wants_recovery(&mut cluster);
    cluster.run_for(25_000);
    assert_eq!(cluster.state(0, |state| state.recovery_mode), RecMode::Active);
    cluster.settle(10, &ALL);
}

#[test]
fn recoveries_pause_after_a_recovery() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    let start = cluster.now;
    wants_recovery(&mut cluster);
    cluster.settle(20, &ALL);
    assert!(cluster.now >= start.plus(9_000), "{:?} to {:?}", start, cluster.now);
}

#[test]
fn a_takeover_run_answers_who_asked_for_it() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    let request = SrvidMessage { pnn: Some(pnn(0)), srvid: Srvid(0xCE00) };
    let before = cluster.sent(2, ControlOpcode::IPREALLOCATED);
    let bytes = request.to_bytes();
    cluster.message(0, Destination::BroadcastConnected, Srvid::TAKEOVER_RUN, &bytes);
    cluster.run_for(3_000);
    assert_eq!(answers(&cluster), [2], "the leader, and nobody else");
    assert!(cluster.sent(2, ControlOpcode::IPREALLOCATED) >= before + 3);
}

#[test]
fn a_takeover_run_that_a_node_spoils_twice_is_that_nodes_ban() {
    for spoilt in [ControlOpcode::GET_PUBLIC_IPS, ControlOpcode::IPREALLOCATED] {
        for bans in [true, false] {
            let mut cluster = Cluster::new(3, PLAIN);
            cluster.settle(20, &ALL);
            cluster.run_for(3_000);
            cluster.enter(2, |cx| {
                cx.state_mut().tunables.set(Tunable::EnableBans, u32::from(bans));
            });
            cluster.nodes[1].refuses.insert(spoilt, 2);
            let request = SrvidMessage { pnn: Some(pnn(0)), srvid: Srvid(0xCE00) };
            let bytes = request.to_bytes();
            cluster.message(0, Destination::BroadcastConnected, Srvid::TAKEOVER_RUN, &bytes);
            cluster.run_for(5_000);
            let flags = cluster.state(1, |state| state.own_flags());
            let banned = if bans { NodeFlags::BANNED } else { NodeFlags::NONE };
            assert_eq!(flags, banned, "{spoilt}");
            assert_eq!(answers(&cluster)[..1], [-1], "who asked is told");
        }
    }
}

#[test]
fn disabled_takeover_runs_keep_their_requesters_waiting() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.run_for(3_000);
    disable(&mut cluster, Srvid::DISABLE_TAKEOVER_RUNS, 20);
    assert_eq!(answers(&cluster), [2]);
    let request = SrvidMessage { pnn: Some(pnn(0)), srvid: Srvid(0xCE00) };
    let bytes = request.to_bytes();
    cluster.message(0, Destination::BroadcastConnected, Srvid::TAKEOVER_RUN, &bytes);
    cluster.run_for(15_000);
    assert_eq!(answers(&cluster), [2]);
    cluster.run_for(10_000);
    assert_eq!(answers(&cluster), [2, 2]);
}

#[test]
fn a_node_that_is_reported_too_often_is_banned() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    for _ in 0..2 {
        let node: Pnn = pnn(1);
        cluster.message(0, Destination::Node(pnn(2)), Srvid::BANNING, &node.to_bytes());
    }
    cluster.run_until(5, "banned", |cluster| {
        cluster.state(1, |state| state.own_flags()) == NodeFlags::BANNED
    });
    cluster.run_until(20, "the others recover", |cluster| {
        cluster.settled(&[0, 2]) && cluster.state(0, |state| state.vnn_map.map.len()) == 2
    });
}

#[test]
fn flags_spread_to_all_within_two_rounds() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.set_flags(0, 0, |_| NodeFlags::PERMANENTLY_DISABLED);
    cluster.run_for(2_500);
    for node in ALL {
        let seen = cluster.state(node, |state| state.flags_of(pnn(0)));
        assert_eq!(seen, Some(NodeFlags::PERMANENTLY_DISABLED), "node {node}");
    }
}

#[test]
fn a_node_that_is_no_lmaster_leaves_the_vnn_map() {
    use ringmaster_protocol::capabilities::Capabilities;
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.enter(1, |cx| {
        let mut state = cx.state_mut();
        state.capabilities = state.capabilities.without(Capabilities::LMASTER);
    });
    cluster.run_until(30, "a map without node 1", |cluster| {
        cluster.settled(&ALL)
            && cluster.state(0, |state| state.vnn_map.map.clone()) == [pnn(0), pnn(2)]
    });
}

#[test]
fn a_nodes_list_of_another_length_is_read_again_first() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.run_for(15_000);
    cluster.enter(2, |cx| cx.state_mut().recd.nodes_listed = 2);
    cluster.run_for(1_100);
    assert_eq!(cluster.state(2, |state| state.recd.nodes_listed), 3);
    assert!(cluster.settled(&ALL));
    // While it stays different nothing else is done.
    cluster.nodes[2].listed = 4;
    cluster.message(0, Destination::Node(pnn(2)), Srvid::RELOAD_NODES, &[]);
    wants_recovery(&mut cluster);
    cluster.run_for(20_000);
    assert!(!cluster.settled(&ALL));
    cluster.nodes[2].listed = 3;
    cluster.settle(5, &ALL);
}

#[test]
fn nothing_malformed_is_answered_or_kept() {
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    cluster.run_for(3_000);
    let replies = cluster.replies.len();
    for srvid in super::super::messages::SRVIDS {
        for length in [0, 1, 3, 5, 11, 15, 17, 23, 25, 31] {
            let junk = vec![0x11; length];
            cluster.message(0, Destination::Node(pnn(2)), srvid, &junk);
        }
    }
    cluster.run_for(15_000);
    assert_eq!(cluster.replies.len(), replies);
    assert!(cluster.settled(&ALL));
    assert!(cluster.state(2, |state| state.mailbox.is_empty()));
}

#[test]
fn a_memory_report_has_the_form_of_an_allocators() {
    // Ten lines or more, each "NAME contains N bytes in N blocks (ref N) 0xHEX" but for the first.
    let mut cluster = Cluster::new(3, PLAIN);
    cluster.settle(20, &ALL);
    let request = SrvidMessage { pnn: Some(pnn(0)), srvid: Srvid(0xCE00) };
    cluster.message(0, Destination::Node(pnn(2)), Srvid::MEM_DUMP, &request.to_bytes());
    cluster.run_for(10);
    let reply = cluster.replies.iter().find(|(to, srvid, _)| *to == 0 && *srvid == Srvid(0xCE00));
    let text = String::from_utf8(reply.unwrap().2.clone()).unwrap();
    let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
    assert!(lines.len() >= 10, "{text}");
    assert!(lines[0].starts_with("full talloc report on 'null_context' (total "), "{text}");
    for line in &lines[1..] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers = [words.len() - 8, words.len() - 5];
        assert!(line.starts_with(' ') && line.ends_with(" (ref 0) 0x0"), "{line}");
        assert_eq!(words[words.len() - 9], "contains", "{line}");
        assert!(numbers.iter().all(|at| words[*at].parse::<u32>().is_ok()), "{line}");
    }
}
