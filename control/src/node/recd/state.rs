//! What the recovery daemon's sequences share.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.1.

/// See the module. `default()` is the state before the start.
#[derive(Clone, Debug, Default)]
pub struct RecdState {
    /// Everything ends.
    pub(super) stopped: bool,
}
