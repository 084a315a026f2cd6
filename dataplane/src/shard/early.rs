//! Record packets of other nodes that come before their database.
//!
//! Role: keeps them until the database is attached here. A node that attaches a database tells the
//! others without waiting for them, and its first call may follow at once. In C the control is
//! carried out before the call is looked at; here it takes the way over control and a worker, which
//! opens the file, while the call goes straight to its shard. A call that was refused is never
//! answered to its client.
//! Invariants: at most [`EARLY_MAX`] packets, each at most [`EARLY_TIME`]; beyond, a packet is taken
//! at once, and is refused as C refuses calls for unknown databases.
//!
//! Origin: `ctdb/server/ctdb_ltdb_server.c: ctdb_control_db_attach` (the broadcast),
//! `docs/spec/cluster-semantics.md` 2.2, 2.6.

use std::{collections::VecDeque, time::Duration};

use ringmaster_protocol::{DbId, Packet};

use super::limits::{EARLY_MAX, EARLY_TIME};

/// A whole packet.
type Bytes = Box<[u8]>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Oldest first.
    packets: VecDeque<(Duration, DbId, Bytes)>,
}

impl Early {
    /// Keeps a packet; gives it back when there are too many.
    pub(super) fn keep(&mut self, now: Duration, db: DbId, bytes: Bytes) -> Option<Bytes> {
        if self.packets.len() >= EARLY_MAX {
            return Some(bytes);
        }
        self.packets.push_back((now + EARLY_TIME, db, bytes));
        None
    }

    /// What was kept for a database, in order.
    pub(super) fn take(&mut self, db: DbId) -> Vec<Bytes> {
        let mut taken = Vec::new();
        for (until, of, bytes) in std::mem::take(&mut self.packets) {
            if of == db {
                taken.push(bytes);
            } else {
                self.packets.push_back((until, of, bytes));
            }
        }
        taken
    }

    /// What has been kept long enough.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<Bytes> {
        let mut expired = Vec::new();
        while let Some((until, ..)) = self.packets.front()
            && *until <= now
        {
            expired.extend(self.packets.pop_front().map(|(.., bytes)| bytes));
        }
        expired
    }

    /// When [`Early::expired`] has something.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.packets.front().map(|(until, ..)| *until)
    }
}

/// The database that a record packet is for.
pub(super) fn database_of(packet: &Packet<'_>) -> Option<DbId> {
    match packet {
        Packet::ReqCall(call) => Some(call.db),
        Packet::ReqDmaster(record) => Some(record.db),
        Packet::ReplyDmaster(record) => Some(record.db),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn packet(number: u8) -> Bytes {
        vec![number].into()
    }

    #[test]
    fn packets_of_a_database_are_taken_in_order_and_others_stay() {
        let mut early = Early::default();
        for (db, number) in [(1, 1), (2, 2), (1, 3)] {
            assert_eq!(early.keep(NOW, DbId(db), packet(number)), None);
        }
        assert_eq!(early.take(DbId(1)), [packet(1), packet(3)]);
        assert_eq!(early.take(DbId(1)), Vec::<Bytes>::new());
        assert_eq!(early.take(DbId(2)), [packet(2)]);
        assert_eq!(early.next_deadline(), None);
    }

    #[test]
    fn a_packet_is_kept_for_its_time_and_no_longer() {
        let mut early = Early::default();
        early.keep(NOW, DbId(1), packet(1));
        early.keep(NOW + EARLY_TIME / 2, DbId(2), packet(2));
        assert_eq!(early.next_deadline(), Some(NOW + EARLY_TIME));
        assert_eq!(early.expired(NOW + EARLY_TIME / 2), Vec::<Bytes>::new());
        assert_eq!(early.expired(NOW + EARLY_TIME), [packet(1)]);
        assert_eq!(early.expired(NOW + EARLY_TIME * 2), [packet(2)]);
    }

    #[test]
    fn a_packet_too_many_is_given_back() {
        let mut early = Early::default();
        for _ in 0..EARLY_MAX {
            assert_eq!(early.keep(NOW, DbId(1), packet(1)), None);
        }
        assert_eq!(early.keep(NOW, DbId(1), packet(2)), Some(packet(2)));
        assert_eq!(early.take(DbId(1)).len(), EARLY_MAX);
    }
}
