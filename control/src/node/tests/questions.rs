//! Every control that another node may send: what it is answered in service, in recovery and by a
//! stopped node, beside what C's 4.17 has answered (`tools/compat/tests/follower.rs` asks both).

use ringmaster_protocol::{
    DbId, Generation, Reqid, Rsn, Srvid,
    address::SockAddr,
    connection::{
        AddressInfo, Connection, Interface, InterfaceName, LinkState, PublicIp, TickleList,
    },
    control::{ControlOpcode, ControlRequest, ControlStatus},
    database::{DbVacuum, GetDbSeqnum, PullDb, TransDb, VnnMap},
    node::{BanState, NodeFlagChange, NodeFlags},
    process::{DebugLevel, EchoData, NotifyData, RecMode, ReclockLatency, Role},
    record::{RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader},
    text::Text,
    traverse::{TraverseAll, TraverseAllExt, TraverseStart, TraverseStartExt},
    tunable::{TunableName, TunableSetting},
    wire::Decode,
};

use crate::node::{
    testing::{Cluster, pnn},
    world::Origin,
};

const OURS: usize = 1;

/// In service, in recovery, stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Statuses(i32, i32, i32);

/// The same in every condition.
const fn always(status: i32) -> Statuses {
    Statuses(status, status, status)
}

const DONE: Statuses = always(0);
const REFUSED: Statuses = always(-1);

type Cases = Vec<(ControlRequest<'static>, Statuses)>;

fn volatile() -> DbId {
    DbId::from_name("v")
}

fn databases() -> [DbId; 3] {
    ["v", "p", "r"].map(DbId::from_name)
}

fn other(opcode: ControlOpcode, data: &'static [u8]) -> ControlRequest<'static> {
    ControlRequest::Other { opcode, data }
}

fn about_the_node() -> Cases {
    let name = |text| TunableName(Text::new(text));
    let set = |text| ControlRequest::SetTunable(TunableSetting { value: 30, name: name(text) });
    vec![
        (ControlRequest::Statistics, DONE),
        (ControlRequest::GetVnnMap, DONE),
        (ControlRequest::GetDebug, DONE),
        (ControlRequest::SetDebug(DebugLevel(5)), DONE),
        (ControlRequest::GetDbMap, DONE),
        (ControlRequest::GetRecMode, Statuses(0, 1, 1)),
        (ControlRequest::GetPnn, always(1)),
        (ControlRequest::GetPid, always(4_001)),
        (ControlRequest::DumpMemory, DONE),
        (ControlRequest::ListTunables, DONE),
        (ControlRequest::GetAllTunables, DONE),
        (ControlRequest::GetNodeMap, DONE),
        (ControlRequest::GetNodesFile, DONE),
        (ControlRequest::GetReclockFile, DONE),
        (ControlRequest::GetBanState, DONE),
        (ControlRequest::GetStatHistory, DONE),
        (ControlRequest::StatisticsReset, DONE),
        (ControlRequest::Uptime, DONE),
        (ControlRequest::GetRunState, DONE),
        (ControlRequest::GetCapabilities, DONE),
        (ControlRequest::RecdPing, DONE),
        (ControlRequest::RecdReclockLatency(ReclockLatency(0.25)), DONE),
        (ControlRequest::Startup, DONE),
        (ControlRequest::GetTunable(name("recovertimeout")), DONE),
        (ControlRequest::GetTunable(name("NoSuchTunable")), always(-22)),
        (set("RecoverTimeout"), DONE),
        (set("VacuumLimit"), always(1)),
        (set("NoSuchTunable"), REFUSED),
        (ControlRequest::EchoData(EchoData { timeout: 0, data: b"echo" }), DONE),
        (other(ControlOpcode::SET_DEBUG, b""), REFUSED),
        (other(ControlOpcode::GET_DEBUG, b"1"), REFUSED),
        (other(ControlOpcode::SETVNNMAP, b"1234567"), REFUSED),
    ]
}

/// What only a client of the node itself may ask.
fn strangers() -> Cases {
    let (db, srvid, reqid) = (volatile(), Srvid(0xCE01), Reqid(9));
    let wanted = TraverseStart { db, reqid, srvid };
    vec![
        (ControlRequest::RegisterSrvid, REFUSED),
        (ControlRequest::DeregisterSrvid, REFUSED),
        (ControlRequest::TunnelRegister, REFUSED),
        (ControlRequest::TunnelDeregister, REFUSED),
        (ControlRequest::RegisterNotify(NotifyData { srvid, data: b"gone" }), REFUSED),
        (ControlRequest::DeregisterNotify(srvid), REFUSED),
        (ControlRequest::StartPersistentUpdate, REFUSED),
        (ControlRequest::CancelPersistentUpdate, REFUSED),
        (ControlRequest::TraverseStart(wanted), REFUSED),
        (
            ControlRequest::TraverseStartExt(TraverseStartExt {
                db,
                reqid,
                srvid,
                with_empty_records: true,
            }),
            REFUSED,
        ),
        (ControlRequest::TraverseKill(wanted), DONE),
        (ControlRequest::TraverseData(RecData { reqid: 77, key: b"key", data: b"" }), REFUSED),
    ]
}

fn addresses() -> Cases {
    let addr = SockAddr::parse_ip("10.66.66.66").unwrap();
    let connection = Connection { src: addr, dst: addr };
    let ip = |node: usize| PublicIp { pnn: Some(pnn(node)), addr };
    let name = InterfaceName::new("nosuch").unwrap();
    let iface = Interface { name, link_state: LinkState::Up, references: 0 };
    let info = AddressInfo { addr, mask: 24, interfaces: Some(Text::new("nosuch")) };
    vec![
        (ControlRequest::GetPublicIps, DONE),
        (ControlRequest::GetIfaces, DONE),
        (ControlRequest::TcpAdd(connection), DONE),
        (ControlRequest::TcpAddDelayedUpdate(connection), DONE),
        (ControlRequest::TcpRemove(connection), DONE),
        (ControlRequest::GetTcpTickleList(addr), always(1)),
        (ControlRequest::SetTcpTickleList(TickleList { addr, connections: Vec::new() }), always(1)),
        (ControlRequest::ReleaseIp(PublicIp { pnn: None, addr }), DONE),
        (ControlRequest::TakeoverIp(ip(OURS)), DONE),
        (ControlRequest::TakeoverIp(ip(0)), REFUSED),
        (ControlRequest::GetPublicIpInfo(addr), REFUSED),
        (ControlRequest::SetIfaceLinkState(iface), REFUSED),
        (ControlRequest::AddPublicIp(info), REFUSED),
        (ControlRequest::DelPublicIp(info), REFUSED),
        (ControlRequest::ReloadPublicIps, DONE),
        (ControlRequest::StartIpreallocate, DONE),
        (ControlRequest::Ipreallocated, DONE),
    ]
}

fn flags() -> Cases {
    let change = |node: usize| NodeFlagChange {
        pnn: pnn(node),
        new_flags: NodeFlags::NONE,
        old_flags: NodeFlags::NONE,
    };
    vec![
        (ControlRequest::SetBanState(BanState { pnn: pnn(0), seconds: 9 }), REFUSED),
        (ControlRequest::DisableNode, DONE),
        (ControlRequest::EnableNode, DONE),
        (ControlRequest::SetLmasterRole(Role::On), DONE),
        (ControlRequest::SetRecmasterRole(Role::Off), DONE),
        (ControlRequest::ModifyFlags(change(OURS)), DONE),
        (ControlRequest::ModifyFlags(change(0)), DONE),
        (ControlRequest::ModifyFlags(change(77)), REFUSED),
    ]
}

fn records(db: DbId) -> RecBuffer<'static> {
    let mut buffer = RecBufferBuilder::new(db);
    let header = RecordHeader { rsn: Rsn(1), dmaster: pnn(0).into(), flags: RecordFlags::NONE };
    buffer.push_with_header(0, b"key", &header, b"value");
    RecBuffer::from_bytes(buffer.into_bytes().leak()).unwrap()
}

fn about_a_database(db: DbId) -> Cases {
    let only_volatile = if db == volatile() { DONE } else { REFUSED };
    let (reqid, client_reqid, srvid) = (Reqid(3), Reqid(4), Srvid(5));
    let to = pnn(0);
    let all = TraverseAll { db, reqid, pnn: to, client_reqid, srvid };
    let all_ext =
        TraverseAllExt { db, reqid, pnn: to, client_reqid, srvid, with_empty_records: true };
    vec![
        (ControlRequest::GetDbPath(db), DONE),
        (ControlRequest::GetDbName(db), DONE),
        (ControlRequest::DbOpenFlags(db), DONE),
        (ControlRequest::DbGetHealth(db), DONE),
        (ControlRequest::DbSetHealthy(db), DONE),
        (ControlRequest::GetDbStatistics(db), DONE),
        (ControlRequest::GetDbSeqnum(GetDbSeqnum { db }), Statuses(0, 0, -1)),
        (ControlRequest::EnableSeqnum(db), DONE),
        (ControlRequest::UpdateSeqnum(db), DONE),
        (ControlRequest::SetDbReadonly(db), only_volatile),
        (ControlRequest::SetDbSticky(db), only_volatile),
        (ControlRequest::DbDetach(db), REFUSED),
        (ControlRequest::UpdateRecord(records(db)), Statuses(0, -1, -1)),
        (ControlRequest::Trans3Commit(records(db)), REFUSED),
        (ControlRequest::TraverseAll(all), DONE),
        (ControlRequest::TraverseAllExt(all_ext), DONE),
    ]
}

/// As C, but that a stopped node changes nothing.
fn recovery_of(db: DbId) -> Cases {
    let tid = Generation(0x7777_7777);
    let (trans, wrong) = (TransDb { db, tid }, TransDb { db, tid: Generation(8) });
    let stream = PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid: Srvid::recovery(7) };
    let seqnum = ControlRequest::GetDbSeqnum(GetDbSeqnum { db });
    // C: 0.
    let not_when_stopped = Statuses(0, 0, -1);
    // A stopped node is frozen.
    let when_frozen = Statuses(-1, -1, 0);
    vec![
        (ControlRequest::DbTransactionStart(trans), REFUSED),
        (ControlRequest::WipeDatabase(trans), REFUSED),
        (ControlRequest::DbPull(stream), when_frozen),
        (ControlRequest::DbPushStart(stream), when_frozen),
        (ControlRequest::DbPushConfirm(db), when_frozen),
        (ControlRequest::DbTransactionCommit(trans), REFUSED),
        (ControlRequest::DbTransactionCancel(db), DONE),
        (ControlRequest::DbFreeze(db), DONE),
        (ControlRequest::DbFreeze(db), DONE),
        (seqnum.clone(), REFUSED),
        (ControlRequest::DbTransactionCommit(trans), REFUSED),
        (ControlRequest::WipeDatabase(trans), REFUSED),
        (ControlRequest::DbPushConfirm(db), REFUSED),
        (ControlRequest::DbTransactionCancel(db), DONE),
        (ControlRequest::DbTransactionStart(trans), not_when_stopped),
        (ControlRequest::DbTransactionStart(trans), not_when_stopped),
        (seqnum, not_when_stopped),
        (ControlRequest::WipeDatabase(wrong), REFUSED),
        (ControlRequest::DbTransactionCommit(wrong), REFUSED),
        (ControlRequest::DbPull(stream), DONE),
        (ControlRequest::DbPushConfirm(db), REFUSED),
        (ControlRequest::DbPushStart(stream), DONE),
        (ControlRequest::DbPushStart(stream), DONE),
        (ControlRequest::DbPushConfirm(db), DONE),
        (ControlRequest::DbPushConfirm(db), REFUSED),
        (ControlRequest::DbTransactionCancel(db), DONE),
        (ControlRequest::DbTransactionCancel(db), DONE),
        (ControlRequest::DbThaw(db), not_when_stopped),
        (ControlRequest::DbThaw(db), not_when_stopped),
    ]
}

/// Nothing that names a database is done for one that nobody has.
fn unknown() -> Cases {
    let db = DbId(0xBAD);
    let trans = TransDb { db, tid: Generation(8) };
    let stream = PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid: Srvid::recovery(7) };
    let all =
        TraverseAll { db, reqid: Reqid(1), pnn: pnn(0), client_reqid: Reqid(1), srvid: Srvid(1) };
    let controls = [
        ControlRequest::GetDbPath(db),
        ControlRequest::GetDbName(db),
        ControlRequest::DbOpenFlags(db),
        ControlRequest::DbGetHealth(db),
        ControlRequest::DbSetHealthy(db),
        ControlRequest::GetDbStatistics(db),
        ControlRequest::GetDbSeqnum(GetDbSeqnum { db }),
        ControlRequest::EnableSeqnum(db),
        ControlRequest::UpdateSeqnum(db),
        ControlRequest::SetDbReadonly(db),
        ControlRequest::SetDbSticky(db),
        ControlRequest::DbDetach(db),
        ControlRequest::UpdateRecord(records(db)),
        ControlRequest::Trans3Commit(records(db)),
        ControlRequest::TraverseAll(all),
        ControlRequest::DbFreeze(db),
        ControlRequest::DbThaw(db),
        ControlRequest::DbTransactionStart(trans),
        ControlRequest::DbTransactionCommit(trans),
        ControlRequest::DbTransactionCancel(db),
        ControlRequest::WipeDatabase(trans),
        ControlRequest::DbPull(stream),
        ControlRequest::DbPushStart(stream),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbVacuum(DbVacuum { db, full_vacuum_run: false }),
    ];
    controls.into_iter().map(|control| (control, REFUSED)).collect()
}

fn attaching() -> Cases {
    let mut cases = Vec::new();
    for (name, kinds) in [
        // A volatile database is nothing more; any other one may be asked for as volatile.
        ("v", [DONE, REFUSED, REFUSED]),
        ("p", [DONE, DONE, REFUSED]),
        ("r", [DONE, REFUSED, DONE]),
        ("new", [DONE, REFUSED, REFUSED]),
    ] {
        let name = Text::new(name);
        let [plain, persistent, replicated] = kinds;
        cases.push((ControlRequest::DbAttach(name), plain));
        cases.push((ControlRequest::DbAttachPersistent(name), persistent));
        cases.push((ControlRequest::DbAttachReplicated(name), replicated));
    }
    cases
}

fn nobody_does_these() -> Cases {
    let numbers = (0..=200).chain([1_000, u32::MAX]).map(ControlOpcode);
    let dead = numbers.filter(|opcode| {
        opcode.info().is_none_or(|info| {
            !matches!(info.status, ControlStatus::Live | ControlStatus::MasterOnly)
        })
    });
    dead.map(|opcode| (other(opcode, b""), REFUSED)).collect()
}

fn all() -> Cases {
    let mut cases =
        [about_the_node(), strangers(), addresses(), flags(), unknown(), nobody_does_these()]
            .concat();
    for db in databases() {
        cases.extend(about_a_database(db));
        cases.extend(recovery_of(db));
    }
    cases.extend(attaching());
    cases
}

fn ask_all(cluster: &mut Cluster, which: fn(Statuses) -> i32) {
    let elsewhere = Origin::Node(pnn(0), 9);
    for (control, statuses) in all() {
        let id = cluster.send_from(OURS, elsewhere, &control);
        let answer = cluster.reply(id).unwrap_or_else(|| panic!("no answer to {control:?}"));
        assert_eq!(answer.status, which(statuses), "{control:?}");
        assert_eq!(answer.error, "", "{control:?}");
    }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::running(2);
    for control in [
        ControlRequest::DbAttach(Text::new("v")),
        ControlRequest::DbAttachPersistent(Text::new("p")),
        ControlRequest::DbAttachReplicated(Text::new("r")),
    ] {
        assert_eq!(cluster.control(OURS, &control).status, 0);
    }
    cluster
}

#[test]
fn a_node_in_service_answers_another_as_c_does() {
    ask_all(&mut cluster(), |statuses| statuses.0);
}

#[test]
fn a_node_in_recovery_answers_another_as_c_does() {
    let mut cluster = cluster();
    let active = ControlRequest::SetRecMode(RecMode::Active);
    assert_eq!(cluster.control_from(OURS, Origin::Node(pnn(0), 9), &active).status, 0);
    ask_all(&mut cluster, |statuses| statuses.1);
}

#[test]
fn a_stopped_node_answers_another_as_c_does_but_changes_nothing() {
    let mut cluster = cluster();
    assert_eq!(cluster.control(OURS, &ControlRequest::StopNode).status, 0);
    ask_all(&mut cluster, |statuses| statuses.2);
    let state = cluster.state(OURS);
    assert_eq!(state.own_flags(), NodeFlags::STOPPED);
    assert_eq!(state.vnn_map.generation, Generation::INVALID);
    let map = VnnMap { generation: Generation(9), map: vec![pnn(0)] };
    drop(state);
    let elsewhere = Origin::Node(pnn(0), 9);
    assert_eq!(cluster.control_from(OURS, elsewhere, &ControlRequest::SetVnnMap(map)).status, -1);
}
