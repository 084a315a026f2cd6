//! This node's parts of traverses: each on a thread of its own, some at a time.
//!
//! Invariants
//! - At most [`THREADS_MAX`] run; the others wait in the order in which they were asked for.
//! - One that nobody waits for any more is stopped, or never started.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ringmaster_control::{node::Outcome, plane::Token};
use ringmaster_protocol::DbId;

use super::{Driver, Job};
use crate::worker::{Facts, traverse};

/// Traverses of all databases that run at a time. Most wait for their peers.
const THREADS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Traverses {
    running: HashMap<Token, Arc<AtomicBool>>,
    waiting: VecDeque<(Token, DbId, traverse::Wanted)>,
}

impl Driver {
    pub(super) fn traverse(&mut self, token: Token, db: DbId, wanted: traverse::Wanted) {
        self.traverses.waiting.push_back((token, db, wanted));
        self.start_traverses();
    }

    fn start_traverses(&mut self) {
        while self.traverses.running.len() < THREADS_MAX {
            let Some((token, db, wanted)) = self.traverses.waiting.pop_front() else { return };
            if let Err(why) = self.start_traverse(token, db, wanted) {
                self.outcome(token, Outcome::Failed(why));
            }
        }
    }

    fn start_traverse(
        &mut self,
        token: Token,
        db: DbId,
        wanted: traverse::Wanted,
    ) -> Result<(), String> {
        let opened = self.workers.get(&db).and_then(|attached| attached.opened.as_ref());
        let database = opened.map(|opened| Arc::clone(&opened.database));
        let flags = self.plane.cx().state().database(db).map(|db| db.flags);
        let (Some(database), Some(flags)) = (database, flags) else {
            return Err(format!("database {db} is not attached"));
        };
        let facts = Facts { id: db, flags, pnn: self.pnn(), lmasters: Arc::from([]) };
        let stop = Arc::new(AtomicBool::new(false));
        let number = self.new_job(Job::Traverse(token));
        let report = self.reporter();
        traverse::start(database, facts, wanted, number, Arc::clone(&stop), report).map_err(
            |error| {
                self.jobs.remove(&number);
                format!("cannot start a thread for a traverse: {error}")
            },
        )?;
        self.traverses.running.insert(token, stop);
        Ok(())
    }

    pub(super) fn traversed(&mut self, token: Token, outcome: Outcome) {
        self.traverses.running.remove(&token);
        self.outcome(token, outcome);
        self.start_traverses();
    }

    /// Nobody waits for this any more, if it is a traverse.
    pub(super) fn stop_traverse(&mut self, token: Token) {
        self.traverses.waiting.retain(|(waiting, ..)| *waiting != token);
        if let Some(stop) = self.traverses.running.get(&token) {
            stop.store(true, Ordering::Relaxed);
        }
    }
}
