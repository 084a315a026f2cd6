use ringmaster_protocol::{
    database::DbVacuum,
    node::NodeFlags,
    process::RecMode,
    record::{RecBuffer, RecBufferBuilder},
    statistics::DbStatistics,
    tunable::Tunable,
};

use super::*;
use crate::node::world::{ControlAnswer, ControlFailure, Origin, RequestId, VacuumStep};

fn vacuum(db: DbId) -> ControlRequest<'static> {
    ControlRequest::DbVacuum(DbVacuum { db, full_vacuum_run: true })
}

/// What a step has found.
fn step(found: impl FnOnce(&mut VacuumStep)) -> Outcome {
    let mut step = VacuumStep::default();
    found(&mut step);
    Outcome::Vacuumed(step)
}

fn hold_rounds(cluster: &mut Cluster) {
    hold_data(cluster, 0, |data| matches!(data, DataAsk::VacuumStep(_)));
}

fn rounds(cluster: &mut Cluster) -> Vec<bool> {
    let full = |ask: DataAsk| match ask {
        DataAsk::VacuumBegin { full, .. } => Some(full),
        _ => None,
    };
    data_asks(&cluster.took(0)).into_iter().filter_map(full).collect()
}

#[test]
fn a_round_is_answered_when_it_ends_and_a_second_one_collides() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_rounds(&mut cluster);
    let id = cluster.send(0, &vacuum(db));
    assert_eq!(cluster.reply(id), None);
    assert_eq!(cluster.control(0, &vacuum(db)), refused());
    cluster.release(0, &step(|_| {}));
    assert_eq!(cluster.reply(id), Some(done()));
    assert_eq!(rounds(&mut cluster), [true]);
    let id = cluster.send(0, &vacuum(db));
    cluster.release(0, &Outcome::Failed("a broken file".into()));
    assert_eq!(cluster.reply(id), Some(refused()));
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::MergeFreeBlocks(..)));
    let id = cluster.send(0, &vacuum(db));
    cluster.release(0, &step(|_| {}));
    assert_eq!(cluster.reply(id), Some(refused()));
}

#[test]
fn no_round_in_a_recovery_under_a_freeze_or_without_queues() {
    let mut cluster = Cluster::running(1);
    let kept = persistent(&mut cluster, "secrets.tdb");
    let db = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &vacuum(kept)), refused());
    assert_eq!(cluster.control(0, &vacuum(DbId(1))), refused());
    cluster.control(0, &ControlRequest::DbFreeze(db));
    assert_eq!(cluster.control(0, &vacuum(db)), refused());
    cluster.control(0, &ControlRequest::DbThaw(db));
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert_eq!(cluster.control(0, &vacuum(db)), refused());
}

#[test]
fn any_freeze_ends_a_round() {
    let mut cluster = Cluster::running(1);
    let other = persistent(&mut cluster, "secrets.tdb");
    let db = volatile(&mut cluster, "locking.tdb");
    hold_rounds(&mut cluster);
    let id = cluster.send(0, &vacuum(db));
    cluster.control(0, &ControlRequest::DbFreeze(other));
    assert_eq!(cluster.reply(id), Some(refused()));
    assert!(!cluster.state(0).vacuuming);
}

#[test]
fn rounds_come_by_themselves_and_a_full_one_after_enough_fast_ones() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.tunables.set(Tunable::VacuumFastPathCount, 2));
    volatile(&mut cluster, "locking.tdb");
    cluster.took(0);
    cluster.advance_ms(9_999);
    assert_eq!(rounds(&mut cluster), [false; 0]);
    cluster.advance_ms(30_001);
    assert_eq!(rounds(&mut cluster), [false, false, true, false]);
}

#[test]
fn a_round_that_takes_too_long_is_ended_and_does_not_count() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.tunables.set(Tunable::VacuumFastPathCount, 1));
    volatile(&mut cluster, "locking.tdb");
    hold_rounds(&mut cluster);
    cluster.advance_ms(10_000);
    assert!(cluster.state(0).vacuuming);
    cluster.advance_ms(120_000);
    assert!(!cluster.state(0).vacuuming);
    cluster.took(0);
    cluster.advance_ms(10_000);
    assert_eq!(rounds(&mut cluster), [false]);
}

#[test]
fn records_are_fetched_and_deleted_by_the_data_plane() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.took(0);
    let buffer = one_record(db, b"key", header(1, 0), b"");
    let records = RecBuffer::from_bytes(&buffer).unwrap();
    assert_eq!(cluster.control(0, &ControlRequest::VacuumFetch(records)), done());
    let left = cluster.control(0, &ControlRequest::TryDeleteRecords(records));
    assert_eq!((left.status, left.data), (0, buffer.clone()));
    assert_eq!(
        data_asks(&cluster.took(0)),
        [
            DataAsk::VacuumFetch { db, buffer: buffer.clone() },
            DataAsk::TryDelete { db, buffer: buffer.clone() },
        ]
    );
    let buffer = one_record(DbId(1), b"key", header(1, 0), b"");
    let records = RecBuffer::from_bytes(&buffer).unwrap();
    assert_eq!(cluster.control(0, &ControlRequest::VacuumFetch(records)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::TryDeleteRecords(records)), refused());
}

/// Keys of a buffer.
fn keys(buffer: &[u8]) -> Vec<Vec<u8>> {
    RecBuffer::from_bytes(buffer).unwrap().iter().map(|record| record.key.to_vec()).collect()
}

fn buffer_of(db: DbId, keys: &[&[u8]]) -> Vec<u8> {
    let mut buffer = RecBufferBuilder::new(db);
    for key in keys {
        buffer.push_with_header(0, key, &header(1, 0), b"");
    }
    buffer.into_bytes()
}

/// Nodes that have been asked to delete, and what, in order.
fn asked(cluster: &mut Cluster, opcode: ControlOpcode) -> Vec<(usize, Vec<Vec<u8>>)> {
    let asked = |did| match did {
        Did::Ask(Ask::Control(control)) if control.opcode == opcode => {
            Some((control.to.get() as usize, keys(&control.data)))
        }
        _ => None,
    };
    cluster.took(0).into_iter().filter_map(asked).collect()
}

/// The answer of a node to TRY_DELETE_RECORDS.
fn kept(cluster: &mut Cluster, node: usize, buffer: Vec<u8>) {
    cluster.play(node, move |ask| match ask {
        Ask::Data(DataAsk::TryDelete { .. }) => Some(Play::Outcome(Outcome::Bytes(buffer.clone()))),
        _ => None,
    });
}

/// Node 0 of `count`, in a round; the others have no copies.
fn deleting(count: usize) -> (Cluster, DbId, RequestId) {
    let mut cluster = Cluster::running(count);
    let db = volatile(&mut cluster, "locking.tdb");
    for node in 1..count {
        kept(&mut cluster, node, buffer_of(db, &[]));
    }
    hold_rounds(&mut cluster);
    let id = cluster.send(0, &vacuum(db));
    cluster.took(0);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::VacuumDelete { .. }));
    (cluster, db, id)
}

fn delete_of(db: DbId, keys: &[&[u8]]) -> Outcome {
    step(|step| step.delete = vec![(None, buffer_of(db, keys))])
}

fn deletes(cluster: &Cluster) -> Vec<Vec<Vec<u8>>> {
    let held = cluster.nodes[0].held.iter();
    let lists = held.filter_map(|(_, ask)| match ask {
        Ask::Data(DataAsk::VacuumDelete { buffer, .. }) => Some(keys(buffer)),
        _ => None,
    });
    lists.collect()
}

#[test]
fn a_record_goes_when_every_other_node_has_deleted_its_copy() {
    let (mut cluster, db, id) = deleting(3);
    kept(&mut cluster, 1, buffer_of(db, &[b"b"]));
    cluster.release(0, &delete_of(db, &[b"a", b"b", b"c"]));
    let (all, rest) =
        (keys(&buffer_of(db, &[b"a", b"b", b"c"])), keys(&buffer_of(db, &[b"a", b"c"])));
    assert_eq!(
        asked(&mut cluster, ControlOpcode::TRY_DELETE_RECORDS),
        [(1, all), (2, rest.clone())],
        "what one keeps, the next is not asked about"
    );
    assert_eq!(deletes(&cluster), [rest]);
    cluster.release(0, &Outcome::Count(2));
    assert_eq!(cluster.reply(id), Some(done()));
}

/// Found by the simulator: the lmaster died when the only newer copy had been deleted, and an older
/// one with data came back.
#[test]
fn the_node_that_a_record_came_from_is_asked_last() {
    let (mut cluster, db, _) = deleting(4);
    let lists =
        vec![(Some(pnn(1)), buffer_of(db, &[b"a"])), (Some(pnn(2)), buffer_of(db, &[b"b"]))];
    cluster.release(0, &step(|step| step.delete = lists));
    let order = |cluster: &mut Cluster| -> Vec<usize> {
        let asked = asked(cluster, ControlOpcode::TRY_DELETE_RECORDS);
        asked.into_iter().map(|(to, _)| to).collect()
    };
    assert_eq!(order(&mut cluster), [2, 3, 1]);
    cluster.release(0, &Outcome::Count(1));
    assert_eq!(order(&mut cluster), [1, 3, 2]);
}

#[test]
fn a_member_that_is_absent_or_refuses_keeps_every_record() {
    let absences: [fn(&mut Cluster); 5] = [
        |cluster| {
            cluster.change(0, |state| {
                state.set_flags(pnn(2), NodeFlags::DISCONNECTED);
            });
        },
        |cluster| {
            cluster.change(0, |state| {
                state.set_flags(pnn(2), NodeFlags::STOPPED);
            });
        },
        // Without the lmaster capability it is in no map, and has copies.
        |cluster| {
            cluster.change(0, |state| {
                state.vnn_map.map.retain(|member| *member != pnn(2));
                state.set_flags(pnn(2), NodeFlags::DISCONNECTED);
            });
        },
        |cluster| fail_data(cluster, 2, |data| matches!(data, DataAsk::TryDelete { .. })),
        |cluster| {
            cluster.play(0, |ask| match ask {
                Ask::Control(control) if control.to == pnn(2) => {
                    let failed = Outcome::Reply(Err(ControlFailure::TimedOut));
                    Some(Play::Outcome(failed))
                }
                _ => None,
            });
        },
    ];
    for absence in absences {
        let (mut cluster, db, id) = deleting(3);
        absence(&mut cluster);
        cluster.release(0, &delete_of(db, &[b"a"]));
        assert_eq!(deletes(&cluster), [[[0_u8; 0]; 0]; 0]);
        assert_eq!(cluster.reply(id), Some(done()), "the round goes on");
    }
}

#[test]
fn a_node_that_is_in_no_map_is_asked_and_one_that_comes_meanwhile_keeps_the_records() {
    let (mut cluster, db, _) = deleting(3);
    cluster.change(0, |state| state.vnn_map.map.retain(|member| *member != pnn(2)));
    cluster.release(0, &delete_of(db, &[b"a"]));
    assert_eq!(deletes(&cluster).len(), 1);
    assert_eq!(asked(&mut cluster, ControlOpcode::TRY_DELETE_RECORDS).len(), 2);

    let (mut cluster, db, _) = deleting(3);
    cluster.change(0, |state| {
        state.vnn_map.map.retain(|member| *member != pnn(2));
        state.nodes[2].flags = NodeFlags::DISCONNECTED;
    });
    hold_data(&mut cluster, 1, |data| matches!(data, DataAsk::TryDelete { .. }));
    cluster.release(0, &delete_of(db, &[b"a"]));
    cluster.change(0, |state| state.nodes[2].flags = NodeFlags::NONE);
    cluster.release(1, &Outcome::Bytes(buffer_of(db, &[])));
    assert_eq!(deletes(&cluster).len(), 0);
}

#[test]
fn lmasters_are_told_what_to_fetch_and_a_round_goes_on_step_by_step() {
    let mut cluster = Cluster::running(3);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_rounds(&mut cluster);
    let id = cluster.send(0, &vacuum(db));
    cluster.took(0);
    let lists = [(pnn(1), buffer_of(db, &[b"a"])), (pnn(2), buffer_of(db, &[b"b", b"c"]))];
    cluster.release(
        0,
        &step(|step| {
            step.fetch = lists.to_vec();
            step.more = true;
        }),
    );
    let told = asked(&mut cluster, ControlOpcode::VACUUM_FETCH);
    assert_eq!(
        told.iter().map(|(to, keys)| (*to, keys.len())).collect::<Vec<_>>(),
        [(1, 1), (2, 2)]
    );
    let fetch = DataAsk::VacuumFetch { db, buffer: lists[0].1.clone() };
    assert!(data_asks(&cluster.took(1)).contains(&fetch));
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(10);
    assert_eq!(cluster.nodes[0].held.len(), 1, "the next step");
    cluster.release(0, &step(|_| {}));
    assert_eq!(cluster.reply(id), Some(done()));
}

#[test]
fn a_recovery_ends_a_round_and_voids_what_was_asked_before_it() {
    let (mut cluster, db, id) = deleting(2);
    hold_data(&mut cluster, 1, |data| matches!(data, DataAsk::TryDelete { .. }));
    cluster.release(0, &delete_of(db, &[b"a"]));
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert_eq!(cluster.reply(id), Some(refused()));
    cluster.change(0, |state| state.recovery_mode = RecMode::Normal);
    cluster.release(1, &Outcome::Bytes(buffer_of(db, &[])));
    assert_eq!(deletes(&cluster).len(), 0);
}

#[test]
fn what_a_lmaster_of_another_generation_asks_is_refused() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.change(1, |state| state.vnn_map.generation = ringmaster_protocol::Generation(99));
    let buffer = buffer_of(db, &[b"key"]);
    let records = RecBuffer::from_bytes(&buffer).unwrap();
    let sender = Origin::Node(pnn(1), 0);
    for control in [ControlRequest::TryDeleteRecords(records), ControlRequest::VacuumFetch(records)]
    {
        let answer: ControlAnswer = cluster.control_from(0, sender, &control);
        assert_eq!(answer, refused());
    }
}

#[test]
fn the_statistics_of_a_database_know_how_long_its_rounds_took() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    let latency = |cluster: &mut Cluster| {
        let answer = cluster.control(0, &ControlRequest::GetDbStatistics(db));
        DbStatistics::from_bytes(&answer.data).unwrap().vacuum_latency
    };
    hold_rounds(&mut cluster);
    cluster.send(0, &vacuum(db));
    cluster.advance_ms(3_000);
    cluster.release(0, &step(|_| {}));
    let counted = latency(&mut cluster);
    assert_eq!((counted.num, counted.min, counted.max, counted.total), (1, 3.0, 3.0, 3.0));
    cluster.control(0, &ControlRequest::StatisticsReset);
    assert_eq!(latency(&mut cluster).num, 0);
}
