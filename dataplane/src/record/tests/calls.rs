//! Calls, migrations, who waits for whom.

use super::*;

#[test]
fn an_absent_record_appears_where_its_lmaster_is() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    cluster.migrate(0, 1, b"key1");
    assert_eq!(cluster.replies(0), [(1, 0, vec![])]);
    assert!(cluster.write(0, b"key1", b"hello"));
    cluster.call(0, 2, CallFlags::NONE, CallId::FETCH, b"key1");
    cluster.call(0, 3, CallFlags::NONE, CallId::FETCH_WITH_HEADER, b"key1");
    let replies = cluster.replies(0);
    assert_eq!(replies[0], (2, 0, b"hello".to_vec()));
    // Invented with rsn 0 and stored (1), the NULL call stored (2), the FETCH (3).
    assert_eq!(replies[1].2[..8], 3_u64.to_le_bytes());
    assert_eq!(replies[1].2[24..], *b"hello");
    assert_eq!(cluster.record(0, b"key1"), Some((4, 0, 0, b"hello".to_vec())));
}

#[test]
fn a_record_moves_from_its_dmaster_by_its_lmaster_to_who_asked() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    assert!(cluster.write(0, &key, b"data"));
    let at_first = cluster.record(0, &key).unwrap();
    cluster.replies(0);
    cluster.migrate(2, 9, &key);
    cluster.settle();
    assert_eq!(cluster.replies(2), [(9, 0, vec![])]);
    let (rsn, dmaster, flags, value) = cluster.record(2, &key).unwrap();
    // Stored by become-dmaster and again by the call that waited.
    assert_eq!((rsn, dmaster, flags, &value[..]), (at_first.0 + 2, 2, MIGRATED, &b"data"[..]));
    assert_eq!(cluster.record(1, &key).map(|record| record.1), Some(2), "the lmaster knows");
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(2), "the old one sends on");
}

#[test]
fn an_empty_record_leaves_nothing_at_a_node_that_is_neither_dmaster_nor_lmaster() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    cluster.migrate(2, 2, &key);
    cluster.settle();
    assert_eq!(cluster.record(0, &key), None);
    assert_eq!(cluster.record(2, &key).map(|record| record.1), Some(2));
}

#[test]
fn callers_of_one_key_share_one_migration() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    for reqid in 1..=5 {
        cluster.migrate(0, reqid, &key);
    }
    assert_eq!(cluster.network[&(0, 1)].len(), 1, "one call leaves");
    cluster.settle();
    let answered: Vec<u32> = cluster.replies(0).iter().map(|reply| reply.0).collect();
    assert_eq!(answered, [1, 2, 3, 4, 5]);
}

#[test]
fn a_call_waits_for_a_busy_chain_and_gives_it_back() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    assert!(cluster.nodes[0].store.hold(DB, b"k"));
    cluster.migrate(0, 1, b"k");
    assert_eq!(cluster.replies(0), []);
    let (key, ticket) = cluster.nodes[0].out.waits.pop().expect("a waiter is asked for");
    assert_eq!(key, b"k");
    cluster.nodes[0].store.let_go(DB, b"k");
    assert!(cluster.nodes[0].store.grant(DB, b"k"));
    cluster.with(0, |engine, cx| engine.chain_ready(cx, ticket));
    assert_eq!(cluster.replies(0), [(1, 0, vec![])]);
    assert!(cluster.nodes[0].store.is_unlocked());
}

#[test]
fn an_unknown_database_is_silence_for_a_client_and_an_error_for_a_node() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    cluster.nodes[1].engine.detach(DB);
    let call = ReqCall {
        flags: CallFlags::NONE,
        db: DbId(1),
        callid: CallId::NULL,
        hopcount: 0,
        key: b"k",
        calldata: b"",
    };
    cluster.with(0, |engine, cx| engine.client_call(cx, CLIENT, Reqid(1), &call));
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.nodes[0].engine.counters().calls_unknown_db, 1);
    cluster.migrate(0, 2, &key_of(1, 2));
    assert!(cluster.deliver(0, 1));
    let Some(Sent::Packet(bytes)) = cluster.network[&(1, 0)].front() else { panic!("no answer") };
    let (_, packet) = Packet::decode(bytes).unwrap();
    let Packet::ReplyError(error) = packet else { panic!("{packet:?}") };
    assert_eq!(error.message, b"Unknown database in request. db_id==0x12345678");
    cluster.settle();
    assert_eq!(cluster.replies(0), [], "the client hears nothing of it");
}

#[test]
fn a_record_arrives_even_when_its_client_has_gone() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.nodes[0].engine.client_gone(CLIENT);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(0));
    assert_eq!(cluster.replies(0), []);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1).len(), 1);
}

#[test]
fn a_false_dmaster_forces_a_recovery() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(0, 3);
    cluster.migrate(1, 1, &key);
    cluster.settle();
    let packet = Packet::ReqDmaster(ringmaster_protocol::call::ReqDmaster {
        db: DB,
        rsn: Rsn(77),
        dmaster: Dmaster::from(pnn(2)),
        key: &key,
        data: b"stolen",
        record_flags: RecordFlags::NONE,
    });
    let mut bytes = Vec::new();
    let envelope = Envelope {
        generation: cluster.generation,
        destination: Destination::Node(pnn(0)),
        source: Destination::Node(pnn(2)),
        reqid: Reqid(5),
    };
    packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    cluster.send(2, 0, Sent::Packet(bytes));
    cluster.settle();
    assert_eq!(cluster.nodes[0].out.recoveries.len(), 1);
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(1), "nothing has moved");
}

#[test]
fn a_sticky_record_stays_for_a_moment() {
    let mut cluster = Cluster::new(2, DbFlags::STICKY);
    let key = key_of(1, 2);
    // A call that has been chased over fifty hops makes the key sticky at its dmaster.
    let chased = |hopcount| ReqCall {
        flags: CallFlags::IMMEDIATE_MIGRATION,
        db: DB,
        callid: CallId::NULL,
        hopcount,
        key: &key,
        calldata: b"",
    };
    cluster.migrate(0, 1, &key);
    cluster.settle();
    let mut bytes = Vec::new();
    let envelope = Envelope {
        generation: cluster.generation,
        destination: Destination::Node(pnn(0)),
        source: Destination::Node(pnn(1)),
        reqid: Reqid(9),
    };
    Packet::ReqCall(chased(50)).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    cluster.send(1, 0, Sent::Packet(bytes));
    cluster.settle();
    cluster.migrate(0, 2, &key);
    cluster.settle(); // it comes back to node 0, where the key is sticky
    cluster.replies(0);
    cluster.migrate(1, 3, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1), [], "pinned for 200 ms");
    cluster.now = Micros(200_000);
    cluster.settle();
    assert_eq!(cluster.replies(1).len(), 1);
}

#[test]
fn scheduled_deletions_are_those_of_empty_records() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    cluster.migrate(0, 1, b"empty");
    cluster.migrate(0, 2, b"full");
    assert!(cluster.write(0, b"full", b"x"));
    cluster.migrate(0, 3, b"full");
    let keys: Vec<_> =
        cluster.nodes[0].engine.take_delete_queue(DB).into_iter().map(|found| found.key).collect();
    assert_eq!(keys, [Box::from(*b"empty")]);
}

/// The trait is what the daemon's store implements: one use through it, so that it stays usable.
#[test]
fn the_store_nests_locks() {
    let mut store = MemoryStore::new();
    assert_eq!(store.try_lock(DB, b"k"), LockOutcome::Locked);
    assert_eq!(store.try_lock(DB, b"k"), LockOutcome::Locked);
    store.unlock(DB, b"k");
    assert!(!store.hold(DB, b"k"));
    store.unlock(DB, b"k");
    assert!(store.hold(DB, b"k"));
    assert_eq!(store.try_lock(DB, b"k"), LockOutcome::Busy);
}
