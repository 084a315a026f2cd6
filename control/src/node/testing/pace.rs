//! How long things take, as a seed says.
//!
//! Invariants
//! - From one node to another nothing overtakes, as on a connection.
//! - The orders about one database end in their order, those of different ones in any.

use std::collections::BTreeMap;

use ringmaster_protocol::DbId;

use super::Work;
use crate::{node::world::DataAsk, plane::Millis};

/// From which node to which.
type Link = (usize, usize);

/// See the module.
pub(super) struct Pace {
    random: u64,
    network_ms: u64,
    data_ms: u64,
    script_ms: u64,
    /// What happens later, in order.
    later: BTreeMap<(Millis, u64), (Option<Link>, Work)>,
    serial: u64,
    /// When the last packet from one node to another arrives.
    links: BTreeMap<Link, Millis>,
    /// When the last order about a node's database ends.
    orders: BTreeMap<(usize, Option<DbId>), Millis>,
}

impl Pace {
    pub(super) const fn new(seed: u64, network_ms: u64, data_ms: u64, script_ms: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            network_ms,
            data_ms,
            script_ms,
            later: BTreeMap::new(),
            serial: 0,
            links: BTreeMap::new(),
            orders: BTreeMap::new(),
        }
    }

    /// Something below `limit` (xorshift).
    fn roll(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit.max(1)
    }

    fn put(&mut self, at: Millis, link: Option<Link>, work: Work) {
        self.serial += 1;
        self.later.insert((at, self.serial), (link, work));
    }

    /// A packet goes out.
    pub(super) fn post(&mut self, now: Millis, link: Link, work: Work) {
        let at = now.plus(self.roll(self.network_ms));
        let last = self.links.entry(link).or_insert(at);
        *last = at.max(*last);
        let at = *last;
        self.put(at, Some(link), work);
    }

    /// An order to a node's data plane will have ended.
    pub(super) fn end_order(&mut self, now: Millis, about: (usize, Option<DbId>), work: Work) {
        let at = now.plus(self.roll(self.data_ms));
        let last = self.orders.entry(about).or_insert(at);
        *last = at.max(*last);
        let at = *last;
        self.put(at, None, work);
    }

    /// A script will have ended.
    pub(super) fn end_script(&mut self, now: Millis, work: Work) {
        let at = now.plus(self.roll(self.script_ms));
        self.put(at, None, work);
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Millis> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// What happens until then.
    pub(super) fn due(&mut self, until: Millis) -> Vec<Work> {
        let mut due = Vec::new();
        while let Some(first) = self.later.first_entry().filter(|one| one.key().0 <= until) {
            due.push(first.remove().1);
        }
        due
    }

    /// What was on its way between two nodes.
    pub(super) fn lose(&mut self, one: usize, other: usize) -> Vec<Work> {
        let between =
            |link: &Option<Link>| *link == Some((one, other)) || *link == Some((other, one));
        let lost: Vec<_> =
            self.later.iter().filter(|(_, (link, _))| between(link)).map(|(at, _)| *at).collect();
        lost.iter().filter_map(|at| self.later.remove(at)).map(|(_, work)| work).collect()
    }
}

/// The database that an order is about; all others share one queue.
pub(super) const fn database_of(ask: &DataAsk) -> Option<DbId> {
    match ask {
        DataAsk::Freeze(db)
        | DataAsk::Thaw(db, _)
        | DataAsk::TransactionStart(db)
        | DataAsk::TransactionCancel(db)
        | DataAsk::TransactionCommit(db)
        | DataAsk::Wipe(db)
        | DataAsk::DbSeqnum(db)
        | DataAsk::Pull { db, .. }
        | DataAsk::Push { db, .. }
        | DataAsk::UpdateRecords { db, .. }
        | DataAsk::Traverse { db, .. } => Some(*db),
        _ => None,
    }
}
