//! Unmodified Samba on the C daemon and on ours: what people and their files go through.
//! `cargo test -p ringmaster-e2e -- PART…` runs the cases whose names contain a word.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_e2e::{Case, Lab, Subject, processes};
use ringmaster_xtask::demo::{cluster, random_file, samba, wait};

const CASES: &[Case] = &[
    ("a_large_file_comes_back_with_equal_checksum", large_file),
    ("fifty_sessions_at_once_are_all_served", fifty_sessions),
    ("smbstatus_shows_session_share_and_open_file", smbstatus),
    ("registry_values_are_written_listed_and_deleted", registry),
    ("dbwrap_tool_writes_both_kinds_of_database", dbwrap_tool),
    ("locked_ranges_and_share_modes_hold", smbtorture),
    ("killed_smbds_leave_nothing_that_stops_others", killed_smbds),
    ("a_killed_daemon_starts_at_once_and_has_every_record", killed_daemon),
];

/// Size of the large file.
const LARGE: u64 = 96 << 20;
/// Sessions at the same time.
const SESSIONS: usize = 50;
/// Rounds of killing a server process that works.
const KILLS: u64 = 20;
/// Whatever one session does in a case, it takes no longer than this, in seconds.
const SESSION_S: u32 = 60;
/// How long processes may take to appear, or to end by themselves.
const PROCESSES: Duration = Duration::from_secs(20);
/// A key of the registry, and a value below it.
const KEY: &str = r"HKLM\Software\Ringmaster";

fn main() -> ExitCode {
    ringmaster_e2e::main(CASES)
}

fn large_file(lab: &Lab) -> Result<()> {
    let (sent, back) = (lab.cluster.client.own("large"), lab.cluster.client.own("large.back"));
    random_file(&sent, LARGE)?;
    let work = format!("put {} large; get large {}", sent.display(), back.display());
    samba::session(&lab.cluster, lab.node(), SESSION_S, &work)?;
    ensure!(samba::checksum(&sent)? == samba::checksum(&back)?, "the file came back different");
    fs::remove_file(&back)?;
    samba::session(&lab.cluster, lab.node(), SESSION_S, "del large")?;
    Ok(())
}

fn fifty_sessions(lab: &Lab) -> Result<()> {
    let sent = lab.cluster.client.own("small");
    random_file(&sent, 64 << 10)?;
    // All have the same file open at the same time, so that its record is wanted by all.
    let one = |number: usize| {
        let back = lab.cluster.client.own(&format!("small.{number}"));
        let work = format!(
            "put {sent} own.{number}; get own.{number} {back}; put {sent} common; \
             get common {back}.common; del own.{number}",
            sent = sent.display(),
            back = back.display(),
        );
        let done = samba::client(&lab.cluster, lab.node(), SESSION_S, &work).output()?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "{}: {said}", done.status);
        ensure!(fs::read(&back)? == fs::read(&sent)?, "session {number} got another content");
        fs::remove_file(&back)?;
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> =
            (0..SESSIONS).map(|number| scope.spawn(move || one(number))).collect();
        for (number, session) in running.into_iter().enumerate() {
            match session.join() {
                Ok(done) => done.with_context(|| format!("session {number} of {SESSIONS}"))?,
                Err(_) => bail!("session {number} panicked"),
            }
        }
        Ok(())
    })
}

/// A session that has the file `held` open until it is killed.
fn session_with_open_file(lab: &Lab) -> Result<Child> {
    let client = &lab.cluster.client;
    let (sent, pipe) = (client.own("held"), client.own("held.pipe"));
    random_file(&sent, 1 << 20)?;
    samba::session(&lab.cluster, lab.node(), SESSION_S, &format!("put {} held", sent.display()))?;
    client.run(&format!("mkfifo {}", pipe.display()))?;
    // smbclient opens the file on the server, and then a pipe that nobody reads.
    let get = format!("get held {}", pipe.display());
    samba::client(&lab.cluster, lab.node(), SESSION_S, &get)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("smbclient")
}

fn smbstatus(lab: &Lab) -> Result<()> {
    let mut session = session_with_open_file(lab)?;
    let seen = wait::until("smbstatus to show the open file", PROCESSES, || {
        let shown = lab.node().run("smbstatus").map_err(|error| format!("{error:#}"))?;
        let all = ["demo", "10.77.0.200", "data", "held"].iter().all(|word| shown.contains(word));
        if all { Ok(()) } else { Err(shown) }
    });
    // `timeout` is what was started; it passes this on.
    wait::output("kill", wait::limited(10, "kill").arg(session.id().to_string()))?;
    session.wait()?;
    seen?;
    wait::until("smbstatus to show no open file", PROCESSES, || {
        let shown = lab.node().run("smbstatus").map_err(|error| format!("{error:#}"))?;
        if shown.contains("held") { Err(shown) } else { Ok(()) }
    })
}

fn registry(lab: &Lab) -> Result<()> {
    let node = lab.node();
    node.run(&format!("net registry createkey {KEY}"))?;
    node.run(&format!("net registry setvalue {KEY} name sz Ringmaster"))?;
    node.run(&format!("net registry setvalue {KEY} number dword 7701"))?;
    let listed = node.run(&format!("net registry enumerate {KEY}"))?;
    ensure!(listed.contains("Ringmaster") && listed.contains("7701"), "listed:\n{listed}");
    node.run(&format!("net registry deletevalue {KEY} name"))?;
    let listed = node.run(&format!("net registry enumerate {KEY}"))?;
    ensure!(!listed.contains("\"Ringmaster\"") && listed.contains("7701"), "then:\n{listed}");
    node.run(&format!("net registry deletekey {KEY}"))?;
    ensure!(node.run(&format!("net registry enumerate {KEY}")).is_err(), "the key is still there");
    Ok(())
}

fn dbwrap_tool(lab: &Lab) -> Result<()> {
    let node = lab.node();
    for (kind, name) in [("--persistent", "kept.tdb"), ("--non-persistent", "passing.tdb")] {
        let tool = |line: &str| node.run(&format!("dbwrap_tool {kind} {name} {line}"));
        tool("store one uint32 11")?;
        tool("store two string zwei")?;
        ensure!(
            tool("fetch one uint32")?.trim() == "11",
            "{kind}: one: {}",
            tool("fetch one uint32")?
        );
        ensure!(tool("fetch two string")?.contains("zwei"), "{kind}: two");
        tool("store one uint32 12")?;
        ensure!(tool("fetch one uint32")?.trim() == "12", "{kind}: one was changed");
        tool("delete two")?;
        // In a persistent database it stays as an empty record.
        let gone = tool("fetch two string").unwrap_or_default();
        ensure!(!gone.contains("zwei"), "{kind}: two was deleted");
        let keys = tool("listkeys")?;
        ensure!(keys.contains("one"), "{kind}: keys:\n{keys}");
    }
    Ok(())
}

/// Samba's own tests whose state is in clustered databases.
fn smbtorture(lab: &Lab) -> Result<()> {
    let share = format!("//{}/{}", lab.node().address(), samba::SHARE);
    for suite in ["smb2.lock", "smb2.sharemode"] {
        let mut command = lab.cluster.client.command(SESSION_S, "smbtorture");
        command.args([&share, "-Udemo%demo", suite]);
        wait::success(suite, &mut command)?;
    }
    Ok(())
}

fn killed_smbds(lab: &Lab) -> Result<()> {
    let sent = lab.cluster.client.own("work");
    random_file(&sent, 8 << 20)?;
    for round in 0..KILLS {
        let before: BTreeSet<u32> = processes("smbd")?.into_iter().collect();
        let put = format!("put {} kill.{};", sent.display(), round % 3);
        let mut session = samba::client(&lab.cluster, lab.node(), SESSION_S, &put.repeat(40))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let new = wait::until("a server process for the session", PROCESSES, || {
            let new = processes("smbd").map_err(|error| error.to_string())?;
            new.into_iter().find(|pid| !before.contains(pid)).ok_or_else(|| "none yet".into())
        })?;
        // Another moment of its work in each round.
        thread::sleep(Duration::from_millis(7 * round));
        cluster::kill(new)?;
        session.wait()?;
        others_work(lab).with_context(|| format!("round {round}"))?;
    }
    every_database_can_be_read(lab)
}

/// A new session writes and reads the files of the killed one.
fn others_work(lab: &Lab) -> Result<()> {
    let (sent, back) = (lab.cluster.client.own("work"), lab.cluster.client.own("work.back"));
    let work = format!("put {} kill.0; get kill.0 {}; ls", sent.display(), back.display());
    samba::session(&lab.cluster, lab.node(), SESSION_S, &work)?;
    ensure!(fs::read(&sent)? == fs::read(&back)?, "another content came back");
    Ok(())
}

fn every_database_can_be_read(lab: &Lab) -> Result<()> {
    let node = lab.node();
    let map = node.run("ctdb -X getdbmap")?;
    let names: Vec<&str> = map.lines().skip(1).filter_map(|line| line.split('|').nth(2)).collect();
    ensure!(names.contains(&"locking.tdb"), "no locking.tdb in the list:\n{map}");
    for name in names {
        node.run(&format!("ctdb cattdb {name}"))?;
        let status = node.run(&format!("ctdb getdbstatus {name}"))?;
        ensure!(status.contains("HEALTH: OK"), "{name}: {status}");
    }
    Ok(())
}

fn killed_daemon(lab: &Lab) -> Result<()> {
    let node = lab.node();
    let (sent, back) = (lab.cluster.client.own("stays"), lab.cluster.client.own("stays.back"));
    random_file(&sent, 1 << 20)?;
    samba::session(&lab.cluster, node, SESSION_S, &format!("put {} stays", sent.display()))?;
    node.run(&format!("net registry createkey {KEY}"))?;
    for number in 0..5 {
        node.run(&format!("net registry setvalue {KEY} value{number} dword {number}"))?;
    }
    cluster::kill(cluster::daemon_pid(node)?)?;
    if lab.subject == Subject::C {
        // It refuses to start beside what is left of the killed one.
        wait::until("the end of C's other processes", PROCESSES, || none_left("ctdb"))?;
    }
    cluster::start_daemon(node)?;
    cluster::wait_healthy(node)?;
    let listed = node.run(&format!("net registry enumerate {KEY}"))?;
    for number in 0..5 {
        ensure!(listed.contains(&format!("value{number}")), "value{number} is lost:\n{listed}");
    }
    wait::until("the end of the servers that lost their daemon", PROCESSES, || none_left("smbd"))?;
    samba::start(node)?;
    samba::wait_ready(&lab.cluster, node)?;
    // The user's record is persistent too: without it nobody could log in.
    samba::session(&lab.cluster, node, SESSION_S, &format!("get stays {}", back.display()))?;
    ensure!(samba::checksum(&sent)? == samba::checksum(&back)?, "the file came back different");
    Ok(())
}

fn none_left(name: &str) -> Result<(), String> {
    let left = processes(name).map_err(|error| error.to_string())?;
    if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
}
