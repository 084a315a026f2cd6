//! Our client library against C daemons.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;
use std::time::Duration;

use ringmaster_client::{
    CallError, Client, ConnectionError, ControlError, ControlOptions, DbKind, ReceiveError,
};
use ringmaster_compat::cluster::{Cluster, Config};
use ringmaster_compat::require_c_cluster;
use ringmaster_protocol::call::{CallFlags, CallId};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::control::payloads::Pid;
use ringmaster_protocol::tunnel::TunnelFlags;
use ringmaster_protocol::{DbId, Destination, Pnn, Srvid};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(30);

fn connect(cluster: &Cluster, node: usize) -> Client {
    Client::connect_to(&cluster.node(node).socket(), TIMEOUT).unwrap()
}

fn pnn(number: u32) -> Pnn {
    Pnn::new(number).unwrap()
}

fn own_pid() -> Pid {
    Pid(std::process::id().cast_signed())
}

#[test]
fn messages_tunnels_and_controls_reach_other_nodes() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(3)).unwrap();
    let mut clients: Vec<_> = (0..3).map(|node| connect(&cluster, node)).collect();
    for (node, client) in clients.iter().enumerate() {
        assert_eq!(client.pnn().get() as usize, node);
    }
    controls_reach_every_node(&mut clients[0]);
    messages_keep_their_order(&mut clients);
    a_broadcast_reaches_everybody(&mut clients);
    a_tunnel_joins_two_nodes(&mut clients);
    the_death_of_a_client_is_announced(&cluster, &mut clients[0]);
    processes_are_known(&mut clients);
    let leader = clients[2].wait_for_leader(TIMEOUT).unwrap();
    let told = cluster.node(0).tool_ok(&["leader"]).unwrap();
    assert_eq!(leader.map(|leader| format!("{leader}\n")), Some(told));
}

fn controls_reach_every_node(client: &mut Client) {
    let nodes = [pnn(0), pnn(1), pnn(2)];
    let mut answered = Vec::new();
    client.control_each::<kinds::GetPnn>(&nodes, &(), ControlOptions::default(), |node, answer| {
        assert_eq!(answer.unwrap().0, node);
        answered.push(node);
    });
    assert_eq!(answered, nodes);
    let nobody = Destination::Node(pnn(7));
    let error = client.control::<kinds::Ping>(nobody, &()).unwrap_err();
    let ControlError::Failed { status: -1, text, .. } = &error else { panic!("{error:?}") };
    assert_eq!(text, "ctdb_control to disconnected node");
}

fn messages_keep_their_order(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0001);
    clients[2].register(srvid).unwrap();
    for number in 0..500_u32 {
        let data = number.to_le_bytes();
        clients[0].send_message(Destination::Node(pnn(2)), srvid, &data).unwrap();
    }
    for number in 0..500_u32 {
        let message = clients[2].receive(TIMEOUT).unwrap();
        assert_eq!((message.srvid, message.data), (srvid, number.to_le_bytes().to_vec()));
    }
    clients[2].deregister(srvid).unwrap();
    let error = clients[2].deregister(srvid).unwrap_err();
    assert_eq!(error.errno(), 2);
}

fn a_broadcast_reaches_everybody(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0002);
    for client in &mut *clients {
        client.register(srvid).unwrap();
    }
    clients[1].send_message(Destination::BroadcastConnected, srvid, b"all").unwrap();
    for client in clients {
        assert_eq!(client.receive_to(srvid, TIMEOUT).unwrap().data, b"all");
        client.deregister(srvid).unwrap();
    }
}

fn a_tunnel_joins_two_nodes(clients: &mut [Client]) {
    let tunnel = 0xFFFF_FFFF_0000_0005;
    clients[0].register_tunnel(tunnel).unwrap();
    clients[1].register_tunnel(tunnel).unwrap();
    let again = clients[1].register_tunnel(tunnel);
    assert!(matches!(again, Err(ControlError::Failed { .. })), "{again:?}");
    let flags = TunnelFlags(TunnelFlags::REQUEST.0 | TunnelFlags::NOREPLY.0);
    clients[0].send_tunnel(pnn(1), tunnel, flags, b"through").unwrap();
    let packet = clients[1].receive_tunnel(tunnel, TIMEOUT).unwrap();
    assert_eq!((packet.flags, packet.data), (flags, b"through".to_vec()));
    clients[0].deregister_tunnel(tunnel).unwrap();
    clients[1].deregister_tunnel(tunnel).unwrap();
}

fn the_death_of_a_client_is_announced(cluster: &Cluster, observer: &mut Client) {
    let srvid = Srvid(0xAE00_0000_0000_0003);
    observer.register(srvid).unwrap();
    let mut mortal = connect(cluster, 2);
    mortal.register_notify(srvid, b"gone").unwrap();
    drop(mortal);
    assert_eq!(observer.receive_to(srvid, TIMEOUT).unwrap().data, b"gone");
    let mut careful = connect(cluster, 2);
    careful.register_notify(srvid, b"gone").unwrap();
    careful.deregister_notify(srvid).unwrap();
    drop(careful);
    observer.deregister(srvid).unwrap();
}

fn processes_are_known(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0004);
    clients[1].register(srvid).unwrap();
    assert!(clients[0].process_exists(pnn(1), own_pid()).unwrap());
    assert!(!clients[0].process_exists(pnn(1), Pid(i32::MAX)).unwrap());
    assert!(clients[0].process_registered(pnn(1), own_pid(), srvid).unwrap());
    assert!(!clients[0].process_registered(pnn(0), own_pid(), srvid).unwrap());
    clients[1].deregister(srvid).unwrap();
}

#[test]
fn a_traverse_hands_over_every_record_once() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(2)).unwrap();
    let mut client = connect(&cluster, 1);
    let db = client.attach("traverse.tdb", DbKind::Volatile).unwrap();
    assert_eq!(db.id, DbId::from_name("traverse.tdb"));
    assert!(db.path.starts_with(cluster.node(1).volatile_directory()), "{:?}", db.path);
    for number in 0..40 {
        let node = cluster.node(number % 2);
        let (key, value) = (format!("key{number}"), format!("value{number}"));
        node.tool_ok(&["writekey", "traverse.tdb", &key, &value]).unwrap();
    }
    cluster.node(0).tool_ok(&["deletekey", "traverse.tdb", "key7"]).unwrap();
    let mut seen = Vec::new();
    let collect = |client: &mut Client, with_empty, seen: &mut Vec<(String, String)>| {
        seen.clear();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        client.traverse(db.id, with_empty, TIMEOUT, |record| {
            assert!(record.header.is_some());
            seen.push((text(record.key), text(record.value)));
            ControlFlow::Continue(())
        })
    };
    assert_eq!(collect(&mut client, false, &mut seen).unwrap(), 39);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 39);
    assert!(seen.contains(&("key39".into(), "value39".into())));
    assert!(seen.iter().all(|(key, _)| key != "key7"));

    let mut first = 0;
    let stopped = client.traverse(db.id, false, TIMEOUT, |_| {
        first += 1;
        if first == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.unwrap(), first), (3, 3));
    // The rest of the broken-off traverse does not turn up in the next one.
    assert_eq!(collect(&mut client, false, &mut seen).unwrap(), 39);
}

#[test]
fn a_daemon_that_hangs_or_dies_makes_a_clear_error() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    let mut client = connect(&cluster, 0);
    let to = client.own_node();
    client.set_timeout(Duration::from_millis(200));
    let unknown = DbId(0x1234_5678);
    let error = client.call(unknown, b"key", CallId::NULL, CallFlags(0)).unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");

    cluster.node(0).signal_daemon(Signal::STOP).unwrap();
    let error = client.control::<kinds::Ping>(to, &()).unwrap_err();
    assert!(matches!(error, ControlError::TimedOut { .. }), "{error:?}");
    cluster.node(0).signal_daemon(Signal::CONT).unwrap();
    client.set_timeout(TIMEOUT);
    // The late reply to the first PING is not taken for the second one's.
    client.control::<kinds::Ping>(to, &()).unwrap();

    let ticket = {
        cluster.node(0).signal_daemon(Signal::STOP).unwrap();
        client.start::<kinds::Ping>(to, &(), ControlOptions::default()).unwrap()
    };
    cluster.node(0).crash_daemon().unwrap();
    let error = client.finish::<kinds::Ping>(ticket).unwrap_err();
    let ControlError::Connection(ConnectionError::Closed { path }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*path, cluster.node(0).socket());
    let error = client.receive(TIMEOUT).unwrap_err();
    assert!(matches!(error, ReceiveError::Connection(_)), "{error:?}");
}
