//! A data plane that is a map of maps.
//!
//! Records are whole: header and value. Recovery transactions are copies, put in place by the
//! commit. Vacuum, statistics and registrations do nothing and succeed.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    DbId, Destination, Pnn, Srvid,
    control::ControlOpcode,
    control_packet::ControlFlags,
    database::{DbFlags, TdbOpenFlags},
    record::{RecBuffer, RecBufferBuilder, RecData, RecordHeader},
    wire::{Decode, Encode},
};

use crate::node::{
    Outcome, Tell,
    world::{DataAsk, OutgoingControl, VacuumStep},
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug, Default)]
struct Table {
    /// Of a persistent database: its name.
    kept: Option<String>,
    records: Records,
    staged: Option<Records>,
    tdb_seqnum: u64,
}

/// All databases of a node.
#[derive(Debug)]
pub(crate) struct Store {
    pnn: Pnn,
    tables: BTreeMap<DbId, Table>,
}

impl Store {
    pub(super) const fn new(pnn: Pnn) -> Self {
        Self { pnn, tables: BTreeMap::new() }
    }

    /// Writes a record as a client does, and counts the change.
    pub(crate) fn put(&mut self, db: DbId, key: &[u8], header: RecordHeader, value: &[u8]) {
        let mut data = header.to_array().to_vec();
        data.extend_from_slice(value);
        let table = self.tables.entry(db).or_default();
        table.records.insert(key.to_vec(), data);
        table.tdb_seqnum += 1;
    }

    /// A record: header and value.
    pub(crate) fn record(&self, db: DbId, key: &[u8]) -> Option<(RecordHeader, Vec<u8>)> {
        let data = self.tables.get(&db)?.records.get(key)?;
        RecordHeader::split(data).map(|(header, value)| (header, value.to_vec()))
    }

    /// Changes counted.
    pub(crate) fn tdb_seqnum(&self, db: DbId) -> u64 {
        self.tables.get(&db).map_or(0, |table| table.tdb_seqnum)
    }

    /// Carries an order out; what it sends on the way comes before its outcome.
    pub(super) fn carry_out(&mut self, ask: DataAsk) -> (Outcome, Vec<Tell>) {
        let mut sent = Vec::new();
        let outcome = match ask {
            DataAsk::Attach { name, flags, .. } => {
                let table = self.tables.entry(DbId::from_name(&name)).or_default();
                if flags.intersects(DbFlags::PERSISTENT) {
                    table.kept = Some(name.clone());
                }
                let path = format!("/db/{name}.{}", self.pnn).into();
                Outcome::Attached { path, open_flags: TdbOpenFlags::NOSYNC }
            }
            DataAsk::Detach(db) => {
                self.tables.remove(&db);
                Outcome::Done
            }
            DataAsk::TransactionStart(db) => self.table(db, |table| {
                table.staged = Some(table.records.clone());
                Outcome::Done
            }),
            DataAsk::TransactionCancel(db) | DataAsk::Thaw(db, _) => self.table(db, |table| {
                table.staged = None;
                Outcome::Done
            }),
            DataAsk::TransactionCommit(db) => self.table(db, |table| match table.staged.take() {
                Some(staged) => {
                    table.records = staged;
                    Outcome::Done
                }
                None => Outcome::Failed("no transaction".into()),
            }),
            DataAsk::Wipe(db) => self.table(db, |table| {
                table.staged = Some(Records::new());
                Outcome::Done
            }),
            DataAsk::Pull { db, srvid, to } => self.pull(db, srvid, to, &mut sent),
            DataAsk::Push { db, buffer } => self.write(db, &buffer, |table| table.staged.as_mut()),
            DataAsk::UpdateRecords { db, buffer } => self.commit(db, &buffer),
            DataAsk::UpdateCopies { db, buffer, .. } | DataAsk::PushRecord { db, buffer } => {
                match self.write(db, &buffer, |table| Some(&mut table.records)) {
                    Outcome::Count(_) => Outcome::Done,
                    other => other,
                }
            }
            DataAsk::TdbSeqnum(db) => Outcome::Seqnum(self.tdb_seqnum(db)),
            DataAsk::BumpTdbSeqnum(db) => self.table(db, |table| {
                table.tdb_seqnum += 1;
                Outcome::Seqnum(table.tdb_seqnum)
            }),
            DataAsk::DbSeqnum(db) => Outcome::Seqnum(self.db_seqnum(db)),
            DataAsk::TryDelete { buffer, .. } => Outcome::Bytes(buffer),
            DataAsk::VacuumStep(_) => Outcome::Vacuumed(VacuumStep::default()),
            DataAsk::VacuumDelete { .. } | DataAsk::MergeFreeBlocks(..) => Outcome::Count(0),
            DataAsk::DbStatistics(_) => Outcome::Bytes(vec![0; 464]),
            DataAsk::Traverse { db, reqid, to, .. } => self.traverse(db, reqid, to, &mut sent),
            _ => Outcome::Done,
        };
        (outcome, sent)
    }

    fn table(&mut self, db: DbId, order: impl FnOnce(&mut Table) -> Outcome) -> Outcome {
        match self.tables.get_mut(&db) {
            Some(table) => order(table),
            None => Outcome::Failed("unknown database".into()),
        }
    }

    fn write(
        &mut self,
        db: DbId,
        buffer: &[u8],
        target: impl FnOnce(&mut Table) -> Option<&mut Records>,
    ) -> Outcome {
        self.table(db, |table| {
            let (Ok(buffer), Some(records)) = (RecBuffer::from_bytes(buffer), target(table)) else {
                return Outcome::Failed("cannot write".into());
            };
            for record in &buffer {
                records.insert(record.key.to_vec(), record.data.to_vec());
            }
            Outcome::Count(buffer.count())
        })
    }

    /// Nothing unless all records are newer, or what is there already.
    fn commit(&mut self, db: DbId, buffer: &[u8]) -> Outcome {
        let Ok(records) = RecBuffer::from_bytes(buffer) else {
            return Outcome::Failed("malformed".into());
        };
        let newer = records.iter().all(|record| {
            let (header, value) = RecordHeader::split(record.data).unwrap();
            self.record(db, record.key)
                .is_none_or(|(old, known)| header.rsn > old.rsn || known == value)
        });
        if !newer {
            return Outcome::Failed("an old rsn with other data".into());
        }
        match self.write(db, buffer, |table| Some(&mut table.records)) {
            Outcome::Count(_) => Outcome::Done,
            other => other,
        }
    }

    /// The daemon has died: what is not persistent is gone with it. Names of what is.
    pub(super) fn crash(&mut self) -> Vec<String> {
        self.tables.retain(|_, table| table.kept.is_some());
        for table in self.tables.values_mut() {
            table.staged = None;
        }
        self.tables.values().filter_map(|table| table.kept.clone()).collect()
    }

    fn pull(&mut self, db: DbId, srvid: Srvid, to: Pnn, sent: &mut Vec<Tell>) -> Outcome {
        self.table(db, |table| {
            let mut buffer = RecBufferBuilder::new(db);
            for (key, data) in &table.records {
                buffer.push(&RecData { reqid: 0, key, data });
            }
            let count = buffer.count();
            if count > 0 {
                let data = buffer.into_bytes();
                sent.push(Tell::Message { to: Destination::Node(to), srvid, data });
            }
            Outcome::Count(count)
        })
    }

    fn traverse(&mut self, db: DbId, reqid: u32, to: Pnn, sent: &mut Vec<Tell>) -> Outcome {
        let own = self.pnn;
        self.table(db, |table| {
            let mine = table.records.iter().filter(|(_, data)| {
                RecordHeader::split(data).is_some_and(|(header, _)| header.dmaster.is(own))
            });
            let records = mine.map(|(key, data)| RecData { reqid, key, data });
            let end = RecData { reqid, key: b"", data: b"" };
            let before = sent.len();
            sent.extend(records.chain([end]).map(|record| {
                Tell::Control(OutgoingControl {
                    to,
                    opcode: ControlOpcode::TRAVERSE_DATA,
                    srvid: Srvid(0),
                    flags: ControlFlags::NOREPLY,
                    client: None,
                    data: record.to_bytes(),
                    timeout_s: 0,
                })
            }));
            Outcome::Count(u32::try_from(sent.len() - before - 1).unwrap())
        })
    }

    fn db_seqnum(&self, db: DbId) -> u64 {
        let record = self.record(db, b"__db_sequence_number__\0");
        let value = record.and_then(|(_, value)| value.try_into().ok());
        value.map_or(0, u64::from_le_bytes)
    }
}
