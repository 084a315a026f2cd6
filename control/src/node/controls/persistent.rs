//! Commits of persistent and replicated databases.
//!
//! Role: TRANS3_COMMIT sends the records to every member as UPDATE_RECORD; UPDATE_RECORD writes
//! them here. (For a volatile database it calls read-only copies back.)
//! Invariants
//! - A commit that any member has not confirmed is decided by a recovery, never by this node: a
//!   failure starts one, and replies that come during it or after it count for nothing.
//! - One commit per database and per client.
//! - No commit without a member of the map, before a recovery has taken it out: two halves of a
//!   split cluster never both commit in one generation, and a member that was banned and is back
//!   does not miss what is committed before the word of it has come round. (Both in C.)
//!
//! Origin: `docs/spec/cluster-semantics.md` 4.2, 4.3; `ctdb/server/ctdb_persistent.c`,
//! `ctdb_update_record.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId, Pnn, Srvid,
    control::{ControlOpcode, ControlRequest},
    control_packet::ControlFlags,
    node::NodeFlags,
    process::RecMode,
    record::{PushRecord, RecBuffer, RecBufferBuilder},
    tunable::Tunable,
    wire::Encode,
};

use super::{
    answer::{Call, data, done, error, gone_client, refused, status, success},
    databases::with_database,
    force_recovery,
    statistics::{add_latency, seconds_between},
};
use crate::{
    node::{
        Ask, NodeCx, Outcome, State,
        state::{Commit, FreezeState},
        world::{ClientId, ControlAnswer, DataAsk, Origin, OutgoingControl},
    },
    plane::{Millis, first_of},
};

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::Trans3Commit(records) => commit(cx, call, &records).await,
        ControlRequest::UpdateRecord(records) => update(cx, call, &records).await,
        ControlRequest::PushRecord(record) => push(cx, &record).await,
        other => return ControlFlow::Continue(other),
    })
}

/// Opens a commit; `None` if it is refused.
fn begin(state: &mut State, call: &Call, id: DbId) -> Option<(Commit, Vec<Pnn>)> {
    let client = call.client(state)?;
    let has_commit = |commit: &Commit| commit.client == client;
    let busy = state.databases.iter().filter_map(|db| db.commit.as_ref()).any(has_commit);
    if state.recovery_mode == RecMode::Active || busy || state.database(id)?.commit.is_some() {
        return None;
    }
    let targets = state.vnn_map.map.clone();
    let missing = u32::try_from(targets.len()).ok()?;
    let (number, recovery) = (state.next_number(), state.recoveries_left);
    let commit = Commit { client, number, missing, recovery, ended: false };
    if missing > 0 {
        state.database_mut(id)?.commit = Some(commit);
    }
    Some((commit, targets))
}

/// Waits, after a recovery, for the word that every node has left it: one that has not refuses its part
/// of a commit, and the commit would cause the next recovery. (C does not wait; its nodes are slower
/// to leave, and so seldom first.)
async fn others_have_left(cx: &NodeCx, call: &Call) {
    let Some(limit) = cx.state().others_leave_until else { return };
    let gone = gone_client(call);
    cx.until_or(limit, move |state| {
        state.recovery_mode == RecMode::Active || gone(state) || state.others_leave_until.is_none()
    })
    .await;
}

/// Waits until every member of the map is there, or a recovery takes care of it; `false` if neither
/// comes in time. A member that is thought inactive is out of service until the next recovery, or
/// back in service since the last one.
async fn map_is_complete(cx: &NodeCx, call: &Call) -> bool {
    let here = |state: &State, pnn: &Pnn| {
        state.flags_of(*pnn).is_some_and(|flags| !flags.intersects(NodeFlags::INACTIVE))
    };
    let gone = gone_client(call);
    let deadline = control_deadline(cx.now(), &cx.state());
    cx.until_or(deadline, move |state| {
        state.recovery_mode == RecMode::Active
            || gone(state)
            || state.vnn_map.map.iter().all(|member| here(state, member))
    })
    .await
}

fn open_commit(state: &State, id: DbId, number: u64) -> Option<Commit> {
    state.database(id).and_then(|db| db.commit).filter(|commit| commit.number == number)
}

async fn commit(cx: &NodeCx, call: &Call, records: &RecBuffer<'_>) -> ControlAnswer {
    let id = records.db();
    others_have_left(cx, call).await;
    if call.client(&cx.state()).is_none() || !map_is_complete(cx, call).await {
        return refused();
    }
    let begun = begin(&mut cx.state_mut(), call, id);
    let Some((commit, targets)) = begun else { return refused() };
    if targets.is_empty() {
        return done();
    }
    data(cx, DataAsk::CommitActive(id, true)).await;
    let timeout_s = cx.state().tunable(Tunable::ControlTimeout);
    let buffer = records.to_bytes();
    for to in targets {
        let update = OutgoingControl {
            to,
            opcode: ControlOpcode::UPDATE_RECORD,
            srvid: Srvid(0),
            flags: ControlFlags::NONE,
            client: Some(commit.client),
            data: buffer.clone(),
            timeout_s,
        };
        cx.spawn(confirm(cx.clone(), id, commit.number, update));
    }
    let answer = decided(cx, id, commit.number).await;
    with_database(cx, id, |db| {
        db.commit.take_if(|open| open.number == commit.number);
    });
    data(cx, DataAsk::CommitActive(id, false)).await;
    answer
}

/// One member's reply.
async fn confirm(cx: NodeCx, id: DbId, number: u64, update: OutgoingControl) {
    let to = update.to;
    let outcome = cx.ask(Ask::Control(update)).await;
    let decided_elsewhere = {
        let state = cx.state();
        // A recovery may be over here and the word that it has ended still under way.
        let recovered = |commit: Commit| commit.ended || commit.recovery != state.recoveries_left;
        state.recovery_mode == RecMode::Active
            || open_commit(&state, id, number).is_none_or(recovered)
    };
    if decided_elsewhere {
        return;
    }
    if matches!(&outcome, Outcome::Reply(Ok(answer)) if answer.status == 0) {
        with_database(&cx, id, |db| {
            if let Some(commit) = &mut db.commit {
                commit.missing = commit.missing.saturating_sub(1);
            }
        });
    } else {
        tracing::error!(db = %id, %to, ?outcome, "a node has not confirmed a commit; recovering");
        force_recovery(&cx);
    }
}

/// Waits until the commit is confirmed by all, decided by a recovery, or too late.
async fn decided(cx: &NodeCx, id: DbId, number: u64) -> ControlAnswer {
    let over = move |state: &State| {
        open_commit(state, id, number).is_none_or(|commit| commit.ended || commit.missing == 0)
    };
    let deadline = control_deadline(cx.now(), &cx.state());
    if !cx.until_or(deadline, over).await {
        // The members' replies have timed out as well: in C their timers, set just before this one,
        // start the recovery, after which this one counts for nothing.
        force_recovery(cx);
        cx.until(over).await;
    }
    match open_commit(&cx.state(), id, number) {
        Some(commit) if commit.ended => error(2, "trans3 commit ended by recovery"),
        Some(_) => done(),
        // The client has gone.
        None => refused(),
    }
}

/// When something that takes a control's time is too late: never, if the tunable is 0.
fn control_deadline(now: Millis, state: &State) -> Millis {
    match state.tunable(Tunable::ControlTimeout) {
        0 => Millis::NEVER,
        seconds => now.plus_seconds(seconds),
    }
}

/// A client has gone: nobody knows whether its commit is to be completed, so a recovery decides.
pub(super) fn client_gone(cx: &NodeCx, id: ClientId) {
    let open = {
        let mut state = cx.state_mut();
        let mine = |commit: &mut Commit| commit.client == id;
        let taken = state.databases.iter_mut().filter_map(|db| db.commit.take_if(mine));
        taken.count() > 0
    };
    if open {
        tracing::warn!("a client has gone in the middle of a commit; recovering");
        force_recovery(cx);
    }
}

/// What UPDATE_RECORD means for this database: it calls copies back or is a part of a commit.
fn update_ask(state: &State, call: &Call, records: &RecBuffer<'_>) -> Option<DataAsk> {
    let id = records.db();
    let db = state.database(id).filter(|db| db.unhealthy.is_none())?;
    // What was sent before a recovery and comes after it is void, and C obeys it all the same: the
    // recovery has decided the commit, and has called all copies back (the rsn of a record may even
    // have begun anew).
    if state.recovery_mode == RecMode::Active || !call.is_current(state) {
        return None;
    }
    let buffer = records.to_bytes();
    if !db.is_volatile() {
        return Some(DataAsk::UpdateRecords { db: id, buffer });
    }
    let generation = state.vnn_map.generation;
    let thawed = db.freeze == FreezeState::None;
    thawed.then_some(DataAsk::UpdateCopies { db: id, generation, buffer })
}

/// Waits until this node leaves the recovery whose end the sender knows of already: its databases are
/// back in service, and the leader's SET_RECMODE is on its way or being carried out. A node that has
/// been out of recovery in this generation is in the next recovery, and waits for nothing; nor does a
/// client of this node.
async fn leave_with_sender(cx: &NodeCx, call: &Call, id: DbId) {
    let call = *call;
    let leaving = move |state: &State| {
        state.recovery_mode == RecMode::Active
            && call.is_current(state)
            && state.left_in != Some(state.vnn_map.generation)
            && state.database(id).is_some_and(|db| {
                db.freeze == FreezeState::None && db.generation == state.vnn_map.generation
            })
    };
    if !matches!(call.from, Origin::Node(..)) {
        return;
    }
    let deadline = control_deadline(cx.now(), &cx.state());
    cx.until_or(deadline, move |state| !leaving(state)).await;
}

async fn update(cx: &NodeCx, call: &Call, records: &RecBuffer<'_>) -> ControlAnswer {
    let id = records.db();
    leave_with_sender(cx, call, id).await;
    let ask = update_ask(&cx.state(), call, records);
    let Some(ask) = ask else { return refused() };
    let started = cx.now();
    let deadline = {
        let mut state = cx.state_mut();
        state.counters.childwrite_calls += 1;
        state.counters.pending_childwrite_calls += 1;
        control_deadline(started, &state)
    };
    let write = cx.ask(Ask::Data(ask));
    let ended = first_of(write, cx.until_or(deadline, |_| false)).await;
    {
        let counters = &mut cx.state_mut().counters;
        counters.pending_childwrite_calls = counters.pending_childwrite_calls.saturating_sub(1);
        add_latency(&mut counters.childwrite_latency, seconds_between(started, cx.now()));
    }
    match ended {
        Ok(Outcome::Done) => done(),
        Ok(outcome) => {
            tracing::error!(db = %id, ?outcome, "cannot store the records of an update");
            status(1)
        }
        Err(_) => error(-1, "timeout in ctdb_persistent_lock"),
    }
}

/// One record that a client of another node wants to be safe here too.
async fn push(cx: &NodeCx, record: &PushRecord<'_>) -> ControlAnswer {
    let (meant, known) = {
        let state = cx.state();
        let meant =
            record.generation == state.vnn_map.generation && !record.header.dmaster.is(state.pnn());
        (meant, state.database(record.db).is_some())
    };
    if !meant {
        return done();
    }
    if !known {
        return refused();
    }
    let mut buffer = RecBufferBuilder::new(record.db);
    buffer.push_with_header(0, record.key, &record.header, record.data);
    let ask = DataAsk::PushRecord { db: record.db, buffer: buffer.into_bytes() };
    success(data(cx, ask).await)
}
