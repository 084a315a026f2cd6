//! Two nodes for real: shards, sockets, TDB files, joined over loopback.

mod peers;
mod support;

use std::net::{SocketAddr, TcpListener};

use ringmaster_protocol::{
    Destination, Packet, Srvid,
    call::CallId,
    control::ControlOpcode,
    control_packet::{ControlFlags, ReplyControl, ReqControl},
    message::ReqMessage,
    record::RecordHeader,
    tunnel::{ReqTunnel, TunnelFlags},
};
use ringmaster_transport::reactor::ReactorKind;

use support::{Client, Node, Shape, Terms, places, pnn, until};

/// Several numbers of shards on both reactors, not the same at both ends; connected.
fn everywhere(case: fn(Vec<Node>)) {
    for shapes in [
        [(1, ReactorKind::Epoll), (1, ReactorKind::Auto)],
        [(2, ReactorKind::Auto), (4, ReactorKind::Epoll)],
        [(4, ReactorKind::Auto), (1, ReactorKind::Epoll)],
    ] {
        let listeners = places(2);
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|one| one.local_addr().expect("an address")).collect();
        let terms = Terms::new(addresses);
        let nodes = listeners.into_iter().zip(shapes).zip(0..);
        let mut nodes: Vec<Node> = nodes
            .map(|((listener, (shards, reactor)), number)| {
                Node::start(number, Shape { shards, reactor }, &terms, listener)
            })
            .collect();
        connected(&mut nodes);
        case(nodes);
    }
}

fn connected(nodes: &mut [Node]) {
    let mut missing = vec![(0, 1), (1, 0)];
    until(nodes, "both are up", |nodes| {
        missing.retain(|(node, other)| !nodes[*node].heard_up(*other));
        missing.is_empty().then_some(())
    });
}

fn stop(nodes: Vec<Node>) {
    nodes.into_iter().for_each(Node::stop);
}

/// A client that is registered for a srvid or tunnel.
fn listener(nodes: &mut [Node], node: usize, opcode: ControlOpcode, id: u64) -> Client {
    let mut client = nodes[node].connect();
    client.register(1, opcode, id);
    until(nodes, "registered", |_| client.packet());
    client
}

fn message_of(bytes: &[u8]) -> (u64, Vec<u8>) {
    let (_, packet) = Packet::decode(bytes).expect("a packet");
    let Packet::ReqMessage(message) = packet else { panic!("{packet:?}") };
    (message.srvid.0, message.data.to_vec())
}

#[test]
fn each_sees_the_other_die_and_return() {
    everywhere(|mut nodes| {
        let second = nodes.pop().expect("two nodes");
        let (shape, view) = (second.shape, second.view.clone());
        second.stop();
        until(&mut nodes, "the other is dead", |nodes| nodes[0].heard_down(1).then_some(()));
        let address = |node: u32| {
            let addr = view.nodes.0[node as usize].addr;
            SocketAddr::new(addr.ip().expect("an address"), addr.port())
        };
        let terms = Terms::new(vec![address(0), address(1)]);
        // As a daemon does: until its predecessor's socket is free.
        let listener = until(&mut nodes, "the address is free", |_| {
            TcpListener::bind(terms.addresses[1]).ok()
        });
        nodes.push(Node::start(1, shape, &terms, listener));
        connected(&mut nodes);
        stop(nodes);
    });
}

#[test]
fn messages_to_a_node_keep_their_order_and_broadcasts_reach_all() {
    everywhere(|mut nodes| {
        let mut far: Vec<Client> =
            (0..3).map(|_| listener(&mut nodes, 1, ControlOpcode::REGISTER_SRVID, 5)).collect();
        let mut near = listener(&mut nodes, 0, ControlOpcode::REGISTER_SRVID, 5);
        let mut sender = nodes[0].connect();
        for number in 0..2_000_u32 {
            let data = number.to_le_bytes();
            let message = Packet::ReqMessage(ReqMessage { srvid: Srvid(5), data: &data });
            sender.send(Destination::Node(pnn(1)), 0, &message);
        }
        let everybody = Packet::ReqMessage(ReqMessage { srvid: Srvid(5), data: b"everybody" });
        sender.send(Destination::BroadcastConnected, 0, &everybody);
        for client in &mut far {
            for number in 0..2_000_u32 {
                let bytes = until(&mut nodes, "a message", |_| client.packet());
                assert_eq!(message_of(&bytes), (5, number.to_le_bytes().to_vec()));
            }
        }
        for client in far.iter_mut().chain([&mut near]) {
            let bytes = until(&mut nodes, "the broadcast", |_| client.packet());
            assert_eq!(message_of(&bytes), (5, b"everybody".to_vec()));
        }
        let (sent, received) = (nodes[0].add_up(), nodes[1].add_up());
        assert_eq!(received.node.req_message, 2_001);
        assert!(sent.node_packets_sent >= 2_002 && received.node_packets_recv >= 2_001);
        stop(nodes);
    });
}

#[test]
fn tunnels_lead_from_node_to_node() {
    everywhere(|mut nodes| {
        let mut near = listener(&mut nodes, 0, ControlOpcode::TUNNEL_REGISTER, 8);
        let mut far = listener(&mut nodes, 1, ControlOpcode::TUNNEL_REGISTER, 8);
        for (from, to, number) in [(0, 1, 1_u8), (1, 0, 2), (0, 1, 3)] {
            let data = [number];
            let flags = TunnelFlags::REQUEST;
            let packet = Packet::ReqTunnel(ReqTunnel { tunnel_id: 8, flags, data: &data });
            let (sender, receiver) =
                if from == 0 { (&mut near, &mut far) } else { (&mut far, &mut near) };
            sender.send(Destination::Node(pnn(to)), 77, &packet);
            let bytes = until(&mut nodes, "a tunnel packet", |_| receiver.packet());
            let (header, packet) = Packet::decode(&bytes).expect("a packet");
            let Packet::ReqTunnel(tunnel) = packet else { panic!("{packet:?}") };
            // C loses the request id on the way, so do we.
            assert_eq!((tunnel.data, header.envelope.reqid.0), (&data[..], 0));
        }
        stop(nodes);
    });
}

#[test]
fn records_migrate_in_every_direction_for_all_chains() {
    everywhere(|mut nodes| {
        let mut clients = [nodes[0].connect(), nodes[1].connect()];
        let keys: Vec<String> = (0..150).map(|number| format!("key-{number}")).collect();
        for (round, at) in [0, 1, 0, 1].into_iter().enumerate() {
            let client = &mut clients[at];
            for (number, key) in (1..).zip(&keys) {
                client.call(number, CallId::NULL, key.as_bytes());
            }
            let mut answered = Vec::new();
            until(&mut nodes, "all calls are answered", |_| {
                while let Some(bytes) = client.packet() {
                    let (header, packet) = Packet::decode(&bytes).expect("a packet");
                    let Packet::ReplyCall(reply) = packet else { panic!("{packet:?}") };
                    assert_eq!(reply.status, 0);
                    answered.push(header.envelope.reqid.0);
                }
                (answered.len() == keys.len()).then_some(())
            });
            answered.sort_unstable();
            assert!(answered.into_iter().eq(1..=150), "round {round}");
            let mut value = Vec::new();
            for key in &keys {
                assert!(nodes[at].handle.fetch(key.as_bytes(), &mut value).expect("readable"));
                let (header, _) = RecordHeader::split(&value).expect("a header");
                assert_eq!(header.dmaster.raw() as usize, at, "{key} in round {round}");
                assert!(header.rsn.0 >= round as u64, "{key} in round {round}");
            }
        }
        let total = nodes[0].add_up();
        assert!(total.node.reply_dmaster + total.node.req_dmaster > 0, "records came over TCP");
        stop(nodes);
    });
}

#[test]
fn controls_and_their_replies_reach_the_other_control_thread_in_order() {
    everywhere(|mut nodes| {
        for number in 0..500_u32 {
            let data = number.to_le_bytes();
            let control = ReqControl {
                opcode: ControlOpcode::PING.0,
                srvid: Srvid(0),
                client_id: 3,
                flags: ControlFlags::NONE,
                data: &data,
            };
            nodes[0].send_node(1, number + 1, &Packet::ReqControl(control), None);
        }
        for number in 0..500_u32 {
            let bytes = until(&mut nodes, "a control", |nodes| nodes[1].heard_control());
            let (header, packet) = Packet::decode(&bytes).expect("a packet");
            let Packet::ReqControl(control) = packet else { panic!("{packet:?}") };
            assert_eq!((control.data, control.client_id), (&number.to_le_bytes()[..], 3));
            assert_eq!(header.envelope.source, Destination::Node(pnn(0)));
            let reply = Packet::ReplyControl(ReplyControl::new(number.cast_signed(), b"yes"));
            nodes[1].send_node(0, header.envelope.reqid.0, &reply, None);
        }
        for number in 0..500_u32 {
            let bytes = until(&mut nodes, "a reply", |nodes| nodes[0].heard_control());
            let (header, packet) = Packet::decode(&bytes).expect("a packet");
            let Packet::ReplyControl(reply) = packet else { panic!("{packet:?}") };
            assert_eq!(header.envelope.reqid.0, number + 1);
            assert_eq!((reply.status, reply.data), (number.cast_signed(), &b"yes"[..]));
        }
        let (asker, asked) = (nodes[0].add_up(), nodes[1].add_up());
        assert_eq!((asked.node.req_control, asker.node.reply_control), (500, 500));
        stop(nodes);
    });
}

/// A pushed record must find the one that was sent before it.
#[test]
fn controls_about_records_come_once_and_behind_the_records_sent_before() {
    everywhere(|mut nodes| {
        for number in 0..50_u32 {
            let data = number.to_le_bytes();
            let control = ReqControl {
                opcode: ControlOpcode::PUSH_RECORD.0,
                srvid: Srvid(0),
                client_id: 0,
                flags: ControlFlags::NONE,
                data: &data,
            };
            nodes[0].send_node(1, number + 1, &Packet::ReqControl(control), None);
        }
        for number in 0..50_u32 {
            let bytes = until(&mut nodes, "a control", |nodes| nodes[1].heard_control());
            let (_, packet) = Packet::decode(&bytes).expect("a packet");
            let Packet::ReqControl(control) = packet else { panic!("{packet:?}") };
            assert_eq!(control.data, number.to_le_bytes());
        }
        nodes[1].order(|| ringmaster_dataplane::shard::message::Order::Barrier);
        assert!(nodes[1].heard_control().is_none(), "once");
        stop(nodes);
    });
}
