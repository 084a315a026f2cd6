//! Leases: who has to wait, how long, and in which order they are served.

use super::*;

const OTHER: ClientId = ClientId(8);

impl Cluster {
    fn migrate_for(&mut self, node: usize, client: ClientId, reqid: u32, key: &[u8]) {
        let flags = CallFlags::IMMEDIATE_MIGRATION;
        let call = ReqCall { flags, db: DB, callid: CallId::NULL, hopcount: 0, key, calldata: b"" };
        self.with(node, |engine, cx| engine.client_call(cx, client, Reqid(reqid), &call));
    }

    fn is_at(&self, node: usize, key: &[u8]) -> bool {
        self.record(node, key).is_some_and(|record| record.1 as usize == node)
    }

    fn later(&mut self, micros: u64) {
        self.now = self.now.plus(micros);
        self.settle();
    }
}

/// Node 1's client was answered and came too late, `times` times in a row; the record is there again,
/// for the last time just now.
fn too_late(times: usize) -> (Cluster, Vec<u8>) {
    let mut cluster = Cluster::new(4, DbFlags::NONE);
    let key = key_of(0, 4);
    cluster.migrate(1, 1, &key);
    cluster.settle();
    for _ in 0..times {
        cluster.migrate(0, 2, &key);
        // It has to wait for a lease that may be there already.
        cluster.later(20_000);
        assert!(cluster.is_at(0, &key));
        cluster.now = cluster.now.plus(1_000_000);
        // What was too late has to be at once: served, and gone, and asked for again.
        let served = cluster.now;
        cluster.migrate(1, 3, &key);
        cluster.settle();
        assert_eq!(cluster.now, served);
        cluster.migrate(0, 4, &key);
        cluster.later(10_000);
        assert!(cluster.is_at(0, &key), "taken away");
        cluster.migrate(1, 5, &key);
        cluster.settle();
    }
    assert!(cluster.is_at(1, &key));
    (cluster, key)
}

#[test]
fn a_record_is_given_away_at_once_as_long_as_nobody_comes_too_late() {
    let (mut cluster, key) = too_late(0);
    cluster.migrate(2, 9, &key);
    cluster.settle();
    assert!(cluster.is_at(2, &key));
}

#[test]
fn a_client_that_came_too_late_finds_the_record_the_next_time() {
    let (mut cluster, key) = too_late(1);
    cluster.migrate(2, 9, &key);
    cluster.settle();
    assert!(cluster.is_at(1, &key), "the call waits");
    cluster.later(99);
    assert!(cluster.is_at(1, &key));
    assert!(cluster.write(1, &key, b"done"), "nothing is locked meanwhile");
    cluster.later(1);
    assert!(cluster.is_at(2, &key));
    assert_eq!(cluster.record(2, &key).map(|record| record.3), Some(b"done".to_vec()));
}

/// The next node in a ring of clients asks as soon as this one has done its work: to make it wait
/// would slow everybody down.
#[test]
fn a_client_that_has_done_its_work_and_wants_more_has_not_come_too_late() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(0, 2);
    for round in 0..20_u8 {
        for node in [0, 1] {
            cluster.migrate(node, 1, &key);
            cluster.settle();
            assert!(cluster.is_at(node, &key), "in no time");
            assert!(cluster.write(node, &key, &[round, 1 + u8::try_from(node).unwrap()]));
        }
    }
}

/// Of a crowd that was answered together the first one changes the record; the others wanted it too.
#[test]
fn of_a_crowd_that_was_answered_together_anybody_may_have_come_too_late() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(0, 2);
    for client in [CLIENT, OTHER] {
        cluster.migrate_for(1, client, 1, &key);
    }
    cluster.settle();
    assert!(cluster.write(1, &key, b"the first"));
    cluster.migrate(0, 2, &key);
    cluster.settle();
    assert!(cluster.is_at(0, &key));
    cluster.migrate_for(1, OTHER, 3, &key);
    cluster.settle();
    cluster.migrate(0, 4, &key);
    cluster.settle();
    assert!(cluster.is_at(1, &key), "it stays for the second");
    cluster.later(100);
    assert!(cluster.is_at(0, &key));
}

#[test]
fn every_waiting_node_is_served_in_order_before_the_record_comes_back() {
    let (mut cluster, key) = too_late(1);
    for node in [3, 2, 0] {
        cluster.migrate(node, 9, &key);
        cluster.settle();
    }
    assert!(cluster.is_at(1, &key));
    cluster.now = cluster.now.plus(100);
    cluster.turn(1);
    // The client here wants it back before anybody else has had it.
    cluster.migrate(1, 10, &key);
    let mut order = Vec::new();
    for _ in 0..2_000 {
        let pairs: Vec<_> = cluster.network.keys().copied().collect();
        let pair = pairs.into_iter().find(|pair| !cluster.network[pair].is_empty());
        match pair {
            Some((from, to)) => {
                cluster.deliver(from, to);
            }
            None => cluster.now = cluster.now.plus(10),
        }
        for node in 0..4 {
            cluster.turn(node);
            if cluster.is_at(node, &key) && order.last() != Some(&node) {
                order.push(node);
            }
        }
    }
    assert_eq!(order, [3, 2, 0, 1]);
}

#[test]
fn local_clients_do_not_make_a_lease_longer() {
    let (mut cluster, key) = too_late(1);
    cluster.migrate(2, 9, &key);
    for _ in 0..9 {
        cluster.later(10);
        cluster.migrate_for(1, OTHER, 11, &key);
        cluster.settle();
        assert!(cluster.is_at(1, &key));
    }
    cluster.later(10);
    assert!(cluster.is_at(2, &key));
}

#[test]
fn a_freeze_and_a_new_generation_end_a_lease_and_nobody_is_forgotten() {
    for freeze in [true, false] {
        let (mut cluster, key) = too_late(1);
        cluster.migrate(2, 9, &key);
        cluster.settle();
        assert_eq!(cluster.nodes[1].engine.backlog(), 1);
        if freeze {
            cluster.nodes[1].store.set_frozen(DB, true);
            cluster.nodes[1].engine.frozen(DB, &[]);
            cluster.settle();
            cluster.nodes[1].store.set_frozen(DB, false);
            cluster.nodes[1].engine.thawed(DB);
        } else {
            cluster.new_generation(Generation(101));
            cluster.settle();
            assert_eq!(cluster.nodes[1].engine.backlog(), 0, "of another epoch");
            cluster.nodes[2].engine.thawed(DB);
        }
        let frozen_at = cluster.now;
        cluster.settle();
        assert_eq!((cluster.now, cluster.is_at(2, &key)), (frozen_at, true));
        assert_eq!(cluster.replies(2).len(), 1);
    }
}

/// A record that its lmaster fetches to delete it is for nobody here.
#[test]
fn a_record_that_is_fetched_to_be_deleted_does_not_stay() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(0, 2);
    // Node 0's client has come too late once: the next time it would get a lease.
    cluster.migrate(0, 1, &key);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    cluster.migrate(0, 3, &key);
    cluster.settle();
    cluster.later(1_000);
    cluster.migrate(1, 4, &key);
    cluster.settle();
    assert!(cluster.is_at(1, &key));
    assert!(cluster.nodes[0].engine.vacuum_fetch(DB, &key));
    cluster.later(20_000);
    assert!(cluster.is_at(0, &key));
    cluster.migrate(1, 5, &key);
    cluster.settle();
    assert!(cluster.is_at(1, &key));
}

#[test]
fn without_leases_nothing_stays() {
    let (mut cluster, key) = too_late(3);
    for node in &mut cluster.nodes {
        let tunables = crate::record::RecordTunables { leases: false, ..Default::default() };
        node.engine.set_tunables(tunables);
    }
    cluster.migrate(2, 9, &key);
    cluster.later(20_000);
    cluster.migrate(1, 10, &key);
    cluster.settle();
    cluster.migrate(2, 11, &key);
    cluster.settle();
    assert!(cluster.is_at(2, &key));
}
