use ringmaster_protocol::{
    Destination, Reqid, Srvid,
    node::NodeFlags,
    record::RecData,
    traverse::{TraverseAll, TraverseStart, TraverseStartExt},
};

use super::*;
use crate::node::{
    controls,
    testing::CLIENT,
    world::{ClientId, Origin},
};

const SRVID: Srvid = Srvid(0xBEEF);

/// A traverse as node 0's client starts it.
pub(super) fn start(db: DbId) -> ControlRequest<'static> {
    ControlRequest::TraverseStart(TraverseStart { db, reqid: Reqid(55), srvid: SRVID })
}

/// What the client has been sent: keys, the end marker as an empty one.
fn received(did: &[Did]) -> Vec<Vec<u8>> {
    let key = |did: &Did| match did {
        Did::Tell(Tell::Message { to, srvid: SRVID, data }) => {
            assert_eq!(*to, Destination::Node(pnn(0)));
            let record = RecData::from_bytes(data).unwrap();
            assert_eq!(record.reqid, 55);
            Some(record.key.to_vec())
        }
        _ => None,
    };
    did.iter().filter_map(key).collect()
}

fn hold_traverses(cluster: &mut Cluster, node: usize) {
    hold_data(cluster, node, |data| matches!(data, DataAsk::Traverse { .. }));
}

fn record(reqid: u32, key: &'static [u8]) -> ControlRequest<'static> {
    let data = if key.is_empty() { b"" } else { &b"24 bytes of header and so"[..] };
    ControlRequest::TraverseData(RecData { reqid, key, data })
}

#[test]
fn the_reply_comes_before_the_records_of_all_active_nodes_and_one_end_marker() {
    let mut cluster = Cluster::running(3);
    let db = volatile(&mut cluster, "locking.tdb");
    for (node, key) in [(0, b"a"), (1, b"b"), (2, b"c")] {
        cluster.nodes[node].store.put(db, key, header(1, node), b"value");
    }
    cluster.took(0);
    assert_eq!(cluster.control(0, &start(db)), done());
    let did = cluster.took(0);
    let reply = did.iter().position(|did| matches!(did, Did::Tell(Tell::Reply { .. })));
    let first = did.iter().position(|did| matches!(did, Did::Tell(Tell::Message { .. })));
    assert!(reply < first, "{did:?}");
    assert_eq!(sent(&did, ControlOpcode::TRAVERSE_ALL), [0, 1, 2]);
    let mut keys = received(&did);
    assert_eq!(keys.pop(), Some(Vec::new()), "the end marker is last");
    keys.sort();
    assert_eq!(keys, [b"a", b"b", b"c"]);
    assert!(cluster.state(0).traverses.is_empty());
}

#[test]
fn records_of_a_persistent_database_come_from_one_member() {
    let mut cluster = Cluster::running(3);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.took(0);
    cluster.control(0, &start(db));
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::TRAVERSE_ALL), [0]);
    assert_eq!(received(&did), [Vec::<u8>::new()]);
    cluster.change(0, |state| state.vnn_map.map = vec![pnn(2), pnn(1)]);
    cluster.control(0, &start(db));
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::TRAVERSE_ALL), [2]);
    assert_eq!(received(&did), [Vec::<u8>::new()]);
}

#[test]
fn the_extended_form_asks_for_empty_records() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.took(0);
    let wanted = TraverseStartExt { db, reqid: Reqid(55), srvid: SRVID, with_empty_records: true };
    assert_eq!(cluster.control(0, &ControlRequest::TraverseStartExt(wanted)), done());
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::TRAVERSE_ALL_EXT), [0]);
    let order = DataAsk::Traverse { db, reqid: 1, to: pnn(0), with_empty: true };
    assert!(data_asks(&did).contains(&order));
}

#[test]
fn strangers_and_unknown_or_unhealthy_databases_are_not_traversed() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    assert_eq!(cluster.control_from(0, Origin::Client(ClientId(99)), &start(db)), refused());
    assert_eq!(cluster.control(0, &start(DbId(1))), refused());
    cluster.change(0, |state| state.databases[0].unhealthy = Some("torn".into()));
    assert_eq!(cluster.control(0, &start(db)), refused());
    let tunable = ringmaster_protocol::tunable::Tunable::AllowUnhealthyDBRead;
    cluster.change(0, |state| state.tunables.set(tunable, 1));
    assert_eq!(cluster.control(0, &start(db)), done());
}

#[test]
fn a_traverse_that_does_not_end_in_time_is_ended_and_killed_everywhere() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_traverses(&mut cluster, 1);
    cluster.control(0, &start(db));
    cluster.took(0);
    cluster.advance_ms(19_999);
    assert!(received(&cluster.took(0)).is_empty());
    cluster.advance_ms(1);
    let did = cluster.took(0);
    assert_eq!(received(&did), [Vec::<u8>::new()]);
    assert_eq!(sent(&did, ControlOpcode::TRAVERSE_KILL), [0, 1]);
    assert_eq!(cluster.state(0).counters.traverse_timeouts, 1);
    assert!(cluster.state(1).local_traverses.is_empty(), "killed");
    let late = Origin::Node(pnn(1), 0);
    assert_eq!(cluster.control_from(0, late, &record(1, b"late")), refused());
}

#[test]
fn a_client_that_goes_takes_its_traverse_with_it() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_traverses(&mut cluster, 1);
    cluster.control(0, &start(db));
    cluster.took(0);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert_eq!(sent(&cluster.took(0), ControlOpcode::TRAVERSE_KILL), [0, 1]);
    assert!(cluster.state(0).traverses.is_empty());
    assert!(cluster.state(1).local_traverses.is_empty());
    cluster.advance_ms(60_000);
    assert_eq!(cluster.state(0).counters.traverse_timeouts, 0);
}

#[test]
fn the_end_marker_waits_for_the_nodes_that_are_active_when_it_comes() {
    let mut cluster = Cluster::running(3);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_traverses(&mut cluster, 1);
    hold_traverses(&mut cluster, 2);
    cluster.control(0, &start(db));
    cluster.took(0);
    cluster.change(0, |state| state.nodes[2].flags = NodeFlags::DISCONNECTED);
    let node = Origin::Node(pnn(1), 0);
    assert_eq!(cluster.control_from(0, node, &record(1, b"key")), done());
    assert_eq!(received(&cluster.took(0)), [b"key".to_vec()]);
    assert_eq!(cluster.control_from(0, node, &record(1, b"")), done());
    assert_eq!(received(&cluster.took(0)), [Vec::<u8>::new()]);
}

#[test]
fn a_kill_ends_the_first_part_that_matches_and_no_other() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_traverses(&mut cluster, 0);
    let node = Origin::Node(pnn(0), 0);
    for reqid in [1, 2] {
        let wanted = TraverseAll {
            db,
            reqid: Reqid(reqid),
            pnn: pnn(0),
            client_reqid: Reqid(55),
            srvid: SRVID,
        };
        assert_eq!(cluster.control_from(0, node, &ControlRequest::TraverseAll(wanted)), done());
    }
    let other = TraverseStart { db, reqid: Reqid(55), srvid: Srvid(1) };
    cluster.control_from(0, node, &ControlRequest::TraverseKill(other));
    assert_eq!(cluster.state(0).local_traverses.len(), 2);
    let mine = TraverseStart { db, reqid: Reqid(55), srvid: SRVID };
    cluster.control_from(0, node, &ControlRequest::TraverseKill(mine));
    assert_eq!(cluster.state(0).local_traverses.len(), 1);
}

#[test]
fn a_node_that_does_not_know_the_database_sends_nothing() {
    let mut cluster = Cluster::running(1);
    let wanted = TraverseAll {
        db: DbId(1),
        reqid: Reqid(1),
        pnn: pnn(0),
        client_reqid: Reqid(55),
        srvid: SRVID,
    };
    let node = Origin::Node(pnn(0), 0);
    assert_eq!(cluster.control_from(0, node, &ControlRequest::TraverseAll(wanted)), refused());
}

/// A traverse of node 0's client over three nodes, of which the other two have not answered.
fn unanswered() -> (Cluster, DbId) {
    let mut cluster = Cluster::running(3);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_traverses(&mut cluster, 1);
    hold_traverses(&mut cluster, 2);
    assert_eq!(cluster.control(0, &start(db)), done());
    cluster.took(0);
    (cluster, db)
}

#[test]
fn the_end_of_a_node_that_dies_does_not_stand_for_that_of_another() {
    let (mut cluster, _) = unanswered();
    cluster.control_from(0, Origin::Node(pnn(2), 0), &record(1, b""));
    cluster.kill(2);
    assert_eq!(received(&cluster.took(0)), [b""; 0], "node 1 is still to come");
    let slow = Origin::Node(pnn(1), 0);
    assert_eq!(cluster.control_from(0, slow, &record(1, b"key")), done());
    assert_eq!(cluster.control_from(0, slow, &record(1, b"")), done());
    assert_eq!(received(&cluster.took(0)), [&b"key"[..], b""]);
}

#[test]
fn nobody_waits_for_the_records_of_a_dead_node() {
    let (mut cluster, _) = unanswered();
    cluster.control_from(0, Origin::Node(pnn(1), 0), &record(1, b""));
    cluster.took(0);
    cluster.kill(2);
    assert_eq!(received(&cluster.took(0)), [b""]);
    assert_eq!(cluster.state(0).counters.traverse_timeouts, 0);
    assert!(cluster.state(0).traverses.is_empty());
}

#[test]
fn the_part_of_a_traverse_whose_origin_dies_ends() {
    let (mut cluster, _) = unanswered();
    assert_eq!(cluster.nodes[1].held.len(), 1);
    cluster.kill(0);
    assert!(cluster.state(1).local_traverses.is_empty());
    assert!(cluster.nodes[1].held.is_empty(), "the data plane is told to stop");
}

#[test]
fn what_a_recovery_is_about_to_replace_is_not_shown() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(1, &ControlRequest::DbFreeze(db)), done());
    cluster.took(1);
    cluster.control(0, &start(db));
    let looked =
        |did: &[Did]| data_asks(did).iter().any(|ask| matches!(ask, DataAsk::Traverse { .. }));
    assert!(!looked(&cluster.took(1)));
    assert_eq!(cluster.control(1, &ControlRequest::DbThaw(db)), done());
    assert!(looked(&cluster.took(1)));
    assert_eq!(received(&cluster.took(0)).pop(), Some(Vec::new()));
}

#[test]
fn a_part_that_waits_for_a_thaw_can_be_killed() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.control(1, &ControlRequest::DbFreeze(db));
    cluster.control(0, &start(db));
    assert_eq!(cluster.state(1).local_traverses.len(), 1);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert!(cluster.state(1).local_traverses.is_empty());
}
