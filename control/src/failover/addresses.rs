//! The public addresses that one node may host, and the interfaces for them.
//!
//! Role: the table itself and its bookkeeping. What happens when: `node::controls::addresses`.
//! Invariants
//! - An interface is in the table as long as an address names it.
//! - An address that is being deleted is offered to nobody.
//! - New entries stand in front, as C's: lists are sent in that order.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.1; `ctdb/server/ctdb_takeover.c`.

use std::{collections::BTreeSet, net::IpAddr};

use ringmaster_protocol::{
    Pnn, SockAddr,
    connection::{
        Connection, Interface as WireInterface, InterfaceName, LinkState, PublicIp, PublicIpInfo,
    },
};

use super::tickles::Tickles;
use crate::config::public_addresses::PublicAddress;

/// What scripts are told instead of an interface that is not known.
pub const NO_INTERFACE: &str = "__none__";

/// An interface that addresses may be put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Usable, as scripts say (SET_IFACE_LINK_STATE); at first it is taken to be.
    pub up: bool,
}

/// One public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address; IPv4 in IPv6 clothes is IPv4.
    pub address: IpAddr,
    /// Prefix length, unchecked.
    pub mask_bits: u32,
    /// Interfaces in order of preference.
    pub interfaces: Vec<String>,
    /// Where it is, or is being put.
    pub current: Option<String>,
    /// Who hosts it, as this node believes.
    pub host: Option<Pnn>,
    /// Connections to it.
    pub tickles: Tickles,
    /// Those of them that the kernel showed when it was asked last, while the address was here.
    pub observed: BTreeSet<Connection>,
    /// A script moves it.
    pub update_in_flight: bool,
    /// That script takes it away.
    pub release_in_flight: bool,
    /// Goes away with its next release.
    pub delete_pending: bool,
    /// Somebody is finding out whether the host has it, and will decide then.
    pub looking: bool,
    /// Which announcement is under way; another number ends it.
    pub announcement: u64,
}

impl Address {
    fn new(configured: &PublicAddress) -> Self {
        Self {
            address: configured.address,
            mask_bits: configured.mask_bits,
            interfaces: configured.interfaces.clone(),
            current: None,
            host: None,
            tickles: Tickles::default(),
            observed: BTreeSet::new(),
            update_in_flight: false,
            release_in_flight: false,
            delete_pending: false,
            looking: false,
            announcement: 0,
        }
    }

    /// As it goes over the wire.
    #[must_use]
    pub const fn sock_addr(&self) -> SockAddr {
        SockAddr::new(self.address, 0)
    }

    /// The interface's name for scripts.
    #[must_use]
    pub fn interface_word(&self) -> &str {
        self.current.as_deref().unwrap_or(NO_INTERFACE)
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    list: Vec<Address>,
    interfaces: Vec<Interface>,
}

/// The address is in the table already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known;

impl Addresses {
    /// The table of a file, in the file's order.
    #[must_use]
    pub fn of_file(addresses: &[PublicAddress]) -> Self {
        let mut table = Self::default();
        for address in addresses {
            // The file has been checked for duplicates.
            let _ = table.add(address);
        }
        table
    }

    /// Whether there are no addresses at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All addresses, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.list.iter()
    }

    /// The same, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Address> {
        self.list.iter_mut()
    }

    /// All interfaces, the latest first.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// One address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&Address> {
        self.list.iter().find(|entry| entry.address == address)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, address: IpAddr) -> Option<&mut Address> {
        self.list.iter_mut().find(|entry| entry.address == address)
    }

    /// Adds an address and the interfaces that are new.
    ///
    /// # Errors
    /// [`Known`].
    pub fn add(&mut self, address: &PublicAddress) -> Result<(), Known> {
        if self.get(address.address).is_some() {
            return Err(Known);
        }
        for name in &address.interfaces {
            if !self.interfaces.iter().any(|known| known.name == *name) {
                self.interfaces.insert(0, Interface { name: name.clone(), up: true });
            }
        }
        self.list.insert(0, Address::new(address));
        Ok(())
    }

    /// Removes an address and the interfaces that no other one names.
    pub fn remove(&mut self, address: IpAddr) {
        self.list.retain(|entry| entry.address != address);
        let list = &self.list;
        self.interfaces.retain(|interface| {
            list.iter().any(|entry| entry.interfaces.contains(&interface.name))
        });
    }

    /// Sets an interface's link; `None` for one that is not in the table.
    pub fn set_link(&mut self, name: &str, up: bool) -> Option<()> {
        let interface = self.interfaces.iter_mut().find(|interface| interface.name == name)?;
        interface.up = up;
        Some(())
    }

    fn is_up(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface.name == name && interface.up)
    }

    /// Addresses that are on an interface now.
    #[must_use]
    pub fn references(&self, interface: &str) -> usize {
        self.list.iter().filter(|entry| entry.current.as_deref() == Some(interface)).count()
    }

    /// Whether an address could be hosted as far as addresses and interfaces go.
    #[must_use]
    pub fn is_hostable(&self, address: &Address) -> bool {
        let mut usable = address.current.iter().chain(&address.interfaces);
        !address.delete_pending && usable.any(|name| self.is_up(name))
    }

    /// The interface for an address: up, with the fewest addresses, the first named on ties.
    #[must_use]
    pub fn best_interface<'a>(&self, address: &'a Address) -> Option<&'a str> {
        let usable = address.interfaces.iter().filter(|name| self.is_up(name));
        usable.min_by_key(|name| self.references(name)).map(String::as_str)
    }

    /// Whether an address had better be on the interface `best` than where it is: that one is down,
    /// or crowded.
    #[must_use]
    pub fn is_misplaced(&self, address: &Address, best: &str) -> bool {
        address.current.as_deref().is_some_and(|current| {
            current != best
                && (!self.is_up(current) || self.references(current) > self.references(best) + 1)
        })
    }

    /// Puts an address on its best interface, in this table, unless it has one: from now on `own`
    /// hosts it.
    pub fn assign(&mut self, address: IpAddr, own: Pnn) {
        let best = self.get(address).and_then(|entry| self.best_interface(entry));
        let best = best.map(str::to_owned);
        let Some(entry) = self.get_mut(address) else { return };
        if entry.current.is_none() && best.is_some() {
            entry.current = best;
            entry.host = Some(own);
        }
    }

    /// Takes an address off its interface, in this table; `own` does not host it any more.
    pub fn unassign(&mut self, address: IpAddr, own: Pnn) {
        if let Some(entry) = self.get_mut(address) {
            entry.current = None;
            entry.observed.clear();
            entry.host.take_if(|host| *host == own);
        }
    }

    /// Addresses and hosts, as GET_PUBLIC_IPS sends them.
    pub fn public_ips(&self) -> impl Iterator<Item = PublicIp> {
        self.list.iter().map(|entry| PublicIp { pnn: entry.host, addr: entry.sock_addr() })
    }

    /// All interfaces, as GET_IFACES sends them.
    pub fn wire_interfaces(&self) -> impl Iterator<Item = WireInterface> {
        self.interfaces.iter().filter_map(|interface| self.wire(interface))
    }

    /// One address with its interfaces, as GET_PUBLIC_IP_INFO sends it.
    #[must_use]
    pub fn info(&self, address: &Address) -> PublicIpInfo {
        let find = |name: &String| self.interfaces.iter().find(|known| known.name == *name);
        let listed = || address.interfaces.iter().filter_map(find);
        let active = listed().position(|known| Some(&known.name) == address.current.as_ref());
        PublicIpInfo {
            ip: PublicIp { pnn: address.host, addr: address.sock_addr() },
            active_index: active
                .and_then(|index| u32::try_from(index).ok())
                .unwrap_or(PublicIpInfo::INACTIVE),
            interfaces: listed().filter_map(|known| self.wire(known)).collect(),
        }
    }

    /// `None` for a name that no kernel has: such an address is not taken in.
    fn wire(&self, interface: &Interface) -> Option<WireInterface> {
        Some(WireInterface {
            name: InterfaceName::new(&interface.name)?,
            link_state: if interface.up { LinkState::Up } else { LinkState::Down },
            references: u32::try_from(self.references(&interface.name)).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests;
