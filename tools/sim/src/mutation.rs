//! Deliberate mistakes in the protocol, each made around the engine, not in it: what the checkers
//! are worth is how surely they find these.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A record's rsn stops growing: a recovery cannot tell old from new.
    RsnNotRaised,
    /// A packet of an earlier generation is taken for one of today.
    OldGenerationAccepted,
    /// A revoke reports success without having told the holders of copies.
    RevokeForgotten,
    /// The holder of a copy confirms the revoke and goes on using the copy.
    CopyKeptAfterRevoke,
    /// Vacuuming deletes a tombstone without asking the other nodes for older copies.
    TombstoneDroppedEarly,
    /// After everybody has agreed, a tombstone is deleted without another look.
    TombstoneNotLookedAtAgain,
    /// One node's calls are looked at late, again and again.
    CallsHeldBack,
    /// The old dmaster notes the new one only some time after the packet has left.
    DmasterStoredLate,
    /// The lmaster believes a `REQ_DMASTER` whoever it comes from (and old ones come again).
    StrangerBelieved,
    /// After a recovery nothing is sent again.
    ResendForgotten,
    /// The daemon changes a record while a client has its chain locked.
    ChainLockNotTaken,
    /// A packet that waits for a busy chain is forgotten.
    WaiterLost,
    /// A recovery takes the first copy that it finds.
    RecoveryIgnoresRsn,
    /// A client writes although read-only copies are out.
    ClientIgnoresDelegations,
    /// `UPDATE_RECORD` is done by a thread of its own, and may come before the copy that it calls
    /// back.
    UpdateOvertakesCopy,
    /// A control from before a recovery is obeyed, and `UPDATE_RECORD` overwrites whatever it meets, as
    /// in C.
    LateControlObeyed,
    /// Vacuuming asks only the nodes that it has a connection to, as in C.
    AbsentNotAsked,
}

impl Mutation {
    /// By its name, as `{:?}` writes it.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|mutation| format!("{mutation:?}") == name)
    }

    /// Those that a few runs find. The last three take thousands.
    pub const ALL: [Self; 13] = [
        Self::RsnNotRaised,
        Self::OldGenerationAccepted,
        Self::RevokeForgotten,
        Self::CopyKeptAfterRevoke,
        Self::TombstoneDroppedEarly,
        Self::TombstoneNotLookedAtAgain,
        Self::DmasterStoredLate,
        Self::StrangerBelieved,
        Self::ResendForgotten,
        Self::ChainLockNotTaken,
        Self::WaiterLost,
        Self::RecoveryIgnoresRsn,
        Self::ClientIgnoresDelegations,
    ];

    const EVERY: [Self; 17] = [
        Self::CallsHeldBack,
        Self::RsnNotRaised,
        Self::OldGenerationAccepted,
        Self::RevokeForgotten,
        Self::CopyKeptAfterRevoke,
        Self::TombstoneDroppedEarly,
        Self::TombstoneNotLookedAtAgain,
        Self::DmasterStoredLate,
        Self::StrangerBelieved,
        Self::ResendForgotten,
        Self::ChainLockNotTaken,
        Self::WaiterLost,
        Self::RecoveryIgnoresRsn,
        Self::ClientIgnoresDelegations,
        Self::UpdateOvertakesCopy,
        Self::LateControlObeyed,
        Self::AbsentNotAsked,
    ];
}
