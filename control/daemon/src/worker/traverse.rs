//! This node's part of a traverse, on a thread of its own.
//!
//! Invariants
//! - One chain is locked at a time, to copy its records, and none while they are sent: a peer that
//!   takes nothing holds up its own traverse and nobody else. A freeze is waited for, as by C's child.
//! - The end marker comes after the last record; none comes of a traverse that is stopped or fails.
//!
//! Origin: `docs/spec/cluster-semantics.md` 5; `ctdb/server/ctdb_traverse.c`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ringmaster_control::node::Outcome;
use ringmaster_protocol::{
    Encode, Pnn,
    control::ControlOpcode,
    record::{RecData, RecordHeader},
};
use ringmaster_storage::{
    engine::AccessError,
    handle::{Database, Handle},
    lock::LockKind,
};

use super::{Facts, Report, Sent};

/// Between two looks at whether the traverse has been stopped, while a chain is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Traverse id at the origin.
    pub reqid: u32,
    /// Origin.
    pub to: Pnn,
    /// Empty records too.
    pub with_empty: bool,
}

/// Starts the thread. `number` comes back in [`Report::done`] with the number of records sent.
///
/// # Errors
/// When the kernel has no thread left.
pub fn start(
    database: Arc<Database>,
    facts: Facts,
    wanted: Wanted,
    number: u64,
    stop: Arc<AtomicBool>,
    report: impl Report,
) -> std::io::Result<()> {
    let name = format!("traverse-{:08x}", facts.id.0);
    let thread = std::thread::Builder::new().name(name);
    thread.spawn(move || {
        let id = facts.id;
        let walk = Walk { facts, wanted, stop };
        let outcome = match database.handle() {
            Ok(mut handle) => walk.run(&mut handle, &report),
            Err(error) => Err(format!("cannot open the database again: {error}")),
        };
        let outcome = outcome.map_or_else(Outcome::Failed, Outcome::Count);
        report.done(id, number, outcome);
    })?;
    Ok(())
}

struct Walk {
    facts: Facts,
    wanted: Wanted,
    stop: Arc<AtomicBool>,
}

impl Walk {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn run(&self, handle: &mut Handle, report: &impl Report) -> Result<u32, String> {
        let failed = |error: AccessError| format!("cannot traverse the database: {error}");
        let Wanted { reqid, to, .. } = self.wanted;
        let send =
            |data| report.sent(Sent::Control { to, opcode: ControlOpcode::TRAVERSE_DATA, data });
        let mut count = 0_u32;
        for chain in 0..handle.database().layout().hash_size {
            let empty = handle.database().chain_is_empty(chain);
            if empty.map_err(|error| failed(error.into()))? {
                continue;
            }
            let Some(records) = self.copy(handle, chain).map_err(failed)? else {
                return Err("stopped".into());
            };
            for data in records {
                if self.is_stopped() {
                    return Err("stopped".into());
                }
                count = count.saturating_add(1);
                send(data);
            }
        }
        send(RecData { reqid, key: b"", data: b"" }.to_bytes());
        Ok(count)
    }

    /// The wanted records of a chain, as they are sent; `None`: stopped while it was waited for.
    fn copy(&self, handle: &mut Handle, chain: u32) -> Result<Option<Vec<Vec<u8>>>, AccessError> {
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            let deadline = Instant::now() + LOOK;
            let locked = handle.lock_chain_until(chain, LockKind::Read, deadline)?;
            let Some(mut locked) = locked else { continue };
            let (mut key, mut value) = (Vec::new(), Vec::new());
            let mut records = Vec::new();
            locked.for_each(&mut key, &mut value, |key, data| {
                if self.wants(data) {
                    records.push(RecData { reqid: self.wanted.reqid, key, data }.to_bytes());
                }
                true
            })?;
            locked.unlock()?;
            return Ok(Some(records));
        }
    }

    /// Of a volatile database the records that are here, of others all.
    fn wants(&self, value: &[u8]) -> bool {
        RecordHeader::split(value).is_some_and(|(header, data)| {
            !self.facts.is_volatile()
                || header.dmaster.is(self.facts.pnn) && (self.wanted.with_empty || !data.is_empty())
        })
    }
}

#[cfg(test)]
mod tests;
