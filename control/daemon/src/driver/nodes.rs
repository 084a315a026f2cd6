//! Other nodes: controls to them and from them, messages, who is connected.
//!
//! Invariants
//! - Every control that somebody waits for ends: with its reply, with the death of the node, or
//!   with its time-out.
//! - What a client or shard sends to a node goes out through its own shard, so that it stays in
//!   order with what that shard sends itself.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4; `ctdb/server/ctdb_control.c`.

use std::{cell::Cell, collections::BTreeSet, sync::mpsc, time::Duration};

use ringmaster_control::{
    node::{
        Outcome, controls,
        world::{ControlAnswer, ControlFailure, Origin, OutgoingControl, Request, RequestId},
    },
    plane::{Millis, Token},
};
use ringmaster_dataplane::{
    record::{ControlToken, ReqidTable},
    shard::{
        ShardId,
        lanes::owner_of_peer,
        message::{Credit, ToShard},
        runtime::CONTROL,
    },
};
use ringmaster_protocol::{
    Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Srvid,
    control::ControlOpcode,
    control_packet::{ControlFlags, ReplyControl, ReqControl},
    header::Envelope,
    message::ReqMessage,
    node::NodeFlags,
    tunable::Tunable,
};

use super::{Asker, Driver};
use crate::worker::Sent;

/// C's words for a control whose node dies before the reply.
const DIED: &str = "node is disconnected";

/// C's words for a control that is not answered in time.
const TIMED_OUT: &str = "ctdb_control timed out";

/// Request ids of controls carry this instead of a shard: replies go to the control thread.
const REQID_SHARD: u8 = 31;

/// A control that another node has to answer.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    to: Pnn,
    asker: Asker,
    deadline: Millis,
}

/// Controls under way to other nodes.
#[derive(Debug)]
pub(crate) struct Outstanding {
    table: ReqidTable<Awaited>,
    deadlines: BTreeSet<(Millis, u32)>,
    by_node: BTreeSet<(Pnn, u32)>,
}

impl Outstanding {
    pub(crate) fn new() -> Self {
        Self {
            table: ReqidTable::new(REQID_SHARD),
            deadlines: BTreeSet::new(),
            by_node: BTreeSet::new(),
        }
    }

    /// `None`: too many are under way.
    fn add(&mut self, to: Pnn, asker: Asker, deadline: Millis) -> Option<Reqid> {
        let reqid = self.table.insert(Awaited { to, asker, deadline }).ok()?;
        if deadline != Millis::NEVER {
            self.deadlines.insert((deadline, reqid.0));
        }
        self.by_node.insert((to, reqid.0));
        Some(reqid)
    }

    fn take(&mut self, reqid: Reqid) -> Option<Asker> {
        let Awaited { to, asker, deadline } = self.table.remove(reqid)?;
        self.deadlines.remove(&(deadline, reqid.0));
        self.by_node.remove(&(to, reqid.0));
        Some(asker)
    }

    /// Those that a dead node will not answer.
    fn take_all_of(&mut self, node: Pnn) -> Vec<Asker> {
        let ids: Vec<u32> =
            self.by_node.range((node, 0)..=(node, u32::MAX)).map(|(_, reqid)| *reqid).collect();
        ids.into_iter().filter_map(|reqid| self.take(Reqid(reqid))).collect()
    }

    fn take_late(&mut self, now: Millis) -> Option<Asker> {
        let (deadline, reqid) = *self.deadlines.first()?;
        if deadline > now { None } else { self.take(Reqid(reqid)) }
    }

    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

impl Driver {
    /// What was on its way when the link broke is lost, a record perhaps with it. If no recovery has
    /// come in between, because the node was back so soon or nobody else has missed it, this node
    /// asks for one. (C does not: calls then wait until somebody happens to cause a recovery.)
    pub(super) fn node_up(&mut self, node: Pnn) {
        self.event(|cx| controls::node_connected(cx, node));
        let generation = self.plane.cx().state().vnn_map.generation;
        if self.lost.remove(&node) == Some(generation) {
            tracing::warn!("node {node} is back in the same generation; forcing a recovery");
            self.event(controls::force_recovery);
        }
    }

    /// Its flags first: whoever hears that a control has failed sees them.
    pub(super) fn node_down(&mut self, node: Pnn) {
        let (flags, generation) = {
            let cx = self.plane.cx();
            let state = cx.state();
            (state.flags_of(node), state.vnn_map.generation)
        };
        if generation != Generation::INVALID && flags.is_some_and(|flags| !flags.is_inactive()) {
            self.lost.insert(node, generation);
        }
        // One that has been taken off the list has got its flags there.
        if flags.is_some_and(|flags| !flags.intersects(NodeFlags::DELETED)) {
            self.event(|cx| controls::node_gone(cx, node));
        }
        for asker in self.outstanding.take_all_of(node) {
            self.control_failed(asker, ControlFailure::Disconnected, DIED);
        }
    }

    pub(super) fn late_controls(&mut self) {
        let now = self.now();
        while let Some(asker) = self.outstanding.take_late(now) {
            tracing::info!("a control has not been answered in time");
            self.event(|cx| {
                let counter = &mut cx.state_mut().counters.control_timeouts;
                *counter = counter.wrapping_add(1);
            });
            self.control_failed(asker, ControlFailure::TimedOut, TIMED_OUT);
        }
    }

    pub(super) fn control_failed(&mut self, asker: Asker, failure: ControlFailure, text: &str) {
        match asker {
            Asker::Own(token) => self.outcome(token, Outcome::Reply(Err(failure))),
            asker => {
                let error = text.to_owned();
                self.answer(asker, ControlAnswer { status: -1, data: Vec::new(), error });
            }
        }
    }

    /// The other nodes that a packet of this one goes to.
    pub(super) fn others(&self, to: Destination) -> Vec<Pnn> {
        let cx = self.plane.cx();
        let state = cx.state();
        let mut others = match to {
            Destination::Node(pnn) => {
                let mut known = state.nodes_without(NodeFlags::DELETED);
                known.retain(|node| *node == pnn);
                known
            }
            Destination::BroadcastAll => state.nodes_without(NodeFlags::DELETED),
            Destination::BroadcastConnected => state.connected(),
            Destination::BroadcastActive => state.active(),
            _ => Vec::new(),
        };
        others.retain(|node| *node != state.pnn());
        others
    }

    fn is_connected(&self, node: Pnn) -> bool {
        let flags = self.plane.cx().state().flags_of(node);
        flags.is_some_and(|flags| !flags.intersects(NodeFlags::DISCONNECTED | NodeFlags::DELETED))
    }

    /// A control of the plane. To this node it becomes a request.
    pub(super) fn send_control(&mut self, token: Option<Token>, control: OutgoingControl) {
        if control.to == self.pnn() {
            return self.request_own(token, control);
        }
        let asker = token.map_or(Asker::Nobody, Asker::Own);
        self.control_to_node(asker, control, None);
    }

    /// A control to another node. `through`: the shard of whoever asks.
    pub(super) fn control_to_node(
        &mut self,
        asker: Asker,
        control: OutgoingControl,
        through: Option<ShardId>,
    ) {
        let OutgoingControl { to, opcode, srvid, flags, client, data, timeout_s } = control;
        if !self.is_connected(to) {
            let text = super::requests::DISCONNECTED;
            return self.control_failed(asker, ControlFailure::Disconnected, text);
        }
        let deadline = match timeout_s {
            0 => Millis::NEVER,
            seconds => self.now().plus_seconds(seconds),
        };
        let Some(reqid) = (match asker {
            Asker::Nobody => Some(Reqid::NONE),
            asker => self.outstanding.add(to, asker, deadline),
        }) else {
            tracing::error!(%opcode, %to, "too many controls under way");
            return self.control_failed(asker, ControlFailure::TimedOut, TIMED_OUT);
        };
        let client_id = client.map_or(0, |client| client.0);
        let packet = ReqControl { opcode: opcode.0, srvid, client_id, flags, data: &data };
        self.packet_to_node(to, reqid, &Packet::ReqControl(packet), through, None);
    }

    /// Encodes a packet and gives it to the lane's shard, or to the one it has to go through.
    pub(super) fn packet_to_node(
        &mut self,
        to: Pnn,
        reqid: Reqid,
        packet: &Packet<'_>,
        through: Option<ShardId>,
        credit: Option<Credit>,
    ) {
        let envelope = Envelope {
            generation: self.plane.cx().state().vnn_map.generation,
            destination: Destination::Node(to),
            source: Destination::Node(self.pnn()),
            reqid,
        };
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
        let shard = through.unwrap_or_else(|| owner_of_peer(to, self.shards.count()));
        self.shards.send(shard, ToShard::ToNode { to, bytes: bytes.into(), credit });
    }

    /// `REQ_CONTROL` or `REPLY_CONTROL` of another node.
    pub(super) fn node_control(&mut self, bytes: &[u8]) {
        let Ok((header, packet)) = Packet::decode(bytes) else { return };
        let reqid = header.envelope.reqid;
        match packet {
            Packet::ReplyControl(reply) => {
                let Some(asker) = self.outstanding.take(reqid) else {
                    return tracing::debug!(reqid = reqid.0, "reply to no control of ours");
                };
                let error = String::from_utf8_lossy(reply.text().as_bytes()).into_owned();
                let ReplyControl { status, data, .. } = reply;
                self.answer(asker, ControlAnswer { status, data: data.to_vec(), error });
            }
            Packet::ReqControl(control) => {
                let Destination::Node(from) = header.envelope.source else { return };
                if from == self.pnn() {
                    return tracing::warn!("a control in this node's own name ignored");
                }
                let flags = control.flags;
                let noreply = flags.contains(ControlFlags::NOREPLY);
                let asker = if noreply { Asker::Nobody } else { Asker::Node(from, reqid) };
                self.request(
                    asker,
                    Request {
                        id: RequestId(0),
                        from: Origin::Node(from, control.client_id),
                        opcode: ControlOpcode(control.opcode),
                        srvid: control.srvid,
                        flags,
                        generation: Some(header.envelope.generation),
                        data: control.data.to_vec(),
                    },
                );
            }
            _ => {}
        }
    }

    /// An `UPDATE_RECORD` of a shard's record engine.
    pub(super) fn update_record(
        &mut self,
        shard: ShardId,
        to: Pnn,
        token: ControlToken,
        payload: Box<[u8]>,
    ) {
        let timeout_s = self.plane.cx().state().tunable(Tunable::ControlTimeout);
        let control = OutgoingControl {
            to,
            opcode: ControlOpcode::UPDATE_RECORD,
            srvid: Srvid(0),
            flags: ControlFlags::NONE,
            client: None,
            data: payload.into_vec(),
            timeout_s,
        };
        self.control_to_node(Asker::Shard(shard, token), control, Some(shard));
    }

    /// A message of the plane: to nodes, and to local receivers if this is one of them.
    pub(super) fn send_message(&mut self, to: Destination, srvid: Srvid, data: Vec<u8>) {
        for node in self.others(to) {
            let packet = Packet::ReqMessage(ReqMessage { srvid, data: &data });
            self.packet_to_node(node, Reqid::NONE, &packet, None, None);
        }
        let here = match to {
            Destination::Node(pnn) => pnn == self.pnn(),
            Destination::BroadcastActive => !self.plane.cx().state().is_inactive(),
            Destination::Current | Destination::BroadcastAll | Destination::BroadcastConnected => {
                true
            }
            _ => false,
        };
        if here {
            self.message_here(srvid, data);
        }
    }

    fn message_here(&mut self, srvid: Srvid, data: Vec<u8>) {
        if self.registry.receivers(srvid).any(|receiver| receiver.id == CONTROL.id) {
            // At once: a message that was sent before a control is heard before it.
            let data = data.clone();
            self.event(|cx| controls::message(cx, srvid, data));
        }
        // One shard delivers to the receivers of all, so that messages keep their order. It is
        // left asleep when no client listens: the leader speaks to all nodes every second.
        if self.registry.receivers(srvid).any(|receiver| receiver.id != CONTROL.id) {
            let data = data.into();
            self.shards.send(ShardId(0), ToShard::Deliver { srvid, data });
        }
    }

    /// A packet of a worker's stream. Its credit goes back when the packet has left.
    pub(super) fn stream(&mut self, sent: Sent, credit: Credit) {
        match sent {
            Sent::Message { to, srvid, data } if to != self.pnn() => {
                let packet = Packet::ReqMessage(ReqMessage { srvid, data: &data });
                self.packet_to_node(to, Reqid::NONE, &packet, None, Some(credit));
            }
            Sent::Message { srvid, data, .. } => self.message_here(srvid, data),
            Sent::Control { to, opcode, data } if to != self.pnn() => {
                let packet = ReqControl {
                    opcode: opcode.0,
                    srvid: Srvid(0),
                    client_id: 0,
                    flags: ControlFlags::NOREPLY,
                    data: &data,
                };
                let packet = Packet::ReqControl(packet);
                self.packet_to_node(to, Reqid::NONE, &packet, None, Some(credit));
            }
            Sent::Control { to, opcode, data } => {
                let control = OutgoingControl {
                    to,
                    opcode,
                    srvid: Srvid(0),
                    flags: ControlFlags::NOREPLY,
                    client: None,
                    data,
                    timeout_s: 0,
                };
                self.send_control(None, control);
            }
        }
    }
}

/// Bytes of a stream that may be under way to another node; then its worker waits.
pub(super) const STREAM_WINDOW: usize = 4 * 1024 * 1024;

/// A peer that takes nothing of a full window for this long gets no more of the stream: it misses
/// records by their count, or the end, and gives up. The worker has others to serve.
const STREAM_PATIENCE: Duration = Duration::from_secs(60);

/// The worker's end of its window.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    patience: Duration,
    back: mpsc::Sender<usize>,
    given_back: mpsc::Receiver<usize>,
    under_way: Cell<usize>,
    cut_off: Cell<bool>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self::of(STREAM_WINDOW, STREAM_PATIENCE)
    }

    fn of(size: usize, patience: Duration) -> Self {
        let (back, given_back) = mpsc::channel();
        let (under_way, cut_off) = (Cell::new(0), Cell::new(false));
        Self { size, patience, back, given_back, under_way, cut_off }
    }

    /// Waits until there is room, then takes `bytes` of it: one packet at least fits. `None`: the
    /// stream has been cut off.
    pub(super) fn take(&self, bytes: usize) -> Option<Credit> {
        let mut under_way = self.under_way.get();
        while !self.cut_off.get() && under_way > 0 && under_way + bytes > self.size {
            match self.given_back.recv_timeout(self.patience) {
                Ok(back) => under_way = under_way.saturating_sub(back),
                Err(_) => {
                    tracing::error!("a stream is cut off: its receiver takes nothing");
                    self.cut_off.set(true);
                }
            }
        }
        self.under_way.set(under_way);
        if self.cut_off.get() {
            return None;
        }
        self.under_way.set(under_way + bytes);
        Some(Credit::new(bytes, self.back.clone()))
    }

    /// The job is over: its successor is another stream.
    pub(super) fn next_stream(&self) {
        self.cut_off.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Pnn {
        Pnn::new(number).expect("a number")
    }

    fn own(outcome: Option<Asker>) -> Option<u64> {
        outcome.map(|asker| {
            let Asker::Own(token) = asker else { panic!("{asker:?}") };
            token.0
        })
    }

    #[test]
    fn every_control_ends_once_by_reply_by_death_or_by_time() {
        let mut outstanding = Outstanding::new();
        let deadlines = [Millis(300), Millis(100), Millis::NEVER, Millis(200), Millis(100)];
        let ids: Vec<Reqid> = (0..)
            .zip(deadlines)
            .map(|(number, deadline)| {
                let to = node(u32::try_from(number % 2).expect("0 or 1"));
                outstanding.add(to, Asker::Own(Token(number)), deadline).expect("room")
            })
            .collect();
        assert_eq!(outstanding.next_deadline(), Some(Millis(100)));
        assert_eq!(own(outstanding.take(ids[1])), Some(1));
        assert_eq!(own(outstanding.take(ids[1])), None, "answered twice");
        assert_eq!(own(outstanding.take_late(Millis(99))), None);
        assert_eq!(own(outstanding.take_late(Millis(150))), Some(4));
        assert_eq!(own(outstanding.take_late(Millis(150))), None);
        // Node 1 has only the control with the deadline of 200 left.
        let dead: Vec<_> =
            outstanding.take_all_of(node(1)).into_iter().map(Some).map(own).collect();
        assert_eq!(dead, [Some(3)]);
        assert_eq!(outstanding.next_deadline(), Some(Millis(300)));
        assert_eq!(outstanding.take_all_of(node(0)).len(), 2);
        assert_eq!(outstanding.next_deadline(), None);
        assert!(outstanding.table.is_empty() && outstanding.by_node.is_empty());
    }

    #[test]
    fn a_stream_goes_on_when_its_packets_have_left() {
        let window = Window::of(100, Duration::from_secs(60));
        let first = window.take(60).expect("room");
        let second = window.take(40).expect("room");
        let taker = std::thread::spawn(move || {
            let third = window.take(90).is_some();
            (window, third)
        });
        drop(first);
        drop(second);
        let (window, third) = taker.join().unwrap();
        assert!(third);
        // Larger than the window: alone in it.
        assert!(window.take(1_000).is_some());
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_cut_off_until_the_next_stream() {
        let window = Window::of(100, Duration::ZERO);
        let kept = window.take(80).expect("room");
        assert!(window.take(80).is_none());
        assert!(window.take(1).is_none(), "nothing after a gap");
        window.next_stream();
        assert!(window.take(80).is_none(), "still owed");
        window.next_stream();
        drop(kept);
        assert!(window.take(80).is_some());
    }
}
