//! The TCP connections to one public address, which its next host resets.
//!
//! Role: a list in C's order, with quick look-up.
//! Invariant: no connection twice; at most [`Tickles::MAX`].
//! Origin: `docs/spec/cluster-semantics.md` 9.6; `ctdb/server/ctdb_takeover.c`.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    SockAddr,
    connection::{Connection, TickleList},
};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tickles {
    connections: Vec<Connection>,
    /// Place of each in `connections`.
    places: BTreeMap<Connection, usize>,
    /// Other nodes have not been sent this list as it is.
    pub update_needed: bool,
    /// They are to be sent it at once.
    pub crowd: bool,
}

impl Tickles {
    /// Connections of one address that are remembered. Those beyond it are not: their clients find
    /// out by their own time-outs that the address has moved.
    pub const MAX: usize = 100_000;

    /// All connections, in the order of the list.
    #[must_use]
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// Adds a connection; `false` if it is there already or there is no room.
    pub fn add(&mut self, connection: Connection) -> bool {
        if self.connections.len() >= Self::MAX || self.places.contains_key(&connection) {
            return false;
        }
        self.places.insert(connection, self.connections.len());
        self.connections.push(connection);
        true
    }

    /// Removes a connection; the last one takes its place, as in C. `false` if it is not there.
    pub fn remove(&mut self, connection: &Connection) -> bool {
        let Some(place) = self.places.remove(connection) else { return false };
        self.connections.swap_remove(place);
        if let Some(moved) = self.connections.get(place) {
            self.places.insert(*moved, place);
        }
        true
    }

    /// Another node's list instead of this one.
    pub fn replace(&mut self, connections: Vec<Connection>) {
        self.connections.clear();
        self.places.clear();
        for connection in connections {
            self.add(connection);
        }
    }

    /// Empties the list; the connections are somebody else's business now.
    pub fn take(&mut self) -> Vec<Connection> {
        self.places.clear();
        std::mem::take(&mut self.connections)
    }

    /// The list as it is sent; of one port only, unless that is 0.
    #[must_use]
    pub fn list(&self, addr: SockAddr, port: u16) -> TickleList {
        let wanted = |connection: &&Connection| port == 0 || connection.dst.port() == port;
        let connections = self.connections.iter().filter(wanted).copied().collect();
        TickleList { addr, connections }
    }
}

/// IPv4 in IPv6 clothes becomes IPv4 at both ends.
#[must_use]
pub fn canonical(connection: &Connection) -> Connection {
    Connection { src: connection.src.canonical(), dst: connection.dst.canonical() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(port: u16) -> Connection {
        let src = SockAddr::new([9, 9, 9, 9].into(), port);
        Connection { src, dst: SockAddr::new([10, 0, 0, 2].into(), 445) }
    }

    fn ports(tickles: &Tickles) -> Vec<u16> {
        tickles.connections().iter().map(|connection| connection.src.port()).collect()
    }

    // As `ctdb gettickles` of 4.17 prints it after the same `addtickle` and `deltickle`.
    #[test]
    fn the_order_is_that_of_c() {
        let mut tickles = Tickles::default();
        for port in 1..=5 {
            assert!(tickles.add(connection(port)));
        }
        assert!(tickles.remove(&connection(2)));
        assert_eq!(ports(&tickles), [1, 5, 3, 4]);
        assert!(tickles.add(connection(2)) && !tickles.add(connection(2)));
        assert_eq!(ports(&tickles), [1, 5, 3, 4, 2]);
        assert!(tickles.remove(&connection(5)) && tickles.remove(&connection(2)));
        assert!(!tickles.remove(&connection(5)));
        assert_eq!(ports(&tickles), [1, 4, 3]);
    }

    #[test]
    fn a_list_of_another_node_has_each_connection_once_and_no_more_than_there_is_room_for() {
        let mut tickles = Tickles::default();
        tickles.replace(vec![connection(1), connection(2), connection(1)]);
        assert_eq!(ports(&tickles), [1, 2]);
        let many = (0..=u32::try_from(Tickles::MAX).unwrap()).map(|number| {
            let src = SockAddr::new(number.to_be_bytes().into(), 1);
            Connection { src, dst: SockAddr::new([10, 0, 0, 2].into(), 445) }
        });
        tickles.replace(many.collect());
        assert_eq!(tickles.connections().len(), Tickles::MAX);
        assert_eq!(tickles.take().len(), Tickles::MAX);
        assert!(tickles.connections().is_empty() && tickles.add(connection(1)));
    }

    #[test]
    fn a_port_asks_for_its_connections_only() {
        let mut tickles = Tickles::default();
        let addr = SockAddr::new([10, 0, 0, 2].into(), 0);
        tickles.add(connection(1));
        tickles.add(Connection { dst: addr.with_port(22), ..connection(2) });
        assert_eq!(tickles.list(addr, 0).connections.len(), 2);
        assert_eq!(tickles.list(addr, 445).connections, [connection(1)]);
        assert!(tickles.list(addr, 1).connections.is_empty());
    }
}
