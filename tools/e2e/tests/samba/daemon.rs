//! The daemon is killed while records are written: what was acknowledged is there afterwards.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_e2e::{Lab, Subject, processes, random::Random, size};
use ringmaster_xtask::demo::{cluster, random_file, samba};

use crate::{KEY, SESSION_S, every_database_can_be_read, none_left, tools};

/// How often the daemon is killed: in CI, in a soak.
const ROUNDS: (u32, u32) = (1, 20);
/// Values of the registry that may be written until somebody is killed.
const VALUES_MAX: u32 = 10_000;

pub(super) fn killed(lab: &Lab) -> Result<()> {
    let node = lab.node();
    let (sent, back) = (lab.cluster.client.own("stays"), lab.cluster.client.own("stays.back"));
    random_file(&sent, 1 << 20)?;
    samba::session(&lab.cluster, node, SESSION_S, &format!("put {} stays", sent.display()))?;
    node.run(&format!("net registry createkey {KEY}"))?;
    if processes("winbindd")?.is_empty() {
        tools::start_winbindd(lab)?;
    }
    let mut random = Random::seeded();
    let (mut written, mut last) = (0, tools::a_number(lab)?);
    let rounds = size(ROUNDS.0, ROUNDS.1);
    for round in 0..rounds {
        let pause = Duration::from_millis(u64::try_from(500 + random.below(500))?);
        written += round_of(lab, round, pause).with_context(|| format!("round {round}"))?;
        let number = tools::a_number(lab)?;
        ensure!(number > last, "winbindd handed out {last}, then {number}");
        last = number;
        samba::session(&lab.cluster, node, SESSION_S, &format!("get stays {}", back.display()))?;
        let same = samba::checksum(&sent)? == samba::checksum(&back)?;
        ensure!(same, "the file came back different");
    }
    println!("    {rounds} deaths, {written} acknowledged values of the registry, all there");
    every_database_can_be_read(lab)
}

/// Kills the daemon while values are written, starts everything again: how many were acknowledged.
fn round_of(lab: &Lab, round: u32, pause: Duration) -> Result<u32> {
    let node = lab.node();
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write_values(lab, round));
        thread::sleep(pause);
        cluster::kill(cluster::daemon_pid(node)?)?;
        match writer.join() {
            Ok(written) => Ok(written),
            Err(_) => bail!("the writer panicked"),
        }
    })?;
    ensure!(written < VALUES_MAX, "values were written without a daemon");
    if lab.subject == Subject::C {
        // It refuses to start beside what is left of the killed one.
        none_left("ctdb")?;
    }
    cluster::start_daemon(node)?;
    cluster::wait_healthy(node)?;
    let listed = node.run(&format!("net registry enumerate {KEY}"))?;
    for number in 0..written {
        let name = value_name(round, number);
        ensure!(listed.contains(&name), "{name} of {written} is lost:\n{listed}");
    }
    // They lost their daemon, and end as with C's.
    none_left("smbd")?;
    none_left("winbindd")?;
    samba::start(node)?;
    samba::wait_ready(&lab.cluster, node)?;
    // The user's record is persistent too: without it nobody could log in.
    tools::start_winbindd(lab)?;
    Ok(written)
}

fn value_name(round: u32, number: u32) -> String {
    format!("value-{round}-{number}-")
}

/// Writes values until one is refused: how many were acknowledged.
fn write_values(lab: &Lab, round: u32) -> u32 {
    let written = (0..VALUES_MAX).take_while(|number| {
        let name = value_name(round, *number);
        lab.node().run(&format!("net registry setvalue {KEY} {name} dword {number}")).is_ok()
    });
    u32::try_from(written.count()).unwrap_or(u32::MAX)
}
