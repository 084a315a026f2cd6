//! What the tool says about a cluster, read for one question: is it healthy and at rest?
//!
//! Role: parses `ctdb -X`-style output of the C tool, which speaks to both daemons.
//! Origin: `docs/spec/admin-interface.md` 1.5.2, 1.6.1.

use std::thread;

use super::{Cluster, Node};

/// The agreed state of a healthy cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Generation, equal on every node.
    pub generation: String,
    /// PNN of the leader, equal on every node.
    pub leader: String,
    /// Public addresses and the PNN that holds each, as the first node says.
    pub addresses: Vec<(String, String)>,
}

/// The common view of the nodes `running`, or why there is none. All nodes are asked at once:
/// `status` waits up to a second for a broadcast of the leader.
pub(super) fn healthy_view(cluster: &Cluster, running: &[usize]) -> Result<View, String> {
    let views: Vec<_> = thread::scope(|scope| {
        let ask = |&index| scope.spawn(move || node_view(cluster.node(index), running));
        let asked: Vec<_> = running.iter().map(ask).collect();
        asked.into_iter().map(|thread| thread.join().map_err(|_| "panicked".to_owned())?).collect()
    });
    let mut common: Option<View> = None;
    for (index, view) in running.iter().zip(views) {
        let view = view?;
        match &common {
            Some(before) if *before != view => {
                return Err(format!("node {index} sees {view:?}, another {before:?}"));
            }
            _ => common = Some(view),
        }
    }
    common.ok_or_else(|| "no node is meant to run".into())
}

fn node_view(node: Node<'_>, running: &[usize]) -> Result<View, String> {
    let ask = |arguments: &[&str]| node.tool_ok(arguments).map_err(|error| format!("{error:#}"));
    let index = node.index();
    let runstate = ask(&["runstate"])?;
    if runstate.trim() != "RUNNING" {
        return Err(format!("node {index} is in run state {}", runstate.trim()));
    }
    let addresses = parse_addresses(&ask(&["ip", "all", "-X"])?);
    if let Some((address, _)) = addresses.iter().find(|(_, pnn)| pnn == "-1") {
        return Err(format!("node {index}: address {address} is not assigned"));
    }
    let status = ask(&["status"])?;
    let (generation, leader) =
        healthy_status(&status, running).map_err(|reason| format!("node {index}: {reason}"))?;
    Ok(View { generation, leader, addresses })
}

/// Generation and leader out of `ctdb status`, when each node of `running` is OK, the others are
/// not, and no recovery goes on.
fn healthy_status(status: &str, running: &[usize]) -> Result<(String, String), String> {
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::to_owned).ok_or_else(|| format!("no `{name}` in:\n{status}"))
    };
    for line in status.lines().filter(|line| line.starts_with("pnn:")) {
        let mut words = line["pnn:".len()..].split_whitespace();
        let pnn: Option<usize> = words.next().and_then(|word| word.parse().ok());
        let (_, state) = (words.next(), words.next());
        let wanted = pnn.is_some_and(|pnn| running.contains(&pnn));
        if wanted != (state == Some("OK")) {
            return Err(line.to_owned());
        }
    }
    let mode = value("Recovery mode:")?;
    if !mode.starts_with("NORMAL") {
        return Err(format!("recovery mode {mode}"));
    }
    let leader = value("Leader:")?;
    if leader.parse::<u32>().is_err() {
        return Err(format!("leader {leader}"));
    }
    Ok((value("Generation:")?, leader))
}

fn parse_addresses(table: &str) -> Vec<(String, String)> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let mut columns = row.trim_matches('|').split('|');
        Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Number of nodes:2\n\
        pnn:0 127.15.0.1       OK (THIS NODE)\n\
        pnn:1 127.15.0.2       DISCONNECTED|UNHEALTHY|INACTIVE\n\
        Generation:1251928892\n\
        Size:1\n\
        hash:0 lmaster:0\n\
        Recovery mode:NORMAL (0)\n\
        Leader:0\n";

    #[test]
    fn a_node_that_should_be_down_must_be_down() {
        assert_eq!(healthy_status(STATUS, &[0]), Ok(("1251928892".into(), "0".into())));
        assert!(healthy_status(STATUS, &[0, 1]).is_err());
        assert!(
            healthy_status(&STATUS.replace("DISCONNECTED|UNHEALTHY|INACTIVE", "OK"), &[0]).is_err()
        );
    }

    #[test]
    fn a_recovery_or_an_unknown_leader_is_not_healthy() {
        assert!(healthy_status(&STATUS.replace("NORMAL (0)", "RECOVERY (1)"), &[0]).is_err());
        assert!(healthy_status(&STATUS.replace("Leader:0", "Leader:UNKNOWN"), &[0]).is_err());
    }

    #[test]
    fn addresses_come_with_their_holder() {
        let table = "|Public IP|Node|\n|192.168.100.1|0|\n|192.168.100.2|-1|\n";
        let expected = [("192.168.100.1", "0"), ("192.168.100.2", "-1")]
            .map(|(address, pnn)| (address.to_owned(), pnn.to_owned()));
        assert_eq!(parse_addresses(table), expected);
    }
}
