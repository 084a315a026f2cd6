use ringmaster_protocol::{
    Destination, Srvid, control_packet::ControlFlags, process::NotifyData, process::RecMode,
};

use super::*;
use crate::node::{
    controls,
    testing::CLIENT,
    world::{ClientId, Origin, Registration, Request, RequestId},
};

const SRVID: Srvid = Srvid(0xBEEF);

fn send(cluster: &mut Cluster, from: Origin, control: &ControlRequest<'_>) -> ControlAnswer {
    let id = cluster.send_with(0, from, SRVID, ControlFlags::NONE, control);
    cluster.reply(id).expect("answered at once")
}

#[test]
fn registrations_are_made_in_all_shards_before_the_reply() {
    let mut cluster = Cluster::running(1);
    let mine = Origin::Client(CLIENT);
    let cases = [
        (ControlRequest::RegisterSrvid, Registration::Srvid(SRVID, CLIENT)),
        (ControlRequest::DeregisterSrvid, Registration::NoSrvid(SRVID, CLIENT)),
        (ControlRequest::TunnelRegister, Registration::Tunnel(SRVID.0, CLIENT)),
        (ControlRequest::TunnelDeregister, Registration::NoTunnel(SRVID.0, CLIENT)),
    ];
    for (control, registration) in cases {
        assert_eq!(send(&mut cluster, mine, &control), done());
        assert_eq!(data_asks(&cluster.took(0)), [DataAsk::Register(registration)]);
    }
}

#[test]
fn a_registration_that_the_shards_refuse_fails_and_a_missing_one_is_enoent() {
    let mut cluster = Cluster::running(1);
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::Register(_)));
    let mine = Origin::Client(CLIENT);
    assert_eq!(send(&mut cluster, mine, &ControlRequest::TunnelRegister), refused());
    assert_eq!(send(&mut cluster, mine, &ControlRequest::DeregisterSrvid).status, 2);
}

#[test]
fn only_clients_of_this_node_register() {
    let mut cluster = Cluster::running(1);
    for from in [Origin::Client(ClientId(99)), Origin::Node(pnn(0), 7), Origin::Own] {
        assert_eq!(send(&mut cluster, from, &ControlRequest::RegisterSrvid), refused());
    }
    assert_eq!(data_asks(&cluster.took(0)), []);
}

#[test]
fn a_notification_is_sent_when_its_client_goes() {
    let mut cluster = Cluster::running(2);
    let notify = NotifyData { srvid: SRVID, data: b"gone" };
    assert_eq!(cluster.control(0, &ControlRequest::RegisterNotify(notify)), done());
    assert_eq!(cluster.control(0, &ControlRequest::RegisterNotify(notify)), refused());
    cluster.took(0);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    let message =
        Tell::Message { to: Destination::BroadcastConnected, srvid: SRVID, data: b"gone".to_vec() };
    assert_eq!(cluster.took(0), [Did::Tell(message)]);
}

#[test]
fn a_notification_that_was_taken_back_is_not_sent() {
    let mut cluster = Cluster::running(1);
    let notify = NotifyData { srvid: SRVID, data: b"gone" };
    cluster.control(0, &ControlRequest::RegisterNotify(notify));
    assert_eq!(cluster.control(0, &ControlRequest::DeregisterNotify(SRVID)), done());
    assert_eq!(cluster.control(0, &ControlRequest::DeregisterNotify(SRVID)), refused());
    cluster.took(0);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert_eq!(cluster.took(0), []);
}

#[test]
fn a_client_that_goes_in_a_persistent_update_starts_a_recovery() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ControlRequest::StartPersistentUpdate);
    cluster.control(0, &ControlRequest::StartPersistentUpdate);
    cluster.control(0, &ControlRequest::CancelPersistentUpdate);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
}

#[test]
fn balanced_persistent_updates_start_nothing() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ControlRequest::StartPersistentUpdate);
    cluster.control(0, &ControlRequest::CancelPersistentUpdate);
    cluster.control(0, &ControlRequest::CancelPersistentUpdate);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal);
}

#[test]
fn malformed_obsolete_and_unknown_controls_get_minus_one_and_noreply_nothing() {
    let mut cluster = Cluster::running(1);
    let request = |id, opcode, flags, data: &[u8]| Request {
        id: RequestId(id),
        from: Origin::Client(CLIENT),
        opcode,
        srvid: Srvid(0),
        flags,
        generation: None,
        data: data.to_vec(),
    };
    let none = ControlFlags::NONE;
    let cases = [
        request(1_000, ControlOpcode::SET_DEBUG, none, b"123"),
        request(1_001, ControlOpcode::THAW, none, b""),
        request(1_002, ControlOpcode(9_999), none, b""),
        request(1_003, ControlOpcode::SETVNNMAP, none, b"\0"),
    ];
    for case in cases {
        let reply = Did::Tell(Tell::Reply { request: case.id, answer: refused() });
        cluster.event(0, |cx| controls::request(cx, case));
        assert_eq!(cluster.took(0), [reply]);
    }
    let silent = request(1_004, ControlOpcode::THAW, ControlFlags::NOREPLY, b"");
    cluster.event(0, |cx| controls::request(cx, silent));
    assert_eq!(cluster.took(0), []);
}

#[test]
fn controls_under_way_are_counted_and_too_many_refused() {
    let mut cluster = Cluster::running(1);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Register(_)));
    cluster.send(0, &ControlRequest::RegisterSrvid);
    assert_eq!(cluster.state(0).requests, 1);
    cluster.change(0, |state| state.requests += 99_999);
    assert_eq!(cluster.control(0, &ControlRequest::RecdPing), refused());
    assert_eq!(cluster.control(0, &ControlRequest::GetPnn), done(), "takes no place");
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.control(0, &ControlRequest::RecdPing), done());
    assert_eq!(cluster.state(0).requests, 99_999);
}
