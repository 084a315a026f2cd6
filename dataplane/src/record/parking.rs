//! Packets put aside: why they wait is elsewhere, here is what they are and how they come back.
//!
//! Invariant: whoever waits for its chain holds the lock when it is processed again.

use ringmaster_protocol::{
    DbId, Generation, Pnn, Reqid,
    call::{CallFlags, CallId, ReqCall},
};

use super::{ClientId, Context, LockOutcome, Output, RecordEngine, RecordStore, Ticket, migration};

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
    /// A `REPLY_CALL` of this node to itself.
    ReplyCall {
        status: i32,
        data: Box<[u8]>,
    },
    /// A revoke whose updates are done.
    FinishRevoke {
        db: DbId,
        key: Box<[u8]>,
    },
}

impl Work {
    /// Work of this node's own that no change of the epoch makes void.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self, Self::FinishRevoke { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    Yes,
    Parked,
    Failed,
}

impl RecordEngine {
    /// Waits that the store has given up because it is frozen: their packets wait for the thaw.
    pub fn waits_given_up(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let Some((id, _, parked)) = self.waiting.remove(ticket) else { continue };
            if let Some(db) = self.databases.get_mut(&id) {
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
        if let Some((db, key, parked)) = self.waiting.remove(&ticket) {
            self.process(cx, parked);
            cx.store.unlock(db, &key);
        }
    }

    /// Processes something that was put aside. A node's packet that waited over a change of the
    /// epoch is dropped: its sender sends it again.
    pub(super) fn process<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        parked: Parked,
    ) {
        let Parked { origin, work } = parked;
        if let (Origin::Node { generation, .. }, false) = (origin, work.is_ours())
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
            (Work::ReplyCall { status, data }, Origin::Node { reqid, .. }) => {
                self.reply_call(cx, reqid, status, &data);
            }
            (Work::ReplyCall { .. }, Origin::Client { .. }) => {}
            (Work::FinishRevoke { db, key }, _) => self.finish_revoke(cx, db, &key),
        }
    }

    /// Locks the chain of `key`, or parks the packet until that is possible.
    pub(super) fn lock_or_park<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        parked: impl FnOnce() -> Parked,
    ) -> Locked {
        match cx.store.try_lock(db, key) {
            LockOutcome::Locked => Locked::Yes,
            LockOutcome::Busy => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.waiting.insert(ticket, (db, key.into(), parked()));
                cx.out.wait_for_chain(db, key, ticket);
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
