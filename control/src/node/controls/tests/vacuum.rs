use ringmaster_protocol::{
    database::DbVacuum, process::RecMode, record::RecBuffer, tunable::Tunable,
};

use super::*;

fn vacuum(db: DbId) -> ControlRequest<'static> {
    ControlRequest::DbVacuum(DbVacuum { db, full_vacuum_run: true })
}

fn hold_rounds(cluster: &mut Cluster) {
    hold_data(cluster, 0, |data| matches!(data, DataAsk::Vacuum { .. }));
}

fn rounds(cluster: &mut Cluster) -> Vec<bool> {
    let full = |ask: DataAsk| match ask {
        DataAsk::Vacuum { full, .. } => Some(full),
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
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(id), Some(done()));
    assert_eq!(rounds(&mut cluster), [true]);
    let id = cluster.send(0, &vacuum(db));
    cluster.release(0, &Outcome::Failed("repack".into()));
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
