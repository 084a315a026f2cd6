use ringmaster_protocol::{
    Srvid, control_packet::ControlFlags, database::DbFlags, process::RecMode, process::RunState,
    tunable::Tunable,
};

use super::*;
use crate::node::{
    controls,
    testing::{CLIENT, GENERATION},
    world::Origin,
};

fn attach(name: &str) -> ControlRequest<'_> {
    ControlRequest::DbAttach(Text::new(name))
}

fn attached_flags(cluster: &Cluster, node: usize) -> Vec<DbFlags> {
    cluster.state(node).databases.iter().map(|db| db.flags).collect()
}

#[test]
fn an_attach_opens_the_file_and_tells_the_others_who_tell_nobody_what_is_known() {
    let mut cluster = Cluster::running(3);
    let id: DbId = value(&cluster.control(0, &attach("locking.tdb")));
    assert_eq!(id, DbId::from_name("locking.tdb"));
    let did = cluster.took(0);
    assert_eq!(
        data_asks(&did),
        [
            DataAsk::Attach { name: "locking.tdb".into(), flags: DbFlags::NONE, frozen: false },
            DataAsk::SetGeneration(id, GENERATION),
        ]
    );
    assert_eq!(sent(&did, ControlOpcode::DB_ATTACH), [1, 2]);
    for node in 0..3 {
        assert_eq!(cluster.state(node).databases[0].name, "locking.tdb");
        assert_eq!(cluster.state(node).databases[0].generation, GENERATION);
    }
    cluster.took(0);
    assert_eq!(value::<DbId>(&cluster.control(0, &attach("locking.tdb"))), id);
    assert_eq!(cluster.took(0).len(), 1, "only the reply");
}

#[test]
fn each_kind_is_announced_as_what_it_is() {
    let mut cluster = Cluster::running(2);
    persistent(&mut cluster, "secrets.tdb");
    cluster.control(0, &ControlRequest::DbAttachReplicated(Text::new("replicated.tdb")));
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::DB_ATTACH_PERSISTENT), [1]);
    assert_eq!(sent(&did, ControlOpcode::DB_ATTACH_REPLICATED), [1]);
    assert_eq!(attached_flags(&cluster, 1), [DbFlags::REPLICATED, DbFlags::PERSISTENT]);
}

#[test]
fn a_persistent_database_may_be_attached_as_volatile_but_not_the_other_way_round() {
    let mut cluster = Cluster::running(1);
    let id = persistent(&mut cluster, "secrets.tdb");
    assert_eq!(value::<DbId>(&cluster.control(0, &attach("secrets.tdb"))), id);
    volatile(&mut cluster, "locking.tdb");
    let wrong = ControlRequest::DbAttachPersistent(Text::new("locking.tdb"));
    assert_eq!(cluster.control(0, &wrong), refused());
}

#[test]
fn nobody_attaches_when_client_attaches_are_switched_off() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.tunables.set(Tunable::AllowClientDBAttach, 0));
    assert_eq!(cluster.control(0, &attach("locking.tdb")), refused());
    let remote = Origin::Node(pnn(0), 0);
    assert_eq!(cluster.control_from(0, remote, &attach("locking.tdb")), refused());
}

#[test]
fn an_attach_during_a_recovery_is_answered_a_second_after_its_end() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    let id = cluster.send(0, &attach("locking.tdb"));
    cluster.advance_ms(5_000);
    assert_eq!(cluster.reply(id), None);
    assert_eq!(cluster.control(0, &ControlRequest::SetRecMode(RecMode::Normal)), done());
    cluster.advance_ms(999);
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(1);
    assert_eq!(cluster.reply(id).map(|answer| answer.status), Some(0));
}

#[test]
fn an_attach_that_is_retried_in_another_recovery_waits_again() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    let id = cluster.send(0, &attach("locking.tdb"));
    cluster.control(0, &ControlRequest::SetRecMode(RecMode::Normal));
    cluster.control(0, &ControlRequest::SetRecMode(RecMode::Active));
    cluster.advance_ms(2_000);
    assert_eq!(cluster.reply(id), None);
    cluster.control(0, &ControlRequest::SetRecMode(RecMode::Normal));
    cluster.advance_ms(1_000);
    assert_eq!(cluster.reply(id).map(|answer| answer.status), Some(0));
}

#[test]
fn a_deferred_attach_fails_after_its_time() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    let id = cluster.send(0, &attach("locking.tdb"));
    cluster.advance_ms(119_999);
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(1);
    assert_eq!(cluster.reply(id), Some(refused()));
}

#[test]
fn a_deferred_attach_ends_with_its_client() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    cluster.send(0, &attach("locking.tdb"));
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    cluster.control_from(0, Origin::Own, &ControlRequest::SetRecMode(RecMode::Normal));
    cluster.advance_ms(2_000);
    assert!(cluster.state(0).databases.is_empty());
}

#[test]
fn before_startup_clients_wait_and_other_nodes_do_not() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.run_state = RunState::FirstRecovery);
    let id = cluster.send(0, &attach("locking.tdb"));
    assert_eq!(cluster.reply(id), None);
    let remote = Origin::Node(pnn(0), 0);
    assert_eq!(cluster.control_from(0, remote, &attach("remote.tdb")).status, 0);
}

#[test]
fn the_recovery_flag_lets_a_client_attach_in_a_recovery_and_only_then() {
    let mut cluster = Cluster::running(1);
    let flags = ControlFlags::ATTACH_RECOVERY;
    let from = Origin::Client(CLIENT);
    let id = cluster.send_with(0, from, Srvid(0), flags, &attach("locking.tdb"));
    assert_eq!(cluster.reply(id), Some(refused()));
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    let id = cluster.send_with(0, from, Srvid(0), flags, &attach("locking.tdb"));
    assert_eq!(cluster.reply(id).map(|answer| answer.status), Some(0));
}

/// The second one asked a shard for the path before the shards knew the database.
#[test]
fn a_second_attach_is_answered_when_the_shards_show_the_database() {
    let mut cluster = Cluster::running(1);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Publish));
    let first = cluster.send(0, &attach("locking.tdb"));
    let second = cluster.send(0, &attach("locking.tdb"));
    assert!(cluster.reply(first).is_none() && cluster.reply(second).is_none());
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(first).map(|answer| answer.status), Some(0));
    assert_eq!(cluster.reply(second).map(|answer| answer.status), Some(0));
}

#[test]
fn two_clients_that_attach_one_name_open_it_once() {
    let mut cluster = Cluster::running(1);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Attach { .. }));
    let first = cluster.send(0, &attach("locking.tdb"));
    let second = cluster.send(0, &attach("locking.tdb"));
    let outcome = Outcome::Attached {
        path: "/db/locking.tdb.0".into(),
        open_flags: ringmaster_protocol::database::TdbOpenFlags::NOSYNC,
    };
    assert_eq!(cluster.release(0, &outcome), 1);
    assert_eq!(cluster.reply(first), cluster.reply(second));
    assert_eq!(cluster.state(0).databases.len(), 1);
}

#[test]
fn a_second_client_does_not_hear_of_a_database_before_the_shards_do() {
    let mut cluster = Cluster::running(1);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::SetGeneration(..)));
    let first = cluster.send(0, &attach("locking.tdb"));
    let second = cluster.send(0, &attach("locking.tdb"));
    assert_eq!((cluster.reply(first), cluster.reply(second)), (None, None));
    assert_eq!(cluster.release(0, &Outcome::Done), 1);
    let answer = cluster.reply(first);
    assert_eq!(answer.as_ref().map(|answer| answer.status), Some(0));
    assert_eq!(cluster.reply(second), answer);
}

#[test]
fn a_file_that_cannot_be_opened_is_no_database() {
    let mut cluster = Cluster::running(2);
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::Attach { .. }));
    assert_eq!(cluster.control(0, &attach("locking.tdb")), refused());
    assert!(cluster.state(0).databases.is_empty());
    assert_eq!(sent(&cluster.took(0), ControlOpcode::DB_ATTACH), [0_u32; 0]);
}

#[test]
fn clients_of_an_inactive_node_are_refused() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ControlRequest::StopNode);
    assert_eq!(cluster.control(0, &attach("locking.tdb")), refused());
}
