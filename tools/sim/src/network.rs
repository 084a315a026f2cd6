//! What travels between nodes: ordered per pair of nodes, as one TCP connection keeps it.

use std::collections::VecDeque;

use ringmaster_control::{
    node::{
        controls,
        world::{ControlAnswer, ControlFailure},
    },
    plane::Token,
};
use ringmaster_dataplane::record::ControlToken;
use ringmaster_protocol::{
    Destination, Generation, Packet, Srvid, control::ControlOpcode, control_packet::ControlFlags,
};

use crate::{
    mutation::Mutation,
    node::{DB, pnn},
    sim::{Event, Sim},
};

/// Messages under way on one link; more means that something multiplies.
const LINK_MAX: usize = 2_000;

/// `REQ_CONTROL`.
#[derive(Clone, Debug)]
pub(crate) struct ControlMessage {
    pub(crate) id: u64,
    pub(crate) opcode: ControlOpcode,
    pub(crate) srvid: Srvid,
    pub(crate) flags: ControlFlags,
    pub(crate) client: u32,
    /// Of its packet's header: the sender's map when it was sent.
    pub(crate) generation: Generation,
    pub(crate) data: Vec<u8>,
}

/// What travels between nodes. Controls keep their order with packets: one connection carries both.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Packet(Vec<u8>),
    Control(ControlMessage),
    Answer { control: u64, answer: ControlAnswer },
}

/// Who waits for the answer to a control over the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Plane(Token),
    Engine(ControlToken),
    Nobody,
}

/// A control under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) from: usize,
    pub(crate) life: u32,
    pub(crate) to: usize,
    pub(crate) asker: Asker,
}

/// Two nodes, the smaller number first.
pub(crate) const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

impl Sim {
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        let broken = self.broken.contains(&pair(a, b));
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.alive && b.alive && !a.cut && !b.cut && !broken
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.connected(from, to) {
            return;
        }
        if self.is(Mutation::StrangerBelieved) {
            self.repeat_later(from, to, &message);
        }
        let delay = match self.random.below(20) {
            _ if self.options.calm => self.random.range(80, 120),
            0 => self.random.range(5_000, 80_000),
            1..=4 => self.random.range(1_000, 5_000),
            _ => self.random.range(50, 1_000),
        };
        let link = self.links.entry((from, to)).or_default();
        link.push_back(message);
        let len = link.len();
        self.check(len <= LINK_MAX, || format!("{len} messages from {from} to {to}"));
        self.after(delay, Event::Deliver { from, to });
    }

    fn repeat_later(&mut self, from: usize, to: usize, message: &Message) {
        let Message::Packet(bytes) = message else { return };
        let is_request = matches!(Packet::decode(bytes), Ok((_, Packet::ReqDmaster(_))));
        if is_request && self.random.chance(20) {
            self.links.entry((from, to)).or_default().push_back(message.clone());
            self.after(50_000, Event::Deliver { from, to });
        }
    }

    /// [`Mutation::CallsHeldBack`]: one node's calls come late, again and again.
    fn is_held_back(&mut self, from: usize, to: usize) -> bool {
        let Some(Message::Packet(bytes)) = self.links.get(&(from, to)).and_then(VecDeque::front)
        else {
            return false;
        };
        let call = matches!(Packet::decode(bytes), Ok((header, Packet::ReqCall(_)))
            if header.envelope.source == Destination::Node(pnn(0)));
        call && self.random.chance(95)
    }

    pub(crate) fn deliver(&mut self, from: usize, to: usize) {
        if self.is(Mutation::CallsHeldBack) && self.is_held_back(from, to) {
            return self.after(500, Event::Deliver { from, to });
        }
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return; // lost with its connection
        };
        match message {
            Message::Packet(bytes) => self.packet(from, to, &bytes),
            Message::Control(control) => self.control_arrived(from, to, control),
            Message::Answer { control, answer } => self.answer_arrived(control, Ok(answer)),
        }
    }

    fn packet(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let Ok((mut header, packet)) = Packet::decode(bytes) else {
            return self.fail(format!("node {to} cannot decode a packet of node {from}"));
        };
        self.note(|| format!("{from} -> {to} {:?} {packet:?}", header.envelope));
        if self.is(Mutation::OldGenerationAccepted) {
            header.envelope.generation = self.nodes[to].engine.vnn_map().generation;
        }
        if let (true, Packet::ReqDmaster(request), Destination::Node(source)) =
            (self.is(Mutation::StrangerBelieved), &packet, header.envelope.source)
            && let Some((mut known, value)) = self.nodes[to].store.memory.get(DB, request.key)
        {
            let value = value.to_vec();
            known.dmaster = source.into();
            self.nodes[to].store.memory.put(DB, request.key, known, &value);
        }
        self.with(to, |engine, cx| engine.node_packet(cx, &header, &packet));
    }

    /// The connection of two nodes is lost with everything under way; both notice, if they live.
    pub(crate) fn lose(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(link) = self.links.get_mut(&(from, to)) {
                link.clear();
            }
            if self.nodes[from].alive && !self.is(Mutation::AbsentNotAsked) {
                self.event(from, |cx| controls::node_gone(cx, pnn(to)));
            }
            let lost =
                self.outstanding.iter().filter(|(_, asked)| asked.from == from && asked.to == to);
            let lost: Vec<u64> = lost.map(|(id, _)| *id).collect();
            for control in lost {
                self.answer_arrived(control, Err(ControlFailure::Disconnected));
            }
        }
    }

    /// Two nodes that may be connected are so again.
    pub(crate) fn meet(&mut self, a: usize, b: usize) {
        if self.connected(a, b) {
            self.event(a, |cx| controls::node_connected(cx, pnn(b)));
            self.event(b, |cx| controls::node_connected(cx, pnn(a)));
        }
    }
}
