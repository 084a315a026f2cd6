//! Read-only copies: handing them out, and calling them back before somebody writes.
//!
//! Invariants
//! - A record whose copies are out (`RO_HAVE_DELEGATIONS`) is not given to a writer, local or
//!   remote, before every copy has been overwritten (`UPDATE_RECORD` answered with 0) or a
//!   recovery has voided them.
//! - The rsn steps are C's: delegated copies r+1, update r+2, dmaster r+3, revoked r+4.
//! - A revoke always ends: by its answers, or by its timeout.
//! - A record that has ever been delegated has `MIGRATED_WITH_DATA`, so that it is not vacuumed while
//!   some node still has what was once a copy.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.10; `ctdb/server/ctdb_call.c`. C forks a child per
//! revoke; here it is a few events.

use std::collections::{BTreeSet, VecDeque};

use ringmaster_protocol::{
    DbId, Packet, Pnn, Reqid,
    call::{CallFlags, ReplyCall, ReqCall},
    record::{RecBufferBuilder, RecordFlags, RecordHeader},
};

use super::{
    Context, ControlToken, FetchError, LockOutcome, Locked, Micros, Origin, Output, Parked,
    RecordEngine, RecordStore, Timer, Work,
    call::{ReadOnlyStep, Wanted},
};

/// Packets that wanted a copy, or all after a failed revoke, are held back for this long, so that
/// the writer gets its turn.
const HOLD_BACK_MS: u64 = 1_000;

/// A revoke under way.
#[derive(Debug)]
pub(super) struct Revoke {
    /// Tells this revoke from an earlier one of the same key.
    started: u64,
    /// Of the record when the revoke began.
    rsn: ringmaster_protocol::Rsn,
    /// Nodes whose update is still under way.
    outstanding: BTreeSet<Pnn>,
    failed: bool,
    pub(super) waiting: VecDeque<Parked>,
}

impl RecordEngine {
    /// What the flags of a record that is here ask for. Clears those of a finished revoke.
    pub(super) fn readonly_step<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        call: &ReqCall<'_>,
        wanted: Wanted,
        header: &mut RecordHeader,
        value: &[u8],
    ) -> Result<ReadOnlyStep, FetchError> {
        if !header.flags.intersects(RecordFlags::RO_ALL) {
            return Ok(ReadOnlyStep::Proceed);
        }
        if header.flags.intersects(RecordFlags::RO_REVOKE_COMPLETE) {
            header.flags = header.flags.without(RecordFlags::RO_ALL);
            *header = self.write(cx, call.db, call.key, *header, value)?;
            self.counters.ro_revokes += 1;
            if let Some(db) = self.databases.get_mut(&call.db) {
                db.delegates.remove(call.key);
                db.statistics.ro_revokes += 1;
            }
        }
        if header.flags.intersects(RecordFlags::RO_REVOKING_READONLY) {
            let running =
                self.databases.get(&call.db).is_some_and(|db| db.revokes.contains_key(call.key));
            // C aborts when no revoke runs (its child died in between): start another one.
            return Ok(if running { ReadOnlyStep::Wait } else { ReadOnlyStep::Revoke });
        }
        let copies = RecordFlags::RO_HAVE_DELEGATIONS | RecordFlags::RO_HAVE_READONLY;
        let to_write = !wanted.flags.intersects(CallFlags::WANT_READONLY);
        if to_write && header.dmaster.is(self.pnn) && header.flags.intersects(copies) {
            return Ok(ReadOnlyStep::Revoke);
        }
        Ok(ReadOnlyStep::Proceed)
    }

    /// Lets a packet wait for the revoke of its record, starting one if need be. The chain is
    /// locked.
    pub(super) fn hold_for_revoke<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        step: ReadOnlyStep,
        call: &ReqCall<'_>,
        mut header: RecordHeader,
        value: &[u8],
        parked: Parked,
    ) {
        if step == ReadOnlyStep::Revoke {
            header.flags = header.flags | RecordFlags::RO_REVOKING_READONLY;
            if cx.store.store(call.db, call.key, header, value).is_err() {
                return; // the store has asked for a recovery; the call is sent again after it
            }
            self.start_revoke(cx, call.db, call.key, header, value);
        }
        let Some(db) = self.databases.get_mut(&call.db) else { return };
        if let Some(revoke) = db.revokes.get_mut(call.key) {
            revoke.waiting.push_back(parked);
        } else {
            // It ended at once: nobody had a copy.
            self.injected.push_back(parked);
        }
    }

    fn start_revoke<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
        header: RecordHeader,
        value: &[u8],
    ) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        let nodes = db.delegates.get(key).cloned().unwrap_or_default();
        self.next_token += 1;
        let started = self.next_token;
        let revoke = Revoke {
            started,
            rsn: header.rsn,
            outstanding: nodes.iter().copied().collect(),
            failed: false,
            waiting: VecDeque::new(),
        };
        db.revokes.insert(key.into(), revoke);
        let timeout = u64::from(self.tunables.control_timeout_s) * 1_000;
        let timer = Timer::RevokeTimeout { db: id, key: key.into(), started };
        self.set_timer(cx.now.plus_millis(timeout), timer);
        if nodes.is_empty() {
            // Flags without a copy (a file of an earlier life): there is nobody to wait for.
            let origin = self.own_origin();
            let work = Work::FinishRevoke { db: id, key: key.into() };
            self.injected.push_back(Parked { origin, work });
            return;
        }
        // What is delegated is r+1 and what the dmaster has is r+3: the update is between them.
        let update = RecordHeader {
            rsn: ringmaster_protocol::Rsn(header.rsn.0.saturating_sub(1)),
            flags: header.flags.without(RecordFlags::RO_ALL) | RecordFlags::MIGRATED_WITH_DATA,
            ..header
        };
        let mut payload = RecBufferBuilder::new(id);
        payload.push_with_header(0, key, &update, value);
        for node in nodes {
            self.next_token += 1;
            let token = ControlToken(self.next_token);
            self.revoke_tokens.insert(token, (id, key.into(), node));
            cx.out.update_record(node, token, payload.as_bytes());
        }
    }

    pub(super) const fn own_origin(&self) -> Origin {
        let generation = self.vnn_map.generation;
        Origin::Node { node: self.pnn, reqid: Reqid::NONE, generation }
    }

    /// An `UPDATE_RECORD` of ours has ended: `status` of the control, or any other number when it
    /// could not be delivered.
    pub fn control_done(&mut self, token: ControlToken, status: i32) {
        let Some((id, key, node)) = self.revoke_tokens.remove(&token) else { return };
        let Some(db) = self.databases.get_mut(&id) else { return };
        let Some(revoke) = db.revokes.get_mut(&key) else { return };
        revoke.failed |= status != 0;
        revoke.outstanding.remove(&node);
        if revoke.outstanding.is_empty() {
            let origin = self.own_origin();
            self.injected.push_back(Parked { origin, work: Work::FinishRevoke { db: id, key } });
        }
    }

    pub(super) fn revoke_timed_out<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
        started: u64,
    ) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        let Some(revoke) = db.revokes.get_mut(key) else { return };
        if revoke.started != started || revoke.outstanding.is_empty() {
            return; // an earlier one, or it waits for its chain
        }
        revoke.failed = true;
        revoke.outstanding.clear();
        self.revoke_tokens.retain(|_, (of, its, _)| *of != id || **its != *key);
        self.finish_revoke(cx, id, key);
    }

    /// All copies are overwritten, or not to be reached: writes the verdict into the record.
    pub(super) fn finish_revoke<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
    ) {
        let origin = self.own_origin();
        let again = || Parked { origin, work: Work::FinishRevoke { db: id, key: key.into() } };
        match self.lock_or_park(cx, id, key, again) {
            Locked::Yes => {}
            Locked::Parked | Locked::Failed => return,
        }
        let Some(revoke) = self.databases.get_mut(&id).and_then(|db| db.revokes.remove(key)) else {
            return cx.store.unlock(id, key);
        };
        let mut value = std::mem::take(&mut self.value);
        let revoked = self.write_verdict(cx, id, key, &revoke, &mut value);
        self.value = value;
        cx.store.unlock(id, key);
        self.release_revoke(cx.now, revoke, revoked.unwrap_or(false));
    }

    fn write_verdict<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
        revoke: &Revoke,
        value: &mut Vec<u8>,
    ) -> Result<bool, FetchError> {
        let Some(mut header) = cx.store.fetch(id, key, value)? else { return Ok(false) };
        let revoking = RecordFlags::RO_REVOKING_READONLY | RecordFlags::RO_HAVE_DELEGATIONS;
        if header.rsn > revoke.rsn || !header.flags.contains(revoking) {
            // A recovery has been over it: nothing is out any more, or the next access sees.
            return Ok(false);
        }
        if revoke.failed {
            header.flags = header.flags.without(RecordFlags::RO_REVOKING_READONLY);
        } else {
            header.rsn = header.rsn.advanced(1).ok_or(FetchError)?;
            header.flags = header.flags | RecordFlags::RO_REVOKE_COMPLETE;
        }
        cx.store.store(id, key, header, value)?;
        Ok(!revoke.failed)
    }

    fn release_revoke(&mut self, now: Micros, revoke: Revoke, revoked: bool) {
        let mut held = Vec::new();
        for parked in revoke.waiting {
            let wants_copy = matches!(&parked.work, Work::Call { flags, .. }
                if flags.intersects(CallFlags::WANT_READONLY));
            if revoked && !wants_copy {
                self.injected.push_back(parked);
            } else {
                held.push(parked);
            }
        }
        if !held.is_empty() {
            self.set_timer(now.plus_millis(HOLD_BACK_MS), Timer::Inject { parked: held });
        }
    }

    /// Hands out a read-only copy of a record that is here and locked.
    pub(super) fn delegate<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        to: Pnn,
        reqid: Reqid,
        call: &ReqCall<'_>,
        mut header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        if !header.flags.intersects(RecordFlags::RO_HAVE_DELEGATIONS) {
            header.rsn = header.rsn.advanced(3).ok_or(FetchError)?;
            // From now on the record is elsewhere too, with an rsn that one created anew would not
            // have: vacuuming has to ask before it deletes this one. C does not note it.
            header.flags =
                header.flags | RecordFlags::RO_HAVE_DELEGATIONS | RecordFlags::MIGRATED_WITH_DATA;
            header = self.write(cx, call.db, call.key, header, value)?;
        }
        let Some(db) = self.databases.get_mut(&call.db) else { return Err(FetchError) };
        let delegates = db.delegates.entry(call.key.into()).or_default();
        if !delegates.contains(&to) {
            delegates.push(to);
        }
        db.statistics.ro_delegations += 1;
        self.counters.ro_delegations += 1;
        let copy = RecordHeader {
            rsn: ringmaster_protocol::Rsn(header.rsn.0.saturating_sub(2)),
            flags: header.flags.without(RecordFlags::RO_HAVE_DELEGATIONS)
                | RecordFlags::RO_HAVE_READONLY,
            ..header
        };
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        reply.extend_from_slice(&copy.to_array());
        reply.extend_from_slice(value);
        let packet = Packet::ReplyCall(ReplyCall { status: 0, data: &reply });
        self.send(cx, to, self.pnn, reqid, call.db, &packet);
        self.reply = reply;
        Ok(())
    }

    /// Keeps a copy that another node has delegated to us, unless ours is newer; `false` if the
    /// database is frozen. It waits for a busy chain, before the update that calls it back.
    pub(super) fn keep_copy<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        db: DbId,
        key: &[u8],
        header: RecordHeader,
        data: &[u8],
    ) -> bool {
        match self.try_lock(cx, db, key) {
            LockOutcome::Locked => {}
            LockOutcome::Busy => {
                let work = Work::KeepCopy { db, key: key.into(), header, data: data.into() };
                self.wait_for_chain(cx, db, key, Parked { origin, work });
                return true;
            }
            LockOutcome::Frozen | LockOutcome::Failed => return false,
        }
        let mut value = std::mem::take(&mut self.value);
        let known = cx.store.fetch(db, key, &mut value);
        self.value = value;
        let newer = match known {
            Ok(Some(known)) => header.rsn > known.rsn,
            Ok(None) => true,
            Err(FetchError) => false,
        };
        if newer {
            // A copy that could not be kept is only slower: the reply has the data.
            let _ = self.write(cx, db, key, header, data);
        }
        cx.store.unlock(db, key);
        true
    }

    /// A recovery has replaced the whole database: no copy is out any more.
    pub(super) fn forget_delegations(&mut self, id: DbId) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        db.delegates.clear();
        let revokes = std::mem::take(&mut db.revokes);
        self.revoke_tokens.retain(|_, (of, _, _)| *of != id);
        for revoke in revokes.into_values() {
            self.injected.extend(revoke.waiting);
        }
    }
}
