//! Many streams, few buffers, small socket buffers, peers of every kind: nothing may stand still.
//!
//! A server echoes what comes, as a shard would: it holds buffers back while it has no credit,
//! pauses and closes streams. Peers check every byte. The server sleeps for a minute at a time, so
//! that a wake-up that gets lost is a peer that waits in vain.

use std::{
    collections::{HashSet, VecDeque},
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::OwnedFd,
    net::sockopt,
};

use super::super::{
    AnyReactor, Event, Reactor, ReactorKind, Token, Wait, poll::PollReactor, uring::UringReactor,
};

/// Threads of peers.
const THREADS: u64 = 2;
/// Streams of each at a time.
const STREAMS: usize = 40;
/// Receive buffers of the reactor: far fewer than streams.
const BUFFERS: u16 = 4;
/// Streams that come and go before the end.
const LIVES: u64 = 500;
/// Longest that a peer waits for anything to happen on any of its streams.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that look random and come again with the seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

fn reactor(kind: ReactorKind) -> Option<AnyReactor> {
    match kind {
        ReactorKind::Epoll => {
            let poll = PollReactor::with_buffers(BUFFERS).expect("epoll is always there");
            Some(AnyReactor::Poll(Box::new(poll)))
        }
        _ => match UringReactor::with_buffers(BUFFERS) {
            Ok(ring) => Some(AnyReactor::Uring(Box::new(ring))),
            Err(error) => {
                let required = std::env::var_os("RINGMASTER_REQUIRE_ALL").is_some();
                assert!(!required, "io_uring: {error}");
                println!("skipped: io_uring: {error}");
                None
            }
        },
    }
}

struct Server {
    reactor: AnyReactor,
    arriving: mpsc::Receiver<OwnedFd>,
    stop: Arc<AtomicBool>,
    dice: Dice,
    streams: HashSet<Token>,
    paused: VecDeque<Token>,
    /// Input that waits for credit, buffers and all.
    held: VecDeque<Event>,
}

impl Server {
    /// Serves to the end; returns what is left in the reactor.
    fn run(mut self) -> usize {
        let mut events = Vec::new();
        loop {
            for stream in self.arriving.try_iter() {
                self.streams.insert(self.reactor.add_stream(stream).expect("added"));
            }
            if self.stop.load(Ordering::SeqCst) && self.streams.is_empty() {
                break;
            }
            let busy = !self.held.is_empty() || !self.paused.is_empty();
            let wait = if busy { Duration::from_millis(1) } else { Duration::from_secs(60) };
            self.reactor.turn(Wait::Until(wait), &mut events).expect("a turn");
            self.held.extend(events.drain(..));
            while !self.dice.one_in(4) {
                let Some(event) = self.held.pop_front() else { break };
                self.event(event);
            }
            if let Some(token) = self.paused.pop_front() {
                self.reactor.resume(token);
            }
        }
        // Ends of streams that were closed here are still under way.
        for _ in 0..super::TURNS_MAX {
            if live(&self.reactor) == 1 {
                break;
            }
            self.reactor.turn(Wait::Until(Duration::from_millis(10)), &mut events).expect("turn");
        }
        live(&self.reactor)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Data { token, buffer } => {
                if self.streams.contains(&token) && self.dice.one_in(2_000) {
                    self.reactor.close(token);
                    self.streams.remove(&token);
                } else if let Some(out) = self.reactor.output(token) {
                    out.extend_from_slice(&buffer);
                    if self.dice.one_in(200) {
                        self.reactor.pause(token);
                        self.paused.push_back(token);
                    }
                }
                self.reactor.recycle(buffer);
            }
            Event::Closed { token, .. } => {
                assert!(self.streams.remove(&token), "closed twice or after our own close");
            }
            Event::Drained { .. } | Event::Woken => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Descriptors in the reactor, the doorbell included.
fn live(reactor: &AnyReactor) -> usize {
    match reactor {
        AnyReactor::Uring(ring) => ring.live(),
        AnyReactor::Poll(poll) => poll.live(),
    }
}

/// One stream from the other side: byte number `n` of it is `n % 251`.
struct Peer {
    stream: UnixStream,
    written: usize,
    read: usize,
    /// Bytes it will write in all.
    budget: usize,
    /// Bytes that may be on their way.
    window: usize,
    /// It reads only when nothing more may be on the way.
    lazy: bool,
    /// After so many bytes it is gone without a word.
    dies_at: usize,
}

impl Peer {
    fn new(dice: &mut Dice) -> (Self, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        for stream in [&ours, &theirs] {
            if dice.one_in(2) {
                sockopt::set_socket_send_buffer_size(stream, 4_096).expect("set");
            }
        }
        ours.set_nonblocking(true).expect("set");
        let size = [50, 5_000, 200_000][dice.below(3)];
        let budget = 1 + dice.below(size);
        let window = [1, 100, 300_000][dice.below(3)];
        let dies_at = if dice.one_in(4) { dice.below(budget) } else { usize::MAX };
        let peer = Self {
            stream: ours,
            written: 0,
            read: 0,
            budget,
            window,
            lazy: dice.one_in(3),
            dies_at,
        };
        (peer, OwnedFd::from(theirs))
    }

    fn may_write(&self) -> bool {
        self.written < self.budget && self.written - self.read < self.window
    }

    fn wanted(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, self.may_write());
        flags.set(PollFlags::IN, !(self.lazy && self.may_write()));
        flags
    }

    /// Does what can be done; `false` when this stream has ended.
    fn go(&mut self, dice: &mut Dice) -> bool {
        let mut buffer = [0; 40_000];
        if self.may_write() {
            let room = self.window.min(self.budget - self.written).min(buffer.len());
            let len = 1 + dice.below(room);
            for (number, byte) in buffer[..len].iter_mut().enumerate() {
                *byte = u8::try_from((self.written + number) % 251).unwrap();
            }
            match self.stream.write(&buffer[..len]) {
                Ok(taken) => self.written += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Who cannot write has to read, or both sides wait.
                    self.lazy = false;
                }
                Err(_) => return false, // the server has closed it
            }
        }
        if !(self.lazy && self.may_write()) {
            let len = 1 + dice.below(buffer.len());
            match self.stream.read(&mut buffer[..len]) {
                Ok(0) => return false,
                Ok(len) => {
                    for byte in &buffer[..len] {
                        assert_eq!(usize::from(*byte), self.read % 251, "byte {}", self.read);
                        self.read += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        assert!(self.read <= self.written, "an echo of nothing");
        self.read < self.budget && self.written < self.dies_at
    }
}

fn peers(
    mut dice: Dice,
    arrive: &(impl Fn(OwnedFd) + ?Sized),
    lives: &AtomicU64,
    more: &(impl Fn(u64) -> bool + ?Sized),
) {
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        while peers.len() < STREAMS && more(lives.load(Ordering::SeqCst)) {
            lives.fetch_add(1, Ordering::SeqCst);
            let (peer, theirs) = Peer::new(&mut dice);
            arrive(theirs);
            peers.push(peer);
        }
        if peers.is_empty() {
            return;
        }
        let mut watched: Vec<PollFd<'_>> =
            peers.iter().map(|peer| PollFd::new(&peer.stream, peer.wanted())).collect();
        let limit = Timespec::try_from(PATIENCE).unwrap();
        let ready = poll(&mut watched, Some(&limit)).expect("polled");
        let happened: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();
        assert!(
            ready > 0,
            "nothing moves: {:?}",
            peers.iter().map(|one| (one.written, one.read, one.budget)).collect::<Vec<_>>()
        );
        let mut happened = happened.into_iter();
        peers.retain_mut(|peer| happened.next() != Some(true) || peer.go(&mut dice));
    }
}

fn stress(kind: ReactorKind) {
    if reactor(kind).is_none() {
        return;
    }
    let seconds = std::env::var("RINGMASTER_SOAK_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let seed = std::env::var("RINGMASTER_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(0x5EED);
    println!("{kind:?}: RINGMASTER_SEED={seed}");
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
    let (arrive, arriving) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let server = {
        let (stop, bell) = (Arc::clone(&stop), Arc::clone(&bell));
        // The ring belongs to the thread that made it.
        thread::spawn(move || {
            let mut reactor = reactor(kind).expect("there a moment ago");
            reactor.add_doorbell(bell.try_clone().expect("cloned")).expect("added");
            let server = Server {
                reactor,
                arriving,
                stop,
                dice: Dice(seed | 1),
                streams: HashSet::new(),
                paused: VecDeque::new(),
                held: VecDeque::new(),
            };
            server.run()
        })
    };
    let (lives, begun) = (AtomicU64::new(0), Instant::now());
    let ring = || {
        rustix::io::write(&bell, &1_u64.to_ne_bytes()).expect("rung");
    };
    let arrive = Mutex::new(arrive);
    let arrive = |stream| {
        arrive.lock().unwrap().send(stream).expect("the server runs");
        ring();
    };
    let more = |lived: u64| match seconds {
        Some(limit) => begun.elapsed() < limit,
        None => lived < LIVES,
    };
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let dice = Dice(seed.wrapping_add(number * 0x9E37_79B9) | 1);
            let (lives, arrive, more) = (&lives, &arrive, &more);
            scope.spawn(move || peers(dice, arrive, lives, more));
        }
    });
    stop.store(true, Ordering::SeqCst);
    ring();
    let left = server.join().expect("the server ends");
    assert_eq!(left, 1, "only the doorbell is left");
    println!("{kind:?}: {} streams", lives.load(Ordering::SeqCst));
}

#[test]
fn nothing_stands_still_on_epoll() {
    stress(ReactorKind::Epoll);
}

#[test]
fn nothing_stands_still_on_io_uring() {
    stress(ReactorKind::IoUring);
}
