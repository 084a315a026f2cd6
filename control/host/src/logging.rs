//! A process's log: C's lines in C's places.
//!
//! Role: a `tracing` subscriber that writes `TIME HOST PROGRAM[PID]: text` to a file or standard
//! error, or sends datagrams to syslog or journald; the level that `ctdb setdebug` changes; the last
//! line of a process with a broken invariant.
//! Invariants
//! - The file is open for appending and each line is one write, so that `copytruncate` works; SIGHUP
//!   opens it again.
//! - Logging never fails anything: what cannot be written is dropped.
//! - A panic in any thread ends the process: half a daemon must not go on serving.
//!
//! Origin: `docs/spec/admin-interface.md` 3.9; `ctdb/common/logging.c`.

mod datagram;

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, TryLockError,
        atomic::{AtomicI32, Ordering},
    },
};

use self::datagram::{Datagrams, Form};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Level by C's numbers: 0 ERROR, 1 WARNING, 3 NOTICE, 5 INFO, 10 DEBUG.
static LEVEL: AtomicI32 = AtomicI32::new(3);

/// Where lines go, and how to open it again.
static TARGET: Mutex<Option<Target>> = Mutex::new(None);

struct Target {
    sink: Sink,
    host: String,
    program: &'static str,
}

enum Sink {
    StandardError,
    File(PathBuf, File),
    Datagrams(Datagrams),
}

const TIME_WITH_MICROS: &str = "%Y-%m-%dT%H:%M:%S.%6f%:z";

/// One message with everything that any place wants to know of it.
struct Line<'a> {
    now: jiff::Zoned,
    host: &'a str,
    program: &'static str,
    pid: u32,
    level: i32,
    /// With its fields.
    text: &'a str,
    fields: &'a [(&'static str, String)],
}

/// Sets the level by C's number.
pub fn set_level(level: i32) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// C's number of a level: what this project calls `info` is C's NOTICE, `debug` its INFO.
const fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 3,
        Level::DEBUG => 5,
        Level::TRACE => 10,
    }
}

/// Starts logging to `file:PATH`, standard error (`file:`, `file:-`), `syslog`,
/// `syslog:nonblocking`, `syslog:udp`, `syslog:udp-rfc5424` or `journald`.
///
/// # Errors
/// When there is no such place, or the file cannot be opened: one line that names it.
pub fn start(
    program: &'static str,
    location: &OsStr,
    level: i32,
    test_host: Option<String>,
) -> Result<(), String> {
    set_level(level);
    let sink = open_sink(location)?;
    let host = test_host.unwrap_or_else(host_name);
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner) = Some(Target { sink, host, program });
    // Set once per process; a second start only changes the target.
    let _ = tracing::subscriber::set_global_default(Log);
    Ok(())
}

fn open_sink(location: &OsStr) -> Result<Sink, String> {
    let shown = location.to_string_lossy();
    let no_socket = |error| format!("cannot make a socket to log to {shown}: {error}");
    let syslog = |form| Datagrams::to_path("/dev/log", form);
    let udp = |form| Datagrams::to_port(SocketAddr::from((Ipv4Addr::LOCALHOST, 514)), form);
    // Cut at colons as C does: runs of them count once.
    let mut words = location.as_bytes().split(|&byte| byte == b':').filter(|word| !word.is_empty());
    let datagrams = match (words.next(), words.next()) {
        (Some(b"file"), None | Some(b"-")) => return Ok(Sink::StandardError),
        (Some(b"file"), Some(path)) => {
            let path = PathBuf::from(OsStr::from_bytes(path));
            let file = open(&path)?;
            return Ok(Sink::File(path, file));
        }
        (Some(b"syslog"), None) => syslog(Form::Syslog),
        (Some(b"syslog"), Some(b"nonblocking")) => syslog(Form::Rfc3164),
        (Some(b"syslog"), Some(b"udp")) => udp(Form::Rfc3164),
        (Some(b"syslog"), Some(b"udp-rfc5424")) => udp(Form::Rfc5424),
        (Some(b"journald"), None) => {
            Datagrams::to_path("/run/systemd/journal/socket", Form::Journal)
        }
        _ => return Err(format!("{shown} is no place to log to; see `location` in [logging]")),
    };
    datagrams.map(Sink::Datagrams).map_err(no_socket)
}

fn open(path: &Path) -> Result<File, String> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        let shown = path.display();
        format!("cannot open the log file {shown}: {error}; see `location` in [logging]")
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Opens the log file again (SIGHUP after a rotation). One that cannot be opened is told in the old
/// one, which stays in use.
pub fn reopen() {
    let failed = {
        let mut target = TARGET.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Sink::File(path, file)) = target.as_mut().map(|target| &mut target.sink) else {
            return;
        };
        match open(path) {
            Ok(opened) => {
                *file = opened;
                None
            }
            Err(error) => Some(error),
        }
    };
    if let Some(error) = failed {
        tracing::error!("{error}");
    }
}

/// From now on a panic is one line in the log, with the thread's name, and the end of the process
/// by SIGABRT, as C ends.
pub fn panics_end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let line = panic_line(thread.name(), panic);
        match TARGET.try_lock() {
            Ok(mut target) => write_to(target.as_mut(), 0, &line, &[]),
            Err(TryLockError::Poisoned(poisoned)) => {
                write_to(poisoned.into_inner().as_mut(), 0, &line, &[]);
            }
            // Perhaps this thread panicked while it logged: it must not wait for itself.
            Err(TryLockError::WouldBlock) => write_to(None, 0, &line, &[]),
        }
        std::process::abort();
    }));
}

fn panic_line(thread: Option<&str>, panic: &std::panic::PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or("no message").replace('\n', " ");
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    let thread = thread.unwrap_or("unnamed");
    format!("PANIC in thread {thread}{place}: {what}")
}

/// The subscriber. Spans only group what their events say; their fields are in the events.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = number(*event.metadata().level());
        let mut line = text.message;
        for (name, value) in &text.fields {
            let _ = write!(line, " {name}={value}");
        }
        let mut target = TARGET.lock().unwrap_or_else(PoisonError::into_inner);
        if target.is_some() {
            write_to(target.as_mut(), level, &line, &text.fields);
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}

/// Without a target: to standard error.
fn write_to(
    target: Option<&mut Target>,
    level: i32,
    text: &str,
    fields: &[(&'static str, String)],
) {
    let (sink, host, program) = match target {
        Some(target) => (Some(&mut target.sink), target.host.as_str(), target.program),
        None => (None, "", "ctdb"),
    };
    let line = Line {
        now: jiff::Zoned::now(),
        host,
        program,
        pid: std::process::id(),
        level,
        text,
        fields,
    };
    // What cannot be written is dropped: a full disk must not stop a cluster.
    let _ = match sink {
        Some(Sink::File(_, file)) => file.write_all(&line.to_bytes()),
        Some(Sink::StandardError) | None => std::io::stderr().write_all(&line.to_bytes()),
        Some(Sink::Datagrams(datagrams)) => {
            datagrams.write(&line);
            Ok(())
        }
    };
}

impl Line<'_> {
    /// As it stands in a file.
    fn to_bytes(&self) -> Vec<u8> {
        let Self { now, host, program, pid, text, .. } = self;
        let stamp = now.strftime(TIME_WITH_MICROS);
        format!("{stamp} {host} {program}[{pid}]: {text}\n").into_bytes()
    }
}

#[cfg(test)]
mod tests;
