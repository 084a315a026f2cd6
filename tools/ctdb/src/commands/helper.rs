//! Commands that are programs of their own: `event`, `scriptstatus`, `natgw`, `lvs`.
//!
//! Role: runs the helper with our streams and passes its exit status on; for `--json` reads its
//! output instead.
//! Invariant: without `--json` the helper's output is not touched.
//!
//! Origin: `docs/spec/admin-interface.md` 1.9, 2.3, 2.9.

mod parse;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::arguments::text;
use crate::command::{Key, Outcome, key};
use crate::output::{Mode, Report};
use crate::page::Page;
use crate::session::Session;
use crate::tool::Tool;

use parse::{GroupNode, Script, group_nodes, scripts};

/// A helper program: how C's messages call it, its file, the variable that replaces it.
struct Helper {
    title: &'static str,
    file: &'static str,
    variable: &'static str,
}

const EVENT_HELPER: Helper =
    Helper { title: "event daemon helper", file: "ctdb-event", variable: "CTDB_EVENT_HELPER" };
const NATGW_HELPER: Helper =
    Helper { title: "NAT gateway helper", file: "ctdb_natgw", variable: "CTDB_NATGW_HELPER" };
const LVS_HELPER: Helper =
    Helper { title: "LVS helper", file: "ctdb_lvs", variable: "CTDB_LVS_HELPER" };

impl Helper {
    fn path(&self, tool: &Tool<'_>) -> PathBuf {
        tool.places.helper(self.file, env::var_os(self.variable))
    }

    fn run(&self, tool: &mut Tool<'_>, arguments: &[OsString]) -> u8 {
        let path = self.path(tool);
        tool.run_helper(self.title, &path, arguments)
    }

    fn capture(&self, tool: &mut Tool<'_>, arguments: &[OsString]) -> (u8, String) {
        let path = self.path(tool);
        let (status, output) = tool.capture_helper(self.title, &path, arguments);
        (status, String::from_utf8_lossy(&output).into_owned())
    }
}

/// Keys of `event`.
pub const EVENT: &[Key] = &[
    key("exit_status", "number", "of the helper: 0, or the failed script's"),
    key("message", "string|null", "what the helper says beside the scripts"),
    key("scripts[].name", "string", "name of the script"),
    key(
        "scripts[].status",
        "string|null",
        "OK, ERROR, TIMEDOUT, DISABLED or CANNOT RUN; null in a list of scripts",
    ),
    key("scripts[].enabled", "boolean", "it is run"),
    key("scripts[].local", "boolean|null", "in the configuration directory only; null in a status"),
    key("scripts[].duration", "number|null", "seconds"),
    key("scripts[].start", "string|null", "start of the run, in local time"),
    key("scripts[].reason", "string|null", "why it cannot run"),
    key("scripts[].output", "string|null", "what it printed"),
];

/// Keys of `scriptstatus`: those of `event`.
pub const SCRIPTSTATUS: &[Key] = EVENT;

#[derive(Clone, Debug, PartialEq, Serialize)]
struct EventReport {
    exit_status: u8,
    message: Option<String>,
    scripts: Vec<Script>,
}

/// Only ever printed as JSON: the other forms are the helper's own.
impl Report for EventReport {
    fn human(&self, _page: &mut Page) {}
}

fn run_event(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    if tool.output.form.mode != Mode::Json {
        return Ok(EVENT_HELPER.run(tool, arguments));
    }
    let (exit_status, output) = EVENT_HELPER.capture(tool, arguments);
    let (scripts, message) = scripts(&output);
    tool.output.report(&EventReport { exit_status, message, scripts })?;
    Ok(exit_status)
}

/// `event`.
///
/// # Errors
/// Standard output cannot be written.
pub fn event(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    run_event(tool, arguments)
}

/// `scriptstatus`: always succeeds, even without a daemon.
///
/// # Errors
/// Standard output cannot be written.
pub fn scriptstatus(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    let event = arguments.first().cloned().unwrap_or_else(|| "monitor".into());
    run_event(tool, &["status".into(), "legacy".into(), event])?;
    Ok(0)
}

/// Keys of `natgw`.
pub const NATGW: &[Key] = &[
    key("exit_status", "number", "of the helper: 2 or 255 when there is no leader"),
    key("nodes[].pnn", "number|null", "number of the node, if the helper prints it"),
    key("nodes[].address", "string|null", "private address, if the helper prints it"),
    key("nodes[].leader", "boolean|null", "leads the group; null in a status"),
    key(
        "nodes[].follower_only",
        "boolean|null",
        "never leads; null where the helper does not tell",
    ),
    key("nodes[].flags", "string|null", "the node's flags, in a status"),
];

/// Keys of `lvs`: those of `natgw`.
pub const LVS: &[Key] = NATGW;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct GroupReport {
    exit_status: u8,
    nodes: Vec<GroupNode>,
}

/// Only ever printed as JSON: the other forms are the helper's own.
impl Report for GroupReport {
    fn human(&self, _page: &mut Page) {}
}

fn run_group(helper: &Helper, session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let tool = &mut session.tool;
    if tool.output.form.mode != Mode::Json {
        return Ok(helper.run(tool, arguments));
    }
    let (exit_status, output) = helper.capture(tool, arguments);
    let nodes = group_nodes(&text(arguments, 0), &output);
    tool.output.report(&GroupReport { exit_status, nodes })?;
    Ok(exit_status)
}

/// `natgw`.
///
/// # Errors
/// Standard output cannot be written.
pub fn natgw(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    run_group(&NATGW_HELPER, session, arguments)
}

/// `lvs`.
///
/// # Errors
/// Standard output cannot be written.
pub fn lvs(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    run_group(&LVS_HELPER, session, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::documented;

    #[test]
    fn the_documents_are_described() {
        let (scripts, message) = scripts("00.ctdb              DISABLED  \n");
        documented(&EventReport { exit_status: 0, message, scripts }, EVENT);
        let nodes = group_nodes("list", "10.55.0.1\tfollower-only\n");
        documented(&GroupReport { exit_status: 0, nodes }, NATGW);
    }
}
