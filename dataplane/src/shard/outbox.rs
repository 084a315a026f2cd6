//! Messages to one other shard (or the control thread): bounded, ordered, never blocking.
//!
//! Role: the producer's end of a queue. Many producers may share one queue; each keeps its own
//! order.
//! Invariants
//! - Messages of one outbox arrive in the order of `send`.
//! - Neither side ever blocks: when the queue is full the message waits here, in order.
//! - At most `parked_max` messages wait. The caller asks [`Outbox::credit`] before it takes new
//!   work and stops reading input at 0; replies may use the reserve (`parked_reserve`), so that
//!   answers never wait for credit held by requests.
//!
//! Origin: ours.

use std::{collections::VecDeque, fmt, sync::Arc};

use crossbeam_queue::ArrayQueue;
use rustix::fd::{AsFd, OwnedFd};

use super::doorbell::Doorbell;

/// What a consumer shares with its producers.
#[derive(Debug)]
pub struct Inbox<M> {
    queue: ArrayQueue<M>,
    bell: Doorbell,
    /// Written to when the owner sleeps; the owner's reactor polls it.
    wake: OwnedFd,
}

impl<M> Inbox<M> {
    /// `capacity` messages; `wake` is the owner's eventfd.
    #[must_use]
    pub fn new(capacity: usize, wake: OwnedFd) -> Arc<Self> {
        Arc::new(Self { queue: ArrayQueue::new(capacity), bell: Doorbell::default(), wake })
    }

    /// Owner: the oldest message.
    #[must_use]
    pub fn pop(&self) -> Option<M> {
        self.queue.pop()
    }

    /// Owner: announces its sleep; `false` when a message is there and it must not sleep.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.bell.announce_sleep();
        if self.queue.is_empty() {
            return true;
        }
        self.bell.awake();
        false
    }

    /// Owner: after waking.
    pub fn awake(&self) {
        self.bell.awake();
    }

    /// The eventfd that producers write to.
    #[must_use]
    pub fn wake_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn ring(&self) {
        if self.bell.must_ring() {
            // A full eventfd counter (EAGAIN) means that the owner has wake-ups waiting: enough.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// The producer's end. Stays on the thread that made it.
pub struct Outbox<M> {
    inbox: Arc<Inbox<M>>,
    parked: VecDeque<M>,
    parked_max: usize,
    parked_reserve: usize,
}

impl<M> Outbox<M> {
    /// `parked_max` messages may wait here for requests, `parked_reserve` more for replies.
    #[must_use]
    pub fn new(inbox: Arc<Inbox<M>>, parked_max: usize, parked_reserve: usize) -> Self {
        Self { inbox, parked: VecDeque::new(), parked_max, parked_reserve }
    }

    /// How many requests may be sent now.
    #[must_use]
    pub fn credit(&self) -> usize {
        self.parked_max.saturating_sub(self.parked.len())
    }

    /// Sends a request.
    ///
    /// # Panics
    /// Without credit: the caller has to stop reading input before it comes to that.
    pub fn send(&mut self, message: M) {
        assert!(self.credit() > 0, "caller must check credit() before taking new work");
        self.push(message);
    }

    /// Sends an answer to something that the other side holds a place for.
    ///
    /// # Panics
    /// When more replies are under way than were reserved: an accounting error.
    pub fn send_reply(&mut self, message: M) {
        let limit = self.parked_max + self.parked_reserve;
        assert!(self.parked.len() < limit, "more replies than requests that hold a place");
        self.push(message);
    }

    fn push(&mut self, message: M) {
        self.parked.push_back(message);
        self.flush();
    }

    /// Moves parked messages on; called once per loop turn. `true` when none is left.
    pub fn flush(&mut self) -> bool {
        let mut moved = false;
        while let Some(message) = self.parked.pop_front() {
            if let Err(refused) = self.inbox.queue.push(message) {
                self.parked.push_front(refused);
                break;
            }
            moved = true;
        }
        if moved {
            self.inbox.ring();
        }
        self.parked.is_empty()
    }
}

impl<M> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("parked", &self.parked.len())
            .field("parked_max", &self.parked_max)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn inbox(capacity: usize) -> Arc<Inbox<u32>> {
        Inbox::new(capacity, eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd"))
    }

    fn rung(inbox: &Inbox<u32>) -> bool {
        rustix::io::read(inbox.wake_fd(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn order_holds_while_the_queue_is_full() {
        let inbox = inbox(2);
        let mut outbox = Outbox::new(Arc::clone(&inbox), 8, 0);
        for number in 0..6 {
            outbox.send(number);
        }
        assert_eq!(outbox.credit(), 4);
        let mut seen = Vec::new();
        while seen.len() < 6 {
            seen.extend(inbox.pop());
            outbox.flush();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert_eq!(outbox.credit(), 8);
    }

    #[test]
    fn replies_pass_when_requests_have_used_up_the_credit() {
        let inbox = inbox(1);
        let mut outbox = Outbox::new(Arc::clone(&inbox), 1, 1);
        outbox.send(1);
        outbox.send(2);
        assert_eq!(outbox.credit(), 0);
        outbox.send_reply(3);
        assert_eq!(inbox.pop(), Some(1));
        assert!(!outbox.flush());
    }

    #[test]
    fn only_a_sleeper_is_rung() {
        let inbox = inbox(4);
        let mut outbox = Outbox::new(Arc::clone(&inbox), 4, 0);
        outbox.send(1);
        assert!(!rung(&inbox));
        assert!(!inbox.may_sleep(), "a message is waiting");
        assert_eq!(inbox.pop(), Some(1));
        assert!(inbox.may_sleep());
        outbox.send(2);
        assert!(rung(&inbox));
    }
}
