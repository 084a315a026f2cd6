//! Replacing the contents of a database on all active nodes, as a recovery does it.
//!
//! Role: freeze, transaction, wipe, records, healthy, commit, thaw, each step on all nodes.
//! Invariants
//! - A step begins when all nodes have done the one before.
//! - After a failure in the middle a recovery is asked for: it undoes the transaction and thaws.
//!
//! Origin: `docs/spec/wire-protocol.md` 3.5; controls traced with the 4.17 tool.

use std::io::{Read, Seek};
use std::thread;
use std::time::Duration;

use ringmaster_protocol::control::{Control, kinds};
use ringmaster_protocol::database::{PullDb, TransDb};
use ringmaster_protocol::process::RecMode;
use ringmaster_protocol::{DbId, Destination};

use super::file::{Header, Reader};
use crate::command::Failure;
use crate::session::{Session, active};

/// Wipes a database and fills it from a backup that has been checked.
pub(super) fn restore<R: Read + Seek>(
    session: &mut Session<'_>,
    db: DbId,
    reader: &mut Reader<R>,
    header: &Header,
) -> Result<(), Failure> {
    rewrite(session, db, |rewriting, session| rewriting.push(session, reader, header))
}

/// Wipes a database.
pub(super) fn wipe(session: &mut Session<'_>, db: DbId) -> Result<(), Failure> {
    rewrite(session, db, |_, _| Ok(()))
}

/// How often the recovery mode is looked at.
const POLL: Duration = Duration::from_secs(1);

struct Rewriting {
    db: DbId,
    nodes: Vec<u32>,
}

fn rewrite(
    session: &mut Session<'_>,
    db: DbId,
    fill: impl FnOnce(&Rewriting, &mut Session<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let own = session.own;
    let nodes = active(&session.fresh_nodemap()?);
    // A recovery that goes on has the databases frozen. Only `-T` ends the wait.
    while session.control::<kinds::GetRecMode, _>(own, &())?.0 == RecMode::Active {
        thread::sleep(POLL);
    }
    let tid = session.control::<kinds::GetVnnMap, _>(own, &())?.generation;
    let rewriting = Rewriting { db, nodes };
    let done = rewriting.run(session, TransDb { db, tid }, fill);
    if done.is_err() {
        // Whatever was refused before: the recovery is what puts things right.
        let asked = session.control::<kinds::SetRecMode, ()>(own, &RecMode::Active);
        if asked.is_err() {
            session.complain("Failed to set recovery mode active");
        }
    }
    done
}

impl Rewriting {
    fn run(
        &self,
        session: &mut Session<'_>,
        transaction: TransDb,
        fill: impl FnOnce(&Self, &mut Session<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let db = self.db;
        self.step::<kinds::DbFreeze>(session, &db)?;
        self.step::<kinds::DbTransactionStart>(session, &transaction)?;
        self.step::<kinds::WipeDatabase>(session, &transaction)?;
        fill(self, session)?;
        self.step::<kinds::DbSetHealthy>(session, &db)?;
        self.step::<kinds::DbTransactionCommit>(session, &transaction)?;
        self.step::<kinds::DbThaw>(session, &db)
    }

    /// One control on all nodes at once.
    fn step<C>(&self, session: &mut Session<'_>, request: &C::Request<'_>) -> Result<(), Failure>
    where
        C: for<'r> Control<Reply<'r> = ()>,
    {
        let answers = session.control_all::<C, ()>(&self.nodes, request);
        match answers.into_iter().find_map(Result::err) {
            Some(refused) => Err(refused.into()),
            None => Ok(()),
        }
    }

    fn push<R: Read + Seek>(
        &self,
        session: &mut Session<'_>,
        reader: &mut Reader<R>,
        header: &Header,
    ) -> Result<(), Failure> {
        let srvid = session.reply_id();
        let request = PullDb { db: self.db, lmaster: PullDb::LMASTER_ANY, srvid };
        self.step::<kinds::DbPushStart>(session, &request)?;
        for _ in 0..header.buffers {
            let buffer = reader.next_buffer().map_err(|error| Failure::Status(error.status()))?;
            let message = buffer.message(self.db);
            for node in &self.nodes {
                session.message(Destination::from_raw(*node), srvid, "DB_PUSH", &message)?;
            }
        }
        let answers = session.control_all::<kinds::DbPushConfirm, _>(&self.nodes, &self.db);
        for (node, answer) in self.nodes.iter().zip(answers) {
            let received = answer?.0;
            if u64::from(received) != header.records {
                let expected = header.records;
                let text = format_args!("Node {node} received {received} of {expected} records");
                return Err(Failure::new(text));
            }
        }
        Ok(())
    }
}
