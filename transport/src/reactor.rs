//! One reactor per shard: descriptors in, events out, output sent in batches.
//!
//! Role: hide whether the kernel lets us have io_uring. A shard calls [`Reactor::turn`] once per
//! loop; that submits everything the last turn produced and collects what has happened since.
//! Invariants
//! - Output appended in one turn to one stream leaves in one send.
//! - A token is never reused: events of a closed stream can be told from those of its successor.
//! - After [`Reactor::close`] no event names that token again.
//! - A buffer belongs to the shard from its event until [`Reactor::recycle`]; a shard that keeps
//!   all of them stops receiving, and nothing else breaks.
//!
//! Two implementations pass one suite of tests: [`uring`] and [`poll`].
//! Origin: ours (`lib/tevent` in C).

pub mod poll;
mod slots;
#[cfg(test)]
mod tests;
pub mod uring;

use std::{io, ops::Deref, time::Duration};

use rustix::fd::{BorrowedFd, OwnedFd};
use thiserror::Error;

pub use slots::Token;

/// Bytes in one receive buffer. A larger packet arrives in several.
pub const BUFFER_LEN: usize = 16 * 1024;

/// Receive buffers of one reactor (a power of two, as the kernel's buffer ring wants it).
pub const BUFFERS: u16 = 256;

const _: () = assert!(BUFFERS.is_power_of_two());

/// Memory that a stream may keep for output when there is none; a longer queue's is given back, so
/// that thousands of clients do not each keep what they once needed.
const KEPT_MAX: usize = 8 * 1024;

/// Connections accepted in one turn by a listener, so that a flood does not starve the others.
pub const ACCEPTS_PER_TURN: usize = 64;

/// Why a reactor cannot do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// The kernel lacks something or forbids it (seccomp, sysctl).
    #[error("io_uring cannot be used: {what}; set `reactor = epoll` in ringmaster.conf")]
    Unavailable {
        /// What is missing.
        what: &'static str,
        /// The kernel's answer, where there was one.
        #[source]
        source: Option<io::Error>,
    },
    /// A system call of the reactor itself failed.
    #[error("cannot {action}")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection came in.
    Accepted {
        /// The listener's token.
        listener: Token,
        /// The connection, close-on-exec, not yet in the reactor.
        stream: OwnedFd,
    },
    /// The process or the system has no descriptor left. The listener is paused; resume it when
    /// something has been closed, or after a while.
    AcceptFailed {
        /// The listener's token.
        listener: Token,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A connect that was under way has succeeded; the token is a stream now.
    Connected {
        /// The stream's token.
        token: Token,
    },
    /// Bytes came in, at least one.
    Data {
        /// The stream's token.
        token: Token,
        /// The bytes; give the buffer back with [`Reactor::recycle`].
        buffer: RecvBuffer,
    },
    /// The peer closed, or the stream broke, or a connect failed. The token is gone.
    Closed {
        /// The stream's (or listener's) token.
        token: Token,
        /// `None`: orderly end.
        error: Option<io::Error>,
    },
    /// The stream's reader was behind, and now everything queued for it has been given to the
    /// kernel. Output that the kernel takes at once is not reported.
    Drained {
        /// The stream's token.
        token: Token,
    },
    /// Somebody rang the doorbell.
    Woken,
}

/// Received bytes in a buffer that has to go back.
#[derive(Debug)]
pub struct RecvBuffer {
    id: u16,
    len: usize,
    bytes: Box<[u8]>,
}

/// How a connect has ended whose socket has become writable.
fn connect_result(socket: &OwnedFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(socket)
        .and_then(std::convert::identity)
        .map_err(io::Error::from)
}

/// Errors of accept that concern only the connection that was coming in.
const fn passing_accept_error(errno: i32) -> bool {
    !matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}

impl Deref for RecvBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How long a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Collect what is there and return.
    No,
    /// At most this long.
    Until(Duration),
    /// Until something happens.
    Forever,
}

/// See the module.
pub trait Reactor {
    /// `"io_uring"` or `"epoll"`, for logs and `ctdb` output.
    fn name(&self) -> &'static str;

    /// Starts accepting on a listening socket.
    ///
    /// # Errors
    /// [`ReactorError::Kernel`].
    fn add_listener(&mut self, listener: OwnedFd) -> Result<Token, ReactorError>;

    /// Starts receiving from a connected stream socket.
    ///
    /// # Errors
    /// [`ReactorError::Kernel`].
    fn add_stream(&mut self, stream: OwnedFd) -> Result<Token, ReactorError>;

    /// Watches a socket whose non-blocking connect is under way: [`Event::Connected`] or
    /// [`Event::Closed`] follows, and after the former it is a stream like any other. Until then it
    /// has no output.
    ///
    /// # Errors
    /// [`ReactorError::Kernel`].
    fn add_connecting(&mut self, socket: OwnedFd) -> Result<Token, ReactorError>;

    /// Watches the owner's eventfd; a write to it yields [`Event::Woken`].
    ///
    /// # Errors
    /// [`ReactorError::Kernel`].
    fn add_doorbell(&mut self, eventfd: OwnedFd) -> Result<(), ReactorError>;

    /// Closes a stream or listener; unsent output is dropped. Unknown tokens are ignored (the
    /// close and the peer's may cross).
    fn close(&mut self, token: Token);

    /// Stops receiving from a stream; what has already arrived may still be delivered.
    fn pause(&mut self, token: Token);

    /// Receives again.
    fn resume(&mut self, token: Token);

    /// Where to append bytes for the stream. `None` when it is gone.
    fn output(&mut self, token: Token) -> Option<&mut Vec<u8>>;

    /// Bytes that wait for the stream's reader, those under way to the kernel included.
    fn queued(&self, token: Token) -> usize;

    /// The socket behind a token, for its options. `None` when it is gone.
    fn socket(&self, token: Token) -> Option<BorrowedFd<'_>>;

    /// Sends what was appended, sleeps as `wait` allows, adds what happened to `events`.
    ///
    /// # Errors
    /// [`ReactorError::Kernel`]: the reactor itself is broken.
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError>;

    /// Gives a receive buffer back.
    fn recycle(&mut self, buffer: RecvBuffer);
}

/// Which reactor the configuration asks for (`[dataplane] reactor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReactorKind {
    /// io_uring where the kernel has and allows it, else epoll with a warning.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// A reactor of either kind.
#[derive(Debug)]
pub enum AnyReactor {
    /// io_uring.
    Uring(Box<uring::UringReactor>),
    /// epoll.
    Poll(Box<poll::PollReactor>),
}

impl AnyReactor {
    /// Probes and builds, in the thread that will use it.
    ///
    /// # Errors
    /// [`ReactorError`]; with [`ReactorKind::Auto`] only when not even epoll works.
    pub fn new(kind: ReactorKind) -> Result<Self, ReactorError> {
        match kind {
            ReactorKind::Epoll => Ok(Self::Poll(Box::new(poll::PollReactor::new()?))),
            ReactorKind::IoUring => Ok(Self::Uring(Box::new(uring::UringReactor::new()?))),
            ReactorKind::Auto => match uring::UringReactor::new() {
                Ok(ring) => Ok(Self::Uring(Box::new(ring))),
                Err(error) => {
                    tracing::warn!(%error, "using epoll");
                    Ok(Self::Poll(Box::new(poll::PollReactor::new()?)))
                }
            },
        }
    }

    fn inner(&self) -> &dyn Reactor {
        match self {
            Self::Uring(ring) => &**ring,
            Self::Poll(poll) => &**poll,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Reactor {
        match self {
            Self::Uring(ring) => &mut **ring,
            Self::Poll(poll) => &mut **poll,
        }
    }
}

impl Reactor for AnyReactor {
    fn name(&self) -> &'static str {
        self.inner().name()
    }
    fn add_listener(&mut self, listener: OwnedFd) -> Result<Token, ReactorError> {
        self.inner_mut().add_listener(listener)
    }
    fn add_stream(&mut self, stream: OwnedFd) -> Result<Token, ReactorError> {
        self.inner_mut().add_stream(stream)
    }
    fn add_connecting(&mut self, socket: OwnedFd) -> Result<Token, ReactorError> {
        self.inner_mut().add_connecting(socket)
    }
    fn add_doorbell(&mut self, eventfd: OwnedFd) -> Result<(), ReactorError> {
        self.inner_mut().add_doorbell(eventfd)
    }
    fn close(&mut self, token: Token) {
        self.inner_mut().close(token);
    }
    fn pause(&mut self, token: Token) {
        self.inner_mut().pause(token);
    }
    fn resume(&mut self, token: Token) {
        self.inner_mut().resume(token);
    }
    fn output(&mut self, token: Token) -> Option<&mut Vec<u8>> {
        self.inner_mut().output(token)
    }
    fn queued(&self, token: Token) -> usize {
        self.inner().queued(token)
    }
    fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.inner().socket(token)
    }
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), ReactorError> {
        self.inner_mut().turn(wait, events)
    }
    fn recycle(&mut self, buffer: RecvBuffer) {
        self.inner_mut().recycle(buffer);
    }
}
