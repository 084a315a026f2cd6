//! Recovery of one database.
//!
//! Role: C's steps D1 to D10 on all nodes of the recovery, up to three attempts.
//! Invariant: a node reads a database's new content only after every node has it: commit and thaw
//! follow a push that all have confirmed.
//! Origin: `docs/spec/cluster-semantics.md` 7.4; `ctdb_recovery_helper.c: recover_db_send`.

use ringmaster_protocol::{
    DbId, Generation, Pnn,
    control::kinds,
    control_packet::ControlFlags,
    database::{DbFlags, TransDb},
    text::Text,
};
use tracing::{info, warn};

use super::{
    ask::{Failed, multi, multi_flagged, read},
    collect::collect,
    push::push,
};
use crate::node::NodeCx;

/// Attempts before the database counts as failed.
const ATTEMPTS: u32 = 3;

/// A database to be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Id.
    pub db: DbId,
    /// PERSISTENT, REPLICATED or neither.
    pub kind: DbFlags,
    /// Nodes that have it.
    pub holders: Vec<Pnn>,
    /// All nodes of the recovery, by number.
    pub nodes: Vec<Pnn>,
    /// This node.
    pub leader: Pnn,
    /// Of this recovery.
    pub generation: Generation,
    /// As its holders say; empty before they have been asked.
    pub name: String,
}

impl Target {
    pub(super) const fn is_persistent(&self) -> bool {
        self.kind.intersects(DbFlags::PERSISTENT)
    }

    pub(super) const fn is_volatile(&self) -> bool {
        !self.kind.intersects(DbFlags(DbFlags::PERSISTENT.0 | DbFlags::REPLICATED.0))
    }
}

/// Recovers it; `credit` hears of each node that an attempt failed on. Whether it worked.
pub(super) async fn recover(cx: &NodeCx, mut target: Target, credit: impl Fn(Pnn)) -> bool {
    for attempt in 1..=ATTEMPTS {
        match steps(cx, &mut target).await {
            Ok(()) => return true,
            Err(Problem { failed, blamed }) => {
                warn!("Failed to recover database {} (attempt {attempt}): {failed}", target.db);
                if blamed {
                    credit(failed.node);
                }
            }
        }
    }
    false
}

/// A failed step, and whether the node where it failed gets a credit for it.
struct Problem {
    failed: Failed,
    blamed: bool,
}

const fn blamed(failed: Failed) -> Problem {
    Problem { failed, blamed: true }
}

const fn unblamed(failed: Failed) -> Problem {
    Problem { failed, blamed: false }
}

async fn steps(cx: &NodeCx, target: &mut Target) -> Result<(), Problem> {
    target.name = common_name(cx, target).await.map_err(blamed)?;
    attach_missing(cx, target).await.map_err(blamed)?;
    let (db, nodes) = (target.db, &target.nodes);
    multi::<kinds::DbFreeze>(cx, nodes, &db).await.map_err(blamed)?;
    let transaction = TransDb { db, tid: target.generation };
    multi::<kinds::DbTransactionStart>(cx, nodes, &transaction).await.map_err(unblamed)?;
    let set = collect(cx, target).await.map_err(blamed)?;
    multi::<kinds::WipeDatabase>(cx, nodes, &transaction).await.map_err(unblamed)?;
    push(cx, target, set).await.map_err(unblamed)?;
    multi::<kinds::DbTransactionCommit>(cx, nodes, &transaction).await.map_err(unblamed)?;
    multi::<kinds::DbThaw>(cx, nodes, &db).await.map_err(unblamed)?;
    Ok(())
}

/// The name that all holders agree on.
async fn common_name(cx: &NodeCx, target: &Target) -> Result<String, Failed> {
    let answers = multi::<kinds::GetDbName>(cx, &target.holders, &target.db).await?;
    let mut name: Option<String> = None;
    for (node, answer) in &answers {
        let found = read::<kinds::GetDbName>(answer).map(|text| text.as_bytes().to_vec());
        let Some(found) = found.and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return Err(Failed::new(*node, "the database's name is no text"));
        };
        match &name {
            Some(name) if *name != found => {
                let reason = format!("the database is called {found} here, {name} elsewhere");
                return Err(Failed::new(*node, reason));
            }
            _ => name = Some(found),
        }
    }
    name.ok_or_else(|| Failed::new(target.leader, "no node has the database"))
}

/// Attaches it where it is missing.
async fn attach_missing(cx: &NodeCx, target: &mut Target) -> Result<(), Failed> {
    let missing: Vec<Pnn> =
        target.nodes.iter().filter(|node| !target.holders.contains(node)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    info!("attaching {} on {} nodes that lack it", target.name, missing.len());
    let name = Text::new(&target.name);
    let flags = ControlFlags::ATTACH_RECOVERY;
    if target.is_persistent() {
        multi_flagged::<kinds::DbAttachPersistent>(cx, &missing, &name, flags).await?;
    } else if target.is_volatile() {
        multi_flagged::<kinds::DbAttach>(cx, &missing, &name, flags).await?;
    } else {
        multi_flagged::<kinds::DbAttachReplicated>(cx, &missing, &name, flags).await?;
    }
    target.holders.clone_from(&target.nodes);
    Ok(())
}
