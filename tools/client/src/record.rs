//! May this copy of a record be used here? The contract between daemon and clients.
//!
//! Role: one decision from a record's header, without I/O.
//! Origin: `docs/spec/wire-protocol.md` 7.2, 7.9; `docs/spec/tdb-format.md` 8.5;
//! `source3/lib/dbwrap/dbwrap_ctdb.c`, `ctdb/client/client_db.c`.

use ringmaster_protocol::Pnn;
use ringmaster_protocol::record::{RecordFlags, RecordHeader};

/// What a client wants to do with a record of a volatile database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Look at it.
    Read,
    /// Change it: needs to be the only copy.
    Write,
}

/// What follows from the header of the local copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The local copy is good.
    Use,
    /// The daemon has to bring the record here (or its read-only copies back).
    AskDaemon,
    /// A process is making the record persistent: its value is not final. Wait.
    InProgress,
}

/// Judges the local copy; `None` if there is none.
pub(crate) fn judge(header: Option<&RecordHeader>, own: Pnn, access: Access) -> Verdict {
    let Some(header) = header else { return Verdict::AskDaemon };
    let delegated = header.flags.contains(RecordFlags::RO_HAVE_DELEGATIONS);
    let copy = header.flags.contains(RecordFlags::RO_HAVE_READONLY);
    let usable = match access {
        Access::Read => header.dmaster.is(own) || copy,
        Access::Write => header.dmaster.is(own) && !delegated,
    };
    if !usable {
        Verdict::AskDaemon
    } else if header.flags.contains(RecordFlags::PERSISTENT_IN_PROGRESS) {
        Verdict::InProgress
    } else {
        Verdict::Use
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::Rsn;

    fn verdicts(dmaster: u32, flags: RecordFlags) -> (Verdict, Verdict) {
        let dmaster = Pnn::new(dmaster).unwrap().into();
        let header = RecordHeader { rsn: Rsn(1), dmaster, flags };
        let own = Pnn::new(2).unwrap();
        (judge(Some(&header), own, Access::Read), judge(Some(&header), own, Access::Write))
    }

    #[test]
    fn a_record_is_written_only_where_it_lives_and_undelegated() {
        use Verdict::{AskDaemon, Use};
        assert_eq!(verdicts(2, RecordFlags::NONE), (Use, Use));
        assert_eq!(verdicts(2, RecordFlags::MIGRATED_WITH_DATA), (Use, Use));
        assert_eq!(verdicts(0, RecordFlags::NONE), (AskDaemon, AskDaemon));
        assert_eq!(verdicts(2, RecordFlags::RO_HAVE_DELEGATIONS), (Use, AskDaemon));
        assert_eq!(verdicts(0, RecordFlags::RO_HAVE_READONLY), (Use, AskDaemon));
        assert_eq!(judge(None, Pnn::new(2).unwrap(), Access::Read), AskDaemon);
    }

    #[test]
    fn a_value_that_is_not_final_is_not_used() {
        let flags = RecordFlags::PERSISTENT_IN_PROGRESS;
        assert_eq!(verdicts(2, flags), (Verdict::InProgress, Verdict::InProgress));
        // Not here: the daemon brings it first.
        assert_eq!(verdicts(0, flags), (Verdict::AskDaemon, Verdict::AskDaemon));
    }
}
