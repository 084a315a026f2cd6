//! Transactions under faults: a counter in a persistent and a replicated database that clients of
//! all nodes raise, one at a time, by the rules of C's clients, while one node after the other
//! dies, is stopped, banned or cut off and comes back, and everything takes its time.
//!
//! Checked: a commit that was answered with success is never lost, one that was not is either in
//! force everywhere or nowhere, and nobody ever reads anything in between. Of a split cluster the
//! part without the lock may show what was; it must not commit.

use ringmaster_protocol::{
    DbId, Generation, Rsn,
    control::ControlRequest,
    database::DbFlags,
    node::{BanState, NodeFlags},
    process::{RecMode, RunState},
    record::{RecBuffer, RecBufferBuilder, RecordFlags, RecordHeader},
    text::Text,
    wire::Decode,
};

use crate::node::{
    State, controls, lifecycle,
    state::FreezeState,
    testing::{CLIENT, Cluster, pnn},
    world::{Origin, RequestId},
};

const COUNT: usize = 3;
const COUNTER: &[u8] = b"counter";
const SEQNUM: &[u8] = b"__db_sequence_number__\0";

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn node(&mut self) -> usize {
        usize::try_from(self.below(COUNT as u64)).unwrap()
    }
}

/// What a client knows of its transaction.
#[derive(Debug)]
enum Doubt {
    /// None is open; the counter is this.
    Settled,
    /// Waits for the answer, at this node.
    Open(usize, RequestId),
    /// The client is gone with its node: one more or not. Nobody gets the lock that goes with the
    /// transaction before a recovery, whose generation is none of these.
    Unknown(Vec<Generation>),
}

struct Counter {
    db: DbId,
    value: u64,
    doubt: Doubt,
    commits: u64,
    /// A commit of the part of a split cluster that has not got the lock.
    astray: Option<(usize, RequestId)>,
}

fn read(cluster: &Cluster, node: usize, db: DbId, key: &[u8]) -> u64 {
    let record = cluster.nodes[node].store.record(db, key);
    record.map_or(0, |(_, value)| u64::from_le_bytes(value.try_into().unwrap()))
}

fn generations(cluster: &Cluster) -> Vec<Generation> {
    (0..COUNT).map(|node| cluster.state(node).vnn_map.generation).collect()
}

/// Clients of this node can look at the database: no freeze holds them up.
fn reads(cluster: &Cluster, node: usize, db: DbId) -> bool {
    let state = cluster.state(node);
    state.database(db).is_some_and(|db| db.freeze == FreezeState::None)
}

/// Clients of this node can work.
fn serves(cluster: &Cluster, node: usize) -> bool {
    let state = cluster.state(node);
    cluster.nodes[node].up
        && state.run_state == RunState::Running
        && state.recovery_mode == RecMode::Normal
        && !state.is_inactive()
        && state.clients.contains_key(&CLIENT)
}

impl Counter {
    fn transaction(&self, cluster: &Cluster, node: usize) -> Vec<u8> {
        let mut buffer = RecBufferBuilder::new(self.db);
        for key in [COUNTER, SEQNUM] {
            let rsn =
                cluster.nodes[node].store.record(self.db, key).map_or(0, |(old, _)| old.rsn.0);
            let header = RecordHeader {
                rsn: Rsn(rsn + 1),
                dmaster: pnn(node).into(),
                flags: RecordFlags::NONE,
            };
            let value = read(cluster, node, self.db, key) + 1;
            buffer.push_with_header(0, key, &header, &value.to_le_bytes());
        }
        buffer.into_bytes()
    }

    /// What a client does on the wrong side of a split. Without the transaction's lock, which may be
    /// there, it begins nothing.
    fn stray(&mut self, cluster: &mut Cluster, node: usize, wrong: &[usize], what: &str) {
        let locked = matches!(&self.doubt, Doubt::Open(at, _) if wrong.contains(at));
        if let Some((at, request)) = self.astray {
            if let Some(answer) = cluster.reply(request) {
                if std::env::var_os("DBG").is_some() {
                    eprintln!("{:?} stray {} at {at} {}", cluster.now, self.db, answer.status);
                }
                assert_ne!(answer.status, 0, "{what}: node {at} commits on the wrong side");
                self.astray = None;
            }
        } else if !locked && serves(cluster, node) && reads(cluster, node, self.db) {
            let buffer = self.transaction(cluster, node);
            let records = RecBuffer::from_bytes(&buffer).unwrap();
            let request = cluster.send(node, &ControlRequest::Trans3Commit(records));
            if std::env::var_os("DBG").is_some() {
                eprintln!(
                    "{:?} stray send {} at {node} base {}",
                    cluster.now,
                    self.db,
                    read(cluster, node, self.db, COUNTER)
                );
            }
            self.astray = Some((node, request));
        }
    }

    /// What a client does that finds its node in service.
    fn work(&mut self, cluster: &mut Cluster, node: usize, what: &str) {
        match &self.doubt {
            Doubt::Open(at, _) if !cluster.nodes[*at].up => {
                self.doubt = Doubt::Unknown(generations(cluster));
            }
            Doubt::Open(at, request) => {
                let (at, request) = (*at, *request);
                if cluster.state(at).is_inactive() {
                    // Its copy says nothing any more, and its client may be closed.
                    self.doubt = Doubt::Unknown(generations(cluster));
                } else if reads(cluster, at, self.db)
                    && let Some(answer) = cluster.reply(request)
                {
                    self.answered(cluster, at, answer.status, what);
                }
            }
            Doubt::Unknown(before) => {
                let generation = cluster.state(node).vnn_map.generation;
                if serves(cluster, node) && !before.contains(&generation) {
                    let found = read(cluster, node, self.db, COUNTER);
                    assert!(found == self.value || found == self.value + 1, "{what}: {found}");
                    self.value = found;
                    self.doubt = Doubt::Settled;
                }
            }
            Doubt::Settled if serves(cluster, node) && reads(cluster, node, self.db) => {
                let found = read(cluster, node, self.db, COUNTER);
                assert_eq!(found, self.value, "{what}: node {node} shows something else");
                let buffer = self.transaction(cluster, node);
                let records = RecBuffer::from_bytes(&buffer).unwrap();
                let request = cluster.send(node, &ControlRequest::Trans3Commit(records));
                if std::env::var_os("DBG").is_some() {
                    eprintln!(
                        "{:?} send {} at {node} base {}",
                        cluster.now,
                        self.db,
                        read(cluster, node, self.db, COUNTER)
                    );
                }
                self.doubt = Doubt::Open(node, request);
            }
            Doubt::Settled => {}
        }
    }

    /// Whatever the answer: the client looks at the sequence number.
    fn answered(&mut self, cluster: &Cluster, at: usize, status: i32, what: &str) {
        let found = read(cluster, at, self.db, COUNTER);
        if std::env::var_os("DBG").is_some() {
            eprintln!(
                "{:?} db {} at {at} status {status} found {found} value {} gens {:?}",
                cluster.now,
                self.db,
                self.value,
                generations(cluster)
            );
        }
        if status == 0 {
            self.commits += 1;
            assert_eq!(found, self.value + 1, "{what}: a success that is not in force");
        } else {
            assert!(found == self.value || found == self.value + 1, "{what}: {found}");
        }
        self.value = found;
        self.doubt = Doubt::Settled;
    }
}

fn started(lock: bool) -> Cluster {
    let mut cluster = Cluster::of(COUNT);
    for node in 0..COUNT {
        cluster.change(node, |state| {
            state.constants.cluster_lock = lock.then(|| "/lock".to_owned());
        });
        cluster.event(node, lifecycle::start);
    }
    let runs = |cluster: &Cluster, node| cluster.state(node).run_state == RunState::Running;
    run_until(&mut cluster, 60, "running", |cluster| (0..COUNT).all(|node| runs(cluster, node)));
    for node in 0..COUNT {
        cluster.event(node, |cx| controls::client_connected(cx, CLIENT, 77));
    }
    cluster
}

fn run_until(cluster: &mut Cluster, seconds: u64, what: &str, over: impl Fn(&Cluster) -> bool) {
    for _ in 0..seconds * 10 {
        if over(cluster) {
            return;
        }
        cluster.advance_ms(100);
    }
    let look = |node: usize| {
        let state = cluster.state(node);
        let State { leader, recovery_mode, run_state, .. } = &*state;
        format!("{node}: {leader:?} {recovery_mode:?} {run_state:?} {:?}", state.own_flags())
    };
    panic!("not within {seconds} s: {what}: {:#?}", (0..COUNT).map(look).collect::<Vec<_>>());
}

fn attach(cluster: &mut Cluster, name: &'static str, flags: DbFlags) -> Counter {
    let name = Text::new(name);
    let control = match flags {
        DbFlags::PERSISTENT => ControlRequest::DbAttachPersistent(name),
        _ => ControlRequest::DbAttachReplicated(name),
    };
    assert_eq!(cluster.control(0, &control).status, 0);
    let db = DbId::from_name(name.as_str().unwrap());
    Counter { db, value: 0, doubt: Doubt::Settled, commits: 0, astray: None }
}

fn ban(cluster: &mut Cluster, node: usize, seconds: u32) {
    let ban = ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds });
    cluster.send_from(node, Origin::Node(pnn((node + 1) % COUNT), 0), &ban);
}

fn come_back(cluster: &mut Cluster, node: usize) {
    if cluster.nodes[node].up {
        return;
    }
    cluster.restart(node);
    cluster.event(node, lifecycle::start);
    for other in (0..COUNT).filter(|other| *other != node) {
        if cluster.nodes[other].up {
            cluster.join(node, other);
        }
    }
    cluster.event(node, |cx| controls::client_connected(cx, CLIENT, 77));
}

/// Something happens to this node; who is on the wrong side of a split now.
fn fault(cluster: &mut Cluster, dice: &mut Dice, node: usize, lock: bool) -> Vec<usize> {
    match dice.below(6) {
        0 => drop(cluster.send(node, &ControlRequest::StopNode)),
        1 => ban(cluster, node, 20),
        2 => drop(cluster.send(node, &ControlRequest::SetRecMode(RecMode::Active))),
        // Without a lock each half of a split cluster goes on, as in C.
        3 | 4 if lock => {
            for other in (0..COUNT).filter(|other| *other != node) {
                cluster.part(node, other);
            }
            let alone = cluster.lock_holder == Some(node);
            return (0..COUNT).filter(|other| (*other == node) != alone).collect();
        }
        _ => {
            cluster.kill(node);
            cluster.lock_holder.take_if(|holder| *holder == node);
        }
    }
    Vec::new()
}

/// It is undone.
fn repair(cluster: &mut Cluster, node: usize) {
    come_back(cluster, node);
    for other in (0..COUNT).filter(|other| *other != node) {
        cluster.join(node, other);
    }
    ban(cluster, node, 0);
    cluster.send(node, &ControlRequest::ContinueNode);
}

fn settled(cluster: &Cluster) -> bool {
    let generation = cluster.state(0).vnn_map.generation;
    (0..COUNT).all(|node| {
        let state = cluster.state(node);
        let away = NodeFlags::INACTIVE;
        serves(cluster, node)
            && state.vnn_map.generation == generation
            && state.vnn_map.map.len() == COUNT
            && !state.nodes.iter().any(|node| node.flags.intersects(away))
    })
}

/// Clients work for a while.
fn steps(
    cluster: &mut Cluster,
    dice: &mut Dice,
    counters: &mut [Counter],
    count: u64,
    mut beside: impl FnMut(&mut Counter, &mut Cluster, usize) -> bool,
    what: &str,
) {
    for _ in 0..count {
        cluster.advance_ms(dice.below(200));
        for counter in &mut *counters {
            let node = dice.node();
            if !beside(counter, cluster, node) {
                counter.work(cluster, node, what);
            }
        }
    }
}

/// Successful commits.
fn play(seed: u64, lock: bool) -> u64 {
    let what = format!("seed {seed}, lock {lock}");
    let mut dice = Dice(seed.wrapping_mul(7_919) + 1);
    let mut cluster = started(lock);
    let mut counters = [
        attach(&mut cluster, "persistent", DbFlags::PERSISTENT),
        attach(&mut cluster, "replicated", DbFlags::REPLICATED),
    ];
    cluster.take_time(seed, 1 + dice.below(60), 1 + dice.below(60), 1 + dice.below(500));
    for _ in 0..4 {
        let count = dice.below(100);
        steps(&mut cluster, &mut dice, &mut counters, count, |_, _, _| false, &what);
        let node = dice.node();
        let wrong = fault(&mut cluster, &mut dice, node, lock);
        let stray = |counter: &mut Counter, cluster: &mut Cluster, node| {
            let on_the_wrong_side = wrong.contains(&node);
            if on_the_wrong_side {
                counter.stray(cluster, node, &wrong, &what);
            }
            on_the_wrong_side
        };
        let count = dice.below(200);
        steps(&mut cluster, &mut dice, &mut counters, count, stray, &what);
        repair(&mut cluster, node);
        // Only one node at a time is away; the others have everything. Who has been on the wrong
        // side gets no transaction lock until then.
        for counter in &mut counters {
            counter.astray = None;
        }
        for _ in 0..9_000 {
            if settled(&cluster) {
                break;
            }
            let waits = |_: &mut Counter, _: &mut Cluster, node| wrong.contains(&node);
            steps(&mut cluster, &mut dice, &mut counters, 1, waits, &what);
        }
        run_until(&mut cluster, 1, &what, settled);
    }
    for counter in &mut counters {
        for _ in 0..100 {
            counter.work(&mut cluster, 0, &what);
            if matches!(counter.doubt, Doubt::Settled) {
                break;
            }
            cluster.advance_ms(1_000);
        }
        assert!(matches!(counter.doubt, Doubt::Settled), "{what}: {:?}", counter.doubt);
        for node in 0..COUNT {
            let found = read(&cluster, node, counter.db, COUNTER);
            assert_eq!(found, counter.value, "{what}: node {node}");
            assert_eq!(read(&cluster, node, counter.db, SEQNUM), found, "{what}: node {node}");
        }
    }
    counters.iter().map(|counter| counter.commits).sum()
}

#[test]
fn no_acknowledged_transaction_is_lost_or_halved_by_any_fault() {
    let mut commits = 0;
    for seed in std::env::var("DBG").map_or(0..40, |s| {
        let s: u64 = s.parse().unwrap();
        s..s + 1
    }) {
        commits += play(seed, false);
        commits += play(seed, true);
    }
    assert!(commits > 10_000, "only {commits} commits: the faults leave nothing to be tested");
}
