//! The wire protocol against a live C daemon: every control that does no harm is sent with our
//! types, its reply is decoded, compared with what is known, and encoded to the very bytes that
//! came. Sizes that our table refuses must be refused by C.

#[path = "wire/client.rs"]
mod client;
#[path = "wire/garbage.rs"]
mod garbage;

use client::Client;
use ringmaster_compat::cluster::{Cluster, Config};
use ringmaster_compat::require_c_cluster;
use ringmaster_protocol::connection::{InterfaceName, LinkState};
use ringmaster_protocol::control::payloads::*;
use ringmaster_protocol::control::{
    ControlOpcode, ControlStatus, ReplyBody, ReplyError, SizeRule, kinds,
};
use ringmaster_protocol::control_packet::ReplyControl;
use ringmaster_protocol::database::{DbFlags, DbIdEntry};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::node::NodeFlags;
use ringmaster_protocol::record::{RecBufferBuilder, RecordHeader};
use ringmaster_protocol::tunable::{TUNABLES, Tunable};
use ringmaster_protocol::{Decode, Destination, Packet, Reqid};

fn pnn(raw: u32) -> Pnn {
    Pnn::new(raw).expect("a node number")
}

fn address(text: &str) -> SockAddr {
    SockAddr::parse_ip(text).expect("an address")
}

fn own_pid() -> Pid {
    Pid(i32::try_from(std::process::id()).expect("pids fit"))
}

#[test]
fn a_c_daemon_means_what_our_types_say() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(2).with_public_addresses()).unwrap();
    let mut client = Client::connect(&cluster, 0);
    node_information(&cluster, &mut client);
    tunables(&mut client);
    statistics(&mut client);
    processes(&mut client);
    public_addresses(&mut client);
    databases(&cluster, &mut client);
    recovery_of_one_database(&mut client);
}

fn node_information(cluster: &Cluster, client: &mut Client) {
    assert_eq!(client.call::<kinds::GetPnn>(&()).reply::<kinds::GetPnn>(), InStatus(pnn(0)));
    let InStatus(pid) = client.call::<kinds::GetPid>(&()).reply::<kinds::GetPid>();
    assert!(pid.0 > 1);
    let InStatus(clients) = client.call::<kinds::Ping>(&()).reply::<kinds::Ping>();
    assert!(clients >= ClientCount(1));
    let mode = client.call::<kinds::GetRecMode>(&()).reply::<kinds::GetRecMode>();
    assert_eq!(mode, InStatus(RecMode::Normal));
    let nodes = client.call::<kinds::GetNodeMap>(&()).reply::<kinds::GetNodeMap>();
    let file = client.call::<kinds::GetNodesFile>(&()).reply::<kinds::GetNodesFile>();
    assert_eq!(nodes, file, "all nodes are healthy");
    for (index, node) in nodes.0.iter().enumerate() {
        let expected = SockAddr::new(cluster.node(index).address(), 4379);
        assert_eq!((node.flags, node.addr), (NodeFlags::NONE, expected));
    }
    let map = client.call::<kinds::GetVnnMap>(&()).reply::<kinds::GetVnnMap>();
    assert_eq!(map.map, [pnn(0), pnn(1)]);
    let capabilities = client.call::<kinds::GetCapabilities>(&());
    assert_eq!(capabilities.reply::<kinds::GetCapabilities>(), Capabilities::DEFAULT);
    let state = client.call::<kinds::GetRunState>(&()).reply::<kinds::GetRunState>();
    assert_eq!(state, RunState::Running);
    let level = client.call::<kinds::GetDebug>(&()).reply::<kinds::GetDebug>();
    assert_eq!(level, DebugLevel(5), "INFO");
    client.succeeds::<kinds::SetDebug>(&DebugLevel(3));
    assert_eq!(client.call::<kinds::GetDebug>(&()).reply::<kinds::GetDebug>(), DebugLevel(3));
    client.succeeds::<kinds::SetDebug>(&level);
    let uptime = client.call::<kinds::Uptime>(&()).reply::<kinds::Uptime>();
    assert!(uptime.current_time >= uptime.last_recovery_finished);
    assert!(uptime.last_recovery_finished >= uptime.last_recovery_started);
    assert!(uptime.last_recovery_started >= uptime.ctdbd_start_time);
    let lock = client.call::<kinds::GetReclockFile>(&());
    let lock = lock.reply::<kinds::GetReclockFile>().expect("a cluster lock is configured");
    assert!(lock.as_str().is_some_and(|lock| lock.starts_with('/')), "{lock}");
    let ban = client.call::<kinds::GetBanState>(&()).reply::<kinds::GetBanState>();
    assert_eq!((ban.pnn, ban.seconds), (pnn(0), 0));
    let (new_flags, old_flags) = (NodeFlags::BANNED, NodeFlags::NONE);
    client.succeeds::<kinds::ModifyFlags>(&NodeFlagChange { pnn: pnn(0), new_flags, old_flags });
    client.succeeds::<kinds::SetLmasterRole>(&Role::On);
    client.succeeds::<kinds::SetRecmasterRole>(&Role::On);
    client.succeeds::<kinds::RecdPing>(&());
    client.succeeds::<kinds::RecdReclockLatency>(&ReclockLatency(0.25));
    client.succeeds::<kinds::SetRecMode>(&RecMode::Normal);
}

fn tunables(client: &mut Client) {
    let values = client.call::<kinds::GetAllTunables>(&()).reply::<kinds::GetAllTunables>();
    for tunable in TUNABLES {
        let info = tunable.info();
        assert_eq!(values.value(tunable), info.default, "{}", info.name);
        // Lower case and other spellings name the same tunable.
        for name in [info.name.to_owned(), info.name.to_lowercase(), info.name.to_uppercase()] {
            let value = client.call::<kinds::GetTunable>(&TunableName(Text::new(&name)));
            assert_eq!(value.reply::<kinds::GetTunable>(), TunableValue(info.default), "{name}");
        }
    }
    let listed = client.call::<kinds::ListTunables>(&());
    let ours = Tunable::list_text();
    assert_eq!(listed.reply::<kinds::ListTunables>(), TunableNames(Text::new(&ours)));
    let name = |name| TunableName(Text::new(name));
    let setting = |value, text| TunableSetting { value, name: name(text) };
    client.succeeds::<kinds::SetTunable>(&setting(61, "controltimeout"));
    let value = client.call::<kinds::GetTunable>(&name("ControlTimeout"));
    assert_eq!(value.reply::<kinds::GetTunable>(), TunableValue(61));
    client.succeeds::<kinds::SetTunable>(&setting(60, "ControlTimeout"));
    assert_eq!(client.status::<kinds::SetTunable>(&setting(1, "VacuumLimit")), 1, "obsolete");
    assert_eq!(client.status::<kinds::SetTunable>(&setting(1, "NoSuchTunable")), -1);
    assert_eq!(client.status::<kinds::GetTunable>(&name("NoSuchTunable")), -22);
}

fn statistics(client: &mut Client) {
    let statistics = client.call::<kinds::Statistics>(&()).reply::<kinds::Statistics>();
    assert!(statistics.num_clients > 0 && statistics.num_recoveries > 0, "{statistics:?}");
    assert!(statistics.client.req_control > 0 && statistics.memory_used > 0, "{statistics:?}");
    assert!(statistics.statistics_current_time > statistics.statistics_start_time);
    client.succeeds::<kinds::StatisticsReset>(&());
    let history = client.call::<kinds::GetStatHistory>(&()).reply::<kinds::GetStatHistory>();
    assert_eq!(history.0.len(), StatisticsHistory::SLOTS);
    let report = client.call::<kinds::DumpMemory>(&());
    assert!(!report.reply::<kinds::DumpMemory>().0.as_bytes().is_empty());
}

fn processes(client: &mut Client) {
    const SRVID: u64 = 0xce01_0000_0000_0001;
    let exists = client.call::<kinds::ProcessExists>(&own_pid());
    assert_eq!(exists.reply::<kinds::ProcessExists>(), InStatus(true));
    let exists = client.call::<kinds::ProcessExists>(&Pid(1));
    assert_eq!(exists.reply::<kinds::ProcessExists>(), InStatus(false));
    let registered = PidSrvid { pid: own_pid(), srvid: Srvid(SRVID) };
    let check = |client: &mut Client| {
        client.call::<kinds::CheckPidSrvid>(&registered).reply::<kinds::CheckPidSrvid>().0
    };
    assert!(!check(client));
    client.call_at::<kinds::RegisterSrvid>(SRVID, &()).reply::<kinds::RegisterSrvid>();
    assert!(check(client));
    let data: &[u8] = b"hello";
    let message = ReqMessage { srvid: Srvid(SRVID), data };
    client.send(Destination::Current, &Packet::ReqMessage(message));
    assert_eq!(client.message(SRVID), data);
    client.call_at::<kinds::DeregisterSrvid>(SRVID, &()).reply::<kinds::DeregisterSrvid>();
    assert_eq!(client.call_at::<kinds::DeregisterSrvid>(SRVID, &()).status, 2);
    let notify = NotifyData { srvid: Srvid(SRVID), data: b"bye" };
    client.succeeds::<kinds::RegisterNotify>(&notify);
    assert_eq!(client.status::<kinds::RegisterNotify>(&notify), -1);
    client.succeeds::<kinds::DeregisterNotify>(&Srvid(SRVID));
    assert_eq!(client.status::<kinds::DeregisterNotify>(&Srvid(SRVID)), -1);
    client.call_at::<kinds::TunnelRegister>(77, &()).reply::<kinds::TunnelRegister>();
    client.call_at::<kinds::TunnelDeregister>(77, &()).reply::<kinds::TunnelDeregister>();
    let echo = EchoData { timeout: 1, data: b"echo" };
    assert_eq!(client.call::<kinds::EchoData>(&echo).reply::<kinds::EchoData>(), echo);
}

fn public_addresses(client: &mut Client) {
    let ips = client.call::<kinds::GetPublicIps>(&()).reply::<kinds::GetPublicIps>();
    assert_eq!(ips.0.len(), 4);
    let held = ips.0.iter().find(|ip| ip.pnn == Some(pnn(0))).expect("node 0 holds an address");
    let info = client.call::<kinds::GetPublicIpInfo>(&held.addr);
    let info = info.reply::<kinds::GetPublicIpInfo>();
    assert_eq!(info.ip, *held);
    assert_eq!(info.active().map(|iface| iface.name), InterfaceName::new("lo"));
    assert_eq!(client.status::<kinds::GetPublicIpInfo>(&address("10.9.8.7")), -1);
    let ifaces = client.call::<kinds::GetIfaces>(&()).reply::<kinds::GetIfaces>();
    let [lo] = ifaces.0[..] else { panic!("one interface: {ifaces:?}") };
    assert_eq!(lo.name.to_string(), "lo");
    let up = Interface { link_state: LinkState::Up, references: 0, ..lo };
    client.succeeds::<kinds::SetIfaceLinkState>(&up);

    let src = address("10.0.0.9").with_port(50000);
    let connection = Connection { src, dst: held.addr.with_port(445) };
    client.succeeds::<kinds::TcpAddDelayedUpdate>(&connection);
    let tickles = client.call::<kinds::GetTcpTickleList>(&held.addr);
    let tickles = tickles.reply::<kinds::GetTcpTickleList>();
    assert_eq!(tickles, TickleList { addr: held.addr, connections: vec![connection] });
    let other_port = client.call::<kinds::GetTcpTickleList>(&held.addr.with_port(139));
    assert_eq!(other_port.reply::<kinds::GetTcpTickleList>().connections, []);
    client.succeeds::<kinds::SetTcpTickleList>(&tickles);
    client.succeeds::<kinds::TcpRemove>(&connection);
    let tickles = client.call::<kinds::GetTcpTickleList>(&held.addr);
    assert_eq!(tickles.reply::<kinds::GetTcpTickleList>().connections, []);
    assert_eq!(client.status::<kinds::GetTcpTickleList>(&address("10.9.8.7")), 1);
    client.succeeds::<kinds::TcpClient>(&connection);
    client.succeeds::<kinds::TcpAdd>(&connection);

    let unknown = PublicIp { pnn: None, addr: address("10.9.8.7") };
    client.succeeds::<kinds::ReleaseIp>(&unknown);
    let unknown = PublicIp { pnn: Some(pnn(0)), ..unknown };
    client.succeeds::<kinds::TakeoverIp>(&unknown);
    let known = AddressInfo { addr: held.addr, mask: 24, interfaces: Some(Text::new("lo")) };
    assert_eq!(client.status::<kinds::AddPublicIp>(&known), -1, "known already");
    let added = AddressInfo { addr: address("192.168.100.77"), ..known };
    client.succeeds::<kinds::AddPublicIp>(&added);
    client.succeeds::<kinds::DelPublicIp>(&AddressInfo { interfaces: None, ..added });
    client.status::<kinds::SendGratuitousArp>(&added);
    client.succeeds::<kinds::Ipreallocated>(&());
}

fn databases(cluster: &Cluster, client: &mut Client) {
    let name = Text::new("wire.tdb");
    let persistent_name = Text::new("wire_persistent.tdb");
    let replicated_name = Text::new("wire_replicated.tdb");
    let volatile = client.call::<kinds::DbAttach>(&name).reply::<kinds::DbAttach>();
    let persistent = client.call::<kinds::DbAttachPersistent>(&persistent_name);
    let persistent = persistent.reply::<kinds::DbAttachPersistent>();
    let replicated = client.call::<kinds::DbAttachReplicated>(&replicated_name);
    let replicated = replicated.reply::<kinds::DbAttachReplicated>();
    client.succeeds::<kinds::SetDbReadonly>(&volatile);
    client.succeeds::<kinds::SetDbSticky>(&volatile);
    assert_eq!(client.status::<kinds::SetDbReadonly>(&persistent), -1);

    let map = client.call::<kinds::GetDbMap>(&()).reply::<kinds::GetDbMap>();
    let entry = |db, flags| DbIdEntry { db, flags };
    assert_eq!(
        map.0,
        [
            entry(replicated, DbFlags::REPLICATED),
            entry(persistent, DbFlags::PERSISTENT),
            entry(volatile, DbFlags::READONLY | DbFlags::STICKY),
        ],
        "newest first"
    );
    let path = client.call::<kinds::GetDbPath>(&volatile);
    let path = path.reply::<kinds::GetDbPath>().to_string();
    let expected = cluster.node(0).volatile_directory().join("wire.tdb.0");
    assert_eq!(path, expected.display().to_string());
    assert_eq!(client.call::<kinds::GetDbName>(&volatile).reply::<kinds::GetDbName>(), name);
    let flags = |client: &mut Client, db| {
        client.call::<kinds::DbOpenFlags>(&db).reply::<kinds::DbOpenFlags>().0
    };
    assert_eq!(flags(client, volatile), 0x1c41);
    assert_eq!(flags(client, persistent), 0x400);
    assert_eq!(flags(client, replicated), 0xc41);
    client.succeeds::<kinds::EnableSeqnum>(&volatile);
    client.succeeds::<kinds::UpdateSeqnum>(&volatile);
    let seqnum = client.call::<kinds::GetDbSeqnum>(&GetDbSeqnum { db: persistent });
    assert_eq!(seqnum.reply::<kinds::GetDbSeqnum>(), DbSeqnum(0));
    client.succeeds::<kinds::DbSetHealthy>(&persistent);
    let health = client.call::<kinds::DbGetHealth>(&persistent);
    assert_eq!(health.reply::<kinds::DbGetHealth>(), None);
    let statistics = client.call::<kinds::GetDbStatistics>(&volatile);
    assert!(statistics.data.len() >= 464);
    statistics.reply::<kinds::GetDbStatistics>();
    client.succeeds::<kinds::DbVacuum>(&DbVacuum { db: volatile, full_vacuum_run: true });

    let header = RecordHeader { dmaster: pnn(0).into(), ..absent() };
    client.succeeds::<kinds::ScheduleForDeletion>(&KeyData { db: volatile, header, key: b"k" });
    let empty = RecBufferBuilder::new(volatile);
    let empty = RecBuffer::from_bytes(empty.as_bytes()).expect("an empty buffer");
    let left = client.call::<kinds::TryDeleteRecords>(&empty);
    assert_eq!(left.reply::<kinds::TryDeleteRecords>(), empty);
    client.succeeds::<kinds::VacuumFetch>(&empty);
    client.succeeds::<kinds::UpdateRecord>(&empty);
    traverses(client, volatile);
    // C forgets to say so to the other nodes only when the database may not be detached.
    assert_eq!(client.status::<kinds::DbDetach>(&volatile), -1, "clients may attach");
}

fn absent() -> RecordHeader {
    RecordHeader::split(&[0; 24]).expect("24 bytes are a header").0
}

fn traverses(client: &mut Client, db: DbId) {
    const SRVID: u64 = 0xbe00_0000_0000_0002;
    client.call_at::<kinds::RegisterSrvid>(SRVID, &()).reply::<kinds::RegisterSrvid>();
    let (reqid, srvid) = (Reqid(9), Srvid(SRVID));
    client.succeeds::<kinds::TraverseStart>(&TraverseStart { db, reqid, srvid });
    let bytes = client.message(SRVID);
    let end = RecData::from_bytes(&bytes).expect("a record");
    assert!(end.is_end_marker() && end.reqid == 9, "{end:?}");
    client.succeeds::<kinds::TraverseStartExt>(&TraverseStartExt {
        db,
        reqid: Reqid(10),
        srvid,
        with_empty_records: true,
    });
    let bytes = client.message(SRVID);
    assert_eq!(RecData::from_bytes(&bytes).map(|end| end.reqid), Ok(10));
    client.succeeds::<kinds::TraverseKill>(&TraverseStart { db, reqid, srvid });
}

#[test]
fn a_c_daemon_ignores_the_payload_where_our_table_ignores_it() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    let mut client = Client::connect(&cluster, 0);
    let garbage = b"abc";
    for opcode in [
        ControlOpcode::GET_RECMODE,
        ControlOpcode::GET_PNN,
        ControlOpcode::LIST_TUNABLES,
        ControlOpcode::UPTIME,
        ControlOpcode::GET_CAPABILITIES,
        ControlOpcode::REGISTER_SRVID,
        ControlOpcode::DEREGISTER_SRVID,
        ControlOpcode::TUNNEL_REGISTER,
        ControlOpcode::TUNNEL_DEREGISTER,
    ] {
        assert_eq!(opcode.request_size(), SizeRule::Ignored, "{opcode}");
        assert_eq!(client.raw(opcode, 0xce01_0000_0000_0002, garbage).status, 0, "{opcode}");
    }
    // Not every u32 is checked: any number but 0 switches a role on.
    let any_number = 5_u32.to_le_bytes();
    assert_eq!(client.raw(ControlOpcode::SET_LMASTERROLE, 0, &any_number).status, 0);
    assert_eq!(Role::from_bytes(&any_number), Ok(Role::On));
    let capabilities = client.call::<kinds::GetCapabilities>(&());
    assert_eq!(capabilities.reply::<kinds::GetCapabilities>(), Capabilities::DEFAULT);
    // A bool must be 0 or 1, here as there.
    let database = client.call::<kinds::DbAttach>(&Text::new("wire.tdb"));
    let wrong_bool = [&database.data[..], &[2]].concat();
    assert_eq!(client.raw(ControlOpcode::DB_VACUUM, 0, &wrong_bool).status, -1);
    assert!(DbVacuum::from_bytes(&wrong_bool).is_err());
}

/// Whether the tool complains of the address, by the beginning of its complaint.
fn tool_takes(cluster: &Cluster, arguments: &[&str], complaint: &str) -> bool {
    let output = cluster.node(0).tool(arguments).expect("the tool runs");
    !output.stderr.starts_with(complaint)
}

#[test]
fn addresses_are_read_and_written_as_by_the_c_tool() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1).with_public_addresses()).unwrap();
    for text in [
        "1.2.3.4",
        "[1.2.3.4]",
        "01.2.3.4",
        "1.2.3",
        "1.2.3.4:5",
        " 1.2.3.4",
        "1.2.3.4 ",
        "::1",
        "[::1]",
        "[[::1]]",
        "[::1",
        "::1]",
        "[]",
        "[",
        "",
        "::1%lo",
        "::ffff:1.2.3.4",
        "[::ffff:1.2.3.4]",
        "::ffff:0102:0304",
        "::ffff:0:1.2.3.4",
        "1:2:3:4:5:6:7::",
        "::1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "12345::",
    ] {
        let theirs = tool_takes(&cluster, &["ipinfo", text], "Invalid IP address");
        assert_eq!(SockAddr::parse_ip(text).is_ok(), theirs, "{text:?}");
    }
    for text in [
        "10.0.0.1/24",
        "10.0.0.1/24x",
        "10.0.0.1/",
        "10.0.0.1",
        "/24",
        "10.0.0.1/24/25",
        "10.0.0.1/ 24",
        "10.0.0.1/-1",
        "10.0.0.1/+24",
        "10.0.0.1/4294967320",
        "fd00::1/64",
        "[fd00::1]/64",
        "10.0.0.1/000000000000000000000000000000000000000000000000000024",
        "10.0.0.1/00000000000000000000000000000000000000000000000000000024",
        "10.0.0.1/0000000000000000000000000000000000000000000000000000024",
    ] {
        let theirs = tool_takes(&cluster, &["addip", text, "lo"], "Invalid IP/Mask");
        assert_eq!(SockAddr::parse_with_mask(text).is_ok(), theirs, "{text:?}");
    }
    let mut lines = Vec::new();
    for text in [
        "10.0.0.1:70000",
        "10.0.0.2: 7",
        "[::]:1",
        "::2:1",
        "[::1.2.3.4]:1",
        "[::1:2]:3",
        "[::ffff:1.2.3.4]:5",
        "[::ffff:0:1.2.3.4]:5",
        "[1:0:0:2:0:0:0:3]:4",
        "[1:0:2:0:3:0:4:0]:5",
        "[1:0:0:2:3:0:0:4]:5",
        "[0:1:2:3:4:5:6:7]:8",
        "[64:ff9b::1.2.3.4]:9",
    ] {
        let added = cluster.node(0).tool(&["addtickle", text, "192.168.100.1:445"]).unwrap();
        assert!(added.success(), "{text}: {added}");
        let src = SockAddr::parse_with_port(text).expect("the tool took it");
        let dst = SockAddr::parse_with_port("192.168.100.1:445").expect("an address");
        let (src, dst) = (src.display_with_port(), dst.display_with_port());
        lines.push(format!("SRC: {src}   DST: {dst}"));
    }
    let listed = cluster.node(0).tool(&["gettickles", "192.168.100.1"]).unwrap().stdout;
    let theirs: Vec<_> = listed.lines().filter(|line| line.starts_with("SRC")).collect();
    assert_eq!(lines, theirs);
}

/// What recovery does to a database, on a replicated one that nobody else uses. The transaction's
/// id is the generation in force, so that the cluster sees nothing unusual afterwards.
fn recovery_of_one_database(client: &mut Client) {
    const SRVID: u64 = 0xf001_0000_0000_0077;
    let name = Text::new("wire_recovery.tdb");
    let attached = client.call::<kinds::DbAttachReplicated>(&name);
    let db = attached.reply::<kinds::DbAttachReplicated>();
    let map = client.call::<kinds::GetVnnMap>(&()).reply::<kinds::GetVnnMap>();
    let transaction = TransDb { db, tid: map.generation };
    let pull = PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid: Srvid(SRVID) };
    assert_eq!(client.status::<kinds::DbTransactionStart>(&transaction), -1, "not frozen");
    assert_eq!(client.status::<kinds::DbPull>(&pull), -1, "not frozen");
    client.succeeds::<kinds::DbFreeze>(&db);
    client.succeeds::<kinds::DbTransactionStart>(&transaction);
    client.succeeds::<kinds::WipeDatabase>(&transaction);

    let mut records = RecBufferBuilder::new(db);
    let header = RecordHeader { dmaster: pnn(0).into(), ..absent() };
    records.push_with_header(0, b"key", &header, b"value");
    client.succeeds::<kinds::DbPushStart>(&pull);
    let message = ReqMessage { srvid: Srvid(SRVID), data: records.as_bytes() };
    client.send(Destination::Current, &Packet::ReqMessage(message));
    let pushed = client.call::<kinds::DbPushConfirm>(&db).reply::<kinds::DbPushConfirm>();
    assert_eq!(pushed, RecordCount(1));
    client.call_at::<kinds::RegisterSrvid>(SRVID, &()).reply::<kinds::RegisterSrvid>();
    let pulled = client.call::<kinds::DbPull>(&pull).reply::<kinds::DbPull>();
    assert_eq!(pulled, RecordCount(1));
    assert_eq!(client.message(SRVID), records.as_bytes());
    client.succeeds::<kinds::DbTransactionCommit>(&transaction);
    client.succeeds::<kinds::DbThaw>(&db);
    client.succeeds::<kinds::DbFreeze>(&db);
    client.succeeds::<kinds::DbTransactionStart>(&transaction);
    client.succeeds::<kinds::DbTransactionCancel>(&db);
    client.succeeds::<kinds::DbThaw>(&db);
}

/// A payload that breaks the rule by one byte, either way.
fn wrong_sizes(rule: SizeRule) -> Vec<Vec<u8>> {
    match rule {
        SizeRule::Exact(0) => vec![vec![0]],
        SizeRule::Exact(len) => vec![vec![0; len - 1], vec![0; len + 1]],
        SizeRule::AtLeast(len) => vec![vec![0; len - 1]],
        SizeRule::Counted { fixed, .. } => {
            // A length of 0xff that is not there, and too little for the fixed part.
            let mut lying = vec![0; fixed.max(16)];
            lying.fill(0xff);
            vec![lying, vec![0; fixed.saturating_sub(1)]]
        }
        SizeRule::Terminated | SizeRule::Parsed | SizeRule::Ignored => Vec::new(),
    }
}

#[test]
fn a_c_daemon_refuses_the_sizes_our_table_refuses() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    let mut client = Client::connect(&cluster, 0);
    let mut tried = 0;
    for info in ControlOpcode::table() {
        let wrong = match info.status {
            ControlStatus::Live => wrong_sizes(info.request_size),
            ControlStatus::MasterOnly | ControlStatus::Obsolete | ControlStatus::Unassigned => {
                vec![Vec::new(), vec![0; 24]]
            }
        };
        for data in wrong {
            let answer = client.raw(info.opcode, 0, &data);
            let len = data.len();
            assert_eq!(answer.status, -1, "{} with {len} bytes", info.opcode);
            assert_eq!((answer.data.len(), answer.error.len()), (0, 0), "{}", info.opcode);
            tried += 1;
        }
    }
    assert!(tried > 150, "only {tried} payloads were tried");
    assert_eq!(client.raw(ControlOpcode(999), 0, b"").status, -1);
    let alive = client.call::<kinds::GetPnn>(&()).reply::<kinds::GetPnn>();
    assert_eq!(alive, InStatus(pnn(0)));
    let failed = client.call::<kinds::GetDbName>(&DbId(0xdead_beef));
    let packet = ReplyControl { status: failed.status, data: &failed.data, error: &failed.error };
    let failed = Text::from_reply(&packet);
    assert_eq!(failed, Err(ReplyError::Failed { status: -1, text: Text::default() }));
}
