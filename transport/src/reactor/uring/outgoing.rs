//! Output of one stream on its way to the kernel.
//!
//! Role: pure; what waits, what the kernel has, how the next send is asked for.
//! Invariants
//! - One send at a time; its bytes do not move until it has ended.
//! - A send is first tried *at once*: it ends while it is submitted, and says nothing when all has
//!   been taken, so that nobody is woken up for it. What is left of it follows in *patient* sends,
//!   which wait in the kernel for the reader and say when they are done.
//!
//! Origin: ours.

use super::super::KEPT_MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnderWay {
    #[default]
    Nothing,
    AtOnce,
    Patient,
}

/// How a send is to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Without waiting; no completion when all has been taken.
    AtOnce,
    /// Waits for the reader; always completes.
    Patient,
}

/// What comes after a send that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The rest of it, or what has been appended meanwhile.
    Send,
    /// Nothing waits any more, and something had to wait.
    Drained,
    /// Nothing.
    Rest,
    /// The stream is broken.
    Broken(i32),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Appended since the last send was begun.
    waiting: Vec<u8>,
    /// With the kernel while a send is under way.
    flying: Vec<u8>,
    /// Bytes of `flying` that the kernel has taken.
    taken: usize,
    under_way: UnderWay,
    /// The reader is behind: patient sends until everything is out.
    behind: bool,
}

impl Outgoing {
    /// Where to append.
    pub(super) const fn waiting(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Bytes that the kernel has not taken yet.
    pub(super) const fn queued(&self) -> usize {
        self.waiting.len() + self.flying.len() - self.taken
    }

    /// Whether the kernel has bytes of this stream.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way != UnderWay::Nothing
    }

    /// Drops what has not been given to the kernel.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting = Vec::new();
    }

    /// Begins the next send, if there is something to send and nothing under way. The bytes stay
    /// where they are until [`Self::ended`] or [`Self::went`].
    pub(super) fn begin(&mut self, at_once: bool) -> Option<(How, &[u8])> {
        if self.is_under_way() {
            return None;
        }
        if self.taken == self.flying.len() {
            self.flying.clear();
            self.taken = 0;
            if self.flying.capacity() > KEPT_MAX {
                self.flying = Vec::new();
            }
            std::mem::swap(&mut self.flying, &mut self.waiting);
        }
        if self.flying.is_empty() {
            return None;
        }
        let how = if at_once && !self.behind { How::AtOnce } else { How::Patient };
        self.under_way = match how {
            How::AtOnce => UnderWay::AtOnce,
            How::Patient => UnderWay::Patient,
        };
        Some((how, &self.flying[self.taken..]))
    }

    /// A send has completed with this result of the kernel's.
    pub(super) fn ended(&mut self, result: i32) -> After {
        self.behind = true;
        self.under_way = UnderWay::Nothing;
        match usize::try_from(result) {
            Ok(taken) => self.taken = self.flying.len().min(self.taken + taken),
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => {}
            Err(_) => return After::Broken(-result),
        }
        if self.queued() > 0 {
            return After::Send;
        }
        self.behind = false;
        self.forget_sent();
        After::Drained
    }

    /// Everything has been submitted: a send at once that has not completed has taken all.
    pub(super) fn went(&mut self) -> After {
        if self.under_way != UnderWay::AtOnce {
            return After::Rest;
        }
        self.under_way = UnderWay::Nothing;
        self.forget_sent();
        if self.waiting.is_empty() { After::Rest } else { After::Send }
    }

    fn forget_sent(&mut self) {
        self.flying.clear();
        self.taken = 0;
        if self.flying.capacity() > KEPT_MAX {
            self.flying = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bytes: &[u8]) -> Outgoing {
        let mut outgoing = Outgoing::default();
        outgoing.waiting().extend_from_slice(bytes);
        outgoing
    }

    #[test]
    fn what_is_taken_at_once_is_gone_without_a_word() {
        let mut outgoing = with(b"abc");
        assert_eq!(outgoing.begin(true), Some((How::AtOnce, b"abc".as_slice())));
        assert_eq!((outgoing.is_under_way(), outgoing.queued()), (true, 3));
        assert_eq!(outgoing.went(), After::Rest);
        assert_eq!((outgoing.is_under_way(), outgoing.queued()), (false, 0));
        assert_eq!(outgoing.begin(true), None);
    }

    #[test]
    fn what_is_appended_meanwhile_follows_in_order() {
        let mut outgoing = with(b"abc");
        assert!(outgoing.begin(true).is_some());
        outgoing.waiting().extend_from_slice(b"def");
        assert_eq!(outgoing.begin(true), None, "one at a time");
        assert_eq!(outgoing.went(), After::Send);
        assert_eq!(outgoing.begin(true), Some((How::AtOnce, b"def".as_slice())));
    }

    #[test]
    fn a_reader_that_is_behind_is_waited_for_until_all_is_out() {
        let mut outgoing = with(b"abcdef");
        assert!(outgoing.begin(true).is_some());
        outgoing.waiting().extend_from_slice(b"gh");
        assert_eq!(outgoing.ended(2), After::Send);
        assert_eq!(outgoing.went(), After::Rest, "it has completed already");
        assert_eq!(outgoing.begin(true), Some((How::Patient, b"cdef".as_slice())));
        assert_eq!(outgoing.queued(), 6);
        assert_eq!(outgoing.went(), After::Rest, "it says itself when it is done");
        assert!(outgoing.is_under_way());
        assert_eq!(outgoing.ended(4), After::Send);
        assert_eq!(outgoing.begin(true), Some((How::Patient, b"gh".as_slice())));
        assert_eq!(outgoing.ended(-libc::EAGAIN), After::Send);
        assert_eq!(outgoing.begin(true), Some((How::Patient, b"gh".as_slice())));
        assert_eq!(outgoing.ended(2), After::Drained);
        outgoing.waiting().push(1);
        assert_eq!(outgoing.begin(true), Some((How::AtOnce, [1].as_slice())));
    }

    #[test]
    fn an_error_breaks_the_stream() {
        let mut outgoing = with(b"abc");
        assert!(outgoing.begin(true).is_some());
        assert_eq!(outgoing.ended(-libc::EPIPE), After::Broken(libc::EPIPE));
    }

    #[test]
    fn a_long_queue_leaves_no_memory_behind() {
        let mut outgoing = with(&vec![0; 10 * KEPT_MAX]);
        assert!(outgoing.begin(false).is_some());
        assert_eq!(outgoing.ended(i32::try_from(10 * KEPT_MAX).unwrap()), After::Drained);
        assert!(outgoing.flying.capacity() + outgoing.waiting.capacity() <= 2 * KEPT_MAX);
    }
}
