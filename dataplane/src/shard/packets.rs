//! Packets of local clients: calls, messages, tunnels, controls.
//!
//! Role: takes each packet to whoever it is for. What is done with a call: `record`; with a control
//! that needs more than the view: crate `control`.
//! Invariants: a packet that makes no sense is ignored with a log line, as in C; a stream that
//! makes no sense is closed.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.3, 2; `ctdb/server/ctdb_daemon.c: daemon_incoming_packet`.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ringmaster_protocol::{
    DbId, Destination, Packet, PacketStyle, Reqid, RequestHeader, Srvid,
    call::ReqCall,
    control::{ControlOpcode, ControlRequest},
    control_packet::{ControlFlags, ReqControl},
    header::Envelope,
    message::ReqMessage,
    node::NodeFlags,
    process::Timeval,
    record::KeyData,
    tunnel::ReqTunnel,
};
use ringmaster_transport::reactor::Token;

use super::{
    HashChain, ShardId,
    controls::{Answer, answer, reply},
    message::{ClientControl, FromShard, ToShard},
    owner_of,
    registry::ClientRef,
    runtime::{CONTROL, Shard},
};
use crate::record::ClientId;

impl Shard {
    pub(super) fn input(&mut self, token: Token, bytes: &[u8]) {
        let Some(id) = self.io.clients.by_token.get(&token).copied() else { return };
        let Some(mut assembly) =
            self.io.clients.by_id.get_mut(&id).and_then(|client| client.assembly.take())
        else {
            return;
        };
        let fed = assembly.feed(
            bytes,
            |header, packet| self.client_packet(id, header, packet),
            |reason| tracing::debug!(client = id.0, error = %reason, "packet ignored"),
        );
        if let Err(error) = fed {
            tracing::warn!(client = id.0, %error, "client closed: its stream makes no sense");
            return self.close_client(id);
        }
        if let Some(client) = self.io.clients.by_id.get_mut(&id) {
            client.assembly = Some(assembly);
        }
    }

    fn client_packet(&mut self, client: ClientId, header: &RequestHeader, bytes: &[u8]) {
        self.io.counters.client_received = self.io.counters.client_received.wrapping_add(1);
        let packet = match Packet::decode_body(header, bytes) {
            Ok(packet) => packet,
            Err(error) => return tracing::debug!(client = client.0, %error, "packet ignored"),
        };
        let counters = &mut self.io.counters.client;
        match packet {
            Packet::ReqCall(call) => {
                counters.req_call = counters.req_call.wrapping_add(1);
                self.call(client, header.envelope.reqid, &call, bytes);
            }
            Packet::ReqMessage(message) => {
                counters.req_message = counters.req_message.wrapping_add(1);
                self.client_message(header.envelope.destination, &message);
            }
            Packet::ReqControl(control) => {
                counters.req_control = counters.req_control.wrapping_add(1);
                self.control(client, header, &control);
            }
            Packet::ReqTunnel(tunnel) => {
                counters.req_tunnel = counters.req_tunnel.wrapping_add(1);
                self.client_tunnel(header.envelope.destination, &tunnel);
            }
            other => {
                let operation = other.operation();
                tracing::debug!(client = client.0, ?operation, "not a packet of clients");
            }
        }
    }

    /// Whose chain the key is; this shard's for a database that nobody knows.
    pub(super) fn owner(&self, db: DbId, key: &[u8]) -> ShardId {
        match self.store.chain_of(db, key) {
            Some(chain) => owner_of(HashChain(chain), self.shards),
            None => self.id,
        }
    }

    fn call(&mut self, client: ClientId, reqid: Reqid, call: &ReqCall<'_>, bytes: &[u8]) {
        let owner = self.owner(call.db, call.key);
        match self.io.peer(owner) {
            Some(peer) => peer.send(ToShard::Call { client, bytes: bytes.into() }),
            None => self.with_engine(|engine, cx| engine.client_call(cx, client, reqid, call)),
        }
    }

    fn client_message(&mut self, destination: Destination, message: &ReqMessage<'_>) {
        let here = match destination {
            Destination::Current => true,
            Destination::Node(pnn) => pnn == self.view.pnn,
            Destination::BroadcastAll | Destination::BroadcastConnected => true,
            Destination::BroadcastActive => self.is_active(),
            _ => return tracing::debug!(?destination, "message to no node"),
        };
        let view = Arc::clone(&self.view);
        for pnn in view.others(destination) {
            self.send_node(pnn, &Packet::ReqMessage(*message));
        }
        if here {
            self.io.counters.node_sent = self.io.counters.node_sent.wrapping_add(1);
            let received = &mut self.io.counters.node.req_message;
            *received = received.wrapping_add(1);
            self.deliver(message.srvid, message.data);
        }
    }

    fn is_active(&self) -> bool {
        let flags = self.view.flags_of(self.view.pnn);
        flags.is_some_and(|flags| !flags.intersects(NodeFlags::INACTIVE))
    }

    /// Hands a message of a client or node to all local receivers, the control plane included.
    pub(super) fn deliver(&mut self, srvid: Srvid, data: &[u8]) {
        if self.deliver_to_clients(srvid, data) {
            let data = data.into();
            self.io.control.send_reply(FromShard::ControlMessage { srvid, data });
        }
    }

    /// Hands a message to all local clients that want it, in the order of their registrations;
    /// `true` when the control plane wants it too.
    pub(super) fn deliver_to_clients(&mut self, srvid: Srvid, data: &[u8]) -> bool {
        let envelope = self.io.sender.envelope(Reqid::NONE);
        let mut for_control = false;
        for receiver in self.registry.receivers(srvid) {
            if receiver.id == CONTROL.id {
                for_control = true;
                continue;
            }
            self.io.send_client(&mut self.reactor, receiver.id, |out| {
                let message = Packet::ReqMessage(ReqMessage { srvid, data });
                message.encode_into(out, envelope, PacketStyle::Daemon);
            });
        }
        for_control
    }

    fn client_tunnel(&mut self, destination: Destination, tunnel: &ReqTunnel<'_>) {
        if self.registry.tunnel(tunnel.tunnel_id).is_none() {
            let tunnel = tunnel.tunnel_id;
            return tracing::debug!(tunnel, "packet for a tunnel that is not registered here");
        }
        match destination {
            Destination::Current => self.own_tunnel(tunnel),
            Destination::Node(pnn) if pnn == self.view.pnn => self.own_tunnel(tunnel),
            Destination::Node(pnn) if self.view.others(destination).next().is_some() => {
                self.send_node(pnn, &Packet::ReqTunnel(*tunnel));
            }
            _ => tracing::debug!(?destination, "tunnel packet to no node"),
        }
    }

    fn own_tunnel(&mut self, tunnel: &ReqTunnel<'_>) {
        let counters = &mut self.io.counters;
        counters.node_sent = counters.node_sent.wrapping_add(1);
        counters.node.req_tunnel = counters.node.req_tunnel.wrapping_add(1);
        self.tunnel_to_client(tunnel);
    }

    pub(super) fn tunnel_to_client(&mut self, tunnel: &ReqTunnel<'_>) {
        let Some(registrant) = self.registry.tunnel(tunnel.tunnel_id) else {
            let tunnel = tunnel.tunnel_id;
            return tracing::debug!(tunnel, "packet for a tunnel that is not registered here");
        };
        let envelope = self.io.sender.envelope(Reqid::NONE);
        self.io.send_client(&mut self.reactor, registrant.id, |out| {
            Packet::ReqTunnel(*tunnel).encode_into(out, envelope, PacketStyle::Daemon);
        });
    }

    fn control(&mut self, client: ClientId, header: &RequestHeader, control: &ReqControl<'_>) {
        let Envelope { reqid, destination, .. } = header.envelope;
        let here = match destination {
            Destination::Current => true,
            Destination::Node(pnn) => pnn == self.view.pnn,
            _ => false,
        };
        if here && self.answer_here(client, reqid, control) {
            return;
        }
        let pid = self.io.clients.by_id.get(&client).map_or(0, |client| client.pid);
        self.io.control.send(FromShard::Control(ClientControl {
            client: ClientRef { id: client, shard: self.id, pid },
            reqid,
            destination,
            opcode: control.opcode,
            srvid: control.srvid,
            flags: control.flags,
            data: control.data.into(),
        }));
    }

    /// Answers a control that needs nobody else; `false` when it does.
    fn answer_here(&mut self, client: ClientId, reqid: Reqid, control: &ReqControl<'_>) -> bool {
        let opcode = ControlOpcode(control.opcode);
        let Ok(request) = ControlRequest::decode(opcode, control.data) else { return false };
        let mut data = std::mem::take(&mut self.data);
        let answered = match &request {
            ControlRequest::ScheduleForDeletion(record) => {
                Answer::Reply(self.schedule_deletion(record))
            }
            request => answer(&self.view, &self.registry, wall_clock(), request, &mut data),
        };
        let done = match answered {
            Answer::Forward => false,
            Answer::Reply(status) => {
                // A control to oneself goes through the node's input in C, and is counted there.
                let counters = &mut self.io.counters;
                counters.node_sent = counters.node_sent.wrapping_add(1);
                counters.node.req_control = counters.node.req_control.wrapping_add(1);
                if !control.flags.contains(ControlFlags::NOREPLY) {
                    counters.node_sent = counters.node_sent.wrapping_add(1);
                    counters.node.reply_control = counters.node.reply_control.wrapping_add(1);
                    let (clients, sender) = (&mut self.io.clients, self.io.sender);
                    let answer = reply(status, if status < 0 { b"" } else { &data });
                    if clients.reply_control(&mut self.reactor, sender, client, reqid, answer) {
                        self.io.counters.client_sent = self.io.counters.client_sent.wrapping_add(1);
                    }
                }
                true
            }
        };
        self.data = data;
        done
    }

    fn schedule_deletion(&mut self, record: &KeyData<'_>) -> i32 {
        if self.view.database(record.db).is_none() {
            return -1;
        }
        let owner = self.owner(record.db, record.key);
        match self.io.peer(owner) {
            Some(peer) => peer.send(ToShard::ScheduleDeletion {
                db: record.db,
                header: record.header,
                key: record.key.into(),
            }),
            None => {
                self.engine.schedule_for_deletion(record.db, record.key, record.header);
            }
        }
        0
    }
}

fn wall_clock() -> Timeval {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timeval {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        micros: i64::from(since.subsec_micros()),
    }
}
