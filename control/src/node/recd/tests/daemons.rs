//! The recovery daemon among real controls: whole nodes from start to service.

use ringmaster_protocol::{
    DbId, Destination, Generation, Rsn,
    control::{ControlOpcode, ControlRequest},
    database::DbFlags,
    node::{BanState, NodeFlags},
    process::{RecMode, RunState},
    record::{Dmaster, RecordFlags, RecordHeader},
    srvid::WellKnown,
    text::Text,
};

use crate::node::{
    Ask, Outcome, State, controls, lifecycle,
    testing::{CLIENT, Cluster, Did, Play, pnn},
    world::{ControlAnswer, Origin, Tell},
};

pub(super) fn started(count: usize, lock: bool) -> Cluster {
    let mut cluster = Cluster::of(count);
    for node in 0..count {
        cluster.change(node, |state| {
            state.constants.cluster_lock = lock.then(|| "/lock".to_owned());
        });
    }
    for node in 0..count {
        cluster.event(node, lifecycle::start);
    }
    run_until(&mut cluster, 60, "running", |cluster| {
        (0..count).all(|node| cluster.state(node).run_state == RunState::Running)
    });
    for node in 0..count {
        cluster.event(node, |cx| controls::client_connected(cx, CLIENT, 77));
    }
    cluster
}

pub(super) fn run_until(
    cluster: &mut Cluster,
    seconds: u64,
    what: &str,
    over: impl Fn(&Cluster) -> bool,
) {
    for _ in 0..seconds * 10 {
        if over(cluster) {
            return;
        }
        cluster.advance_ms(100);
    }
    let look = |node: usize| {
        let state = cluster.state(node);
        format!("{node}: {:?} {:?} {:?}", state.leader, state.recovery_mode, state.own_flags())
    };
    let nodes: Vec<String> = (0..cluster.nodes.len()).map(look).collect();
    panic!("not within {seconds} s: {what}; {nodes:#?}");
}

/// These nodes are in service, in one generation that all of them, and nobody else, are in.
pub(super) fn in_service(cluster: &Cluster, members: &[usize]) -> bool {
    let generation = cluster.state(members[0]).vnn_map.generation;
    let wanted: Vec<_> = members.iter().map(|node| pnn(*node)).collect();
    let good = |state: &State| {
        state.recovery_mode == RecMode::Normal
            && state.vnn_map.generation == generation
            && state.vnn_map.map == wanted
            && !state.recd.need_recovery
            && state.databases.iter().all(|db| db.generation == generation)
    };
    generation != Generation::INVALID && members.iter().all(|node| good(&cluster.state(*node)))
}

pub(super) fn leader(cluster: &Cluster, node: usize) -> usize {
    cluster.state(node).leader.unwrap().get() as usize
}

pub(super) fn attach(cluster: &mut Cluster, node: usize, name: &str, flags: DbFlags) -> DbId {
    let name = Text::new(name);
    let request = match flags {
        DbFlags::PERSISTENT => ControlRequest::DbAttachPersistent(name),
        DbFlags::REPLICATED => ControlRequest::DbAttachReplicated(name),
        _ => ControlRequest::DbAttach(name),
    };
    assert_eq!(cluster.control(node, &request).status, 0);
    DbId::from_name(name.as_str().unwrap())
}

fn put(cluster: &mut Cluster, node: usize, db: DbId, rsn: u64, value: &str) {
    let dmaster = Dmaster::from(pnn(node));
    let header = RecordHeader { rsn: Rsn(rsn), dmaster, flags: RecordFlags::NONE };
    cluster.nodes[node].store.put(db, b"key", header, value.as_bytes());
}

fn value(cluster: &Cluster, node: usize, db: DbId) -> Option<(u64, u32, String)> {
    let (header, value) = cluster.nodes[node].store.record(db, b"key")?;
    Some((header.rsn.0, header.dmaster.raw(), String::from_utf8(value).unwrap()))
}

pub(super) fn recover(cluster: &mut Cluster, members: &[usize]) {
    let before = cluster.state(members[0]).vnn_map.generation;
    let wish = ControlRequest::SetRecMode(RecMode::Active);
    cluster.send(members[0], &wish);
    run_until(cluster, 60, "recovered", |cluster| {
        in_service(cluster, members) && cluster.state(members[0]).vnn_map.generation != before
    });
}

#[test]
fn daemons_start_elect_a_leader_and_run() {
    for (count, lock) in [(1, false), (1, true), (3, false), (3, true)] {
        let cluster = started(count, lock);
        let members: Vec<usize> = (0..count).collect();
        assert!(in_service(&cluster, &members), "{count} nodes, lock {lock}");
        let leads = leader(&cluster, 0);
        assert!(members.iter().all(|node| leader(&cluster, *node) == leads));
        assert_eq!(cluster.lock_holder, lock.then_some(leads));
    }
}

#[test]
fn a_recovery_brings_the_newest_copy_everywhere() {
    let mut cluster = started(3, false);
    let db = attach(&mut cluster, 0, "db", DbFlags::NONE);
    put(&mut cluster, 0, db, 5, "old");
    put(&mut cluster, 1, db, 9, "new");
    recover(&mut cluster, &[0, 1, 2]);
    let leads = leader(&cluster, 0);
    for node in 0..3 {
        let (_, dmaster, text) = value(&cluster, node, db).unwrap();
        assert_eq!((dmaster as usize, text.as_str()), (leads, "new"), "node {node}");
    }
}

#[test]
fn a_lone_nodes_records_survive_its_recovery() {
    let mut cluster = started(1, false);
    for (name, flags) in
        [("v", DbFlags::NONE), ("p", DbFlags::PERSISTENT), ("r", DbFlags::REPLICATED)]
    {
        let db = attach(&mut cluster, 0, name, flags);
        put(&mut cluster, 0, db, 5, "here");
        recover(&mut cluster, &[0]);
        assert_eq!(value(&cluster, 0, db).unwrap().2, "here", "{name}");
        // Its own batches would be overtaken by its own controls.
        let through_the_data_plane = |did: &Did| {
            matches!(did, Did::Tell(Tell::Message { to: Destination::Node(_), srvid, .. })
                if matches!(srvid.well_known(), Some(WellKnown::Recovery(_))))
        };
        assert!(!cluster.took(0).iter().any(through_the_data_plane), "{name}");
    }
}

#[test]
fn the_death_of_any_node_leaves_the_others_in_service() {
    for lock in [false, true] {
        for dead in 0..3 {
            let mut cluster = started(3, lock);
            let db = attach(&mut cluster, 0, "db", DbFlags::NONE);
            put(&mut cluster, (dead + 1) % 3, db, 5, "kept");
            cluster.kill(dead);
            cluster.lock_holder.take_if(|holder| *holder == dead);
            let rest: Vec<usize> = (0..3).filter(|node| *node != dead).collect();
            run_until(&mut cluster, 60, "service", |cluster| in_service(cluster, &rest));
            for node in rest {
                assert_eq!(value(&cluster, node, db).unwrap().2, "kept", "{dead} died");
                assert_ne!(leader(&cluster, node), dead);
            }
        }
    }
}

#[test]
fn a_stopped_node_leaves_and_comes_back_without_its_old_records() {
    for stopped in 0..3 {
        let mut cluster = started(3, false);
        let db = attach(&mut cluster, 0, "db", DbFlags::NONE);
        put(&mut cluster, stopped, db, 5, "old");
        recover(&mut cluster, &[0, 1, 2]);
        assert_eq!(cluster.control(stopped, &ControlRequest::StopNode).status, 0);
        let rest: Vec<usize> = (0..3).filter(|node| *node != stopped).collect();
        run_until(&mut cluster, 60, "service without it", |cluster| in_service(cluster, &rest));
        // The record goes on elsewhere; the number of the old copy must not count.
        put(&mut cluster, rest[0], db, 50, "new");
        put(&mut cluster, stopped, db, 100, "old");
        recover(&mut cluster, &rest);
        let (_, dmaster, _) = value(&cluster, rest[1], db).unwrap();
        assert_ne!(dmaster as usize, stopped, "nothing belongs to an inactive node");
        assert_eq!(cluster.control(stopped, &ControlRequest::ContinueNode).status, 0);
        run_until(&mut cluster, 60, "service with it", |cluster| in_service(cluster, &[0, 1, 2]));
        for node in 0..3 {
            assert_eq!(value(&cluster, node, db).unwrap().2, "new", "node {node}, {stopped} back");
        }
    }
}

#[test]
fn a_banned_node_comes_back_by_itself() {
    for banned in 0..3 {
        let mut cluster = started(3, true);
        let ban = ControlRequest::SetBanState(BanState { pnn: pnn(banned), seconds: 60 });
        let from = Origin::Node(pnn((banned + 1) % 3), 0);
        assert_eq!(cluster.control_from(banned, from, &ban).status, 0);
        let rest: Vec<usize> = (0..3).filter(|node| *node != banned).collect();
        run_until(&mut cluster, 50, "service without it", |cluster| in_service(cluster, &rest));
        assert_ne!(cluster.lock_holder, Some(banned));
        run_until(&mut cluster, 60, "service with it", |cluster| in_service(cluster, &[0, 1, 2]));
        assert!(!cluster.state(banned).own_flags().intersects(NodeFlags::BANNED));
    }
}

#[test]
fn a_database_that_one_node_has_alone_is_attached_by_the_recovery() {
    let mut cluster = started(3, false);
    let db = attach(&mut cluster, 0, "db", DbFlags::NONE);
    for other in [1, 2] {
        // As if they had not heard of the attach.
        cluster.change(other, |state| state.databases.clear());
    }
    put(&mut cluster, 0, db, 5, "alone");
    recover(&mut cluster, &[0, 1, 2]);
    for node in 0..3 {
        assert_eq!(value(&cluster, node, db).unwrap().2, "alone", "node {node}");
    }
}

#[test]
fn who_is_back_just_before_a_recovery_is_known_to_be_back_when_it_ends() {
    let mut cluster = started(3, false);
    let leads = leader(&cluster, 0);
    let (back, other) = ((leads + 1) % 3, (leads + 2) % 3);
    let ban = |seconds| ControlRequest::SetBanState(BanState { pnn: pnn(back), seconds });
    assert_eq!(cluster.control(back, &ban(1_000)).status, 0);
    run_until(&mut cluster, 60, "service without it", |cluster| {
        in_service(cluster, &[leads.min(other), leads.max(other)])
    });
    cluster.advance_ms(20_000);
    // The leader has looked at all flags and asks for modes when the ban ends.
    let question = pnn(other);
    cluster.play(leads, move |ask| match ask {
        Ask::Control(control)
            if control.opcode == ControlOpcode::GET_RECMODE && control.to == question =>
        {
            Some(Play::Hold)
        }
        _ => None,
    });
    run_until(&mut cluster, 5, "the question", |cluster| !cluster.nodes[leads].held.is_empty());
    assert_eq!(cluster.control(back, &ban(0)).status, 0);
    let recovering = ControlAnswer { status: 1, ..ControlAnswer::default() };
    cluster.release(leads, &Outcome::Reply(Ok(recovering)));
    assert!(in_service(&cluster, &[0, 1, 2]));
    assert_eq!(cluster.state(other).flags_of(pnn(back)), Some(NodeFlags::NONE));
}
