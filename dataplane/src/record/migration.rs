//! A record changes its dmaster.
//!
//! Role: dmaster → lmaster → new dmaster: `hand_over` at the old one, `req_dmaster` at the lmaster,
//! `reply_dmaster` at the new one.
//! Invariants
//! - The old dmaster stores its copy with the new dmaster's number before the packet leaves, under
//!   the same chain lock: from then on it sends calls away.
//! - A lmaster believes only the dmaster it has on file; anybody else's claim forces a recovery.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.7; `ctdb/server/ctdb_call.c:
//! ctdb_call_send_dmaster`, `ctdb_request_dmaster`, `ctdb_become_dmaster`.

use ringmaster_protocol::{
    DbId, Packet, Pnn, Reqid, Rsn,
    call::{CallFlags, ReplyDmaster, ReqDmaster},
    record::{Dmaster, RecordFlags, RecordHeader},
};

use super::{
    Asker, Context, FetchError, Locked, Origin, Output, Parked, RecordEngine, RecordStore, Work,
    hot,
};

/// A record on its way, taken out of its packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handover {
    pub(super) db: DbId,
    pub(super) rsn: Rsn,
    pub(super) flags: RecordFlags,
    pub(super) key: Box<[u8]>,
    pub(super) data: Box<[u8]>,
}

impl Handover {
    pub(super) fn of_request(packet: &ReqDmaster<'_>) -> Self {
        Self {
            db: packet.db,
            rsn: packet.rsn,
            flags: packet.record_flags,
            key: packet.key.into(),
            data: packet.data.into(),
        }
    }

    pub(super) fn of_reply(packet: &ReplyDmaster<'_>) -> Self {
        Self {
            db: packet.db,
            rsn: packet.rsn,
            flags: packet.record_flags,
            key: packet.key.into(),
            data: packet.data.into(),
        }
    }
}

impl RecordEngine {
    /// Gives the record, which is here and locked, to `target`, who asked for it with `reqid`.
    #[expect(clippy::too_many_arguments, reason = "a record and where it goes")]
    pub(super) fn hand_over<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        target: Pnn,
        reqid: Reqid,
        mut header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        if !value.is_empty() {
            header.flags = header.flags | RecordFlags::MIGRATED_WITH_DATA;
        }
        self.lease_leaves(db, key, value);
        let lmaster = self.lmaster(key);
        if lmaster == self.pnn {
            return self.hand_over_as_lmaster(cx, db, key, target, reqid, header, value);
        }
        let packet = ReqDmaster {
            db,
            rsn: header.rsn,
            dmaster: Dmaster::from(target),
            key,
            data: value,
            record_flags: header.flags,
        };
        header.dmaster = Dmaster::from(target);
        self.write(cx, db, key, header, value)?;
        self.send(cx, lmaster, self.pnn, reqid, db, &Packet::ReqDmaster(packet));
        Ok(())
    }

    /// The lmaster notes the new dmaster and sends it the record.
    #[expect(clippy::too_many_arguments, reason = "a record and where it goes")]
    fn hand_over_as_lmaster<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        target: Pnn,
        reqid: Reqid,
        mut header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        header.dmaster = Dmaster::from(target);
        let stored = self.write(cx, db, key, header, value)?;
        let packet =
            ReplyDmaster { db, rsn: stored.rsn, key, data: value, record_flags: stored.flags };
        self.send(cx, target, self.pnn, reqid, db, &Packet::ReplyDmaster(packet));
        Ok(())
    }

    /// At the lmaster: the dmaster hands a record over.
    pub(super) fn req_dmaster<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        packet: Handover,
        dmaster: Pnn,
    ) {
        let Origin::Node { node, reqid, generation } = origin else { return };
        let db = packet.db;
        if !self.databases.contains_key(&db) {
            return self.refuse(cx, node, reqid, db);
        }
        if self.lmaster(&packet.key) != self.pnn {
            // C aborts here. With equal generations both sides have the same map, so somebody's
            // is wrong: a recovery gives everybody a new one.
            return cx.out.force_recovery("REQ_DMASTER for a key of another lmaster");
        }
        self.open_dmaster_change(db, &packet.key, generation);
        let parked =
            || Parked { origin, work: Work::ReqDmaster { packet: packet.clone(), dmaster } };
        match self.lock_or_park(cx, db, &packet.key, parked) {
            Locked::Yes => {}
            Locked::Parked => return,
            Locked::Failed => return self.close_dmaster_change(db, &packet.key),
        }
        let done = self.req_dmaster_locked(cx, node, reqid, &packet, dmaster);
        cx.store.unlock(db, &packet.key);
        if done.is_err() {
            cx.out.force_recovery("a record that changes its dmaster could not be stored");
        }
        self.close_dmaster_change(db, &packet.key);
    }

    fn req_dmaster_locked<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        from: Pnn,
        reqid: Reqid,
        packet: &Handover,
        dmaster: Pnn,
    ) -> Result<(), FetchError> {
        let mut value = std::mem::take(&mut self.value);
        let known = self.fetch_or_invent(cx, packet.db, &packet.key, &mut value);
        self.value = value;
        let known = known?;
        let invented = known.rsn == Rsn(0) && known.dmaster.is(self.pnn);
        if !known.dmaster.is(from) && !invented {
            cx.out.force_recovery("REQ_DMASTER from a node that is not the dmaster");
            return Ok(());
        }
        let header = RecordHeader { rsn: packet.rsn, dmaster: known.dmaster, flags: packet.flags };
        if dmaster == self.pnn {
            self.become_dmaster(cx, packet, reqid)?;
            if let Some(db) = self.databases.get_mut(&packet.db) {
                db.deletions.came_from(&packet.key, from);
            }
            return Ok(());
        }
        self.hand_over_as_lmaster(cx, packet.db, &packet.key, dmaster, reqid, header, &packet.data)
    }

    /// At the new dmaster: the record has arrived.
    pub(super) fn reply_dmaster<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        packet: Handover,
    ) {
        let Origin::Node { reqid, generation, .. } = origin else { return };
        let db = packet.db;
        if !self.databases.contains_key(&db) {
            return;
        }
        self.open_dmaster_change(db, &packet.key, generation);
        let parked = || Parked { origin, work: Work::ReplyDmaster { packet: packet.clone() } };
        match self.lock_or_park(cx, db, &packet.key, parked) {
            Locked::Yes => {}
            Locked::Parked => return,
            Locked::Failed => return self.close_dmaster_change(db, &packet.key),
        }
        let done = self.become_dmaster(cx, &packet, reqid);
        cx.store.unlock(db, &packet.key);
        if done.is_err() {
            cx.out.force_recovery("a record that arrived could not be stored");
        }
        self.close_dmaster_change(db, &packet.key);
    }

    /// Stores the record as ours and answers the call that wanted it. The chain is locked.
    fn become_dmaster<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        packet: &Handover,
        reqid: Reqid,
    ) -> Result<(), FetchError> {
        let (db, key) = (packet.db, &*packet.key);
        let call = self
            .pending
            .get(reqid)
            .filter(|call| call.db == db && *call.key == *key)
            .map(|call| (call.callid, call.flags, call.asker));
        let mut header =
            RecordHeader { rsn: packet.rsn, dmaster: Dmaster::from(self.pnn), flags: packet.flags };
        if call.is_some_and(|(_, flags, _)| flags.intersects(CallFlags::VACUUM_MIGRATION)) {
            header.flags = header.flags | RecordFlags::VACUUM_MIGRATED;
        }
        let header = self.write(cx, db, key, header, &packet.data)?;
        self.pin_if_sticky(cx.now, db, key);
        match call {
            Some((.., Asker::Client { client, .. })) => {
                self.lease_begins(cx.now, db, key, client, &packet.data);
            }
            Some((.., Asker::Vacuum)) | None => self.lease_is_void(db, key),
        }
        // Nobody waits for it (the client has gone): it is ours all the same.
        let Some((callid, ..)) = call else { return Ok(()) };
        if let Some(database) = self.databases.get_mut(&db) {
            let count = database.migrations.count(cx.now, key);
            hot::update(&mut database.statistics.hot_keys, key, count);
        }
        self.execute(cx, db, key, callid, header, &packet.data)?;
        self.complete(cx, reqid, 0);
        Ok(())
    }
}
