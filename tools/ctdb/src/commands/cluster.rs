//! Commands about the cluster as a whole and a node's part in it: `recover`, `reloadnodes`,
//! `getreclock`, `getcapabilities`, `setlmasterrole`, `setleaderrole`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.5.5, 1.5.6, 1.9.

mod reloadnodes;

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use ringmaster_protocol::capabilities::Capabilities;
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::process::{RecMode, Role};
use serde::Serialize;

use crate::arguments::text;
use crate::command::{Failure, Key, Outcome, key};
use crate::output::Report;
use crate::page::{Page, Tone};
use crate::session::{Refused, Session};

pub use reloadnodes::reloadnodes;

/// How often `recover` looks whether the recovery is over.
const POLL: Duration = Duration::from_secs(1);

/// `recover`.
///
/// # Errors
/// The leader or the node does not answer.
pub fn recover(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    // Without a leader the request for its recovery mode fails, as in C.
    let leader = session.leader()?.unwrap_or(u32::MAX);
    recovery_mode(session, leader).map_err(|refused| {
        refused.explain(format_args!("Failed to get recovery mode from node {leader}"))
    })?;
    let before = generation(session, leader).map_err(|refused| {
        refused.explain(format_args!("Failed to get generation from node {leader}"))
    })?;
    let target = session.target;
    session
        .control::<kinds::SetRecMode, ()>(target, &RecMode::Active)
        .map_err(|refused| refused.explain("Failed to set recovery mode active"))?;
    loop {
        let unconfirmed = |refused: Refused| refused.explain("Failed to confirm end of recovery");
        let mode = recovery_mode(session, leader).map_err(unconfirmed)?;
        if mode == RecMode::Normal && generation(session, leader).map_err(unconfirmed)? != before {
            return Ok(0);
        }
        thread::sleep(POLL);
    }
}

fn recovery_mode(session: &mut Session<'_>, node: u32) -> Result<RecMode, Refused> {
    session.control::<kinds::GetRecMode, _>(node, &()).map(|mode| mode.0)
}

fn generation(session: &mut Session<'_>, node: u32) -> Result<u32, Refused> {
    session.control::<kinds::GetVnnMap, _>(node, &()).map(|map| map.generation.0)
}

/// Keys of `getreclock`.
pub const GETRECLOCK: &[Key] = &[key("reclock", "string|null", "the configured cluster lock")];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reclock {
    reclock: Option<String>,
}

impl Report for Reclock {
    fn human(&self, page: &mut Page) {
        if let Some(reclock) = &self.reclock {
            page.line(reclock);
        }
    }
}

/// `getreclock`.
///
/// # Errors
/// The node does not answer.
pub fn getreclock(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let target = session.target;
    let reclock = session
        .ask::<kinds::GetReclockFile, _>(target, &(), |file| file.map(|file| file.to_string()))?;
    session.output().report(&Reclock { reclock })?;
    Ok(0)
}

/// Keys of `getcapabilities`.
pub const GETCAPABILITIES: &[Key] = &[
    key("leader", "boolean", "may become leader"),
    key("lmaster", "boolean", "may be location master"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct CapabilitiesReport {
    leader: bool,
    lmaster: bool,
}

impl Report for CapabilitiesReport {
    fn human(&self, page: &mut Page) {
        for (name, has) in [("LEADER", self.leader), ("LMASTER", self.lmaster)] {
            let (tone, word) = if has { (Tone::Good, "YES") } else { (Tone::Warn, "NO") };
            page.line(format_args!("{name}: {}", page.paint(tone, word)));
        }
    }

    fn machine(&self, page: &mut Page) {
        page.row(["LEADER", "LMASTER"]);
        page.row([u8::from(self.leader), u8::from(self.lmaster)]);
    }
}

/// `getcapabilities`.
///
/// # Errors
/// The node does not answer.
pub fn getcapabilities(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let capabilities = session.control::<kinds::GetCapabilities, _>(session.target, &())?;
    session.output().report(&CapabilitiesReport {
        leader: capabilities.contains(Capabilities::LEADER),
        lmaster: capabilities.contains(Capabilities::LMASTER),
    })?;
    Ok(0)
}

fn role(arguments: &[OsString]) -> Result<Role, Failure> {
    match text(arguments, 0).as_str() {
        "on" => Ok(Role::On),
        "off" => Ok(Role::Off),
        _ => Err(Failure::Usage),
    }
}

/// `setlmasterrole`.
///
/// # Errors
/// The word is neither on nor off; the node does not answer.
pub fn setlmasterrole(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let role = role(arguments)?;
    session.control::<kinds::SetLmasterRole, ()>(session.target, &role)?;
    Ok(0)
}

/// `setleaderrole`.
///
/// # Errors
/// The word is neither on nor off; the node does not answer.
pub fn setleaderrole(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let role = role(arguments)?;
    session.control::<kinds::SetRecmasterRole, ()>(session.target, &role)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};

    #[test]
    fn capabilities_are_words_for_people_and_digits_for_scripts() {
        let report = CapabilitiesReport { leader: true, lmaster: false };
        assert_eq!(human(&report), "LEADER: YES\nLMASTER: NO\n");
        assert_eq!(machine(&report), "|LEADER|LMASTER|\n|1|0|\n");
        documented(&report, GETCAPABILITIES);
    }

    #[test]
    fn without_a_cluster_lock_nothing_is_printed() {
        assert_eq!(human(&Reclock { reclock: None }), "");
        assert_eq!(human(&Reclock { reclock: Some("/shared/lock".into()) }), "/shared/lock\n");
        documented(&Reclock { reclock: None }, GETRECLOCK);
    }
}
