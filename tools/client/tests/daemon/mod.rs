//! A daemon of a few lines: answers what a client of databases asks, by a script.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ringmaster_protocol::call::{CallId, ReplyCall, ReqCall};
use ringmaster_protocol::control::payloads::Pid;
use ringmaster_protocol::control::{ControlOpcode, ControlRequest};
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::header::{Envelope, PacketStyle};
use ringmaster_protocol::record::{RecBuffer, RecordFlags, RecordHeader};
use ringmaster_protocol::{DbId, Destination, Generation, Packet, Pnn, Reqid, RequestHeader, Rsn};
use ringmaster_storage::chain::Stored;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::lock::LockKind;
use ringmaster_storage::open::{OpenOptions, open};

/// The one process that exists, besides this one.
pub(crate) const LIVING: Pid = Pid(4711);

/// How everybody opens the files: persistent ones plainly, the others with mutexes (and empty when
/// nobody has them open).
const fn open_flags(persistent: bool) -> u32 {
    if persistent { 0x400 } else { 0x1C41 }
}

pub(crate) fn pnn(number: u32) -> Pnn {
    Pnn::new(number).unwrap()
}

pub(crate) fn header(dmaster: u32, flags: RecordFlags) -> RecordHeader {
    RecordHeader { rsn: Rsn(1), dmaster: pnn(dmaster).into(), flags }
}

pub(crate) fn open_file(path: &Path, create: bool) -> Handle {
    let persistent = path.ends_with("persistent.tdb.0");
    let flags = Flags::from_bits(open_flags(persistent));
    let options = if create { OpenOptions::create(7, flags) } else { OpenOptions::existing(flags) };
    open(path, &options).unwrap()
}

pub(crate) enum Answer {
    Status(i32),
    Data(Vec<u8>),
    Nothing,
    Close,
}

/// The databases of the daemon.
pub(crate) struct Files {
    directory: PathBuf,
    names: BTreeMap<DbId, String>,
}

impl Files {
    fn path(&self, db: DbId) -> PathBuf {
        self.directory.join(format!("{}.0", self.names[&db]))
    }

    pub(crate) fn put(&mut self, db: DbId, key: &[u8], header: RecordHeader, value: &[u8]) {
        let mut handle = open_file(&self.path(db), false);
        let mut locked = handle.lock_key(key, LockKind::Write).unwrap();
        assert_eq!(locked.store_record(key, header, value).unwrap(), Stored::Done);
    }

    fn get(&self, db: DbId, key: &[u8]) -> Option<(RecordHeader, Vec<u8>)> {
        let (mut handle, mut buffer) = (open_file(&self.path(db), false), Vec::new());
        let record = handle.fetch_record(key, &mut buffer).unwrap();
        record.map(|record| (record.header, record.data.to_vec()))
    }

    /// As UPDATE_RECORD on every node.
    pub(crate) fn apply(&mut self, buffer: &RecBuffer<'_>) {
        for record in buffer {
            let (header, value) = record.split_header().unwrap();
            let old = self.get(buffer.db(), record.key).map_or(0, |(old, _)| old.rsn.0);
            assert!(header.rsn.0 > old, "C's daemon would refuse this record");
            self.put(buffer.db(), record.key, header, value);
        }
    }
}

type OnCall = Box<dyn FnMut(&mut Files, DbId, &[u8]) -> Answer + Send>;
type OnCommit = Box<dyn FnMut(&mut Files, &RecBuffer<'_>) -> Answer + Send>;

/// What the daemon does; the default makes records come here and commits succeed.
pub(crate) struct Script {
    call: OnCall,
    commit: OnCommit,
    unhealthy: Option<&'static str>,
}

impl Default for Script {
    fn default() -> Self {
        let come_here = |files: &mut Files, db, key: &[u8]| {
            let value = files.get(db, key).map_or_else(Vec::new, |(_, value)| value);
            files.put(db, key, header(0, RecordFlags::NONE), &value);
            Answer::Status(0)
        };
        let apply = |files: &mut Files, buffer: &RecBuffer<'_>| {
            files.apply(buffer);
            Answer::Status(0)
        };
        Self { call: Box::new(come_here), commit: Box::new(apply), unhealthy: None }
    }
}

impl Script {
    pub(crate) fn on_call(
        mut self,
        call: impl FnMut(&mut Files, DbId, &[u8]) -> Answer + Send + 'static,
    ) -> Self {
        self.call = Box::new(call);
        self
    }

    pub(crate) fn on_commit(
        mut self,
        commit: impl FnMut(&mut Files, &RecBuffer<'_>) -> Answer + Send + 'static,
    ) -> Self {
        self.commit = Box::new(commit);
        self
    }

    pub(crate) fn unhealthy(mut self, reason: &'static str) -> Self {
        self.unhealthy = Some(reason);
        self
    }
}

struct State {
    files: Files,
    script: Script,
    commits: u32,
    scheduled: Vec<(DbId, Vec<u8>, RecordHeader)>,
}

/// A running daemon. Its threads end with their clients; nobody waits for them.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

/// Access to the files, with the daemon standing still.
pub(crate) struct FilesGuard<'d>(MutexGuard<'d, State>);

impl std::ops::Deref for FilesGuard<'_> {
    type Target = Files;
    fn deref(&self) -> &Files {
        &self.0.files
    }
}

impl std::ops::DerefMut for FilesGuard<'_> {
    fn deref_mut(&mut self) -> &mut Files {
        &mut self.0.files
    }
}

impl Daemon {
    pub(crate) fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { directory: directory.path().to_path_buf(), names: BTreeMap::new() };
        let state = State { files, script, commits: 0, scheduled: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { directory, state }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn files(&self) -> FilesGuard<'_> {
        FilesGuard(self.state.lock().unwrap())
    }

    pub(crate) fn commits(&self) -> u32 {
        self.state.lock().unwrap().commits
    }

    pub(crate) fn scheduled(&self) -> Vec<(DbId, Vec<u8>, RecordHeader)> {
        self.state.lock().unwrap().scheduled.clone()
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    let mut head = [0; 32];
    while stream.read_exact(&mut head).is_ok() {
        let header = RequestHeader::decode(&head).unwrap();
        let mut bytes = vec![0; header.length as usize];
        bytes[..32].copy_from_slice(&head);
        stream.read_exact(&mut bytes[32..]).unwrap();
        let (_, packet) = Packet::decode(&bytes).unwrap();
        let mut state = state.lock().unwrap();
        let (answer, is_call) = match packet {
            Packet::ReqCall(call) => (state.call(&call), true),
            Packet::ReqControl(control) => (state.control(&control), false),
            other => panic!("{other:?}"),
        };
        drop(state);
        let (status, data) = match answer {
            Answer::Status(status) => (status, Vec::new()),
            Answer::Data(data) => (0, data),
            Answer::Nothing => continue,
            Answer::Close => return,
        };
        let reply = if is_call {
            Packet::ReplyCall(ReplyCall { status, data: &data })
        } else {
            Packet::ReplyControl(ReplyControl::new(status, &data))
        };
        if stream.write_all(&framed(&reply, header.envelope.reqid)).is_err() {
            return; // the client has given up
        }
    }
}

fn framed(reply: &Packet<'_>, reqid: Reqid) -> Vec<u8> {
    let own = Destination::Node(pnn(0));
    let envelope = Envelope { generation: Generation(9), destination: own, source: own, reqid };
    let mut bytes = Vec::new();
    reply.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    bytes
}

impl State {
    fn call(&mut self, call: &ReqCall<'_>) -> Answer {
        let answer = (self.script.call)(&mut self.files, call.db, call.key);
        if call.callid == CallId::FETCH_WITH_HEADER && matches!(answer, Answer::Status(0)) {
            let (header, value) = self.files.get(call.db, call.key).unwrap();
            return Answer::Data([&header.to_array()[..], &value].concat());
        }
        answer
    }

    fn control(&mut self, control: &ReqControl<'_>) -> Answer {
        let opcode = ControlOpcode(control.opcode);
        let request = ControlRequest::decode(opcode, control.data).unwrap();
        let answer = match request {
            ControlRequest::GetPnn => Answer::Status(0),
            ControlRequest::DbAttach(name)
            | ControlRequest::DbAttachPersistent(name)
            | ControlRequest::DbAttachReplicated(name) => {
                let name = name.to_string();
                let db = DbId::from_name(&name);
                self.files.names.insert(db, name);
                open_file(&self.files.path(db), !self.files.path(db).exists());
                Answer::Data(db.0.to_le_bytes().to_vec())
            }
            ControlRequest::GetDbPath(db) => {
                let path = self.files.path(db);
                Answer::Data(format!("{}\0", path.display()).into_bytes())
            }
            ControlRequest::DbGetHealth(_) => {
                let reason = self.script.unhealthy.map(|reason| format!("{reason}\0"));
                Answer::Data(reason.unwrap_or_default().into_bytes())
            }
            ControlRequest::DbOpenFlags(db) => {
                let flags = open_flags(self.files.names[&db] == "persistent.tdb");
                Answer::Data(flags.to_le_bytes().to_vec())
            }
            ControlRequest::ProcessExists(pid) => {
                let own = Pid(std::process::id().cast_signed());
                Answer::Status(if pid == LIVING || pid == own { 0 } else { -1 })
            }
            ControlRequest::ScheduleForDeletion(data) => {
                self.scheduled.push((data.db, data.key.to_vec(), data.header));
                Answer::Status(0)
            }
            ControlRequest::Trans3Commit(buffer) => {
                self.commits += 1;
                (self.script.commit)(&mut self.files, &buffer)
            }
            other => panic!("{other:?}"),
        };
        if control.flags.contains(ControlFlags::NOREPLY) { Answer::Nothing } else { answer }
    }
}
