//! The payload of every captured control and message of the specification's chapter 9 decodes to
//! what its text says and encodes to the very same bytes.

#[path = "support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringmaster_protocol::connection::{InterfaceName, LinkState};
use ringmaster_protocol::control::payloads::*;
use ringmaster_protocol::control::{ControlOpcode, ControlReply, ControlRequest, ReplyError};
use ringmaster_protocol::control_packet::ReplyControl;
use ringmaster_protocol::database::{DbFlags, DbIdEntry};
use ringmaster_protocol::node::{NodeAndFlags, NodeFlags};
use ringmaster_protocol::process::{
    DisableMessage, ElectionMessage, GLock, GLockList, GLockType, ServerId, Timeval,
};
use ringmaster_protocol::tunable::{TUNABLES, Tunable};
use ringmaster_protocol::{Decode, Encode, Generation, Packet, Reqid};
use support::corpus::{Example, example, examples};

const WIRETEST: DbId = DbId(0x802c_17a4);
const PERSIST: DbId = DbId(0x1a2e_2e2b);
const G_LOCK: DbId = DbId(0x4d2a_432b);
const NEW_GENERATION: Generation = Generation(0x5452_26d5);

fn pnn(raw: u32) -> Pnn {
    Pnn::new(raw).expect("a node number")
}

fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> SockAddr {
    SockAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
}

fn fd00_99_1() -> SockAddr {
    SockAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1)), 0)
}

fn time(seconds: i64, micros: i64) -> Timeval {
    Timeval { seconds: 0x6aff_b200 + seconds, micros }
}

fn connection() -> Connection {
    Connection { src: v4(10, 99, 0, 77, 50000), dst: v4(10, 99, 0, 1, 445) }
}

fn loopback() -> Interface {
    let name = InterfaceName::new("lo").expect("short");
    Interface { name, link_state: LinkState::Up, references: 2 }
}

fn statistics() -> Statistics {
    let mut statistics = Statistics {
        num_clients: 2,
        client_packets_sent: 0x158,
        client_packets_recv: 0x158,
        node_packets_sent: 0x29b,
        memory_used: 0x1_33e1,
        num_recoveries: 1,
        statistics_start_time: time(0x29, 0xf_1490),
        statistics_current_time: time(0x43, 0xc_c14a),
        ..Statistics::default()
    };
    statistics.node.req_message = 25;
    statistics.node.req_control = 0x142;
    statistics.node.reply_control = 0x140;
    statistics.client.req_message = 24;
    statistics.client.req_control = 0x140;
    statistics
}

/// What the captured requests say; `raw` is the payload, for buffers that borrow from it.
fn request<'a>(section: &str, title: &str, raw: &'a [u8]) -> ControlRequest<'a> {
    let buffer = || RecBuffer::from_bytes(raw).expect("its records have tests of their own");
    match (section, title.split(' ').next().unwrap_or_default()) {
        ("9.1" | "9.2", "Request") => ControlRequest::GetPnn,
        ("9.2", "Second") | ("9.13", "REGISTER_SRVID") => ControlRequest::RegisterSrvid,
        ("9.7", "Request") | ("9.23", "DB_ATTACH") => {
            ControlRequest::DbAttach(Text::new("wiretest.tdb"))
        }
        ("9.11", "GET_TUNABLE") => {
            ControlRequest::GetTunable(TunableName(Text::new("ControlTimeout")))
        }
        ("9.11", "SET_TUNABLE") => {
            let name = TunableName(Text::new("ControlTimeout"));
            ControlRequest::SetTunable(TunableSetting { value: 60, name })
        }
        ("9.14", "PROCESS_EXISTS") => ControlRequest::ProcessExists(Pid(18485)),
        ("9.14", "CHECK_PID_SRVID") => {
            ControlRequest::CheckPidSrvid(PidSrvid { pid: Pid(18485), srvid: Srvid(0x4835) })
        }
        ("9.15", "GET_DB_SEQNUM") => ControlRequest::GetDbSeqnum(GetDbSeqnum { db: WIRETEST }),
        ("9.15", "DB_VACUUM") => {
            ControlRequest::DbVacuum(DbVacuum { db: WIRETEST, full_vacuum_run: false })
        }
        ("9.17", "TRANS3_COMMIT") => ControlRequest::Trans3Commit(buffer()),
        ("9.17", "SCHEDULE_FOR_DELETION") => {
            ControlRequest::ScheduleForDeletion(KeyData::from_bytes(raw).expect("tested elsewhere"))
        }
        ("9.19", "SETVNNMAP") => ControlRequest::SetVnnMap(VnnMap {
            generation: Generation(0x380b_f473),
            map: vec![pnn(0), pnn(1)],
        }),
        ("9.19", "MODIFY_FLAGS") => ControlRequest::ModifyFlags(NodeFlagChange {
            pnn: pnn(0),
            new_flags: NodeFlags::UNHEALTHY,
            old_flags: NodeFlags::UNHEALTHY,
        }),
        ("9.19", "DB_TRANSACTION_START") => {
            ControlRequest::DbTransactionStart(TransDb { db: PERSIST, tid: NEW_GENERATION })
        }
        ("9.19", "DB_PULL") => ControlRequest::DbPull(PullDb {
            db: PERSIST,
            lmaster: PullDb::LMASTER_ANY,
            srvid: Srvid(0xf001_0000_0000_0001),
        }),
        ("9.19", "DB_PUSH_START") => ControlRequest::DbPushStart(PullDb {
            db: PERSIST,
            lmaster: 0x5621,
            srvid: Srvid(0xf001_0000_0000_0002),
        }),
        ("9.21", "UPDATE_RECORD") => ControlRequest::UpdateRecord(buffer()),
        ("9.22", "TRAVERSE_START") => ControlRequest::TraverseStart(TraverseStart {
            db: WIRETEST,
            reqid: Reqid(0),
            srvid: Srvid(0xbe00_0000_0000_4c2c),
        }),
        ("9.22", "TRAVERSE_ALL") => ControlRequest::TraverseAll(TraverseAll {
            db: WIRETEST,
            reqid: Reqid(0xc9),
            pnn: pnn(0),
            client_reqid: Reqid(0),
            srvid: Srvid(0xbe00_0000_0000_4c2c),
        }),
        ("9.22", "TRAVERSE_DATA") => {
            ControlRequest::TraverseData(RecData::from_bytes(raw).expect("tested elsewhere"))
        }
        ("9.23", "STARTUP") => ControlRequest::Startup,
        ("9.25", "TCP_CLIENT") => ControlRequest::TcpClient(connection()),
        ("9.25", "TAKEOVER_IP") => {
            ControlRequest::TakeoverIp(PublicIp { pnn: Some(pnn(0)), addr: fd00_99_1() })
        }
        ("9.26", "REGISTER_NOTIFY") => ControlRequest::RegisterNotify(NotifyData {
            srvid: Srvid(0xce01_0000_0000_0077),
            data: b"bye",
        }),
        ("9.28", "PUSH_RECORD") => {
            ControlRequest::PushRecord(PushRecord::from_bytes(raw).expect("tested elsewhere"))
        }
        ("9.28", "START_IPREALLOCATE") => ControlRequest::StartIpreallocate,
        ("9.28", "VACUUM_FETCH") => ControlRequest::VacuumFetch(buffer()),
        ("9.28", "TRY_DELETE_RECORDS") => ControlRequest::TryDeleteRecords(buffer()),
        _ => panic!("{section} {title}: a captured request without expectation"),
    }
}

/// What the captured replies say. Replies do not name their control, the captions do.
fn reply(section: &str, title: &str) -> ControlReply<'static> {
    match (section, title.split(' ').next().unwrap_or_default()) {
        ("9.1", "Reply") => ControlReply::GetPnn(InStatus(pnn(0))),
        ("9.3", "GET_PID") => ControlReply::GetPid(InStatus(Pid(29405))),
        ("9.3", "PING") => ControlReply::Ping(InStatus(ClientCount(2))),
        ("9.4", "Reply") => ControlReply::GetVnnMap(VnnMap {
            generation: Generation(0x5e82_284e),
            map: vec![pnn(0)],
        }),
        ("9.5", "Reply") => ControlReply::GetNodeMap(NodeMap(vec![NodeAndFlags {
            pnn: pnn(0),
            flags: NodeFlags::NONE,
            addr: v4(127, 0, 0, 1, 4379),
        }])),
        ("9.6", "Reply") => ControlReply::Uptime(Uptime {
            current_time: time(0x43, 0xc_beec),
            ctdbd_start_time: time(0x29, 0xf_1277),
            last_recovery_started: time(0x2f, 0x9_0946),
            last_recovery_finished: time(0x2f, 0x9_1a47),
        }),
        ("9.7", "Reply") => ControlReply::DbAttach(WIRETEST),
        ("9.8", "GET_DBNAME") => ControlReply::GetDbName(Text::new("wiretest.tdb")),
        ("9.8", "DB_OPEN_FLAGS") => ControlReply::DbOpenFlags(
            TdbOpenFlags::CLEAR_IF_FIRST
                | TdbOpenFlags::NOSYNC
                | TdbOpenFlags::DISALLOW_NESTING
                | TdbOpenFlags::INCOMPATIBLE_HASH
                | TdbOpenFlags::MUTEX_LOCKING,
        ),
        ("9.8", "GET_DBMAP") => ControlReply::GetDbMap(DbIdMap(vec![
            DbIdEntry { db: G_LOCK, flags: DbFlags::NONE },
            DbIdEntry { db: PERSIST, flags: DbFlags::PERSISTENT },
            DbIdEntry { db: WIRETEST, flags: DbFlags::NONE },
        ])),
        ("9.11", "GET_TUNABLE") => ControlReply::GetTunable(TunableValue(60)),
        ("9.11", "GET_ALL_TUNABLES") => ControlReply::GetAllTunables(TunableList::default()),
        ("9.12", "Reply") => ControlReply::Statistics(statistics()),
        ("9.15", "GET_DB_SEQNUM") => ControlReply::GetDbSeqnum(DbSeqnum(0)),
        ("9.15", "ECHO_DATA") => ControlReply::EchoData(EchoData { timeout: 0, data: b"echo" }),
        ("9.25", "GET_PUBLIC_IPS") => ControlReply::GetPublicIps(PublicIpList(vec![
            PublicIp { pnn: Some(pnn(0)), addr: v4(10, 99, 0, 1, 0) },
            PublicIp { pnn: Some(pnn(0)), addr: fd00_99_1() },
        ])),
        ("9.25", "GET_PUBLIC_IP_INFO") => ControlReply::GetPublicIpInfo(PublicIpInfo {
            ip: PublicIp { pnn: Some(pnn(0)), addr: v4(10, 99, 0, 1, 0) },
            active_index: 0,
            interfaces: vec![loopback()],
        }),
        ("9.25", "GET_IFACES") => ControlReply::GetIfaces(InterfaceList(vec![loopback()])),
        ("9.25", "GET_TCP_TICKLE_LIST") => ControlReply::GetTcpTickleList(TickleList {
            addr: v4(10, 99, 0, 1, 0),
            connections: vec![connection()],
        }),
        ("9.28", "GETDBPATH") => {
            ControlReply::GetDbPath(Text::new("/var/lib/ctdb/volatile/wiretest.tdb.0"))
        }
        _ => panic!("{section} {title}: a captured reply without expectation"),
    }
}

fn packets() -> impl Iterator<Item = (&'static Example, Packet<'static>)> {
    examples().iter().filter(|example| example.is_packet()).map(|example| {
        let (_, packet) = Packet::decode(&example.bytes).expect("captured packets decode");
        (example, packet)
    })
}

#[test]
fn every_captured_request_says_what_its_caption_says() {
    let mut checked = 0;
    for (example, packet) in packets() {
        let Packet::ReqControl(control) = packet else { continue };
        let expected = request(example.section, example.title, control.data);
        let opcode = ControlOpcode(control.opcode);
        assert_eq!(ControlRequest::decode(opcode, control.data).as_ref(), Ok(&expected));
        assert_eq!((expected.opcode(), expected.to_bytes()), (opcode, control.data.to_vec()));
        checked += 1;
    }
    assert_eq!(checked, 31, "captured requests in chapter 9");
}

#[test]
fn every_captured_reply_says_what_its_caption_says() {
    let mut checked = 0;
    for (example, packet) in packets() {
        let Packet::ReplyControl(received) = packet else { continue };
        if example.section == "9.10" {
            continue;
        }
        let expected = reply(example.section, example.title);
        let decoded = ControlReply::decode(expected.opcode(), &received);
        assert_eq!(decoded.as_ref(), Ok(&expected), "{}", example.title);
        let data = expected.to_bytes();
        let again = ReplyControl { status: expected.status(), data: &data, error: b"" };
        assert_eq!(again, received, "{}", example.title);
        checked += 1;
    }
    assert_eq!(checked, 20, "captured replies in chapter 9");
}

#[test]
fn the_captured_failures_are_failures_with_their_text() {
    for (title, opcode, text) in [
        ("Reply to opcode 999", 999, ""),
        ("Reply to GET_PNN", 35, "ctdb_control to disconnected node"),
    ] {
        let (_, packet) = Packet::decode(example("9.10", title)).expect("captured");
        let Packet::ReplyControl(reply) = packet else { panic!("{title}: not a reply") };
        let failed = ReplyError::Failed { status: -1, text: Text::new(text) };
        assert_eq!(ControlReply::decode(ControlOpcode(opcode), &reply), Err(failed), "{title}");
    }
}

fn message(section: &str, title: &str) -> &'static [u8] {
    let (_, packet) = Packet::decode(example(section, title)).expect("captured");
    let Packet::ReqMessage(message) = packet else { panic!("{title}: not a message") };
    message.data
}

fn check<T>(bytes: &'static [u8], expected: &T)
where
    T: Encode + Decode<'static> + PartialEq + std::fmt::Debug,
{
    assert_eq!(T::from_bytes(bytes).as_ref(), Ok(expected));
    assert_eq!(expected.to_bytes(), bytes);
}

#[test]
fn captured_messages_between_recovery_daemons() {
    check(
        message("9.18", "ELECTION"),
        &ElectionMessage {
            num_connected: 2,
            priority_time: time(0xd6, 0xb_07ee),
            pnn: pnn(1),
            node_flags: NodeFlags::UNHEALTHY,
        },
    );
    check(
        message("9.25", "DISABLE_TAKEOVER_RUNS"),
        &DisableMessage { pnn: None, srvid: Srvid(0), timeout: 60 },
    );
    check(message("9.25", "RELEASE_IP"), &Text::new("10.99.0.1"));
}

#[test]
fn computed_payloads_of_tickles_and_locks() {
    let expected = TickleList { addr: v4(10, 99, 0, 1, 0), connections: vec![connection()] };
    let bytes = example("9.28", "payload SET_TCP_TICKLE_LIST");
    check(bytes, &expected);
    let request = ControlRequest::decode(ControlOpcode::SET_TCP_TICKLE_LIST, bytes);
    assert_eq!(request, Ok(ControlRequest::SetTcpTickleList(expected)));
    let holder = ServerId {
        pid: 1000,
        task_id: G_LOCK.0,
        vnn: 0,
        unique_id: u64::from(G_LOCK.0) << 32 | 1000,
    };
    check(
        example("9.28", "payload g_lock record data as the tool"),
        &GLockList(vec![GLock { kind: GLockType::Write, server_id: holder }]),
    );
}

#[test]
fn the_captured_list_of_tunables_begins_like_ours() {
    let ours = Tunable::list_text();
    let ours = TunableNames(Text::new(&ours));
    assert_eq!(ours.to_bytes()[..36], *example("9.11", "payload of LIST_TUNABLES"));
    assert_eq!(ours.names().count(), TUNABLES.iter().filter(|t| !t.info().obsolete).count());
}
