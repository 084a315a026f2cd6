//! Controls: from clients and from the plane itself to whoever answers them, and the answers back.
//!
//! Invariants
//! - A request is answered exactly once, or never where C never answers (NOREPLY, a broadcast
//!   without NOREPLY).
//! - A client's connection and its end reach the plane in order with what it asks.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4 item 5; `ctdb/server/ctdb_daemon.c:
//! daemon_request_control_from_client`.

use std::time::{SystemTime, UNIX_EPOCH};

use ringmaster_control::{
    node::{
        Outcome, controls,
        world::{
            ClientId, ControlAnswer, ControlFailure, Origin, OutgoingControl, Request, RequestId,
        },
    },
    plane::Token,
};
use ringmaster_dataplane::{
    record,
    shard::{
        controls::{Answer, answer},
        message::{ClientControl, RegistryChange, ToShard},
        registry::ClientRef,
    },
    view::NodeView,
};
use ringmaster_protocol::{
    Destination, Packet, PacketStyle,
    control::{ControlOpcode, ControlRequest},
    control_packet::{ControlFlags, ReplyControl},
    header::Envelope,
    process::Timeval,
    tunable::Tunable,
};

use super::{Asker, Driver};

/// C's words for a control to a node that is not there.
pub(super) const DISCONNECTED: &str = "ctdb_control to disconnected node";

impl Driver {
    pub(super) fn connected(&mut self, client: ClientRef) {
        self.registry.add_client(client);
        self.change_registry(RegistryChange::Connected(client), |_, _| {});
        self.event(|cx| controls::client_connected(cx, ClientId(client.id.0), client.pid));
    }

    pub(super) fn gone(&mut self, id: record::ClientId) {
        self.registry.remove_client(id);
        self.change_registry(RegistryChange::Gone(id), |_, _| {});
        self.event(|cx| controls::client_gone(cx, ClientId(id.0)));
    }

    pub(super) fn client_control(&mut self, control: ClientControl) {
        let ClientControl { client, reqid, destination, opcode, srvid, flags, data } = control;
        let noreply = flags.contains(ControlFlags::NOREPLY);
        let here = match destination {
            Destination::Current => true,
            Destination::Node(pnn) => pnn == self.pnn(),
            Destination::BroadcastAll
            | Destination::BroadcastActive
            | Destination::BroadcastConnected => {
                if !noreply {
                    // C refuses it and sends no answer at all.
                    return tracing::error!(opcode, "broadcast control without NOREPLY");
                }
                destination != Destination::BroadcastActive
                    || !self.plane.cx().state().is_inactive()
            }
            _ => false,
        };
        let asker = if noreply { Asker::Nobody } else { Asker::Client { client, reqid } };
        let (opcode, data) = (ControlOpcode(opcode), data.into_vec());
        let others = self.others(destination);
        if !here && others.is_empty() {
            return self.control_failed(asker, ControlFailure::Disconnected, DISCONNECTED);
        }
        let timeout_s = self.plane.cx().state().tunable(Tunable::ControlTimeout);
        for to in others {
            let from = Some(ClientId(client.id.0));
            let data = data.clone();
            let control =
                OutgoingControl { to, opcode, srvid, flags, client: from, data, timeout_s };
            self.control_to_node(asker, control, Some(client.shard));
        }
        if here {
            let from = Origin::Client(ClientId(client.id.0));
            let (id, generation) = (RequestId(0), None);
            let request = Request { id, from, opcode, srvid, flags, generation, data };
            self.request(asker, request);
        }
    }

    /// A control of the plane to its own node.
    pub(super) fn request_own(&mut self, token: Option<Token>, control: OutgoingControl) {
        let asker = token.map_or(Asker::Nobody, Asker::Own);
        let from = match control.client {
            Some(client) => Origin::Client(client),
            None => Origin::Own,
        };
        let OutgoingControl { opcode, srvid, flags, data, .. } = control;
        let (id, generation) = (RequestId(0), None);
        self.request(asker, Request { id, from, opcode, srvid, flags, generation, data });
    }

    pub(super) fn request(&mut self, asker: Asker, mut request: Request) {
        if let Some(status) = self.process_exists(&request) {
            let answer = ControlAnswer { status, ..ControlAnswer::default() };
            return self.answer(asker, answer);
        }
        if let Ok(decoded) = ControlRequest::decode(request.opcode, &request.data) {
            let mut data = Vec::new();
            let known = answer(&self.published, &self.registry, wall_clock(), &decoded, &mut data);
            if let Answer::Reply(status) = known {
                let error = String::new();
                return self.answer(asker, ControlAnswer { status, data, error });
            }
        }
        self.next_request += 1;
        request.id = RequestId(self.next_request);
        self.requests.insert(request.id, asker);
        if request.flags.contains(ControlFlags::NOREPLY) {
            // The plane may answer all the same; nobody waits.
            self.requests.insert(request.id, Asker::Nobody);
        }
        self.event(|cx| controls::request(cx, request));
    }

    /// `PROCESS_EXISTS` needs the kernel's word; on an inactive node C closes the client's
    /// connection and says no.
    fn process_exists(&mut self, request: &Request) -> Option<i32> {
        let decoded = ControlRequest::decode(request.opcode, &request.data).ok()?;
        let ControlRequest::ProcessExists(pid) = decoded else { return None };
        let Some(client) = self.registry.client_of_pid(pid.0) else { return Some(-1) };
        if self.plane.cx().state().is_inactive() {
            self.shards.send(client.shard, ToShard::CloseClient(client.id));
            return Some(-1);
        }
        let process = rustix::process::Pid::from_raw(pid.0)?;
        Some(rustix::process::test_kill_process(process).map_or(-1, |()| 0))
    }

    pub(super) fn reply(&mut self, request: RequestId, answer: ControlAnswer) {
        match self.requests.remove(&request) {
            Some(asker) => self.answer(asker, answer),
            None => tracing::error!(request = request.0, "answer to a request that is not open"),
        }
    }

    pub(super) fn answer(&mut self, asker: Asker, answer: ControlAnswer) {
        match asker {
            Asker::Node(node, reqid) => {
                let ControlAnswer { status, data, error } = answer;
                let reply = ReplyControl { status, data: &data, error: error.as_bytes() };
                self.packet_to_node(node, reqid, &Packet::ReplyControl(reply), None, None);
            }
            Asker::Shard(shard, token) => {
                let status = answer.status;
                self.shards.send(shard, ToShard::ControlDone { token, status });
            }
            Asker::Nobody => {}
            Asker::Own(token) => self.outcome(token, Outcome::Reply(Ok(answer))),
            Asker::Client { client, reqid } => {
                let ControlAnswer { status, data, error } = answer;
                let generation = self.plane.cx().state().vnn_map.generation;
                let envelope = Envelope {
                    generation,
                    destination: Destination::from_raw(0),
                    source: Destination::Node(self.pnn()),
                    reqid,
                };
                let mut bytes = Vec::new();
                let reply = ReplyControl { status, data: &data, error: error.as_bytes() };
                Packet::ReplyControl(reply).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
                let client_id = client.id;
                let packet = ToShard::Packet { client: client_id, bytes: bytes.into() };
                self.shards.send(client.shard, packet);
            }
        }
    }

    /// The state as the shards are shown it.
    pub(super) fn view(&self) -> NodeView {
        let cx = self.plane.cx();
        let state = cx.state();
        crate::view::view_of(&state)
    }
}

fn wall_clock() -> Timeval {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timeval {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        micros: i64::from(since.subsec_micros()),
    }
}
