//! What the engine works with: names of things, the clock, the ways out, settings.

use ringmaster_protocol::{DbId, Generation, Packet, Pnn, Reqid};

/// Microseconds since an arbitrary start; never goes back. The record path's clock: a lease is a few
/// hundred of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// Later by `micros`.
    #[must_use]
    pub const fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Later by whole milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        self.plus(millis.saturating_mul(1_000))
    }

    /// What has passed since an earlier time; 0 if it was later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Name of a local client, unique for the life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// Names a parked packet that waits for its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a control that the engine has sent and wants to hear the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlToken(pub u64);

/// Names an `UPDATE_RECORD` of another node; chosen by whoever brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateToken(pub u64);

/// What the engine wants done. The implementor encodes and counts; it decides nothing.
pub trait Output {
    /// Answers a client's call (`REPLY_CALL`). The client may be gone: then nothing is sent.
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]);

    /// Sends a packet to another node (never to this one).
    fn send_node(&mut self, to: Pnn, envelope: NodeEnvelope, packet: &Packet<'_>);

    /// The chain of `key` is busy: wait for it, then call
    /// [`RecordEngine::chain_ready`](super::RecordEngine::chain_ready) with the
    /// chain still locked for us.
    fn wait_for_chain(&mut self, db: DbId, key: &[u8], ticket: Ticket);

    /// Sends an `UPDATE_RECORD` control (payload: a `ctdb_rec_buffer`) to a node; its end comes
    /// back through [`RecordEngine::control_done`](super::RecordEngine::control_done).
    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]);

    /// The answer to [`RecordEngine::update_copy`](super::RecordEngine::update_copy).
    fn updated(&mut self, token: UpdateToken, status: i32);

    /// A call has been forwarded so often that somebody should know: the record moves faster than
    /// calls for it, or two nodes send each other what neither has.
    fn high_hop_count(&mut self, db: DbId, key: &[u8], hopcount: u32);

    /// The record protocol has been violated in a way that only a recovery repairs.
    fn force_recovery(&mut self, reason: &'static str);
}

/// Addressing of a record packet between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEnvelope {
    /// Whom the answer goes to: the origin of a call, even when somebody forwards it.
    pub source: Pnn,
    /// Chosen by the origin of the call.
    pub reqid: Reqid,
    /// Of the database.
    pub generation: Generation,
}

/// Tunables that the record path reads (`docs/spec/cluster-semantics.md` 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTunables {
    /// `FetchCollapse`: one migration at a time per key, later callers wait for it.
    pub fetch_collapse: bool,
    /// `HopcountMakeSticky`: hops that make a key sticky (sticky databases only).
    pub hopcount_make_sticky: u32,
    /// `StickyDuration`, in seconds.
    pub sticky_duration_s: u32,
    /// `StickyPindown`, in milliseconds.
    pub sticky_pindown_ms: u32,
    /// `ControlTimeout`, in seconds: a revoke gives up after it.
    pub control_timeout_s: u32,
    /// Records stay for a moment where they were wanted. Ours; no tunable.
    pub leases: bool,
}

impl Default for RecordTunables {
    fn default() -> Self {
        Self {
            fetch_collapse: true,
            hopcount_make_sticky: 50,
            sticky_duration_s: 600,
            sticky_pindown_ms: 200,
            control_timeout_s: 60,
            leases: true,
        }
    }
}

/// What a call into the engine works with.
pub struct Context<'a, S, O> {
    /// Now.
    pub now: Micros,
    /// The records.
    pub store: &'a mut S,
    /// Where the results go.
    pub out: &'a mut O,
}
