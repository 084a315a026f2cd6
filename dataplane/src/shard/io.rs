//! The ways out of a shard: to its clients, to other nodes, to other shards, to control.
//!
//! Role: routes packets to a client or lane of any shard; carries out what the record engine wants.
//! Invariant: nothing here blocks; what does not fit waits in an outbox, and a shard without
//! credit stops reading.

use ringmaster_protocol::{
    DbId, Destination, Packet, PacketStyle, Pnn, Reqid, call::ReplyCall, header::Envelope,
};
use ringmaster_transport::reactor::AnyReactor;

use super::{
    ShardId,
    clients::{Clients, Sender, shard_of},
    lanes::{Lanes, owner_of_peer},
    limits::CREDIT_MIN,
    message::{Credit, FromShard, ToShard},
    outbox::Outbox,
    statistics::PacketCounters,
};
use crate::record::{ClientId, ControlToken, NodeEnvelope, Output, Ticket, UpdateToken};

/// The ways out of a shard, apart from what is asked meanwhile.
pub(super) struct Io {
    pub(super) clients: Clients,
    pub(super) lanes: Lanes,
    /// By shard; none towards itself.
    pub(super) peers: Vec<Option<Outbox<ToShard>>>,
    pub(super) control: Outbox<FromShard>,
    pub(super) counters: PacketCounters,
    pub(super) waits: Vec<(DbId, Box<[u8]>, Ticket)>,
    /// Updates of copies that the engine has answered.
    pub(super) updated: Vec<(UpdateToken, i32)>,
    pub(super) sender: Sender,
    pub(super) id: ShardId,
    pub(super) shards: u16,
}

impl Io {
    pub(super) fn peer(&mut self, shard: ShardId) -> Option<&mut Outbox<ToShard>> {
        self.peers.get_mut(usize::from(shard.0))?.as_mut()
    }

    /// Whether a buffer of input may be handled now.
    pub(super) fn has_credit(&self) -> bool {
        self.control.credit() >= CREDIT_MIN
            && self.peers.iter().flatten().all(|peer| peer.credit() >= CREDIT_MIN)
    }

    /// Moves parked messages on; `true` when none is left.
    pub(super) fn flush(&mut self) -> bool {
        let mut all = self.control.flush();
        for peer in self.peers.iter_mut().flatten() {
            all &= peer.flush();
        }
        all
    }

    /// A packet to a client of any shard.
    pub(super) fn send_client(
        &mut self,
        reactor: &mut AnyReactor,
        client: ClientId,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let home = shard_of(client, u32::from(self.shards));
        if home == self.id {
            if self.clients.append(reactor, client, write) {
                self.counters.client_sent = self.counters.client_sent.wrapping_add(1);
            }
            return;
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        if let Some(peer) = self.peer(home) {
            peer.send_reply(ToShard::Packet { client, bytes: bytes.into() });
        }
    }

    /// A packet to another node, over the lane of whichever shard owns it.
    pub(super) fn send_node(
        &mut self,
        reactor: &mut AnyReactor,
        to: Pnn,
        credit: Option<Credit>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let owner = owner_of_peer(to, self.shards);
        if owner == self.id {
            self.counters.node_sent = self.counters.node_sent.wrapping_add(1);
            self.lanes.append(reactor, to, credit, write);
            return;
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        if let Some(peer) = self.peer(owner) {
            peer.send_reply(ToShard::ToNode { to, bytes: bytes.into(), credit });
        }
    }

    /// The same for an encoded packet.
    pub(super) fn send_node_bytes(
        &mut self,
        reactor: &mut AnyReactor,
        to: Pnn,
        bytes: Box<[u8]>,
        credit: Option<Credit>,
    ) {
        let owner = owner_of_peer(to, self.shards);
        match self.peer(owner) {
            Some(peer) => peer.send_reply(ToShard::ToNode { to, bytes, credit }),
            None => {
                self.send_node(reactor, to, credit, |out| out.extend_from_slice(&bytes));
            }
        }
    }
}

/// Carries out what the record engine wants.
pub(super) struct Sink<'a> {
    pub(super) reactor: &'a mut AnyReactor,
    pub(super) io: &'a mut Io,
}

impl Output for Sink<'_> {
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]) {
        let envelope = self.io.sender.envelope(reqid);
        self.io.send_client(self.reactor, client, |out| {
            let reply = Packet::ReplyCall(ReplyCall { status, data });
            reply.encode_into(out, envelope, PacketStyle::Daemon);
        });
    }

    fn send_node(&mut self, to: Pnn, envelope: NodeEnvelope, packet: &Packet<'_>) {
        let envelope = Envelope {
            generation: envelope.generation,
            destination: Destination::Node(to),
            source: Destination::Node(envelope.source),
            reqid: envelope.reqid,
        };
        self.io.send_node(self.reactor, to, None, |out| {
            packet.encode_into(out, envelope, PacketStyle::Daemon);
        });
    }

    fn wait_for_chain(&mut self, db: DbId, key: &[u8], ticket: Ticket) {
        self.io.waits.push((db, key.into(), ticket));
    }

    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]) {
        let (shard, payload) = (self.io.id, payload.into());
        self.io.control.send_reply(FromShard::UpdateRecord { shard, to, token, payload });
    }

    fn updated(&mut self, token: UpdateToken, status: i32) {
        self.io.updated.push((token, status));
    }

    fn high_hop_count(&mut self, db: DbId, key: &[u8], hopcount: u32) {
        let hash = ringmaster_protocol::hash::jenkins(key);
        tracing::warn!(%db, key = format_args!("0x{hash:08x}"), hopcount, "High hopcount");
    }

    fn force_recovery(&mut self, reason: &'static str) {
        self.io.control.send_reply(FromShard::ForceRecovery { reason });
    }
}
