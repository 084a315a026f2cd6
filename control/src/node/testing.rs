//! Planes driven through simulated time by a driver that is all memory, for scenario tests.
//!
//! Role: [`Cluster`] plays everything that an [`Ask`] or [`Tell`] wants: controls and messages go
//! straight to the other planes, scripts succeed, databases are maps (`data`). A test overrides
//! single answers ([`Cluster::play`]), sends controls as a client would, and looks at what a node
//! has asked and told ([`Cluster::took`]). By default nothing takes time; with
//! [`Cluster::take_time`] network, data plane and scripts do (`pace`).
//! Invariant: one event at a time, in the order in which things happened; no test depends on
//! anything but its own steps.

mod data;
pub(crate) mod leader;
mod pace;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
};

use ringmaster_protocol::{
    Destination, Generation, Pnn, Srvid,
    address::SockAddr,
    connection::Connection,
    control::ControlRequest,
    control_packet::ControlFlags,
    node::{NodeFlags, NodeMap},
    process::{RecMode, RunState, Timeval},
    tunable::TunableList,
    wire::Encode,
};

pub(crate) use self::data::Store;
use self::pace::Pace;
use super::{
    Ask, NodeCx, NodePlane, Outcome, State, Tell, controls,
    state::{Constants, NodeEntry},
    world::{
        ClientId, ControlAnswer, ControlFailure, DataAsk, LockResult, Origin, OutgoingControl,
        Request, RequestId, ScriptResult, ScriptRun,
    },
};
use crate::{
    config::public_addresses::PublicAddress,
    plane::{Action, Millis, Plane, Token},
};

/// The generation of a cluster that is up.
pub(crate) const GENERATION: Generation = Generation(100);

/// The one client that every node of [`Cluster::running`] has.
pub(crate) const CLIENT: ClientId = ClientId(7);

/// The interfaces of every node's host.
const INTERFACES: [&str; 3] = ["lo", "eth0", "eth1"];

/// What a node has done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Did {
    Ask(Ask),
    Tell(Tell),
}

/// What becomes of an ask.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// This, at once.
    Outcome(Outcome),
    /// Nothing until [`Cluster::release`].
    Hold,
}

type Rule = Box<dyn Fn(&Ask) -> Option<Play>>;

/// One node.
pub(crate) struct Node {
    pub(crate) plane: NodePlane,
    pub(crate) store: Store,
    pub(crate) up: bool,
    listening: BTreeSet<Srvid>,
    rules: Vec<Rule>,
    pub(crate) held: Vec<(Token, Ask)>,
    took: Vec<Did>,
    /// Persistent databases whose files are there before the start.
    pub(crate) files: Vec<String>,
    /// The `public_addresses` file.
    pub(crate) address_file: Vec<PublicAddress>,
    /// Addresses that the host has on its interfaces; scripts put them there and take them away.
    pub(crate) hosted: BTreeSet<IpAddr>,
    /// Connections that the host's kernel has.
    pub(crate) connections: BTreeSet<Connection>,
}

enum Work {
    Action(usize, Action<Ask, Tell>),
    Outcome(usize, Token, Outcome),
    Request(usize, Request),
    Message(usize, Srvid, Vec<u8>),
}

/// Who wants a reply.
enum Waiting {
    Plane { node: usize, token: Token, to: usize, until: Millis },
    Test,
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Millis,
    work: VecDeque<Work>,
    /// How long things take; `None`: no time at all.
    pace: Option<Pace>,
    waiting: BTreeMap<RequestId, Waiting>,
    replies: BTreeMap<RequestId, ControlAnswer>,
    last_request: u64,
    /// Who holds the cluster lock.
    pub(crate) lock_holder: Option<usize>,
}

pub(crate) fn pnn(index: usize) -> Pnn {
    Pnn::new(u32::try_from(index).unwrap()).unwrap()
}

fn entry(index: usize) -> NodeEntry {
    let host = u8::try_from(index + 1).unwrap();
    let address = SockAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 4379);
    NodeEntry { pnn: pnn(index), address, flags: NodeFlags::NONE }
}

fn constants(index: usize) -> Constants {
    Constants {
        pnn: pnn(index),
        daemon_pid: 4_000 + i32::try_from(index).unwrap(),
        cluster_lock: None,
        leader_timeout_s: 5,
        failover_disabled: false,
        shutdown_failover_timeout_s: 0,
        shutdown_extra_timeout_s: 0,
        fast_start: true,
        real_addresses: true,
    }
}

impl Node {
    /// What `10.interface` does: it puts the address on the interface, or takes it away.
    fn run_script(&mut self, run: &ScriptRun) {
        let word = |place: usize| {
            run.args.split(' ').nth(place).and_then(|word| word.parse::<IpAddr>().ok())
        };
        match run.event {
            "takeip" => self.hosted.extend(word(1)),
            "releaseip" => {
                self.hosted.retain(|one| Some(*one) != word(1));
            }
            _ => {}
        }
    }
}

impl Cluster {
    /// Nodes before their start; all connections stand, everybody is healthy.
    pub(crate) fn of(count: usize) -> Self {
        let nodes = (0..count).map(|index| {
            let entries = (0..count).map(entry).collect();
            let wall_clock = (Timeval { seconds: 1_000, micros: 0 }, Millis(0));
            let state = State::new(constants(index), entries, TunableList::default(), wall_clock);
            Node {
                plane: Plane::new(state, Millis(0), 11 + index as u64),
                store: Store::new(pnn(index)),
                up: true,
                listening: BTreeSet::new(),
                rules: Vec::new(),
                held: Vec::new(),
                took: Vec::new(),
                files: Vec::new(),
                address_file: Vec::new(),
                hosted: BTreeSet::new(),
                connections: BTreeSet::new(),
            }
        });
        Self {
            nodes: nodes.collect(),
            now: Millis(0),
            work: VecDeque::new(),
            pace: None,
            waiting: BTreeMap::new(),
            replies: BTreeMap::new(),
            last_request: 0,
            lock_holder: None,
        }
    }

    /// Nodes that run in a recovered cluster, each with the client [`CLIENT`]; nothing of the
    /// daemons' own sequences is under way.
    pub(crate) fn running(count: usize) -> Self {
        let mut cluster = Self::of(count);
        for index in 0..count {
            cluster.change(index, |state| {
                state.run_state = RunState::Running;
                state.recovery_mode = RecMode::Normal;
                state.vnn_map.generation = GENERATION;
                state.left_in = Some(GENERATION);
            });
            cluster.event(index, |cx| controls::client_connected(cx, CLIENT, 77));
        }
        cluster
    }

    /// From now on packets between nodes, orders to the data plane and scripts take up to so many
    /// milliseconds, as the seed says.
    pub(crate) fn take_time(&mut self, seed: u64, network_ms: u64, data_ms: u64, script_ms: u64) {
        self.pace = Some(Pace::new(seed, network_ms, data_ms, script_ms));
    }

    /// A packet from one node to another.
    fn post(&mut self, from: usize, to: usize, work: Work) {
        match &mut self.pace {
            Some(pace) if from != to => pace.post(self.now, (from, to), work),
            _ => self.work.push_back(work),
        }
    }

    /// Two nodes lose each other: what was on its way is lost, who waits for a reply hears of it.
    pub(crate) fn part(&mut self, one: usize, other: usize) {
        let lost = self.pace.as_mut().map(|pace| pace.lose(one, other)).unwrap_or_default();
        for (node, peer) in [(one, other), (other, one)] {
            self.handle(node, |cx| controls::node_gone(cx, pnn(peer)));
            self.fail(ControlFailure::Disconnected, |waiting| {
                matches!(waiting, Waiting::Plane { node: asks, to, .. }
                    if (*asks, *to) == (node, peer))
            });
        }
        for work in lost {
            if let Work::Outcome(node, token, Outcome::Reply(_)) = work {
                let failed = Outcome::Reply(Err(ControlFailure::Disconnected));
                self.work.push_back(Work::Outcome(node, token, failed));
            }
        }
        self.settle();
    }

    /// A dead node's daemon is there again, before its start: what was persistent is still there,
    /// nobody is connected.
    pub(crate) fn restart(&mut self, index: usize) {
        let wall_clock = self.state(index).wall_clock_at(self.now);
        let count = self.nodes.len();
        let kept = self.nodes[index].store.crash();
        let lock = self.state(index).constants.cluster_lock.clone();
        let entries = (0..count).map(|other| {
            let lost = NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
            let flags = if other == index { NodeFlags::UNHEALTHY } else { lost };
            NodeEntry { flags, ..entry(other) }
        });
        let constants = Constants { cluster_lock: lock, ..constants(index) };
        let start = (wall_clock, self.now);
        let state = State::new(constants, entries.collect(), TunableList::default(), start);
        let node = &mut self.nodes[index];
        let seed = 1_000 + self.last_request + index as u64;
        node.plane = Plane::new(state, self.now, seed);
        node.files = kept;
        node.listening.clear();
        node.held.clear();
        node.up = true;
    }

    /// Two nodes find each other.
    pub(crate) fn join(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.handle(node, |cx| controls::node_connected(cx, pnn(peer)));
        }
        self.settle();
    }

    /// Looks at a node's state.
    pub(crate) fn state(&self, index: usize) -> std::cell::Ref<'_, State> {
        self.nodes[index].plane.cx().state()
    }

    /// Changes a node's state behind its back.
    pub(crate) fn change(&mut self, index: usize, change: impl FnOnce(&mut State)) {
        self.event(index, |cx| change(&mut cx.state_mut()));
    }

    /// From now on the rule decides asks of a node that it knows; later rules first.
    pub(crate) fn play(&mut self, index: usize, rule: impl Fn(&Ask) -> Option<Play> + 'static) {
        self.nodes[index].rules.push(Box::new(rule));
    }

    /// A script's result from now on.
    pub(crate) fn script(&mut self, index: usize, event: &'static str, result: ScriptResult) {
        self.play(index, move |ask| match ask {
            Ask::Script(run) if run.event == event => Some(Play::Outcome(Outcome::Script(result))),
            _ => None,
        });
    }

    /// Ends all that is held on a node with this outcome; how many there were.
    pub(crate) fn release(&mut self, index: usize, outcome: &Outcome) -> usize {
        let held = std::mem::take(&mut self.nodes[index].held);
        let count = held.len();
        for (token, _) in held {
            self.work.push_back(Work::Outcome(index, token, outcome.clone()));
        }
        self.settle();
        count
    }

    /// What a node has asked and told since the last look, but for publishing.
    pub(crate) fn took(&mut self, index: usize) -> Vec<Did> {
        let mut took = std::mem::take(&mut self.nodes[index].took);
        took.retain(|did| *did != Did::Ask(Ask::Data(DataAsk::Publish)));
        took
    }

    /// The same with everything; for tests about publishing.
    pub(crate) fn took_all(&mut self, index: usize) -> Vec<Did> {
        std::mem::take(&mut self.nodes[index].took)
    }

    /// Something happens to a node; then everything happens that follows from it.
    pub(crate) fn event(&mut self, index: usize, event: impl FnOnce(&NodeCx)) {
        self.handle(index, event);
        self.settle();
    }

    /// A control by the node's client [`CLIENT`]; its answer may come later.
    pub(crate) fn send(&mut self, index: usize, control: &ControlRequest<'_>) -> RequestId {
        self.send_from(index, Origin::Client(CLIENT), control)
    }

    /// The same by anybody.
    pub(crate) fn send_from(
        &mut self,
        index: usize,
        from: Origin,
        control: &ControlRequest<'_>,
    ) -> RequestId {
        self.send_with(index, from, Srvid(0), ControlFlags::NONE, control)
    }

    /// The same with all of the header.
    pub(crate) fn send_with(
        &mut self,
        index: usize,
        from: Origin,
        srvid: Srvid,
        flags: ControlFlags,
        control: &ControlRequest<'_>,
    ) -> RequestId {
        let id = self.next_request(Waiting::Test);
        let (opcode, data) = (control.opcode(), control.to_bytes());
        let generation = match from {
            Origin::Node(pnn, _) => Some(self.generation_of(pnn)),
            Origin::Client(_) | Origin::Own => None,
        };
        let request = Request { id, from, opcode, srvid, flags, generation, data };
        self.work.push_back(Work::Request(index, request));
        self.settle();
        id
    }

    /// The answer, if it has come.
    pub(crate) fn reply(&mut self, id: RequestId) -> Option<ControlAnswer> {
        self.replies.remove(&id)
    }

    /// A control by the node's client and its answer, which must come at once.
    pub(crate) fn control(&mut self, index: usize, control: &ControlRequest<'_>) -> ControlAnswer {
        self.control_from(index, Origin::Client(CLIENT), control)
    }

    /// The same by anybody.
    pub(crate) fn control_from(
        &mut self,
        index: usize,
        from: Origin,
        control: &ControlRequest<'_>,
    ) -> ControlAnswer {
        let id = self.send_from(index, from, control);
        self.reply(id).unwrap_or_else(|| panic!("no answer yet to {control:?}"))
    }

    /// What a node listens for but the recovery daemon's own srvids.
    pub(crate) fn listening(&self, index: usize) -> Vec<Srvid> {
        let known = super::recd::SRVIDS;
        let listening = self.nodes[index].listening.iter().copied();
        listening.filter(|srvid| !known.contains(srvid)).collect()
    }

    /// A message from another node, heard if the plane listens for it.
    pub(crate) fn message(&mut self, index: usize, srvid: Srvid, data: Vec<u8>) {
        self.work.push_back(Work::Message(index, srvid, data));
        self.settle();
    }

    /// Lets time pass.
    pub(crate) fn advance_ms(&mut self, millis: u64) {
        let end = self.now.plus(millis);
        loop {
            let deadlines = self.nodes.iter().filter(|node| node.up);
            let deadlines = deadlines.filter_map(|node| node.plane.next_deadline());
            let timeouts = self.waiting.values().filter_map(|waiting| match waiting {
                Waiting::Plane { until, .. } if *until != Millis::NEVER => Some(*until),
                _ => None,
            });
            let later = self.pace.as_ref().and_then(Pace::next);
            let next = deadlines.chain(timeouts).chain(later).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.work.extend(self.pace.as_mut().map(|pace| pace.due(next)).unwrap_or_default());
            self.time_out();
            for index in 0..self.nodes.len() {
                self.handle(index, |_| {});
            }
            self.settle();
        }
        self.now = end;
    }

    /// A node dies without a word; the others notice.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].up = false;
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.part(index, other);
        }
    }

    fn next_request(&mut self, waiting: Waiting) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.waiting.insert(id, waiting);
        id
    }

    fn time_out(&mut self) {
        let now = self.now;
        self.fail(
            ControlFailure::TimedOut,
            |waiting| matches!(waiting, Waiting::Plane { until, .. } if *until <= now),
        );
    }

    fn fail(&mut self, failure: ControlFailure, which: impl Fn(&Waiting) -> bool) {
        let late: Vec<RequestId> =
            self.waiting.iter().filter(|(_, w)| which(w)).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(Waiting::Plane { node, token, .. }) = self.waiting.remove(&id) {
                self.work.push_back(Work::Outcome(node, token, Outcome::Reply(Err(failure))));
            }
        }
    }

    fn handle(&mut self, index: usize, event: impl FnOnce(&NodeCx)) {
        let mut out = Vec::new();
        let node = &mut self.nodes[index];
        if node.up {
            node.plane.handle(self.now, event, &mut out);
        }
        self.work.extend(out.into_iter().map(|action| Work::Action(index, action)));
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while let Some(work) = self.work.pop_front() {
            steps += 1;
            assert!(steps < 200_000, "the cluster does not settle");
            match work {
                Work::Action(index, action) => self.act(index, action),
                Work::Outcome(index, token, outcome) => {
                    let mut out = Vec::new();
                    if self.nodes[index].up {
                        self.nodes[index].plane.outcome(self.now, token, outcome, &mut out);
                    }
                    self.work.extend(out.into_iter().map(|action| Work::Action(index, action)));
                }
                Work::Request(index, request) => {
                    self.handle(index, |cx| controls::request(cx, request));
                }
                Work::Message(index, srvid, data) => {
                    if self.nodes[index].listening.contains(&srvid) {
                        self.handle(index, |cx| controls::message(cx, srvid, data));
                    }
                }
            }
        }
    }

    fn act(&mut self, index: usize, action: Action<Ask, Tell>) {
        match action {
            Action::Forget(token) => self.nodes[index].held.retain(|(held, _)| *held != token),
            Action::Tell(tell) => {
                self.nodes[index].took.push(Did::Tell(tell.clone()));
                self.tell(index, tell);
            }
            Action::Ask(token, ask) => {
                let node = &mut self.nodes[index];
                node.took.push(Did::Ask(ask.clone()));
                match node.rules.iter().rev().find_map(|rule| rule(&ask)) {
                    Some(Play::Hold) => node.held.push((token, ask)),
                    Some(Play::Outcome(outcome)) => {
                        self.work.push_back(Work::Outcome(index, token, outcome));
                    }
                    None => self.ask(index, token, ask),
                }
            }
        }
    }

    fn ask(&mut self, index: usize, token: Token, ask: Ask) {
        let outcome = match ask {
            Ask::Control(control) => {
                self.deliver_control(index, Some(token), control);
                return;
            }
            Ask::Data(DataAsk::Statistics) => Outcome::Statistics(Box::default()),
            Ask::Data(ask) => {
                let about = pace::database_of(&ask);
                let (outcome, sent) = self.nodes[index].store.carry_out(ask);
                for tell in sent {
                    self.tell(index, tell);
                }
                if let Some(pace) = &mut self.pace {
                    let end = Work::Outcome(index, token, outcome);
                    return pace.end_order(self.now, (index, about), end);
                }
                outcome
            }
            Ask::Script(run) => {
                self.nodes[index].run_script(&run);
                let outcome = Outcome::Script(ScriptResult::Ok);
                if let Some(pace) = &mut self.pace {
                    return pace.end_script(self.now, Work::Outcome(index, token, outcome));
                }
                outcome
            }
            Ask::TakeLock { .. } if self.lock_holder.is_none_or(|holder| holder == index) => {
                self.lock_holder = Some(index);
                Outcome::Lock(LockResult::Taken(0.0))
            }
            Ask::TestLock { .. } if self.lock_holder.is_none() => {
                Outcome::Lock(LockResult::Taken(0.0))
            }
            Ask::TakeLock { .. } | Ask::TestLock { .. } => {
                Outcome::Lock(LockResult::Contention(0.25))
            }
            Ask::ReadNodes => Outcome::Nodes(Ok(self.node_map())),
            Ask::ReadPublicAddresses => {
                Outcome::PublicAddresses(Ok(self.nodes[index].address_file.clone()))
            }
            Ask::ReadHomeNodes => Outcome::HomeNodes(Vec::new()),
            Ask::ExistingInterfaces(mut names) => {
                names.retain(|name| INTERFACES.contains(&name.as_str()));
                Outcome::Names(Ok(names))
            }
            Ask::Held(addresses) => {
                let hosted = &self.nodes[index].hosted;
                Outcome::Held(addresses.into_iter().filter(|one| hosted.contains(one)).collect())
            }
            Ask::Connections(addresses) => {
                let to = |one: &&Connection| one.dst.ip().is_some_and(|ip| addresses.contains(&ip));
                let found = self.nodes[index].connections.iter().filter(to).copied().collect();
                Outcome::Connections(found)
            }
            Ask::ListPersistent => Outcome::Names(Ok(self.nodes[index].files.clone())),
            Ask::ListenSrvid(srvid) => {
                self.nodes[index].listening.insert(srvid);
                Outcome::Done
            }
        };
        self.work.push_back(Work::Outcome(index, token, outcome));
    }

    /// The nodes list as every node reads it.
    pub(crate) fn node_map(&self) -> NodeMap {
        State::new(
            constants(0),
            (0..self.nodes.len()).map(entry).collect(),
            TunableList::default(),
            (Timeval::default(), Millis(0)),
        )
        .node_map()
    }

    fn tell(&mut self, index: usize, tell: Tell) {
        match tell {
            Tell::Reply { request, answer } => match self.waiting.remove(&request) {
                Some(Waiting::Plane { node, token, .. }) => {
                    let reply = Outcome::Reply(Ok(answer));
                    self.post(index, node, Work::Outcome(node, token, reply));
                }
                Some(Waiting::Test) => {
                    self.replies.insert(request, answer);
                }
                // Timed out, or answered before.
                None => {}
            },
            Tell::Control(control) => self.deliver_control(index, None, control),
            Tell::Message { to, srvid, data } => {
                let state = self.state(index);
                let to = match to {
                    Destination::Node(pnn) => vec![pnn],
                    Destination::Current => vec![state.pnn()],
                    Destination::BroadcastConnected => state.connected(),
                    Destination::BroadcastActive => state.active(),
                    Destination::BroadcastAll => state.nodes_without(NodeFlags::DELETED),
                    _ => Vec::new(),
                };
                drop(state);
                for pnn in to {
                    let to = pnn.get() as usize;
                    let flags = self.state(index).flags_of(pnn).unwrap_or(NodeFlags::DISCONNECTED);
                    if to == index || !flags.intersects(NodeFlags::DISCONNECTED) {
                        self.post(index, to, Work::Message(to, srvid, data.clone()));
                    }
                }
            }
            Tell::ForgetSrvid(srvid) => {
                self.nodes[index].listening.remove(&srvid);
            }
            Tell::ReleaseLock => {
                self.lock_holder.take_if(|holder| *holder == index);
            }
            Tell::Exit(_) => self.nodes[index].up = false,
            _ => {}
        }
    }

    fn deliver_control(&mut self, index: usize, token: Option<Token>, control: OutgoingControl) {
        let to = control.to.get() as usize;
        let flags = self.state(index).flags_of(control.to).unwrap_or(NodeFlags::DISCONNECTED);
        let reachable = !flags.intersects(NodeFlags::DISCONNECTED);
        let up = self.nodes.get(to).is_some_and(|node| node.up);
        let from = match control.client {
            Some(client) if to != index => Origin::Node(pnn(index), client.0),
            Some(client) => Origin::Client(client),
            None if to != index => Origin::Node(pnn(index), 0),
            None => Origin::Own,
        };
        let id = match token {
            Some(token) if !reachable || !up => {
                let failed = Outcome::Reply(Err(ControlFailure::Disconnected));
                self.work.push_back(Work::Outcome(index, token, failed));
                return;
            }
            Some(token) => {
                let until = match control.timeout_s {
                    0 => Millis::NEVER,
                    seconds => self.now.plus_seconds(seconds),
                };
                self.next_request(Waiting::Plane { node: index, token, to, until })
            }
            None if reachable && up => RequestId(0),
            None => return,
        };
        let OutgoingControl { opcode, srvid, flags, data, .. } = control;
        let generation = (to != index).then(|| self.generation_of(pnn(index)));
        let request = Request { id, from, opcode, srvid, flags, generation, data };
        self.post(index, to, Work::Request(to, request));
    }

    /// A test may speak for a node that it has not made.
    fn generation_of(&self, pnn: Pnn) -> Generation {
        let node = self.nodes.get(pnn.get() as usize);
        node.map_or(GENERATION, |node| node.plane.cx().state().vnn_map.generation)
    }
}
