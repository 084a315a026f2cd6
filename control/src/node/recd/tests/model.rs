//! The controls of the simulated daemon: databases as maps, freezes without locks.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    DbId, Decode, Destination, Generation, Rsn, Srvid,
    connection::PublicIpList,
    control::ControlRequest,
    database::{DbFlags, DbIdEntry, DbIdMap, DbSeqnum, RecordCount, TdbOpenFlags},
    node::NodeFlags,
    process::{RecMode, RunState},
    record::{Dmaster, RecBuffer, RecBufferBuilder, RecordFlags, RecordHeader},
    text::Text,
};

use super::cluster::{Cluster, data, pnn};
use crate::node::{
    state::{FreezeState, Push},
    world::{ControlAnswer, OutgoingControl},
};

pub(super) type Records = BTreeMap<Vec<u8>, (RecordHeader, Vec<u8>)>;

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub name: String,
    pub flags: DbFlags,
    pub generation: Generation,
    pub frozen: bool,
    pub tid: Option<Generation>,
    pub invalid: bool,
    pub records: Records,
    pub staged: Records,
    pub push: Option<(Srvid, u32)>,
    pub seqnum: u64,
}

impl Database {
    pub(super) fn new(name: &str, flags: DbFlags) -> Self {
        Self {
            name: name.to_owned(),
            flags,
            generation: Generation::INVALID,
            frozen: false,
            tid: None,
            invalid: false,
            records: Records::new(),
            staged: Records::new(),
            push: None,
            seqnum: 0,
        }
    }

    pub(super) fn with(mut self, key: &str, rsn: u64, dmaster: usize, value: &str) -> Self {
        let dmaster = Dmaster::from(pnn(dmaster));
        let header = RecordHeader { rsn: Rsn(rsn), dmaster, flags: RecordFlags::NONE };
        self.records.insert(key.into(), (header, value.into()));
        self
    }

    /// Key, rsn, dmaster, value of each record.
    pub(super) fn content(&self) -> Vec<(String, u64, u32, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let record = |(key, (header, value)): (&Vec<u8>, &(RecordHeader, Vec<u8>))| {
            (text(key), header.rsn.0, header.dmaster.raw(), text(value))
        };
        self.records.iter().map(record).collect()
    }
}

fn status(status: i32) -> ControlAnswer {
    ControlAnswer { status, ..ControlAnswer::default() }
}

const OK: i32 = 0;
const BAD: i32 = -1;

impl Cluster {
    fn db(&mut self, node: usize, db: DbId) -> Option<&mut Database> {
        self.nodes[node].databases.get_mut(&db.0)
    }

    /// Changes a database if it is there and `able`.
    fn with_db(
        &mut self,
        node: usize,
        db: DbId,
        able: impl Fn(&Database) -> bool,
        change: impl FnOnce(&mut Database),
    ) -> ControlAnswer {
        match self.db(node, db) {
            Some(db) if able(db) => {
                change(db);
                status(OK)
            }
            _ => status(BAD),
        }
    }

    pub(super) fn serve(
        &mut self,
        from: usize,
        to: usize,
        what: &OutgoingControl,
    ) -> ControlAnswer {
        match ControlRequest::decode(what.opcode, &what.data).unwrap() {
            ControlRequest::GetNodeMap => self.state(to, |state| data(&state.node_map())),
            ControlRequest::GetCapabilities => self.state(to, |state| data(&state.capabilities)),
            ControlRequest::GetVnnMap => self.state(to, |state| data(&state.vnn_map)),
            ControlRequest::GetRecMode => {
                status(self.state(to, |state| state.recovery_mode.to_raw().cast_signed()))
            }
            ControlRequest::SetRecMode(mode) => self.set_recmode(to, mode),
            ControlRequest::SetVnnMap(map) => {
                self.enter(to, |cx| cx.state_mut().vnn_map = map);
                status(OK)
            }
            ControlRequest::ModifyFlags(change) => {
                let of = change.pnn.get() as usize;
                if of != to && self.nodes[to].connected.contains(&of) {
                    let flags = change.new_flags.without(NodeFlags::DISCONNECTED);
                    self.set_flags(to, of, |_| flags);
                }
                status(OK)
            }
            ControlRequest::SetBanState(ban) => {
                self.leave(to, NodeFlags::BANNED);
                assert_eq!(ban.pnn, pnn(to));
                status(OK)
            }
            ControlRequest::Freeze => {
                for db in self.nodes[to].databases.values_mut() {
                    db.frozen = true;
                    db.invalid = db.flags.is_empty();
                }
                status(OK)
            }
            ControlRequest::GetPublicIps => data(&PublicIpList::default()),
            ControlRequest::StartRecovery
            | ControlRequest::Ipreallocated
            | ControlRequest::Ping => status(OK),
            ControlRequest::EndRecovery => {
                self.enter(to, |cx| {
                    let mut state = cx.state_mut();
                    state.counters.num_recoveries += 1;
                    state.run_state = state.run_state.max(RunState::Startup);
                });
                status(OK)
            }
            request => self.serve_database(from, to, request),
        }
    }

    fn serve_database(
        &mut self,
        from: usize,
        to: usize,
        request: ControlRequest<'_>,
    ) -> ControlAnswer {
        match request {
            ControlRequest::GetDbMap => {
                let databases = self.nodes[to].databases.iter();
                let entry =
                    |(id, db): (&u32, &Database)| DbIdEntry { db: DbId(*id), flags: db.flags };
                data(&DbIdMap(databases.map(entry).collect()))
            }
            ControlRequest::GetDbName(db) => match self.db(to, db) {
                Some(db) => data(&Text::new(&db.name)),
                None => status(BAD),
            },
            ControlRequest::DbAttach(name) => self.attach(to, name, DbFlags::NONE),
            ControlRequest::DbAttachPersistent(name) => self.attach(to, name, DbFlags::PERSISTENT),
            ControlRequest::DbAttachReplicated(name) => self.attach(to, name, DbFlags::REPLICATED),
            ControlRequest::DbFreeze(db) => self.with_db(to, db, |_| true, |db| db.frozen = true),
            ControlRequest::DbTransactionStart(start) => self.with_db(
                to,
                start.db,
                |db| db.frozen,
                |db| {
                    db.tid = Some(start.tid);
                    db.staged = db.records.clone();
                },
            ),
            ControlRequest::GetDbSeqnum(request) => {
                let seqnum = self.db(to, request.db).map_or(0, |db| db.seqnum);
                data(&DbSeqnum(seqnum))
            }
            ControlRequest::DbPull(pull) => self.pull(from, to, pull.db, pull.srvid),
            ControlRequest::WipeDatabase(wipe) => {
                self.with_db(to, wipe.db, |db| db.tid == Some(wipe.tid), |db| db.staged.clear())
            }
            ControlRequest::DbPushStart(push) => {
                self.expect_batches(to, push.db, push.srvid);
                self.with_db(to, push.db, |db| db.frozen, |db| db.push = Some((push.srvid, 0)))
            }
            ControlRequest::DbPushConfirm(db) => {
                let miscounts = u32::from(self.nodes[to].miscounts);
                match self.db(to, db).and_then(|db| db.push.take()) {
                    Some((_, count)) => data(&RecordCount(count - miscounts.min(count))),
                    None => status(BAD),
                }
            }
            ControlRequest::DbTransactionCommit(commit) => self.with_db(
                to,
                commit.db,
                |db| db.frozen && db.tid == Some(commit.tid),
                |db| {
                    db.generation = commit.tid;
                    db.tid = None;
                    db.records = std::mem::take(&mut db.staged);
                },
            ),
            ControlRequest::DbThaw(db) => self.with_db(
                to,
                db,
                |_| true,
                |db| {
                    db.frozen = false;
                    db.invalid = false;
                },
            ),
            other => panic!("the model has no {other:?}"),
        }
    }

    fn set_recmode(&mut self, node: usize, mode: RecMode) -> ControlAnswer {
        let generation = self.state(node, |state| state.vnn_map.generation);
        let stale = |db: &Database| db.generation != generation;
        if mode == RecMode::Normal && self.nodes[node].databases.values().any(stale) {
            return status(BAD);
        }
        self.enter(node, |cx| cx.state_mut().recovery_mode = mode);
        status(OK)
    }

    /// STOP_NODE, or a ban.
    pub(super) fn leave(&mut self, node: usize, flag: NodeFlags) {
        self.set_flags(node, node, |flags| flags | flag);
        for db in self.nodes[node].databases.values_mut() {
            db.generation = Generation::INVALID;
        }
        self.enter(node, |cx| {
            let mut state = cx.state_mut();
            state.vnn_map.generation = Generation::INVALID;
            state.recovery_mode = RecMode::Active;
        });
    }

    fn attach(&mut self, node: usize, name: Text<'_>, flags: DbFlags) -> ControlAnswer {
        let name = name.as_str().unwrap().to_owned();
        let id = self.id_of(&name);
        let mut db = Database::new(&name, flags);
        db.generation = self.state(node, |state| state.vnn_map.generation);
        self.nodes[node].databases.insert(id, db);
        data(&DbId(id))
    }

    fn id_of(&self, name: &str) -> u32 {
        let known = self.nodes.iter().flat_map(|node| &node.databases);
        known.filter(|(_, db)| db.name == name).map(|(id, _)| *id).next().unwrap()
    }

    /// One batch per record.
    fn pull(&mut self, from: usize, to: usize, id: DbId, srvid: Srvid) -> ControlAnswer {
        let loses = self.nodes[to].loses_batches;
        let Some(db) = self.db(to, id).filter(|db| db.frozen) else { return status(BAD) };
        let records = if db.invalid { Records::new() } else { db.records.clone() };
        let count = u32::try_from(records.len()).unwrap();
        for (key, (header, value)) in records {
            let mut batch = RecBufferBuilder::new(id);
            batch.push_with_header(0, &key, &header, &value);
            if !loses {
                self.message(to, Destination::Node(pnn(from)), srvid, batch.as_bytes());
            }
        }
        data(&RecordCount(count))
    }

    /// Marks the stream as one that the plane keeps the batches of.
    fn expect_batches(&mut self, node: usize, id: DbId, srvid: Srvid) {
        let push = Push { number: 0, srvid, stored: 0, failed: false, busy: false };
        self.enter(node, |cx| {
            let mut state = cx.state_mut();
            state.databases.retain(|db| db.id != id);
            state.databases.push(crate::node::state::Database {
                id,
                name: String::new(),
                flags: DbFlags::NONE,
                path: std::path::PathBuf::new(),
                open_flags: TdbOpenFlags::NONE,
                generation: Generation::INVALID,
                freeze: FreezeState::Frozen,
                transaction: None,
                invalid_records: false,
                push: Some(push),
                unhealthy: None,
                seqnum: None,
                commit: None,
                freezes: 0,
            });
        });
    }

    /// Stores the batches that the leader has put into its own mailbox.
    pub(super) fn store_own_batches(&mut self, node: usize) {
        let streams: Vec<Srvid> =
            self.nodes[node].databases.values().filter_map(|db| Some(db.push?.0)).collect();
        if streams.is_empty() {
            return;
        }
        let mut own = Vec::new();
        self.nodes[node].plane.cx().state_mut().mailbox.retain(|(srvid, data)| {
            let mine = streams.contains(srvid);
            if mine {
                own.push((*srvid, data.clone()));
            }
            !mine
        });
        let stored =
            own.into_iter().filter(|(srvid, data)| self.pushed(node, *srvid, data)).count();
        if stored > 0 {
            self.enter(node, |_| {});
        }
    }

    /// Whether the message belongs to a push at this node.
    pub(super) fn pushed(&mut self, node: usize, srvid: Srvid, batch: &[u8]) -> bool {
        let mut databases = self.nodes[node].databases.values_mut();
        let Some(db) = databases.find(|db| db.push.is_some_and(|push| push.0 == srvid)) else {
            return false;
        };
        let batch = RecBuffer::from_bytes(batch).unwrap();
        for record in &batch {
            let (mut header, value) = record.split_header().unwrap();
            if db.flags.is_empty() && header.dmaster.is(pnn(node)) {
                header.rsn = header.rsn.advanced(1).unwrap();
            }
            db.staged.insert(record.key.to_vec(), (header, value.to_vec()));
        }
        db.push = Some((srvid, db.push.unwrap().1 + batch.count()));
        true
    }
}
