//! What control and other shards send to a shard.
//!
//! Invariant: an order is acknowledged in the turn that carries it out, after its effect.

use std::sync::Arc;

use ringmaster_protocol::{
    DbId, Decode, Packet, node::NodeFlags, process::RecMode, record::RecBuffer, tunable::Tunable,
};
use ringmaster_transport::reactor::{Reactor, ReactorError};

use super::{
    clients::Sender,
    message::{AckToken, FromShard, Order, RegistryChange, ToShard},
    runtime::Shard,
    statistics::{PacketCounters, ShardStatistics},
};
use crate::{
    record::{DbStatistics, RecordTunables},
    view::NodeView,
};

impl Shard {
    pub(super) fn message(&mut self, message: ToShard) -> Result<(), ReactorError> {
        match message {
            ToShard::Adopt(stream) => self.adopt(stream)?,
            ToShard::Order(token, order) => self.order(token, order),
            ToShard::Packet { client, bytes } => {
                self.io.send_client(&mut self.reactor, client, |out| out.extend_from_slice(&bytes));
            }
            ToShard::Call { client, bytes } => {
                if let Ok((header, Packet::ReqCall(call))) = Packet::decode(&bytes) {
                    let reqid = header.envelope.reqid;
                    self.with_engine(|engine, cx| engine.client_call(cx, client, reqid, &call));
                }
            }
            ToShard::NodePacket(bytes) => {
                if let Ok((header, packet)) = Packet::decode(&bytes) {
                    self.record_packet(&header, &packet, &bytes);
                }
            }
            ToShard::UpdateMark(token) => self.update_marked(token),
            ToShard::ControlDone { token, status } => self.engine.control_done(token, status),
            // Control has taken its own copy: its messages must not fall behind its controls.
            ToShard::Deliver { srvid, data } => {
                self.deliver_to_clients(srvid, &data);
            }
            ToShard::CloseClient(client) => self.close_client(client),
            ToShard::ScheduleDeletion { db, header, key } => {
                self.engine.schedule_for_deletion(db, &key, header);
            }
            ToShard::Listen(listener) => {
                self.listener = Some(self.reactor.add_listener(listener)?);
            }
            ToShard::ListenNodes(listener) => {
                self.node_listener = Some(self.reactor.add_listener(listener)?);
            }
            ToShard::StartLanes(setup) => self.start_lanes(setup),
            ToShard::Relay(relay) => {
                if let Some(bytes) = relay.pass() {
                    self.io.control.send_reply(FromShard::NodeControl(bytes.into()));
                }
            }
            ToShard::StartKeepalive => self.start_keepalive(),
            ToShard::NodeConnection(pnn, stream) => self.accept_node(pnn, stream),
            ToShard::ToNode { to, bytes, credit } => self.forward_node(to, bytes, credit),
            ToShard::Stop => self.stopping = true,
        }
        Ok(())
    }

    fn order(&mut self, token: AckToken, order: Order) {
        let done = match order {
            Order::View(view) => {
                self.set_view(view);
                true
            }
            Order::Attach { db, flags, database, max_dead, frozen } => {
                self.engine.attach(db, flags);
                match self.store.attach(db, &database, max_dead, frozen) {
                    Ok(()) => {
                        self.take_early(db);
                        true
                    }
                    Err(error) => {
                        tracing::error!(%db, %error, "cannot open the database in a shard");
                        false
                    }
                }
            }
            Order::Detach(db) => {
                self.engine.detach(db);
                self.store.detach(db);
                self.forget_updates(db);
                true
            }
            Order::AddFlags(db, flags) => {
                self.engine.add_flags(db, flags);
                true
            }
            Order::EnableSeqnum(db) => match self.store.handle(db) {
                Some(handle) => {
                    handle.enable_seqnum();
                    true
                }
                None => false,
            },
            Order::Freeze(db) => {
                let tickets = self.store.freeze(db);
                self.engine.frozen(db, &tickets);
                true
            }
            Order::Thaw(db, generation) => {
                if let Some(generation) = generation {
                    self.engine.set_generation(db, generation);
                }
                self.store.thaw(db);
                self.engine.thawed(db);
                true
            }
            Order::Recovered(db) => {
                self.store.recovered(db);
                true
            }
            Order::SetGeneration(db, generation) => {
                self.engine.set_generation(db, generation);
                true
            }
            Order::Replaced(db) => {
                self.engine.replaced(db);
                true
            }
            Order::TakeDeletions(db) => {
                let records = self.engine.take_delete_queue(db);
                if !records.is_empty() {
                    self.io.control.send_reply(FromShard::Deletions { db, records });
                }
                true
            }
            Order::VacuumFetch(db, buffer) => self.vacuum_fetch(db, &buffer),
            Order::CommitActive(db, active) => {
                self.engine.set_commit_active(db, active);
                true
            }
            // It may have to wait for a chain.
            Order::UpdateCopies(update) => return self.update_copies(token, update),
            Order::Registry(change) => self.change_registry(change),
            Order::Statistics => {
                let statistics = Box::new(self.statistics());
                self.io.control.send_reply(FromShard::Statistics { token, statistics });
                true
            }
            Order::ResetStatistics => {
                self.io.counters = PacketCounters::default();
                self.engine.reset_counters();
                self.store.reset_counters();
                true
            }
            Order::Barrier => true,
        };
        self.acknowledge(token, done);
    }

    /// Each shard takes what is its own.
    fn vacuum_fetch(&mut self, db: DbId, buffer: &[u8]) -> bool {
        let Ok(buffer) = RecBuffer::from_bytes(buffer) else { return false };
        let mut known = self.store.knows(db);
        for record in &buffer {
            if self.owner(db, record.key) == self.id {
                known &= self.engine.vacuum_fetch(db, record.key);
            }
        }
        known
    }

    fn change_registry(&mut self, change: RegistryChange) -> bool {
        match change {
            RegistryChange::Connected(client) => {
                // Its own shard knows it already, and may have seen it go.
                if client.shard != self.id {
                    self.registry.add_client(client);
                }
                true
            }
            RegistryChange::Gone(client) => {
                self.registry.remove_client(client);
                self.engine.client_gone(client);
                true
            }
            RegistryChange::Register(srvid, client) => self.registry.register(srvid, client),
            RegistryChange::Deregister(srvid, client) => self.registry.deregister(srvid, client),
            RegistryChange::RegisterTunnel(tunnel, client) => {
                self.registry.register_tunnel(tunnel, client)
            }
            RegistryChange::DeregisterTunnel(tunnel, client) => {
                self.registry.deregister_tunnel(tunnel, client)
            }
        }
    }

    pub(super) fn set_view(&mut self, view: Arc<NodeView>) {
        self.io.sender = Sender { pnn: view.pnn, generation: view.vnn_map.generation };
        self.engine.set_vnn_map(view.vnn_map.clone());
        let flags = view.flags_of(view.pnn);
        self.engine.set_banned(flags.is_some_and(|flags| flags.intersects(NodeFlags::BANNED)));
        let tunable = |tunable| view.tunables.value(tunable);
        self.engine.set_tunables(RecordTunables {
            fetch_collapse: tunable(Tunable::FetchCollapse) == 1,
            hopcount_make_sticky: tunable(Tunable::HopcountMakeSticky),
            sticky_duration_s: tunable(Tunable::StickyDuration),
            sticky_pindown_ms: tunable(Tunable::StickyPindown),
            control_timeout_s: tunable(Tunable::ControlTimeout),
            leases: true,
        });
        if view.recovery_mode != self.view.recovery_mode {
            let active = view.recovery_mode == RecMode::Active;
            tracing::debug!(shard = self.id.0, active, "recovery mode");
        }
        self.view = view;
        self.reconcile_lanes();
    }

    fn statistics(&self) -> ShardStatistics {
        let databases = self.store.lock_counters().map(|(db, locks)| {
            let records: DbStatistics = self.engine.db_statistics(db).cloned().unwrap_or_default();
            (db, locks.clone(), records)
        });
        ShardStatistics {
            packets: self.io.counters,
            records: *self.engine.counters(),
            databases: databases.collect(),
            clients: u32::try_from(self.io.clients.by_id.len()).unwrap_or(u32::MAX),
        }
    }
}
