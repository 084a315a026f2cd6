//! What vacuuming decides about one record, under its chain lock.
//!
//! Role: the decisions alone; shared by the daemon's database worker and the simulator. When rounds
//! run and whom they ask: crate `control`. Records that a lmaster fetches to delete them: `fetches`.
//! Invariants
//! - A record is deleted for good by its lmaster alone, while it is dmaster, and only after every
//!   node that may have a copy has deleted its own: an old copy with data would win a recovery.
//! - Of the copies elsewhere the newest, which is empty, goes last.
//! - A copy is deleted only where it is nobody's: not at the dmaster, not at the lmaster.
//! - Whatever was found out before the chain was locked is looked at again.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.3, 3.4, 3.6; `ctdb/server/ctdb_vacuum.c`,
//! `ctdb/server/ctdb_recover.c: delete_tdb_record`.

use ringmaster_protocol::{
    Pnn,
    hash::jenkins,
    record::{RecordFlags, RecordHeader},
};

/// The lmaster of a key by this map; `this_node` without a map.
#[must_use]
pub fn lmaster_of(map: &[Pnn], key: &[u8], this_node: Pnn) -> Pnn {
    match u32::try_from(map.len()) {
        Ok(len) if len > 0 => map[(jenkins(key) % len) as usize],
        _ => this_node,
    }
}

/// A record that a round has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Key.
    pub key: Box<[u8]>,
    /// As it was when it was noted.
    pub header: RecordHeader,
    /// The node that has handed it to this one as its lmaster. It has the newest copy elsewhere: it
    /// is asked last to delete it. If this node died in the middle, the others would have only older
    /// copies, with data.
    pub came_from: Option<Pnn>,
}

/// A record as it is found under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its header.
    pub header: RecordHeader,
    /// It has no data.
    pub empty: bool,
}

/// What becomes of a record that was scheduled for deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// It is in use, gone, or not here any more.
    Leave,
    /// Nobody has a copy: delete it now.
    Delete,
    /// Its lmaster has to fetch it first (`VACUUM_FETCH`).
    Fetch,
    /// Everybody has to delete its copy first (`TRY_DELETE_RECORDS`).
    Ask,
}

/// The record is here, empty, in nobody's hands, and has not changed since it was scheduled.
fn is_tombstone(known: Option<Known>, scheduled: RecordHeader, this_node: Pnn) -> bool {
    known.is_some_and(|known| {
        known.empty
            && known.header.dmaster.is(this_node)
            && known.header.rsn == scheduled.rsn
            && !known.header.flags.intersects(RecordFlags::RO_ALL)
    })
}

/// What a round does with a scheduled record.
#[must_use]
pub fn scheduled(
    known: Option<Known>,
    scheduled: RecordHeader,
    this_node: Pnn,
    lmaster: Pnn,
) -> Scheduled {
    if !is_tombstone(known, scheduled, this_node) {
        return Scheduled::Leave;
    }
    // The flag as the record has it now: a header that a client has sent may be older.
    let moved = known.is_some_and(|known| {
        (known.header.flags | scheduled.flags).intersects(RecordFlags::MIGRATED_WITH_DATA)
    });
    if lmaster != this_node {
        Scheduled::Fetch
    } else if moved {
        Scheduled::Ask
    } else {
        Scheduled::Delete
    }
}

/// Whether a round that looks at the whole database takes this record up.
#[must_use]
pub fn is_candidate(known: Known, this_node: Pnn) -> bool {
    known.empty && known.header.dmaster.is(this_node)
}

/// Whether the lmaster deletes a record now that everybody has agreed.
#[must_use]
pub fn may_delete(
    known: Option<Known>,
    scheduled: RecordHeader,
    this_node: Pnn,
    lmaster: Pnn,
) -> bool {
    lmaster == this_node && is_tombstone(known, scheduled, this_node)
}

/// Whether this node deletes its copy because the lmaster asks it to. A copy with data goes too: it
/// is older than the empty record of the lmaster. No record here is as good as a deleted one.
#[must_use]
pub fn may_delete_copy(
    known: Option<RecordHeader>,
    asked: RecordHeader,
    this_node: Pnn,
    lmaster: Pnn,
) -> bool {
    if lmaster == this_node || asked.flags.intersects(RecordFlags::RO_ALL) {
        return false;
    }
    known.is_none_or(|known| {
        known.rsn <= asked.rsn
            && !known.flags.intersects(RecordFlags::RO_ALL)
            && !known.dmaster.is(this_node)
    })
}

/// Whether a lmaster that was asked to fetch a record has to: it has an idea where the record is,
/// and that is not here.
#[must_use]
pub fn wants_fetch(known: Option<RecordHeader>, this_node: Pnn) -> bool {
    known.is_some_and(|known| !known.dmaster.is(this_node))
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::{Rsn, record::Dmaster};

    use super::*;

    const HERE: Pnn = Pnn::new(1).expect("a node number");
    const THERE: Pnn = Pnn::new(2).expect("a node number");

    fn header(rsn: u64, dmaster: Pnn, flags: RecordFlags) -> RecordHeader {
        RecordHeader { rsn: Rsn(rsn), dmaster: Dmaster::from(dmaster), flags }
    }

    const NONE: RecordFlags = RecordFlags::NONE;
    const MOVED: RecordFlags = RecordFlags::MIGRATED_WITH_DATA;

    fn empty(rsn: u64, dmaster: Pnn, flags: RecordFlags) -> Option<Known> {
        Some(Known { header: header(rsn, dmaster, flags), empty: true })
    }

    #[test]
    fn the_lmaster_deletes_what_nobody_else_ever_had_and_asks_about_the_rest() {
        let queued = header(7, HERE, NONE);
        assert_eq!(scheduled(empty(7, HERE, NONE), queued, HERE, HERE), Scheduled::Delete);
        assert_eq!(scheduled(empty(7, HERE, MOVED), queued, HERE, HERE), Scheduled::Ask);
        let queued = header(7, HERE, MOVED);
        assert_eq!(scheduled(empty(7, HERE, NONE), queued, HERE, HERE), Scheduled::Ask);
        assert_eq!(scheduled(empty(7, HERE, NONE), queued, HERE, THERE), Scheduled::Fetch);
    }

    #[test]
    fn what_has_changed_or_gone_or_been_delegated_is_left_alone() {
        let queued = header(7, HERE, NONE);
        let full = Some(Known { header: queued, empty: false });
        let delegated = empty(7, HERE, RecordFlags::RO_HAVE_DELEGATIONS);
        let others = [None, full, delegated, empty(8, HERE, NONE), empty(7, THERE, NONE)];
        for known in others {
            assert_eq!(scheduled(known, queued, HERE, HERE), Scheduled::Leave, "{known:?}");
            assert!(!may_delete(known, queued, HERE, HERE), "{known:?}");
        }
        assert!(may_delete(empty(7, HERE, MOVED), queued, HERE, HERE));
        assert!(!may_delete(empty(7, HERE, MOVED), queued, HERE, THERE), "no lmaster any more");
    }

    #[test]
    fn a_copy_goes_when_it_is_old_and_nobodys() {
        let asked = header(7, THERE, MOVED);
        assert!(may_delete_copy(None, asked, HERE, THERE));
        for rsn in [3, 7] {
            assert!(may_delete_copy(Some(header(rsn, THERE, NONE)), asked, HERE, THERE));
        }
        assert!(!may_delete_copy(Some(header(8, THERE, NONE)), asked, HERE, THERE), "newer");
        assert!(!may_delete_copy(Some(header(3, HERE, NONE)), asked, HERE, THERE), "dmaster");
        assert!(!may_delete_copy(None, asked, HERE, HERE), "lmaster");
        let copy = header(3, THERE, RecordFlags::RO_HAVE_READONLY);
        assert!(!may_delete_copy(Some(copy), asked, HERE, THERE));
        let asked = header(7, THERE, RecordFlags::RO_HAVE_DELEGATIONS);
        assert!(!may_delete_copy(None, asked, HERE, THERE));
    }

    #[test]
    fn only_what_is_known_to_be_elsewhere_is_fetched() {
        assert!(!wants_fetch(None, HERE));
        assert!(!wants_fetch(Some(header(1, HERE, NONE)), HERE));
        assert!(wants_fetch(Some(header(1, THERE, NONE)), HERE));
    }
}
