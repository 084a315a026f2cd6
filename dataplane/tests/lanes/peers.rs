//! One node, and a peer that is only sockets: what it may do wrong, and what becomes of it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use ringmaster_dataplane::shard::message::{Credit, FromShard};
use ringmaster_protocol::{
    Packet, PacketStyle, Srvid,
    call::{CallFlags, CallId, ReplyCall, ReqCall},
    header::HEADER_LEN,
    keepalive::{KeepalivePayload, ReqKeepalive, SambaVersion},
    message::ReqMessage,
    tunable::Tunable,
};
use ringmaster_transport::{
    reactor::ReactorKind,
    tcp::{announce::Announcement, socket::start_connect},
};

use crate::support::{DB, GENERATION, Node, Shape, Terms, envelope, places, until};

/// Node 1 as far as node 0 can see.
struct Peer {
    place: TcpListener,
    /// What node 0 reads.
    to: TcpStream,
    /// What node 0 writes.
    from: TcpStream,
    buffer: Vec<u8>,
}

/// A blocking connection from `source`.
fn connect(source: IpAddr, to: SocketAddr) -> TcpStream {
    let stream = TcpStream::from(start_connect(source, to).expect("under way"));
    stream.set_nonblocking(false).expect("set");
    stream
}

impl Peer {
    fn new(place: TcpListener, node: SocketAddr) -> Self {
        let to = connect(place.local_addr().expect("an address").ip(), node);
        let (from, _) = place.accept().expect("node 0 connects");
        Self { place, to, from, buffer: Vec::new() }
    }

    fn ip(&self) -> IpAddr {
        self.place.local_addr().expect("an address").ip()
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope(1, 0, 1), PacketStyle::Daemon);
        self.to.write_all(&bytes).expect("sent");
    }

    /// The next packet that node 0 sends.
    fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Some(word) = self.buffer.first_chunk::<4>() {
                let len = u32::from_le_bytes(*word) as usize;
                if self.buffer.len() >= len {
                    return self.buffer.drain(..len).collect();
                }
            }
            let mut more = [0; 65_536];
            let len = self.from.read(&mut more).expect("bytes");
            assert_ne!(len, 0, "node 0 has closed");
            self.buffer.extend_from_slice(&more[..len]);
        }
    }
}

fn ends(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Runs the case with a node of one and of several shards, on both reactors, and the peer up.
fn everywhere(terms: fn(Terms) -> Terms, case: fn(&mut Vec<Node>, Peer)) {
    for (shards, reactor) in [(1, ReactorKind::Epoll), (3, ReactorKind::Auto)] {
        let mut listeners = places(2);
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|one| one.local_addr().expect("an address")).collect();
        let terms = terms(Terms::new(addresses.clone()));
        let place = listeners.pop().expect("two");
        let node = Node::start(0, Shape { shards, reactor }, &terms, listeners.remove(0));
        let mut nodes = vec![node];
        let peer = Peer::new(place, addresses[0]);
        until(&mut nodes, "the peer is up", |nodes| nodes[0].heard_up(1).then_some(()));
        case(&mut nodes, peer);
        nodes.into_iter().for_each(Node::stop);
    }
}

fn as_it_is(terms: Terms) -> Terms {
    terms
}

fn dies(nodes: &mut [Node]) {
    until(nodes, "the peer is dead", |nodes| nodes[0].heard_down(1).then_some(()));
}

/// The bytes of a well-formed packet.
fn well_formed() -> Vec<u8> {
    let mut bytes = Vec::new();
    let message = Packet::ReqMessage(ReqMessage { srvid: Srvid(1), data: b"hello" });
    message.encode_into(&mut bytes, envelope(1, 0, 0), PacketStyle::Daemon);
    bytes
}

#[test]
fn what_makes_no_sense_costs_the_connection_and_the_peer_may_come_back() {
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [Spoil; 8] = [
        |bytes| bytes[0..4].copy_from_slice(&0_u32.to_le_bytes()),
        |bytes| bytes[0..4].copy_from_slice(&16_u32.to_le_bytes()),
        |bytes| bytes[0..4].copy_from_slice(&49_u32.to_le_bytes()),
        |bytes| bytes[0..4].copy_from_slice(&u32::MAX.to_le_bytes()),
        |bytes| bytes[4] ^= 1,
        |bytes| bytes[8] = 2,
        // The data's length, far beyond the packet; and a packet that ends before it.
        |bytes| bytes[40..44].copy_from_slice(&1_000_000_u32.to_le_bytes()),
        |bytes| {
            bytes.truncate(HEADER_LEN);
            bytes[0] = 32;
        },
    ];
    for spoil in spoils {
        // A function pointer cannot carry the spoil into `everywhere`: one shape each.
        let mut listeners = places(2);
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|one| one.local_addr().expect("an address")).collect();
        let place = listeners.pop().expect("two");
        let shape = Shape { shards: 2, reactor: ReactorKind::Auto };
        let terms = Terms::new(addresses.clone());
        let mut nodes = vec![Node::start(0, shape, &terms, listeners.remove(0))];
        let mut peer = Peer::new(place, addresses[0]);
        until(&mut nodes, "the peer is up", |nodes| nodes[0].heard_up(1).then_some(()));
        let mut bytes = well_formed();
        spoil(&mut bytes);
        // What comes behind is not looked at.
        bytes.extend(well_formed());
        peer.to.write_all(&bytes).expect("sent");
        dies(&mut nodes);
        assert!(ends(&mut peer.to), "node 0 closes both connections");
        while peer.from.read(&mut [0; 1_024]).is_ok_and(|len| len > 0) {}
        let peer = Peer::new(peer.place, addresses[0]);
        until(&mut nodes, "the peer is back", |nodes| nodes[0].heard_up(1).then_some(()));
        assert_eq!(nodes[0].add_up().node.req_message, 0);
        drop(peer);
        nodes.into_iter().for_each(Node::stop);
    }
}

#[test]
fn an_operation_that_nobody_knows_is_ignored() {
    everywhere(as_it_is, |nodes, mut peer| {
        let mut unknown = well_formed();
        unknown[16] = 6;
        peer.to.write_all(&unknown).expect("sent");
        peer.to.write_all(&unknown).expect("sent");
        peer.to.write_all(&well_formed()).expect("sent");
        until(nodes, "the packet behind it", |nodes| {
            (nodes[0].add_up().node.req_message == 1).then_some(())
        });
        assert!(!nodes[0].heard_down(1));
    });
}

#[test]
fn strangers_and_second_connections_are_refused() {
    everywhere(as_it_is, |nodes, mut peer| {
        let node = peer.to.peer_addr().expect("an address");
        let mut stranger = connect("127.0.0.77".parse().expect("an address"), node);
        assert!(ends(&mut stranger), "a stranger is let in");
        let mut second = connect(peer.ip(), node);
        assert!(ends(&mut second), "a second connection is let in");
        // The node itself is no peer of its own.
        let mut own = connect(node.ip(), node);
        assert!(ends(&mut own), "the node's own address is let in");
        peer.to.write_all(&well_formed()).expect("sent");
        until(nodes, "the first one is still heard", |nodes| {
            (nodes[0].add_up().node.req_message == 1).then_some(())
        });
        assert!(!nodes[0].heard_down(1));
    });
}

#[test]
fn a_peer_that_writes_where_it_may_only_read_is_dead() {
    everywhere(as_it_is, |nodes, mut peer| {
        peer.from.write_all(b"x").expect("sent");
        dies(nodes);
        assert!(ends(&mut peer.to));
    });
}

#[test]
fn either_connection_closing_is_the_peers_death() {
    everywhere(as_it_is, |nodes, peer| {
        drop(peer.to);
        dies(nodes);
        let node = nodes[0].view.nodes.0[0].addr;
        let node = SocketAddr::new(node.ip().expect("an address"), node.port());
        let peer = Peer::new(peer.place, node);
        until(nodes, "the peer is back", |nodes| nodes[0].heard_up(1).then_some(()));
        drop(peer.from);
        dies(nodes);
    });
}

#[test]
fn a_keepalive_says_version_uptime_and_who_we_are() {
    everywhere(as_it_is, |_, mut peer| {
        let bytes = peer.packet();
        let (header, packet) = Packet::decode(&bytes).expect("a packet");
        let Packet::ReqKeepalive(keepalive) = packet else { panic!("{packet:?}") };
        let payload = keepalive.payload.expect("a payload");
        assert_eq!(payload.version, SambaVersion::new(4, 17));
        assert!(payload.uptime < 3_600);
        assert_eq!((header.length, header.envelope), (64, envelope(0, 1, 0)));
        let announced = Announcement::of_tail(keepalive.tail).expect("one of ours");
        assert_eq!((announced.instance, announced.version), (100, 1));
    });
}

#[test]
fn an_older_peer_of_another_version_makes_us_leave() {
    everywhere(as_it_is, |nodes, mut peer| {
        let says = |minor, uptime| {
            let version = SambaVersion::new(4, minor);
            let payload = Some(KeepalivePayload { version, uptime });
            Packet::ReqKeepalive(ReqKeepalive { payload, tail: b"" })
        };
        peer.send(&says(17, 100_000));
        // Not older than we are, or of the same age and lower.
        peer.send(&says(16, 0));
        peer.send(&says(25, 100_000));
        let reason = until(nodes, "leaving", |nodes| {
            nodes[0].take(|said| match said {
                FromShard::Leave(reason) => Some(reason.clone()),
                _ => None,
            })
        });
        assert!(reason.contains("0x40019") && reason.contains("AllowMixedVersions"), "{reason}");
        let total = nodes[0].add_up();
        assert_eq!(total.keepalive_packets_recv, 3, "only the last of them is a reason");
        assert!(total.keepalive_packets_sent >= 1);
    });
}

#[test]
fn mixed_versions_may_be_allowed() {
    everywhere(
        |terms| terms.tunable(Tunable::AllowMixedVersions, 1),
        |nodes, mut peer| {
            peer.send(&Packet::ReqKeepalive(ReqKeepalive { payload: None, tail: b"" }));
            until(nodes, "heard", |nodes| {
                (nodes[0].add_up().keepalive_packets_recv == 1).then_some(())
            });
            let left = nodes[0].take(|said| matches!(said, FromShard::Leave(_)).then_some(()));
            assert_eq!(left, None);
        },
    );
}

#[test]
fn a_silent_peer_is_dead_after_the_limit_and_was_sent_keepalives_meanwhile() {
    everywhere(
        |terms| terms.tunable(Tunable::KeepaliveInterval, 1).tunable(Tunable::KeepaliveLimit, 2),
        |nodes, mut peer| {
            dies(nodes);
            assert!(ends(&mut peer.to));
            // One when it came up, one after the first silent interval; one more is counted when
            // it is dead, as in C, and goes nowhere.
            for _ in 0..2 {
                assert!(matches!(Packet::decode(&peer.packet()), Ok((_, Packet::ReqKeepalive(_)))));
            }
            assert!(ends(&mut peer.from));
        },
    );
}

#[test]
fn record_packets_of_another_epoch_are_dropped_and_not_counted() {
    everywhere(as_it_is, |nodes, mut peer| {
        let call = ReqCall {
            flags: CallFlags::IMMEDIATE_MIGRATION,
            db: DB,
            callid: CallId::NULL,
            hopcount: 0,
            key: b"key",
            calldata: b"",
        };
        let reply = ReplyCall { status: 0, data: b"" };
        for packet in [Packet::ReqCall(call), Packet::ReplyCall(reply)] {
            let mut bytes = Vec::new();
            let mut envelope = envelope(1, 0, 5);
            envelope.generation.0 = GENERATION.0 + 1;
            packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
            peer.to.write_all(&bytes).expect("sent");
        }
        // A request id of a shard that does not exist.
        let mut bytes = Vec::new();
        Packet::ReplyCall(reply).encode_into(
            &mut bytes,
            envelope(1, 0, 30 << 26),
            PacketStyle::Daemon,
        );
        peer.to.write_all(&bytes).expect("sent");
        until(nodes, "all have come", |nodes| {
            (nodes[0].add_up().node_packets_recv == 3).then_some(())
        });
        let total = nodes[0].add_up();
        assert_eq!((total.node.req_call, total.node.reply_call), (0, 1));
        assert!(!nodes[0].heard_down(1));
    });
}

/// More than the socket buffers take (10 MB by default).
const STREAM: usize = 32 * 1024 * 1024;

fn flood(node: &mut Node, bytes: usize, credit: impl Fn(usize) -> Option<Credit>) {
    let data = vec![7; 64 * 1024];
    for _ in 0..bytes / data.len() {
        let packet = Packet::ReqMessage(ReqMessage { srvid: Srvid(1), data: &data });
        node.send_node(1, 0, &packet, credit(data.len()));
    }
}

#[test]
fn a_peer_that_does_not_read_is_dead_at_the_limit() {
    everywhere(
        |mut terms| {
            terms.output_max = 1024 * 1024;
            terms
        },
        |nodes, peer| {
            flood(&mut nodes[0], STREAM, |_| None);
            dies(nodes);
            drop(peer);
        },
    );
}

#[test]
fn credits_come_back_as_the_peer_reads_and_all_when_it_dies() {
    everywhere(as_it_is, |nodes, mut peer| {
        let (back, given_back) = mpsc::channel();
        flood(&mut nodes[0], STREAM, |bytes| Some(Credit::new(bytes, back.clone())));
        let mut came_back = 0;
        let mut collect = |nodes: &mut [Node], enough: usize| {
            until(nodes, "credits", |_| {
                came_back += given_back.try_iter().sum::<usize>();
                (came_back >= enough).then_some(())
            });
            came_back
        };
        // A part has left for the kernel's buffers; the rest is owed while the peer does not read.
        let first = collect(nodes, 1);
        assert!(first < STREAM, "no socket buffer takes that much");
        let mut read = 0;
        let mut sink = vec![0; 1 << 20];
        while read < STREAM / 4 {
            read += peer.from.read(&mut sink).expect("bytes");
        }
        let second = collect(nodes, first + 1);
        assert!(second < STREAM, "the peer has read a quarter of it");
        drop(peer);
        assert_eq!(collect(nodes, STREAM), STREAM);
    });
}
