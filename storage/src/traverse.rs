//! Visiting every record of a database.
//!
//! Role: [`Cursor`] walks as libtdb does (one record at a time, the chain unlocked in between);
//! `visit_chain` reads one chain under one lock, for a daemon that works in small turns.
//! Invariants
//! - A cursor that stands on a record holds its RECORD lock, so the record stays in its chain, dead
//!   or alive, and the walk can go on from it.
//! - Nobody sleeps for a chain while standing on a record: who locks everything has the chains and
//!   wants the record, and nothing detects that (libtdb's own traverse hangs there in files with
//!   mutexes, and fails in others). After a short while the record is let go of.
//! - Records added or deleted meanwhile may or may not be seen. Another record is seen twice only
//!   if the one stood on was let go of and vanished: the chain is then begun again.
//!
//! Origin: `docs/spec/tdb-format.md` 4.5, 6.5.

use std::time::{Duration, Instant};

use crate::chain::{Found, resize};
use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{Magic, RECORD_LEN};
use crate::lock::{LockKind, Locks, TryLock, Wait};
use crate::recovery::needs_recovery;
use crate::store::Store;

/// How long a traverse tries for the next lock of a chain while it stands on a record.
const STANDING_PATIENCE: Duration = Duration::from_millis(20);
/// First and last pause between two such tries.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Where a traverse stands. Finish it with [`Engine::end_traverse`] unless it ran to the end: it
/// holds a RECORD lock in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a cursor that is dropped half way leaves a record locked"]
pub struct Cursor {
    chain: u32,
    /// Record stood on, 0 between chains.
    offset: u32,
    /// Its RECORD lock is held: it cannot have been freed.
    held: bool,
    /// Ends the walk of a chain that runs in a circle. What is stored meanwhile comes in front of
    /// the cursor, so a whole chain hardly ever leads to the same offset twice.
    circle: CycleGuard,
}

impl Cursor {
    /// In front of the first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chain that is being walked.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.chain
    }
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// Goes to the next record and copies its key and value; `false` at the end. `kind` is the
    /// kind of chain lock taken while stepping; it waits.
    ///
    /// # Errors
    /// [`AccessError`]. The cursor then stands where it stood; end it.
    pub fn traverse_next(
        &mut self,
        cursor: &mut Cursor,
        kind: LockKind,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<bool, AccessError> {
        while cursor.chain < self.layout.hash_size {
            if cursor.offset == 0 && cursor.chain != 0 && self.chain_is_empty(cursor.chain)? {
                cursor.chain += 1;
                continue;
            }
            self.lock_for_step(cursor, kind)?;
            let stepped = self.step(cursor);
            let copied = match stepped {
                Ok(Some(found)) => self.copy_record(&found, key, value).map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            self.locks.unlock_chain(cursor.chain)?;
            if copied? {
                return Ok(true);
            }
            cursor.chain += 1;
        }
        Ok(false)
    }

    /// Lets go of the record a cursor stands on.
    ///
    /// # Errors
    /// [`AccessError::Lock`].
    pub fn end_traverse(&mut self, cursor: &mut Cursor) -> Result<(), AccessError> {
        let let_go = self.let_go(cursor);
        cursor.offset = 0;
        let_go
    }

    fn let_go(&mut self, cursor: &mut Cursor) -> Result<(), AccessError> {
        if std::mem::take(&mut cursor.held) {
            self.locks.release_record(cursor.offset)?;
        }
        Ok(())
    }

    /// Locks the cursor's chain, without sleeping for it while standing on a record.
    fn lock_for_step(&mut self, cursor: &mut Cursor, kind: LockKind) -> Result<(), AccessError> {
        // The clock is read only where there is something to wait for: it costs as much as a step.
        let (mut give_up, mut pause) = (None, PAUSE_MIN);
        let mut is_early =
            || Instant::now() < *give_up.get_or_insert_with(|| Instant::now() + STANDING_PATIENCE);
        while cursor.held {
            match self.lock_chain_checked(cursor.chain, kind, Wait::No) {
                Ok(TryLock::Granted) => return Ok(()),
                Ok(TryLock::Busy) if is_early() => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Ok(TryLock::Busy) => self.let_go(cursor)?,
                Err(error) => {
                    // Recovery locks everything, also the record.
                    self.let_go(cursor)?;
                    return Err(error);
                }
            }
        }
        self.lock_chain_waiting(cursor.chain, kind)
    }

    /// Is the record in the chain, which is locked?
    pub(crate) fn is_chained(&self, chain: u32, record: u32) -> Result<bool, AccessError> {
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        let mut circle = CycleGuard::new();
        while offset != 0 && offset != record {
            circle.check(offset)?;
            offset = self.read_chained(offset)?.next;
        }
        Ok(offset == record)
    }

    /// Calls `visit(key, value)` for every live record of a chain the caller has locked; stops at
    /// `false`. The buffers hold the copies and are used again.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn visit_chain(
        &self,
        chain: u32,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), AccessError> {
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            if header.magic == Magic::Live {
                self.copy_record(&Found { offset, header }, key, value)?;
                if !visit(key, value) {
                    break;
                }
            }
            circle.check(offset)?;
            offset = header.next;
        }
        Ok(())
    }

    /// Puts a cursor on a key, as `tdb_nextkey` does with a key that is not the one returned last;
    /// `false` (cursor unchanged) without such a record. The chain is locked for reading meanwhile.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn seek(&mut self, cursor: &mut Cursor, key: &[u8]) -> Result<bool, AccessError> {
        let hash = self.layout.hash.hash(key);
        let chain = self.layout.chain_of(hash);
        self.lock_chain_waiting(chain, LockKind::Read)?;
        let sought = match self.find(key, hash) {
            Ok(Some(found)) => self.stand_on(cursor, chain, found.offset).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        self.locks.unlock_chain(chain)?;
        sought
    }

    fn stand_on(
        &mut self,
        cursor: &mut Cursor,
        chain: u32,
        offset: u32,
    ) -> Result<(), AccessError> {
        self.locks.hold_record(offset)?;
        self.end_traverse(cursor)?;
        *cursor = Cursor { chain, offset, held: true, ..Cursor::new() };
        Ok(())
    }

    /// `true` if the head says so without any lock: a wrong answer means a concurrent change.
    pub fn chain_is_empty(&self, chain: u32) -> Result<bool, AccessError> {
        Ok(self.store.read_u32(self.layout.head_of(chain))? == 0)
    }

    /// From the record stood on to the next live one of the chain, which is locked.
    fn step(&mut self, cursor: &mut Cursor) -> Result<Option<Found>, AccessError> {
        if cursor.offset != 0 && !cursor.held && !self.is_chained(cursor.chain, cursor.offset)? {
            cursor.offset = 0; // let go of and freed: its place is not known any more
        }
        let mut offset = if cursor.offset == 0 {
            cursor.circle = CycleGuard::new();
            self.store.read_u32(self.layout.head_of(cursor.chain))?
        } else {
            let next = self.read_chained(cursor.offset)?.next;
            self.end_traverse(cursor)?;
            next
        };
        while offset != 0 {
            let header = self.read_chained(offset)?;
            if header.next == offset {
                return Err(AccessError::Corrupt { offset, reason: "the record is its own next" });
            }
            if let Err(circle) = cursor.circle.check(offset) {
                // A record that was freed under a cursor that had let go of it, and used again,
                // leads back to the head without any circle: look at the chain as it is now.
                if self.chain_len(cursor.chain)?.is_none() {
                    return Err(circle);
                }
                cursor.circle = CycleGuard::new();
            }
            if header.magic == Magic::Live {
                self.locks.hold_record(offset)?;
                (cursor.offset, cursor.held) = (offset, true);
                return Ok(Some(Found { offset, header }));
            }
            offset = header.next;
        }
        Ok(None)
    }

    fn copy_record(
        &self,
        found: &Found,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<(), AccessError> {
        let key_at = found.offset.saturating_add(RECORD_LEN);
        self.check_range(key_at, found.header.key_len as usize)?;
        resize(key, found.header.key_len as usize);
        self.store.read(key_at, key)?;
        self.value_into(found, value)
    }

    fn lock_chain_waiting(&mut self, chain: u32, kind: LockKind) -> Result<(), AccessError> {
        match self.lock_chain_checked(chain, kind, Wait::Yes)? {
            TryLock::Granted => Ok(()),
            TryLock::Busy => Err(AccessError::busy("a chain")),
        }
    }

    /// Locks a chain and makes sure that the data behind it may be trusted (spec 7.6).
    ///
    /// # Errors
    /// [`AccessError::NeedsRecovery`] (nothing is locked then), [`AccessError::Lock`].
    #[inline]
    pub fn lock_chain_checked(
        &mut self,
        chain: u32,
        kind: LockKind,
        wait: Wait,
    ) -> Result<TryLock, AccessError> {
        let answer = self.locks.lock_chain(chain, kind, wait)?;
        // Under ALLRECORD nobody commits, and who took that has looked already.
        if answer == TryLock::Granted && !self.locks.holds_all_records() {
            // What cannot be read cannot be trusted either: recovery says what is wrong.
            if needs_recovery(self.store).unwrap_or(true) {
                self.locks.unlock_chain(chain)?;
                return Err(AccessError::NeedsRecovery);
            }
        }
        Ok(answer)
    }
}
