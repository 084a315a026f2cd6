//! What the daemon's own store of a volatile record does: keep or delete, raise the rsn or not,
//! schedule for deletion or not.
//!
//! Role: one pure decision, asked before every store by the daemon.
//! Origin: `docs/spec/cluster-semantics.md` 2.3 "store rule";
//! `ctdb/server/ctdb_ltdb_server.c: ctdb_ltdb_store_server`.

use ringmaster_protocol::{
    Pnn,
    record::{RecordFlags, RecordHeader},
};

/// Verdict for one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreDecision {
    /// Store with this header; `schedule`: the record is empty and may go in a vacuum round.
    Keep { header: RecordHeader, schedule: bool },
    /// The empty record is of no use to anybody: delete it. No rsn changes.
    Delete { header: RecordHeader },
}

/// In memory only: never written.
const TRANSIENT: RecordFlags =
    RecordFlags(RecordFlags::VACUUM_MIGRATED.0 | RecordFlags::AUTOMATIC.0);

/// Decides for a volatile database. `None` when the rsn is at its end.
pub(super) fn decide(
    header: RecordHeader,
    data_is_empty: bool,
    this_node: Pnn,
    lmaster: Pnn,
) -> Option<StoreDecision> {
    let flags = header.flags;
    let dmaster_here = header.dmaster.is(this_node);
    let automatic = flags.intersects(RecordFlags::AUTOMATIC);
    let keep = if !data_is_empty
        || flags.intersects(RecordFlags::RO_ALL)
        || automatic
        || flags.intersects(RecordFlags::MIGRATED_WITH_DATA)
    {
        true
    } else if lmaster == this_node {
        !(flags.intersects(RecordFlags::VACUUM_MIGRATED) && dmaster_here)
    } else {
        dmaster_here
    };
    let mut written = RecordHeader { flags: flags.without(TRANSIENT), ..header };
    if !keep {
        return Some(StoreDecision::Delete { header: written });
    }
    // An automatic record is scheduled whatever else holds: nobody has ever filled it.
    let mut schedule = data_is_empty && automatic && !flags.intersects(RecordFlags::RO_ALL);
    if dmaster_here && !flags.intersects(RecordFlags::RO_ALL) {
        written.rsn = header.rsn.advanced(1)?;
        schedule |= data_is_empty;
    }
    Some(StoreDecision::Keep { header: written, schedule })
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::{Rsn, record::Dmaster};

    use super::*;

    const HERE: Pnn = Pnn::new(1).expect("a node number");
    const THERE: Pnn = Pnn::new(2).expect("a node number");

    fn header(dmaster: Pnn, flags: RecordFlags) -> RecordHeader {
        RecordHeader { rsn: Rsn(7), dmaster: Dmaster::from(dmaster), flags }
    }

    fn kept(rsn: u64, dmaster: Pnn, flags: RecordFlags, schedule: bool) -> Option<StoreDecision> {
        let header = RecordHeader { rsn: Rsn(rsn), ..header(dmaster, flags) };
        Some(StoreDecision::Keep { header, schedule })
    }

    #[test]
    fn data_is_kept_and_the_dmaster_raises_the_rsn() {
        let stored = decide(header(HERE, RecordFlags::NONE), false, HERE, THERE);
        assert_eq!(stored, kept(8, HERE, RecordFlags::NONE, false));
        let stored = decide(header(THERE, RecordFlags::NONE), false, HERE, THERE);
        assert_eq!(stored, kept(7, THERE, RecordFlags::NONE, false));
    }

    #[test]
    fn an_empty_record_at_its_dmaster_is_kept_and_scheduled() {
        let stored = decide(header(HERE, RecordFlags::NONE), true, HERE, THERE);
        assert_eq!(stored, kept(8, HERE, RecordFlags::NONE, true));
    }

    #[test]
    fn an_empty_record_given_away_is_deleted_unless_we_are_lmaster() {
        let given = header(THERE, RecordFlags::NONE);
        assert_eq!(decide(given, true, HERE, THERE), Some(StoreDecision::Delete { header: given }));
        assert_eq!(decide(given, true, HERE, HERE), kept(7, THERE, RecordFlags::NONE, false));
    }

    #[test]
    fn an_empty_record_that_was_filled_once_is_kept_as_a_tombstone() {
        let flags = RecordFlags::MIGRATED_WITH_DATA;
        assert_eq!(decide(header(THERE, flags), true, HERE, THERE), kept(7, THERE, flags, false));
    }

    #[test]
    fn a_vacuumed_record_that_came_home_is_deleted() {
        let vacuumed = header(HERE, RecordFlags::VACUUM_MIGRATED);
        assert_eq!(
            decide(vacuumed, true, HERE, HERE),
            Some(StoreDecision::Delete { header: header(HERE, RecordFlags::NONE) })
        );
        // Away from its lmaster it is an ordinary empty record.
        assert_eq!(decide(vacuumed, true, HERE, THERE), kept(8, HERE, RecordFlags::NONE, true));
    }

    #[test]
    fn an_invented_header_is_kept_and_scheduled_and_its_flag_not_written() {
        let invented = header(THERE, RecordFlags::AUTOMATIC);
        assert_eq!(decide(invented, true, HERE, THERE), kept(7, THERE, RecordFlags::NONE, true));
    }

    #[test]
    fn read_only_flags_keep_the_rsn_as_it_is() {
        let flags = RecordFlags::RO_HAVE_DELEGATIONS;
        assert_eq!(decide(header(HERE, flags), true, HERE, HERE), kept(7, HERE, flags, false));
    }

    #[test]
    fn the_last_rsn_is_not_passed() {
        let last = RecordHeader { rsn: Rsn(u64::MAX), ..header(HERE, RecordFlags::NONE) };
        assert_eq!(decide(last, false, HERE, HERE), None);
    }
}
