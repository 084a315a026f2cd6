//! The reports about nodes.
//!
//! Role: pure; values in, text out. The layouts are captured from the 4.17 tool; the JSON of
//! `status` is Samba's own.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3, 1.5, A.1.

mod nodes;

use ringmaster_protocol::process::{RunState, Timeval};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::command::{Key, key};
use crate::output::Report;
use crate::page::{Page, Tone};
use crate::time::{Elapsed, ctime, seconds};

pub use nodes::{
    LISTNODES, ListedNode, ListedNodes, NODESTATUS, NodeRow, NodeStatus, NodeTable, STATUS, Status,
};

/// Keys of `uptime`.
pub const UPTIME: &[Key] = &[
    key("pnn", "number", "the node asked"),
    key("current_time", "number", "the node's clock, seconds since the epoch"),
    key("start_time", "number", "start of the daemon, seconds since the epoch"),
    key("last_recovery_started", "number", "seconds since the epoch; 0 before the first"),
    key("last_recovery_finished", "number", "seconds since the epoch; 0 before the first"),
    key("last_recovery_duration", "number", "seconds"),
];

/// `uptime`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UptimeReport {
    pub pnn: u32,
    pub current: Timeval,
    pub start: Timeval,
    pub recovery_started: Timeval,
    pub recovery_finished: Timeval,
}

impl UptimeReport {
    /// Seconds; from the whole parts and the fractions apart, so that no digit is lost.
    fn recovery_duration(&self) -> f64 {
        let (end, start) = (self.recovery_finished, self.recovery_started);
        let micros = i128::from(end.micros) - i128::from(start.micros)
            + (i128::from(end.seconds) - i128::from(start.seconds)) * 1_000_000;
        #[expect(clippy::cast_precision_loss, reason = "shown with six digits")]
        let micros = micros as f64;
        micros / 1e6
    }
}

impl Serialize for UptimeReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object {
            pnn: u32,
            current_time: f64,
            start_time: f64,
            last_recovery_started: f64,
            last_recovery_finished: f64,
            last_recovery_duration: f64,
        }
        Object {
            pnn: self.pnn,
            current_time: seconds(self.current),
            start_time: seconds(self.start),
            last_recovery_started: seconds(self.recovery_started),
            last_recovery_finished: seconds(self.recovery_finished),
            last_recovery_duration: self.recovery_duration(),
        }
        .serialize(serializer)
    }
}

impl Report for UptimeReport {
    fn human(&self, page: &mut Page) {
        let now = self.current.seconds;
        let ago = |then: Timeval| Elapsed(now.saturating_sub(then.seconds));
        let (node, current) = (self.pnn, ctime(now));
        page.line(format_args!("Current time of node {node:<4}     :                {current}"));
        for (title, time) in [
            ("Ctdbd start time              ", self.start),
            ("Time of last recovery/failover", self.recovery_finished),
        ] {
            page.line(format_args!("{title}: {} {}", ago(time), ctime(time.seconds)));
        }
        let duration = self.recovery_duration();
        page.line(format_args!("Duration of last recovery/failover: {duration:.6} seconds"));
    }
}

/// Keys of `ping`.
pub const PING: &[Key] = &[
    key("pnn", "number", "the node that answered"),
    key("time", "number", "seconds from question to answer"),
    key("num_clients", "number", "clients of the daemon"),
];

/// `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ping {
    pub pnn: u32,
    pub time: f64,
    pub num_clients: u32,
}

impl Report for Ping {
    fn human(&self, page: &mut Page) {
        let Self { pnn, time, num_clients } = self;
        page.line(format_args!("response from {pnn} time={time:.6} sec  ({num_clients} clients)"));
    }
}

/// Keys of `runstate`.
pub const RUNSTATE: &[Key] = &[
    key("runstate", "string", "UNKNOWN, INIT, SETUP, FIRST_RECOVERY, STARTUP, RUNNING or SHUTDOWN"),
    key("required", "boolean", "one of the states asked for; true when none was"),
];

/// `runstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStateReport {
    pub state: RunState,
    /// It is one of the states asked for.
    pub required: bool,
}

impl Serialize for RunStateReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("runstate", &self.state.to_string())?;
        map.serialize_entry("required", &self.required)?;
        map.end()
    }
}

impl Report for RunStateReport {
    fn human(&self, page: &mut Page) {
        let tone = if self.state == RunState::Running { Tone::Good } else { Tone::Warn };
        let state = page.paint(tone, self.state);
        if self.required {
            page.line(state);
        } else {
            page.line(format_args!("CTDB not in required run state (got {state})"));
        }
    }
}

/// Keys of `pnn`.
pub const PNN: &[Key] = &[key("pnn", "number", "number of this node")];

/// `pnn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pnn {
    pub pnn: u32,
}

impl Report for Pnn {
    fn human(&self, page: &mut Page) {
        page.line(self.pnn);
    }
}

/// Keys of `leader`.
pub const LEADER: &[Key] =
    &[key("leader", "number|null", "number of the leader; null when none is heard in time")];

/// `leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    pub leader: Option<u32>,
}

impl Report for Leader {
    fn human(&self, page: &mut Page) {
        match self.leader {
            Some(leader) => page.line(leader),
            None => page.line(page.paint(Tone::Bad, "UNKNOWN")),
        }
    }
}

/// Keys of `getpid`.
pub const GETPID: &[Key] = &[key("pid", "number", "process id of the daemon")];

/// `getpid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GetPid {
    pub pid: i32,
}

impl Report for GetPid {
    fn human(&self, page: &mut Page) {
        page.line(self.pid);
    }
}

#[cfg(test)]
mod tests;
