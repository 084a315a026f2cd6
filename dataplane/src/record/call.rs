//! Calls: from local clients and from other nodes.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.3–2.6; `ctdb/server/ctdb_daemon.c:
//! daemon_request_call_from_client`, `ctdb/server/ctdb_call.c: ctdb_request_call`.

use ringmaster_protocol::{
    DbId, Packet, Pnn, Reqid, Rsn,
    call::{CallFlags, CallId, ReplyCall, ReplyError, ReqCall},
    record::{Dmaster, RecordFlags, RecordHeader},
};

use super::{
    ClientId, Context, FetchError, Locked, NodeEnvelope, Origin, Output, Parked, RecordEngine,
    RecordStore, Work,
    pending::{Asker, PendingCall},
    store_rule::{StoreDecision, decide},
};

/// What a call wants, after the database's properties have had their say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) flags: CallFlags,
    pub(super) callid: CallId,
}

/// Of every hundred hops the last few are told, as in C.
const HOPS_BEFORE_COMPLAINT: u32 = 95;

/// As many calls are under way as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What the read-only flags of a record ask for before it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOnlyStep {
    /// Nothing: go on.
    Proceed,
    /// The packet waits for a revoke that runs.
    Wait,
    /// Copies must be called back first; the packet waits for that.
    Revoke,
}

impl RecordEngine {
    /// A local client's call. It is answered now, later, or (unknown database) never, as in C.
    pub fn client_call<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        client: ClientId,
        reqid: Reqid,
        call: &ReqCall<'_>,
    ) {
        self.counters.total_calls += 1;
        if !self.databases.contains_key(&call.db) {
            self.counters.calls_unknown_db += 1;
            return;
        }
        let origin = Origin::Client { client, reqid };
        match self.lock_or_park(cx, call.db, call.key, || park(origin, call)) {
            Locked::Yes => {}
            // Failed: the store has asked for a recovery; the thaw brings the call back.
            Locked::Failed => return self.park_until_thaw(call.db, park(origin, call)),
            Locked::Parked => return,
        }
        let mut value = std::mem::take(&mut self.value);
        let done = self.client_call_locked(cx, client, reqid, call, &mut value);
        self.value = value;
        cx.store.unlock(call.db, call.key);
        if done.is_err() {
            self.park_until_thaw(call.db, park(origin, call));
        }
    }

    fn client_call_locked<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        client: ClientId,
        reqid: Reqid,
        call: &ReqCall<'_>,
        value: &mut Vec<u8>,
    ) -> Result<(), FetchError> {
        let mut header = self.fetch_or_invent(cx, call.db, call.key, value)?;
        let origin = Origin::Client { client, reqid };
        if header.flags.intersects(RecordFlags::AUTOMATIC) && self.is_between_epochs(call.db) {
            self.park_until_thaw(call.db, park(origin, call));
            return Ok(());
        }
        if self.tunables.fetch_collapse
            && let Some(queue) = self.deferred_fetch_of(call.db, call.key)
        {
            queue.waiting.push_back(park(origin, call));
            return Ok(());
        }
        let mut wanted = self.wanted(call);
        match self.readonly_step(cx, call, wanted, &mut header, value)? {
            ReadOnlyStep::Proceed => {}
            step => {
                self.hold_for_revoke(cx, step, call, header, value, park(origin, call));
                return Ok(());
            }
        }
        let mut strip_header = false;
        if wanted.flags.intersects(CallFlags::WANT_READONLY) {
            strip_header = wanted.callid == CallId::FETCH;
            wanted.callid = CallId::FETCH_WITH_HEADER;
        }
        if header.dmaster.is(self.pnn) {
            self.execute(cx, call.db, call.key, wanted.callid, header, value)?;
            let skip = if strip_header { self.reply.len().min(24) } else { 0 };
            cx.out.reply_client(client, reqid, 0, &self.reply[skip..]);
            self.lease_serves(call.db, call.key, client);
            self.counters.latency.add(0.0);
            return Ok(());
        }
        self.lease_is_missed(cx.now, call.db, call.key, client);
        let asker = Asker::Client { client, reqid };
        if self.ask_cluster(cx, asker, call, wanted, strip_header, header.dmaster).is_err() {
            // The shard has stopped reading from clients long before; hold this one back.
            self.injected.push_back(park(origin, call));
        }
        Ok(())
    }

    /// Sends a call to the node that should have the record.
    ///
    /// # Errors
    /// When as many calls are under way as can be.
    pub(super) fn ask_cluster<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        asker: Asker,
        call: &ReqCall<'_>,
        wanted: Wanted,
        strip_header: bool,
        dmaster: Dmaster,
    ) -> Result<(), Full> {
        let pending = PendingCall {
            asker,
            db: call.db,
            flags: wanted.flags,
            callid: wanted.callid,
            strip_header,
            hopcount: 0,
            key: call.key.into(),
            calldata: call.calldata.into(),
            started: cx.now,
        };
        let Ok(reqid) = self.pending.insert(pending) else { return Err(Full) };
        self.counters.pending_calls = self.pending.len() as u64;
        let request = ReqCall { flags: wanted.flags, callid: wanted.callid, hopcount: 0, ..*call };
        // A dmaster that is no node: nobody answers, and the next recovery resends (as in C).
        if let Some(to) = dmaster.pnn() {
            self.send(cx, to, self.pnn, reqid, call.db, &Packet::ReqCall(request));
        }
        if self.tunables.fetch_collapse {
            self.open_deferred_fetch(cx.now, call.db, call.key);
        }
        Ok(())
    }

    /// A call from another node, or of our own sent again after a recovery.
    pub(super) fn node_call<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        call: &ReqCall<'_>,
    ) {
        let Origin::Node { node, reqid, generation } = origin else { return };
        if !self.databases.contains_key(&call.db) {
            return self.refuse(cx, node, reqid, call.db);
        }
        if let Some(queue) = self.pinned_queue(call.db, call.key) {
            queue.push_back(park(origin, call));
            return;
        }
        if node != self.pnn
            && let Some(queue) = self.leased_queue(cx.now, call.db, call.key)
        {
            queue.push_back(park(origin, call));
            return;
        }
        if let Some(waiting) = self.dmaster_change_of(call.db, call.key, generation) {
            waiting.push_back(park(origin, call));
            return;
        }
        match self.lock_or_park(cx, call.db, call.key, || park(origin, call)) {
            Locked::Yes => {}
            Locked::Failed => return self.refuse(cx, node, reqid, call.db),
            Locked::Parked => return,
        }
        let mut value = std::mem::take(&mut self.value);
        let done = self.node_call_locked(cx, origin, call, &mut value);
        self.value = value;
        cx.store.unlock(call.db, call.key);
        if done.is_err() {
            self.refuse(cx, node, reqid, call.db);
        }
    }

    fn node_call_locked<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        call: &ReqCall<'_>,
        value: &mut Vec<u8>,
    ) -> Result<(), FetchError> {
        let Origin::Node { node, reqid, .. } = origin else { return Ok(()) };
        let mut header = self.fetch_or_invent(cx, call.db, call.key, value)?;
        let wanted = self.wanted(call);
        if !header.dmaster.is(self.pnn) {
            // C looks for delegations first; only a dmaster can have any.
            self.redirect(cx, origin, call, header.dmaster);
            return Ok(());
        }
        match self.readonly_step(cx, call, wanted, &mut header, value)? {
            ReadOnlyStep::Proceed => {}
            step => {
                self.hold_for_revoke(cx, step, call, header, value, park(origin, call));
                return Ok(());
            }
        }
        if wanted.flags.intersects(CallFlags::WANT_READONLY)
            && wanted.callid == CallId::FETCH_WITH_HEADER
            && node != self.pnn
        {
            return self.delegate(cx, node, reqid, call, header, value);
        }
        self.count_hops(call.db, call.hopcount);
        self.consider_sticky(cx.now, call.db, call.key, call.hopcount);
        if node == self.pnn {
            self.execute(cx, call.db, call.key, wanted.callid, header, value)?;
            self.complete(cx, reqid, 0);
            return Ok(());
        }
        if let Some(db) = self.databases.get_mut(&call.db)
            && db.commit_active
        {
            // C drops it; without a recovery its caller then waits for ever.
            db.committing.push_back(park(origin, call));
            return Ok(());
        }
        self.hand_over(cx, call.db, call.key, node, reqid, header, value)
    }

    /// Forwards a call to the lmaster, or from the lmaster to the dmaster it knows.
    fn redirect<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        call: &ReqCall<'_>,
        dmaster: Dmaster,
    ) {
        let Origin::Node { node, reqid, .. } = origin else { return };
        let lmaster = self.lmaster(call.key);
        let to = if lmaster == self.pnn { dmaster.pnn() } else { Some(lmaster) };
        let forwarded = ReqCall { hopcount: call.hopcount.saturating_add(1), ..*call };
        if forwarded.hopcount % 100 > HOPS_BEFORE_COMPLAINT {
            cx.out.high_hop_count(call.db, call.key, forwarded.hopcount);
        }
        if let Some(to) = to {
            self.send(cx, to, node, reqid, call.db, &Packet::ReqCall(forwarded));
        }
    }

    /// A result from another node for a call of ours.
    pub(super) fn reply_call<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        origin: Origin,
        status: i32,
        data: &[u8],
    ) {
        let Origin::Node { reqid, .. } = origin else { return };
        let Some(pending) = self.pending.get(reqid) else { return };
        let copy = RecordHeader::split(data).filter(|(header, _)| {
            pending.callid == CallId::FETCH_WITH_HEADER
                && header.flags.intersects(RecordFlags::RO_HAVE_READONLY)
        });
        if let Some((header, copied)) = copy {
            let (db, key) = (pending.db, pending.key.clone());
            // Its client has its answer at once, even if the copy has to wait for its chain (C lets
            // both wait).
            if !self.keep_copy(cx, origin, db, &key, header, copied) {
                return; // a recovery is under way: the call is sent again after it
            }
        }
        self.reply.clear();
        self.reply.extend_from_slice(data);
        self.complete(cx, reqid, status);
    }

    /// An error from another node: the client hears nothing, as in C; a recovery resends the call.
    pub(super) fn reply_error(&mut self, reqid: Reqid) {
        let Some(pending) = self.pending.get(reqid) else { return };
        let (asker, db, key) = (pending.asker, pending.db, pending.key.clone());
        self.release_deferred_fetch(db, &key);
        if asker == Asker::Vacuum {
            self.pending.remove(reqid);
            self.counters.pending_calls = self.pending.len() as u64;
            self.fetch_ended(db);
        }
    }

    /// A fetch for vacuuming has come to its end: the next one may start.
    fn fetch_ended(&mut self, id: DbId) {
        if let Some(db) = self.databases.get_mut(&id) {
            db.fetches.ended();
        }
        self.wake_fetches(id);
    }

    /// Answers the client of a call of ours with what stands in `self.reply`.
    pub(super) fn complete<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        reqid: Reqid,
        status: i32,
    ) {
        let Some(pending) = self.pending.remove(reqid) else { return };
        match pending.asker {
            Asker::Client { client, reqid } => {
                let skip = if pending.strip_header { self.reply.len().min(24) } else { 0 };
                cx.out.reply_client(client, reqid, status, &self.reply[skip..]);
            }
            Asker::Vacuum => self.fetch_ended(pending.db),
        }
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one call")]
        self.counters.latency.add(cx.now.since(pending.started) as f64 / 1_000.0);
        self.counters.pending_calls = self.pending.len() as u64;
        self.release_deferred_fetch(pending.db, &pending.key);
    }

    /// Runs a call's function here and writes the record back, so that its rsn grows and the
    /// delete queue is kept; leaves the result in `self.reply`.
    pub(super) fn execute<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        callid: CallId,
        header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        self.reply.clear();
        match callid {
            CallId::FETCH => self.reply.extend_from_slice(value),
            CallId::FETCH_WITH_HEADER => {
                self.reply.extend_from_slice(&header.to_array());
                self.reply.extend_from_slice(value);
            }
            // NULL, and functions that nobody has: an empty answer, as in C.
            _ => {}
        }
        self.write(cx, db, key, header, value).map(drop)
    }

    /// Reads a record; one that is not there gets an invented header, which is stored at once
    /// where this node is the one to know of it.
    pub(super) fn fetch_or_invent<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<RecordHeader, FetchError> {
        if let Some(header) = cx.store.fetch(db, key, value)? {
            return Ok(header);
        }
        value.clear();
        let lmaster = self.lmaster(key);
        let invented = RecordHeader {
            rsn: Rsn(0),
            dmaster: Dmaster::from(lmaster),
            flags: RecordFlags::AUTOMATIC,
        };
        let persistent = self.databases.get(&db).is_some_and(|db| {
            db.flags.intersects(ringmaster_protocol::database::DbFlags::PERSISTENT)
        });
        if persistent || (lmaster == self.pnn && !self.is_between_epochs(db)) {
            return self.write(cx, db, key, invented, value);
        }
        Ok(invented)
    }

    /// Whether a recovery has brought a new map, and not yet the records that go with it. Being
    /// lmaster by that map proves nothing: the record may be at its dmaster, with a client writing.
    /// The thaw of that recovery is certain to come.
    pub(super) fn is_between_epochs(&self, db: DbId) -> bool {
        self.databases
            .get(&db)
            .is_some_and(|db| db.is_volatile() && db.generation != self.vnn_map.generation)
    }

    /// Stores by the daemon's rule; returns the header as it stands afterwards.
    pub(super) fn write<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
        header: RecordHeader,
        value: &[u8],
    ) -> Result<RecordHeader, FetchError> {
        let lmaster = self.lmaster(key);
        let Some(db) = self.databases.get_mut(&id) else { return Err(FetchError) };
        if !db.is_volatile() {
            cx.store.store(id, key, header, value)?;
            return Ok(header);
        }
        match decide(header, value.is_empty(), self.pnn, lmaster) {
            Some(StoreDecision::Keep { header, schedule }) => {
                cx.store.store(id, key, header, value)?;
                if schedule {
                    db.deletions.insert(key, header);
                } else {
                    db.deletions.remove(key);
                }
                Ok(header)
            }
            Some(StoreDecision::Delete { header }) => {
                cx.store.delete(id, key)?;
                db.deletions.remove(key);
                Ok(header)
            }
            // 2^64 changes of one record: it stays as it is, the request fails.
            None => Err(FetchError),
        }
    }

    fn wanted(&self, call: &ReqCall<'_>) -> Wanted {
        let readonly = self.databases.get(&call.db).is_some_and(super::Database::is_readonly);
        let flags =
            if readonly { call.flags } else { call.flags.without(CallFlags::WANT_READONLY) };
        Wanted { flags, callid: call.callid }
    }

    fn count_hops(&mut self, db: DbId, hopcount: u32) {
        let bucket = (32 - hopcount.leading_zeros()).min(15) as usize;
        self.counters.max_hop_count = self.counters.max_hop_count.max(hopcount);
        self.counters.hop_count_bucket[bucket] += 1;
        if let Some(db) = self.databases.get_mut(&db) {
            db.statistics.hop_count_bucket[bucket] += 1;
        }
    }

    /// `REPLY_ERROR` in C's words.
    pub(super) fn refuse<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        to: Pnn,
        reqid: Reqid,
        db: DbId,
    ) {
        if to == self.pnn {
            return self.reply_error(reqid);
        }
        let text = if self.databases.contains_key(&db) {
            "ltdb fetch failed in ctdb_request_call".to_owned()
        } else {
            format!("Unknown database in request. db_id==0x{:08x}", db.0)
        };
        let error = ReplyError { status: -1, message: text.as_bytes() };
        self.send(cx, to, self.pnn, reqid, db, &Packet::ReplyError(error));
    }

    /// Sends a packet for a record; one to this node is put aside and processed next.
    pub(super) fn send<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        to: Pnn,
        source: Pnn,
        reqid: Reqid,
        db: DbId,
        packet: &Packet<'_>,
    ) {
        let database = self.databases.get(&db);
        let generation = database.map_or(self.vnn_map.generation, |db| db.generation);
        if to != self.pnn {
            cx.out.send_node(to, NodeEnvelope { source, reqid, generation }, packet);
            return;
        }
        let origin = Origin::Node { node: source, reqid, generation };
        let work = match packet {
            Packet::ReqCall(call) => park(origin, call).work,
            Packet::ReplyCall(ReplyCall { status, data }) => {
                Work::ReplyCall { status: *status, data: (*data).into() }
            }
            Packet::ReplyDmaster(reply) => {
                Work::ReplyDmaster { packet: super::migration::Handover::of_reply(reply) }
            }
            // A lmaster hands over to itself without a packet; errors to self end above.
            _ => return,
        };
        self.injected.push_back(Parked { origin, work });
    }

    fn park_until_thaw(&mut self, db: DbId, parked: Parked) {
        if let Some(db) = self.databases.get_mut(&db) {
            db.frozen.push_back(parked);
        }
    }
}

/// A call taken out of its packet.
pub(super) fn park(origin: Origin, call: &ReqCall<'_>) -> Parked {
    Parked {
        origin,
        work: Work::Call {
            flags: call.flags,
            db: call.db,
            callid: call.callid,
            hopcount: call.hopcount,
            key: call.key.into(),
            calldata: call.calldata.into(),
        },
    }
}
