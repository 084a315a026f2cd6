//! Wakes a shard that sleeps in the kernel, and only then.
//!
//! Role: a producer that pushed into a shard's inbox asks [`Doorbell::must_ring`]; only when the
//! owner announced its sleep does the producer pay for a write to the eventfd.
//! Invariant: either the owner sees the message before it sleeps, or the producer rings. The two
//! fences make it so: with sequential consistency between them, one side sees the other's store.
//! Origin: ours; proven with loom below (`RUSTFLAGS="--cfg loom"`).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

/// One per shard, shared by everybody who sends to it.
#[derive(Debug, Default)]
pub struct Doorbell {
    asleep: AtomicBool,
}

impl Doorbell {
    /// Owner: call, then look at every inbox once more, and only then block in the kernel.
    pub fn announce_sleep(&self) {
        // A swap, not a store: all changes of `asleep` then form one chain, which loom needs to
        // order them (it allows a plain store to slip between a producer's read and write).
        self.asleep.swap(true, Ordering::Relaxed);
        // Pairs with the fence in `must_ring`: either our later look at the inbox sees the push,
        // or the producer's later swap sees `asleep`.
        fence(Ordering::SeqCst);
    }

    /// Owner: call after waking, before draining, so that producers stop ringing.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Producer: call after the push; `true` means write the eventfd. At most one producer rings
    /// for one sleep.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with `announce_sleep`
        self.asleep.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_awake_shard_is_not_rung() {
        assert!(!Doorbell::default().must_ring());
    }

    #[test]
    fn one_sleep_is_rung_once() {
        let bell = Doorbell::default();
        bell.announce_sleep();
        assert!(bell.must_ring());
        assert!(!bell.must_ring());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, atomic::AtomicU32};

    /// The number stands for the queue. Without either fence this test fails.
    #[test]
    fn push_is_seen_or_bell_rings() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0)));
            let other = Arc::clone(&shared);
            let producer = loom::thread::spawn(move || {
                other.1.store(1, Ordering::Release);
                other.0.must_ring()
            });
            shared.0.announce_sleep();
            let saw_message = shared.1.load(Ordering::Acquire) == 1;
            assert!(producer.join().unwrap() || saw_message, "lost wake-up");
        });
    }

    #[test]
    fn two_producers_do_not_lose_a_wake_up() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::default(), AtomicU32::new(0)));
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let other = Arc::clone(&shared);
                    loom::thread::spawn(move || {
                        other.1.fetch_add(1, Ordering::AcqRel);
                        other.0.must_ring()
                    })
                })
                .collect();
            shared.0.announce_sleep();
            let seen = shared.1.load(Ordering::Acquire);
            let rings = producers.into_iter().map(|producer| producer.join().unwrap());
            let rung = rings.fold(false, |any, one| any | one);
            assert!(rung || seen == 2, "a message waits while the shard sleeps");
        });
    }
}
