//! Whose daemon runs, and how ours is set up.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ringmaster_xtask::demo::{
    cluster::{self, Daemon},
    host::Host,
};

/// Whose daemon a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Debian's.
    C,
    /// Ours, as it comes.
    Ours,
    /// Ours with four shards, however many processors there are.
    FourShards,
    /// Ours where the kernel has no io_uring.
    Epoll,
}

impl Subject {
    /// Every subject.
    pub const ALL: &'static [Self] = &[Self::C, Self::Ours, Self::FourShards, Self::Epoll];
    /// Debian's daemon and ours side by side.
    pub const BOTH: &'static [Self] = &[Self::C, Self::Ours];
    /// Ours in every form.
    pub const OURS: &'static [Self] = &[Self::Ours, Self::FourShards, Self::Epoll];

    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Ours => "ours",
            Self::FourShards => "ours-4",
            Self::Epoll => "ours-epoll",
        }
    }

    /// The subject with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|subject| subject.name() == name)
    }

    /// The daemon's binaries.
    ///
    /// # Errors
    /// When this program cannot find itself, and with it ours.
    pub fn daemon(self) -> Result<Daemon> {
        match self {
            Self::C => Ok(Daemon::C),
            Self::Ours | Self::FourShards | Self::Epoll => Ok(Daemon::Ours(own_binaries()?)),
        }
    }

    /// Our daemon's own settings; empty: none.
    const fn settings(self) -> &'static str {
        match self {
            Self::C | Self::Ours => "",
            Self::FourShards => "[dataplane]\n\tshards = 4\n",
            Self::Epoll => "[dataplane]\n\treactor = epoll\n",
        }
    }

    /// Puts the settings where the daemon of `node` will read them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(self, node: &Host) -> Result<()> {
        if self.settings().is_empty() {
            return Ok(());
        }
        let file = node.own("etc-ctdb").join("ringmaster.conf");
        fs::write(&file, self.settings()).with_context(|| format!("{}", file.display()))
    }

    /// Checks that the running daemon of `node` is what this subject names.
    ///
    /// # Errors
    /// When it is another one, or runs in another way.
    pub fn verify(self, node: &Host) -> Result<()> {
        let pid = cluster::daemon_pid(node)?;
        let (shards, rings) = (shard_threads(pid)?, rings(pid)?);
        let seen = format!("{shards} shards and {rings} rings");
        let right = match self {
            Self::C => shards == 0,
            // How many shards, and whether the kernel allows rings, is the machine's choice.
            Self::Ours => shards > 0,
            Self::FourShards => shards == 4,
            Self::Epoll => shards > 0 && rings == 0,
        };
        ensure!(right, "subject {}: the daemon has {seen}", self.name());
        Ok(())
    }
}

fn shard_threads(pid: u32) -> Result<usize> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the daemon's threads")?;
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    Ok(tasks
        .flatten()
        .filter_map(|task| name(task).ok())
        .filter(|n| n.starts_with("shard-"))
        .count())
}

fn rings(pid: u32) -> Result<usize> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon's descriptors")?;
    let what = |entry: fs::DirEntry| fs::read_link(entry.path());
    let rings = open.flatten().filter_map(|entry| what(entry).ok());
    Ok(rings.filter(|link| link.to_string_lossy().contains("io_uring")).count())
}

/// The folder with our binaries: `target/PROFILE`. A test lies one deeper, in `deps`.
fn own_binaries() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let folder = program.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(folder.context("a test lies in target/PROFILE/deps")?.to_owned())
}
