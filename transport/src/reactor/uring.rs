//! The reactor on io_uring: one enter per turn submits all output and collects all input.
//!
//! Role: multishot accept and receive into provided buffers, one send under way per stream, the
//! doorbell as a read that is armed again.
//! Invariants
//! - Memory given to the kernel stays where it is until its completion: output under way is in
//!   `Entry::outgoing`, which does not touch it; an entry lives until its last operation is done.
//! - Sends at once end while they are submitted and complete only when they fall short, so that an
//!   answer and the wait for the next request are one enter. They are begun in no other place than
//!   between two enters of a turn, and settled in the turn that submitted them.
//! - Dropping the reactor cancels and drains first. Were the kernel ever to keep an operation
//!   longer than that, the memory is leaked, not freed.
//! - Nothing newer than Linux 6.1 is needed; the probe says what is missing.
//!
//! Origin: ours.

mod buffers;
mod outgoing;
mod probe;

use std::{collections::VecDeque, fmt, io, time::Duration};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    net::Shutdown,
};

use self::{
    buffers::BufferRing,
    outgoing::{After, How, Outgoing},
};
use super::{
    BUFFERS, Event, Reactor, ReactorError, RecvBuffer, Token, Wait, connect_result,
    passing_accept_error, slots::Slots,
};

/// Submissions that fit into the ring; more are submitted on the way.
const ENTRIES: u32 = 1024;

/// Completions that fit; the kernel keeps what does not (`IORING_FEAT_NODROP`).
const COMPLETIONS: u32 = 8192;

/// How often a full submission queue is handed to the kernel before the ring counts as broken.
const SUBMIT_TRIES: u32 = 16;

/// Turns that a drop waits for the kernel to give memory back, 10 ms each.
const DRAIN_TURNS: u32 = 200;

/// What a connect that is under way waits for.
const POLL_OUT: u32 = libc::POLLOUT.unsigned_abs() as u32;

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
    Connect = 6,
}

impl Op {
    fn of(user_data: u64) -> Option<Self> {
        Some(match user_data >> 56 {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::Send,
            4 => Self::Doorbell,
            5 => Self::Cancel,
            6 => Self::Connect,
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
    /// A stream to be.
    Connecting,
    Stream,
}

#[derive(Debug)]
struct Entry {
    fd: OwnedFd,
    kind: Kind,
    outgoing: Outgoing,
    receiving: bool,
    paused: bool,
    dirty: bool,
    /// The shard has been told, or has asked: only operations under way keep the entry.
    closed: bool,
    /// Where the doorbell's read puts the counter; nobody else has one.
    counter: Option<Box<[u8; 8]>>,
}

impl Entry {
    fn idle(&self) -> bool {
        !self.outgoing.is_under_way() && !self.receiving
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
    /// Streams that found no buffer, the hungriest first: as many are armed again as have come back.
    starved: VecDeque<Token>,
    /// Streams whose send at once is in the submission queue.
    at_once: Vec<Token>,
    /// Whether the kernel can send at once.
    can_send_at_once: bool,
    /// Something is left over that the next turn must not sleep on.
    left_over: bool,
    buffers: BufferRing,
}

impl fmt::Debug for UringReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringReactor").field("entries", &self.entries).finish_non_exhaustive()
    }
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> ReactorError {
    move |source| ReactorError::Kernel { action, source }
}

/// Whether the ring can be used on: time is up, a signal, or completions wait to be collected first.
fn passing(entered: io::Result<usize>) -> Result<(), ReactorError> {
    match entered {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            ) =>
        {
            Err(kernel("enter the ring")(error))
        }
        _ => Ok(()),
    }
}

impl UringReactor {
    /// Probes and sets up; call it on the thread that will use it (single issuer).
    ///
    /// # Errors
    /// [`ReactorError::Unavailable`] where the kernel lacks an operation or forbids the calls.
    pub fn new() -> Result<Self, ReactorError> {
        Self::with_buffers(BUFFERS)
    }

    /// As [`Self::new`], with this many receive buffers, a power of two.
    pub(super) fn with_buffers(count: u16) -> Result<Self, ReactorError> {
        let mut ring = probe::ring()?;
        let can_send_at_once = probe::sends_at_once(&mut ring);
        let buffers =
            BufferRing::register(&ring.submitter(), BUFFER_GROUP, count).map_err(|source| {
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
            starved: VecDeque::new(),
            at_once: Vec::new(),
            can_send_at_once,
            left_over: false,
            buffers,
        })
    }

    /// Descriptors in the reactor, ended ones that the kernel still uses included.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.entries.tokens().len()
    }

    fn add(&mut self, fd: OwnedFd, kind: Kind) -> Result<Token, ReactorError> {
        let token = self.entries.insert(Entry {
            fd,
            kind,
            outgoing: Outgoing::default(),
            receiving: false,
            paused: false,
            dirty: false,
            closed: false,
            counter: (kind == Kind::Doorbell).then(Box::default),
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
            Kind::Connecting => {
                opcode::PollAdd::new(fd, POLL_OUT).build().user_data(Op::Connect.tag(token))
            }
            Kind::Doorbell => {
                let counter = entry.counter.get_or_insert_default();
                opcode::Read::new(fd, counter.as_mut_ptr(), 8)
                    .build()
                    .user_data(Op::Doorbell.tag(token))
            }
        };
        self.submit(&operation)
    }

    /// Puts an operation into the ring, making room by submitting when it is full.
    fn submit(&mut self, operation: &squeue::Entry) -> Result<(), ReactorError> {
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: every operation built here names a descriptor owned by an entry that lives
            // until the operation's completion (`reap` frees only idle entries), and memory that
            // is part of that entry (`outgoing`, `counter`: heap blocks that do not move while a
            // send is under way or `receiving` is set) or of the registered buffer ring.
            let pushed = unsafe { self.ring.submission().push(operation) };
            if pushed.is_ok() {
                return Ok(());
            }
            passing(self.ring.submit())?;
        }
        Err(kernel("submit to the ring")(io::ErrorKind::WouldBlock.into()))
    }

    /// Starts a send of what waits, unless one is under way.
    fn send(&mut self, token: Token, at_once: bool) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get_mut(token) else { return Ok(()) };
        if entry.closed {
            return Ok(());
        }
        let fd = types::Fd(entry.fd.as_raw_fd());
        let Some((how, bytes)) = entry.outgoing.begin(at_once) else { return Ok(()) };
        // One send takes at most 1 GiB; the rest follows.
        let len = u32::try_from(bytes.len().min(1 << 30)).unwrap_or(1 << 30);
        let operation = match how {
            How::AtOnce => {
                self.at_once.push(token);
                probe::send_at_once(fd, bytes.as_ptr(), len)
            }
            How::Patient => {
                opcode::Send::new(fd, bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
            }
        };
        self.submit(&operation.user_data(Op::Send.tag(token)))
    }

    /// Starts a send for every stream that has been appended to.
    fn flush(&mut self) -> Result<(), ReactorError> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            if let Some(entry) = self.entries.get_mut(token) {
                entry.dirty = false;
                self.send(token, self.can_send_at_once)?;
            }
        }
        self.dirty = dirty; // keeps its memory
        Ok(())
    }

    /// Asks the kernel to end the entry's receive; its completion still comes.
    fn cancel_receive(&mut self, token: Token) -> Result<(), ReactorError> {
        let Some(entry) = self.entries.get(token) else { return Ok(()) };
        let op = match entry.kind {
            Kind::Listener => Op::Accept,
            Kind::Stream => Op::Receive,
            Kind::Doorbell => Op::Doorbell,
            Kind::Connecting => Op::Connect,
        };
        let operation =
            opcode::AsyncCancel::new(op.tag(token)).build().user_data(Op::Cancel.tag(token));
        self.submit(&operation)
    }

    /// Ends an entry: no more events, its memory goes when the kernel has let go.
    fn end(&mut self, token: Token) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.closed = true;
        entry.outgoing.drop_waiting();
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
            Some(Op::Connect) => self.connected(token, completion.result(), events),
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
        match (result, buffer) {
            (1.., Some(buffer)) if wanted => events.push(Event::Data { token, buffer }),
            (1.., None) if wanted => {
                // Bytes that nobody can find: what follows would make no sense.
                let lost = io::Error::other("the kernel names a buffer that it does not have");
                self.fail(token, Some(lost), events);
            }
            (result, buffer) => {
                if let Some(buffer) = buffer {
                    self.buffers.give_back(buffer);
                }
                match result {
                    1.. => {}
                    0 => self.fail(token, None, events),
                    error => self.receive_failed(token, -error, events),
                }
            }
        }
        self.reap(token);
    }

    fn receive_failed(&mut self, token: Token, errno: i32, events: &mut Vec<Event>) {
        match errno {
            libc::ENOBUFS => {
                self.rearm.retain(|waiting| *waiting != token);
                self.starved.push_back(token);
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
        let after = entry.outgoing.ended(result);
        if entry.closed {
            self.reap(token);
            return Ok(());
        }
        match after {
            // The reader is behind: patient, so that it may be begun anywhere.
            After::Send => self.send(token, false)?,
            After::Drained => events.push(Event::Drained { token }),
            After::Rest => {}
            After::Broken(errno) => {
                self.fail(token, Some(io::Error::from_raw_os_error(errno)), events);
            }
        }
        Ok(())
    }

    /// Sends at once that have not completed by now have taken everything.
    fn settle(&mut self, mut submitted: Vec<Token>) {
        for token in submitted.drain(..) {
            let Some(entry) = self.entries.get_mut(token) else { continue };
            if entry.outgoing.went() == After::Send {
                self.dirty.push(token);
            }
            self.reap(token);
        }
        if self.at_once.is_empty() {
            self.at_once = submitted; // keeps its memory
        }
    }

    fn rung(&mut self, token: Token, events: &mut Vec<Event>) {
        if self.ended(token, 0) {
            events.push(Event::Woken);
        }
        self.reap(token);
    }

    /// A connect has ended, one way or the other, or the wait for it has.
    fn connected(&mut self, token: Token, result: i32, events: &mut Vec<Event>) {
        if !self.ended(token, 0) {
            return self.reap(token);
        }
        if result < 0 {
            return; // a pause has cancelled the wait; `ended` or a resume begins it again
        }
        let Some(entry) = self.entries.get_mut(token) else { return };
        match connect_result(&entry.fd) {
            // `ended` has seen to it that the next turn arms the receive.
            Ok(()) => {
                entry.kind = Kind::Stream;
                events.push(Event::Connected { token });
            }
            Err(error) => self.fail(token, Some(error), events),
        }
    }

    fn enter(&mut self, wait: Wait) -> Result<(), ReactorError> {
        let (queued, pending) = {
            let queue = self.ring.submission();
            (queue.len(), queue.taskrun() || queue.cq_overflow())
        };
        let duration = match wait {
            Wait::No if queued == 0 && !pending => return Ok(()),
            // Runs what the kernel has put off, if there is any.
            Wait::No => return passing(self.ring.submit()),
            Wait::Until(duration) => Some(types::Timespec::from(duration)),
            Wait::Forever => None,
        };
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.ring.params().is_feature_no_iowait() {
            // An idle daemon is not waiting for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let args = types::SubmitArgs::new();
        let args = duration.as_ref().map_or(args, |limit| args.timespec(limit));
        let queued = u32::try_from(queued).unwrap_or(ENTRIES);
        // SAFETY: the argument is what the flag EXT_ARG announces, and it and the time that it
        // points to live during the call; the queue's entries are as `submit` promises.
        passing(unsafe { self.ring.submitter().enter(queued, 1, flags.bits(), Some(&args)) })
    }

    /// Enters the ring and takes what has completed.
    fn pass(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        self.enter(wait)?;
        // Taken before completions are, which may begin new sends.
        let submitted = if self.ring.submission().is_empty() {
            std::mem::take(&mut self.at_once)
        } else {
            Vec::new()
        };
        self.collect(events)?;
        if self.ring.submission().cq_overflow() {
            // A completion may be missing that says what has become of them.
            self.at_once.splice(..0, submitted);
        } else {
            self.settle(submitted);
        }
        self.left_over = !self.at_once.is_empty();
        Ok(())
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

    fn add_connecting(&mut self, socket: OwnedFd) -> Result<Token, ReactorError> {
        self.add(socket, Kind::Connecting)
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
        if entry.closed || entry.kind == Kind::Connecting {
            return None;
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(token);
        }
        Some(entry.outgoing.waiting())
    }

    fn queued(&self, token: Token) -> usize {
        self.entries.get(token).map_or(0, |entry| entry.outgoing.queued())
    }

    fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.entries.get(token).map(|entry| entry.fd.as_fd())
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        let before = events.len();
        // What completed without our asking (closes of the last turn) comes first.
        self.collect(events)?;
        self.flush()?;
        let fed = self.starved.len().min(self.buffers.available());
        self.rearm.extend(self.starved.drain(..fed));
        for token in std::mem::take(&mut self.rearm) {
            self.arm(token)?;
        }
        // Who was starved and is armed may have nothing to receive: the others are next.
        let hungry = fed > 0 && !self.starved.is_empty();
        let sleep = events.len() == before && !hungry && !self.left_over;
        self.pass(if sleep { wait } else { Wait::No }, events)
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
            if self.pass(limit, &mut rest).is_err() {
                break;
            }
        }
        // The kernel still holds memory of these entries and of the buffers: leak it.
        std::mem::forget(std::mem::replace(&mut self.entries, Slots::new()));
        self.buffers.leak();
    }
}
