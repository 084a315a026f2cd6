//! What is due at a time, and the engine's own turn.

use ringmaster_protocol::DbId;

use super::{Context, Micros, Output, RecordEngine, RecordStore, parking::Parked};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A deferred-fetch queue has waited long enough.
    DeferredFetch { db: DbId, key: Box<[u8]>, opened: u64 },
    /// A record that came for local clients may go again.
    LeaseEnd { db: DbId, key: Box<[u8]> },
    /// A pinned sticky record is let go.
    Unpin { db: DbId, key: Box<[u8]> },
    /// A revoke has taken too long.
    RevokeTimeout { db: DbId, key: Box<[u8]>, started: u64 },
    /// Packets held back after a revoke.
    Inject { parked: Vec<Parked> },
}

impl RecordEngine {
    /// When [`Self::turn`] wants to be called again; `None` when nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        if !self.injected.is_empty() {
            return Some(Micros(0));
        }
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Processes due timers and what they and earlier events have put aside. Bounded: packets put
    /// aside while it runs wait for the next turn.
    pub fn turn<S: RecordStore, O: Output>(&mut self, cx: &mut Context<'_, S, O>) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > cx.now {
                break;
            }
            let timer = entry.remove();
            self.timer_fired(cx, timer);
        }
        for _ in 0..self.injected.len() {
            let Some(parked) = self.injected.pop_front() else { break };
            self.process(cx, parked);
        }
    }

    pub(super) fn timer_fired<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        timer: Timer,
    ) {
        match timer {
            Timer::DeferredFetch { db, key, opened } => {
                if self.deferred_fetch_of(db, &key).is_some_and(|queue| queue.opened == opened) {
                    self.release_deferred_fetch(db, &key);
                }
            }
            Timer::LeaseEnd { db, key } => self.lease_ends(db, &key),
            Timer::Unpin { db, key } => self.unpin(db, &key),
            Timer::RevokeTimeout { db, key, started } => {
                self.revoke_timed_out(cx, db, &key, started);
            }
            Timer::Inject { parked } => self.injected.extend(parked),
        }
    }

    pub(super) fn set_timer(&mut self, at: Micros, timer: Timer) {
        self.next_timer += 1;
        self.timers.insert((at, self.next_timer), timer);
    }
}
