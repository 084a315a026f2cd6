//! Log messages as datagrams: syslog's forms and journald's.
//!
//! Invariants
//! - Sending never waits: a receiver that is slow or not there costs messages, and the next message
//!   that gets through is followed by their number.
//! - The receiver is looked up with every message, so that it may be restarted.
//!
//! Origin: `docs/spec/cluster-semantics.md` 12.4, and what the daemon of Debian 12 sends.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
};

use super::{Line, TIME_WITH_MICROS};

/// Facility `daemon`, as syslog shifts it.
const FACILITY: u8 = 3 << 3;

/// What a datagram looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As glibc's `syslog()` sends it: with a time of the old kind.
    Syslog,
    /// Without a time: the receiver adds it. C's form of `syslog:nonblocking` and `syslog:udp`.
    Rfc3164,
    /// With everything.
    Rfc5424,
    /// journald's own: fields.
    Journal,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

/// Sends each line to one receiver.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: Socket,
    form: Form,
    dropped: u64,
}

impl Datagrams {
    /// To a socket of this host.
    pub(super) fn to_path(path: impl Into<PathBuf>, form: Form) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(socket, path.into()), form, dropped: 0 })
    }

    /// To a UDP port.
    pub(super) fn to_port(to: SocketAddr, form: Form) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Udp(socket, to), form, dropped: 0 })
    }

    /// Sends a line, or counts it as dropped.
    pub(super) fn write(&mut self, line: &Line<'_>) {
        if self.send(line).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        } else if self.dropped > 0 {
            let text = format!("[Dropped {} log messages]", self.dropped);
            if self.send(&Line { text: &text, fields: &[], now: line.now.clone(), ..*line }).is_ok()
            {
                self.dropped = 0;
            }
        }
    }

    fn send(&self, line: &Line<'_>) -> io::Result<usize> {
        let bytes = encoded(self.form, line);
        match &self.socket {
            Socket::Unix(socket, path) => socket.send_to(&bytes, path),
            Socket::Udp(socket, to) => socket.send_to(&bytes, to),
        }
    }
}

/// syslog's severity of C's level.
const fn severity(level: i32) -> u8 {
    match level {
        ..=0 => 3,
        1..=2 => 4,
        3..=4 => 5,
        5..=9 => 6,
        10.. => 7,
    }
}

fn encoded(form: Form, line: &Line<'_>) -> Vec<u8> {
    let Line { now, host, program, pid, level, text, .. } = line;
    let priority = FACILITY | severity(*level);
    match form {
        Form::Syslog => {
            let stamp = now.strftime("%b %e %H:%M:%S");
            format!("<{priority}>{stamp} {program}[{pid}]: {text}").into_bytes()
        }
        Form::Rfc3164 => format!("<{priority}>{program}[{pid}]: {text}").into_bytes(),
        Form::Rfc5424 => {
            let stamp = now.strftime(TIME_WITH_MICROS);
            format!("<{priority}>1 {stamp} {host} {program} {pid} - - {text}").into_bytes()
        }
        Form::Journal => journal_entry(line),
    }
}

fn journal_entry(line: &Line<'_>) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, "MESSAGE", line.text);
    field(&mut entry, "PRIORITY", &severity(line.level).to_string());
    field(&mut entry, "SYSLOG_IDENTIFIER", line.program);
    field(&mut entry, "SYSLOG_PID", &line.pid.to_string());
    for (name, value) in line.fields {
        // Prefixed: names without are the system's.
        field(&mut entry, &format!("CTDB_{}", name.to_ascii_uppercase()), value);
    }
    entry
}

/// A value with line breaks goes with its length instead.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    let safe = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'_' };
    entry.extend(name.bytes().map(safe));
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(text: &'a str, fields: &'a [(&'static str, String)]) -> Line<'a> {
        let now = jiff::civil::date(2026, 11, 2).at(6, 24, 31, 764_505_000);
        let now = now.to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        Line { now, host: "vm", program: "ctdbd", pid: 26_984, level: 3, text, fields }
    }

    fn text(form: Form, level: i32) -> String {
        let line = Line { level, ..line("CTDB starting on node", &[]) };
        String::from_utf8(encoded(form, &line)).unwrap()
    }

    #[test]
    fn every_form_is_what_the_c_daemon_sends() {
        assert_eq!(
            text(Form::Syslog, 3),
            "<29>Nov  2 06:24:31 ctdbd[26984]: CTDB starting on node"
        );
        assert_eq!(text(Form::Rfc3164, 1), "<28>ctdbd[26984]: CTDB starting on node");
        assert_eq!(
            text(Form::Rfc5424, 0),
            "<27>1 2026-11-02T06:24:31.764505+00:00 vm ctdbd 26984 - - CTDB starting on node"
        );
    }

    #[test]
    fn a_journal_entry_has_fields_and_survives_line_breaks() {
        let fields = [("db", "0x0000004d".to_owned())];
        let entry = encoded(Form::Journal, &line("two\nlines", &fields));
        let head = [&b"MESSAGE\n"[..], &9_u64.to_le_bytes(), b"two\nlines\n"].concat();
        let tail = b"PRIORITY=5\nSYSLOG_IDENTIFIER=ctdbd\nSYSLOG_PID=26984\nCTDB_DB=0x0000004d\n";
        assert_eq!(entry, [&head[..], tail].concat());
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_told_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut datagrams = Datagrams::to_path(&path, Form::Rfc3164).unwrap();
        datagrams.write(&line("nobody hears", &[]));
        datagrams.write(&line("this", &[]));
        let receiver = UnixDatagram::bind(&path).unwrap();
        datagrams.write(&line("heard", &[]));
        datagrams.write(&line("heard again", &[]));
        let mut heard = Vec::new();
        receiver.set_nonblocking(true).unwrap();
        let mut bytes = [0; 200];
        while let Ok(len) = receiver.recv(&mut bytes) {
            heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
        }
        let expected = ["heard", "[Dropped 2 log messages]", "heard again"];
        assert_eq!(heard, expected.map(|text| format!("<29>ctdbd[26984]: {text}")));
    }

    #[test]
    fn a_receiver_that_does_not_read_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let mut datagrams = Datagrams::to_path(&path, Form::Rfc3164).unwrap();
        for _ in 0..10_000 {
            datagrams.write(&line("again", &[]));
        }
        assert!(datagrams.dropped > 0);
    }

    #[test]
    fn udp_datagrams_arrive() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        Datagrams::to_port(to, Form::Rfc3164).unwrap().write(&line("hello", &[]));
        let mut bytes = [0; 200];
        let len = receiver.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"<29>ctdbd[26984]: hello");
    }
}
