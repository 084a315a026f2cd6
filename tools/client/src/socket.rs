//! Moves bytes between a [`Connection`] and its socket, with a deadline.
//!
//! Invariants
//! - The socket never blocks: reading and writing go on together, so that a daemon that stops
//!   reading until we read cannot lock both up.
//! - Once over, it stays over: every later exchange fails.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::Connection;
use crate::error::{ConnectError, ConnectionError};
use crate::limits::READ_LEN;

/// The socket of one client.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
    path: PathBuf,
    closed: bool,
    buffer: Vec<u8>,
}

/// Why an exchange ended without its condition.
#[derive(Debug)]
pub(crate) enum Interrupted {
    Deadline,
    Over(ConnectionError),
}

impl From<ConnectionError> for Interrupted {
    fn from(error: ConnectionError) -> Self {
        Self::Over(error)
    }
}

impl Socket {
    pub(crate) fn connect(path: &Path) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Connect { path: path.to_path_buf(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let buffer = vec![0; READ_LEN];
        Ok(Self { stream, path: path.to_path_buf(), closed: false, buffer })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what the socket takes now.
    pub(crate) fn write_some(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(), ConnectionError> {
        while !connection.output().is_empty() {
            match self.stream.write(connection.output()) {
                Ok(len) => connection.output_written(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.over(error)),
            }
        }
        Ok(())
    }

    /// Writes what there is to write and reads what comes, until `done` says so. `done` is asked
    /// first, and again after every read; all output has been written when this returns `Ok`.
    pub(crate) fn exchange<T>(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
        mut done: impl FnMut(&mut Connection) -> Option<T>,
    ) -> Result<T, Interrupted> {
        loop {
            self.write_some(connection)?;
            if connection.output().is_empty()
                && let Some(value) = done(connection)
            {
                return Ok(value);
            }
            if self.closed {
                return Err(self.over(ErrorKind::UnexpectedEof.into()).into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Interrupted::Deadline);
            }
            self.wait(!connection.output().is_empty(), left)?;
            self.read(connection)?;
        }
    }

    fn wait(&mut self, writable_too: bool, left: Duration) -> Result<(), ConnectionError> {
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, writable_too);
        // A duration beyond what the kernel's clock holds is as good as for ever.
        let timeout = Timespec::try_from(left).ok();
        let ended =
            poll(&mut [PollFd::from_borrowed_fd(self.stream.as_fd(), events)], timeout.as_ref());
        match ended {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(self.over(error.into())),
        }
    }

    /// One read, so that queues are looked at in between.
    fn read(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        match self.stream.read(&mut self.buffer) {
            // What came before the end may still be what is waited for.
            Ok(0) => self.closed = true,
            Ok(len) => {
                if let Err(source) = connection.input(&self.buffer[..len]) {
                    self.closed = true;
                    let path = self.path.clone();
                    return Err(ConnectionError::Stream { path, source });
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(self.over(error)),
        }
        Ok(())
    }

    fn over(&mut self, source: std::io::Error) -> ConnectionError {
        self.closed = true;
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                ConnectionError::Closed { path }
            }
            _ => ConnectionError::Io { path, source },
        }
    }
}
