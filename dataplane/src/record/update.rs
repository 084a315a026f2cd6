//! A read-only copy is called back: `UPDATE_RECORD` of a volatile database, at the holder.
//!
//! Role: the receiving end of a revoke (`readonly` is the sending one).
//! Invariants
//! - It keeps its order with the `REPLY_CALL` that brought the copy: both are packets of this
//!   engine, and who waits for a chain first is served first. An update that overtook its copy would
//!   find nothing, be answered with success, and leave the copy that comes after it for ever.
//! - Only a copy is overwritten, and only by the generation that handed it out: after a recovery the
//!   rsn of a record may have begun anew, and a late update would win over a live record. (C
//!   overwrites whatever has the lower rsn.)
//! - Every update is answered, once.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.10, 4.3; `ctdb/server/ctdb_update_record.c`.

use ringmaster_protocol::{
    DbId, Generation, Reqid,
    record::{RecordFlags, RecordHeader},
};

use super::{
    Context, FetchError, Locked, Origin, Output, Parked, RecordEngine, RecordStore, UpdateToken,
    Work,
};

/// The status of an update that is refused before it is looked at.
const REFUSED: i32 = -1;

/// The status of one that is older than what is here.
const TOO_OLD: i32 = 1;

/// One record of an `UPDATE_RECORD`.
#[derive(Clone, Copy, Debug)]
pub struct CopyUpdate<'a> {
    /// Database, a volatile one.
    pub db: DbId,
    /// Of the sender's map when it sent this.
    pub generation: Generation,
    /// Key.
    pub key: &'a [u8],
    /// What the copy is replaced with.
    pub header: RecordHeader,
    /// Value.
    pub data: &'a [u8],
}

/// What is to be done about it, given what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Store,
    Skip,
    TooOld,
}

fn judge(known: Option<RecordHeader>, value: &[u8], update: &CopyUpdate<'_>) -> Verdict {
    match known {
        Some(known) if known.flags.intersects(RecordFlags::RO_HAVE_READONLY) => {
            if known.rsn >= update.header.rsn && value != update.data {
                Verdict::TooOld
            } else {
                Verdict::Store
            }
        }
        Some(_) | None => Verdict::Skip,
    }
}

impl RecordEngine {
    /// A node calls a copy back that this node may have. Answered through [`Output::updated`], at
    /// once or when the chain is free.
    pub fn update_copy<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        token: UpdateToken,
        update: &CopyUpdate<'_>,
    ) {
        let current = self.vnn_map.generation == update.generation
            && self
                .databases
                .get(&update.db)
                .is_some_and(|db| db.is_volatile() && db.generation == update.generation);
        if self.banned || !current {
            return cx.out.updated(token, REFUSED);
        }
        let origin =
            Origin::Node { node: self.pnn, reqid: Reqid(0), generation: update.generation };
        let parked = || Parked {
            origin,
            work: Work::UpdateCopy {
                token,
                db: update.db,
                key: update.key.into(),
                header: update.header,
                data: update.data.into(),
            },
        };
        match self.lock_or_park(cx, update.db, update.key, parked) {
            Locked::Yes => {}
            Locked::Parked => return,
            Locked::Failed => return cx.out.updated(token, REFUSED),
        }
        let mut value = std::mem::take(&mut self.value);
        let done = overwrite(cx, update, &mut value);
        self.value = value;
        cx.store.unlock(update.db, update.key);
        cx.out.updated(token, done.unwrap_or(REFUSED));
    }
}

/// The chain is locked. Stored as it came: the daemon's store rule is for a daemon's own records.
fn overwrite<S: RecordStore, O: Output>(
    cx: &mut Context<'_, S, O>,
    update: &CopyUpdate<'_>,
    value: &mut Vec<u8>,
) -> Result<i32, FetchError> {
    let known = cx.store.fetch(update.db, update.key, value)?;
    match judge(known, value, update) {
        Verdict::Store => {
            cx.store.store(update.db, update.key, update.header, update.data)?;
            Ok(0)
        }
        Verdict::Skip => Ok(0),
        Verdict::TooOld => Ok(TOO_OLD),
    }
}
