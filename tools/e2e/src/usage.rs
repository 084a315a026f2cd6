//! What a daemon holds: clients, descriptors, memory.

use std::{fmt, fs};

use anyhow::{Context, Result};
use ringmaster_xtask::demo::{cluster, host::Host};

/// What the daemon of a host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Registered clients, the one that asks included.
    pub clients: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Its own memory in KiB, without the database files that it has mapped.
    pub memory_kib: u64,
    /// Its processes.
    pub processes: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, descriptors, memory_kib, processes } = self;
        write!(
            f,
            "{clients} clients, {descriptors} descriptors, {memory_kib} KiB of its own memory, \
             {processes} processes"
        )
    }
}

impl Usage {
    /// As it is now.
    ///
    /// # Errors
    /// When the daemon does not answer or is gone.
    pub fn now(host: &Host) -> Result<Self> {
        let pid = cluster::daemon_pid(host)?;
        let statistics = host.run("ctdb statistics")?;
        let clients = number_after(&statistics, "num_clients").context("num_clients is missing")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon")?;
        let memory_kib = number_after(&status, "RssAnon:").context("RssAnon is missing")?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon")?.count();
        let processes = crate::processes("ctdb")?.len();
        Ok(Self {
            clients,
            descriptors: u64::try_from(descriptors)?,
            memory_kib,
            processes: u64::try_from(processes)?,
        })
    }
}

/// The number behind a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_words() {
        let text = "CTDB version 1\n num_clients                       30\n frozen 0\n";
        assert_eq!(number_after(text, "num_clients"), Some(30));
        assert_eq!(number_after("RssAnon:\t  5072 kB\n", "RssAnon:"), Some(5072));
        assert_eq!(number_after(text, "clients"), None);
    }
}
