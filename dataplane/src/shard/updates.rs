//! Copies that other nodes call back: from control's order to the owners of their chains.
//!
//! Role: an `UPDATE_RECORD` has come by way of control, and a copy that it calls back may still be on
//! its way from the shard that reads from that node to the shard that owns the chain. So every shard
//! that has got the order tells the owners; an owner that has heard from all others knows that
//! whatever they had for it before is there, and hands the update to its engine.
//! Invariants
//! - An order is acknowledged by an owner when its engine has answered for every record, by others
//!   at once.
//! - What is open for a database that is detached is acknowledged as refused.
//! - At most as many updates are open as control has requests under way.
//!
//! Origin: ours.

use std::{collections::BTreeMap, sync::Arc};

use ringmaster_protocol::{DbId, Decode, Generation, record::RecBuffer};

use super::{
    ShardId,
    message::{AckToken, FromShard, ToShard},
    runtime::Shard,
};
use crate::record::{CopyUpdate, UpdateToken};

/// An `UPDATE_RECORD` of a volatile database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyUpdates {
    /// Which.
    pub db: DbId,
    /// Of the sender's map when it sent this.
    pub generation: Generation,
    /// A `ctdb_rec_buffer`.
    pub buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    update: Arc<CopyUpdates>,
    /// Records of this shard that the engine has not answered for.
    left: usize,
    done: bool,
}

/// Updates that are under way in this shard.
#[derive(Debug, Default)]
pub(super) struct Updates {
    open: BTreeMap<AckToken, Open>,
    /// How many other shards have said that they have nothing older; the order may come later.
    marks: BTreeMap<AckToken, u16>,
    /// The last order: one before it that is not open has ended.
    last: Option<AckToken>,
}

impl Shard {
    /// Control's order.
    pub(super) fn update_copies(&mut self, token: AckToken, update: Arc<CopyUpdates>) {
        self.updates.last = Some(token);
        let mut left = 0;
        let mut owners = Vec::new();
        let known = self.store.knows(update.db);
        if let (true, Ok(buffer)) = (known, RecBuffer::from_bytes(&update.buffer)) {
            for record in &buffer {
                let owner = self.owner(update.db, record.key);
                if owner == self.id {
                    left += 1;
                } else if !owners.contains(&owner) {
                    owners.push(owner);
                }
            }
        }
        for owner in owners {
            self.mark(owner, token);
        }
        if left == 0 {
            return self.acknowledge(token, known);
        }
        self.updates.open.insert(token, Open { update, left, done: true });
        self.start_update(token);
    }

    fn mark(&mut self, owner: ShardId, token: AckToken) {
        if let Some(peer) = self.io.peer(owner) {
            peer.send_reply(ToShard::UpdateMark(token));
        }
    }

    /// Another shard has got the order, and everything that it had for this one is here.
    pub(super) fn update_marked(&mut self, token: AckToken) {
        let updates = &self.updates;
        if updates.last.is_some_and(|last| token <= last) && !updates.open.contains_key(&token) {
            return;
        }
        *self.updates.marks.entry(token).or_default() += 1;
        self.start_update(token);
    }

    fn start_update(&mut self, token: AckToken) {
        let marks = self.updates.marks.get(&token).copied().unwrap_or(0);
        let Some(open) = self.updates.open.get(&token) else { return };
        if marks + 1 < self.shards {
            return;
        }
        self.updates.marks.remove(&token);
        let update = Arc::clone(&open.update);
        let Ok(buffer) = RecBuffer::from_bytes(&update.buffer) else { return };
        for record in &buffer {
            if self.owner(update.db, record.key) != self.id {
                continue;
            }
            let Some((header, data)) = record.split_header() else {
                self.record_updated(token, -1);
                continue;
            };
            let CopyUpdates { db, generation, .. } = *update;
            let record = CopyUpdate { db, generation, key: record.key, header, data };
            self.with_engine(|engine, cx| engine.update_copy(cx, UpdateToken(token.0), &record));
        }
    }

    /// The engine has answered for one record.
    pub(super) fn record_updated(&mut self, token: AckToken, status: i32) {
        let Some(open) = self.updates.open.get_mut(&token) else { return };
        open.done &= status == 0;
        open.left -= 1;
        if open.left == 0 {
            let done = open.done;
            self.updates.open.remove(&token);
            self.acknowledge(token, done);
        }
    }

    /// The engine has forgotten a database, and what waited there.
    pub(super) fn forget_updates(&mut self, db: DbId) {
        let of_db = |(token, open): (&AckToken, &Open)| (open.update.db == db).then_some(*token);
        let tokens: Vec<AckToken> = self.updates.open.iter().filter_map(of_db).collect();
        for token in tokens {
            self.updates.open.remove(&token);
            self.updates.marks.remove(&token);
            self.acknowledge(token, false);
        }
    }

    pub(super) fn acknowledge(&mut self, token: AckToken, done: bool) {
        self.io.control.send_reply(FromShard::Ack { shard: self.id, token, done });
    }
}
