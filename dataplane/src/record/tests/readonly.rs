//! Read-only copies.

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

/// A copy that waited for a busy chain would be stored after the revoke that found none.
#[test]
fn a_copy_that_meets_a_busy_chain_is_answered_and_not_kept() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 5, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    assert!(cluster.nodes[1].store.hold(DB, &key));
    cluster.settle();
    assert_eq!(cluster.replies(1), [(5, 0, b"one".to_vec())]);
    cluster.nodes[1].store.let_go(DB, &key);
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert!(cluster.write(0, &key, b"two"));
    assert_eq!(cluster.record(1, &key), None, "nobody reads the old value");
    assert!(cluster.nodes[1].out.waits.is_empty());
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
    let [(_, header)] = &queued[..] else { panic!("one empty record: {queued:?}") };
    assert!(header.flags.contains(RecordFlags::MIGRATED_WITH_DATA));
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
    cluster.now = Millis(1_000);
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
    cluster.now = Millis(60_000);
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
