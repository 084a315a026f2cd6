//! What C's daemons log while ours is among them, and whether they would say it among themselves.
//!
//! Role: reads the logs of C's nodes, makes lines of different runs equal, keeps those with a word of
//! `WORDS`, and takes out what C's daemons log in the same scenarios alone (`AMONG_THEMSELVES`)
//! or of any node that dies (`OF_THE_DEAD`). What is left is a complaint.
//! Invariants: the list was made from clusters of C's daemons only; a line gets into it by being
//! seen there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use ringmaster_compat::cluster::Subject;

use crate::life::Life;

/// A file to which every line of C's logs is appended, made equal, with the composition before it:
/// to make the list below.
pub const SAID: &str = "RINGMASTER_FOLLOW_SAID";

/// C's nodes have not complained.
///
/// # Errors
/// They have; the error lists their words, with how often each was said.
pub fn check(life: &Life) -> Result<()> {
    let mut said: BTreeMap<String, u32> = BTreeMap::new();
    for node in life.cluster.nodes() {
        if *node.subject() != Subject::CDaemon {
            continue;
        }
        let text = std::fs::read_to_string(node.log()).unwrap_or_default();
        for line in text.lines() {
            *said.entry(equal(line)).or_default() += 1;
        }
    }
    note(life, &said)?;
    let mut complaints = String::new();
    for (line, count) in said.iter().filter(|(line, _)| !is_allowed(line)) {
        let _ = writeln!(complaints, "{count:>6} x {line}");
    }
    if !complaints.is_empty() {
        bail!("C's daemons say what they do not say among themselves:\n{complaints}");
    }
    Ok(())
}

fn note(life: &Life, said: &BTreeMap<String, u32>) -> Result<()> {
    let Some(path) = std::env::var_os(SAID) else { return Ok(()) };
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let text = said.iter().fold(String::new(), |mut text, (line, count)| {
        let _ = writeln!(text, "{}\t{test}\t{count}\t{line}", life.composition.name);
        text
    });
    file.write_all(text.as_bytes()).context("cannot append to the file of what was said")
}

/// A line without time, host and process, and with `#` for every number.
fn equal(line: &str) -> String {
    // "TIME HOST NAME[PID]: text"; lines without are the second and later ones of a longer text.
    let text = match line.split_once("]: ") {
        Some((head, text)) if head.contains(" node.") => {
            let program = head.rsplit(' ').next().and_then(|word| word.split('[').next());
            format!("{}: {text}", program.unwrap_or_default())
        }
        _ => line.to_owned(),
    };
    let mut equal = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        equal.push_str(&without_numbers(word));
        if words.peek().is_some() {
            equal.push(' ');
        }
    }
    equal
}

/// Numbers, decimal or with `0x`, become `#`; paths keep their last part.
fn without_numbers(word: &str) -> String {
    let word = match (word.find("/tmp/"), word.rfind('/')) {
        (Some(first), Some(last)) if last > first => {
            [&word[..first], "…/", &word[last + 1..]].concat()
        }
        _ => word.to_owned(),
    };
    let mut out = String::new();
    let mut rest = word.as_str();
    while let Some(first) = rest.chars().next() {
        let hex = rest.strip_prefix("0x").map(|digits| {
            digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len()) + 2
        });
        let len = hex.filter(|len| *len > 2).or_else(|| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (digits > 0).then_some(digits)
        });
        if let Some(len) = len {
            out.push('#');
            rest = &rest[len..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// C's log has no levels: these words, in small letters, make a line one of trouble.
const WORDS: &[&str] = &[
    "invalid",
    "malform",
    "bad ",
    "wrong",
    "corrupt",
    "mismatch",
    "unexpected",
    "error",
    "fail",
    " unable ",
    "cannot",
    "dmaster",
    "inconsisten",
];

/// Lines of trouble that three C daemons log in these scenarios.
const AMONG_THEMSELVES: &[&str] = &[
    "ctdb-recoverd: ../../ctdb/server/ctdb_client.c:# Failed to read node capabilities.",
    "ctdb-recoverd: ../../ctdb/server/ctdb_client.c:# ctdb_control for getvnnmap failed",
    "ctdb-recoverd: ../../ctdb/server/ctdb_recoverd.c:# Failed to get node capabilities",
    "ctdb-recoverd: ../../ctdb/server/ctdb_recoverd.c:# Unable to get vnnmap from remote node #",
    "ctdb-recoverd: ../../ctdb/server/ctdb_recoverd.c:# Unable to set recovery mode to active on cluster",
    "ctdb-recoverd: ../../ctdb/server/ctdb_recoverd.c:# Unable to set recovery mode. Recovery failed.",
    "ctdb-recoverd: ../../ctdb/server/ctdb_recoverd.c:# Unable to update node capabilities.",
    "ctdb-recoverd: Async operation failed with ret=-# res=-# opcode=#",
    "ctdb-recoverd: Async wait failed - fail_count=#",
    "ctdb-recoverd: Unable to begin - recoveries are disabled",
    "ctdb-recoverd: Unable to take cluster lock - contention",
    "ctdb-recoverd: async_getnodemap_error: Failed to retrieve nodemap from node #",
    "ctdb-recoverd: ctdb_control error: 'ctdb_control to disconnected node'",
    "ctdb-recoverd: ctdb_control error: 'node is disconnected'",
    "ctdb-recoverd: ctdb_takeover_run() failed",
    "ctdb-recoverd: main_loop: Failed to read remote nodemaps",
    "ctdb-recovery: database recovery failed, ret=-#",
    "ctdb-recovery: failed to run recovered event on node #, ret=-#",
    "ctdb-takeover: Failed to fetch known public IPs",
    "ctdb-takeover: control GET_PUBLIC_IPS failed on node #, ret=-#",
    "ctdb-takeover: takeover run failed, ret=-#",
    "ctdbd: ../../ctdb/server/ctdb_recover.c:# Failed to end recovery",
    "ctdbd: ctdb_persistent_callback failed with status -# (no error message given)",
    "ctdbd: ctdb_recheck_persistent_health: OK[#] FAIL[#]",
    "ctdbd: pnn # Invalid reqid # in ctdb_reply_control",
];

/// Said of a node that died while it was being asked, whoever made it: too rare to be seen in every
/// run of C's daemons alone.
const OF_THE_DEAD: &[&str] = &[
    "ctdbd: ctdb_control error: 'ctdb_control to disconnected node'",
    "ctdbd: ctdb_control error: 'node is disconnected'",
    "ctdbd: Failed to delete records on node #: ret[#] res[-#]",
    "ctdbd: Failed to send vacuum fetch control to node #",
];

fn is_allowed(line: &str) -> bool {
    let small = line.to_lowercase();
    !WORDS.iter().any(|word| small.contains(word))
        || AMONG_THEMSELVES.contains(&line)
        || OF_THE_DEAD.contains(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_runs_become_equal() {
        let line = "2026-11-20T08:08:06.119202+00:00 node.1 ctdbd[5387]: Attached to database \
                    '/tmp/x.1.0/node.0/db/volatile/by2-v.tdb.0' with flags 0x1c41";
        let expected = "ctdbd: Attached to database '…/by#-v.tdb.#' with flags #";
        assert_eq!(equal(line), expected);
        assert_eq!(equal("number 5 of 0x"), "number # of #x");
    }

    #[test]
    fn trouble_that_c_does_not_have_with_itself_is_a_complaint() {
        assert!(is_allowed("ctdbd: Attached to database '…/a.tdb.#' with flags #"));
        assert!(is_allowed("ctdbd: Loading tunables from …/ctdb.tunables"));
        assert!(is_allowed("ctdbd: DB Attach to database a.tdb denied by tunable X == #"));
        assert!(!is_allowed("ctdbd: Unable to do what has never been seen"));
        assert!(is_allowed("ctdb-recoverd: Async wait failed - fail_count=#"));
        assert!(!is_allowed("ctdbd: ctdb request # of type # length # from node # has bad magic"));
        assert!(!is_allowed("ctdbd: vnn # dmaster request for a record that is not here"));
    }
}
