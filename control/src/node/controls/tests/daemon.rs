use ringmaster_protocol::{
    Destination, Srvid,
    address::SockAddr,
    connection::{Connection, InterfaceList, PublicIp, PublicIpList, TickleList},
    node::NodeFlags,
    node::NodeMap,
    process::{DebugLevel, EchoData, ReclockLatency, RunState, Uptime},
    statistics::{Statistics, StatisticsHistory},
    tunable::{Tunable, TunableName, TunableSetting, TunableValue},
};

use super::*;
use crate::node::{controls::statistics, world::ScriptResult};

fn set(name: &str, value: u32) -> ControlRequest<'_> {
    ControlRequest::SetTunable(TunableSetting { value, name: TunableName(Text::new(name)) })
}

#[test]
fn a_tunable_is_set_whatever_its_case_and_published_before_the_reply() {
    let mut cluster = Cluster::running(1);
    let id = cluster.send(0, &set("recovertimeout", 31));
    let answer = cluster.reply(id).unwrap();
    assert_eq!(answer, done());
    assert_eq!(cluster.state(0).tunable(Tunable::RecoverTimeout), 31);
    assert_eq!(
        cluster.took_all(0),
        [Did::Ask(Ask::Data(DataAsk::Publish)), Did::Tell(Tell::Reply { request: id, answer })]
    );
}

#[test]
fn an_obsolete_tunable_is_set_with_status_one_and_an_unknown_one_is_not() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &set("VacuumLimit", 7)).status, 1);
    assert_eq!(cluster.state(0).tunable(Tunable::VacuumLimit), 7);
    assert_eq!(cluster.control(0, &set("NoSuchTunable", 7)), refused());
    let name = TunableName(Text::new("VacuumLimit"));
    let known = cluster.control(0, &ControlRequest::GetTunable(name));
    assert_eq!(value::<TunableValue>(&known), TunableValue(7));
    let name = TunableName(Text::new("NoSuchTunable"));
    assert_eq!(cluster.control(0, &ControlRequest::GetTunable(name)).status, -22);
}

#[test]
fn the_log_level_is_set_in_the_daemon_and_in_the_view() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::SetDebug(DebugLevel(5))), done());
    assert!(cluster.took(0).contains(&Did::Tell(Tell::SetLogLevel(5))));
    let level = cluster.control(0, &ControlRequest::GetDebug);
    assert_eq!(value::<DebugLevel>(&level), DebugLevel(5));
}

#[test]
fn questions_are_answered_from_the_state() {
    let mut cluster = Cluster::running(3);
    let id = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(2, &ControlRequest::GetPnn).status, 2);
    assert_eq!(cluster.control(2, &ControlRequest::GetPid).status, 4_002);
    assert_eq!(cluster.control(2, &ControlRequest::Ping).status, 2, "client and recovery daemon");
    assert_eq!(cluster.control(2, &ControlRequest::GetRecMode).status, 0);
    let state = cluster.control(2, &ControlRequest::GetRunState);
    assert_eq!(value::<RunState>(&state), RunState::Running);
    let name = cluster.control(2, &ControlRequest::GetDbName(id));
    assert_eq!(name.data, b"locking.tdb\0");
    let path = cluster.control(2, &ControlRequest::GetDbPath(id));
    assert_eq!(path.data, b"/db/locking.tdb.2\0");
    assert_eq!(cluster.control(2, &ControlRequest::GetDbName(DbId(1))), refused());
    cluster.advance_ms(2_500);
    let uptime: Uptime = value(&cluster.control(2, &ControlRequest::Uptime));
    assert_eq!((uptime.current_time.seconds, uptime.current_time.micros), (1_002, 500_000));
    let echo = ControlRequest::EchoData(EchoData { timeout: 9, data: b"echo" });
    assert_eq!(cluster.control(2, &echo).data, b"\x09\0\0\0\x04\0\0\0echo");
}

#[test]
fn the_cluster_lock_is_told_with_its_nul_and_none_is_no_bytes() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::GetReclockFile), done());
    cluster.change(0, |state| state.constants.cluster_lock = Some("/lock".into()));
    assert_eq!(cluster.control(0, &ControlRequest::GetReclockFile).data, b"/lock\0");
}

#[test]
fn the_nodes_file_is_read_anew_and_shows_only_deleted_flags() {
    let mut cluster = Cluster::running(2);
    let mut nodes = cluster.node_map();
    nodes.0[1].flags = NodeFlags::DELETED | NodeFlags::DISCONNECTED;
    let read = nodes.clone();
    cluster.play(0, move |ask| {
        (*ask == Ask::ReadNodes).then(|| Play::Outcome(Outcome::Nodes(Ok(read.clone()))))
    });
    nodes.0[1].flags = NodeFlags::DELETED;
    let answer = cluster.control(0, &ControlRequest::GetNodesFile);
    assert_eq!(value::<NodeMap>(&answer), nodes);
}

#[test]
fn reloading_keeps_known_nodes_and_adds_new_ones_disconnected() {
    let mut cluster = Cluster::running(2);
    cluster.change(0, |state| state.nodes[1].flags = NodeFlags::STOPPED);
    let longer = Cluster::of(3).node_map();
    cluster.play(0, move |ask| {
        (*ask == Ask::ReadNodes).then(|| Play::Outcome(Outcome::Nodes(Ok(longer.clone()))))
    });
    assert_eq!(cluster.control(0, &ControlRequest::ReloadNodesFile), done());
    let flags: Vec<NodeFlags> = cluster.state(0).nodes.iter().map(|node| node.flags).collect();
    let new = NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
    assert_eq!(flags, [NodeFlags::NONE, NodeFlags::STOPPED, new]);
    let did = cluster.took(0);
    assert!(did.contains(&Did::Tell(Tell::NodesChanged)));
    let reload = Tell::Message {
        to: Destination::Node(pnn(0)),
        srvid: Srvid::RELOAD_NODES,
        data: Vec::new(),
    };
    assert!(did.contains(&Did::Tell(reload)));
}

#[test]
fn a_nodes_list_in_which_this_node_is_not_what_it_was_is_not_taken() {
    let mut cluster = Cluster::running(2);
    let before = cluster.node_map();
    let mut deleted = before.clone();
    deleted.0[0].flags = NodeFlags::DELETED;
    let mut moved = before.clone();
    moved.0[0].addr = before.0[1].addr;
    for list in [deleted, moved, NodeMap(before.0[1..].to_vec()), NodeMap::default()] {
        cluster.play(0, move |ask| {
            let list = list.clone();
            (*ask == Ask::ReadNodes).then_some(Play::Outcome(Outcome::Nodes(Ok(list))))
        });
        assert_eq!(cluster.control(0, &ControlRequest::ReloadNodesFile), refused());
        assert_eq!(cluster.state(0).node_map(), before);
        assert!(!cluster.took(0).contains(&Did::Tell(Tell::NodesChanged)));
    }
}

#[test]
fn a_nodes_list_that_cannot_be_reloaded_ends_the_daemon() {
    let mut cluster = Cluster::running(1);
    cluster.play(0, |ask| {
        (*ask == Ask::ReadNodes).then(|| Play::Outcome(Outcome::Nodes(Err("gone".into()))))
    });
    assert_eq!(cluster.control(0, &ControlRequest::GetNodesFile), refused());
    cluster.send(0, &ControlRequest::ReloadNodesFile);
    assert!(cluster.took(0).contains(&Did::Tell(Tell::Exit(1))));
}

#[test]
fn every_line_of_the_memory_report_has_the_form_that_tools_expect() {
    let mut cluster = Cluster::running(1);
    let answer = cluster.control(0, &ControlRequest::DumpMemory);
    let text = String::from_utf8(answer.data).unwrap();
    assert!(!text.contains('\0'));
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.starts_with("full talloc report on "), "{first}");
    assert!(first.ends_with(" blocks)"), "{first}");
    assert!(rest.lines().count() >= 10);
    for line in rest.lines() {
        assert!(line.starts_with(' '), "{line}");
        assert!(line.contains(" contains ") && line.contains(" bytes in"), "{line}");
        assert!(line.ends_with("blocks (ref 0) 0x0"), "{line}");
    }
}

#[test]
fn statistics_carry_what_the_plane_counts() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ControlRequest::RecdReclockLatency(ReclockLatency(0.5)));
    cluster.control(0, &ControlRequest::RecdReclockLatency(ReclockLatency(1.5)));
    cluster.control(0, &ControlRequest::EndRecovery);
    let statistics: Statistics = value(&cluster.control(0, &ControlRequest::Statistics));
    assert_eq!((statistics.num_clients, statistics.num_recoveries), (2, 1));
    let lock = statistics.reclock_recd;
    assert_eq!((lock.num, lock.min, lock.max, lock.total), (2, 0.5, 1.5, 2.0));
    cluster.advance_ms(3_000);
    assert_eq!(cluster.control(0, &ControlRequest::StatisticsReset), done());
    let statistics: Statistics = value(&cluster.control(0, &ControlRequest::Statistics));
    assert_eq!((statistics.num_clients, statistics.num_recoveries), (2, 0));
    assert_eq!(statistics.statistics_start_time.seconds, 1_003);
}

#[test]
fn freezes_count_as_locks() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    for (outcome, locks) in [(Outcome::Done, (1, 0)), (Outcome::Failed("no lock".into()), (2, 1))] {
        cluster.send(0, &ControlRequest::DbFreeze(db));
        cluster.advance_ms(3_000);
        let gauge: Statistics = value(&cluster.control(0, &ControlRequest::Statistics));
        assert_eq!(gauge.locks.num_current, 1);
        cluster.release(0, &outcome);
        cluster.control(0, &ControlRequest::DbThaw(db));
        let Statistics { locks: counted, .. } =
            value(&cluster.control(0, &ControlRequest::Statistics));
        assert_eq!((counted.num_calls, counted.num_failed), locks);
        // Three seconds: between two and four.
        assert_eq!((counted.buckets[5], counted.buckets.iter().sum()), (1, 1));
        assert_eq!((counted.latency.num, counted.latency.total), (1, 3.0));
    }
}

#[test]
fn the_history_always_has_all_slots_and_the_newest_first() {
    let mut cluster = Cluster::running(1);
    cluster.event(0, statistics::keep_history);
    cluster.advance_ms(1_000);
    cluster.control(0, &ControlRequest::EndRecovery);
    cluster.advance_ms(1_000);
    let StatisticsHistory(slots) = value(&cluster.control(0, &ControlRequest::GetStatHistory));
    assert_eq!(slots.len(), StatisticsHistory::SLOTS);
    assert_eq!((slots[0].num_recoveries, slots[1].num_recoveries), (1, 0));
    assert_eq!(slots[0].statistics_current_time.seconds, 1_002);
    cluster.advance_ms(200_000);
    assert_eq!(cluster.state(0).history.len(), StatisticsHistory::SLOTS);
}

#[test]
fn pings_of_a_recovery_daemon_and_starts_of_nodes_are_taken_note_of() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::RecdPing), done());
    assert_eq!(cluster.control(0, &ControlRequest::Startup), done());
}

#[test]
fn without_public_addresses_every_address_is_unknown() {
    let mut cluster = Cluster::running(2);
    let connection = Connection { src: SockAddr::ZERO, dst: SockAddr::ZERO };
    let list = TickleList { addr: SockAddr::ZERO, connections: Vec::new() };
    let ip = |node| PublicIp { pnn: Some(pnn(node)), addr: SockAddr::ZERO };
    let cases = [
        (ControlRequest::TcpClient(connection), 0),
        (ControlRequest::TcpClientDisconnected(connection), 0),
        (ControlRequest::TcpClientPassed(connection), 0),
        (ControlRequest::TcpAdd(connection), 0),
        (ControlRequest::TcpAddDelayedUpdate(connection), 0),
        (ControlRequest::TcpRemove(connection), 0),
        (ControlRequest::GetTcpTickleList(SockAddr::ZERO), 1),
        (ControlRequest::SetTcpTickleList(list), 1),
        (ControlRequest::ReleaseIp(ip(1)), 0),
        (ControlRequest::TakeoverIp(ip(0)), 0),
        (ControlRequest::TakeoverIp(ip(1)), -1),
        (ControlRequest::GetPublicIpInfo(SockAddr::ZERO), -1),
        (ControlRequest::ReloadPublicIps, 0),
    ];
    for (control, status) in cases {
        assert_eq!(cluster.control(0, &control).status, status, "{control:?}");
    }
    let list = cluster.control(0, &ControlRequest::GetPublicIps);
    assert_eq!(value::<PublicIpList>(&list), PublicIpList::default());
    let list = cluster.control(0, &ControlRequest::GetIfaces);
    assert_eq!(value::<InterfaceList>(&list), InterfaceList::default());
    assert_eq!(events(&cluster.took(0)), [""; 0]);
}

#[test]
fn ipreallocated_runs_its_event_and_tells_local_clients() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::Ipreallocated), done());
    let did = cluster.took(0);
    assert_eq!(events(&did), ["ipreallocated"]);
    let message = Tell::Message {
        to: Destination::Node(pnn(0)),
        srvid: Srvid::IPREALLOCATED,
        data: Vec::new(),
    };
    assert!(did.contains(&Did::Tell(message)));
    cluster.script(0, "ipreallocated", ScriptResult::Failed);
    assert_eq!(cluster.control(0, &ControlRequest::Ipreallocated).status, 8);
}

#[test]
fn a_starting_node_agrees_to_startipreallocate_without_its_event() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.run_state = RunState::Startup);
    assert_eq!(cluster.control(0, &ControlRequest::StartIpreallocate), done());
    assert_eq!(events(&cluster.took(0)), [""; 0]);
    cluster.change(0, |state| state.run_state = RunState::Running);
    assert_eq!(cluster.control(0, &ControlRequest::StartIpreallocate), done());
    assert_eq!(events(&cluster.took(0)), ["startipreallocate"]);
}
