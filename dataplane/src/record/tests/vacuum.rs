//! Fetching for vacuuming, and the whole life of a record.

use ringmaster_protocol::record::RecordFlags;

use super::*;
use crate::record::vacuum::{self, Known, Scheduled, Tombstone};

const NODES: u32 = 3;

/// rsn, dmaster, flags and value, if the record is there.
type Stored = Option<(u64, u32, u32, Vec<u8>)>;

impl Cluster {
    fn known(&self, node: usize, key: &[u8]) -> Option<Known> {
        let (header, value) = self.nodes[node].store.get(DB, key)?;
        Some(Known { header, empty: value.is_empty() })
    }

    /// What smbd does to delete a record that is here.
    fn delete(&mut self, node: usize, key: &[u8]) {
        assert!(self.write(node, key, b""));
        let header = self.known(node, key).expect("a header is left").header;
        assert!(self.nodes[node].engine.schedule_for_deletion(DB, key, header));
    }

    /// What a vacuum round of `node` finds to be done; nothing is done about it.
    fn round(&mut self, node: usize) -> Vec<(Vec<u8>, RecordHeader, Scheduled)> {
        let queue = self.nodes[node].engine.take_delete_queue(DB);
        let decide = |Tombstone { key, header, .. }: Tombstone| {
            let lmaster = self.nodes[node].engine.lmaster(&key);
            let found = vacuum::scheduled(self.known(node, &key), header, pnn(node), lmaster);
            (key.to_vec(), header, found)
        };
        queue.into_iter().map(decide).collect()
    }

    /// `TRY_DELETE_RECORDS`, for one record.
    fn try_delete(&mut self, node: usize, key: &[u8], asked: RecordHeader) -> bool {
        let known = self.known(node, key).map(|known| known.header);
        let lmaster = self.nodes[node].engine.lmaster(key);
        let may = vacuum::may_delete_copy(known, asked, pnn(node), lmaster);
        if may {
            self.nodes[node].store.remove(DB, key);
        }
        may
    }

    fn fetch_to_delete(&mut self, node: usize, key: &[u8]) {
        assert!(self.nodes[node].engine.vacuum_fetch(DB, key));
    }

    /// Header and value, as A.10 of the specification writes them.
    fn all(&self, key: &[u8]) -> [Stored; 3] {
        [0, 1, 2].map(|node| self.record(node, key))
    }
}

fn is(rsn: u64, dmaster: u32, flags: u32, value: &str) -> Stored {
    Some((rsn, dmaster, flags, value.into()))
}

/// Step by step, with the header values that were seen on a cluster of C's daemons.
#[test]
fn the_life_of_a_record_is_that_of_the_specification() {
    let (a, l, d) = (0, 1, 2);
    let key = b"rec2";
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    assert_eq!(cluster.nodes[a].engine.lmaster(key), pnn(l));
    // 1-3
    cluster.migrate(d, 1, key);
    assert!(cluster.deliver(d, l));
    assert_eq!(cluster.all(key), [None, is(1, 2, 0, ""), None]);
    cluster.settle();
    assert!(cluster.write(d, key, b"v1"));
    assert_eq!(cluster.all(key), [None, is(1, 2, 0, ""), is(3, 2, 0, "v1")]);
    // 4-8
    cluster.migrate(a, 2, key);
    assert!(cluster.deliver(a, l));
    assert!(cluster.deliver(l, d));
    assert_eq!(cluster.all(key), [None, is(1, 2, 0, ""), is(3, 0, MIGRATED, "v1")]);
    assert!(cluster.deliver(d, l));
    assert_eq!(cluster.all(key)[1], is(3, 0, MIGRATED, "v1"));
    assert!(cluster.deliver(l, a));
    assert_eq!(cluster.all(key)[0], is(5, 0, MIGRATED, "v1"));
    // 9-11: the first round of the node that has deleted it
    assert!(cluster.write(a, key, b"v2"));
    cluster.delete(a, key);
    let [(_, header, Scheduled::Fetch)] = &cluster.round(a)[..] else { panic!("a tombstone") };
    assert_eq!(header.rsn, Rsn(5));
    // 12-14: the lmaster fetches it
    cluster.fetch_to_delete(l, key);
    cluster.turn(l);
    assert!(cluster.deliver(l, a));
    assert_eq!(cluster.all(key)[0], is(5, 1, MIGRATED, ""));
    assert!(cluster.deliver(a, l));
    assert_eq!(cluster.all(key)[1], is(7, 1, MIGRATED, ""));
    cluster.settle();
    let last = |cluster: &mut Cluster, node: usize| {
        let queue = cluster.nodes[node].engine.take_delete_queue(DB);
        for found in &queue {
            cluster.nodes[node].engine.schedule_for_deletion(DB, &found.key, found.header);
        }
        queue.into_iter().find_map(|found| found.came_from)
    };
    assert_eq!(last(&mut cluster, l), Some(pnn(a)), "its copy is the newest one elsewhere");
    // 15, 16: its next round
    let [(_, header, Scheduled::Ask)] = cluster.round(l)[..] else { panic!("all are asked") };
    assert!(cluster.try_delete(a, key, header));
    assert!(cluster.try_delete(d, key, header), "although it has data");
    assert!(vacuum::may_delete(cluster.known(l, key), header, pnn(l), pnn(l)));
    assert_eq!(cluster.all(key), [None, is(7, 1, MIGRATED, ""), None]);
}

/// The same of a record that never had data: nobody has to be asked.
#[test]
fn a_record_that_never_had_data_is_deleted_without_asking() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = b"rec2";
    cluster.migrate(0, 1, key);
    cluster.settle();
    assert_eq!(cluster.all(key), [is(3, 0, 0, ""), is(1, 0, 0, ""), None]);
    assert!(matches!(cluster.round(0)[..], [(_, _, Scheduled::Fetch)]));
    // The lmaster has scheduled it when it invented it, and it is not there any more.
    assert!(cluster.round(1).iter().all(|found| found.2 == Scheduled::Leave));
    cluster.fetch_to_delete(1, key);
    cluster.settle();
    assert_eq!(cluster.all(key), [None, is(4, 1, 0, ""), None]);
    assert!(matches!(cluster.round(1)[..], [(_, _, Scheduled::Delete)]));
}

#[test]
fn a_record_that_is_here_unknown_busy_or_fetched_anyway_is_not_fetched() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let keys: Vec<Vec<u8>> = (0..4_u8)
        .map(|number| {
            (0_u32..)
                .map(|more| format!("{number}-{more}").into_bytes())
                .find(|key| ringmaster_protocol::hash::jenkins(key) % 2 == 1)
                .expect("keys of every lmaster")
        })
        .collect();
    let [here, busy, wanted, unknown] = &keys[..] else { panic!("four keys") };
    cluster.migrate(1, 1, here);
    for key in [busy, wanted] {
        cluster.migrate(0, 2, key);
    }
    cluster.settle();
    assert!(cluster.nodes[1].store.hold(DB, busy));
    cluster.migrate(1, 3, wanted);
    let before = cluster.network.get(&(1, 0)).map_or(0, VecDeque::len);
    for key in [here, busy, wanted, unknown] {
        cluster.fetch_to_delete(1, key);
    }
    cluster.turn(1);
    assert_eq!(cluster.network[&(1, 0)].len(), before, "nothing is sent");
    assert!(cluster.nodes[1].out.waits.is_empty(), "nothing waits for a chain");
    cluster.nodes[1].store.let_go(DB, busy);
    assert!(!cluster.nodes[1].engine.vacuum_fetch(DbId(9), here));
}

/// Fetches of other nodes than the lmaster would be calls of anybody.
#[test]
fn only_the_lmaster_fetches() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, NODES);
    cluster.migrate(2, 1, &key);
    cluster.settle();
    cluster.migrate(0, 2, &key);
    cluster.settle();
    cluster.fetch_to_delete(2, &key);
    cluster.turn(2);
    assert!(cluster.network.values().all(VecDeque::is_empty));
}

#[test]
fn a_crowd_is_fetched_a_few_at_a_time_and_all_of_it_in_the_end() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let keys: Vec<Vec<u8>> = (0_u32..)
        .map(|number| format!("key-{number}").into_bytes())
        .filter(|key| ringmaster_protocol::hash::jenkins(key) % 2 == 1)
        .take(200)
        .collect();
    for key in &keys {
        cluster.migrate(0, 1, key);
    }
    cluster.settle();
    for key in &keys {
        cluster.fetch_to_delete(1, key);
    }
    cluster.turn(1);
    assert_eq!(cluster.network[&(1, 0)].len(), 32);
    cluster.settle();
    assert!(keys.iter().all(|key| cluster.record(0, key).is_none()));
    let deletable = cluster.round(1);
    assert_eq!(deletable.len(), 200);
    assert!(deletable.iter().all(|found| found.2 == Scheduled::Delete));
}

/// Who is lmaster may be another after the recovery; and nobody waits for the fetch but callers who
/// came after it.
#[test]
fn a_fetch_is_not_sent_again_after_a_recovery_and_its_followers_go_on() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    cluster.fetch_to_delete(1, &key);
    cluster.turn(1);
    cluster.network.clear(); // lost with the connection
    cluster.migrate(1, 5, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1), [], "it waits behind the fetch");
    cluster.new_generation(Generation(101));
    for node in 0..2 {
        cluster.nodes[node].engine.replaced(DB);
        cluster.nodes[node].engine.thawed(DB);
    }
    cluster.settle();
    assert_eq!(cluster.replies(1), [(5, 0, vec![])]);
    assert_eq!(cluster.nodes[1].engine.counters().pending_calls, 0);
}

#[test]
fn a_fetch_that_is_refused_makes_room_for_the_next() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    cluster.nodes[0].engine.detach(DB);
    cluster.fetch_to_delete(1, &key);
    cluster.settle();
    assert_eq!(cluster.nodes[1].engine.counters().pending_calls, 0);
    assert_eq!(cluster.nodes[1].engine.backlog(), 0);
    let header = cluster.known(1, &key).map(|known| known.header);
    assert!(header.is_some_and(|header| !header.flags.intersects(RecordFlags::VACUUM_MIGRATED)));
}
