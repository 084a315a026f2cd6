//! One suite for both reactors: whatever one does, the other does.

mod stress;

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
};

use super::{
    AnyReactor, BUFFER_LEN, BUFFERS, Event, Reactor, ReactorKind, RecvBuffer, Token, Wait,
};
use crate::tcp::socket::start_connect;

/// Turns after which a test gives up waiting, 10 ms each.
const TURNS_MAX: usize = 1_000;

/// Runs the case on epoll, and on io_uring where the kernel allows it.
fn on_both(case: fn(&mut AnyReactor)) {
    case(&mut AnyReactor::new(ReactorKind::Epoll).expect("epoll is always there"));
    match AnyReactor::new(ReactorKind::IoUring) {
        Ok(mut ring) => case(&mut ring),
        Err(error) => {
            let required = std::env::var_os("RINGMASTER_REQUIRE_ALL").is_some();
            assert!(!required, "io_uring: {error}");
            println!("skipped: io_uring: {error}");
        }
    }
}

/// Turns the reactor until `done` says so; every event goes through it.
fn until(reactor: &mut AnyReactor, mut done: impl FnMut(&mut AnyReactor, Event) -> bool) {
    let mut events = Vec::new();
    for _ in 0..TURNS_MAX {
        reactor.turn(Wait::Until(Duration::from_millis(10)), &mut events).expect("a turn");
        let mut finished = false;
        for event in events.drain(..) {
            finished |= done(reactor, event);
        }
        if finished {
            return;
        }
    }
    panic!("{}: nothing came of it", reactor.name());
}

fn pair(reactor: &mut AnyReactor) -> (Token, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    (reactor.add_stream(OwnedFd::from(ours)).expect("added"), theirs)
}

fn append(reactor: &mut AnyReactor, token: Token, bytes: &[u8]) {
    reactor.output(token).expect("the stream is there").extend_from_slice(bytes);
}

/// One turn, in which what has been appended leaves; nothing else happens.
fn flush(reactor: &mut AnyReactor) {
    let mut events = Vec::new();
    reactor.turn(Wait::No, &mut events).expect("a turn");
    assert!(events.is_empty(), "{events:?}");
}

fn receive(reactor: &mut AnyReactor, token: Token, len: usize) -> Vec<u8> {
    let mut received = Vec::new();
    until(reactor, |reactor, event| {
        if let Event::Data { token: from, buffer } = event {
            assert_eq!(from, token);
            received.extend_from_slice(&buffer);
            reactor.recycle(buffer);
        }
        received.len() >= len
    });
    received
}

#[test]
fn a_connection_is_accepted_and_answered() {
    on_both(|reactor| {
        let folder = std::env::temp_dir().join(format!("reactor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(reactor.name());
        let listener = UnixListener::bind(&path).expect("bound");
        let listening = reactor.add_listener(OwnedFd::from(listener)).expect("added");
        let mut client = UnixStream::connect(&path).expect("connected");
        client.write_all(b"ping").expect("written");
        let mut server = None;
        until(reactor, |reactor, event| match event {
            Event::Accepted { listener, stream } => {
                assert_eq!(listener, listening);
                server = Some(reactor.add_stream(stream).expect("added"));
                false
            }
            Event::Data { token, buffer } => {
                assert_eq!((Some(token), &*buffer), (server, b"ping".as_slice()));
                reactor.recycle(buffer);
                append(reactor, token, b"pong");
                true
            }
            other => panic!("unexpected {other:?}"),
        });
        flush(reactor);
        let mut answer = [0; 4];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"pong");
        std::fs::remove_dir_all(&folder).expect("removed");
    });
}

#[test]
fn what_one_turn_appends_leaves_together_and_in_order() {
    on_both(|reactor| {
        let (token, mut peer) = pair(reactor);
        for number in 0..100_u8 {
            append(reactor, token, &[number]);
        }
        flush(reactor);
        let mut bytes = [0; 200];
        assert_eq!(peer.read(&mut bytes).expect("bytes"), 100);
        assert!(bytes[..100].iter().copied().eq(0..100));
    });
}

#[test]
fn a_slow_reader_gets_everything_and_the_queue_shows_it() {
    on_both(|reactor| {
        let (token, mut peer) = pair(reactor);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        append(reactor, token, &sent);
        let mut events = Vec::new();
        reactor.turn(Wait::No, &mut events).expect("a turn");
        assert!(events.is_empty(), "3 MB do not fit into a socket buffer: {events:?}");
        assert!(reactor.queued(token) > 0);
        append(reactor, token, b"the end");
        let expected = sent.len() + 7;
        let reader = std::thread::spawn(move || {
            let mut received = vec![0; expected];
            peer.read_exact(&mut received).expect("all of it");
            received
        });
        until(reactor, |_, event| matches!(event, Event::Drained { .. }));
        assert_eq!(reactor.queued(token), 0);
        let received = reader.join().expect("read");
        assert!(received.starts_with(&sent) && received.ends_with(b"the end"));
    });
}

#[test]
fn large_input_arrives_whole() {
    on_both(|reactor| {
        let (token, mut peer) = pair(reactor);
        let sent: Vec<u8> = (0..BUFFER_LEN * 40).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            peer.write_all(&sent).expect("written");
            peer
        });
        assert!(receive(reactor, token, expected.len()) == expected);
        writer.join().expect("written");
    });
}

#[test]
fn the_peers_end_is_reported_once_and_the_token_is_gone() {
    on_both(|reactor| {
        let (token, peer) = pair(reactor);
        drop(peer);
        until(reactor, |_, event| matches!(event, Event::Closed { error: None, .. }));
        assert!(reactor.output(token).is_none());
        assert_eq!(reactor.queued(token), 0);
        let mut events = Vec::new();
        for _ in 0..3 {
            reactor.turn(Wait::No, &mut events).expect("a turn");
        }
        assert!(events.is_empty(), "{events:?}");
    });
}

#[test]
fn output_to_a_peer_that_is_gone_closes_the_stream() {
    on_both(|reactor| {
        let (token, peer) = pair(reactor);
        reactor.pause(token);
        drop(peer);
        append(reactor, token, b"too late");
        until(reactor, |_, event| matches!(event, Event::Closed { .. }));
    });
}

#[test]
fn a_closed_stream_says_nothing_more_and_its_peer_sees_the_end() {
    on_both(|reactor| {
        let (token, mut peer) = pair(reactor);
        let (other, mut other_peer) = pair(reactor);
        peer.write_all(b"unread").expect("written");
        reactor.close(token);
        other_peer.write_all(b"x").expect("written");
        until(reactor, |reactor, event| match event {
            Event::Data { token, buffer } => {
                assert_eq!(token, other);
                reactor.recycle(buffer);
                true
            }
            event => panic!("unexpected {event:?}"),
        });
        let ended = peer.read(&mut [0; 1]);
        // Unread input makes some kernels report a reset instead of an end.
        assert!(ended.as_ref().map_or(true, |&len| len == 0), "{ended:?}");
    });
}

#[test]
fn a_paused_stream_is_silent_until_resumed() {
    on_both(|reactor| {
        let (token, mut peer) = pair(reactor);
        let (_, mut other_peer) = pair(reactor);
        reactor.pause(token);
        // Lets a cancel take effect.
        other_peer.write_all(b"1").expect("written");
        until(reactor, |reactor, event| recycled(reactor, event).is_some());
        peer.write_all(b"later").expect("written");
        other_peer.write_all(b"2").expect("written");
        until(reactor, |reactor, event| match recycled(reactor, event) {
            Some((from, _)) => {
                assert_ne!(from, token);
                true
            }
            None => false,
        });
        reactor.resume(token);
        assert_eq!(receive(reactor, token, 5), b"later");
    });
}

fn recycled(reactor: &mut AnyReactor, event: Event) -> Option<(Token, usize)> {
    let Event::Data { token, buffer } = event else { return None };
    let len = buffer.len();
    reactor.recycle(buffer);
    Some((token, len))
}

#[test]
fn the_doorbell_wakes_every_time() {
    on_both(|reactor| {
        let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        reactor.add_doorbell(bell.try_clone().expect("cloned")).expect("added");
        for _ in 0..3 {
            rustix::io::write(&bell, &1_u64.to_ne_bytes()).expect("rung");
            until(reactor, |_, event| matches!(event, Event::Woken));
        }
    });
}

#[test]
fn without_a_buffer_input_waits_and_then_comes() {
    on_both(|reactor| {
        let (_, mut peer) = pair(reactor);
        peer.set_nonblocking(true).expect("non-blocking");
        let mut kept: Vec<RecvBuffer> = Vec::new();
        let mut written = 0_usize;
        let all = usize::from(BUFFERS);
        let mut events = Vec::new();
        for _ in 0..all * 4 {
            written += peer.write(&[7; BUFFER_LEN]).unwrap_or(0);
            reactor.turn(Wait::No, &mut events).expect("a turn");
            for event in events.drain(..) {
                if let Event::Data { buffer, .. } = event {
                    kept.push(buffer);
                }
            }
        }
        assert_eq!(kept.len(), all, "every buffer is lent");
        // A turn without a buffer sleeps: it does not go round and round over what it may not read.
        let start = std::time::Instant::now();
        for _ in 0..20 {
            reactor.turn(Wait::Until(Duration::from_millis(1)), &mut events).expect("a turn");
        }
        assert!(events.is_empty() && start.elapsed() >= Duration::from_millis(10), "{events:?}");
        let mut received: usize = kept.iter().map(|buffer| buffer.len()).sum();
        assert!(written > received, "input waits in the kernel");
        for buffer in kept {
            reactor.recycle(buffer);
        }
        until(reactor, |reactor, event| {
            received += recycled(reactor, event).map_or(0, |(_, len)| len);
            received == written
        });
    });
}

#[test]
fn a_turn_ends_when_its_time_is_up() {
    on_both(|reactor| {
        let (_, _peer) = pair(reactor);
        let mut events = Vec::new();
        reactor.turn(Wait::Until(Duration::from_millis(1)), &mut events).expect("a turn");
        reactor.turn(Wait::No, &mut events).expect("a turn");
        assert!(events.is_empty());
    });
}

#[test]
fn many_streams_are_served_in_few_turns() {
    on_both(|reactor| {
        let mut streams: Vec<(Token, UnixStream)> = (0..300).map(|_| pair(reactor)).collect();
        for (_, peer) in &mut streams {
            peer.write_all(b"hello").expect("written");
        }
        let mut received = 0;
        until(reactor, |reactor, event| {
            received += usize::from(matches!(event, Event::Data { .. }));
            if let Event::Data { token, buffer } = event {
                append(reactor, token, &buffer);
                reactor.recycle(buffer);
            }
            received == 300
        });
        flush(reactor);
        for (_, peer) in &mut streams {
            let mut echo = [0; 5];
            peer.read_exact(&mut echo).expect("an echo");
            assert_eq!(&echo, b"hello");
        }
    });
}

#[test]
fn a_reactor_is_dropped_with_operations_under_way() {
    on_both(|reactor| {
        let kind =
            if reactor.name() == "epoll" { ReactorKind::Epoll } else { ReactorKind::IoUring };
        let mut doomed = AnyReactor::new(kind).expect("another one");
        let (token, peer) = pair(&mut doomed);
        append(&mut doomed, token, &vec![1; 3_000_000]);
        let mut events = Vec::new();
        doomed.turn(Wait::No, &mut events).expect("a turn");
        drop(doomed);
        let mut rest = peer;
        let mut buffer = vec![0; 65_536];
        // The peer sees an end, not a hang: the socket is closed.
        while rest.read(&mut buffer).expect("bytes or the end") > 0 {}
    });
}

/// A listener on an address of its own, and a connect to it that is under way.
fn connecting(reactor: &mut AnyReactor) -> (TcpListener, Token) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let to = listener.local_addr().expect("an address");
    let socket = start_connect(to.ip(), to).expect("under way");
    (listener, reactor.add_connecting(socket).expect("added"))
}

#[test]
fn a_connect_ends_in_a_stream() {
    on_both(|reactor| {
        let (listener, token) = connecting(reactor);
        assert!(reactor.output(token).is_none(), "there is no stream yet");
        let (mut peer, from) = listener.accept().expect("accepted");
        assert_eq!(from.ip(), listener.local_addr().expect("an address").ip());
        until(
            reactor,
            |_, event| matches!(event, Event::Connected { token: connected } if connected == token),
        );
        append(reactor, token, b"ping");
        peer.write_all(b"pong").expect("written");
        assert_eq!(receive(reactor, token, 4), b"pong");
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).expect("bytes");
        assert_eq!(&bytes, b"ping");
        drop(peer);
        until(reactor, |_, event| matches!(event, Event::Closed { .. }));
    });
}

#[test]
fn a_refused_connect_is_told_once_and_its_token_is_gone() {
    on_both(|reactor| {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = nobody.local_addr().expect("an address");
        drop(nobody);
        let socket = start_connect(to.ip(), to).expect("under way");
        let token = reactor.add_connecting(socket).expect("added");
        until(reactor, |_, event| match event {
            Event::Closed { token: closed, error } => {
                let refused = std::io::ErrorKind::ConnectionRefused;
                assert_eq!((closed, error.map(|error| error.kind())), (token, Some(refused)));
                true
            }
            event => panic!("unexpected {event:?}"),
        });
        assert!(reactor.output(token).is_none());
    });
}

#[test]
fn a_connect_that_is_given_up_says_nothing_more() {
    on_both(|reactor| {
        // Nobody answers in this network (RFC 5737); where there is no way to it, nothing is under
        // way either.
        let to = "192.0.2.1:4379".parse().expect("an address");
        let Ok(socket) = start_connect("0.0.0.0".parse().expect("an address"), to) else { return };
        let token = reactor.add_connecting(socket).expect("added");
        let mut events = Vec::new();
        reactor.turn(Wait::No, &mut events).expect("a turn");
        reactor.close(token);
        events.clear();
        for _ in 0..3 {
            reactor.turn(Wait::No, &mut events).expect("a turn");
        }
        assert!(events.is_empty(), "{events:?}");
        let (mut peer_of_another, another) = {
            let (token, peer) = pair(reactor);
            (peer, token)
        };
        peer_of_another.write_all(b"x").expect("written");
        assert_eq!(receive(reactor, another, 1), b"x");
    });
}
