//! A process's log: C's lines in C's places.
//!
//! Role: a `tracing` layer that writes `TIME HOST PROGRAM[PID]: text` to a file or standard error,
//! and the level that `ctdb setdebug` changes.
//! Invariants
//! - The file is open for appending, so that `copytruncate` works; SIGHUP opens it again.
//! - Logging never fails anything: what cannot be written is dropped.
//!
//! Origin: `docs/spec/admin-interface.md` 3.9; `ctdb/common/logging.c`.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

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
    path: Option<PathBuf>,
    file: Option<File>,
    host: String,
    program: &'static str,
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

/// Starts logging to `file:PATH`, or to standard error (`file:`, `file:-`, interactive).
///
/// # Errors
/// When the file cannot be opened: one line that names it.
pub fn start(
    program: &'static str,
    location: &OsStr,
    level: i32,
    test_host: Option<String>,
) -> Result<(), String> {
    set_level(level);
    let path = location.as_bytes().strip_prefix(b"file:").filter(|path| !path.is_empty());
    let path = path.filter(|path| *path != b"-").map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let file = path.as_ref().map(open).transpose()?;
    let host = test_host.unwrap_or_else(host_name);
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(Target { path, file, host, program });
    // Set once per process; a second start only changes the target.
    let _ = tracing::subscriber::set_global_default(Log);
    Ok(())
}

fn open(path: &PathBuf) -> Result<File, String> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        let shown = path.display();
        format!("cannot open the log file {shown}: {error}; see `location` in [logging]")
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Opens the log file again (SIGHUP after a rotation).
pub fn reopen() {
    let mut target = TARGET.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(target) = target.as_mut() else { return };
    if let Some(path) = &target.path
        && let Ok(file) = open(path)
    {
        target.file = Some(file);
    }
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
        write_line(&format!("{}{}", text.message, text.fields));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

fn write_line(text: &str) {
    let now = jiff::Zoned::now();
    let mut target = TARGET.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(target) = target.as_mut() else { return };
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z");
    let line =
        format!("{stamp} {} {}[{}]: {text}\n", target.host, target.program, std::process::id());
    // What cannot be written is dropped: a full disk must not stop a cluster.
    let _ = match &mut target.file {
        Some(file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}
