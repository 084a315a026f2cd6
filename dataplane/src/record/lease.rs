//! Leases: a record that has arrived for local clients stays for a moment.
//!
//! smbd is answered "it is here", wakes up, locks the chain, and often finds the record gone again: the
//! next node's call was already waiting. It asks again, and a record in demand travels without
//! anybody getting work done. So a record whose clients came too late the last time stays a little
//! longer this time: calls of other nodes wait in a queue, nothing is locked.
//!
//! Invariants
//! - A lease is as long as it has proved to be needed: it doubles when a client that was served asks
//!   for the same key again at once, for it came too late; it halves when nobody does, down to none.
//!   A client that has done its work and wants more does not count: it would starve the others.
//! - It begins when the record arrives and is never extended; what local clients do meanwhile does not
//!   matter. So a call of another node waits for at most [`LEASE_MAX`].
//! - At its end every waiting node is served in the order of its asking: the first gets the record, the
//!   calls of the others follow it at once, before any call of this node's clients can.
//! - A freeze or a new generation ends all leases, and what is known of lengths.
//! - Sticky records have their pin-down besides, as in C.
//!
//! Origin: ours (C sends the record on as soon as it is asked to).

use std::collections::VecDeque;

use ringmaster_protocol::{DbId, hash::jenkins};

use super::{ClientId, Micros, Parked, RecordEngine, Timer, database::Queues};

/// The shortest lease, in microseconds: what a process needs to wake up and lock.
pub(super) const LEASE_MIN: u64 = 100;

/// The longest lease, in microseconds.
pub(super) const LEASE_MAX: u64 = 10_000;

/// A client that asks again within this time after the record's arrival has come too late for it, in
/// microseconds; later it is just another request.
const AGAIN: u64 = 20_000;

/// Keys of which lengths are kept, per database and shard. With more in motion, those that have not
/// arrived for [`STALE`] are forgotten; if there are none, a new key gets no lease.
const LEASES_MAX: usize = 16_384;

/// In microseconds.
const STALE: u64 = 1_000_000;

/// Clients that are remembered as served; of a bigger crowd the others are not noticed when they
/// come too late, and these are enough.
const SERVED_MAX: usize = 8;

/// What is known of a key that has moved.
#[derive(Debug)]
pub(super) struct Lease {
    /// In microseconds; 0: none.
    length: u64,
    arrived: Micros,
    /// Clients answered since then.
    served: Vec<ClientId>,
    /// Of the value as it arrived: unchanged means that nobody has got his work done.
    value: u32,
    /// It has left again; whether it had changed.
    left: Option<bool>,
    /// A client that was served has asked again at once.
    too_late: bool,
    pub(super) waiting: VecDeque<Parked>,
}

impl Lease {
    fn new(now: Micros) -> Self {
        Self {
            length: 0,
            arrived: now,
            served: Vec::new(),
            value: 0,
            left: None,
            too_late: false,
            waiting: VecDeque::new(),
        }
    }

    const fn end(&self) -> Micros {
        self.arrived.plus(self.length)
    }

    /// Whether a call of another node has to wait: as long as the lease lasts, and behind those that
    /// wait already.
    fn holds(&self, now: Micros) -> bool {
        self.left.is_none() && (now < self.end() || !self.waiting.is_empty())
    }
}

fn next_length(length: u64, too_late: bool) -> u64 {
    if too_late {
        (length * 2).clamp(LEASE_MIN, LEASE_MAX)
    } else if length / 2 >= LEASE_MIN {
        length / 2
    } else {
        0
    }
}

fn room_for(leases: &mut Queues<Lease>, now: Micros) -> bool {
    if leases.len() >= LEASES_MAX {
        leases.retain(|_, lease| !lease.waiting.is_empty() || now.since(lease.arrived) < STALE);
    }
    leases.len() < LEASES_MAX
}

impl RecordEngine {
    /// A record has arrived for a local client.
    pub(super) fn lease_begins(
        &mut self,
        now: Micros,
        id: DbId,
        key: &[u8],
        client: ClientId,
        value: &[u8],
    ) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        if !self.tunables.leases {
            return;
        }
        if !db.leases.contains_key(key) {
            if !room_for(&mut db.leases, now) {
                return;
            }
            db.leases.insert(key.into(), Lease::new(now));
        }
        let Some(lease) = db.leases.get_mut(key) else { return };
        lease.length = next_length(lease.length, lease.too_late);
        lease.arrived = now;
        lease.served.clear();
        lease.served.push(client);
        lease.value = jenkins(value);
        lease.left = None;
        lease.too_late = false;
    }

    /// A record has arrived for nobody here who would work with it.
    pub(super) fn lease_is_void(&mut self, id: DbId, key: &[u8]) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        if db.leases.is_empty() {
            return;
        }
        if let Some(lease) = db.leases.remove(key) {
            self.injected.extend(lease.waiting);
        }
    }

    /// A client has been answered from a record that is here.
    pub(super) fn lease_serves(&mut self, id: DbId, key: &[u8], client: ClientId) {
        let Some(lease) = self.lease_of(id, key) else { return };
        if lease.left.is_none()
            && lease.served.len() < SERVED_MAX
            && !lease.served.contains(&client)
        {
            lease.served.push(client);
        }
    }

    /// The record leaves.
    pub(super) fn lease_leaves(&mut self, id: DbId, key: &[u8], value: &[u8]) {
        if let Some(lease) = self.lease_of(id, key) {
            lease.left = Some(jenkins(value) != lease.value);
        }
    }

    /// A client asks for a record that is not here.
    pub(super) fn lease_is_missed(&mut self, now: Micros, id: DbId, key: &[u8], client: ClientId) {
        let Some(lease) = self.lease_of(id, key) else { return };
        let Some(changed) = lease.left else { return };
        // One client alone that has changed the record did what it wanted, and wants more.
        let worked = changed && lease.served.len() == 1;
        if !worked && now.since(lease.arrived) <= AGAIN && lease.served.contains(&client) {
            lease.too_late = true;
        }
    }

    /// The queue in which a call of another node has to wait for the end of a lease.
    pub(super) fn leased_queue(
        &mut self,
        now: Micros,
        id: DbId,
        key: &[u8],
    ) -> Option<&mut VecDeque<Parked>> {
        let lease = self.lease_of(id, key).filter(|lease| lease.holds(now))?;
        if lease.waiting.is_empty() {
            let at = lease.end();
            self.set_timer(at, Timer::LeaseEnd { db: id, key: key.into() });
        }
        self.lease_of(id, key).map(|lease| &mut lease.waiting)
    }

    pub(super) fn lease_ends(&mut self, id: DbId, key: &[u8]) {
        if let Some(lease) = self.lease_of(id, key) {
            let waiting = std::mem::take(&mut lease.waiting);
            self.injected.extend(waiting);
        }
    }

    /// Ends all leases of a database: who waits comes back with the thaw, or is asked to repeat.
    pub(super) fn end_leases(&mut self, id: DbId) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        for lease in std::mem::take(&mut db.leases).into_values() {
            self.injected.extend(lease.waiting);
        }
    }

    fn lease_of(&mut self, id: DbId, key: &[u8]) -> Option<&mut Lease> {
        let db = self.databases.get_mut(&id)?;
        if db.leases.is_empty() {
            return None;
        }
        db.leases.get_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::Reqid;

    use super::*;
    use crate::record::{Origin, Work};

    #[test]
    fn a_lease_grows_while_clients_come_too_late_and_ends_in_none() {
        let mut length = 0;
        let mut grown = Vec::new();
        for _ in 0..9 {
            length = next_length(length, true);
            grown.push(length);
        }
        assert_eq!(grown, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        let mut shrunk = Vec::new();
        for _ in 0..8 {
            length = next_length(length, false);
            shrunk.push(length);
        }
        assert_eq!(shrunk, [5_000, 2_500, 1_250, 625, 312, 156, 0, 0]);
    }

    #[test]
    fn keys_that_have_not_come_back_make_room_and_those_with_waiters_stay() {
        let mut leases = Queues::new();
        for number in 0..LEASES_MAX {
            leases.insert(Box::from(number.to_le_bytes()), Lease::new(Micros(0)));
        }
        let origin = Origin::Client { client: ClientId(1), reqid: Reqid(1) };
        let parked = Parked { origin, work: Work::Fetches { db: DbId(1) } };
        let awaited = leases.get_mut(&5_usize.to_le_bytes()[..]).expect("one of them");
        awaited.waiting.push_back(parked);
        assert!(!room_for(&mut leases, Micros(STALE - 1)));
        assert!(room_for(&mut leases, Micros(STALE)));
        assert_eq!(leases.len(), 1);
    }
}
