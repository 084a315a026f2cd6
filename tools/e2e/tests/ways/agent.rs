//! Debian's unmodified `ocf:heartbeat:CTDB` (package resource-agents), as Pacemaker calls it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringmaster_e2e::Lab;
use ringmaster_xtask::demo::{cluster, wait, world::SHARED};

/// Where the package puts it.
const AGENT: &str = "/usr/lib/ocf/resource.d/heartbeat/CTDB";
/// OCF's statuses.
const SUCCESS: i32 = 0;
const NOT_RUNNING: i32 = 7;
/// The agent's own time for a start.
const ACTION_S: u32 = 90;

/// Runs an action; its status and what it printed.
fn action(lab: &Lab, name: &str) -> Result<(i32, String)> {
    let mut command = lab.node().command(ACTION_S, "env");
    command.args(["OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=ctdb"]);
    command.args(["OCF_RA_VERSION_MAJOR=1", "OCF_RESOURCE_TYPE=CTDB", "HA_RSCTMP=/run"]);
    command.arg(format!("OCF_RESKEY_ctdb_recovery_lock={SHARED}/.ctdb/lock"));
    command.args(["OCF_RESKEY_ctdb_logfile=/var/log/ctdb/log.ctdb", AGENT, name]);
    let output = wait::output(&format!("the agent: {name}"), &mut command)?;
    let status = output.status.code().with_context(|| format!("the agent: {name}: no status"))?;
    let words = [output.stdout, output.stderr].concat();
    Ok((status, String::from_utf8_lossy(&words).into_owned()))
}

fn expect(lab: &Lab, name: &str, wanted: i32) -> Result<String> {
    let (status, words) = action(lab, name)?;
    ensure!(
        status == wanted,
        "{name}: status {status} instead of {wanted}\n{words}\n{}",
        cluster::last_words(lab.node())
    );
    Ok(words)
}

pub(super) fn actions(lab: &Lab) -> Result<()> {
    ensure!(Path::new(AGENT).exists(), "{AGENT} is missing (Debian: resource-agents)");
    let described = expect(lab, "meta-data", SUCCESS)?;
    ensure!(described.contains("name=\"CTDB\""), "{described}");
    expect(lab, "validate-all", SUCCESS)?;
    expect(lab, "monitor", NOT_RUNNING)?;
    expect(lab, "stop", SUCCESS).context("of what does not run")?;
    for round in 1..=2 {
        let round = || format!("round {round}");
        expect(lab, "start", SUCCESS).with_context(round)?;
        expect(lab, "start", SUCCESS).context("of what runs").with_context(round)?;
        expect(lab, "monitor", SUCCESS).with_context(round)?;
        lab.node().run("ctdb status")?;
        expect(lab, "stop", SUCCESS).with_context(round)?;
        expect(lab, "monitor", NOT_RUNNING).with_context(round)?;
    }
    // A daemon that dies is not running.
    expect(lab, "start", SUCCESS)?;
    cluster::kill(cluster::daemon_pid(lab.node())?)?;
    expect(lab, "monitor", NOT_RUNNING).context("after a kill").map(drop)
}
