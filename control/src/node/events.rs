//! Running an event: what may be launched when, and what its end means.
//!
//! Origin: `docs/spec/cluster-semantics.md` 10.4, 10.5; `ctdb/server/eventscript.c`.

use ringmaster_protocol::{process::RecMode, tunable::Tunable};

use super::{
    Ask, NodeCx, Outcome,
    world::{ScriptResult, ScriptRun},
};

/// Events that run during a recovery too.
const IN_RECOVERY: &[&str] = &[
    "init",
    "setup",
    "startrecovery",
    "shutdown",
    "releaseip",
    "ipreallocated",
    "startipreallocate",
];

/// Events whose timeout is taken for success: a hung script must not hold up a recovery.
const HANG_IGNORED: &[&str] = &["startrecovery", "recovered", "takeip", "releaseip"];

/// Runs an event without arguments. [`ScriptResult::NotRun`] if it may not be launched now.
pub(super) async fn run(cx: &NodeCx, event: &'static str) -> ScriptResult {
    run_with(cx, event, String::new()).await
}

/// The same with arguments, separated by blanks.
pub(super) async fn run_with(cx: &NodeCx, event: &'static str, args: String) -> ScriptResult {
    let timeout_s = {
        let state = cx.state();
        if state.recovery_mode == RecMode::Active && !IN_RECOVERY.contains(&event) {
            tracing::info!(event, "no event of this kind during a recovery");
            return ScriptResult::NotRun;
        }
        state.tunable(Tunable::EventScriptTimeout)
    };
    let run = ScriptRun { event, args, timeout_s };
    let result = match cx.ask(Ask::Script(run)).await {
        Outcome::Script(result) => result,
        _ => ScriptResult::NotRun,
    };
    if result == ScriptResult::TimedOut && HANG_IGNORED.contains(&event) {
        tracing::warn!(event, "a script hangs; going on without it");
        return ScriptResult::Ok;
    }
    result
}

/// What a control replies that has run an event: C passes on positive error numbers.
pub(super) const fn status(result: ScriptResult) -> i32 {
    match result {
        ScriptResult::Ok => 0,
        ScriptResult::Failed => 8, // ENOEXEC, for any failure of a script
        ScriptResult::TimedOut => 110, // ETIMEDOUT
        ScriptResult::Cancelled => 125, // ECANCELED
        ScriptResult::NotRun => -1,
    }
}
