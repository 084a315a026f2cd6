//! Every control that a node and its cluster survive, once or in several forms.
//!
//! In the order in which they are asked; those that change something are followed by what takes it
//! back. Not asked: what ends or bans a node, reads the nodes list again, or what nobody sends to
//! another node.

use std::fmt;

use ringmaster_protocol::connection::{InterfaceName, LinkState};
use ringmaster_protocol::control::payloads::*;
use ringmaster_protocol::control::{ControlOpcode, ControlRequest, ControlStatus};
use ringmaster_protocol::node::NodeFlags;
use ringmaster_protocol::record::{Dmaster, RecBufferBuilder, RecordFlags, RecordHeader};
use ringmaster_protocol::{Encode, Generation, Reqid, Rsn};

type Build = Box<dyn Fn(Pnn) -> (ControlOpcode, Vec<u8>)>;

/// One control; what varies from node to node is its number.
pub(crate) struct Question {
    label: String,
    build: Build,
    /// Whether the payload of the answer is the same on all nodes.
    same_data: bool,
    refused_when_stopped: bool,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl Question {
    /// As it is sent to a node.
    pub(crate) fn to(&self, node: Pnn) -> (ControlOpcode, Vec<u8>) {
        (self.build)(node)
    }

    /// Whether it is a part of what a stopped node of ours has no part in: recovery, vacuuming.
    /// C's node goes along.
    pub(crate) const fn is_refused_when_stopped(&self) -> bool {
        self.refused_when_stopped
    }

    /// What of the answer's payload has to agree.
    pub(crate) fn comparable(&self, data: &[u8]) -> Vec<u8> {
        if self.same_data { data.to_vec() } else { Vec::new() }
    }
}

/// The node whose client asks.
fn leader() -> Pnn {
    Pnn::new(0).expect("a node number")
}

/// The three databases, and one that nobody has.
fn databases() -> [(&'static str, DbId); 4] {
    ["v.tdb", "p.tdb", "r.tdb", "nosuch.tdb"].map(|name| (name, DbId::from_name(name)))
}

struct List(Vec<Question>);

impl List {
    fn add(&mut self, same_data: bool, build: impl Fn(Pnn) -> ControlRequest<'static> + 'static) {
        let node = Pnn::new(1).expect("a node number");
        let label = format!("{:?}", build(node));
        let build = Box::new(move |node| {
            let control = build(node);
            (control.opcode(), control.to_bytes())
        });
        self.0.push(Question { label, build, same_data, refused_when_stopped: false });
    }

    /// The last one.
    fn refused_when_stopped(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.refused_when_stopped = true;
        }
    }

    /// Status, text and payload.
    fn whole(&mut self, control: ControlRequest<'static>) {
        let raw = control.to_bytes();
        self.raw(&format!("{control:?}"), control.opcode(), raw, true);
    }

    /// Status and text: the payload is the node's own.
    fn status(&mut self, control: ControlRequest<'static>) {
        let raw = control.to_bytes();
        self.raw(&format!("{control:?}"), control.opcode(), raw, false);
    }

    fn raw(&mut self, label: &str, opcode: ControlOpcode, data: Vec<u8>, same_data: bool) {
        let build = Box::new(move |_| (opcode, data.clone()));
        self.0.push(Question {
            label: label.to_owned(),
            build,
            same_data,
            refused_when_stopped: false,
        });
    }
}

/// All of them.
pub(crate) fn questions() -> Vec<Question> {
    let mut list = List(Vec::new());
    about_the_node(&mut list);
    obsolete(&mut list);
    strangers(&mut list);
    addresses(&mut list);
    flags(&mut list);
    for (_, db) in databases() {
        about_a_database(&mut list, db);
        recovery_of_a_database(&mut list, db);
    }
    attaching(&mut list);
    list.0
}

fn about_the_node(list: &mut List) {
    list.status(ControlRequest::ProcessExists(Pid(1)));
    list.status(ControlRequest::ProcessExists(Pid(0)));
    list.status(ControlRequest::CheckPidSrvid(PidSrvid { pid: Pid(1), srvid: Srvid(7) }));
    list.status(ControlRequest::Statistics);
    list.whole(ControlRequest::GetVnnMap);
    list.whole(ControlRequest::GetDebug);
    list.status(ControlRequest::GetDbMap);
    list.whole(ControlRequest::GetRecMode);
    list.status(ControlRequest::DumpMemory);
    list.whole(ControlRequest::ListTunables);
    list.whole(ControlRequest::GetAllTunables);
    list.whole(ControlRequest::GetNodeMap);
    list.whole(ControlRequest::GetNodesFile);
    list.whole(ControlRequest::GetReclockFile);
    list.status(ControlRequest::GetBanState);
    list.status(ControlRequest::GetStatHistory);
    list.status(ControlRequest::Uptime);
    list.whole(ControlRequest::GetRunState);
    list.whole(ControlRequest::RecdPing);
    list.whole(ControlRequest::RecdReclockLatency(ReclockLatency(0.25)));
    list.whole(ControlRequest::Startup);
    for name in ["RecoverTimeout", "recovertimeout", "VacuumLimit", "NoSuchTunable"] {
        let name = TunableName(Text::new(name));
        list.whole(ControlRequest::GetTunable(name));
        list.whole(ControlRequest::SetTunable(TunableSetting { value: 30, name }));
    }
    let echo = EchoData { timeout: 0, data: b"echo" };
    list.whole(ControlRequest::EchoData(echo));
    for data in [&b""[..], b"1", b"12345", b"123456789"] {
        for opcode in [ControlOpcode::GET_DEBUG, ControlOpcode::SET_DEBUG, ControlOpcode::UPTIME] {
            list.raw(&format!("{opcode} of {} bytes", data.len()), opcode, data.to_vec(), false);
        }
    }
    list.whole(ControlRequest::SetDebug(DebugLevel(5)));
}

fn obsolete(list: &mut List) {
    // 159 to 162 are new: 4.17 does not know them.
    for number in (0..159).chain([163, 1_000, u32::MAX]) {
        let opcode = ControlOpcode(number);
        if opcode.info().is_none_or(|info| info.status != ControlStatus::Live) {
            list.raw(&format!("control {number}"), opcode, Vec::new(), true);
        }
    }
}

/// What only a client of the node itself may ask.
fn strangers(list: &mut List) {
    let (db, srvid) = (DbId::from_name("v.tdb"), Srvid(0xCE01));
    list.whole(ControlRequest::RegisterSrvid);
    list.whole(ControlRequest::DeregisterSrvid);
    list.whole(ControlRequest::TunnelRegister);
    list.whole(ControlRequest::TunnelDeregister);
    list.whole(ControlRequest::RegisterNotify(NotifyData { srvid, data: b"gone" }));
    list.whole(ControlRequest::DeregisterNotify(srvid));
    list.whole(ControlRequest::TraverseStart(TraverseStart { db, reqid: Reqid(9), srvid }));
    let wanted = TraverseStartExt { db, reqid: Reqid(9), srvid, with_empty_records: true };
    list.whole(ControlRequest::TraverseStartExt(wanted));
    list.whole(ControlRequest::TraverseKill(TraverseStart { db, reqid: Reqid(9), srvid }));
    list.whole(ControlRequest::TraverseData(RecData { reqid: 12_345, key: b"key", data: b"" }));
}

fn addresses(list: &mut List) {
    let addr = SockAddr::parse_ip("10.66.66.66").expect("an address");
    let connection = Connection { src: addr, dst: addr };
    list.whole(ControlRequest::GetPublicIps);
    list.whole(ControlRequest::GetIfaces);
    list.whole(ControlRequest::TcpAdd(connection));
    list.whole(ControlRequest::TcpAddDelayedUpdate(connection));
    list.whole(ControlRequest::TcpRemove(connection));
    list.whole(ControlRequest::GetTcpTickleList(addr));
    list.whole(ControlRequest::SetTcpTickleList(TickleList { addr, connections: Vec::new() }));
    list.whole(ControlRequest::ReleaseIp(PublicIp { pnn: None, addr }));
    list.add(true, move |node| ControlRequest::TakeoverIp(PublicIp { pnn: Some(node), addr }));
    list.whole(ControlRequest::TakeoverIp(PublicIp { pnn: None, addr }));
    list.whole(ControlRequest::GetPublicIpInfo(addr));
    let name = InterfaceName::new("nosuch").expect("a name");
    let iface = Interface { name, link_state: LinkState::Up, references: 0 };
    list.whole(ControlRequest::SetIfaceLinkState(iface));
    let text = Text::new("nosuch");
    list.whole(ControlRequest::AddPublicIp(AddressInfo { addr, mask: 24, interfaces: Some(text) }));
    list.whole(ControlRequest::DelPublicIp(AddressInfo { addr, mask: 24, interfaces: Some(text) }));
    list.whole(ControlRequest::ReloadPublicIps);
    list.whole(ControlRequest::Ipreallocated);
}

fn flags(list: &mut List) {
    list.whole(ControlRequest::SetBanState(BanState { pnn: leader(), seconds: 9 }));
    list.whole(ControlRequest::DisableNode);
    list.whole(ControlRequest::EnableNode);
    list.whole(ControlRequest::SetLmasterRole(Role::On));
    list.whole(ControlRequest::SetRecmasterRole(Role::Off));
    list.status(ControlRequest::GetCapabilities);
    let change =
        |pnn| NodeFlagChange { pnn, new_flags: NodeFlags::NONE, old_flags: NodeFlags::NONE };
    list.add(true, move |node| ControlRequest::ModifyFlags(change(node)));
    let nobody = Pnn::new(77).expect("a number");
    list.whole(ControlRequest::ModifyFlags(change(nobody)));
}

fn one_record(db: DbId, node: Pnn) -> Vec<u8> {
    let header =
        RecordHeader { rsn: Rsn(1), dmaster: Dmaster::from(node), flags: RecordFlags::NONE };
    let mut buffer = RecBufferBuilder::new(db);
    buffer.push_with_header(0, b"key", &header, b"value");
    buffer.into_bytes()
}

fn about_a_database(list: &mut List, db: DbId) {
    list.status(ControlRequest::GetDbPath(db));
    list.whole(ControlRequest::GetDbName(db));
    list.whole(ControlRequest::DbOpenFlags(db));
    list.whole(ControlRequest::DbGetHealth(db));
    list.whole(ControlRequest::DbSetHealthy(db));
    list.status(ControlRequest::GetDbStatistics(db));
    list.whole(ControlRequest::GetDbSeqnum(GetDbSeqnum { db }));
    list.whole(ControlRequest::EnableSeqnum(db));
    list.whole(ControlRequest::UpdateSeqnum(db));
    list.whole(ControlRequest::SetDbReadonly(db));
    list.whole(ControlRequest::SetDbSticky(db));
    list.whole(ControlRequest::DbDetach(db));
    for (opcode, label) in [
        (ControlOpcode::UPDATE_RECORD, "UPDATE_RECORD"),
        (ControlOpcode::TRANS3_COMMIT, "TRANS3_COMMIT of another node's client"),
    ] {
        let label = format!("{label} of {db}");
        list.raw(&label, opcode, one_record(db, leader()), false);
    }
    if db == DbId::from_name("v.tdb") {
        // Vacuuming is of volatile databases; ours refuses it for others, and while it is stopped.
        let empty = RecBufferBuilder::new(db).into_bytes();
        for opcode in [ControlOpcode::TRY_DELETE_RECORDS, ControlOpcode::VACUUM_FETCH] {
            let label = format!("{opcode} of no record of {db}");
            list.raw(&label, opcode, empty.clone(), true);
            list.refused_when_stopped();
        }
    }
}

/// The steps of a recovery, by a leader that does not lead, for a generation that is not to be.
/// Streams only inside a transaction: outside, C fails, and ever after on this database.
fn recovery_of_a_database(list: &mut List, db: DbId) {
    let tid = Generation(0x7777_7777);
    let (trans, other) = (TransDb { db, tid }, TransDb { db, tid: Generation(8) });
    let srvid = Srvid(0xF001_0000_7777_0000);
    let stream = PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid };
    let seqnum = GetDbSeqnum { db };
    let controls = [
        // Not frozen.
        ControlRequest::DbTransactionStart(trans),
        ControlRequest::WipeDatabase(trans),
        ControlRequest::DbPull(stream),
        ControlRequest::DbPushStart(stream),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbTransactionCommit(trans),
        ControlRequest::DbTransactionCancel(db),
        // Frozen.
        ControlRequest::DbFreeze(db),
        ControlRequest::DbFreeze(db),
        ControlRequest::GetDbSeqnum(seqnum),
        ControlRequest::DbTransactionCommit(trans),
        ControlRequest::WipeDatabase(trans),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbTransactionCancel(db),
        // In a transaction.
        ControlRequest::DbTransactionStart(trans),
        ControlRequest::DbTransactionStart(trans),
        ControlRequest::GetDbSeqnum(seqnum),
        ControlRequest::WipeDatabase(other),
        ControlRequest::DbTransactionCommit(other),
        ControlRequest::DbPull(stream),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbPushStart(stream),
        ControlRequest::DbPushStart(stream),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbPushConfirm(db),
        ControlRequest::DbTransactionCancel(db),
        ControlRequest::DbTransactionCancel(db),
        ControlRequest::DbThaw(db),
        ControlRequest::DbThaw(db),
    ];
    let before = list.0.len();
    for control in controls {
        list.status(control);
    }
    for question in &mut list.0[before..] {
        question.refused_when_stopped = true;
    }
}

fn attaching(list: &mut List) {
    for name in ["v.tdb", "p.tdb", "r.tdb", "new.tdb"] {
        let name = Text::new(name);
        list.whole(ControlRequest::DbAttach(name));
        list.whole(ControlRequest::DbAttachPersistent(name));
        list.whole(ControlRequest::DbAttachReplicated(name));
    }
}
