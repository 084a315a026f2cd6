//! Connections: registered, spread, kept for the next host.

use super::*;
use ringmaster_protocol::{
    connection::{Connection, TickleList},
    control::ControlOpcode,
    process::RunState,
    wire::Decode,
};

use super::super::sent;
use crate::{
    failover::tickles::Tickles,
    node::{controls, lifecycle, world::OutgoingControl},
};

fn connection(port: u16) -> Connection {
    let dst = SockAddr::new(address("10.0.0.1"), 445);
    Connection { src: SockAddr::new(address("9.9.9.9"), port), dst }
}

/// Client ports of a node's list of 10.0.0.1.
fn ports(cluster: &mut Cluster, node: usize) -> Vec<u16> {
    let asked = SockAddr::new(address("10.0.0.1"), 0);
    let answer = cluster.control(node, &ControlRequest::GetTcpTickleList(asked));
    let list: TickleList = value(&answer);
    list.connections.iter().map(|connection| connection.src.port()).collect()
}

fn register(cluster: &mut Cluster, node: usize, port: u16) -> i32 {
    cluster.control(node, &ControlRequest::TcpClient(connection(port))).status
}

/// Two nodes; the first hosts 10.0.0.1, and both know.
fn hosting() -> Cluster {
    let mut cluster = cluster(2);
    assert_eq!(release(&mut cluster, 1, "10.0.0.1", Some(0)), 0);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0);
    cluster
}

#[test]
fn a_registered_connection_is_known_everywhere() {
    let mut cluster = hosting();
    assert_eq!(register(&mut cluster, 0, 1), 0);
    assert_eq!(register(&mut cluster, 0, 1), 0, "twice is once");
    assert_eq!((ports(&mut cluster, 0), ports(&mut cluster, 1)), (vec![1], vec![1]));
    assert_eq!(sent(&cluster.took(0), ControlOpcode::TCP_ADD), [1, 1]);
}

#[test]
fn a_connection_in_ipv6_clothes_is_the_same_connection() {
    let mut cluster = hosting();
    let mapped = |text: &str, port| SockAddr::new(address(text), port);
    let dressed =
        Connection { src: mapped("::ffff:9.9.9.9", 1), dst: mapped("::ffff:10.0.0.1", 445) };
    assert_eq!(cluster.control(0, &ControlRequest::TcpClient(dressed)), done());
    assert_eq!(register(&mut cluster, 0, 1), 0);
    assert_eq!(ports(&mut cluster, 0), [1]);
    // Echoed as it was asked for.
    let asked = mapped("::ffff:10.0.0.1", 0);
    let answer = cluster.control(0, &ControlRequest::GetTcpTickleList(asked));
    assert_eq!(value::<TickleList>(&answer).addr, asked);
}

#[test]
fn a_connection_to_an_address_elsewhere_is_refused() {
    let mut cluster = hosting();
    assert_eq!(register(&mut cluster, 1, 1), -1);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), 0);
    assert_eq!(register(&mut cluster, 0, 1), -1, "nobody hosts it");
    let other = Connection { dst: SockAddr::new(address("10.9.9.9"), 445), ..connection(1) };
    assert_eq!(cluster.control(0, &ControlRequest::TcpClient(other)), done(), "not public");
    assert_eq!(cluster.control(0, &ControlRequest::TcpAdd(other)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::TcpRemove(other)), done());
}

#[test]
fn a_connection_that_ends_is_forgotten_everywhere() {
    let mut cluster = hosting();
    for port in 1..=3 {
        register(&mut cluster, 0, port);
    }
    let end = ControlRequest::TcpClientDisconnected(connection(2));
    assert_eq!(cluster.control(0, &end), done());
    assert_eq!(cluster.control(0, &end), done(), "it is gone");
    assert_eq!((ports(&mut cluster, 0), ports(&mut cluster, 1)), (vec![1, 3], vec![1, 3]));
}

#[test]
fn connections_of_an_address_on_its_way_stay_for_its_next_host() {
    let mut cluster = hosting();
    register(&mut cluster, 0, 1);
    register(&mut cluster, 0, 2);
    cluster.play(0, |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    let leave = ControlRequest::ReleaseIp(ip("10.0.0.1", Some(1)));
    let waiting = cluster.send_from(0, LEADER, &leave);
    // smbd closes its connections while the script still runs, or later.
    cluster.control(0, &ControlRequest::TcpClientDisconnected(connection(1)));
    cluster.nodes[0].hosted.clear();
    cluster.release(0, &crate::node::Outcome::Script(ScriptResult::Ok));
    assert_eq!(cluster.reply(waiting), Some(done()));
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert_eq!(ports(&mut cluster, 1), [1, 2]);
}

#[test]
fn a_client_that_dies_takes_its_connections_along() {
    let mut cluster = hosting();
    register(&mut cluster, 0, 1);
    assert_eq!(cluster.control(0, &ControlRequest::TcpClientPassed(connection(1))), done());
    register(&mut cluster, 0, 2);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    cluster.event(0, |cx| controls::client_connected(cx, CLIENT, 77));
    assert_eq!(ports(&mut cluster, 0), [1], "the one that was passed on is somebody else's");
    assert!(entry(&cluster, "10.0.0.1").tickles.update_needed);
}

#[test]
fn a_new_host_resets_the_connections_of_the_old_one_and_begins_anew() {
    let mut cluster = hosting();
    register(&mut cluster, 0, 1);
    register(&mut cluster, 0, 2);
    cluster.took(1);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    assert_eq!(takeover(&mut cluster, 1, "10.0.0.1"), 0);
    cluster.advance_ms(10_000);
    let tickled = Did::Tell(Tell::Tickle(vec![connection(1), connection(2)]));
    assert_eq!(cluster.took(1).iter().filter(|did| **did == tickled).count(), 3);
    assert_eq!(ports(&mut cluster, 1), [0; 0]);
}

/// Lists that a node has sent, by receiver: their lengths.
fn lists(did: &[Did]) -> Vec<(u32, usize)> {
    let list = |did: &Did| match did {
        Did::Tell(Tell::Control(OutgoingControl { to, opcode, data, .. }))
            if *opcode == ControlOpcode::SET_TCP_TICKLE_LIST =>
        {
            Some((to.get(), TickleList::from_bytes(data).unwrap().connections.len()))
        }
        _ => None,
    };
    did.iter().filter_map(list).collect()
}

#[test]
fn the_host_sends_a_list_that_has_changed_and_every_list_to_a_node_that_starts() {
    let mut cluster = hosting();
    cluster.event(0, controls::addresses::tickles::keep_sending);
    cluster.took(0);
    let add = ControlRequest::TcpAddDelayedUpdate(connection(1));
    assert_eq!(cluster.control(0, &add), done());
    cluster.advance_ms(19_999);
    assert_eq!(lists(&cluster.took(0)), []);
    assert_eq!(ports(&mut cluster, 1), [0; 0]);
    cluster.advance_ms(1);
    assert_eq!(lists(&cluster.took(0)), [(1, 1)]);
    assert_eq!(ports(&mut cluster, 1), [1]);
    cluster.advance_ms(60_000);
    assert_eq!(lists(&cluster.took(0)), [], "nothing new");
    let started = Origin::Node(pnn(1), 0);
    assert_eq!(cluster.control_from(0, started, &ControlRequest::Startup), done());
    assert_eq!(lists(&cluster.took(0)), [(1, 1)]);
    assert_eq!(cluster.control_from(1, LEADER, &ControlRequest::Startup), done());
    assert_eq!(lists(&cluster.took(1)), [], "it hosts nothing");
}

#[test]
fn the_host_believes_no_list_of_others() {
    let mut cluster = hosting();
    register(&mut cluster, 0, 1);
    let addr = SockAddr::new(address("10.0.0.1"), 0);
    let list = TickleList { addr, connections: vec![connection(7)] };
    let set = ControlRequest::SetTcpTickleList(list.clone());
    assert_eq!(cluster.control_from(0, LEADER, &set), done());
    assert_eq!(cluster.control_from(1, LEADER, &set), done());
    assert_eq!((ports(&mut cluster, 0), ports(&mut cluster, 1)), (vec![1], vec![7]));
    let unknown = TickleList { addr: SockAddr::new(address("10.9.9.9"), 0), ..list };
    let set = ControlRequest::SetTcpTickleList(unknown);
    assert_eq!(cluster.control_from(0, LEADER, &set).status, 1);
}

#[test]
fn what_one_client_and_one_address_may_fill_is_limited() {
    let mut cluster = hosting();
    for port in 0..10_000 {
        assert_eq!(register(&mut cluster, 0, port), 0);
    }
    assert_eq!(register(&mut cluster, 0, 10_000), -1);
    let full: Vec<Connection> = (0..u32::try_from(Tickles::MAX).unwrap())
        .map(|number| {
            let src = SockAddr::new(number.to_be_bytes().into(), 1);
            Connection { src, ..connection(1) }
        })
        .collect();
    let addr = SockAddr::new(address("10.0.0.1"), 0);
    let list = TickleList { addr, connections: full };
    cluster.control_from(1, LEADER, &ControlRequest::SetTcpTickleList(list));
    let more = ControlRequest::TcpAdd(connection(1));
    assert_eq!(cluster.control_from(1, LEADER, &more), done(), "not remembered");
    assert_eq!(ports(&mut cluster, 1).len(), Tickles::MAX);
}

#[test]
fn lists_are_sent_no_more_after_a_shutdown() {
    let mut cluster = hosting();
    cluster.event(0, controls::addresses::tickles::keep_sending);
    cluster.control(0, &ControlRequest::TcpAddDelayedUpdate(connection(1)));
    // Its last event takes for ever.
    cluster.play(0, |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    cluster.event(0, |cx| lifecycle::shutdown(cx, 0));
    assert_eq!(cluster.state(0).run_state, RunState::Shutdown);
    cluster.advance_ms(60_000);
    assert!(cluster.nodes[0].up);
    assert_eq!(lists(&cluster.took(0)), []);
}

/// As [`hosting`], with both nodes looking at their kernels' connections.
fn looking() -> Cluster {
    let mut cluster = hosting();
    for node in 0..2 {
        cluster.event(node, controls::addresses::observed::keep_looking);
        cluster.took(node);
    }
    cluster
}

#[test]
fn connections_that_nobody_registers_are_known_everywhere_while_they_last() {
    let mut cluster = looking();
    cluster.nodes[0].connections.extend([connection(1), connection(2)]);
    let elsewhere = Connection { dst: SockAddr::new(address("10.9.9.9"), 22), ..connection(9) };
    cluster.nodes[0].connections.insert(elsewhere);
    cluster.advance_ms(1_000);
    assert_eq!((ports(&mut cluster, 0), ports(&mut cluster, 1)), (vec![1, 2], vec![1, 2]));
    assert_eq!(sent(&cluster.took(0), ControlOpcode::TCP_ADD), [1, 1]);
    cluster.advance_ms(5_000);
    assert_eq!(sent(&cluster.took(0), ControlOpcode::TCP_ADD), [0; 0], "nothing new");
    cluster.nodes[0].connections.remove(&connection(1));
    cluster.advance_ms(1_000);
    assert_eq!(ports(&mut cluster, 0), [2]);
    assert!(entry(&cluster, "10.0.0.1").tickles.update_needed);
}

#[test]
fn the_kernel_says_nothing_about_connections_that_it_has_never_shown() {
    let mut cluster = looking();
    register(&mut cluster, 0, 1);
    cluster.advance_ms(5_000);
    assert_eq!(ports(&mut cluster, 0), [1]);
}

#[test]
fn connections_that_end_because_their_address_leaves_stay_for_its_next_host() {
    let mut cluster = looking();
    cluster.nodes[0].connections.insert(connection(1));
    cluster.advance_ms(1_000);
    cluster.play(0, |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    let leave = ControlRequest::ReleaseIp(ip("10.0.0.1", Some(1)));
    let waiting = cluster.send_from(0, LEADER, &leave);
    cluster.nodes[0].connections.clear();
    cluster.advance_ms(5_000);
    cluster.nodes[0].hosted.clear();
    cluster.release(0, &crate::node::Outcome::Script(ScriptResult::Ok));
    assert_eq!(cluster.reply(waiting), Some(done()));
    cluster.advance_ms(5_000);
    cluster.took(1);
    assert_eq!(takeover(&mut cluster, 1, "10.0.0.1"), 0);
    let tickled = Did::Tell(Tell::Tickle(vec![connection(1)]));
    assert!(cluster.took(1).contains(&tickled));
}

#[test]
fn a_crowd_of_new_connections_goes_as_one_list() {
    let mut cluster = looking();
    cluster.nodes[0].connections.extend((1..=100).map(connection));
    cluster.advance_ms(1_000);
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::TCP_ADD), [0; 0]);
    assert_eq!(lists(&did), [(1, 100)]);
    assert_eq!(ports(&mut cluster, 1).len(), 100);
    cluster.advance_ms(5_000);
    assert_eq!(lists(&cluster.took(0)), [], "once is enough");
}

#[test]
fn a_node_that_hosts_nothing_looks_at_nothing() {
    let mut cluster = looking();
    cluster.advance_ms(10_000);
    let asked = |did: &Did| matches!(did, Did::Ask(Ask::Connections(_)));
    assert!(!cluster.took(1).iter().any(asked));
    assert!(cluster.took(0).iter().any(asked));
}
