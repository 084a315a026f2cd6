//! Placement: which node hosts which public address.
//!
//! Role: from what every node knows, could host and says that it hosts, and from the tunables, to
//! one host per address. Pure: the same question has the same answer on every leader, C's included,
//! so that a change of leadership moves nothing. The algorithms: one file each.
//! Invariants
//! - An address is only placed on a node that has offered it.
//! - The table is ordered by address, descending, as C's is: ties are decided by that order and by
//!   node numbers.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.9; `ctdb/server/ipalloc.c`, `ipalloc_common.c`. Data of
//! a C cluster: `tests/`.

mod deterministic;
mod lcp2;
mod nondeterministic;

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{Pnn, SockAddr, connection::PublicIp};
use tracing::warn;

use crate::config::home_nodes::HomeNode;

/// Tunable `IPAllocAlgorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 0: by position in the list; ignores where an address is.
    Deterministic,
    /// 1: by number of addresses per node.
    NonDeterministic,
    /// 2, and any other value: by likeness, so that the addresses of one network spread.
    Lcp2,
}

impl Algorithm {
    /// From the tunable's value.
    #[must_use]
    pub const fn from_tunable(value: u32) -> Self {
        match value {
            0 => Self::Deterministic,
            1 => Self::NonDeterministic,
            _ => Self::Lcp2,
        }
    }
}

/// What one node has answered to GET_PUBLIC_IPS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// All its addresses, with the host as it believes; only what it says about itself counts.
    pub known: Vec<PublicIp>,
    /// Those that it could host now; empty for a node that is not active.
    pub available: Vec<PublicIp>,
}

/// Everything that decides.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// One entry per node of the nodes list, in the order of their numbers.
    pub offers: &'a [Offer],
    /// Which way to decide.
    pub algorithm: Algorithm,
    /// Tunable `NoIPTakeover`: no address goes to a node that does not have it.
    pub no_takeover: bool,
    /// Tunable `NoIPFailback`: no address leaves a node that can host it.
    pub no_failback: bool,
    /// Nodes that should get addresses even if they have some (LCP2 only).
    pub rebalance: &'a BTreeSet<Pnn>,
    /// Where an address belongs (deterministic only).
    pub homes: &'a [HomeNode],
}

/// One address of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The address.
    pub address: SockAddr,
    /// Its host from now on; `None`: nobody can.
    pub host: Option<Pnn>,
    /// Nodes that have it in their lists.
    pub known_on: Vec<Pnn>,
}

/// Whether anybody hosts or could host anything. If not, a run places nothing: the cluster is still
/// starting.
#[must_use]
pub fn can_host(offers: &[Offer]) -> bool {
    let hosts = |(node, offer): (usize, &Offer)| {
        let own = pnn(node);
        !offer.available.is_empty() || offer.known.iter().any(|ip| own.is_some() && ip.pnn == own)
    };
    offers.iter().enumerate().any(hosts)
}

/// Places every address that anybody knows. In C's order: by address, descending.
#[must_use]
pub fn allocate(question: &Question<'_>) -> Vec<Placement> {
    let mut table = Table::merge(question);
    match question.algorithm {
        Algorithm::Deterministic => deterministic::place(&mut table, question),
        Algorithm::NonDeterministic => nondeterministic::place(&mut table, question),
        Algorithm::Lcp2 => lcp2::place(&mut table, question),
    }
    let placement = |entry: Entry| Placement {
        address: entry.address,
        host: entry.host.and_then(pnn),
        known_on: entry.known_on.iter().copied().filter_map(pnn).collect(),
    };
    table.entries.into_iter().map(placement).collect()
}

/// Four words, the most significant first: what addresses are ordered and compared by.
type Key = [u32; 4];

/// `None` for what is neither IPv4 nor IPv6.
fn key(address: &SockAddr) -> Option<Key> {
    match address {
        SockAddr::V4(v4) => Some([0, 0, 0, v4.ip().to_bits()]),
        SockAddr::V6(v6) => {
            let word =
                |chunk: &[u8]| chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
            let octets = v6.ip().octets();
            let mut words = octets.chunks(4).map(word);
            Some(std::array::from_fn(|_| words.next().unwrap_or_default()))
        }
        SockAddr::Other(_) => None,
    }
}

fn pnn(node: usize) -> Option<Pnn> {
    u32::try_from(node).ok().and_then(Pnn::new)
}

/// An address while it is being placed; nodes by their position in the nodes list.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    address: SockAddr,
    host: Option<usize>,
    /// Ascending, like `available_on`.
    known_on: Vec<usize>,
    available_on: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Table {
    nodes: usize,
    /// By key, descending.
    entries: Vec<Entry>,
    no_takeover: bool,
}

impl Table {
    /// One entry per address. Of two nodes that say that they host it the higher number counts.
    fn merge(question: &Question<'_>) -> Self {
        let mut merged: BTreeMap<Key, Entry> = BTreeMap::new();
        for (node, offer) in question.offers.iter().enumerate() {
            for ip in &offer.known {
                let Some(key) = key(&ip.addr) else { continue };
                let entry = merged.entry(key).or_insert_with(|| Entry {
                    key,
                    address: ip.addr,
                    host: None,
                    known_on: Vec::new(),
                    available_on: Vec::new(),
                });
                entry.address = ip.addr;
                if ip.pnn.is_some() && ip.pnn == pnn(node) {
                    entry.host = Some(node);
                }
                if entry.known_on.last() != Some(&node) {
                    entry.known_on.push(node);
                }
            }
        }
        for (node, offer) in question.offers.iter().enumerate() {
            for ip in &offer.available {
                let entry = key(&ip.addr).and_then(|key| merged.get_mut(&key));
                if let Some(entry) = entry.filter(|entry| entry.available_on.last() != Some(&node))
                {
                    entry.available_on.push(node);
                }
            }
        }
        Self {
            nodes: question.offers.len(),
            entries: merged.into_values().rev().collect(),
            no_takeover: question.no_takeover,
        }
    }

    /// Takes addresses away from hosts that cannot host them.
    fn unassign_unsuitable(&mut self) {
        for entry in &mut self.entries {
            entry.host = entry.host.filter(|host| entry.available_on.binary_search(host).is_ok());
        }
    }

    /// Nodes to which an entry may be given, ascending.
    fn takers(&self, entry: usize) -> &[usize] {
        if self.no_takeover { &[] } else { &self.entries[entry].available_on }
    }

    /// How many addresses each node hosts.
    fn loads(&self) -> Vec<usize> {
        let mut loads = vec![0; self.nodes];
        for host in self.entries.iter().filter_map(|entry| entry.host) {
            loads[host] += 1;
        }
        loads
    }

    /// Gives an entry to the node with the fewest addresses, the lowest number on ties; it stays as
    /// it was if nobody can take it.
    fn give_to_least_loaded(&mut self, entry: usize, loads: &mut [usize]) {
        let taker = self.takers(entry).iter().copied().min_by_key(|node| loads[*node]);
        let Some(taker) = taker else {
            warn!("no node can take over {}", self.entries[entry].address);
            return;
        };
        if let Some(old) = self.entries[entry].host.replace(taker) {
            loads[old] -= 1;
        }
        loads[taker] += 1;
    }

    /// The same for all that have no host.
    fn give_unassigned_to_least_loaded(&mut self, loads: &mut [usize]) {
        for entry in 0..self.entries.len() {
            if self.entries[entry].host.is_none() {
                self.give_to_least_loaded(entry, loads);
            }
        }
    }
}

#[cfg(test)]
mod tests;
