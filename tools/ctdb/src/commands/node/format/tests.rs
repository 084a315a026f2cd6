//! Texts captured from the 4.17 tool (`docs/spec/admin-interface.md` 1.5, A.1, A.2) and JSON from
//! Samba's development tree.

use ringmaster_protocol::node::NodeFlags;

use super::*;
use crate::testing::{documented, human, json, machine};

fn row(pnn: u32, flags: NodeFlags, this_node: bool) -> NodeRow {
    let address = format!("10.55.0.{}", pnn + 1);
    NodeRow { pnn, address, flags, partially_online: false, this_node }
}

fn table() -> NodeTable {
    let nodes = vec![
        row(0, NodeFlags::NONE, true),
        row(1, NodeFlags::PERMANENTLY_DISABLED, false),
        row(2, NodeFlags::STOPPED, false),
    ];
    NodeTable { node_count: 4, deleted_node_count: 1, nodes }
}

#[test]
fn status_is_that_of_the_4_17_tool() {
    let status = Status::new(table(), Some(1_668_698_335), vec![0, 1], false, Some(0));
    let expected = "\
Number of nodes:4 (including 1 deleted nodes)
pnn:0 10.55.0.1        OK (THIS NODE)
pnn:1 10.55.0.2        DISABLED
pnn:2 10.55.0.3        STOPPED|INACTIVE
Generation:1668698335
Size:2
hash:0 lmaster:0
hash:1 lmaster:1
Recovery mode:NORMAL (0)
Leader:0
";
    assert_eq!(human(&status), expected);
    let rows = "\
|Node|IP|Disconnected|Unknown|Banned|Disabled|Unhealthy|Stopped|Inactive|PartiallyOnline|ThisNode|
|0|10.55.0.1|0|0|0|0|0|0|0|0|Y|
|1|10.55.0.2|0|0|0|1|0|0|0|0|N|
|2|10.55.0.3|0|0|0|0|0|1|1|0|N|
";
    assert_eq!(machine(&status), rows);
}

#[test]
fn a_banned_node_shows_neither_generation_nor_leader() {
    let nodes = vec![row(1, NodeFlags::BANNED, true)];
    let table = NodeTable { node_count: 1, deleted_node_count: 0, nodes };
    let status = Status::new(table, None, Vec::new(), true, None);
    let expected = "\
Number of nodes:1
pnn:1 10.55.0.2        BANNED|INACTIVE (THIS NODE)
Generation:INVALID
Size:0
Recovery mode:RECOVERY (1)
Leader:UNKNOWN
";
    assert_eq!(human(&status), expected);
    let document = json(&status);
    assert!(document.contains("\"generation\": null"));
    assert!(document.ends_with("\"leader\": 4294967295\n}"));
}

#[test]
fn status_in_json_has_the_keys_of_samba_in_its_order() {
    let nodes = vec![row(0, NodeFlags::NONE, true)];
    let table = NodeTable { node_count: 4, deleted_node_count: 1, nodes };
    let status = Status::new(table, Some(1_141_254_098), vec![0], false, Some(1));
    let expected = r#"{
  "node_status": {
    "node_count": 4,
    "deleted_node_count": 1,
    "nodes": {
      "0": {
        "pnn": 0,
        "address": "10.55.0.1",
        "partially_online": false,
        "flags_raw": 0,
        "flags_ok": true,
        "flags": {
          "disconnected": false,
          "unknown": false,
          "disabled": false,
          "banned": false,
          "unhealthy": false,
          "deleted": false,
          "stopped": false,
          "inactive": false
        },
        "this_node": true
      }
    }
  },
  "vnn_status": {
    "generation": 1141254098,
    "size": 1,
    "vnn_map": [
      {
        "hash": 0,
        "lmaster": 0
      }
    ]
  },
  "recovery_mode": "NORMAL",
  "recovery_mode_raw": 0,
  "leader": 1
}"#;
    assert_eq!(json(&status), expected);
    documented(&status, STATUS);
}

#[test]
fn nodestatus_counts_nodes_only_for_all_and_exits_with_their_flags() {
    let some = NodeStatus { node_status: table(), all: false };
    assert!(human(&some).starts_with("pnn:0 10.55.0.1        OK (THIS NODE)\npnn:1"));
    assert_eq!(some.exit_status(), 4 | 32);
    let all = NodeStatus { all: true, ..some };
    assert!(human(&all).starts_with("Number of nodes:4 (including 1 deleted nodes)\npnn:0"));
    documented(&all, NODESTATUS);
}

#[test]
fn a_healthy_node_with_a_dead_link_is_partially_online() {
    let nodes = vec![NodeRow { partially_online: true, ..row(0, NodeFlags::NONE, false) }];
    let node_status = NodeTable { node_count: 1, deleted_node_count: 0, nodes };
    let status = NodeStatus { node_status, all: false };
    assert_eq!(human(&status), "pnn:0 10.55.0.1        PARTIALLYONLINE\n");
    assert!(machine(&status).ends_with("|0|10.55.0.1|0|0|0|0|0|0|0|1|N|\n"));
    assert_eq!(status.exit_status(), 0);
}

#[test]
fn listnodes_has_rows_without_a_header() {
    let node = |pnn, address: &str| ListedNode { pnn, address: address.into() };
    let list = ListedNodes { nodes: vec![node(0, "10.55.0.1"), node(2, "10.55.0.3")] };
    assert_eq!(human(&list), "10.55.0.1\n10.55.0.3\n");
    assert_eq!(machine(&list), "|0|10.55.0.1|\n|2|10.55.0.3|\n");
    documented(&list, LISTNODES);
}

#[test]
fn uptime_is_that_of_the_4_17_tool() {
    let at = |seconds, micros| Timeval { seconds, micros };
    let report = UptimeReport {
        pnn: 0,
        current: at(1_795_143_037, 0),
        start: at(1_795_142_159, 500),
        recovery_started: at(1_795_142_555, 900_000),
        recovery_finished: at(1_795_142_556, 542_864),
    };
    let text = human(&report);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("Current time of node 0        :                "));
    assert!(lines[1].starts_with("Ctdbd start time              : (000 00:14:38) "));
    assert!(lines[2].starts_with("Time of last recovery/failover: (000 00:08:01) "));
    assert_eq!(lines[3], "Duration of last recovery/failover: 0.642864 seconds");
    documented(&report, UPTIME);
}

#[test]
fn small_reports_are_those_of_the_4_17_tool() {
    let ping = Ping { pnn: 0, time: 0.000_689, num_clients: 2 };
    assert_eq!(human(&ping), "response from 0 time=0.000689 sec  (2 clients)\n");
    documented(&ping, PING);

    let running = RunStateReport { state: RunState::Running, required: true };
    assert_eq!(human(&running), "RUNNING\n");
    let other = RunStateReport { required: false, ..running };
    assert_eq!(human(&other), "CTDB not in required run state (got RUNNING)\n");
    documented(&other, RUNSTATE);

    assert_eq!(human(&Pnn { pnn: 3 }), "3\n");
    documented(&Pnn { pnn: 3 }, PNN);
    assert_eq!(human(&Leader { leader: None }), "UNKNOWN\n");
    documented(&Leader { leader: None }, LEADER);
    assert_eq!(human(&GetPid { pid: 24_054 }), "24054\n");
    documented(&GetPid { pid: 1 }, GETPID);
}

#[test]
fn colours_surround_the_flags_and_nothing_else() {
    let mut page = Page::new("|", true);
    NodeStatus { node_status: table(), all: false }.human(&mut page);
    let text = String::from_utf8(page.as_bytes().to_vec()).unwrap();
    assert!(text.starts_with("pnn:0 10.55.0.1        \x1b[32mOK\x1b[0m (THIS NODE)\n"));
    assert!(text.contains("\x1b[33mDISABLED\x1b[0m") && text.contains("\x1b[31mSTOPPED|INACTIVE"));
}
