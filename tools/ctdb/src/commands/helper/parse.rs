//! What the helpers print, read back for `--json`; pure.
//!
//! Origin: `docs/spec/admin-interface.md` 2.3, 2.9, A.3.

use serde::Serialize;

/// One event script.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Script {
    pub(super) name: String,
    pub(super) status: Option<String>,
    pub(super) enabled: bool,
    pub(super) local: Option<bool>,
    pub(super) duration: Option<f64>,
    pub(super) start: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) output: Option<String>,
}

/// Rows of `event status` or `event script list`, and everything before them that is neither.
pub(super) fn scripts(text: &str) -> (Vec<Script>, Option<String>) {
    let mut scripts: Vec<Script> = Vec::new();
    let mut message: Vec<&str> = Vec::new();
    let mut local = false;
    let mut in_output = false;
    for line in text.lines() {
        if let Some(script) = status_row(line) {
            scripts.push(script);
            in_output = false;
        } else if let Some(first) = line.strip_prefix("  OUTPUT:") {
            if let Some(script) = scripts.last_mut() {
                let first = first.strip_prefix(' ').unwrap_or(first);
                script.output = Some(first.to_owned());
            }
            in_output = true;
        } else if in_output {
            if let Some(output) = scripts.last_mut().and_then(|script| script.output.as_mut()) {
                output.push('\n');
                output.push_str(line);
            }
        } else if line.is_empty() {
            // In a list: from here on, local scripts.
            local = true;
        } else if let Some(script) = list_row(line, local) {
            scripts.push(script);
        } else {
            message.push(line);
        }
    }
    for script in &mut scripts {
        if let Some(output) = &mut script.output {
            output.truncate(output.trim_end_matches('\n').len());
        }
    }
    (scripts, (!message.is_empty()).then(|| message.join("\n")))
}

/// `NAME STATUS [DURATION] [DATE]`, the name padded to 20 and the status to 10 characters.
fn status_row(line: &str) -> Option<Script> {
    let (name, rest) = line.split_once(' ')?;
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let mut script = Script { name: name.to_owned(), enabled: true, ..Script::default() };
    if let Some(reason) = rest.strip_prefix("CANNOT RUN (") {
        script.status = Some("CANNOT RUN".to_owned());
        script.reason = Some(reason.strip_suffix(')').unwrap_or(reason).to_owned());
        return Some(script);
    }
    let (status, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let rest = rest.trim();
    match status {
        "OK" | "ERROR" => {
            let (duration, start) = rest.split_once(' ')?;
            script.duration = Some(duration.parse().ok()?);
            script.start = Some(start.to_owned());
        }
        "TIMEDOUT" => script.start = Some(rest.to_owned()),
        "DISABLED" if rest.is_empty() => script.enabled = false,
        _ => return None,
    }
    script.status = Some(status.to_owned());
    Some(script)
}

/// `* NAME` or two blanks and `NAME`.
fn list_row(line: &str, local: bool) -> Option<Script> {
    let (enabled, name) = match line.strip_prefix("* ") {
        Some(name) => (true, name),
        None => (false, line.strip_prefix("  ")?),
    };
    let known = !name.is_empty() && !name.contains(' ');
    let name = name.to_owned();
    known.then(|| Script { name, enabled, local: Some(local), ..Script::default() })
}

/// A member of a NAT gateway or LVS group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct GroupNode {
    pub(super) pnn: Option<u32>,
    pub(super) address: Option<String>,
    pub(super) leader: Option<bool>,
    pub(super) follower_only: Option<bool>,
    pub(super) flags: Option<String>,
}

/// Lines of `leader`, `list` or `status`, told apart by what they look like.
pub(super) fn group_nodes(command: &str, text: &str) -> Vec<GroupNode> {
    text.lines().filter_map(|line| group_node(command, line)).collect()
}

fn group_node(command: &str, line: &str) -> Option<GroupNode> {
    if let Some(row) = line.strip_prefix("pnn:") {
        let mut words = row.split_whitespace();
        return Some(GroupNode {
            pnn: words.next()?.parse().ok(),
            address: words.next().map(str::to_owned),
            flags: words.next().map(str::to_owned),
            ..GroupNode::default()
        });
    }
    let (first, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if let Ok(pnn) = first.parse() {
        let address = (!rest.is_empty()).then(|| rest.to_owned());
        let leader = Some(command == "leader").filter(|leader| *leader);
        return Some(GroupNode { pnn: Some(pnn), address, leader, ..GroupNode::default() });
    }
    (!first.is_empty()).then(|| GroupNode {
        address: Some(first.to_owned()),
        leader: Some(rest.contains("LEADER")),
        follower_only: Some(rest.contains("follower-only")),
        ..GroupNode::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_yields_results_and_output() {
        let text = "\
00.ctdb              OK         0.002 Fri Nov 20 03:12:36 2026
98.off               DISABLED  
99.fail              ERROR      0.001 Fri Nov 20 03:12:36 2026
  OUTPUT: first line
second line

";
        let (scripts, message) = scripts(text);
        assert_eq!(message, None);
        assert_eq!(scripts.len(), 3);
        assert_eq!(scripts[0].duration, Some(0.002));
        assert_eq!(scripts[0].start.as_deref(), Some("Fri Nov 20 03:12:36 2026"));
        assert!(!scripts[1].enabled);
        assert_eq!(scripts[2].output.as_deref(), Some("first line\nsecond line"));
    }

    #[test]
    fn what_could_not_run_has_a_reason_and_what_took_too_long_a_start() {
        let text = "\
98.slow              TIMEDOUT   Fri Nov 20 03:12:37 2026
  OUTPUT: 
99.fail              CANNOT RUN (No such file or directory)
  OUTPUT: 
";
        let (scripts, _) = scripts(text);
        assert_eq!(scripts[0].start.as_deref(), Some("Fri Nov 20 03:12:37 2026"));
        assert_eq!(scripts[1].reason.as_deref(), Some("No such file or directory"));
    }

    #[test]
    fn a_list_tells_shipped_scripts_from_local_ones() {
        let (scripts, message) = scripts("* 00.ctdb\n  06.nfs\n\n* 99.fail\n");
        let rows: Vec<_> =
            scripts.iter().map(|s| (s.name.as_str(), s.enabled, s.local.unwrap())).collect();
        let expected =
            [("00.ctdb", true, false), ("06.nfs", false, false), ("99.fail", true, true)];
        assert_eq!((rows.as_slice(), message), (expected.as_slice(), None));
    }

    #[test]
    fn a_verdict_is_a_message() {
        let text = "Event nosuch has never run in legacy\n";
        assert_eq!(scripts(text), (Vec::new(), Some(text.trim_end().into())));
    }

    #[test]
    fn groups_are_read_in_all_three_forms() {
        let leader = &group_nodes("leader", "1 10.55.0.2\n")[0];
        assert_eq!((leader.pnn, leader.leader), (Some(1), Some(true)));
        let list = group_nodes("list", "10.55.0.1\tLEADER,follower-only\n10.55.0.3\n");
        assert_eq!((list[0].leader, list[0].follower_only), (Some(true), Some(true)));
        assert_eq!((list[1].leader, list[1].follower_only), (Some(false), Some(false)));
        let status = group_nodes("status", "pnn:0 10.55.0.1        OK (THIS NODE)\n");
        assert_eq!((status[0].pnn, status[0].flags.as_deref()), (Some(0), Some("OK")));
    }
}
