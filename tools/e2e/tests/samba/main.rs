//! Unmodified Samba on the C daemon and on ours: what people and their files go through.
//!
//! `cargo test -p ringmaster-e2e --test samba -- [--on=SUBJECT,…] PART…` runs the cases whose names
//! contain a word. `RINGMASTER_SOAK=1`: the long forms, which `cargo xtask soak` runs.
#![forbid(unsafe_code)]

mod daemon;
mod files;
mod kills;
mod tools;
mod torture;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use ringmaster_e2e::{Case, Lab, Subject, processes};
use ringmaster_xtask::demo::wait;

const CASES: &[Case] = &[
    Case {
        name: "a_large_file_comes_back_with_equal_checksum",
        on: &[Subject::Ours],
        run: files::large_file,
    },
    Case {
        name: "sessions_at_once_are_all_served",
        on: Subject::BOTH,
        run: files::sessions_at_once,
    },
    Case {
        name: "smbstatus_shows_session_share_and_open_file",
        on: Subject::BOTH,
        run: tools::smbstatus,
    },
    Case {
        name: "registry_values_are_written_listed_and_deleted",
        on: Subject::BOTH,
        run: tools::registry,
    },
    Case {
        name: "dbwrap_tool_writes_both_kinds_of_database",
        on: Subject::BOTH,
        run: tools::dbwrap_tool,
    },
    Case {
        name: "winbindd_answers_and_never_hands_out_a_number_twice",
        on: Subject::BOTH,
        run: tools::winbindd,
    },
    Case {
        name: "smbtorture_finds_nothing_that_passes_on_c_and_fails",
        on: Subject::ALL,
        run: torture::pick,
    },
    Case {
        name: "killed_smbds_leave_nothing_behind_and_stop_nobody",
        on: Subject::ALL,
        run: kills::killed_smbds,
    },
    Case {
        name: "a_killed_daemon_starts_at_once_and_has_every_record",
        on: Subject::ALL,
        run: daemon::killed,
    },
];

/// Whatever one session does in a case, it takes no longer than this, in seconds.
const SESSION_S: u32 = 120;
/// How long processes may take to appear, or to end by themselves.
const PROCESSES: Duration = Duration::from_secs(60);
/// A key of the registry, and values below it.
const KEY: &str = r"HKLM\Software\Ringmaster";

fn main() -> ExitCode {
    ringmaster_e2e::main(CASES)
}

fn none_left(name: &str) -> Result<()> {
    wait::until(&format!("the end of every {name}"), PROCESSES, || {
        let left = processes(name).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
    })
}

/// Every database can be read and is healthy.
fn every_database_can_be_read(lab: &Lab) -> Result<()> {
    let node = lab.node();
    let map = node.run("ctdb -X getdbmap")?;
    let names: Vec<&str> = map.lines().skip(1).filter_map(|line| line.split('|').nth(2)).collect();
    anyhow::ensure!(names.contains(&"locking.tdb"), "no locking.tdb in the list:\n{map}");
    for name in names {
        node.run(&format!("ctdb cattdb {name}"))?;
        let status = node.run(&format!("ctdb getdbstatus {name}"))?;
        anyhow::ensure!(status.contains("HEALTH: OK"), "{name}: {status}");
    }
    Ok(())
}
