//! Calls that have to look for their record.

use super::*;

/// A copy that says who had the record long ago sends the call there; from there it goes by the lmaster.
#[test]
fn a_call_by_a_stale_copy_takes_two_hops_and_counts_them() {
    let mut cluster = Cluster::new(4, DbFlags::NONE);
    let key = key_of(0, 4);
    for node in [1, 2, 3] {
        cluster.migrate(node, 1, &key);
        cluster.settle();
        assert!(cluster.write(node, &key, b"v"));
    }
    // Node 1 has given the record to 2, which has given it to 3.
    cluster.replies(1);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1), [(2, 0, vec![])]);
    let counters = cluster.nodes[3].engine.counters();
    assert_eq!((counters.max_hop_count, counters.hop_count_bucket[2]), (2, 1));
    let statistics = cluster.nodes[3].engine.db_statistics(DB).expect("attached");
    assert_eq!(statistics.hop_count_bucket[2], 1);
}

/// A call that somebody else has forwarded keeps who asked, and under what name.
#[test]
fn a_forwarded_call_keeps_its_origin() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(2, 1, &key);
    cluster.settle();
    cluster.migrate(0, 2, &key);
    assert!(cluster.deliver(0, 1));
    let Some(Sent::Packet(bytes)) = cluster.network[&(1, 2)].front() else { panic!("a packet") };
    let (header, packet) = Packet::decode(bytes).expect("our own");
    let Packet::ReqCall(call) = packet else { panic!("{packet:?}") };
    assert_eq!((header.envelope.source, call.hopcount), (Destination::Node(pnn(0)), 1));
}

#[test]
fn the_last_hops_of_every_hundred_are_told() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    for hopcount in [0, 94, 95, 98, 99, 195] {
        let flags = CallFlags::IMMEDIATE_MIGRATION;
        let (db, callid, key) = (DB, CallId::NULL, &key[..]);
        let call = ReqCall { flags, db, callid, hopcount, key, calldata: b"" };
        let mut bytes = Vec::new();
        let envelope = Envelope {
            generation: cluster.generation,
            destination: Destination::Node(pnn(0)),
            source: Destination::Node(pnn(1)),
            reqid: Reqid(9),
        };
        Packet::ReqCall(call).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
        cluster.send(1, 0, Sent::Packet(bytes));
        assert!(cluster.deliver(1, 0));
    }
    assert_eq!(cluster.nodes[0].out.high_hop_counts, [96, 99, 196]);
}

/// C drops the call, and its caller waits for the next recovery.
#[test]
fn a_call_that_meets_a_commit_waits_for_its_end() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(1, 1, &key);
    assert!(cluster.write(1, &key, b"v"));
    cluster.nodes[1].engine.set_commit_active(DB, true);
    cluster.migrate(0, 2, &key);
    cluster.settle();
    assert_eq!(cluster.record(0, &key), None);
    assert_eq!(cluster.nodes[1].engine.backlog(), 1);
    cluster.nodes[1].engine.set_commit_active(DB, false);
    cluster.settle();
    assert_eq!(cluster.replies(0), [(2, 0, vec![])]);
    assert_eq!(cluster.record(0, &key).map(|record| record.3), Some(b"v".to_vec()));
}
