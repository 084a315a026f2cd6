//! Packets of other nodes, and the events of the links they come in on.
//!
//! Role: takes each packet of a peer to whoever it is for: records to the shard of their chain,
//! messages and tunnels to local clients, controls to the control thread.
//! Invariants
//! - Packets of one peer for one chain, one srvid or control keep their order: one path each.
//! - What makes no sense ends the connection, with one log line.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4, 1.6; `ctdb/server/ctdb_server.c: ctdb_input_pkt`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ringmaster_protocol::{
    DbId, Destination, Packet, PacketStyle, Pnn, Reqid, RequestHeader,
    control::ControlOpcode,
    header::Envelope,
    keepalive::{KeepalivePayload, ReqKeepalive},
    node::NodeFlags,
    tunable::Tunable,
};
use ringmaster_transport::{
    reactor::Token,
    tcp::{
        announce::Announcement,
        keepalive::{Clash, clash},
        link::{Action, Event, Tunables, Why},
        socket,
    },
};
use rustix::fd::OwnedFd;

use super::{
    ShardId,
    early::database_of,
    lanes::{LaneSetup, Way, owner_of_peer, peer_at},
    limits::REFUSALS_PAUSE,
    message::{Credit, FromShard, Relay, ToShard},
    runtime::Shard,
};
use crate::record::ReqidTable;

impl Shard {
    pub(super) fn start_lanes(&mut self, setup: LaneSetup) {
        self.io.lanes.setup = Some(setup);
        self.reconcile_lanes();
    }

    pub(super) fn reconcile_lanes(&mut self) {
        let (now, id, shards) = (self.started.elapsed(), self.id, self.shards);
        let mine = |pnn| owner_of_peer(pnn, shards) == id;
        self.io.lanes.reconcile(&mut self.reactor, &self.view, mine, now);
        for pnn in std::mem::take(&mut self.io.lanes.dropped) {
            self.io.control.send_reply(FromShard::NodeDown(pnn));
        }
        if self.io.lanes.keepalive {
            self.start_keepalive();
        }
    }

    pub(super) fn start_keepalive(&mut self) {
        self.io.lanes.keepalive = true;
        let peers: Vec<Pnn> = self.io.lanes.by_pnn.keys().copied().collect();
        for pnn in peers {
            self.link_event(pnn, Event::StartKeepalive);
        }
    }

    /// A connection has come in at the node's socket.
    pub(super) fn place_node(&mut self, stream: OwnedFd) {
        let source = match socket::accepted(&stream) {
            Ok(source) => source,
            Err(error) => return tracing::debug!(%error, "a node's connection has ended"),
        };
        let Some(pnn) = peer_at(&self.view, source) else {
            return self.refuse(source);
        };
        match self.io.peer(owner_of_peer(pnn, self.shards)) {
            Some(peer) => peer.send_reply(ToShard::NodeConnection(pnn, stream)),
            None => self.accept_node(pnn, stream),
        }
    }

    /// One line a second at most: strangers may knock as often as they like.
    fn refuse(&mut self, source: IpAddr) {
        let now = self.started.elapsed();
        let refused = &mut self.refused;
        refused.1 = refused.1.saturating_add(1);
        if refused.0.is_none_or(|last| now >= last + REFUSALS_PAUSE) {
            let times = refused.1;
            tracing::warn!(%source, times, "refused a connection from an unknown node");
            *refused = (Some(now), 0);
        }
    }

    pub(super) fn accept_node(&mut self, pnn: Pnn, stream: OwnedFd) {
        let lane = self.io.lanes.by_pnn.get(&pnn);
        if !lane.is_some_and(|lane| lane.link.accepts()) {
            return tracing::warn!(%pnn, "refused a second connection of a node");
        }
        match self.io.lanes.accept(&mut self.reactor, pnn, stream) {
            Ok(()) => self.link_event(pnn, Event::Accepted),
            Err(error) => tracing::warn!(%pnn, error, "cannot take a node's connection"),
        }
    }

    /// A connect of ours has succeeded.
    pub(super) fn node_connected(&mut self, token: Token) {
        if let Some((pnn, _)) = self.io.lanes.by_token.get(&token).copied() {
            self.link_event(pnn, Event::Connected);
        }
    }

    /// A connection to or from a node has ended by itself, or could not be made.
    pub(super) fn node_closed(&mut self, token: Token, error: Option<&std::io::Error>) -> bool {
        let Some((pnn, way)) = self.io.lanes.by_token.get(&token).copied() else { return false };
        self.io.lanes.forget(pnn, way);
        if let Some(error) = error {
            // Every second while a node is down.
            tracing::trace!(%pnn, ?way, %error, "connection broke");
        }
        let event = match way {
            Way::Incoming => Event::IncomingBroken(Why::Closed),
            Way::Outgoing => Event::OutgoingBroken(Why::Closed),
        };
        self.link_event(pnn, event);
        true
    }

    pub(super) fn link_turn(&mut self) {
        let now = self.started.elapsed();
        for pnn in std::mem::take(&mut self.io.lanes.overfull) {
            self.link_event(pnn, Event::Overfull);
        }
        for pnn in self.io.lanes.due(now) {
            let (tunables, mut actions) = (self.link_tunables(), Vec::new());
            if let Some(lane) = self.io.lanes.by_pnn.get_mut(&pnn) {
                lane.link.turn(now, tunables, &mut actions);
            }
            self.link_actions(pnn, actions);
        }
        self.io.lanes.release_credits(&self.reactor);
    }

    fn link_tunables(&self) -> Tunables {
        let value = |tunable| self.view.tunables.value(tunable);
        Tunables {
            interval: Duration::from_secs(value(Tunable::KeepaliveInterval).into()),
            limit: value(Tunable::KeepaliveLimit),
        }
    }

    fn link_event(&mut self, pnn: Pnn, event: Event) {
        let (now, tunables) = (self.started.elapsed(), self.link_tunables());
        let mut actions = Vec::new();
        if let Some(lane) = self.io.lanes.by_pnn.get_mut(&pnn) {
            lane.link.handle(now, event, tunables, &mut actions);
        }
        self.link_actions(pnn, actions);
    }

    fn link_actions(&mut self, pnn: Pnn, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => {
                    if let Err(error) = self.io.lanes.connect(&mut self.reactor, pnn) {
                        tracing::trace!(%pnn, error, "cannot connect");
                        self.link_event(pnn, Event::OutgoingBroken(Why::Closed));
                    }
                }
                Action::CloseOutgoing => {
                    self.io.lanes.close(&mut self.reactor, pnn, Way::Outgoing);
                }
                Action::CloseIncoming => {
                    self.io.lanes.close(&mut self.reactor, pnn, Way::Incoming);
                }
                Action::Up => {
                    tracing::info!(%pnn, "connected to node");
                    self.io.control.send_reply(FromShard::NodeUp(pnn));
                    // At once, so that two of ours need not wait for the interval to meet.
                    self.send_keepalive(pnn);
                }
                Action::Down(why) => {
                    tracing::warn!("node {pnn} is dead: {why}");
                    self.io.control.send_reply(FromShard::NodeDown(pnn));
                }
                Action::Keepalive => self.send_keepalive(pnn),
            }
        }
    }

    /// Version and uptime, as this node says them.
    fn own_keepalive(&self, setup: &LaneSetup) -> KeepalivePayload {
        let uptime = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        KeepalivePayload { version: setup.version, uptime }
    }

    fn send_keepalive(&mut self, pnn: Pnn) {
        let Some(setup) = self.io.lanes.setup else { return };
        let tail = setup.announcement.to_tail();
        let payload = Some(self.own_keepalive(&setup));
        let packet = Packet::ReqKeepalive(ReqKeepalive { payload, tail: &tail });
        let counters = &mut self.io.counters;
        counters.keepalive_sent = counters.keepalive_sent.wrapping_add(1);
        self.send_node(pnn, &packet);
    }

    /// Sends a packet of this node's own, which nobody answers.
    pub(super) fn send_node(&mut self, to: Pnn, packet: &Packet<'_>) {
        let envelope = self.io.node_envelope(to);
        self.io.send_node(&mut self.reactor, to, None, |out| {
            packet.encode_into(out, envelope, PacketStyle::Daemon);
        });
    }

    /// A packet from control or another shard for a node.
    pub(super) fn forward_node(&mut self, to: Pnn, bytes: Box<[u8]>, credit: Option<Credit>) {
        self.io.send_node_bytes(&mut self.reactor, to, bytes, credit);
    }

    /// Bytes on a connection of a node; `false` when the token is none's.
    pub(super) fn node_input(&mut self, token: Token, bytes: &[u8]) -> bool {
        let Some((pnn, way)) = self.io.lanes.by_token.get(&token).copied() else { return false };
        if way == Way::Outgoing {
            tracing::warn!("node {pnn} has written to a connection that it may only read");
            self.link_event(pnn, Event::OutgoingBroken(Why::Malformed));
            return true;
        }
        self.io.lanes.delay_acks(&self.reactor, pnn, self.started.elapsed());
        let assembly = self.io.lanes.by_pnn.get_mut(&pnn).and_then(|lane| lane.assembly.take());
        let Some(mut assembly) = assembly else { return true };
        let fed = assembly.feed(
            bytes,
            |header, packet| {
                // An earlier packet may have cost the connection.
                if self.io.lanes.is_incoming(pnn, token) {
                    self.node_packet(pnn, header, packet);
                }
            },
            |_| {},
        );
        if !self.io.lanes.is_incoming(pnn, token) {
            return true;
        }
        match fed {
            Ok(()) => {
                if let Some(lane) = self.io.lanes.by_pnn.get_mut(&pnn) {
                    lane.assembly = Some(assembly);
                }
            }
            Err(error) => self.malformed(pnn, &error),
        }
        true
    }

    fn malformed(&mut self, pnn: Pnn, error: &dyn std::fmt::Display) {
        tracing::warn!("connection of node {pnn} closed: {error}");
        self.link_event(pnn, Event::IncomingBroken(Why::Malformed));
    }

    fn node_packet(&mut self, from: Pnn, header: &RequestHeader, bytes: &[u8]) {
        self.io.counters.node_received = self.io.counters.node_received.wrapping_add(1);
        let packet = match Packet::decode_body(header, bytes) {
            Ok(packet) => packet,
            Err(ringmaster_protocol::packet::PacketError::UnknownOperation { operation }) => {
                return self.complain(from, operation);
            }
            Err(error) => return self.malformed(from, &error),
        };
        // A call that somebody else has redirected here says nothing about its origin's life.
        let relayed = matches!(packet, Packet::ReqCall(call) if call.hopcount > 0);
        if header.envelope.source == Destination::Node(from)
            && !relayed
            && let Some(lane) = self.io.lanes.by_pnn.get_mut(&from)
        {
            lane.link.heard();
        }
        self.take(from, header, &packet, bytes);
    }

    /// Unknown operations are ignored, as in C; one line for each connection.
    fn complain(&mut self, from: Pnn, operation: u32) {
        let Some(lane) = self.io.lanes.by_pnn.get_mut(&from) else { return };
        if !std::mem::replace(&mut lane.complained, true) {
            tracing::error!("packets of unknown operation {operation} from node {from} ignored");
        }
    }

    fn take(&mut self, from: Pnn, header: &RequestHeader, packet: &Packet<'_>, bytes: &[u8]) {
        let counters = &mut self.io.counters.node;
        let count = |counter: &mut u32| *counter = counter.wrapping_add(1);
        match packet {
            Packet::ReqKeepalive(keepalive) => return self.keepalive(from, keepalive),
            Packet::ReqMessage(message) => {
                count(&mut counters.req_message);
                return self.deliver(message.srvid, message.data);
            }
            Packet::ReqTunnel(tunnel) => {
                count(&mut counters.req_tunnel);
                return self.tunnel_to_client(tunnel);
            }
            Packet::ReqControl(control) => {
                count(&mut counters.req_control);
                return self.control_of_node(ControlOpcode(control.opcode), bytes);
            }
            Packet::ReplyControl(_) => {
                count(&mut counters.reply_control);
                return self.io.control.send(FromShard::NodeControl(bytes.into()));
            }
            Packet::ReplyError(_) => count(&mut counters.reply_error),
            _ if self.is_of_another_epoch(header) => return,
            Packet::ReqCall(_) => count(&mut self.io.counters.node.req_call),
            Packet::ReplyCall(_) => count(&mut self.io.counters.node.reply_call),
            Packet::ReqDmaster(_) => count(&mut self.io.counters.node.req_dmaster),
            Packet::ReplyDmaster(_) => count(&mut self.io.counters.node.reply_dmaster),
        }
        let owner = match packet {
            Packet::ReqCall(call) => self.owner(call.db, call.key),
            Packet::ReqDmaster(record) => self.owner(record.db, record.key),
            // By its key too: its call may be forgotten, but the record must find its chain.
            Packet::ReplyDmaster(record) => self.owner(record.db, record.key),
            _ => ShardId(ReqidTable::<()>::shard_of(header.envelope.reqid).into()),
        };
        match self.io.peer(owner) {
            Some(peer) => peer.send(ToShard::NodePacket(bytes.into())),
            None if owner == self.id => self.record_packet(header, packet, bytes),
            // A request id of nobody's.
            None => {}
        }
    }

    /// Controls go to the control thread: at once, or behind the records that came before.
    fn control_of_node(&mut self, opcode: ControlOpcode, bytes: &[u8]) {
        let about_records = matches!(
            opcode,
            ControlOpcode::PUSH_RECORD
                | ControlOpcode::TRY_DELETE_RECORDS
                | ControlOpcode::VACUUM_FETCH
        );
        if !about_records || self.shards == 1 {
            return self.io.control.send(FromShard::NodeControl(bytes.into()));
        }
        let relay = Arc::new(Relay::new(usize::from(self.shards) - 1, bytes.into()));
        for peer in self.io.peers.iter_mut().flatten() {
            peer.send(ToShard::Relay(Arc::clone(&relay)));
        }
    }

    /// A packet for the record engine of this shard, if its database is attached here already.
    pub(super) fn record_packet(
        &mut self,
        header: &RequestHeader,
        packet: &Packet<'_>,
        bytes: &[u8],
    ) {
        if let Some(db) = database_of(packet)
            && self.store.handle(db).is_none()
            && self.early.keep(self.started.elapsed(), db, bytes.into()).is_none()
        {
            return;
        }
        self.with_engine(|engine, cx| engine.node_packet(cx, header, packet));
    }

    /// Goes on with what has waited for the database. Where the chain lies is known only now.
    pub(super) fn take_early(&mut self, db: DbId) {
        for bytes in self.early.take(db) {
            let Ok((header, packet)) = Packet::decode(&bytes) else { continue };
            let owner = match &packet {
                Packet::ReqCall(call) => self.owner(call.db, call.key),
                Packet::ReqDmaster(record) => self.owner(record.db, record.key),
                Packet::ReplyDmaster(record) => self.owner(record.db, record.key),
                _ => continue,
            };
            match self.io.peer(owner) {
                Some(peer) => peer.send(ToShard::NodePacket(bytes)),
                None => self.record_packet(&header, &packet, &bytes),
            }
        }
    }

    /// The database has not come: the engine refuses in C's words.
    pub(super) fn refuse_early(&mut self, bytes: &[u8]) {
        if let Ok((header, packet)) = Packet::decode(bytes) {
            self.with_engine(|engine, cx| engine.node_packet(cx, &header, &packet));
        }
    }

    /// Such record packets are dropped; the record engine looks again.
    fn is_of_another_epoch(&self, header: &RequestHeader) -> bool {
        let flags = self.view.flags_of(self.view.pnn);
        header.envelope.generation != self.view.vnn_map.generation
            || flags.is_some_and(|flags| flags.intersects(NodeFlags::BANNED))
    }

    fn keepalive(&mut self, from: Pnn, keepalive: &ReqKeepalive<'_>) {
        let counters = &mut self.io.counters;
        counters.keepalive_received = counters.keepalive_received.wrapping_add(1);
        let Some(setup) = self.io.lanes.setup else { return };
        let announced = Announcement::of_tail(keepalive.tail);
        if let Some(lane) = self.io.lanes.by_pnn.get_mut(&from)
            && lane.announced != announced
        {
            lane.announced = announced;
            if let Some(announced) = announced {
                tracing::info!(pnn = %from, ?announced, "node is one of ours");
                self.io.control.send_reply(FromShard::NodeIsOurs(from));
            }
        }
        let mixed = self.view.tunables.value(Tunable::AllowMixedVersions) == 1;
        let reason = match clash(self.own_keepalive(&setup), keepalive.payload, mixed) {
            None => return,
            Some(Clash::Missing) => format!("node {from} says no version in its keepalives"),
            Some(Clash::Other(version)) => format!(
                "node {from} runs Samba version {:#x}, this one says {:#x}; set `samba version` \
                 in [transport] of ringmaster.conf, or the tunable AllowMixedVersions everywhere",
                version.0, setup.version.0
            ),
        };
        self.io.control.send_reply(FromShard::Leave(reason));
    }
}

impl super::io::Io {
    /// Of a packet of this node's own that nobody answers.
    pub(super) fn node_envelope(&self, to: Pnn) -> Envelope {
        Envelope {
            generation: self.sender.generation,
            destination: Destination::Node(to),
            source: Destination::Node(self.sender.pnn),
            reqid: Reqid::NONE,
        }
    }
}
