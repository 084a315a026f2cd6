//! Pushing a merged database to the nodes.
//!
//! Invariants
//! - Every node gets every batch, in the same order; each confirms the number of records.
//! - At most [`BATCHES_UNDERWAY_MAX`] batches per node have been sent and not yet arrived, or for
//!   this node not yet stored.
//! - What this node gets goes straight into its mailbox: a control to itself (the confirmation) is
//!   handled at once and would overtake a message that goes through the data plane.
//!
//! Origin: `docs/spec/cluster-semantics.md` 7.6; `ctdb_recovery_helper.c: push_database_send`.

use ringmaster_protocol::{
    Destination, control::kinds, database::PullDb, record::RecBufferBuilder, tunable::Tunable,
};

use super::{
    ask::{Failed, multi, read},
    collect::next_srvid,
    database::Target,
    merge::MergeSet,
};
use crate::node::{NodeCx, world::Tell};

/// Batches between two signs of life of all receivers. A message has no answer, so the sender asks
/// for one (PING) after so many: what follows waits until all have arrived.
const BATCHES_UNDERWAY_MAX: usize = 8;

/// Pushes the set, which is empty afterwards.
pub(super) async fn push(cx: &NodeCx, target: &Target, mut set: MergeSet) -> Result<(), Failed> {
    let size_limit = cx.state().tunables.value(Tunable::RecBufferSizeLimit) as usize;
    let srvid = next_srvid(cx);
    let start = PullDb { db: target.db, lmaster: PullDb::LMASTER_ANY, srvid };
    multi::<kinds::DbPushStart>(cx, &target.nodes, &start).await?;
    let mut pushed: u64 = 0;
    let mut batches = 0;
    loop {
        let batch = set.next_batch(size_limit, target.is_persistent());
        if batch.is_none() && batches > 0 {
            break;
        }
        // There is always one batch, perhaps an empty one.
        let batch = batch.unwrap_or_else(|| RecBufferBuilder::new(target.db));
        if batches > 0 && batches % BATCHES_UNDERWAY_MAX == 0 {
            multi::<kinds::Ping>(cx, &target.nodes, &()).await?;
            cx.until(|state| !state.mailbox.iter().any(|(to, _)| *to == srvid)).await;
        }
        batches += 1;
        pushed += u64::from(batch.count());
        let data = batch.into_bytes();
        for node in target.nodes.iter().filter(|node| **node != target.leader) {
            let to = Destination::Node(*node);
            cx.tell(Tell::Message { to, srvid, data: data.clone() });
        }
        cx.state_mut().mailbox.push_back((srvid, data));
    }
    let answers = multi::<kinds::DbPushConfirm>(cx, &target.nodes, &target.db).await?;
    for (node, answer) in &answers {
        let stored = read::<kinds::DbPushConfirm>(answer).map_or(0, |count| u64::from(count.0));
        if stored != pushed {
            let reason = format!("push of {}: {stored} records stored, {pushed} sent", target.name);
            return Err(Failed::new(*node, reason));
        }
    }
    Ok(())
}
