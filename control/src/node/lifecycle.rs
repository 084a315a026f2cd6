//! A node's life: run states from the first event to the exit.
//!
//! Role: [`start`] goes through the start once the driver has sockets, event daemon and nodes list;
//! [`shutdown`] stops in order, whatever the state.
//! Invariants
//! - Persistent databases are attached and frozen before the first client or node is served.
//! - Nothing of the start goes on after a shutdown has begun.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.1, 1.2, 1.10; `ctdb/server/ctdb_daemon.c`.

use ringmaster_protocol::{
    DbId, Destination, Generation, Srvid,
    control::ControlOpcode,
    database::DbFlags,
    process::{RecMode, RunState, SrvidMessage},
    tunable::Tunable,
    wire::Encode,
};

use super::{
    Ask, NodeCx, Outcome, State, Tell,
    controls::{addresses, attach, broadcast_to_others, statistics},
    events,
    freeze::freeze,
    monitor, recd,
    world::{DataAsk, ScriptResult},
};

/// Exit status when a step of the start fails.
const START_FAILED: i32 = 1;

/// Exit status when a persistent database is not healthy.
const UNHEALTHY: i32 = 11;

/// Between two looks at whether the first recovery is over, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// Between two attempts at the event `startup`, in milliseconds.
const STARTUP_RETRY_MS: u64 = 5_000;

/// Why the start does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The daemon leaves with this status.
    Exit(i32),
    /// In order, with this status.
    Shutdown(i32),
    /// A shutdown has begun.
    Stopping,
}

/// Starts the node; returns at once.
pub fn start(cx: &NodeCx) {
    let cx = cx.clone();
    cx.clone().spawn(async move {
        match live(&cx).await {
            Ok(()) | Err(End::Stopping) => {}
            Err(End::Exit(status)) => cx.tell(Tell::Exit(status)),
            Err(End::Shutdown(status)) => shutdown(&cx, status),
        }
    });
}

async fn live(cx: &NodeCx) -> Result<(), End> {
    statistics::keep_history(cx);
    enter(cx, RunState::Init).await?;
    run_or_exit(cx, "init").await?;
    attach_persistent(cx).await?;
    cx.tell(Tell::StartTransport);
    enter(cx, RunState::Setup).await?;
    run_or_exit(cx, "setup").await?;
    recd::start(cx);
    cx.tell(Tell::StartKeepalive);
    addresses::tickles::keep_sending(cx);
    addresses::observed::keep_looking(cx);
    enter(cx, RunState::FirstRecovery).await?;
    wait_until_recovered(cx).await?;
    run_startup(cx).await?;
    enter(cx, RunState::Running).await?;
    tracing::info!("running");
    cx.tell(Tell::Notify("startup"));
    broadcast_to_others(cx, State::connected, ControlOpcode::STARTUP, &[]);
    monitor::start(cx);
    Ok(())
}

fn is_stopping(state: &State) -> bool {
    state.run_state == RunState::Shutdown
}

async fn enter(cx: &NodeCx, run_state: RunState) -> Result<(), End> {
    cx.state_mut().enter(run_state);
    tracing::info!("Set runstate to {run_state:?}");
    cx.ask(Ask::Data(DataAsk::Publish)).await;
    if is_stopping(&cx.state()) { Err(End::Stopping) } else { Ok(()) }
}

/// An event without which there is no node, and the notification that it has run.
async fn run_or_exit(cx: &NodeCx, event: &'static str) -> Result<(), End> {
    let result = events::run(cx, event).await;
    if is_stopping(&cx.state()) {
        return Err(End::Stopping);
    }
    if result != ScriptResult::Ok {
        tracing::error!(event, ?result, "an event of the start has failed; leaving");
        return Err(End::Exit(START_FAILED));
    }
    cx.tell(Tell::Notify(event));
    Ok(())
}

async fn attach_persistent(cx: &NodeCx) -> Result<(), End> {
    let failed = |reason: String| {
        tracing::error!(reason, "cannot attach the persistent databases; leaving");
        End::Exit(START_FAILED)
    };
    let names = match cx.ask(Ask::ListPersistent).await {
        Outcome::Names(Ok(names)) => names,
        Outcome::Names(Err(reason)) => return Err(failed(reason)),
        other => return Err(failed(format!("unexpected {other:?}"))),
    };
    for name in names {
        attach::open(cx, &name, DbFlags::PERSISTENT, true).await.map_err(failed)?;
    }
    let ids: Vec<DbId> = cx.state().databases.iter().map(|db| db.id).collect();
    for id in ids {
        if !freeze(cx, id).await {
            return Err(failed(format!("{id} cannot be frozen")));
        }
    }
    Ok(())
}

/// Waits for the first recovery, and for some time without another one.
async fn wait_until_recovered(cx: &NodeCx) -> Result<(), End> {
    loop {
        let look = cx.now().plus(LOOK_MS);
        if cx.until_or(look, is_stopping).await {
            return Err(End::Stopping);
        }
        let state = cx.state();
        let settled_s = state.tunable(Tunable::RerecoveryTimeout).saturating_add(3);
        let settled = state.recovery_finished_at.plus_seconds(settled_s) <= cx.now();
        let recovered = state.vnn_map.generation != Generation::INVALID
            && state.recovery_mode == RecMode::Normal
            && (state.constants.fast_start || settled);
        if !recovered {
            continue;
        }
        let unhealthy = state.databases.iter().find(|db| db.unhealthy.is_some());
        return match unhealthy {
            None => Ok(()),
            Some(db) => {
                tracing::error!(
                    db = db.name,
                    reason = db.unhealthy,
                    "database not healthy; leaving"
                );
                Err(End::Shutdown(UNHEALTHY))
            }
        };
    }
}

/// Event `startup`, until it succeeds. END_RECOVERY unlocks it.
async fn run_startup(cx: &NodeCx) -> Result<(), End> {
    cx.until(|state| state.run_state >= RunState::Startup).await;
    loop {
        if is_stopping(&cx.state()) {
            return Err(End::Stopping);
        }
        let result = events::run(cx, "startup").await;
        if result == ScriptResult::Ok {
            return Ok(());
        }
        tracing::warn!(?result, "event startup has failed; trying again");
        cx.until_or(cx.now().plus(STARTUP_RETRY_MS), is_stopping).await;
    }
}

/// Stops the node in order and leaves with `status`; returns at once. A second call changes
/// nothing.
pub fn shutdown(cx: &NodeCx, status: i32) {
    let before = {
        let mut state = cx.state_mut();
        let before = state.run_state;
        state.enter(RunState::Shutdown);
        before
    };
    if before == RunState::Shutdown {
        tracing::info!("already shutting down");
        return;
    }
    tracing::info!(status, "shutting down");
    let cx = cx.clone();
    cx.clone().spawn(async move {
        cx.ask(Ask::Data(DataAsk::Publish)).await;
        // Before that there are no other nodes, and no addresses here.
        if before >= RunState::FirstRecovery {
            give_up_addresses(&cx).await;
        }
        recd::stop(&cx);
        let result = events::run(&cx, "shutdown").await;
        if result != ScriptResult::Ok {
            tracing::warn!(?result, "event shutdown has failed");
        }
        cx.tell(Tell::Exit(status));
    });
}

/// Asks the leader for a takeover run, in which this node, no longer running, offers nothing; waits
/// until that is done or too late.
async fn give_up_addresses(cx: &NodeCx) {
    let (timeout_s, extra_s, pnn) = {
        let state = cx.state();
        let constants = &state.constants;
        let timeout_s = constants.shutdown_failover_timeout_s;
        (timeout_s, constants.shutdown_extra_timeout_s, state.pnn())
    };
    if timeout_s == 0 {
        return;
    }
    let srvid = Srvid::daemon_reply(pnn);
    if !matches!(cx.ask(Ask::ListenSrvid(srvid)).await, Outcome::Done) {
        return;
    }
    let request = SrvidMessage { pnn: Some(pnn), srvid };
    cx.tell(Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::TAKEOVER_RUN,
        data: request.to_bytes(),
    });
    // Whatever the leader says: it has tried.
    let answered = move |state: &State| {
        state.mailbox.iter().any(|(to, data)| *to == srvid && data.len() >= size_of::<i32>())
    };
    let done = cx.until_or(cx.now().plus_seconds(timeout_s), answered).await;
    cx.tell(Tell::ForgetSrvid(srvid));
    if !done {
        tracing::warn!("no takeover run in time; going on with the shutdown");
    } else if extra_s > 0 {
        cx.sleep_until(cx.now().plus_seconds(extra_s)).await;
    }
}

#[cfg(test)]
mod tests;
