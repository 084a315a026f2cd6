//! Questions about the state, answered from it.
//!
//! The shards answer most of these to clients from the published view; here they are answered to
//! this node's own sequences and to whoever else asks the plane.
//! Origin: `docs/spec/wire-protocol.md` 3.3; `docs/spec/cluster-semantics.md` 1.3.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId,
    control::{ClientCount, ControlReply, ControlRequest, InStatus},
    database::{DbIdEntry, DbIdMap},
    process::{Pid, Uptime},
    text::Text,
    tunable::{Tunable, TunableName, TunableNames, TunableValue},
};

use super::{
    answer::{payload, refused, status},
    statistics::client_count,
};
use crate::node::{NodeCx, State, state::Database, world::ControlAnswer};

/// Status of GET_TUNABLE for a name that does not exist.
const EINVAL: i32 = -22;

pub(super) fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    let state = &*cx.state();
    let reply = match control {
        ControlRequest::GetPnn => ControlReply::GetPnn(InStatus(state.pnn())),
        ControlRequest::GetPid => ControlReply::GetPid(InStatus(Pid(state.constants.daemon_pid))),
        ControlRequest::Ping => ControlReply::Ping(InStatus(ClientCount(client_count(state)))),
        ControlRequest::GetVnnMap => ControlReply::GetVnnMap(state.vnn_map.clone()),
        ControlRequest::GetNodeMap => ControlReply::GetNodeMap(state.node_map()),
        ControlRequest::GetRecMode => ControlReply::GetRecMode(InStatus(state.recovery_mode)),
        ControlRequest::GetRunState => ControlReply::GetRunState(state.run_state),
        ControlRequest::GetCapabilities => ControlReply::GetCapabilities(state.capabilities),
        ControlRequest::GetDebug => ControlReply::GetDebug(state.debug_level),
        ControlRequest::GetAllTunables => ControlReply::GetAllTunables(state.tunables.clone()),
        ControlRequest::EchoData(echo) => ControlReply::EchoData(echo),
        ControlRequest::Uptime => ControlReply::Uptime(Uptime {
            current_time: state.wall_clock_at(cx.now()),
            ctdbd_start_time: state.wall_clock.0,
            last_recovery_started: state.recovery_started,
            last_recovery_finished: state.recovery_finished,
        }),
        ControlRequest::GetDbMap => ControlReply::GetDbMap(db_map(state)),
        other => return texts(state, other),
    };
    ControlFlow::Break(replied(&reply))
}

/// Those whose reply borrows from the state, or that can fail.
fn texts<'a>(
    state: &State,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::GetTunable(name) => tunable(state, name),
        ControlRequest::ListTunables => {
            let names = Tunable::list_text();
            payload(&TunableNames(Text::new(names.as_bytes())))
        }
        ControlRequest::GetDbPath(id) => of_database(state, id, |db| {
            let path = db.path.to_string_lossy();
            payload(&Text::new(path.as_bytes()))
        }),
        ControlRequest::GetDbName(id) => {
            of_database(state, id, |db| payload(&Text::new(db.name.as_bytes())))
        }
        ControlRequest::DbOpenFlags(id) => of_database(state, id, |db| payload(&db.open_flags)),
        ControlRequest::DbGetHealth(id) => of_database(state, id, |db| {
            payload(&db.unhealthy.as_ref().map(|reason| Text::new(reason.as_bytes())))
        }),
        ControlRequest::GetReclockFile => {
            let lock = state.constants.cluster_lock.as_ref();
            payload(&lock.map(|lock| Text::new(lock.as_bytes())))
        }
        other => return ControlFlow::Continue(other),
    })
}

fn replied(reply: &ControlReply<'_>) -> ControlAnswer {
    ControlAnswer { status: reply.status(), ..payload(reply) }
}

fn db_map(state: &State) -> DbIdMap {
    let entry = |db: &Database| DbIdEntry { db: db.id, flags: db.flags };
    DbIdMap(state.databases.iter().map(entry).collect())
}

fn tunable(state: &State, name: TunableName<'_>) -> ControlAnswer {
    match Tunable::from_name(name.0.as_bytes()) {
        Some(tunable) => payload(&TunableValue(state.tunable(tunable))),
        None => status(EINVAL),
    }
}

fn of_database(
    state: &State,
    id: DbId,
    answer: impl FnOnce(&Database) -> ControlAnswer,
) -> ControlAnswer {
    state.database(id).map_or_else(refused, answer)
}
