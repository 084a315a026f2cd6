//! Mixed load with faults leaves memory and descriptors flat, and every counter exact.
//!
//! One daemon for each reactor with 1, 2 and 4 shards, all at the same time. Honest clients count,
//! fetch, register and send each other messages; others are killed, do not read, send half packets or
//! garbage, come and go by the hundred; an operator orders recoveries. Rounds of load alternate with
//! rest, in which the daemon is looked at.

#[path = "mixed_load/faults.rs"]
mod faults;
#[path = "mixed_load/workers.rs"]
mod workers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringmaster_client::{Client, Database, DbKind};
use ringmaster_compat::cluster::{Cluster, Config, Node, Subject};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::run::wait_until;
use ringmaster_compat::vitals::{self, Vitals};

/// For every single answer, and for the daemon to be at rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counters of the volatile database.
const COUNTERS: usize = 64;

/// Rounds of load; the first ones show what tables and buffers grow to.
const ROUNDS: u32 = 6;
const WARM_UP: usize = 2;

/// What may be added to the heap after the warm-up, kB: pieces between blocks, not what was lost.
const GROWTH_MAX_KB: u64 = 4 * 1024;

/// Databases that are attached again and again.
const OTHERS: usize = 3;

const DATABASE: &str = "mixed.tdb";

/// What all clients of one daemon share.
struct Play<'a> {
    node: Node<'a>,
    stop: AtomicBool,
    /// Increments that are done, by counter.
    counted: [AtomicU64; COUNTERS],
    /// Things done, for the printed line.
    deeds: AtomicU64,
    seed: u64,
}

impl Play<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn did(&self) {
        self.deeds.fetch_add(1, Ordering::Relaxed);
    }

    fn client(&self) -> Client {
        Client::connect_to(&self.node.socket(), PATIENCE).expect("the daemon answers")
    }

    fn database(&self, client: &mut Client) -> Database {
        client.open(DATABASE, DbKind::Volatile).expect("the daemon attaches")
    }

    fn dice(&self, who: u64) -> Dice {
        Dice(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(who) | 1)
    }
}

/// Numbers that look random and come again with the seed (xorshift).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }
}

fn key(counter: usize) -> Vec<u8> {
    format!("counter {counter}").into_bytes()
}

fn other_database(number: usize) -> String {
    format!("other-{number}.tdb")
}

fn value(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// One round of load.
fn play(play: &Play<'_>, round: u64, length: Duration) {
    play.stop.store(false, Ordering::SeqCst);
    let first = round * 100;
    thread::scope(|scope| {
        scope.spawn(move || workers::count(play, play.dice(first + 1)));
        scope.spawn(move || workers::count(play, play.dice(first + 2)));
        scope.spawn(move || workers::talk(play, play.dice(first + 3), first));
        scope.spawn(move || workers::recover(play));
        scope.spawn(move || faults::misbehave(play, play.dice(first + 4)));
        scope.spawn(move || faults::kill(play, play.dice(first + 5), round));
        let end = Instant::now() + length;
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(50).min(length));
        }
        play.stop.store(true, Ordering::SeqCst);
    });
}

/// The daemon when every client has gone.
fn at_rest(node: Node<'_>, pid: i32, descriptors: Option<usize>) -> Vitals {
    wait_until("all clients are gone", PATIENCE, || {
        let text = node.tool(&["statistics"]).ok()?.stdout;
        // The tool itself is one, and the recovery daemon counts as another, as in C.
        let clients = text.lines().find(|line| line.trim().starts_with("num_clients"))?;
        clients.trim_end().ends_with(" 2").then_some(())
    })
    .expect("clients leave");
    if let Some(before) = descriptors {
        // A monitor event may hold a pipe or two for a moment.
        wait_until("all descriptors are closed", PATIENCE, || {
            (vitals::descriptors(pid).ok()? <= before).then_some(())
        })
        .unwrap_or_else(|error| {
            panic!("{error:#}: {} instead of {before}", vitals::descriptors(pid).unwrap_or(0))
        });
    }
    Vitals::of(pid).expect("the daemon lives")
}

fn run(ctdbd: &Path, reactor: &str, shards: &str, length: Duration) {
    let subject = Subject::Ours { ctdbd: ctdbd.to_path_buf() };
    // A recovery may follow the last one at once.
    let config = Config::new(1).all(&subject).dataplane(reactor, shards);
    let config = config.tunable("RerecoveryTimeout", 1);
    let cluster = Cluster::start(config).expect("a daemon");
    let node = cluster.node(0);
    let pid = node.daemon_pid().expect("it runs");
    let seed = std::env::var("RINGMASTER_SEED").ok().and_then(|text| text.parse().ok());
    let stage = Play {
        node,
        stop: AtomicBool::new(false),
        counted: [const { AtomicU64::new(0) }; COUNTERS],
        deeds: AtomicU64::new(0),
        seed: seed.unwrap_or(1),
    };
    // All databases there will be: each costs descriptors.
    let mut client = stage.client();
    for other in 0..OTHERS {
        client.attach(&other_database(other), DbKind::Volatile).expect("attached");
    }
    drop(client);
    let mut seen: Vec<Vitals> = Vec::new();
    for round in 0..ROUNDS {
        play(&stage, round.into(), length / ROUNDS);
        let descriptors = (seen.len() >= WARM_UP).then(|| seen[WARM_UP - 1].descriptors);
        seen.push(at_rest(node, pid, descriptors));
    }
    let deeds = stage.deeds.load(Ordering::Relaxed);
    let list = |what: fn(&Vitals) -> u64| {
        seen.iter().map(|one| what(one).to_string()).collect::<Vec<_>>().join(" ")
    };
    println!(
        "{reactor} with {shards} shards: {deeds} deeds; at rest after each round: descriptors {}, \
         heap and stacks {} kB, in RAM {} kB",
        list(|one| one.descriptors as u64),
        list(|one| one.anonymous_kb),
        list(|one| one.resident_kb),
    );
    let warm = seen[..WARM_UP].iter().map(|one| one.anonymous_kb).max().expect("rounds");
    let grown = seen.last().expect("rounds").anonymous_kb.saturating_sub(warm);
    assert!(grown <= GROWTH_MAX_KB, "the heap has grown by {grown} kB");
    // It still answers, and nothing is lost or counted twice.
    let mut client = stage.client();
    let mut database = stage.database(&mut client);
    for (number, counted) in stage.counted.iter().enumerate() {
        let stored = client.lock_record(&mut database, &key(number)).expect("a record");
        assert_eq!(value(stored.value()), counted.load(Ordering::SeqCst), "counter {number}");
    }
    assert_eq!(node.daemon_pid(), Some(pid), "the same daemon all the time");
    drop(client);
    cluster.stop().expect("it ends in order");
}

#[test]
fn faults_leave_memory_and_descriptors_flat_and_counters_exact() {
    let ctdbd = require_our_daemon!();
    let seconds = std::env::var("RINGMASTER_SOAK_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(30);
    let length = Duration::from_secs(seconds);
    thread::scope(|scope| {
        for reactor in ["io_uring", "epoll"] {
            for shards in ["1", "2", "4"] {
                let ctdbd = &ctdbd;
                thread::Builder::new()
                    .name(format!("{reactor} {shards}"))
                    .spawn_scoped(scope, move || run(ctdbd, reactor, shards, length))
                    .expect("a thread");
            }
        }
    });
}

/// Not a test: what [`faults::kill`] starts and kills. Does nothing on its own.
#[test]
fn a_counting_child() {
    if let Some(orders) = std::env::var_os(faults::ORDERS) {
        faults::child(&orders.to_string_lossy());
    }
}
