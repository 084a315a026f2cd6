//! The reactor on io_uring: one enter per turn submits all output and collects all input.
//!
//! Role: multishot accept and receive into provided buffers, one send under way per stream, the
//! doorbell as a read that is armed again.
//! Invariants
//! - Memory given to the kernel stays where it is until its completion: output under way is
//!   `Entry::flying`, which nobody else touches; an entry lives until its last operation is done.
//! - Dropping the reactor cancels and drains first. Were the kernel ever to keep an operation
//!   longer than that, the memory is leaked, not freed.
//! - Nothing newer than Linux 6.1 is needed; the probe says what is missing.
//!
//! Origin: ours.

mod buffers;

use std::{fmt, io, time::Duration};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::{
    fd::{AsRawFd, FromRawFd, OwnedFd},
    net::Shutdown,
};

use self::buffers::BufferRing;
use super::{
    Event, Reactor, ReactorError, RecvBuffer, Token, Wait, passing_accept_error, slots::Slots,
};

/// Submissions that fit into the ring; more are submitted on the way.
const ENTRIES: u32 = 1024;

/// Completions that fit; the kernel keeps what does not (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 8192;

/// Turns that a drop waits for the kernel to give memory back, 10 ms each.
const DRAIN_TURNS: u32 = 200;

/// Provided buffers of this reactor.
const BUFFER_GROUP: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 1,
    Receive = 2,
    Send = 3,
    Doorbell = 4,
    Cancel = 5,
}

impl Op {
    fn of(user_data: u64) -> Option<Self> {
        Some(match user_data >> 56 {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::Send,
            4 => Self::Doorbell,
            5 => Self::Cancel,
            _ => return None,
        })
    }

    fn tag(self, token: Token) -> u64 {
        token.to_bits() | ((self as u64) << 56)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listener,
    Doorbell,
    Stream,
}

#[derive(Debug)]
struct Entry {
    fd: OwnedFd,
    kind: Kind,
    /// Appended by the shard since the last send was submitted.
    out: Vec<u8>,
    /// With the kernel while `sending`.
    flying: Vec<u8>,
    /// Bytes of `flying` that the kernel has already taken.
    sent: usize,
    sending: bool,
    receiving: bool,
    paused: bool,
    dirty: bool,
    /// The shard has been told, or has asked: only operations under way keep the entry.
    closed: bool,
    /// Where the doorbell's read puts the counter.
    counter: Box<[u8; 8]>,
}

impl Entry {
    const fn idle(&self) -> bool {
        !self.sending && !self.receiving
    }
}

/// See the module.
pub struct UringReactor {
    ring: IoUring,
    /// Entries under way live here even after their close.
    entries: Slots<Entry>,
    dirty: Vec<Token>,
    /// Streams and listeners whose receive ended for a passing reason and has to be armed again.
    rearm: Vec<Token>,
    /// Streams that found no buffer: armed again when one comes back.
    starved: Vec<Token>,
    buffers: BufferRing,
}

impl fmt::Debug for UringReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringReactor").field("entries", &self.entries).finish_non_exhaustive()
    }
}

const fn unavailable(what: &'static str) -> ReactorError {
    ReactorError::Unavailable { what, source: None }
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> ReactorError {
    move |source| ReactorError::Kernel { action, source }
}

impl UringReactor {
    /// Probes and sets up; call it on the thread that will use it (single issuer).
    ///
    /// # Errors
    /// [`ReactorError::Unavailable`] where the kernel lacks an operation or forbids the calls.
    pub fn new() -> Result<Self, ReactorError> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            .map_err(|source| ReactorError::Unavailable {
                what: "the kernel refuses to set up a ring",
                source: Some(source),
            })?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|source| {
            ReactorError::Unavailable { what: "the kernel refuses a probe", source: Some(source) }
        })?;
        for (code, what) in [
            (opcode::Accept::CODE, "accept is missing"),
            (opcode::RecvMulti::CODE, "receive is missing"),
            (opcode::Send::CODE, "send is missing"),
            (opcode::Read::CODE, "read is missing"),
            (opcode::AsyncCancel::CODE, "cancel is missing"),
        ] {
            if !probe.is_supported(code) {
                return Err(unavailable(what));
            }
        }
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(unavailable("the kernel is too old (before 5.11)"));
        }
        let buffers = BufferRing::register(&ring.submitter(), BUFFER_GROUP).map_err(|source| {
            ReactorError::Unavailable {
                what: "the kernel has no buffer rings (before 5.19)",
                source: Some(source),
            }
        })?;
        Ok(Self {
            ring,
            entries: Slots::new(),
            dirty: Vec::new(),
            rearm: Vec::new(),
            starved: Vec::new(),
            buffers,
        })
    }

    fn add(&mut self, fd: OwnedFd, kind: Kind) -> Result<Token, ReactorError> {
        let token = self.entries.insert(Entry {
            fd,
            kind,
            out: Vec::new(),
            flying: Vec::new(),
            sent: 0,
            sending: false,
            receiving: false,
            paused: false,
            dirty: false,
            closed: false,
            counter: Box::new([0; 8]),
        });
        self.arm(token)?;
        Ok(token)
    }

    /// Queues the operation with which the entry receives.
    fn arm(&mut self, token: Token) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get_mut(token) else { return Ok(()) };
        if entry.receiving || entry.closed || entry.paused {
            return Ok(());
        }
        entry.receiving = true;
        let fd = types::Fd(entry.fd.as_raw_fd());
        let operation = match entry.kind {
            Kind::Listener => opcode::AcceptMulti::new(fd)
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(Op::Accept.tag(token)),
            Kind::Stream => {
                opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(Op::Receive.tag(token))
            }
            Kind::Doorbell => opcode::Read::new(fd, entry.counter.as_mut_ptr(), 8)
                .build()
                .user_data(Op::Doorbell.tag(token)),
        };
        self.submit(&operation)
    }

    /// Puts an operation into the ring, making room by submitting when it is full.
    fn submit(&mut self, operation: &squeue::Entry) -> Result<(), ReactorError> {
        loop {
            // SAFETY: every operation built here names a descriptor owned by an entry that lives
            // until the operation's completion (`reap` frees only idle entries), and memory that
            // is part of that entry (`flying`, `counter`: heap blocks that do not move while the
            // flag `sending` or `receiving` is set) or of the registered buffer ring.
            let pushed = unsafe { self.ring.submission().push(operation) };
            if pushed.is_ok() {
                return Ok(());
            }
            self.ring.submit().map_err(kernel("submit to the ring"))?;
        }
    }

    /// Starts a send of everything that waits, unless one is under way.
    fn flush(&mut self, token: Token) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get_mut(token) else { return Ok(()) };
        entry.dirty = false;
        if entry.sending || entry.closed || entry.out.is_empty() {
            return Ok(());
        }
        entry.flying.clear();
        std::mem::swap(&mut entry.flying, &mut entry.out);
        entry.sent = 0;
        self.send_rest(token)
    }

    fn send_rest(&mut self, token: Token) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get_mut(token) else { return Ok(()) };
        entry.sending = true;
        let rest = &entry.flying[entry.sent..];
        // One send takes at most 1 GiB; the completion says how much and the rest follows.
        let len = u32::try_from(rest.len().min(1 << 30)).unwrap_or(1 << 30);
        let operation = opcode::Send::new(types::Fd(entry.fd.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(Op::Send.tag(token));
        self.submit(&operation)
    }

    /// Asks the kernel to end the entry's receive; its completion still comes.
    fn cancel_receive(&mut self, token: Token) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get(token) else { return Ok(()) };
        let op = match entry.kind {
            Kind::Listener => Op::Accept,
            Kind::Stream => Op::Receive,
            Kind::Doorbell => Op::Doorbell,
        };
        let operation =
            opcode::AsyncCancel::new(op.tag(token)).build().user_data(Op::Cancel.tag(token));
        self.submit(&operation)
    }

    /// Ends an entry: no more events, its memory goes when the kernel has let go.
    fn end(&mut self, token: Token) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.closed = true;
        entry.out = Vec::new();
        if entry.kind == Kind::Stream {
            // Completes a receive and a blocked send that are under way; the peer sees the end.
            let _ = rustix::net::shutdown(&entry.fd, Shutdown::Both);
        } else if entry.receiving && self.cancel_receive(token).is_err() {
            return; // the ring is broken: the next turn says so
        }
        self.reap(token);
    }

    /// Frees an ended entry once nothing is under way.
    fn reap(&mut self, token: Token) {
        if self.entries.get(token).is_some_and(|entry| entry.closed && entry.idle()) {
            self.entries.remove(token);
        }
    }

    fn fail(&mut self, token: Token, error: Option<io::Error>, events: &mut Vec<Event>) {
        if self.entries.get(token).is_some_and(|entry| !entry.closed) {
            events.push(Event::Closed { token, error });
            self.end(token);
        } else {
            self.reap(token);
        }
    }

    fn complete(
        &mut self,
        completion: &cqueue::Entry,
        events: &mut Vec<Event>,
    ) -> Result<(), ReactorError> {
        let token = Token::from_bits(completion.user_data());
        match Op::of(completion.user_data()) {
            Some(Op::Accept) => self.accepted(token, completion, events),
            Some(Op::Receive) => self.received(token, completion, events),
            Some(Op::Send) => self.sent(token, completion.result(), events)?,
            Some(Op::Doorbell) => self.rung(token, events),
            Some(Op::Cancel) | None => {}
        }
        Ok(())
    }

    /// Notes that a multishot operation has ended; true when the entry is still wanted.
    fn ended(&mut self, token: Token, flags: u32) -> bool {
        let Some(entry) = self.entries.get_mut(token) else { return false };
        if cqueue::more(flags) {
            return !entry.closed;
        }
        entry.receiving = false;
        if !entry.closed && !entry.paused {
            self.rearm.push(token);
        }
        !entry.closed
    }

    fn accepted(&mut self, token: Token, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let wanted = self.ended(token, completion.flags());
        if completion.result() >= 0 {
            // SAFETY: a non-negative result of accept is a new descriptor that nobody else owns.
            let stream = unsafe { OwnedFd::from_raw_fd(completion.result()) };
            if wanted {
                events.push(Event::Accepted { listener: token, stream });
            }
        }
        let errno = -completion.result();
        if wanted && errno > 0 && errno != libc::ECANCELED && !passing_accept_error(errno) {
            self.pause(token);
            let error = io::Error::from_raw_os_error(errno);
            events.push(Event::AcceptFailed { listener: token, error });
        }
        // A passing error (a peer that gave up) has ended the multishot: it is armed again.
        self.reap(token);
    }

    fn received(&mut self, token: Token, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let taken = cqueue::buffer_select(completion.flags());
        let result = completion.result();
        let buffer =
            taken.and_then(|id| self.buffers.take(id, usize::try_from(result).unwrap_or(0)));
        let wanted = self.ended(token, completion.flags());
        match result {
            1.. => match buffer {
                Some(buffer) if wanted => events.push(Event::Data { token, buffer }),
                Some(buffer) => self.buffers.give_back(buffer),
                None => {}
            },
            0 => {
                if let Some(buffer) = buffer {
                    self.buffers.give_back(buffer);
                }
                self.fail(token, None, events);
            }
            error => self.receive_failed(token, -error, events),
        }
        self.reap(token);
    }

    fn receive_failed(&mut self, token: Token, errno: i32, events: &mut Vec<Event>) {
        match errno {
            libc::ENOBUFS => {
                self.rearm.retain(|waiting| *waiting != token);
                self.starved.push(token);
            }
            // Our own cancel (pause), or a passing reason: `ended` has seen to it.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            errno => self.fail(token, Some(io::Error::from_raw_os_error(errno)), events),
        }
    }

    fn sent(
        &mut self,
        token: Token,
        result: i32,
        events: &mut Vec<Event>,
    ) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get_mut(token) else { return Ok(()) };
        entry.sending = false;
        let Ok(taken) = usize::try_from(result) else {
            let errno = -result;
            if matches!(errno, libc::EINTR | libc::EAGAIN) && !entry.closed {
                return self.send_rest(token);
            }
            self.fail(token, Some(io::Error::from_raw_os_error(errno)), events);
            return Ok(());
        };
        entry.sent += taken;
        if entry.closed {
            self.reap(token);
            return Ok(());
        }
        if entry.sent < entry.flying.len() {
            return self.send_rest(token);
        }
        if entry.out.is_empty() {
            events.push(Event::Drained { token });
            return Ok(());
        }
        self.flush(token)
    }

    fn rung(&mut self, token: Token, events: &mut Vec<Event>) {
        if self.ended(token, 0) {
            events.push(Event::Woken);
        }
        self.reap(token);
    }

    fn enter(&mut self, wait: Wait) -> Result<(), ReactorError> {
        let duration = match wait {
            Wait::Forever => None,
            Wait::No => Some(Duration::ZERO),
            Wait::Until(duration) => Some(duration),
        };
        let done = match duration {
            None => self.ring.submit_and_wait(1),
            Some(duration) => {
                let limit = types::Timespec::from(duration);
                let args = types::SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match done {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal, or completions wait to be collected first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(kernel("enter the ring")(error)),
            },
        }
    }

    fn collect(&mut self, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        loop {
            // Bound to the statement: the queue borrows the ring.
            let next = self.ring.completion().next();
            let Some(completion) = next else { return Ok(()) };
            self.complete(&completion, events)?;
        }
    }
}

impl Reactor for UringReactor {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn add_listener(&mut self, listener: OwnedFd) -> Result<Token, ReactorError> {
        self.add(listener, Kind::Listener)
    }

    fn add_stream(&mut self, stream: OwnedFd) -> Result<Token, ReactorError> {
        self.add(stream, Kind::Stream)
    }

    fn add_doorbell(&mut self, eventfd: OwnedFd) -> Result<(), ReactorError> {
        self.add(eventfd, Kind::Doorbell).map(drop)
    }

    fn close(&mut self, token: Token) {
        self.end(token);
    }

    fn pause(&mut self, token: Token) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.paused = true;
        if entry.receiving {
            // A broken ring shows in the next turn.
            let _ = self.cancel_receive(token);
        }
    }

    fn resume(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.paused = false;
            // While the cancel is under way `receiving` is set; its completion arms again.
            if !entry.receiving {
                self.rearm.push(token);
            }
        }
    }

    fn output(&mut self, token: Token) -> Option<&mut Vec<u8>> {
        let entry = self.entries.get_mut(token)?;
        if entry.closed {
            return None;
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(token);
        }
        Some(&mut entry.out)
    }

    fn queued(&self, token: Token) -> usize {
        self.entries.get(token).map_or(0, |entry| {
            let flying = if entry.sending { entry.flying.len() - entry.sent } else { 0 };
            entry.out.len() + flying
        })
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        let before = events.len();
        // What completed without our asking (closes of the last turn) comes first.
        self.collect(events)?;
        for token in std::mem::take(&mut self.dirty) {
            self.flush(token)?;
        }
        if self.buffers.available() {
            self.rearm.append(&mut self.starved);
        }
        for token in std::mem::take(&mut self.rearm) {
            self.arm(token)?;
        }
        self.enter(if events.len() > before { Wait::No } else { wait })?;
        self.collect(events)
    }

    fn recycle(&mut self, buffer: RecvBuffer) {
        self.buffers.give_back(buffer);
    }
}

impl Drop for UringReactor {
    fn drop(&mut self) {
        for token in self.entries.tokens() {
            self.end(token);
        }
        let mut rest = Vec::new();
        for _ in 0..DRAIN_TURNS {
            if self.entries.tokens().is_empty() {
                return;
            }
            let limit = Wait::Until(Duration::from_millis(10));
            if self.enter(limit).and_then(|()| self.collect(&mut rest)).is_err() {
                break;
            }
        }
        // The kernel still holds memory of these entries and of the buffers: leak it.
        std::mem::forget(std::mem::replace(&mut self.entries, Slots::new()));
        self.buffers.leak();
    }
}
