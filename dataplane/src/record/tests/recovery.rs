//! What a change of the generation does to calls and packets.

use super::*;

#[test]
fn a_node_packet_that_waited_over_a_recovery_is_dropped_and_its_lock_given_back() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    assert!(cluster.nodes[1].store.hold(DB, &key));
    cluster.migrate(0, 1, &key);
    assert!(cluster.deliver(0, 1));
    let (_, ticket) = cluster.nodes[1].out.waits.pop().expect("a waiter is asked for");
    cluster.new_generation(Generation(101));
    cluster.nodes[1].store.let_go(DB, &key);
    assert!(cluster.nodes[1].store.grant(DB, &key));
    cluster.with(1, |engine, cx| engine.chain_ready(cx, ticket));
    assert!(cluster.nodes[1].store.is_unlocked());
    assert!(cluster.network.get(&(1, 0)).is_none_or(VecDeque::is_empty));
}

#[test]
fn calls_wait_for_the_thaw_and_lost_ones_are_sent_again() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.network.clear(); // lost with the connection
    for node in 0..2 {
        cluster.nodes[node].store.set_frozen(DB, true);
    }
    let other = key_of(0, 2);
    cluster.migrate(0, 2, &other);
    cluster.settle();
    assert_eq!(cluster.replies(0), []);
    cluster.new_generation(Generation(101));
    for node in 0..2 {
        cluster.nodes[node].store.set_frozen(DB, false);
        cluster.nodes[node].engine.thawed(DB);
    }
    cluster.settle();
    let mut answered: Vec<u32> = cluster.replies(0).iter().map(|reply| reply.0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
}

#[test]
fn a_reply_of_an_old_generation_is_dropped() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.deliver(0, 1));
    cluster.new_generation(Generation(101));
    while cluster.deliver(1, 0) {}
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.record(0, &key), None);
    for node in 0..2 {
        cluster.nodes[node].engine.thawed(DB);
    }
    // In a real recovery the record is put right before the thaw.
    let store = &mut cluster.nodes[1].store;
    let header =
        RecordHeader { rsn: Rsn(5), dmaster: Dmaster::from(pnn(1)), flags: RecordFlags::NONE };
    store.put(DB, &key, header, b"");
    cluster.settle();
    assert_eq!(cluster.replies(0).len(), 1);
}

/// Found by the simulator: a recovery sends the new map first and the records later. A node that
/// has just become lmaster by that map has nothing on file, and made its own client the owner of an
/// empty record, while the dmaster's client wrote.
#[test]
fn a_new_lmaster_invents_nothing_before_the_records_of_its_recovery_have_come() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"data"));
    let generation = Generation(101);
    let map = VnnMap { generation, map: vec![pnn(1)] };
    cluster.nodes[1].engine.set_vnn_map(map);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    assert_eq!((cluster.replies(1), cluster.record(1, &key)), (vec![], None));
    let (header, value) = cluster.nodes[0].store.get(DB, &key).expect("the record");
    let (pushed, value) = (RecordHeader { dmaster: pnn(1).into(), ..header }, value.to_vec());
    cluster.nodes[1].store.put(DB, &key, pushed, &value);
    cluster.nodes[1].engine.set_generation(DB, generation);
    cluster.nodes[1].engine.thawed(DB);
    cluster.settle();
    assert_eq!(cluster.replies(1), [(2, 0, vec![])]);
    assert!(cluster.write(1, &key, b"more"));
}

/// A dmaster packet that waits for its chain over a recovery is dropped; so is what waits behind it.
#[test]
fn nothing_is_left_of_a_change_of_dmaster_that_a_recovery_has_overtaken() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(2, 1, &key);
    cluster.settle();
    cluster.migrate(0, 2, &key);
    assert!(cluster.deliver(0, 1) && cluster.deliver(1, 2));
    assert!(cluster.nodes[1].store.hold(DB, &key));
    assert!(cluster.deliver(2, 1), "the record comes by its lmaster");
    cluster.migrate(2, 3, &key);
    assert!(cluster.deliver(2, 1), "a call for it waits there");
    let (_, ticket) = cluster.nodes[1].out.waits.pop().expect("the packet waits for its chain");
    cluster.nodes[1].store.set_frozen(DB, true);
    cluster.nodes[1].engine.frozen(DB, &[ticket]);
    cluster.nodes[1].store.let_go(DB, &key);
    cluster.new_generation(Generation(101));
    cluster.nodes[1].store.set_frozen(DB, false);
    cluster.nodes[1].engine.thawed(DB);
    cluster.turn(1);
    assert_eq!(cluster.nodes[1].engine.backlog(), 0);
}
