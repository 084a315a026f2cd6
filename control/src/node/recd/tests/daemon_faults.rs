//! Random commands and faults on whole nodes with real controls.

use ringmaster_protocol::{
    DbId, Rsn,
    control::ControlRequest,
    database::DbFlags,
    node::{BanState, NodeFlags},
    process::RecMode,
    record::{Dmaster, RecordFlags, RecordHeader},
};

use super::{
    daemons::{attach, in_service, recover, run_until, started},
    faults::Dice,
};
use crate::node::{
    testing::{CLIENT, Cluster, pnn},
    world::Origin,
};

const COUNT: usize = 3;

fn own_key(node: usize) -> Vec<u8> {
    format!("own{node}").into_bytes()
}

fn put(cluster: &mut Cluster, node: usize, db: DbId, key: &[u8]) {
    let dmaster = Dmaster::from(pnn(node));
    let header = RecordHeader { rsn: Rsn(5), dmaster, flags: RecordFlags::NONE };
    cluster.nodes[node].store.put(db, key, header, b"value");
}

fn ban(cluster: &mut Cluster, node: usize, seconds: u32) {
    let ban = ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds });
    cluster.send_from(node, Origin::Node(pnn((node + 1) % COUNT), 0), &ban);
}

/// One command or fault; the node whose volatile records it makes worthless.
fn fault(cluster: &mut Cluster, dice: &mut Dice) -> Option<usize> {
    let node = dice.node() % COUNT;
    match dice.below(9) {
        0 => {
            cluster.send(node, &ControlRequest::StopNode);
            return Some(node);
        }
        1 | 2 => drop(cluster.send(node, &ControlRequest::ContinueNode)),
        3 => {
            ban(cluster, node, 20);
            return Some(node);
        }
        4 => ban(cluster, node, 0),
        5 => drop(cluster.send(node, &ControlRequest::SetRecMode(RecMode::Active))),
        6 => cluster.part(node, (node + 1) % COUNT),
        7 => cluster.join(node, (node + 1) % COUNT),
        _ => drop(cluster.send(node, &ControlRequest::DisableNode)),
    }
    None
}

fn repair(cluster: &mut Cluster) {
    for node in 0..COUNT {
        cluster.join(node, (node + 1) % COUNT);
        ban(cluster, node, 0);
        cluster.send(node, &ControlRequest::ContinueNode);
        cluster.send(node, &ControlRequest::EnableNode);
    }
}

fn play(seed: u64, lock: bool, slow: bool) {
    let mut dice = Dice::new(seed);
    let mut cluster = started(COUNT, lock);
    let volatile = attach(&mut cluster, 0, "volatile", DbFlags::NONE);
    let persistent = attach(&mut cluster, 0, "persistent", DbFlags::PERSISTENT);
    for node in 0..COUNT {
        put(&mut cluster, node, volatile, &own_key(node));
        put(&mut cluster, node, persistent, b"kept");
    }
    if slow {
        cluster.take_time(seed, 1 + dice.below(100), 1 + dice.below(200), 1 + dice.below(2_000));
    }
    let mut worthless = Vec::new();
    for _ in 0..dice.below(10) {
        cluster.advance_ms(dice.below(8_000));
        worthless.extend(fault(&mut cluster, &mut dice));
    }
    repair(&mut cluster);
    run_until(
        &mut cluster,
        900,
        &format!("service, seed {seed}, lock {lock}, {slow}"),
        |cluster| {
            in_service(cluster, &[0, 1, 2])
                && (0..COUNT).all(|node| {
                    let away = NodeFlags::INACTIVE;
                    !cluster.state(node).nodes.iter().any(|node| node.flags.intersects(away))
                })
        },
    );
    // Copies are where they were last used until a recovery brings them together.
    recover(&mut cluster, &[0, 1, 2]);
    for node in 0..COUNT {
        let store = &cluster.nodes[node].store;
        assert!(store.record(persistent, b"kept").is_some(), "seed {seed}: node {node}");
        for other in (0..COUNT).filter(|other| !worthless.contains(other)) {
            let found = store.record(volatile, &own_key(other));
            assert!(found.is_some(), "seed {seed}: {other}'s record at {node}");
        }
        assert!(cluster.state(node).mailbox.is_empty(), "seed {seed}");
        assert!(cluster.state(node).clients.contains_key(&CLIENT));
    }
}

#[test]
fn whole_nodes_come_back_from_any_commands_and_faults() {
    for seed in 0..25 {
        play(seed, false, false);
        play(seed, true, false);
    }
}

#[test]
fn whole_nodes_whose_work_takes_time_come_back_from_any_commands_and_faults() {
    for seed in 0..50 {
        play(seed, false, true);
        play(seed, true, true);
    }
}
