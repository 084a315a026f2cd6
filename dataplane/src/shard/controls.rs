//! Controls that a shard answers itself, from the published view and the registry.
//!
//! Role: the common questions of clients, without a hop. Everything else goes to control.
//! Origin: `docs/spec/wire-protocol.md` 3; `docs/spec/cluster-semantics.md` 1.3, 1.4.

use ringmaster_protocol::{
    Encode,
    control::{ClientCount, ControlReply, ControlRequest, InStatus},
    control_packet::ReplyControl,
    process::{Pid, Timeval, Uptime},
    text::Text,
    tunable::{Tunable, TunableNames, TunableValue},
};

use super::registry::Registry;
use crate::view::NodeView;

/// Status of GET_TUNABLE for a name that does not exist.
const EINVAL: i32 = -22;

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Status and data of the reply; the data stands in the caller's buffer.
    Reply(i32),
    /// Not this shard's to answer.
    Forward,
}

/// Answers `request` if the view is enough for it; the reply's data goes into `data`.
#[must_use]
pub fn answer(
    view: &NodeView,
    registry: &Registry,
    now: Timeval,
    request: &ControlRequest<'_>,
    data: &mut Vec<u8>,
) -> Answer {
    data.clear();
    let path;
    let names;
    let reply = match request {
        ControlRequest::GetPnn => ControlReply::GetPnn(InStatus(view.pnn)),
        ControlRequest::GetPid => ControlReply::GetPid(InStatus(Pid(view.daemon_pid))),
        ControlRequest::Ping => {
            let clients = u32::try_from(registry.client_count()).unwrap_or(u32::MAX);
            ControlReply::Ping(InStatus(ClientCount(clients)))
        }
        ControlRequest::GetVnnMap => ControlReply::GetVnnMap(view.vnn_map.clone()),
        ControlRequest::GetNodeMap => ControlReply::GetNodeMap(view.nodes.clone()),
        ControlRequest::GetRecMode => ControlReply::GetRecMode(InStatus(view.recovery_mode)),
        ControlRequest::GetRunState => ControlReply::GetRunState(view.run_state),
        ControlRequest::GetCapabilities => ControlReply::GetCapabilities(view.capabilities),
        ControlRequest::GetDebug => ControlReply::GetDebug(view.debug_level),
        ControlRequest::GetAllTunables => ControlReply::GetAllTunables(view.tunables.clone()),
        ControlRequest::GetTunable(name) => match Tunable::from_name(name.0.as_bytes()) {
            Some(tunable) => ControlReply::GetTunable(TunableValue(view.tunables.value(tunable))),
            None => return Answer::Reply(EINVAL),
        },
        ControlRequest::ListTunables => {
            names = Tunable::list_text();
            ControlReply::ListTunables(TunableNames(Text::new(names.as_bytes())))
        }
        ControlRequest::Uptime => ControlReply::Uptime(Uptime {
            current_time: now,
            ctdbd_start_time: view.started,
            last_recovery_started: view.recovery_started,
            last_recovery_finished: view.recovery_finished,
        }),
        ControlRequest::GetDbMap => {
            let entries = view
                .databases
                .iter()
                .map(|db| ringmaster_protocol::database::DbIdEntry { db: db.id, flags: db.flags });
            ControlReply::GetDbMap(ringmaster_protocol::database::DbIdMap(entries.collect()))
        }
        ControlRequest::GetDbPath(id) => match view.database(*id) {
            Some(db) => {
                path = db.path.to_string_lossy();
                ControlReply::GetDbPath(Text::new(path.as_bytes()))
            }
            None => return Answer::Reply(-1),
        },
        ControlRequest::GetDbName(id) => match view.database(*id) {
            Some(db) => ControlReply::GetDbName(Text::new(db.name.as_bytes())),
            None => return Answer::Reply(-1),
        },
        ControlRequest::DbOpenFlags(id) => match view.database(*id) {
            Some(db) => ControlReply::DbOpenFlags(db.open_flags),
            None => return Answer::Reply(-1),
        },
        ControlRequest::CheckPidSrvid(wanted) => {
            let wants = registry.pid_wants(wanted.pid.0, wanted.srvid);
            ControlReply::CheckPidSrvid(InStatus(wants))
        }
        ControlRequest::EchoData(echo) => ControlReply::EchoData(*echo),
        _ => return Answer::Forward,
    };
    reply.encode(data);
    Answer::Reply(reply.status())
}

/// A reply packet of that status and data, without error text.
pub(super) fn reply(status: i32, data: &[u8]) -> ReplyControl<'_> {
    ReplyControl { status, data, error: b"" }
}
