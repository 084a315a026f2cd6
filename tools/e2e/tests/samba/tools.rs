//! Samba's own tools and winbindd.

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_e2e::{Lab, share::FIRST_ID};
use ringmaster_xtask::demo::{random_file, samba, wait};

use crate::{KEY, PROCESSES, SESSION_S};

/// Numbers asked for at the same time.
const NUMBERS: usize = 8;

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

pub(super) fn smbstatus(lab: &Lab) -> Result<()> {
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

pub(super) fn registry(lab: &Lab) -> Result<()> {
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

pub(super) fn dbwrap_tool(lab: &Lab) -> Result<()> {
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

/// Starts winbindd and waits until it answers.
pub(super) fn start_winbindd(lab: &Lab) -> Result<()> {
    let mut command = lab.node().command(30, "winbindd");
    // It keeps its standard error, which nobody would read to the end.
    let status = command.arg("-D").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "winbindd: {status}");
    wait::until("winbindd to answer", PROCESSES, || {
        lab.node().run("wbinfo -p").map(drop).map_err(|error| format!("{error:#}"))
    })
}

/// A number from winbindd, which counts in a persistent clustered database.
pub(super) fn a_number(lab: &Lab) -> Result<u32> {
    let said = lab.node().run("wbinfo --allocate-uid")?;
    let number = said.trim().strip_prefix("New uid: ").context("it names a number")?;
    number.parse().with_context(|| format!("wbinfo said '{said}'"))
}

/// It runs on; the daemon's death ends it.
pub(super) fn winbindd(lab: &Lab) -> Result<()> {
    let node = lab.node();
    start_winbindd(lab)?;
    ensure!(node.run("wbinfo --own-domain")?.trim() == "DEMO", "its domain");
    let domains = node.run("wbinfo --all-domains")?;
    ensure!(domains.contains("CLUSTER") && domains.contains("BUILTIN"), "domains:\n{domains}");
    let name = node.run("wbinfo --name-to-sid demo")?;
    let sid = name.split_whitespace().next().context("a user has a number")?;
    ensure!(sid.starts_with("S-1-5-21-"), "the user is {name}");
    let back = node.run(&format!("wbinfo --sid-to-name {sid}"))?;
    ensure!(back.to_lowercase().contains("demo"), "{sid} is {back}");
    // There is no domain to trust, and it says so.
    let trust = node.run("wbinfo -t").err().map(|error| format!("{error:#}"));
    let trust = trust.context("a trust in no domain was checked")?;
    ensure!(trust.contains("NT_STATUS_NO_SUCH_DOMAIN"), "wbinfo -t:\n{trust}");
    let mut numbers = BTreeSet::new();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..NUMBERS).map(|_| scope.spawn(|| a_number(lab))).collect();
        for one in asking {
            match one.join() {
                Ok(number) => numbers.insert(number?),
                Err(_) => bail!("a thread panicked"),
            };
        }
        Ok(())
    })?;
    let expected: BTreeSet<u32> = (FIRST_ID..).take(NUMBERS).collect();
    ensure!(numbers == expected, "the numbers handed out: {numbers:?}");
    Ok(())
}
