//! Our daemon among C's: the link between two nodes, seen from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmaster_client::Client;
use ringmaster_compat::cluster::{Cluster, Config, Node, Subject};
use ringmaster_compat::column::our_daemon;
use ringmaster_compat::prerequisite::skip;
use ringmaster_compat::require_c_cluster;
use ringmaster_compat::run::wait_until;
use ringmaster_protocol::tunnel::TunnelFlags;
use ringmaster_protocol::{Destination, Pnn, Srvid};

const PATIENCE: Duration = Duration::from_secs(60);

/// Our daemon, or the test says why it is skipped.
fn subject() -> Option<PathBuf> {
    let ctdbd = our_daemon();
    if ctdbd.is_none() {
        skip("our ctdbd is not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)");
    }
    ctdbd
}

/// A C daemon that leads, and ours, which may not. `shards`: of ours.
fn cluster(ctdbd: &Path, shards: u16) -> Cluster {
    let ours = Subject::Ours { ctdbd: ctdbd.to_path_buf() };
    let cluster =
        Cluster::prepare(Config::new(2).node(1, ours)).expect("the test machine plays along");
    let base = cluster.node(1).base();
    let conf = fs::read_to_string(base.join("ctdb.conf")).expect("the test machine plays along");
    fs::write(base.join("ctdb.conf"), conf + "[cluster]\n\tleader capability = false\n")
        .expect("the test machine plays along");
    let native = format!("[dataplane]\nshards = {shards}\n[transport]\nsamba version = 4.17\n");
    fs::write(base.join("ringmaster.conf"), native).expect("the test machine plays along");
    for node in cluster.nodes() {
        node.start().expect("the test machine plays along");
    }
    cluster.settle().expect("the test machine plays along");
    cluster
}

#[test]
fn records_and_controls_go_both_ways_between_a_c_daemon_and_ours() {
    require_c_cluster!();
    let Some(ctdbd) = subject() else { return };
    for shards in [1, 2] {
        let cluster = cluster(&ctdbd, shards);
        let (c, ours) = (cluster.node(0), cluster.node(1));
        c.tool_ok(&["attach", "v.tdb"]).unwrap();
        wait_until("the database is attached everywhere", PATIENCE, || {
            ours.tool_ok(&["getdbmap"]).ok().filter(|map| map.contains("v.tdb")).map(drop)
        })
        .unwrap();
        let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
        for (from, to, value) in [(c, ours, "of C's"), (ours, c, "of ours"), (c, ours, "again")] {
            for key in &keys {
                from.tool_ok(&["writekey", "v.tdb", key, value]).unwrap();
                let read = to.tool_ok(&["readkey", "v.tdb", key]).unwrap();
                assert_eq!(read, format!("Data: size:{} ptr:[{value}]\n", value.len()));
            }
        }
        for (asker, asked) in [(c, "1"), (ours, "0")] {
            let state = asker.tool_ok(&["runstate", "-n", asked]).unwrap();
            assert_eq!(state, "RUNNING\n");
        }
        messages_and_tunnels_go_both_ways([c, ours]);
        let traversed = ours.tool_ok(&["cattdb", "v.tdb"]).unwrap();
        assert!(traversed.contains("Dumped 20 record(s)"), "{traversed}");
        cluster.stop().unwrap();
    }
}

/// In the range for tests.
const ROOM: Srvid = Srvid(0xAE00_0000_0000_00E1);

fn messages_and_tunnels_go_both_ways(nodes: [Node<'_>; 2]) {
    let mut clients = nodes.map(|node| {
        let mut client = Client::connect_to(&node.socket(), PATIENCE).expect("connected");
        client.register(ROOM).expect("registered");
        client.register_tunnel(ROOM.0).expect("registered");
        client
    });
    let pnn = |node: u32| Pnn::new(node).expect("few nodes");
    let to = [pnn(0), pnn(1)];
    for (from, other) in [(0, 1), (1, 0)] {
        for number in 0..200_u32 {
            let data = number.to_le_bytes();
            clients[from].send_message(Destination::Node(to[other]), ROOM, &data).expect("sent");
        }
        clients[from].send_message(Destination::BroadcastConnected, ROOM, b"all").expect("sent");
        for number in 0..200_u32 {
            let message = clients[other].receive(PATIENCE).expect("a message");
            assert_eq!(message.data, number.to_le_bytes());
        }
        for client in &mut clients {
            assert_eq!(client.receive(PATIENCE).expect("the broadcast").data, b"all");
        }
        let flags = TunnelFlags::REQUEST;
        clients[from].send_tunnel(to[other], ROOM.0, flags, b"by tunnel").expect("sent");
        let packet = clients[other].receive_tunnel(ROOM.0, PATIENCE).expect("a packet");
        assert_eq!((packet.tunnel_id, packet.data), (ROOM.0, b"by tunnel".to_vec()));
    }
}

#[test]
fn a_node_that_dies_is_seen_by_the_other_and_comes_back() {
    require_c_cluster!();
    let Some(ctdbd) = subject() else { return };
    let cluster = cluster(&ctdbd, 1);
    for (dies, lives) in [(1, 0), (0, 1)] {
        let (dies, lives) = (cluster.node(dies), cluster.node(lives));
        dies.kill().unwrap();
        let shown = format!("pnn:{} {}", dies.index(), dies.address());
        wait_until("the dead node is seen as dead", PATIENCE, || {
            let status = lives.tool(&["nodestatus", "all"]).ok()?;
            let line = status.stdout.lines().find(|line| line.starts_with(&shown))?;
            line.contains("DISCONNECTED").then_some(())
        })
        .unwrap();
        let pnn = dies.index().to_string();
        let refused = lives.tool(&["runstate", "-n", &pnn]).unwrap();
        assert!(!refused.success(), "{refused}");
        dies.start().unwrap();
        cluster.settle().unwrap();
    }
    cluster.stop().unwrap();
}

/// Ends the TCP connections from one address to another, as a firewall or a failing switch may.
fn break_link(from: std::net::IpAddr, to: std::net::IpAddr) -> bool {
    let (from, to) = (from.to_string(), to.to_string());
    let arguments = ["-K", "-tnH", "src", &from, "dst", &to, "dport", "=", ":4379"];
    let killed = std::process::Command::new("ss").args(arguments).output();
    killed.is_ok_and(|killed| killed.status.success() && !killed.stdout.is_empty())
}

#[test]
fn a_link_that_breaks_and_is_back_at_once_ends_in_a_recovery() {
    require_c_cluster!();
    let Some(ctdbd) = subject() else { return };
    let cluster = cluster(&ctdbd, 2);
    let (c, ours) = (cluster.node(0), cluster.node(1));
    c.tool_ok(&["attach", "v.tdb"]).unwrap();
    c.tool_ok(&["writekey", "v.tdb", "key", "value"]).unwrap();
    let before = cluster.settle().unwrap();
    if !break_link(ours.address(), c.address()) {
        return skip("the kernel or this user may not end TCP connections (ss -K)");
    }
    wait_until("a recovery", PATIENCE, || {
        let status = ours.tool_ok(&["status"]).ok()?;
        let old = format!("Generation:{}", before.generation);
        (!status.contains(&old)).then_some(())
    })
    .unwrap();
    cluster.settle().unwrap();
    let read = ours.tool_ok(&["readkey", "v.tdb", "key"]).unwrap();
    assert_eq!(read, "Data: size:5 ptr:[value]\n");
    cluster.stop().unwrap();
}
