//! Who wants which messages: srvids and tunnels of local clients.
//!
//! Role: every shard has a full copy, changed in one order (control sends each change to all
//! shards and answers when all have acknowledged it), so that a message finds its receivers
//! without a hop.
//! Invariants
//! - A client may register a srvid more than once and gets a message once per registration, as in
//!   C.
//! - A tunnel id has one registrant on this node.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4 items 7, 9, 10; `ctdb/common/srvid.c`,
//! `ctdb/server/ctdb_tunnel.c`.

use std::collections::BTreeMap;

use ringmaster_protocol::Srvid;

use super::ShardId;
use crate::record::ClientId;

/// Registered for it: every message.
pub const SRVID_ALL: Srvid = Srvid(u64::MAX);

/// A client and the shard that owns its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientRef {
    /// Unique for the life of the daemon.
    pub id: ClientId,
    /// Owner of the connection.
    pub shard: ShardId,
    /// Process at the other end, as the kernel says.
    pub pid: i32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    srvids: BTreeMap<Srvid, Vec<ClientRef>>,
    tunnels: BTreeMap<u64, ClientRef>,
    clients: BTreeMap<ClientId, ClientRef>,
}

impl Registry {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client has connected.
    pub fn add_client(&mut self, client: ClientRef) {
        self.clients.insert(client.id, client);
    }

    /// A client has gone, with everything it had registered.
    pub fn remove_client(&mut self, id: ClientId) {
        self.clients.remove(&id);
        self.srvids.retain(|_, receivers| {
            receivers.retain(|receiver| receiver.id != id);
            !receivers.is_empty()
        });
        self.tunnels.retain(|_, registrant| registrant.id != id);
    }

    /// The client of that id.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<ClientRef> {
        self.clients.get(&id).copied()
    }

    /// Clients connected to this node.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Some client of that process.
    #[must_use]
    pub fn client_of_pid(&self, pid: i32) -> Option<ClientRef> {
        self.clients.values().find(|client| client.pid == pid).copied()
    }

    /// Whether some client of this pid wants this srvid (`CHECK_PID_SRVID`).
    #[must_use]
    pub fn pid_wants(&self, pid: i32, srvid: Srvid) -> bool {
        self.srvids
            .get(&srvid)
            .is_some_and(|receivers| receivers.iter().any(|receiver| receiver.pid == pid))
    }

    /// `REGISTER_SRVID`; `false` for an unknown client.
    pub fn register(&mut self, srvid: Srvid, id: ClientId) -> bool {
        let Some(client) = self.client(id) else { return false };
        self.srvids.entry(srvid).or_default().push(client);
        true
    }

    /// `DEREGISTER_SRVID`: takes one registration back; `false` when there is none.
    pub fn deregister(&mut self, srvid: Srvid, id: ClientId) -> bool {
        let Some(receivers) = self.srvids.get_mut(&srvid) else { return false };
        let Some(at) = receivers.iter().position(|receiver| receiver.id == id) else {
            return false;
        };
        receivers.remove(at);
        if receivers.is_empty() {
            self.srvids.remove(&srvid);
        }
        true
    }

    /// Receivers of a message, in the order of their registrations; then those of every message.
    pub fn receivers(&self, srvid: Srvid) -> impl Iterator<Item = ClientRef> + '_ {
        let named = self.srvids.get(&srvid).into_iter().flatten();
        let every = (srvid != SRVID_ALL).then(|| self.srvids.get(&SRVID_ALL)).flatten();
        named.chain(every.into_iter().flatten()).copied()
    }

    /// `TUNNEL_REGISTER`; `false` when the id is taken or the client unknown.
    pub fn register_tunnel(&mut self, tunnel: u64, id: ClientId) -> bool {
        let Some(client) = self.client(id) else { return false };
        match self.tunnels.entry(tunnel) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(client);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// `TUNNEL_DEREGISTER`; `false` when the client does not hold the id.
    pub fn deregister_tunnel(&mut self, tunnel: u64, id: ClientId) -> bool {
        let held = self.tunnels.get(&tunnel).is_some_and(|registrant| registrant.id == id);
        if held {
            self.tunnels.remove(&tunnel);
        }
        held
    }

    /// Who receives a tunnel's packets on this node.
    #[must_use]
    pub fn tunnel(&self, tunnel: u64) -> Option<ClientRef> {
        self.tunnels.get(&tunnel).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::new();
        for id in 1..=3 {
            let shard = ShardId(u16::try_from(id % 2).unwrap());
            let client = ClientRef { id: ClientId(id), shard, pid: 100 + id.cast_signed() };
            registry.add_client(client);
        }
        registry
    }

    fn ids(registry: &Registry, srvid: u64) -> Vec<u32> {
        registry.receivers(Srvid(srvid)).map(|client| client.id.0).collect()
    }

    #[test]
    fn a_message_reaches_each_registration_and_who_wants_all() {
        let mut registry = registry();
        assert!(registry.register(SRVID_ALL, ClientId(3)));
        assert!(registry.register(Srvid(9), ClientId(2)));
        assert!(registry.register(Srvid(9), ClientId(1)));
        assert!(registry.register(Srvid(9), ClientId(2)));
        assert_eq!(ids(&registry, 9), [2, 1, 2, 3]);
        assert_eq!(ids(&registry, 8), [3]);
        assert_eq!(ids(&registry, u64::MAX), [3], "not twice");
    }

    #[test]
    fn one_deregistration_takes_one_registration_back() {
        let mut registry = registry();
        for _ in 0..2 {
            assert!(registry.register(Srvid(9), ClientId(2)));
        }
        assert!(registry.deregister(Srvid(9), ClientId(2)));
        assert_eq!(ids(&registry, 9), [2]);
        assert!(registry.deregister(Srvid(9), ClientId(2)));
        assert!(!registry.deregister(Srvid(9), ClientId(2)));
    }

    #[test]
    fn nothing_of_a_client_that_has_gone_is_left() {
        let mut registry = registry();
        registry.register(Srvid(9), ClientId(2));
        registry.register_tunnel(5, ClientId(2));
        registry.remove_client(ClientId(2));
        assert_eq!(ids(&registry, 9), []);
        assert_eq!(registry.tunnel(5), None);
        assert!(!registry.register(Srvid(9), ClientId(2)));
        assert!(registry.client_of_pid(102).is_none());
        assert_eq!(registry.client_count(), 2);
    }

    #[test]
    fn a_tunnel_has_one_registrant() {
        let mut registry = registry();
        assert!(registry.register_tunnel(5, ClientId(1)));
        assert!(!registry.register_tunnel(5, ClientId(2)));
        assert!(!registry.deregister_tunnel(5, ClientId(2)));
        assert!(registry.deregister_tunnel(5, ClientId(1)));
        assert!(registry.register_tunnel(5, ClientId(2)));
    }

    #[test]
    fn a_pid_is_asked_for_by_what_it_wants() {
        let mut registry = registry();
        registry.register(Srvid(9), ClientId(2));
        assert!(registry.pid_wants(102, Srvid(9)));
        assert!(!registry.pid_wants(101, Srvid(9)));
        assert_eq!(registry.client_of_pid(101).map(|client| client.id.0), Some(1));
        assert_eq!(registry.client_of_pid(99), None);
    }
}
