//! Read-only copies.

use ringmaster_protocol::record::RecBufferBuilder;

use super::*;

#[test]
fn copies_are_handed_out_and_called_back_before_a_write() {
    let mut cluster = Cluster::new(3, DbFlags::READONLY);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.replies(0);
    let base = cluster.record(0, &key).unwrap().0;
    for node in [1, 2] {
        cluster.call(node, 5, CallFlags::WANT_READONLY, CallId::FETCH, &key);
        cluster.settle();
        assert_eq!(cluster.replies(node), [(5, 0, b"one".to_vec())], "the header is cut off");
        let copy = cluster.record(node, &key).expect("a copy is kept");
        let flags = RecordFlags::RO_HAVE_READONLY.0 | MIGRATED;
        assert_eq!((copy.0, copy.1, copy.2), (base + 1, 0, flags));
    }
    let delegating = cluster.record(0, &key).unwrap();
    assert_eq!((delegating.0, delegating.2), (base + 3, DELEGATED));
    assert!(!cluster.write(0, &key, b"too early"), "a client sees the flag and asks");
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert_eq!(cluster.replies(0), [(6, 0, vec![])]);
    for node in [1, 2] {
        let copy = cluster.record(node, &key).unwrap();
        assert_eq!((copy.0, copy.2), (base + 2, MIGRATED), "it is no copy any more");
    }
    let (rsn, _, flags, _) = cluster.record(0, &key).unwrap();
    // Revoked r+4, cleared +1, the call itself +1.
    assert_eq!((rsn, flags), (base + 6, MIGRATED), "vacuuming has to ask before it deletes it");
    assert!(cluster.write(0, &key, b"two"));
    assert_eq!(cluster.nodes[0].engine.counters().ro_revokes, 1);
    assert_eq!(cluster.nodes[0].engine.counters().ro_delegations, 2);
}

/// A record of node 0 whose copy is on its way to node 1, where its chain is busy.
fn copy_that_meets_a_busy_chain() -> (Cluster, Vec<u8>) {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.replies(0);
    cluster.call(1, 5, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    assert!(cluster.nodes[1].store.hold(DB, &key));
    cluster.settle();
    (cluster, key)
}

/// The chain is free again: everybody who waits for it is served.
fn free(cluster: &mut Cluster, node: usize, key: &[u8]) {
    cluster.nodes[node].store.let_go(DB, key);
    for (key, ticket) in std::mem::take(&mut cluster.nodes[node].out.waits) {
        assert!(cluster.nodes[node].store.grant(DB, &key));
        cluster.with(node, |engine, cx| engine.chain_ready(cx, ticket));
    }
}

#[test]
fn a_copy_that_meets_a_busy_chain_is_answered_at_once_and_kept_later() {
    let (mut cluster, key) = copy_that_meets_a_busy_chain();
    assert_eq!(cluster.replies(1), [(5, 0, b"one".to_vec())]);
    assert_eq!(cluster.record(1, &key), None);
    free(&mut cluster, 1, &key);
    let copy = cluster.record(1, &key).expect("the copy");
    assert_eq!((copy.2, &copy.3[..]), (RecordFlags::RO_HAVE_READONLY.0 | MIGRATED, &b"one"[..]));
}

/// The update finds no copy yet. Answered then, it would let the writer go on, and the copy that
/// comes after it would stay.
#[test]
fn an_update_waits_behind_the_copy_that_it_calls_back() {
    let (mut cluster, key) = copy_that_meets_a_busy_chain();
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert_eq!(cluster.replies(0), [], "the revoke is not confirmed");
    assert!(!cluster.write(0, &key, b"two"));
    free(&mut cluster, 1, &key);
    assert_eq!(cluster.record(1, &key).map(|copy| copy.2), Some(MIGRATED), "no copy any more");
    cluster.settle();
    assert_eq!(cluster.replies(0), [(6, 0, vec![])]);
    assert!(cluster.write(0, &key, b"two"));
}

/// The same when the chain is free for a moment between the two.
#[test]
fn an_update_does_not_slip_past_a_copy_whose_chain_has_just_become_free() {
    let (mut cluster, key) = copy_that_meets_a_busy_chain();
    cluster.nodes[1].store.let_go(DB, &key);
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert_eq!(cluster.replies(0), [], "the revoke is not confirmed");
    free(&mut cluster, 1, &key);
    assert_eq!(cluster.record(1, &key).map(|copy| copy.2), Some(MIGRATED), "no copy any more");
}

/// A recovery makes every copy void, so one that waits need not be stored after it.
#[test]
fn a_copy_that_waits_over_a_freeze_is_not_kept_and_its_update_is_refused() {
    let (mut cluster, key) = copy_that_meets_a_busy_chain();
    cluster.migrate(0, 6, &key);
    cluster.settle();
    let tickets: Vec<_> = cluster.nodes[1].out.waits.drain(..).map(|wait| wait.1).collect();
    assert_eq!(tickets.len(), 2);
    cluster.nodes[1].store.set_frozen(DB, true);
    cluster.nodes[1].engine.frozen(DB, &tickets);
    cluster.nodes[1].store.let_go(DB, &key);
    cluster.new_generation(Generation(101));
    cluster.nodes[1].store.set_frozen(DB, false);
    cluster.nodes[1].engine.thawed(DB);
    cluster.turn(1);
    assert_eq!(cluster.record(1, &key), None);
    let Some(Sent::Updated { status: -1, .. }) = cluster.network[&(1, 0)].back() else {
        panic!("{:?}", cluster.network)
    };
}

fn update_at_1(cluster: &mut Cluster, generation: u32, header: RecordHeader, key: &[u8]) -> i32 {
    let mut payload = RecBufferBuilder::new(DB);
    payload.push_with_header(0, key, &header, b"older");
    cluster.update(0, 1, ControlToken(9), Generation(generation), payload.as_bytes());
    match cluster.network.get_mut(&(1, 0)).and_then(VecDeque::pop_front) {
        Some(Sent::Updated { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_of_another_generation_is_refused_and_one_that_meets_no_copy_changes_nothing() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    let header =
        RecordHeader { rsn: Rsn(5), dmaster: Dmaster::from(pnn(0)), flags: RecordFlags::NONE };
    cluster.nodes[1].store.put(DB, &key, header, b"newer");
    let update = RecordHeader { rsn: Rsn(50), ..header };
    assert_eq!(update_at_1(&mut cluster, 99, update, &key), -1);
    assert_eq!(update_at_1(&mut cluster, 100, update, &key), 0);
    assert_eq!(cluster.record(1, &key), Some((5, 0, 0, b"newer".to_vec())));
    let copy = RecordHeader { flags: RecordFlags::RO_HAVE_READONLY, ..header };
    cluster.nodes[1].store.put(DB, &key, copy, b"newer");
    assert_eq!(update_at_1(&mut cluster, 100, RecordHeader { rsn: Rsn(5), ..header }, &key), 1);
    assert_eq!(update_at_1(&mut cluster, 99, update, &key), -1);
    assert_eq!(update_at_1(&mut cluster, 100, update, &key), 0);
    assert_eq!(cluster.record(1, &key), Some((50, 0, 0, b"older".to_vec())));
}

/// Found by the simulator: after the revoke the holder has a header with a high rsn. If vacuuming
/// deleted the record here without asking, that header would win over a record created anew.
#[test]
fn an_empty_record_that_was_delegated_is_not_vacuumed_without_asking() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.migrate(0, 3, &key);
    cluster.settle();
    let queued = cluster.nodes[0].engine.take_delete_queue(DB);
    let [found] = &queued[..] else { panic!("one empty record: {queued:?}") };
    assert!(found.header.flags.contains(RecordFlags::MIGRATED_WITH_DATA));
}

#[test]
fn a_remote_writer_waits_for_the_revoke_too() {
    let mut cluster = Cluster::new(3, DbFlags::READONLY);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.migrate(2, 3, &key);
    cluster.settle();
    assert_eq!(cluster.record(2, &key).map(|record| record.1), Some(2));
    assert_eq!(cluster.record(1, &key).map(|record| record.2), Some(MIGRATED));
    assert!(cluster.write(2, &key, b"two"));
}

#[test]
fn a_revoke_that_fails_lets_nobody_write_and_is_tried_again() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.replies(0);
    cluster.migrate(0, 3, &key);
    let (_, token, _) = cluster.nodes[0].out.updates.pop().expect("an update");
    cluster.nodes[0].engine.control_done(token, -1);
    cluster.settle();
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.now = Micros(1_000_000);
    cluster.settle();
    assert_eq!(cluster.replies(0), [(3, 0, vec![])], "the second try reaches the copy");
}

#[test]
fn a_revoke_without_an_answer_ends_by_its_timeout() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.migrate(0, 3, &key);
    let (_, late, _) = cluster.nodes[0].out.updates.pop().expect("an update");
    cluster.now = Micros(60_000_000);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.nodes[0].engine.control_done(late, 0);
    cluster.settle();
    assert_eq!(
        cluster.record(0, &key).map(|record| record.2),
        Some(DELEGATED),
        "a late answer changes nothing"
    );
}
