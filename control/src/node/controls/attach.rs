//! Attaching a database: by clients, by other nodes, by a recovery, at the start.
//!
//! Invariants
//! - One attach per name at a time; a second one waits and then finds the database, which every
//!   shard knows by then: its client asks for the path next.
//! - A database that is new here is announced to the others; a known one is not, so that the
//!   announcements end.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.1, 2.2; `ctdb/server/ctdb_ltdb_server.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId,
    control::{ControlOpcode, ControlRequest},
    control_packet::ControlFlags,
    database::DbFlags,
    process::{RecMode, RunState},
    text::Text,
    tunable::Tunable,
    wire::Encode,
};

use super::{
    answer::{Call, broadcast_to_others, gone_client, payload, publish, refused},
    vacuum,
};
use crate::node::{
    Ask, NodeCx, Outcome, State,
    state::{Database, FreezeState},
    world::{ControlAnswer, DataAsk},
};

/// A deferred attach is tried again this long after the end of a recovery, in milliseconds.
const RETRY_MS: u64 = 1_000;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::DbAttach(name) => attach(cx, call, name, DbFlags::NONE).await,
        ControlRequest::DbAttachPersistent(name) => {
            attach(cx, call, name, DbFlags::PERSISTENT).await
        }
        ControlRequest::DbAttachReplicated(name) => {
            attach(cx, call, name, DbFlags::REPLICATED).await
        }
        other => return ControlFlow::Continue(other),
    })
}

/// What is to be done with a request to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    /// After the recovery.
    Later,
    /// Somebody else is about to attach it.
    Busy,
    Known(DbId),
    New,
}

fn judge(state: &State, call: &Call, name: &str, kind: DbFlags) -> Verdict {
    if state.tunable(Tunable::AllowClientDBAttach) == 0 {
        return Verdict::Refused;
    }
    if call.client(state).is_some() {
        let recovering = state.recovery_mode == RecMode::Active;
        if state.is_inactive() {
            return Verdict::Refused;
        }
        if call.flags.contains(ControlFlags::ATTACH_RECOVERY) {
            if !recovering {
                return Verdict::Refused;
            }
        } else if recovering || state.run_state < RunState::Startup {
            return Verdict::Later;
        }
    }
    match state.database(DbId::from_name(name)) {
        _ if state.attaching.contains(name) => Verdict::Busy,
        // Another name with the same hash, or another kind.
        Some(db) if db.name != name || !db.flags.contains(kind) => Verdict::Refused,
        Some(db) => Verdict::Known(db.id),
        None => Verdict::New,
    }
}

async fn attach(cx: &NodeCx, call: &Call, name: Text<'_>, kind: DbFlags) -> ControlAnswer {
    let Some(name) = name.as_str() else { return refused() };
    loop {
        let verdict = judge(&cx.state(), call, name, kind);
        match verdict {
            Verdict::Refused => return refused(),
            Verdict::Known(id) => return payload(&id),
            Verdict::Busy => {
                let awaited = name.to_owned();
                cx.until(move |state| !state.attaching.contains(&awaited)).await;
            }
            Verdict::Later => {
                if !recovery_has_ended(cx, call).await {
                    return refused();
                }
            }
            Verdict::New => {
                return match open(cx, name, kind, false).await {
                    Ok(id) => {
                        announce(cx, name, kind);
                        payload(&id)
                    }
                    Err(reason) => {
                        tracing::error!(name, reason, "cannot attach the database");
                        refused()
                    }
                };
            }
        }
    }
}

/// Waits until a recovery has ended, and a moment more; `false` if that takes too long or the
/// client goes.
async fn recovery_has_ended(cx: &NodeCx, call: &Call) -> bool {
    let (seen, deadline) = {
        let state = cx.state();
        let limit_s = state.tunable(Tunable::DeferredAttachTO);
        (state.recoveries_left, cx.now().plus_seconds(limit_s))
    };
    let gone = gone_client(call);
    let over = move |state: &State| state.recoveries_left != seen || gone(state);
    if !cx.until_or(deadline, over).await {
        return false;
    }
    cx.sleep(RETRY_MS).await;
    !gone_client(call)(&cx.state())
}

/// Opens the file and makes the database known here. It is being attached until the shards show it:
/// whoever is told that it is known may ask them.
///
/// # Errors
/// Why it could not be opened.
pub(in crate::node) async fn open(
    cx: &NodeCx,
    name: &str,
    kind: DbFlags,
    frozen: bool,
) -> Result<DbId, String> {
    cx.state_mut().attaching.insert(name.to_owned());
    let opened = open_and_publish(cx, name, kind, frozen).await;
    cx.state_mut().attaching.remove(name);
    opened
}

async fn open_and_publish(
    cx: &NodeCx,
    name: &str,
    kind: DbFlags,
    frozen: bool,
) -> Result<DbId, String> {
    let ask = DataAsk::Attach { name: name.to_owned(), flags: kind, frozen };
    let outcome = cx.ask(Ask::Data(ask)).await;
    let (path, open_flags) = match outcome {
        Outcome::Attached { path, open_flags } => (path, open_flags),
        Outcome::Failed(reason) => return Err(reason),
        other => return Err(format!("unexpected {other:?}")),
    };
    let id = DbId::from_name(name);
    let generation = {
        let mut state = cx.state_mut();
        let generation = state.vnn_map.generation;
        let database = Database {
            id,
            name: name.to_owned(),
            flags: kind,
            path,
            open_flags,
            generation,
            freeze: FreezeState::None,
            transaction: None,
            invalid_records: false,
            push: None,
            unhealthy: None,
            seqnum: None,
            commit: None,
            freezes: 0,
        };
        state.databases.insert(0, database);
        generation
    };
    cx.ask(Ask::Data(DataAsk::SetGeneration(id, generation))).await;
    publish(cx).await;
    vacuum::schedule(cx, id);
    Ok(id)
}

fn announce(cx: &NodeCx, name: &str, kind: DbFlags) {
    let opcode = match kind {
        DbFlags::PERSISTENT => ControlOpcode::DB_ATTACH_PERSISTENT,
        DbFlags::REPLICATED => ControlOpcode::DB_ATTACH_REPLICATED,
        _ => ControlOpcode::DB_ATTACH,
    };
    let data = Text::new(name.as_bytes()).to_bytes();
    broadcast_to_others(cx, State::connected, opcode, &data);
}
