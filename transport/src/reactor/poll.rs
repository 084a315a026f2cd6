//! The reactor where io_uring is not allowed: epoll, level-triggered.
//!
//! Role: a full product path (containers, older enterprise kernels), same behaviour as the ring.
//! Invariants: one receive per readable stream and turn, so that nobody starves; output is written
//! at once and only waits for `EPOLLOUT` when the kernel's buffer is full.
//! Origin: ours.

use std::{fmt, io, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send},
};

use super::{
    ACCEPTS_PER_TURN, BUFFER_LEN, BUFFERS, Event, KEPT_MAX, Reactor, ReactorError, RecvBuffer,
    Token, Wait, connect_result, passing_accept_error, slots::Slots,
};

/// A turn that finds nothing but input for which there is no buffer sleeps this long at most.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

#[derive(Debug)]
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
    out: Vec<u8>,
    /// Bytes of `out` that the kernel has already taken.
    sent: usize,
    dirty: bool,
    paused: bool,
    /// The kernel's buffer is full; `EPOLLOUT` is asked for.
    blocked: bool,
}

/// See the module.
pub struct PollReactor {
    epoll: OwnedFd,
    entries: Slots<Entry>,
    dirty: Vec<Token>,
    /// Buffers not lent to the shard.
    buffers: Vec<Box<[u8]>>,
    /// Buffers that exist.
    made: u16,
    /// Most that may exist.
    buffers_max: u16,
    ready: Vec<epoll::Event>,
}

impl fmt::Debug for PollReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollReactor").field("entries", &self.entries).finish_non_exhaustive()
    }
}

fn kernel(action: &'static str) -> impl FnOnce(Errno) -> ReactorError {
    move |errno| ReactorError::Kernel { action, source: errno.into() }
}

impl PollReactor {
    /// # Errors
    /// [`ReactorError::Kernel`] when the kernel has no descriptor left.
    pub fn new() -> Result<Self, ReactorError> {
        Self::with_buffers(BUFFERS)
    }

    /// As [`Self::new`], with this many receive buffers.
    pub(super) fn with_buffers(count: u16) -> Result<Self, ReactorError> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(kernel("create an epoll"))?;
        Ok(Self {
            epoll,
            entries: Slots::new(),
            dirty: Vec::new(),
            buffers: Vec::new(),
            made: 0,
            buffers_max: count,
            ready: Vec::with_capacity(EVENTS_PER_TURN),
        })
    }

    /// Descriptors in the reactor.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.entries.tokens().len()
    }

    fn add(&mut self, fd: OwnedFd, kind: Kind) -> Result<Token, ReactorError> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(kernel("make a descriptor non-blocking"))?;
        let entry = Entry {
            fd,
            kind,
            out: Vec::new(),
            sent: 0,
            dirty: false,
            paused: false,
            blocked: false,
        };
        let token = self.entries.insert(entry);
        let entry = self.entries.get(token).expect("just inserted");
        let data = epoll::EventData::new_u64(token.to_bits());
        let awaited = match entry.kind {
            Kind::Connecting => epoll::EventFlags::OUT,
            _ => epoll::EventFlags::IN,
        };
        let added = epoll::add(&self.epoll, &entry.fd, data, awaited);
        if let Err(errno) = added {
            self.entries.remove(token);
            return Err(kernel("watch a descriptor")(errno));
        }
        Ok(token)
    }

    /// Tells the kernel what the entry waits for now.
    fn rearm(&mut self, token: Token) {
        let Some(entry) = self.entries.get(token) else { return };
        let mut flags = epoll::EventFlags::empty();
        let connecting = matches!(entry.kind, Kind::Connecting);
        flags.set(epoll::EventFlags::IN, !entry.paused && !connecting);
        flags.set(epoll::EventFlags::OUT, entry.blocked || connecting);
        let data = epoll::EventData::new_u64(token.to_bits());
        // Cannot fail for a descriptor that is registered and open.
        let _ = epoll::modify(&self.epoll, &entry.fd, data, flags);
    }

    fn flush(&mut self, token: Token, events: &mut Vec<Event>) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        entry.dirty = false;
        if entry.out.is_empty() {
            return;
        }
        let was_blocked = entry.blocked;
        while entry.sent < entry.out.len() {
            match send(&entry.fd, &entry.out[entry.sent..], SendFlags::NOSIGNAL) {
                Ok(taken) => entry.sent += taken,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    entry.blocked = true;
                    if !was_blocked {
                        self.rearm(token);
                    }
                    return;
                }
                Err(errno) => {
                    self.entries.remove(token);
                    events.push(Event::Closed { token, error: Some(errno.into()) });
                    return;
                }
            }
        }
        entry.out.clear();
        if entry.out.capacity() > KEPT_MAX {
            entry.out = Vec::new();
        }
        entry.sent = 0;
        entry.blocked = false;
        if was_blocked {
            self.rearm(token);
            events.push(Event::Drained { token });
        }
    }

    /// A connect has ended, one way or the other.
    fn connected(&mut self, token: Token, events: &mut Vec<Event>) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        match connect_result(&entry.fd) {
            Ok(()) => {
                entry.kind = Kind::Stream;
                self.rearm(token);
                events.push(Event::Connected { token });
            }
            Err(error) => {
                self.entries.remove(token);
                events.push(Event::Closed { token, error: Some(error) });
            }
        }
    }

    /// Every buffer is lent.
    const fn is_starved(&self) -> bool {
        self.buffers.is_empty() && self.made == self.buffers_max
    }

    fn take_buffer(&mut self) -> Option<Box<[u8]>> {
        if let Some(buffer) = self.buffers.pop() {
            return Some(buffer);
        }
        if self.made == self.buffers_max {
            return None;
        }
        self.made += 1;
        Some(vec![0; BUFFER_LEN].into_boxed_slice())
    }

    /// `ended`: the kernel says that the peer is gone. It says so at every turn, so that even a
    /// paused stream is then read to its end.
    fn readable(&mut self, token: Token, ended: bool, events: &mut Vec<Event>) {
        let Some(entry) = self.entries.get(token) else { return };
        match entry.kind {
            Kind::Doorbell => {
                let _ = rustix::io::read(&entry.fd, &mut [0; 8]);
                events.push(Event::Woken);
            }
            Kind::Listener => {
                if let Some(error) = accept(entry.fd.as_fd(), token, events) {
                    self.pause(token);
                    events.push(Event::AcceptFailed { listener: token, error });
                }
            }
            Kind::Connecting => {}
            Kind::Stream if entry.paused && !ended => {}
            Kind::Stream => self.receive(token, events),
        }
    }

    fn receive(&mut self, token: Token, events: &mut Vec<Event>) {
        // Without a buffer the bytes stay in the kernel; level triggering reports them again.
        let Some(mut bytes) = self.take_buffer() else { return };
        let Some(entry) = self.entries.get(token) else { return };
        let closed = match recv(&entry.fd, &mut bytes[..], RecvFlags::empty()) {
            Ok((0, _)) => Some(None),
            Ok((len, _)) => {
                events.push(Event::Data { token, buffer: RecvBuffer { id: 0, len, bytes } });
                return;
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(errno) => Some(Some(io::Error::from(errno))),
        };
        self.buffers.push(bytes);
        if let Some(error) = closed {
            self.entries.remove(token);
            events.push(Event::Closed { token, error });
        }
    }
}

/// Accepts what waits; an error that a next try would meet again is returned.
fn accept(listener: BorrowedFd<'_>, token: Token, events: &mut Vec<Event>) -> Option<io::Error> {
    for _ in 0..ACCEPTS_PER_TURN {
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((stream, _)) => events.push(Event::Accepted { listener: token, stream }),
            Err(Errno::AGAIN) => return None,
            Err(errno) if passing_accept_error(errno.raw_os_error()) => {}
            Err(errno) => return Some(errno.into()),
        }
    }
    None
}

const fn longest(wait: Wait) -> Duration {
    match wait {
        Wait::No => Duration::ZERO,
        Wait::Until(duration) => duration,
        Wait::Forever => Duration::MAX,
    }
}

fn timespec(wait: Wait) -> Option<Timespec> {
    let duration = match wait {
        Wait::Forever => return None,
        Wait::No => Duration::ZERO,
        Wait::Until(duration) => duration,
    };
    Timespec::try_from(duration).ok()
}

impl Reactor for PollReactor {
    fn name(&self) -> &'static str {
        "epoll"
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
        self.entries.remove(token);
    }

    fn pause(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.paused = true;
            self.rearm(token);
        }
    }

    fn resume(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.paused = false;
            self.rearm(token);
        }
    }

    fn output(&mut self, token: Token) -> Option<&mut Vec<u8>> {
        let entry = self.entries.get_mut(token)?;
        if matches!(entry.kind, Kind::Connecting) {
            return None;
        }
        if !entry.dirty && !entry.blocked {
            entry.dirty = true;
            self.dirty.push(token);
        }
        Some(&mut entry.out)
    }

    fn queued(&self, token: Token) -> usize {
        self.entries.get(token).map_or(0, |entry| entry.out.len() - entry.sent)
    }

    fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.entries.get(token).map(|entry| entry.fd.as_fd())
    }

    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        let before = events.len();
        for token in std::mem::take(&mut self.dirty) {
            self.flush(token, events);
        }
        // Something has happened already: do not sleep on top of it.
        let wait = if events.len() > before { Wait::No } else { wait };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut ready), timespec(wait).as_ref());
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(kernel("wait for events")(errno)),
        }
        for event in &ready {
            let (flags, token) = (event.flags, Token::from_bits(event.data.u64()));
            let kind = self.entries.get(token).map(|entry| &entry.kind);
            if matches!(kind, Some(Kind::Connecting)) {
                self.connected(token, events);
                continue;
            }
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(token, events);
            }
            let ended = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            if ended || flags.contains(epoll::EventFlags::IN) {
                self.readable(token, ended, events);
            }
        }
        if events.len() == before && !ready.is_empty() && self.is_starved() {
            // Streams that nobody may read from are reported for ever. Without a sleep a real-time
            // shard would keep the only processor from the thread that it waits for.
            std::thread::sleep(longest(wait).min(STARVED_PAUSE));
        }
        self.ready = ready;
        Ok(())
    }

    fn recycle(&mut self, buffer: RecvBuffer) {
        self.buffers.push(buffer.bytes);
    }
}
