//! The host's network for real, each test in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its surroundings must fail")]

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    process::Command,
    time::{Duration, Instant},
};

use ringmaster_network::{
    addresses::{HostAddresses, give_up},
    announce::{AnnounceError, announce},
    connections::HostConnections,
    interfaces, killing, packet, tickle,
};
use ringmaster_protocol::{SockAddr, connection::Connection};
use rustix::{
    net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with},
    thread::UnshareFlags,
};

/// Long enough for whatever a loaded machine does; nothing waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a thread that has a network of its own; says so where that cannot be.
fn alone(test: fn()) {
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var_os("RINGMASTER_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "a network namespace needs root");
        println!("skipped: a network namespace needs root");
        return;
    }
    let isolated = std::thread::spawn(move || {
        // SAFETY: only the network namespace of this thread changes, which no descriptor or memory
        // of the process depends on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
        ip("link set lo up");
        test();
    });
    isolated.join().expect("the test passes");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| address(text)).collect()
}

#[test]
fn an_address_is_held_from_the_moment_it_is_there_until_it_is_not() {
    alone(|| {
        let mut host = HostAddresses::open().unwrap();
        let wanted =
            [address("10.0.0.1"), address("10.0.0.2"), address("fd00::1"), address("127.0.0.1")];
        assert_eq!(host.held(&wanted).unwrap(), set(&["127.0.0.1"]));
        for _ in 0..20 {
            ip("addr add 10.0.0.1/24 dev lo");
            assert_eq!(host.held(&wanted).unwrap(), set(&["10.0.0.1", "127.0.0.1"]));
            ip("addr add fd00::1/64 dev lo");
            assert_eq!(host.held(&wanted[..3]).unwrap(), set(&["10.0.0.1", "fd00::1"]));
            assert_eq!(host.held(&wanted[1..2]).unwrap(), set(&[]));
            ip("addr del 10.0.0.1/24 dev lo");
            assert_eq!(host.held(&wanted[..3]).unwrap(), set(&["fd00::1"]));
            ip("addr del fd00::1/64 dev lo");
            assert_eq!(host.held(&wanted[..3]).unwrap(), set(&[]));
        }
    });
}

#[test]
fn many_addresses_and_lost_news_are_no_harm() {
    alone(|| {
        let mut host = HostAddresses::open().unwrap();
        let mut batch = String::new();
        for high in 0..8 {
            for low in 1..=250 {
                batch += &format!("addr add 10.1.{high}.{low}/32 dev lo\n");
            }
        }
        let file = std::env::temp_dir().join(format!("ringmaster-network-{}", std::process::id()));
        std::fs::write(&file, &batch).unwrap();
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let all: Vec<IpAddr> = (0..8_u8)
            .flat_map(|high| (1..=250_u8).map(move |low| IpAddr::from([10, 1, high, low])))
            .collect();
        assert_eq!(host.held(&all).unwrap().len(), all.len());
        ip("addr del 10.1.7.250/32 dev lo");
        assert_eq!(host.held(&all).unwrap().len(), all.len() - 1);
    });
}

/// Everything that arrives or leaves in this namespace, without link headers.
struct Ear(OwnedFd);

impl Ear {
    fn open() -> Self {
        // ETH_P_ALL, in network order.
        let everything = Protocol::from_raw(std::num::NonZero::new(3_u32 << 8).expect("not 0"));
        let socket = socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(everything),
        );
        Self(socket.expect("a packet socket"))
    }

    /// Waits for each of these packets.
    fn hears(&self, wanted: &[Vec<u8>]) {
        let mut missing = wanted.to_vec();
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0_u8; 2048];
        while !missing.is_empty() {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((len, _)) => missing.retain(|packet| !buffer[..len].starts_with(packet)),
                Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "not heard: {missing:02x?}");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A link with a neighbour at its other end.
fn link() {
    ip("link add va address 02:00:00:00:00:01 type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
}

#[test]
fn neighbours_hear_both_forms_of_arp() {
    alone(|| {
        link();
        let ear = Ear::open();
        announce(address("10.0.0.1"), "va").unwrap();
        let own = Ipv4Addr::new(10, 0, 0, 1);
        let packet = |kind| packet::arp::gratuitous(kind, 1, &HARDWARE, own).unwrap();
        ear.hears(&[packet(packet::arp::Kind::Request), packet(packet::arp::Kind::Reply)]);
    });
}

#[test]
fn neighbours_hear_an_advertisement() {
    alone(|| {
        link();
        let ear = Ear::open();
        let own: Ipv6Addr = "fd00::1".parse().unwrap();
        announce(IpAddr::V6(own), "va").unwrap();
        ear.hears(&[packet::neighbour::advertisement(&HARDWARE, own).unwrap()]);
    });
}

#[test]
fn loopback_has_no_neighbours_and_nonsense_no_interface() {
    alone(|| {
        announce(address("10.0.0.1"), "lo").unwrap();
        announce(address("fd00::1"), "lo").unwrap();
        let error = announce(address("10.0.0.1"), "nosuch").unwrap_err();
        assert!(matches!(error, AnnounceError::NoInterface(_)), "{error}");
        ip("link add va type veth peer name vb");
        let error = announce(address("10.0.0.1"), "va").unwrap_err();
        assert!(matches!(error, AnnounceError::Send { .. }), "the link is down: {error}");
        assert_eq!(interfaces::existing(["vb", "vc"]).unwrap(), ["vb"]);
    });
}

#[test]
fn a_client_gets_the_tickle() {
    alone(|| {
        link();
        ip("addr add 10.0.0.1/24 dev va");
        ip("addr add fd00::1/64 dev va nodad");
        ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:02 dev va");
        ip("neigh add fd00::9 lladdr 02:00:00:00:00:02 dev va");
        let ear = Ear::open();
        let mut sender = tickle::Sender::default();
        let end = |text: &str| SockAddr::parse_with_port(text).unwrap();
        let acknowledgement = packet::tcp::Segment::Acknowledgement;
        let v4 = Connection { src: end("10.0.0.9:50000"), dst: end("10.0.0.1:445") };
        let v6 = Connection { src: end("[fd00::9]:50000"), dst: end("[fd00::1]:445") };
        sender.tickle(&v4).unwrap();
        sender.tickle(&v6).unwrap();
        let (SockAddr::V6(server), SockAddr::V6(client)) = (v6.dst, v6.src) else { panic!() };
        // IPv4: length, id and checksum are the kernel's; IPv6 is ours from the first byte.
        ear.hears(&[packet::tcp::ipv6(server, client, acknowledgement)]);
        let mixed = Connection { src: v4.src, dst: v6.dst };
        assert!(matches!(sender.tickle(&mixed), Err(tickle::SendError::Mixed)));
        let nothing = Connection { src: SockAddr::ZERO, dst: SockAddr::ZERO };
        assert!(matches!(sender.tickle(&nothing), Err(tickle::SendError::Family)));
    });
}

/// A connection over loopback in this namespace: both ends, and what the kernel calls it.
fn connected(server: &str) -> (std::net::TcpStream, std::net::TcpStream, Connection) {
    let listener = std::net::TcpListener::bind((address(server), 0)).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let end = |end: std::net::SocketAddr| SockAddr::new(end.ip(), end.port()).canonical();
    let name = Connection { src: end(peer), dst: end(accepted.local_addr().unwrap()) };
    (client, accepted, name)
}

/// The end of a connection, as a read sees it; waits for it.
fn end_of(stream: &mut std::net::TcpStream) -> ErrorKind {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match std::io::Read::read(stream, &mut [0; 1]) {
        Ok(len) => panic!("{len} bytes instead of an error"),
        Err(error) => error.kind(),
    }
}

#[test]
fn the_kernel_names_the_connections_to_an_address() {
    alone(|| {
        ip("addr add 10.0.0.1/24 dev lo");
        ip("addr add fd00::1/64 dev lo nodad");
        let mut host = HostConnections::open().unwrap();
        let (one, _one, first) = connected("10.0.0.1");
        let (_two, _its_end, second) = connected("fd00::1");
        let _other = connected("127.0.0.1");
        let wanted = [address("10.0.0.1"), address("fd00::1")];
        // The client's end, if it is at the same address, is a connection to it as well.
        let reverse = |one: Connection| Connection { src: one.dst, dst: one.src };
        let found = host.established(&wanted).unwrap();
        assert!(found.contains(&first) && found.contains(&second), "{found:?}");
        assert!(
            found.iter().all(|one| [first, second, reverse(first), reverse(second)].contains(one))
        );
        drop(one);
        let found = host.established(&wanted[..1]).unwrap();
        assert!(!found.contains(&first), "half closed");
    });
}

#[test]
fn a_connection_to_a_listener_for_both_families_is_an_ipv4_one() {
    alone(|| {
        let listener = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _accepted = listener.accept().unwrap();
        let found = HostConnections::open().unwrap().established(&[address("127.0.0.1")]).unwrap();
        let src = client.local_addr().unwrap();
        let name = Connection {
            src: SockAddr::new(src.ip(), src.port()),
            dst: SockAddr::new(address("127.0.0.1"), port),
        };
        assert!(found.contains(&name), "{found:?}");
    });
}

#[test]
fn an_own_connection_is_ended_at_both_ends() {
    alone(|| {
        for server in ["127.0.0.1", "::1"] {
            let (mut client, mut accepted, name) = connected(server);
            let (mut bystander, other, _) = connected(server);
            assert_eq!(killing::kill("lo", &[name]).unwrap(), BTreeSet::new());
            // Both ends are here: whichever is ended first resets the other.
            let ends = [end_of(&mut client), end_of(&mut accepted)];
            let words = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
            assert!(ends.iter().all(|end| words.contains(end)), "{ends:?}");
            drop(other);
            assert_eq!(std::io::Read::read(&mut bystander, &mut [0; 1]).unwrap(), 0, "untouched");
        }
    });
}

#[test]
fn a_connection_of_others_is_reset_with_the_numbers_that_they_believe_in() {
    alone(|| {
        ip("addr add fd00::1/64 dev lo nodad");
        for server in ["127.0.0.1", "fd00::1"] {
            let (mut client, _accepted, name) = connected(server);
            assert_eq!(killing::reset("lo", [name].into()).unwrap(), BTreeSet::new());
            assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn connections_that_nobody_answers_for_are_left_after_a_while() {
    alone(|| {
        link();
        let end = |text: &str| SockAddr::parse_with_port(text).unwrap();
        let name = Connection { src: end("10.0.0.9:50000"), dst: end("10.0.0.1:445") };
        assert_eq!(killing::kill("va", &[name]).unwrap(), [name].into());
        assert!(killing::kill("nosuch", &[name]).is_err());
        assert_eq!(killing::kill("nosuch", &[]).unwrap(), BTreeSet::new());
    });
}

#[test]
fn addresses_are_given_up_wherever_they_are_and_others_stay() {
    alone(|| {
        link();
        for (address, device) in
            [("10.0.0.1/24", "va"), ("10.0.0.2/24", "va"), ("fd00::1/64", "vb")]
        {
            ip(&format!("addr add {address} dev {device}"));
        }
        let wanted = set(&["10.0.0.2", "fd00::1", "10.0.0.77"]);
        assert_eq!(give_up(&wanted).unwrap(), set(&["10.0.0.2", "fd00::1"]));
        assert_eq!(give_up(&wanted).unwrap(), set(&[]));
        let mut host = HostAddresses::open().unwrap();
        let all = [address("10.0.0.1"), address("10.0.0.2"), address("fd00::1")];
        assert_eq!(host.held(&all).unwrap(), set(&["10.0.0.1"]));
    });
}
