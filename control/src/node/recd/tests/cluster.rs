//! A cluster of planes in simulated time, with as much of a daemon around each as the recovery
//! daemon needs: it answers controls from a small model, not with the code of `controls`.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{
    Destination, Encode, Generation, Pnn, SockAddr, Srvid,
    control::ControlOpcode,
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{RecMode, Timeval},
    tunable::TunableList,
};

use super::{super::start, model::Database};
use crate::{
    node::{
        NodePlane, State, controls,
        state::{Constants, NodeEntry},
        world::{
            Ask, ControlAnswer, ControlFailure, DataAsk, LockResult, NodeWorld, Outcome,
            OutgoingControl, Tell,
        },
    },
    plane::{Action, Millis, Token, World},
};

type Actions = Vec<Action<<NodeWorld as World>::Ask, <NodeWorld as World>::Tell>>;

/// From one node to another, in milliseconds.
const WIRE_MS: u64 = 1;

pub(super) fn pnn(node: usize) -> Pnn {
    Pnn::new(u32::try_from(node).unwrap()).unwrap()
}

enum Delivery {
    Outcome { node: usize, token: Token, outcome: Outcome },
    Control { from: usize, to: usize, token: Option<Token>, what: OutgoingControl },
    Message { to: usize, srvid: Srvid, data: Vec<u8> },
}

impl Delivery {
    const fn to(&self) -> usize {
        match self {
            Self::Outcome { node, .. } => *node,
            Self::Control { to, .. } | Self::Message { to, .. } => *to,
        }
    }
}

pub(super) struct Node {
    pub plane: NodePlane,
    pub alive: bool,
    /// What has arrived while the process stands still.
    backlog: Option<Vec<Delivery>>,
    pub connected: BTreeSet<usize>,
    pub listening: BTreeSet<Srvid>,
    pub databases: BTreeMap<u32, Database>,
    /// Controls that fail here, and how often still.
    pub refuses: BTreeMap<ControlOpcode, u32>,
    /// Batches of a pull are lost.
    pub loses_batches: bool,
    /// The confirmed number of pushed records is one too small.
    pub miscounts: bool,
    /// Controls under way: to whom.
    waiting: BTreeMap<Token, usize>,
    /// Nodes in this node's nodes list.
    pub listed: usize,
}

pub(super) struct Cluster {
    pub now: Millis,
    pub nodes: Vec<Node>,
    pub lock: Option<usize>,
    ours: bool,
    queue: BTreeMap<(Millis, u64), Delivery>,
    serial: u64,
    /// Every control that arrived: from, to, which.
    pub controls: Vec<(usize, usize, ControlOpcode)>,
    /// Every message to somebody outside: receiver, srvid, payload.
    pub replies: Vec<(usize, Srvid, Vec<u8>)>,
}

/// Settings of a test cluster.
#[derive(Clone, Copy, Default)]
pub(super) struct Setup {
    pub lock: bool,
    pub fast_start: bool,
    /// Every node says that it is of our kind, and knows the death of another at once.
    pub ours: bool,
}

impl Cluster {
    pub(super) fn new(count: usize, setup: Setup) -> Self {
        let mut cluster = Self {
            now: Millis(0),
            nodes: Vec::new(),
            lock: None,
            ours: setup.ours,
            queue: BTreeMap::new(),
            serial: 0,
            controls: Vec::new(),
            replies: Vec::new(),
        };
        for node in 0..count {
            cluster.nodes.push(Node {
                plane: NodePlane::new(state(node, count, setup), Millis(0), 77 + node as u64 * 2),
                alive: true,
                backlog: None,
                connected: (0..count).collect(),
                listening: BTreeSet::new(),
                databases: BTreeMap::new(),
                refuses: BTreeMap::new(),
                loses_batches: false,
                miscounts: false,
                waiting: BTreeMap::new(),
                listed: count,
            });
        }
        for node in 0..count {
            cluster.enter(node, start);
            for other in (0..count).filter(|other| setup.ours && *other != node) {
                cluster.enter(node, |cx| controls::node_announced(cx, pnn(other)));
            }
        }
        cluster
    }

    /// Something happens at a node.
    pub(super) fn enter(&mut self, node: usize, event: impl FnOnce(&crate::node::NodeCx)) {
        let mut out = Actions::new();
        self.nodes[node].plane.handle(self.now, event, &mut out);
        self.carry_out(node, out);
    }

    pub(super) fn state<T>(&self, node: usize, look: impl FnOnce(&State) -> T) -> T {
        look(&self.nodes[node].plane.cx().state())
    }

    pub(super) fn leader(&self, node: usize) -> Option<usize> {
        self.state(node, |state| state.leader.map(|leader| leader.get() as usize))
    }

    /// All living nodes agree on the leader and are in service in one generation.
    pub(super) fn settled(&self, members: &[usize]) -> bool {
        let first = members[0];
        let generation = self.state(first, |state| state.vnn_map.generation);
        let leader = self.leader(first);
        leader.is_some_and(|leader| members.contains(&leader))
            && generation != Generation::INVALID
            && members.iter().all(|node| {
                self.leader(*node) == leader
                    && self.state(*node, |state| {
                        state.recovery_mode == RecMode::Normal
                            && state.vnn_map.generation == generation
                            && !state.recd.election_in_progress
                            && !state.recd.need_recovery
                    })
            })
    }

    /// Runs until `over`; panics if that takes longer than `seconds`.
    pub(super) fn run_until(&mut self, seconds: u64, what: &str, over: impl Fn(&Self) -> bool) {
        let limit = self.now.plus(seconds * 1_000);
        while !over(self) {
            assert!(self.step(limit), "not within {seconds} s: {what}");
        }
    }

    pub(super) fn settle(&mut self, seconds: u64, members: &[usize]) {
        self.run_until(seconds, "settled", |cluster| cluster.settled(members));
    }

    pub(super) fn run_for(&mut self, millis: u64) {
        let limit = self.now.plus(millis);
        while self.step(limit) {}
        self.now = limit;
    }

    /// The next thing that happens; `false` if nothing does until `limit`.
    fn step(&mut self, limit: Millis) -> bool {
        let delivery = self.queue.first_key_value().map(|((at, _), _)| *at);
        let nodes = self.nodes.iter().enumerate();
        let alive = nodes.filter(|(_, node)| node.alive && node.backlog.is_none());
        let timer = alive.filter_map(|(n, node)| Some((node.plane.next_deadline()?, n))).min();
        let next = match (delivery, timer) {
            (Some(at), None) => at,
            (Some(at), Some((timer, _))) => at.min(timer),
            (None, Some((timer, _))) => timer,
            (None, None) => return false,
        };
        if next > limit {
            return false;
        }
        self.now = self.now.max(next);
        if delivery == Some(next) {
            let (_, delivery) = self.queue.pop_first().unwrap();
            self.deliver(delivery);
        } else if let Some((_, node)) = timer {
            self.enter(node, |_| {});
        }
        true
    }

    fn send(&mut self, after_ms: u64, delivery: Delivery) {
        self.serial += 1;
        self.queue.insert((self.now.plus(after_ms), self.serial), delivery);
    }

    fn deliver(&mut self, delivery: Delivery) {
        if !self.nodes[delivery.to()].alive {
            return;
        }
        if let Some(backlog) = &mut self.nodes[delivery.to()].backlog {
            backlog.push(delivery);
            return;
        }
        match delivery {
            Delivery::Outcome { node, token, outcome } => {
                self.nodes[node].waiting.remove(&token);
                let mut out = Actions::new();
                self.nodes[node].plane.outcome(self.now, token, outcome, &mut out);
                self.carry_out(node, out);
            }
            Delivery::Control { from, to, token, what } => self.control(from, to, token, &what),
            Delivery::Message { to, srvid, data } => {
                if self.pushed(to, srvid, &data) {
                    return;
                }
                if self.nodes[to].listening.contains(&srvid) {
                    self.enter(to, |cx| cx.state_mut().mailbox.push_back((srvid, data)));
                } else {
                    self.replies.push((to, srvid, data));
                }
            }
        }
    }

    fn control(&mut self, from: usize, to: usize, token: Option<Token>, what: &OutgoingControl) {
        self.controls.push((from, to, what.opcode));
        let answer = match self.nodes[to].refuses.get_mut(&what.opcode) {
            Some(left) if *left > 0 => {
                *left -= 1;
                ControlAnswer { status: -1, ..ControlAnswer::default() }
            }
            _ => self.serve(from, to, what),
        };
        let Some(token) = token else { return };
        let reply = Outcome::Reply(Ok(answer));
        let wire = if from == to { 0 } else { WIRE_MS };
        if self.nodes[to].connected.contains(&from) {
            self.send(wire, Delivery::Outcome { node: from, token, outcome: reply });
        }
    }

    pub(super) fn message(&mut self, from: usize, to: Destination, srvid: Srvid, data: &[u8]) {
        let targets: Vec<usize> = match to {
            Destination::Node(node) => vec![node.get() as usize],
            _ => (0..self.nodes.len()).collect(),
        };
        for to in targets {
            let wire = if from == to { 0 } else { WIRE_MS };
            if self.nodes[from].connected.contains(&to) {
                self.send(wire, Delivery::Message { to, srvid, data: data.to_vec() });
            }
        }
    }

    fn carry_out(&mut self, node: usize, actions: Actions) {
        self.store_own_batches(node);
        for action in actions {
            match action {
                Action::Ask(token, ask) => self.ask(node, token, ask),
                Action::Tell(Tell::Message { to, srvid, data }) => {
                    self.message(node, to, srvid, &data);
                }
                Action::Tell(Tell::ForgetSrvid(srvid)) => {
                    self.nodes[node].listening.remove(&srvid);
                }
                Action::Tell(Tell::ReleaseLock) => {
                    if self.lock == Some(node) {
                        self.lock = None;
                    }
                }
                Action::Tell(other) => panic!("node {node} tells {other:?}"),
                Action::Forget(token) => drop(self.nodes[node].waiting.remove(&token)),
            }
        }
    }

    fn ask(&mut self, node: usize, token: Token, ask: Ask) {
        let outcome = match ask {
            Ask::Control(what) => {
                let to = what.to.get() as usize;
                if self.nodes[node].connected.contains(&to) {
                    let wire = if to == node { 0 } else { WIRE_MS };
                    let late = u64::from(what.timeout_s) * 1_000;
                    self.nodes[node].waiting.insert(token, to);
                    let from = node;
                    self.send(wire, Delivery::Control { from, to, token: Some(token), what });
                    let outcome = Outcome::Reply(Err(ControlFailure::TimedOut));
                    self.send(late, Delivery::Outcome { node, token, outcome });
                    return;
                }
                Outcome::Reply(Err(ControlFailure::Disconnected))
            }
            Ask::ListenSrvid(srvid) => {
                self.nodes[node].listening.insert(srvid);
                Outcome::Done
            }
            Ask::TakeLock { .. } => {
                let free = self.lock.is_none_or(|owner| owner == node);
                if free {
                    self.lock = Some(node);
                }
                let result =
                    if free { LockResult::Taken(0.01) } else { LockResult::Contention(0.01) };
                Outcome::Lock(result)
            }
            Ask::Data(DataAsk::Publish) => Outcome::Done,
            Ask::ReadNodes => Outcome::Nodes(Ok(list(self.nodes[node].listed))),
            other => panic!("node {node} asks {other:?}"),
        };
        self.send(0, Delivery::Outcome { node, token, outcome });
    }

    /// Both sides lose sight of each other; the lock of the dead is free.
    pub(super) fn disconnect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.nodes[node].connected.remove(&peer);
            let lost: Vec<Token> = self.nodes[node]
                .waiting
                .iter()
                .filter(|(_, to)| **to == peer)
                .map(|(token, _)| *token)
                .collect();
            for token in lost {
                let outcome = Outcome::Reply(Err(ControlFailure::Disconnected));
                self.send(0, Delivery::Outcome { node, token, outcome });
            }
            if self.nodes[node].alive {
                self.enter(node, |cx| controls::node_gone(cx, pnn(peer)));
            }
        }
    }

    pub(super) fn connect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.nodes[node].connected.insert(peer);
            self.enter(node, |cx| controls::node_connected(cx, pnn(peer)));
            if self.ours {
                self.enter(node, |cx| controls::node_announced(cx, pnn(peer)));
            }
        }
    }

    /// What `node` thinks of `of`.
    pub(super) fn set_flags(
        &mut self,
        node: usize,
        of: usize,
        change: impl Fn(NodeFlags) -> NodeFlags,
    ) {
        self.enter(node, |cx| {
            let mut state = cx.state_mut();
            let entry = &mut state.nodes[of];
            entry.flags = change(entry.flags);
        });
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        if self.lock == Some(node) {
            self.lock = None;
        }
        for other in 0..self.nodes.len() {
            if other != node {
                self.disconnect(node, other);
            }
        }
    }

    /// The process stands still (SIGSTOP); nobody notices yet.
    pub(super) fn hang(&mut self, node: usize) {
        self.nodes[node].backlog = Some(Vec::new());
    }

    /// It goes on, with everything that has arrived.
    pub(super) fn go_on(&mut self, node: usize) {
        for delivery in self.nodes[node].backlog.take().unwrap_or_default() {
            self.send(0, delivery);
        }
    }

    /// Splits the cluster into two halves.
    pub(super) fn split(&mut self, half: &[usize]) {
        for one in 0..self.nodes.len() {
            for other in 0..one {
                if half.contains(&one) != half.contains(&other) {
                    self.disconnect(one, other);
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        for one in 0..self.nodes.len() {
            for other in 0..one {
                if self.nodes[one].alive && self.nodes[other].alive {
                    self.connect(one, other);
                }
            }
        }
    }

    /// Controls of one kind that node `from` has sent.
    pub(super) fn sent(&self, from: usize, opcode: ControlOpcode) -> usize {
        let wanted = |seen: &&(usize, usize, ControlOpcode)| seen.0 == from && seen.2 == opcode;
        self.controls.iter().filter(wanted).count()
    }
}

fn list(count: usize) -> NodeMap {
    let addr = SockAddr::parse_with_port("127.0.0.1:4379").unwrap();
    let entry = |node| NodeAndFlags { pnn: pnn(node), flags: NodeFlags::NONE, addr };
    NodeMap((0..count).map(entry).collect())
}

fn state(node: usize, count: usize, setup: Setup) -> State {
    let constants = Constants {
        pnn: pnn(node),
        daemon_pid: 1,
        cluster_lock: setup.lock.then(|| "/lock".to_owned()),
        leader_timeout_s: 5,
        failover_disabled: false,
        shutdown_failover_timeout_s: 0,
        shutdown_extra_timeout_s: 0,
        fast_start: setup.fast_start,
        real_addresses: false,
    };
    let entry =
        |node: NodeAndFlags| NodeEntry { pnn: node.pnn, address: node.addr, flags: node.flags };
    let nodes = list(count).0.into_iter().map(entry).collect();
    let start = Timeval { seconds: 1_000 - i64::try_from(node).unwrap(), micros: 0 };
    State::new(constants, nodes, TunableList::default(), (start, Millis(0)))
}

/// An answer with a payload.
pub(super) fn data(payload: &impl Encode) -> ControlAnswer {
    ControlAnswer { data: payload.to_bytes(), ..ControlAnswer::default() }
}
