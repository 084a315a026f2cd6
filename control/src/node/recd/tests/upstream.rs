//! Three bugs that C's recovery daemon had until 2026, as scenarios of whole nodes with real
//! controls: nested elections, a recovery by a leader on its way out, and a leader that a late
//! broadcast has robbed of its leadership.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.3, 6.4, 6.7, 16.2.

use ringmaster_protocol::{
    Destination, Rsn, Srvid,
    control::{ControlOpcode, ControlRequest},
    database::DbFlags,
    node::BanState,
    process::RecMode,
    record::{Dmaster, RecordFlags, RecordHeader},
};

use super::daemons::{attach, in_service, leader, recover, run_until, started};
use crate::node::{
    Ask, NodeCx, Outcome,
    recd::{self, lock_lost},
    testing::{Cluster, Did, Play, pnn},
    world::{LockResult, Origin},
};

const ALL: [usize; 3] = [0, 1, 2];

fn broadcast(cluster: &mut Cluster, to: usize, leader: u32) {
    cluster.message(to, Srvid::LEADER, leader.to_le_bytes().to_vec());
}

/// Attempts at the cluster lock.
fn attempts(did: &[Did]) -> usize {
    did.iter().filter(|did| matches!(did, Did::Ask(Ask::TakeLock { .. }))).count()
}

#[test]
fn elections_do_not_nest() {
    let mut cluster = started(3, true);
    let first = leader(&cluster, 0);
    let other = (first + 1) % 3;
    // The lock helper takes its time.
    cluster.play(other, |ask| matches!(ask, Ask::TakeLock { .. }).then_some(Play::Hold));
    cluster.kill(first);
    cluster.lock_holder = None;
    cluster.took(other);
    run_until(&mut cluster, 20, "an attempt at the lock", |cluster| {
        !cluster.nodes[other].held.is_empty()
    });
    // Everything that calls an election, several times, while one is under way.
    for _ in 0..3 {
        broadcast(&mut cluster, other, Destination::Unknown.to_raw());
        cluster.event(other, lock_lost);
        cluster.event(other, |cx: &NodeCx| {
            let own = cx.clone();
            cx.spawn(async move { recd::leader::force_election(&own).await });
        });
        cluster.advance_ms(6_000);
    }
    assert_eq!(attempts(&cluster.took(other)), 1);
    cluster.lock_holder = Some(other);
    cluster.release(other, &Outcome::Lock(LockResult::Taken(18.0)));
    let rest: Vec<usize> = ALL.into_iter().filter(|node| *node != first).collect();
    run_until(&mut cluster, 60, "service", |cluster| in_service(cluster, &rest));
    assert!(rest.iter().all(|node| leader(&cluster, *node) == other));
    assert_eq!(cluster.lock_holder, Some(other));
}

/// The controls of a recovery, in their order.
const STEPS: [ControlOpcode; 13] = [
    ControlOpcode::GET_NODEMAP,
    ControlOpcode::GET_DBMAP,
    ControlOpcode::START_RECOVERY,
    ControlOpcode::SETVNNMAP,
    ControlOpcode::GET_DBNAME,
    ControlOpcode::DB_FREEZE,
    ControlOpcode::DB_TRANSACTION_START,
    ControlOpcode::WIPE_DATABASE,
    ControlOpcode::DB_PUSH_START,
    ControlOpcode::DB_PUSH_CONFIRM,
    ControlOpcode::DB_TRANSACTION_COMMIT,
    ControlOpcode::DB_THAW,
    ControlOpcode::END_RECOVERY,
];

fn lead_out(step: ControlOpcode, lock: bool, leave: fn(usize) -> ControlRequest<'static>) {
    let what = format!("{step}, lock {lock}");
    let mut cluster = started(3, lock);
    let db = attach(&mut cluster, 0, "db", DbFlags::NONE);
    let going = leader(&cluster, 0);
    let rest: Vec<usize> = ALL.into_iter().filter(|node| *node != going).collect();
    let dmaster = Dmaster::from(pnn(rest[0]));
    let header = RecordHeader { rsn: Rsn(7), dmaster, flags: RecordFlags::NONE };
    cluster.nodes[rest[0]].store.put(db, b"key", header, b"kept");
    recover(&mut cluster, &ALL);
    // The next recovery stands still at this step.
    cluster.advance_ms(15_000);
    let member = pnn(rest[1]);
    cluster.play(going, move |ask| match ask {
        Ask::Control(control) if control.opcode == step && control.to == member => Some(Play::Hold),
        _ => None,
    });
    cluster.control(rest[0], &ControlRequest::SetRecMode(RecMode::Active));
    run_until(&mut cluster, 20, &what, |cluster| !cluster.nodes[going].held.is_empty());
    let elsewhere = Origin::Node(pnn(rest[0]), 9);
    assert_eq!(cluster.control_from(going, elsewhere, &leave(going)).status, 0, "{what}");
    run_until(&mut cluster, 60, &format!("service without {going}: {what}"), |cluster| {
        in_service(cluster, &rest)
    });
    for node in &rest {
        let (header, value) = cluster.nodes[*node].store.record(db, b"key").unwrap();
        assert_eq!(value, b"kept", "{what}");
        let owner = header.dmaster.raw() as usize;
        assert!(rest.contains(&owner), "{owner} owns the record at {node}: {what}");
    }
    if lock {
        assert!(rest.contains(&cluster.lock_holder.unwrap()), "{what}");
    }
}

#[test]
fn a_leader_on_its_way_out_leaves_no_record_to_itself() {
    for step in STEPS {
        for lock in [false, true] {
            lead_out(step, lock, |_| ControlRequest::StopNode);
            lead_out(step, lock, |node| {
                ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds: 1_000 })
            });
        }
    }
}

#[test]
fn a_late_broadcast_does_not_rob_the_holder_of_the_lock() {
    let mut cluster = started(3, true);
    let first = leader(&cluster, 0);
    assert_eq!(cluster.control(first, &ControlRequest::StopNode).status, 0);
    let rest: Vec<usize> = ALL.into_iter().filter(|node| *node != first).collect();
    run_until(&mut cluster, 60, "another leader", |cluster| in_service(cluster, &rest));
    let second = leader(&cluster, rest[0]);
    // What the first one said while it led arrives now, at everybody.
    let late = u32::try_from(first).unwrap();
    for node in ALL {
        broadcast(&mut cluster, node, late);
    }
    let says_so = |cluster: &Cluster| rest.iter().all(|node| leader(cluster, *node) == second);
    cluster.advance_ms(100);
    run_until(&mut cluster, 15, "the second one leads again", says_so);
    assert_eq!(cluster.lock_holder, Some(second));
    cluster.advance_ms(60_000);
    assert!(says_so(&cluster) && in_service(&cluster, &rest));
}
