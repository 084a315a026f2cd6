//! Files through SMB: a large one, and many sessions at the same time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_e2e::{Lab, size};
use ringmaster_xtask::demo::{random_file, samba, wait};

use crate::SESSION_S;

/// Size of the large file: in CI, in a soak.
const LARGE: (u64, u64) = (1 << 30, 2 << 30);
/// Sessions at the same time: in CI, in a soak.
const SESSIONS: (usize, usize) = (200, 400);
/// How long all of them may take, in seconds.
const ALL_SESSIONS_S: u32 = 300;
const ALL_SESSIONS: Duration = Duration::from_secs(ALL_SESSIONS_S as u64);

pub(super) fn large_file(lab: &Lab) -> Result<()> {
    let (sent, back) = (lab.cluster.client.own("large"), lab.cluster.client.own("large.back"));
    let session = |work: &str| samba::session(&lab.cluster, lab.node(), 5 * SESSION_S, work);
    let bytes = size(LARGE.0, LARGE.1);
    random_file(&sent, bytes)?;
    session(&format!("put {} large", sent.display()))?;
    let first = samba::checksum(&sent)?;
    // All this is memory: never more than two copies.
    fs::remove_file(&sent)?;
    session(&format!("get large {}", back.display()))?;
    let second = samba::checksum(&back)?;
    fs::remove_file(&back)?;
    session("del large")?;
    ensure!(first == second, "the file came back different: {first} and {second}");
    println!("    {} MiB, SHA-256 {first} both", bytes >> 20);
    Ok(())
}

/// A session that has the common file open until somebody reads what it got of it.
struct Session {
    number: usize,
    child: Child,
    pipe: PathBuf,
    back: PathBuf,
}

impl Session {
    fn start(lab: &Lab, number: usize, sent: &Path) -> Result<Self> {
        let client = &lab.cluster.client;
        let back = client.own(&format!("small.{number}"));
        let pipe = client.own(&format!("pipe.{number}"));
        client.run(&format!("mkfifo {}", pipe.display()))?;
        // All write the same file, so that its record is wanted by all.
        let work = format!(
            "put {sent} own.{number};put {sent} common;get common {};get own.{number} {};\
             del own.{number}",
            pipe.display(),
            back.display(),
            sent = sent.display(),
        );
        let mut command = samba::client(&lab.cluster, lab.node(), ALL_SESSIONS_S, &work);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self { number, child: child.context("smbclient")?, pipe, back })
    }

    /// Lets it go on, and compares what it got.
    fn finish(self, sent: &[u8]) -> Result<()> {
        let common = wait::limited(SESSION_S, "cat").arg(&self.pipe).output()?;
        let done = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "session {}: {}\n{said}", self.number, done.status);
        ensure!(common.stdout == sent, "session {}: the common file is another", self.number);
        ensure!(fs::read(&self.back)? == sent, "session {}: its own file is another", self.number);
        fs::remove_file(&self.back)?;
        Ok(fs::remove_file(&self.pipe)?)
    }
}

pub(super) fn sessions_at_once(lab: &Lab) -> Result<()> {
    let sent = lab.cluster.client.own("small");
    random_file(&sent, 64 << 10)?;
    let count = size(SESSIONS.0, SESSIONS.1);
    let mut sessions =
        (0..count).map(|number| Session::start(lab, number, &sent)).collect::<Result<Vec<_>>>()?;
    let working = wait::until("all sessions to have the file open", ALL_SESSIONS, || {
        let early = |one: &mut Session| matches!(one.child.try_wait(), Ok(Some(_)));
        if let Some(ended) = sessions.iter_mut().find_map(|one| early(one).then_some(one.number)) {
            return Ok(Err(format!("session {ended} has ended early")));
        }
        let shown = lab.node().run("smbstatus").map_err(|error| format!("{error:#}"))?;
        // A line of sessions has the client's address, a line of open files the file's name.
        let lines = |part: &str| shown.lines().filter(|line| line.contains(part)).count();
        let seen = (lines("(ipv4:10.77.0.200"), lines("  common  "));
        if seen == (count, count) {
            return Ok(Ok(()));
        }
        Err(format!("{} sessions have the file open {} times", seen.0, seen.1))
    })?;
    if let Err(ended) = working {
        let said = sessions.into_iter().map(|session| session.child.wait_with_output());
        let said = said.flatten().map(|one| String::from_utf8_lossy(&one.stdout).into_owned());
        bail!("{ended}: {}", said.collect::<String>());
    }
    let content = fs::read(&sent)?;
    for session in sessions {
        session.finish(&content)?;
    }
    println!("    {count} sessions at the same time");
    samba::session(&lab.cluster, lab.node(), SESSION_S, "del common")?;
    Ok(())
}
