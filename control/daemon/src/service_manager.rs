//! Readiness and sign of life for a service manager (systemd's protocol).
//!
//! Invariant: never waits and never fails anything; without `NOTIFY_SOCKET` there is nobody to tell.
//! Origin: ours; C's unit is of type forking and says nothing.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
    time::Duration,
};

/// The manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// A sign of life is due this often.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let Some(socket) = variable("NOTIFY_SOCKET") else { return Self::default() };
        let to = match connect(&socket) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!(%error, "cannot speak with the service manager");
                None
            }
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // Meant for another process of the service, unless it is absent.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0);
        // Twice as often as required, as sd_watchdog_enabled(3) recommends.
        let watchdog = limit.map(|micros| Duration::from_micros(micros / 2));
        Self { to, watchdog }
    }

    /// How often [`Self::alive`] has to be called.
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon serves clients.
    pub(crate) fn ready(&self) {
        self.say(&format!("READY=1\nMAINPID={}\n", std::process::id()));
    }

    /// The daemon ends.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    /// The main loop goes round.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1\n");
    }

    fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager does not hear");
        }
    }
}

/// `/path` or `@abstract`.
fn connect(socket: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagrams = UnixDatagram::unbound()?;
    datagrams.set_nonblocking(true)?;
    Ok((datagrams, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        ServiceManager::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    fn heard(receiver: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let len = receiver.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    #[test]
    fn a_manager_hears_of_start_life_and_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("ringmaster-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        let path = path.to_str().expect("text").to_owned();
        for (socket, receiver) in [(path, by_path), (format!("@{name}"), by_name)] {
            let manager = manager(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "3000000")]);
            assert_eq!(manager.watchdog(), Some(Duration::from_millis(1_500)));
            manager.ready();
            assert_eq!(heard(&receiver), format!("READY=1\nMAINPID={}\n", std::process::id()));
            manager.alive();
            assert_eq!(heard(&receiver), "WATCHDOG=1\n");
            manager.stopping();
            assert_eq!(heard(&receiver), "STOPPING=1\n");
        }
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_another_process_is_not_watched() {
        let nobody = manager(&[("WATCHDOG_USEC", "3000000")]);
        assert_eq!(nobody.watchdog(), None);
        nobody.ready();
        let other = manager(&[
            ("NOTIFY_SOCKET", "/proc/none"),
            ("WATCHDOG_USEC", "3000000"),
            ("WATCHDOG_PID", "1"),
        ]);
        assert_eq!(other.watchdog(), None);
        other.ready();
    }
}
