//! Collecting a database: pulling it from the nodes into one merged set.
//!
//! Invariants
//! - A stream's batches are merged as they arrive; the mailbox never holds a whole database.
//! - The number of records received equals the number the sender says it has sent, or the pull
//!   has failed.
//! - The srvid of a stream is given back whatever happens.
//!
//! Origin: `docs/spec/cluster-semantics.md` 7.5; `ctdb_recovery_helper.c: pull_database_send`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
};

use ringmaster_protocol::{
    Pnn, Srvid,
    control::kinds,
    database::{GetDbSeqnum, PullDb},
};

use super::{
    ask::{Failed, judge, multi, outgoing, read},
    database::Target,
    merge::{BatchError, MergeSet},
};
use crate::node::{
    NodeCx,
    world::{Ask, Tell},
};

/// How long the next batch may come after the reply that announces their number, in seconds. On one
/// connection all come before it; those of this node come by another way than its replies.
const LATE_BATCH_S: u32 = 5;

/// Pulls the database: volatile from every node, others from the one with the highest sequence
/// number.
pub(super) async fn collect(cx: &NodeCx, target: &Target) -> Result<MergeSet, Failed> {
    let mut set = MergeSet::new(target.db, target.leader);
    if target.is_volatile() {
        for node in &target.nodes {
            pull(cx, target, *node, &mut set).await?;
        }
    } else {
        let newest = newest(cx, target).await?;
        pull(cx, target, newest, &mut set).await?;
    }
    Ok(set)
}

/// The node with the highest sequence number. Of equals this one: it has been in service, while
/// another may come from the wrong side of a split with a commit that nobody has confirmed. (C takes
/// the first.)
async fn newest(cx: &NodeCx, target: &Target) -> Result<Pnn, Failed> {
    let request = GetDbSeqnum { db: target.db };
    let answers = multi::<kinds::GetDbSeqnum>(cx, &target.nodes, &request).await?;
    let seqnum = |answer| read::<kinds::GetDbSeqnum>(answer).map_or(0, |seqnum| seqnum.0);
    let own = answers.iter().find(|(node, _)| *node == target.leader);
    let mut best = (target.leader, own.map_or(0, |(_, answer)| seqnum(answer)));
    for (node, answer) in &answers {
        let found = seqnum(answer);
        if found > best.1 {
            best = (*node, found);
        }
    }
    Ok(best.0)
}

async fn pull(cx: &NodeCx, target: &Target, node: Pnn, set: &mut MergeSet) -> Result<(), Failed> {
    let stream = Stream::open(cx).await;
    let request = PullDb { db: target.db, lmaster: PullDb::LMASTER_ANY, srvid: stream.srvid };
    let what = outgoing::<kinds::DbPull>(&cx.state(), node, &request);
    let mut asked = cx.ask(Ask::Control(what));
    let mut received = Received { count: 0, error: None };
    let outcome = poll_fn(|task| {
        stream.drain(cx, set, &mut received);
        Pin::new(&mut asked).poll(task)
    })
    .await;
    let answer = judge::<kinds::DbPull>(node, outcome)?;
    let announced = read::<kinds::DbPull>(&answer).map_or(0, |count| u64::from(count.0));
    stream.drain(cx, set, &mut received);
    while received.error.is_none() && received.count < announced {
        let srvid = stream.srvid;
        let deadline = cx.now().plus_seconds(LATE_BATCH_S);
        let more =
            cx.until_or(deadline, |state| state.mailbox.iter().any(|(id, _)| *id == srvid)).await;
        if !more {
            break;
        }
        stream.drain(cx, set, &mut received);
    }
    if let Some(error) = received.error {
        return Err(Failed::new(node, format!("pull of {}: {error}", target.name)));
    }
    if received.count != announced {
        let reason = format!(
            "pull of {}: {} records received, {announced} sent",
            target.name, received.count
        );
        return Err(Failed::new(node, reason));
    }
    Ok(())
}

struct Received {
    count: u64,
    error: Option<BatchError>,
}

/// A srvid for one pull; given back when dropped.
struct Stream {
    cx: NodeCx,
    srvid: Srvid,
}

impl Stream {
    async fn open(cx: &NodeCx) -> Self {
        let srvid = next_srvid(cx);
        cx.state_mut().recd.pulls.insert(srvid);
        let stream = Self { cx: cx.clone(), srvid };
        cx.ask(Ask::ListenSrvid(srvid)).await;
        stream
    }

    /// Merges what has arrived.
    fn drain(&self, cx: &NodeCx, set: &mut MergeSet, received: &mut Received) {
        loop {
            let position = cx.state().mailbox.iter().position(|(srvid, _)| *srvid == self.srvid);
            let Some(position) = position else { return };
            let Some((_, batch)) = cx.state_mut().mailbox.remove(position) else { return };
            if received.error.is_some() {
                continue;
            }
            match set.add(&batch) {
                Ok(count) => received.count += u64::from(count),
                Err(error) => received.error = Some(error),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cx.state_mut().recd.pulls.remove(&self.srvid);
        self.cx.tell(Tell::ForgetSrvid(self.srvid));
    }
}

/// A srvid that no other stream of this node has. Nodes start at different numbers, so that the
/// streams of two nodes that both believe to lead hardly meet.
pub(super) fn next_srvid(cx: &NodeCx) -> Srvid {
    let random = cx.random();
    let mut state = cx.state_mut();
    if state.recd.stream == 0 {
        state.recd.stream = random >> 1;
    }
    state.recd.stream = state.recd.stream.wrapping_add(1);
    Srvid::recovery(state.recd.stream)
}
