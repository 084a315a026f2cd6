//! The shards from control's side: starting them, giving orders, counting acknowledgements.
//!
//! Invariants
//! - An order goes to all shards; its continuation runs when every shard has acknowledged it.
//! - Orders arrive in every shard in the order in which they were given.
//!
//! Origin: ours.

use std::{collections::HashMap, fmt, io, sync::Arc, thread::JoinHandle};

use ringmaster_dataplane::{
    shard::{
        ShardId,
        limits::{INBOX_MESSAGES, PARKED_MAX, PARKED_REPLIES},
        message::{AckToken, FromShard, Order, ToShard},
        outbox::{Inbox, Outbox},
        runtime::{self, ShardParts},
    },
    view::NodeView,
};
use ringmaster_transport::reactor::ReactorKind;
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
};

use crate::system;

/// What to do once all shards have acknowledged: told whether all could do it.
type Then<T> = Box<dyn FnOnce(&mut T, bool)>;

struct Ack<T> {
    missing: usize,
    done: bool,
    then: Then<T>,
}

/// All shards. `T` is whoever runs the continuations.
pub(crate) struct Shards<T> {
    outboxes: Vec<Outbox<ToShard>>,
    inbox: Arc<Inbox<FromShard>>,
    threads: Vec<JoinHandle<()>>,
    acks: HashMap<AckToken, Ack<T>>,
    next: u64,
}

impl<T> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("shards", &self.outboxes.len())
            .field("acks", &self.acks.len())
            .finish_non_exhaustive()
    }
}

fn doorbell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

impl<T> Shards<T> {
    /// Starts `count` threads, which run before all normal ones if `realtime` says so.
    ///
    /// # Errors
    /// When the kernel has no descriptor or thread left.
    pub(crate) fn start(
        count: u16,
        reactor: ReactorKind,
        view: &Arc<NodeView>,
        realtime: bool,
    ) -> io::Result<Self> {
        let inbox = Inbox::new(INBOX_MESSAGES, doorbell()?);
        let mut inboxes = Vec::new();
        for _ in 0..count {
            inboxes.push(Inbox::new(INBOX_MESSAGES, doorbell()?));
        }
        let mut threads = Vec::new();
        for id in 0..count {
            let parts = ShardParts {
                id: ShardId(id),
                inboxes: inboxes.clone(),
                control: Arc::clone(&inbox),
                reactor,
                view: Arc::clone(view),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{id}"));
            threads.push(thread.spawn(move || {
                if realtime && let Err(error) = system::run_this_thread_first() {
                    tracing::error!(%error, "shard runs without real-time scheduling");
                }
                runtime::run(parts);
            })?);
        }
        let outbox = |inbox| Outbox::new(inbox, PARKED_MAX, PARKED_REPLIES);
        let outboxes = inboxes.into_iter().map(outbox).collect();
        Ok(Self { outboxes, inbox, threads, acks: HashMap::new(), next: 0 })
    }

    /// Where the shards' messages come in; rings its doorbell when control sleeps.
    pub(crate) const fn inbox(&self) -> &Arc<Inbox<FromShard>> {
        &self.inbox
    }

    /// Sends something to one shard.
    pub(crate) fn send(&mut self, shard: ShardId, message: ToShard) {
        if let Some(outbox) = self.outboxes.get_mut(usize::from(shard.0)) {
            outbox.send_reply(message);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.outboxes.len()).unwrap_or(u16::MAX)
    }

    /// Sends something to every shard.
    pub(crate) fn send_all(&mut self, message: impl Fn() -> ToShard) {
        for outbox in &mut self.outboxes {
            outbox.send_reply(message());
        }
    }

    /// Gives an order to all shards.
    pub(crate) fn order(
        &mut self,
        order: impl Fn() -> Order,
        then: impl FnOnce(&mut T, bool) + 'static,
    ) -> AckToken {
        self.next += 1;
        let token = AckToken(self.next);
        for outbox in &mut self.outboxes {
            outbox.send_reply(ToShard::Order(token, order()));
        }
        let ack = Ack { missing: self.outboxes.len(), done: true, then: Box::new(then) };
        self.acks.insert(token, ack);
        token
    }

    /// Notes an acknowledgement; returns the continuation once it was the last one.
    pub(crate) fn acknowledged(
        &mut self,
        token: AckToken,
        done: bool,
    ) -> Option<impl FnOnce(&mut T) + use<T>> {
        let ack = self.acks.get_mut(&token)?;
        ack.done &= done;
        ack.missing = ack.missing.saturating_sub(1);
        if ack.missing > 0 {
            return None;
        }
        let Ack { done, then, .. } = self.acks.remove(&token)?;
        Some(move |whom: &mut T| then(whom, done))
    }

    /// Moves waiting messages on; `true` when none is left.
    pub(crate) fn flush(&mut self) -> bool {
        let mut all = true;
        for outbox in &mut self.outboxes {
            all &= outbox.flush();
        }
        all
    }

    /// Ends all shards and waits for their threads.
    pub(crate) fn stop(mut self) {
        for outbox in &mut self.outboxes {
            outbox.send_reply(ToShard::Stop);
        }
        while !self.flush() {
            // A shard may be waiting for room in our inbox.
            while self.inbox.pop().is_some() {}
            std::thread::yield_now();
        }
        for thread in self.threads {
            while !thread.is_finished() {
                while self.inbox.pop().is_some() {}
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            // A shard that panicked has said so on its way down.
            let _ = thread.join();
        }
    }
}
