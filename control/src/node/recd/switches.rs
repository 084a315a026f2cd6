//! Operations that can be switched off for a time: recoveries and takeover runs.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.10; `ctdb_recoverd.c: ctdb_op_state`.

use crate::plane::Millis;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Switch {
    /// May begin.
    #[default]
    Enabled,
    /// May begin again then.
    DisabledUntil(Millis),
    /// Under way.
    InProgress,
}

/// The operation is under way and cannot be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Switch {
    /// Whether it is switched off now.
    pub(super) fn is_disabled(self, now: Millis) -> bool {
        matches!(self, Self::DisabledUntil(until) if now < until)
    }

    /// Begins the operation; `false` if it is switched off.
    pub(super) fn begin(&mut self, now: Millis) -> bool {
        if self.is_disabled(now) {
            return false;
        }
        *self = Self::InProgress;
        true
    }

    /// The operation is over.
    pub(super) fn end(&mut self) {
        *self = Self::Enabled;
    }

    /// Switches off for so many seconds; 0: on.
    ///
    /// # Errors
    /// [`Busy`].
    pub(super) fn disable(&mut self, now: Millis, seconds: u32) -> Result<(), Busy> {
        *self = match (seconds, *self) {
            // "On" is what an operation under way is already.
            (0, Self::InProgress) => Self::InProgress,
            (0, _) => Self::Enabled,
            (_, Self::InProgress) => return Err(Busy),
            (seconds, _) => Self::DisabledUntil(now.plus_seconds(seconds)),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_comes_back_on_by_itself() {
        let mut switch = Switch::default();
        assert_eq!(switch.disable(Millis(0), 10), Ok(()));
        assert!(!switch.begin(Millis(9_999)));
        assert!(switch.begin(Millis(10_000)));
    }

    #[test]
    fn an_operation_under_way_is_not_switched_off() {
        let mut switch = Switch::default();
        assert!(switch.begin(Millis(0)));
        assert_eq!(switch.disable(Millis(0), 10), Err(Busy));
        assert_eq!(switch.disable(Millis(0), 0), Ok(()));
        switch.end();
        assert_eq!(switch.disable(Millis(0), 10), Ok(()));
        assert_eq!(switch.disable(Millis(0), 0), Ok(()));
        assert!(switch.begin(Millis(0)));
    }
}
