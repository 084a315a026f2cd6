//! The unix socket of local clients.
//!
//! Role: make the listening socket as C does; say who is at the other end of a connection.
//! Origin: `docs/spec/wire-protocol.md` 6.1; `ctdb/server/ctdb_daemon.c: ux_socket_bind`.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ringmaster_protocol::header::{Framing, Transport};
use rustix::{
    fd::{AsFd, OwnedFd},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use thiserror::Error;

/// Connections that the kernel keeps until they are accepted (C's backlog).
const BACKLOG: i32 = 100;

/// Longest packet of a local client. C has no limit; a record of smbd's stays far below it.
pub const CLIENT_PACKET_MAX: u32 = 256 * 1024 * 1024;

/// How packets of local clients are framed.
pub const CLIENT_FRAMING: Framing =
    Framing { transport: Transport::Local, packet_len_max: CLIENT_PACKET_MAX };

/// Why there is no socket.
#[derive(Debug, Error)]
#[error(
    "cannot {action} the client socket {path}: {source}; check the run directory and its owner"
)]
pub struct ListenError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Whether the socket is given to the daemon's user (C does not do so in test mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Effective user and group.
    Daemon,
    /// As created.
    Unchanged,
}

/// Binds and listens, mode 0700. Whatever lies at the path is removed: the locked PID file is what
/// excludes a second daemon.
///
/// # Errors
/// [`ListenError`] names the step, the path and the remedy.
pub fn listen(path: &Path, ownership: Ownership) -> Result<OwnedFd, ListenError> {
    let failed = |action: &'static str| {
        let path = path.to_path_buf();
        move |source: io::Error| ListenError { action, path, source }
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove what is left of")(error));
        }
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| failed("create")(errno.into()))?;
    let address = SocketAddrUnix::new(path).map_err(|errno| failed("name")(errno.into()))?;
    rustix::net::bind(&socket, &address).map_err(|errno| failed("bind")(errno.into()))?;
    if ownership == Ownership::Daemon {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
            .map_err(failed("change the owner of"))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(failed("set the mode of"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed("listen on")(errno.into()))?;
    Ok(socket)
}

/// Process at the other end of a local connection, by the kernel's word. `None` when it cannot be
/// known (another PID namespace).
#[must_use]
pub fn peer_pid(stream: impl AsFd) -> Option<i32> {
    sockopt::socket_peercred(stream).ok().map(|cred| cred.pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_only_its_owner_may_connect() {
        let folder = std::env::temp_dir().join(format!("local-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("ctdbd.socket");
        drop(listen(&path, Ownership::Unchanged).expect("first"));
        assert!(path.exists(), "a daemon leaves its socket behind");
        let socket = listen(&path, Ownership::Daemon).expect("second");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let client = UnixStream::connect(&path).expect("connected");
        let accepted = rustix::net::accept(&socket).expect("accepted");
        let us = i32::try_from(std::process::id()).ok();
        assert_eq!(peer_pid(&accepted), us);
        drop(client);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn an_impossible_place_is_named_with_the_remedy() {
        let error = listen(Path::new("/proc/none/socket"), Ownership::Unchanged).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/proc/none/socket") && text.contains("run directory"), "{text}");
    }
}
