//! Walking a whole database through the daemons: each record once, from the node that owns it.
//!
//! Role: starts a traverse, hands each record to the caller, ends at the end marker.
//! Invariants
//! - Messages of other traverses and for other receivers are left alone.
//! - Records that migrate meanwhile may come twice or not at all, and after `TraverseTimeout` (20 s)
//!   the daemon ends the walk without saying that it is incomplete: so is the protocol.
//!
//! Origin: `ctdb/client/client_db.c: ctdb_db_traverse`; `docs/spec/wire-protocol.md` 7.6,
//! `docs/spec/cluster-semantics.md` 5.

use std::ops::ControlFlow;
use std::time::Duration;

use ringmaster_protocol::control::kinds;
use ringmaster_protocol::record::{RecData, RecordHeader};
use ringmaster_protocol::traverse::{TraverseStart, TraverseStartExt};
use ringmaster_protocol::{DbId, Decode, DecodeError, Reqid, Srvid};
use thiserror::Error;

use crate::client::Client;
use crate::error::{ControlError, ReceiveError};

/// A traverse did not come to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraverseError {
    /// The traverse cannot be started.
    #[error("cannot traverse database {db}")]
    Control {
        /// The database.
        db: DbId,
        /// Which control, and why.
        #[source]
        source: ControlError,
    },
    /// The next record did not come.
    #[error("traverse of database {db} broke off after {records} records")]
    Receive {
        /// The database.
        db: DbId,
        /// Records handed to the caller.
        records: u64,
        /// Why.
        #[source]
        source: ReceiveError,
    },
    /// A message that holds no record.
    #[error("traverse of database {db}: a message holds no record")]
    Malformed {
        /// The database.
        db: DbId,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// One record of a traverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraverseRecord<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its header; `None` when the value is too short to have one.
    pub header: Option<RecordHeader>,
    /// Its value, without the header.
    pub value: &'a [u8],
}

impl Client {
    /// Hands every record of `db` in the cluster to `each` until that breaks off; the number of
    /// records handed over. `with_empty` includes deleted records that are still there. Between two
    /// records at most `idle_timeout` passes: 30 s and more, for the daemon gives up after 20.
    ///
    /// # Errors
    /// [`TraverseError`].
    pub fn traverse(
        &mut self,
        db: DbId,
        with_empty: bool,
        idle_timeout: Duration,
        mut each: impl FnMut(TraverseRecord<'_>) -> ControlFlow<()>,
    ) -> Result<u64, TraverseError> {
        let srvid = self.unused_reply_srvid();
        let failed = |source| TraverseError::Control { db, source };
        self.register(srvid).map_err(failed)?;
        let walked = self.walk(db, srvid, with_empty, idle_timeout, &mut each);
        let deregistered = self.deregister(srvid).map_err(failed);
        // What was still on its way: nobody will ask for it.
        self.discard_messages(srvid);
        walked.and_then(|records| deregistered.map(|()| records))
    }

    fn walk(
        &mut self,
        db: DbId,
        srvid: Srvid,
        with_empty: bool,
        idle_timeout: Duration,
        each: &mut impl FnMut(TraverseRecord<'_>) -> ControlFlow<()>,
    ) -> Result<u64, TraverseError> {
        let reqid = Reqid(1); // the srvid is of this traverse alone
        let to = self.own_node();
        let started = if with_empty {
            let request = TraverseStartExt { db, reqid, srvid, with_empty_records: true };
            self.control::<kinds::TraverseStartExt>(to, &request)
        } else {
            self.control::<kinds::TraverseStart>(to, &TraverseStart { db, reqid, srvid })
        };
        started.map_err(|source| TraverseError::Control { db, source })?;
        let mut records = 0;
        loop {
            let message = self
                .receive_to(srvid, idle_timeout)
                .map_err(|source| TraverseError::Receive { db, records, source })?;
            let record = RecData::from_bytes(&message.data)
                .map_err(|source| TraverseError::Malformed { db, source })?;
            if record.is_end_marker() {
                return Ok(records);
            }
            let (header, value) = match record.split_header() {
                Some((header, value)) => (Some(header), value),
                None => (None, record.data),
            };
            // Daemons send those of databases that every node has, asked for or not.
            if value.is_empty() && !with_empty {
                continue;
            }
            records += 1;
            if each(TraverseRecord { key: record.key, header, value }).is_break() {
                return Ok(records);
            }
        }
    }
}
