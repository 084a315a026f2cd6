use ringmaster_protocol::{
    database::{DbFlags, DbSeqnum, GetDbSeqnum, TdbOpenFlags},
    process::{RecMode, RunState},
    tunable::Tunable,
};

use super::*;
use crate::node::{
    controls::{self, answer::payload},
    testing::CLIENT,
    world::{ClientId, Origin},
};

#[test]
fn a_detach_by_a_client_detaches_everywhere() {
    let mut cluster = Cluster::running(3);
    let id = volatile(&mut cluster, "locking.tdb");
    for node in 0..3 {
        cluster.change(node, |state| state.tunables.set(Tunable::AllowClientDBAttach, 0));
        cluster.took(node);
    }
    assert_eq!(cluster.control(0, &ControlRequest::DbDetach(id)), done());
    for node in 0..3 {
        assert!(cluster.state(node).databases.is_empty());
        assert_eq!(data_asks(&cluster.took(node)), [DataAsk::Detach(id)]);
    }
}

/// Another node announces a database and at once that it is gone.
#[test]
fn a_detach_waits_for_the_attach_before_it() {
    let mut cluster = Cluster::running(2);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Attach { .. }));
    let from = Origin::Node(pnn(1), 0);
    let attach = ControlRequest::DbAttach(Text::new("locking.tdb"));
    let attached = cluster.send_from(0, from, &attach);
    cluster.change(0, |state| state.tunables.set(Tunable::AllowClientDBAttach, 0));
    let id = DbId::from_name("locking.tdb");
    let detached = cluster.send_from(0, from, &ControlRequest::DbDetach(id));
    let outcome =
        Outcome::Attached { path: "/db/locking.tdb.0".into(), open_flags: TdbOpenFlags::NOSYNC };
    assert_eq!(cluster.release(0, &outcome), 1);
    assert_eq!(cluster.reply(attached).map(|answer| answer.status), Some(0));
    assert_eq!(cluster.reply(detached), Some(done()));
    assert!(cluster.state(0).databases.is_empty());
}

#[test]
fn a_detach_is_refused_while_clients_may_attach() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &ControlRequest::DbDetach(id)), refused());
}

#[test]
fn persistent_databases_recoveries_and_strangers_refuse_a_detach() {
    let mut cluster = Cluster::running(1);
    let kept = persistent(&mut cluster, "secrets.tdb");
    let id = volatile(&mut cluster, "locking.tdb");
    cluster.change(0, |state| state.tunables.set(Tunable::AllowClientDBAttach, 0));
    assert_eq!(cluster.control(0, &ControlRequest::DbDetach(kept)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::DbDetach(DbId(3))), refused());
    let detach = ControlRequest::DbDetach(id);
    for stranger in [Origin::Client(ClientId(99)), Origin::Node(pnn(0), 5)] {
        assert_eq!(cluster.control_from(0, stranger, &detach), refused());
    }
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert_eq!(cluster.control(0, &detach), refused());
}

#[test]
fn changes_of_a_counted_database_are_told_to_the_others_once() {
    let mut cluster = Cluster::running(3);
    let id = volatile(&mut cluster, "locking.tdb");
    for node in 0..2 {
        assert_eq!(cluster.control(node, &ControlRequest::EnableSeqnum(id)), done());
    }
    cluster.took(0);
    cluster.nodes[0].store.put(id, b"key", header(1, 0), b"value");
    cluster.advance_ms(1_000);
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_SEQNUM), [1, 2]);
    assert_eq!(cluster.nodes[1].store.tdb_seqnum(id), 1, "its readers look again");
    cluster.took(1);
    cluster.advance_ms(5_000);
    assert_eq!(sent(&cluster.took(1), ControlOpcode::UPDATE_SEQNUM), [0; 0], "no echo");
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_SEQNUM), [0; 0]);
}

#[test]
fn clients_are_told_to_count_in_a_counted_database() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "brlock.tdb");
    let flags = |cluster: &mut Cluster| cluster.control(0, &ControlRequest::DbOpenFlags(id));
    assert_eq!(flags(&mut cluster), payload(&TdbOpenFlags::NOSYNC));
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::EnableSeqnum(id)), done());
    let asked = data_asks(&cluster.took_all(0));
    assert!(asked.contains(&DataAsk::Publish), "shards answer it too: {asked:?}");
    assert_eq!(flags(&mut cluster), payload(&(TdbOpenFlags::NOSYNC | TdbOpenFlags::SEQNUM)));
}

#[test]
fn counting_twice_tells_once_and_ends_with_the_database() {
    let mut cluster = Cluster::running(2);
    let id = volatile(&mut cluster, "locking.tdb");
    cluster.control(0, &ControlRequest::EnableSeqnum(id));
    cluster.control(0, &ControlRequest::EnableSeqnum(id));
    cluster.nodes[0].store.put(id, b"key", header(1, 0), b"value");
    cluster.advance_ms(1_000);
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_SEQNUM), [1]);
    cluster.change(0, |state| state.databases.clear());
    cluster.took(0);
    cluster.advance_ms(10_000);
    assert_eq!(cluster.took(0), []);
}

#[test]
fn an_update_of_the_sequence_number_from_itself_is_ignored() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    let update = ControlRequest::UpdateSeqnum(id);
    assert_eq!(cluster.control_from(0, Origin::Own, &update), done());
    assert_eq!(cluster.nodes[0].store.tdb_seqnum(id), 0);
    let unknown = ControlRequest::UpdateSeqnum(DbId(1));
    assert_eq!(cluster.control_from(0, Origin::Node(pnn(1), 0), &unknown), refused());
}

#[test]
fn readonly_and_sticky_are_for_volatile_databases_and_once_is_enough() {
    let mut cluster = Cluster::running(2);
    let id = volatile(&mut cluster, "locking.tdb");
    let kept = persistent(&mut cluster, "secrets.tdb");
    cluster.took(0);
    for control in [ControlRequest::SetDbReadonly(id), ControlRequest::SetDbSticky(id)] {
        assert_eq!(cluster.control(0, &control), done());
        assert_eq!(cluster.control(0, &control), done());
    }
    assert_eq!(
        data_asks(&cluster.took(0)),
        [DataAsk::AddFlags(id, DbFlags::READONLY), DataAsk::AddFlags(id, DbFlags::STICKY)]
    );
    let flags = |node: usize| cluster.state(node).database(id).unwrap().flags;
    assert_eq!(flags(0), DbFlags::READONLY | DbFlags::STICKY);
    assert_eq!(flags(1), DbFlags::NONE, "each node is told by itself");
    assert_eq!(cluster.control(0, &ControlRequest::SetDbReadonly(kept)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::SetDbSticky(kept)), refused());
}

#[test]
fn the_sequence_number_is_not_read_under_a_freeze() {
    let mut cluster = Cluster::running(1);
    let id = persistent(&mut cluster, "secrets.tdb");
    let key = b"__db_sequence_number__\0";
    cluster.nodes[0].store.put(id, key, header(1, 0), &9_u64.to_le_bytes());
    let question = ControlRequest::GetDbSeqnum(GetDbSeqnum { db: id });
    assert_eq!(value::<DbSeqnum>(&cluster.control(0, &question)), DbSeqnum(9));
    cluster.control(0, &ControlRequest::DbFreeze(id));
    assert_eq!(cluster.control(0, &question), refused());
    let tid = ringmaster_protocol::Generation(5);
    let start = ringmaster_protocol::database::TransDb { db: id, tid };
    cluster.control(0, &ControlRequest::DbTransactionStart(start));
    assert_eq!(value::<DbSeqnum>(&cluster.control(0, &question)), DbSeqnum(9));
}

#[test]
fn the_health_of_a_database_is_told_and_cleared() {
    let mut cluster = Cluster::running(1);
    let id = persistent(&mut cluster, "secrets.tdb");
    assert_eq!(cluster.control(0, &ControlRequest::DbGetHealth(id)), done());
    cluster.change(0, |state| state.databases[0].unhealthy = Some("torn".into()));
    assert_eq!(cluster.control(0, &ControlRequest::DbGetHealth(id)).data, b"torn\0");
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::DbSetHealthy(id)), done());
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::RecordHealth(id, None)]);
    assert_eq!(cluster.control(0, &ControlRequest::DbGetHealth(id)), done());
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal);
}

#[test]
fn a_database_that_becomes_healthy_at_startup_is_recovered() {
    let mut cluster = Cluster::running(1);
    let id = persistent(&mut cluster, "secrets.tdb");
    cluster.change(0, |state| {
        state.databases[0].unhealthy = Some("torn".into());
        state.run_state = RunState::Startup;
    });
    assert_eq!(cluster.control(0, &ControlRequest::DbSetHealthy(id)), done());
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
}

#[test]
fn statistics_of_a_database_are_the_shards() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &ControlRequest::GetDbStatistics(id)).data.len(), 464);
    assert_eq!(cluster.control(0, &ControlRequest::GetDbStatistics(DbId(1))), refused());
}

#[test]
fn a_detached_database_takes_its_traverses_with_it() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Traverse { .. }));
    cluster.control(0, &super::traverse::start(id));
    cluster.change(0, |state| state.tunables.set(Tunable::AllowClientDBAttach, 0));
    cluster.control(0, &ControlRequest::DbDetach(id));
    assert!(cluster.state(0).traverses.is_empty());
    assert!(cluster.state(0).local_traverses.is_empty());
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
}
