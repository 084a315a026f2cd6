//! Packets put aside: why they wait is elsewhere, here is what they are and how they come back.
//!
//! Invariants
//! - Whoever waits for its chain holds the lock when it is processed again.
//! - Packets of one key that meet a busy chain are processed in the order in which they came; nobody
//!   who comes later finds the chain free in between.

use ringmaster_protocol::{
    DbId, Generation, Pnn, Reqid,
    call::{CallFlags, CallId, ReqCall},
    record::RecordHeader,
};

use super::{
    ClientId, Context, CopyUpdate, LockOutcome, Output, RecordEngine, RecordStore, Ticket,
    UpdateToken, migration,
};

/// Who asked, and how to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Client {
        client: ClientId,
        reqid: Reqid,
    },
    /// `node` may be this one: a call sent again after a recovery.
    Node {
        node: Pnn,
        reqid: Reqid,
        generation: Generation,
    },
}

/// A call taken out of its packet, to be processed again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) origin: Origin,
    pub(super) work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Call {
        flags: CallFlags,
        db: DbId,
        callid: CallId,
        hopcount: u32,
        key: Box<[u8]>,
        calldata: Box<[u8]>,
    },
    /// `REQ_DMASTER`; the boxed bytes are the record's.
    ReqDmaster {
        packet: migration::Handover,
        dmaster: Pnn,
    },
    ReplyDmaster {
        packet: migration::Handover,
    },
    /// A read-only copy that has come; its client has its answer already.
    KeepCopy {
        db: DbId,
        key: Box<[u8]>,
        header: RecordHeader,
        data: Box<[u8]>,
    },
    /// A copy of this node's is called back.
    UpdateCopy {
        token: UpdateToken,
        db: DbId,
        key: Box<[u8]>,
        header: RecordHeader,
        data: Box<[u8]>,
    },
    /// A `REPLY_CALL` of this node to itself.
    ReplyCall {
        status: i32,
        data: Box<[u8]>,
    },
    /// Records to be fetched for vacuuming.
    Fetches {
        db: DbId,
    },
    /// A revoke whose updates are done.
    FinishRevoke {
        db: DbId,
        key: Box<[u8]>,
    },
}

impl Work {
    /// Work that has to come to its end whatever has become of the epoch.
    pub(super) const fn outlives_epoch(&self) -> bool {
        matches!(self, Self::FinishRevoke { .. } | Self::UpdateCopy { .. } | Self::Fetches { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Yes,
    Parked,
    Failed,
}

impl RecordEngine {
    /// A database has been frozen: packets whose waits the store has given up wait for the thaw, and
    /// nothing is kept here for anybody.
    pub fn frozen(&mut self, id: DbId, tickets: &[Ticket]) {
        self.end_leases(id);
        for ticket in tickets {
            let Some((id, key, parked)) = self.waiting.remove(ticket) else { continue };
            let Some(db) = self.databases.get_mut(&id) else { continue };
            db.no_longer_waits(&key);
            // A copy is not worth waiting for: until the thaw it may be called back.
            if !matches!(parked.work, Work::KeepCopy { .. }) {
                db.frozen.push_back(parked);
            }
        }
    }

    /// The chain that `ticket` waited for is locked for us; it is unlocked when this returns.
    pub fn chain_ready<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        ticket: Ticket,
    ) {
        let Some((id, key, parked)) = self.waiting.remove(&ticket) else { return };
        if let Some(db) = self.databases.get_mut(&id) {
            db.no_longer_waits(&key);
        }
        self.chain_is_granted = true;
        self.process(cx, parked);
        self.chain_is_granted = false;
        cx.store.unlock(id, &key);
    }

    /// Processes something that was put aside. A node's packet that waited over a change of the
    /// epoch is dropped: its sender sends it again.
    pub(super) fn process<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        parked: Parked,
    ) {
        let Parked { origin, work } = parked;
        if let (Origin::Node { generation, .. }, false) = (origin, work.outlives_epoch())
            && generation != self.vnn_map.generation
        {
            return;
        }
        match (work, origin) {
            (Work::Call { flags, db, callid, hopcount, key, calldata }, origin) => {
                let (key, calldata) = (&*key, &*calldata);
                let call = ReqCall { flags, db, callid, hopcount, key, calldata };
                match origin {
                    Origin::Client { client, reqid } => self.client_call(cx, client, reqid, &call),
                    Origin::Node { .. } => self.node_call(cx, origin, &call),
                }
            }
            (Work::ReqDmaster { packet, dmaster }, origin) => {
                self.req_dmaster(cx, origin, packet, dmaster);
            }
            (Work::ReplyDmaster { packet }, origin) => self.reply_dmaster(cx, origin, packet),
            (Work::ReplyCall { status, data }, origin @ Origin::Node { .. }) => {
                self.reply_call(cx, origin, status, &data);
            }
            (Work::KeepCopy { db, key, header, data }, origin) => {
                // Frozen or broken: it is not kept.
                let _ = self.keep_copy(cx, origin, db, &key, header, &data);
            }
            (
                Work::UpdateCopy { token, db, key, header, data },
                Origin::Node { generation, .. },
            ) => {
                let (key, data) = (&*key, &*data);
                let update = CopyUpdate { db, generation, key, header, data };
                self.update_copy(cx, token, &update);
            }
            (Work::ReplyCall { .. } | Work::UpdateCopy { .. }, Origin::Client { .. }) => {}
            (Work::Fetches { db }, _) => self.start_fetches(cx, db),
            (Work::FinishRevoke { db, key }, _) => self.finish_revoke(cx, db, &key),
        }
    }

    /// Locks the chain of `key`; who waits already comes first.
    pub(super) fn try_lock<S: RecordStore, O: Output>(
        &self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
    ) -> LockOutcome {
        let must_queue = !self.chain_is_granted
            && !self.waiting.is_empty()
            && self.databases.get(&db).is_some_and(|db| db.waiting.contains_key(key));
        if must_queue { LockOutcome::Busy } else { cx.store.try_lock(db, key) }
    }

    /// Lets a packet wait for its chain.
    pub(super) fn wait_for_chain<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
        key: &[u8],
        parked: Parked,
    ) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        *db.waiting.entry(key.into()).or_default() += 1;
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, (id, key.into(), parked));
        cx.out.wait_for_chain(id, key, ticket);
    }

    /// Locks the chain of `key`, or parks the packet until that is possible.
    pub(super) fn lock_or_park<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        parked: impl FnOnce() -> Parked,
    ) -> Locked {
        match self.try_lock(cx, db, key) {
            LockOutcome::Locked => Locked::Yes,
            LockOutcome::Busy => {
                self.wait_for_chain(cx, db, key, parked());
                Locked::Parked
            }
            LockOutcome::Frozen => {
                if let Some(database) = self.databases.get_mut(&db) {
                    database.frozen.push_back(parked());
                }
                Locked::Parked
            }
            LockOutcome::Failed => Locked::Failed,
        }
    }
}
