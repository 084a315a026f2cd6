//! What a record of `g_lock.tdb` says: who holds the cluster-wide lock.
//!
//! Role: reads both formats, writes the C tool's. Pure: who of the holders lives is asked by
//! `transaction`.
//! Invariants
//! - A value is taken for the tool's format only if every entry bears the tool's signature, so that
//!   smbd's is never misread as a list of stale readers (which is what the C tool does).
//! - A value that is neither is not free: nobody knows whom overwriting it would rob.
//!
//! Origin: `docs/spec/wire-protocol.md` 7.11; `ctdb/client/client_db.c`, `source3/lib/g_lock.c`.
//! Both forms were checked with 4.17: `net g_lock do` and `ctdb ptrans` while they held a lock.

use std::sync::atomic::{AtomicU32, Ordering};

use ringmaster_protocol::layout::Fixed;
use ringmaster_protocol::process::{GLock, GLockList, GLockType, ServerId};
use ringmaster_protocol::{DbId, Decode, DecodeError, Encode, Pnn, Reader};

/// Name of the database of locks.
pub(crate) const DATABASE: &str = "g_lock.tdb";

/// Key of the lock on transactions of a database: its name with the NUL.
pub(crate) fn transaction_key(db: DbId) -> Vec<u8> {
    format!("transaction_db_{db}\0").into_bytes()
}

/// Who holds a lock, by format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The tool's list, empty for a record without value. Exclusive and shared holders.
    Tool(Vec<GLock>),
    /// smbd's: all holders. The rest of the value is not needed.
    Samba(Vec<ServerId>),
    /// Neither.
    Unknown,
}

/// One of those who hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockHolder {
    /// Who.
    pub(crate) id: ServerId,
    /// Whether it has registered its unique id as a srvid: smbd does, the tool does not.
    pub(crate) registered: bool,
}

impl Content {
    /// All holders, shared ones included; none if the content is unknown.
    pub(crate) fn holders(&self) -> Vec<LockHolder> {
        let holder = |id, registered| LockHolder { id, registered };
        match self {
            Self::Tool(list) => list.iter().map(|lock| holder(lock.server_id, false)).collect(),
            Self::Samba(ids) => ids.iter().map(|id| holder(*id, true)).collect(),
            Self::Unknown => Vec::new(),
        }
    }

    /// Reads the value of the lock on transactions of `database`: the tool signs with its id.
    pub(crate) fn parse(value: &[u8], database: DbId) -> Self {
        if let Some(list) = parse_tool(value, database) {
            return Self::Tool(list);
        }
        match parse_samba(value) {
            Ok(Some(holders)) => Self::Samba(holders),
            Ok(None) | Err(_) => Self::Unknown,
        }
    }
}

fn parse_tool(value: &[u8], database: DbId) -> Option<Vec<GLock>> {
    if !value.len().is_multiple_of(GLock::SIZE) {
        return None;
    }
    let GLockList(list) = GLockList::from_bytes(value).ok()?;
    let signed = |lock: &GLock| {
        let id = &lock.server_id;
        id.task_id == database.0 && id.unique_id & LOW_32 == id.pid & LOW_32
    };
    list.iter().all(signed).then_some(list)
}

/// smbd's value: watchers (count, 32 bytes each), exclusive holder, two epochs, shared holders
/// (count, 24 bytes each), user data. `None` if the counts lead beyond the end.
fn parse_samba(value: &[u8]) -> Result<Option<Vec<ServerId>>, DecodeError> {
    const WATCHER_LEN: usize = 32;
    let reader = &mut Reader::new(value);
    let watchers = reader.count("watchers", WATCHER_LEN)?;
    reader.padding(watchers * WATCHER_LEN)?;
    if reader.remaining() == 0 {
        return Ok(Some(Vec::new())); // watched, but nobody holds it
    }
    let exclusive = ServerId::read(reader, "g_lock holder")?;
    reader.padding(16)?;
    let shared = reader.count("shared holders", ServerId::SIZE)?;
    let mut holders = Vec::with_capacity(shared + 1);
    if exclusive.pid != 0 {
        holders.push(exclusive);
    }
    for _ in 0..shared {
        holders.push(ServerId::read(reader, "g_lock holder")?);
    }
    Ok(Some(holders))
}

/// The tool's form of a list.
pub(crate) fn encode(list: Vec<GLock>) -> Vec<u8> {
    GLockList(list).to_bytes()
}

const LOW_32: u64 = 0xFFFF_FFFF;

/// This client as a holder of locks, in the tool's manner. Different for each call: several
/// clients in one process must not take each other for themselves.
pub(crate) fn own_server_id(database: DbId, own: Pnn) -> ServerId {
    static CLIENTS: AtomicU32 = AtomicU32::new(0);
    let pid = u64::from(std::process::id());
    let number = database.0.wrapping_add(CLIENTS.fetch_add(1, Ordering::Relaxed));
    let unique_id = u64::from(number) << 32 | pid;
    ServerId { pid, task_id: database.0, vnn: own.get(), unique_id }
}

/// An exclusive entry of `id`.
pub(crate) const fn write_entry(id: ServerId) -> GLock {
    GLock { kind: GLockType::Write, server_id: id }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pers.tdb`
    const DATABASE_ID: DbId = DbId(0x3880_c3f1);

    fn own() -> ServerId {
        own_server_id(DATABASE_ID, Pnn::new(1).unwrap())
    }

    /// As `ctdb ptrans pers.tdb` (4.17) wrote it, pid 0x471b on node 1.
    const BY_THE_TOOL: &[u8; 32] =
        b"\x01\0\0\0\0\0\0\0\x1BG\0\0\0\0\0\0\xF1\xC3\x808\x01\0\0\0\x1BG\0\0\
        \xF1\xC3\x808";

    /// As `net g_lock do` (4.17) wrote it, pid 0x5860 on node 0.
    const BY_NET: &[u8; 48] = b"\0\0\0\0`X\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xEE \xFB\x80\xF4\xF41\xEE\
        \x1B`L\x951:*(\x1A`L\x951:*(\0\0\0\0";

    #[test]
    fn the_database_of_locks_has_its_known_id() {
        assert_eq!(DbId::from_name(DATABASE), DbId(0x4d2a_432b));
        assert_eq!(transaction_key(DbId(0xAB)), b"transaction_db_0x000000ab\0");
    }

    #[test]
    fn an_own_entry_is_read_back_and_is_the_tools() {
        let entry = write_entry(own());
        let value = encode(vec![entry]);
        assert_eq!(value.len(), 32);
        assert_eq!(Content::parse(&value, DATABASE_ID), Content::Tool(vec![entry]));
        assert_eq!(Content::parse(&[], DATABASE_ID), Content::Tool(Vec::new()));
    }

    #[test]
    fn a_lock_of_the_tools_is_recognised_with_its_holder() {
        let Content::Tool(list) = Content::parse(BY_THE_TOOL, DATABASE_ID) else {
            panic!("not recognised")
        };
        let unique_id = 0x3880_c3f1_0000_471b;
        let server_id = ServerId { pid: 0x471b, task_id: DATABASE_ID.0, vnn: 1, unique_id };
        assert_eq!(list, [write_entry(server_id)]);
    }

    #[test]
    fn two_clients_of_one_process_are_two_holders() {
        assert_ne!(own(), own());
    }

    #[test]
    fn a_lock_of_smbds_is_recognised_with_its_holder() {
        let Content::Samba(holders) = Content::parse(BY_NET, DATABASE_ID) else {
            panic!("not recognised")
        };
        assert_eq!(holders.len(), 1);
        assert_eq!((holders[0].pid, holders[0].task_id, holders[0].vnn), (0x5860, 0, 0));
        assert_eq!(holders[0].unique_id, 0xee31_f4f4_80fb_20ee);
    }

    #[test]
    fn smbds_form_is_recognised_when_its_length_is_that_of_a_list() {
        // Two shared holders make 96 bytes: three entries of the tool's.
        let mut value = BY_NET.to_vec();
        value[4..28].fill(0);
        value[44] = 2;
        value.extend_from_slice(&BY_NET[4..28]);
        value.extend_from_slice(&BY_NET[4..28]);
        assert_eq!(value.len(), 96);
        let Content::Samba(holders) = Content::parse(&value, DATABASE_ID) else {
            panic!("taken for the tool's")
        };
        assert_eq!(holders.len(), 2);
    }

    #[test]
    fn a_watched_free_lock_of_smbds_has_no_holders() {
        let mut value = vec![1, 0, 0, 0];
        value.extend_from_slice(&[7; 32]);
        assert_eq!(Content::parse(&value, DATABASE_ID), Content::Samba(Vec::new()));
    }

    #[test]
    fn anything_else_is_not_taken_for_free() {
        for value in [&[1][..], &[0xFF; 64], &[9; 40], &BY_NET[..40]] {
            assert_eq!(Content::parse(value, DATABASE_ID), Content::Unknown, "{value:?}");
        }
    }
}
