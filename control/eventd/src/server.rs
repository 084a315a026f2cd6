//! The event daemon's outside: socket, children, clocks, signals.
//!
//! Role: carries out what `component` decides. One thread; tasks on it.
//! Invariants
//! - A packet that makes no sense costs its sender the connection, as in C.
//! - Output of a script is kept to `OUTPUT_MAX`; it is read to its end all the same, so that the
//!   script never blocks on a full pipe.
//! - Ends with the process it watches, and leaves no script's process group behind on a kill.
//!
//! Origin: `docs/spec/cluster-semantics.md` 10; `docs/spec/wire-protocol.md` 8.

mod arguments;
mod child;
mod connection;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ringmaster_control::config::{
    LogLevel, Paths, Settings,
    ctdb_conf::{self, ScriptState, Strictness, Surroundings},
};
use ringmaster_host::{logging, pidfile::PidFile};
use ringmaster_protocol::process::Timeval;
use rustix::event::{PollFd, PollFlags};
use tokio::{
    net::UnixListener,
    sync::{Notify, mpsc, oneshot},
};

use self::{arguments::Arguments, child::Child};
use crate::{
    component::{Action, Component, Ending, Event},
    scripts,
};

/// Output of one script that is kept for `ctdb event status`, in bytes.
const OUTPUT_MAX: usize = 1024 * 1024;

/// The watched process is looked for this often, where the kernel does not tell of its end.
const WATCH: Duration = Duration::from_secs(5);

/// Another event daemon, whose watched process is gone, has this long to end; less than the daemon
/// waits for this one to be ready.
const PREDECESSOR: Duration = Duration::from_secs(7);

/// Exit status when another event daemon runs (C: EEXIST).
const RUNNING_ALREADY: u8 = 17;

/// Everything the tasks share.
struct Server {
    components: RefCell<BTreeMap<String, Slot>>,
    /// Answers for connections, by their number.
    connections: RefCell<BTreeMap<u64, mpsc::UnboundedSender<(u32, i32)>>>,
    paths: Paths,
    debug_script: Option<PathBuf>,
    started: Instant,
    /// Something has changed that may move a deadline.
    changed: Notify,
}

#[derive(Default)]
struct Slot {
    component: Component,
    child: Option<Child>,
    /// Tells the end of the running script from that of one given up.
    generation: u64,
}

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let arguments = match Arguments::parse(args) {
        Ok(arguments) => arguments,
        Err(text) => {
            eprint!("{text}");
            return ExitCode::from(1);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ctdb-eventd: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, serve(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, line)) => {
            tracing::error!("{line}");
            eprintln!("ctdb-eventd: {line}");
            ExitCode::from(status)
        }
    }
}

/// The file system, for `ctdb.conf`: the event daemon needs no directory of it to exist.
struct Lenient(PathBuf);

impl Surroundings for Lenient {
    fn is_directory(&self, _: &std::path::Path) -> bool {
        true
    }
    fn script_state(&self, path: &std::path::Path) -> ScriptState {
        if path.exists() { ScriptState::Executable } else { ScriptState::Missing }
    }
    fn etc_dir(&self) -> PathBuf {
        self.0.clone()
    }
}

fn settings(paths: &Paths) -> Settings {
    let text = std::fs::read(paths.config_file()).unwrap_or_default();
    let around = Lenient(paths.etc_dir());
    let loaded = ctdb_conf::load(&text, Strictness::Lenient, LogLevel::Notice, &around);
    Settings::new(&loaded.table, paths)
}

fn start_log(paths: &Paths, settings: &Settings) -> Result<(), String> {
    let interactive = std::env::var_os("CTDB_INTERACTIVE").is_some();
    let (location, level) = if interactive {
        (OsStr::new("file:"), LogLevel::Notice)
    } else {
        (settings.log_location.as_os_str(), settings.log_level)
    };
    let base = PathBuf::from(std::env::var_os("CTDB_BASE").unwrap_or_default());
    let host = base.file_name().map(|name| name.to_string_lossy().into_owned());
    let host = host.filter(|_| paths.is_test_mode());
    logging::start("ctdb-eventd", location, level.number().cast_signed(), host)
}

async fn serve(arguments: Arguments) -> Result<(), (u8, String)> {
    let paths = Paths::from_environment(|name| std::env::var_os(name))
        .map_err(|error| (1, error.to_string()))?;
    let settings = settings(&paths);
    start_log(&paths, &settings).map_err(|line| (1, line))?;
    logging::panics_end_the_process();
    // Before the socket is touched: a second daemon must not take the first one's away (C does).
    let pid_file = paths.pidfile(OsStr::new("eventd"));
    let _pid_file = PidFile::create_patiently(&pid_file, PREDECESSOR)
        .map_err(|error| (RUNNING_ALREADY, error.to_string()))?;
    let socket = paths.socket(OsStr::new("eventd"));
    let listener = listen(&socket).map_err(|error| (1, error))?;
    let server = Rc::new(Server {
        components: RefCell::default(),
        connections: RefCell::default(),
        paths,
        debug_script: settings.event_debug_script,
        started: Instant::now(),
        changed: Notify::new(),
    });
    tokio::task::spawn_local(accept(Rc::clone(&server), listener));
    tokio::task::spawn_local(Rc::clone(&server).tick());
    let _ready = arguments.say_ready().map_err(|error| (1, error))?;
    tracing::info!("daemon started");
    wait_for_end(arguments.watched).await.map_err(|error| (1, error))?;
    for slot in server.components.borrow_mut().values_mut() {
        if let Some(child) = slot.child.take() {
            child.kill();
        }
    }
    // The next start does not mind what it finds.
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

fn listen(socket: &std::path::Path) -> Result<UnixListener, String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| format!("cannot listen on {}: {error}", socket.display());
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(socket, mode).map_err(failed)?;
    Ok(listener)
}

async fn accept(server: Rc<Server>, listener: UnixListener) {
    let mut number = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                number += 1;
                tokio::task::spawn_local(connection::serve(Rc::clone(&server), stream, number));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Signals, and the end of the watched process.
async fn wait_for_end(watched: Option<i32>) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| format!("cannot watch signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let watched = watched.and_then(rustix::process::Pid::from_raw);
    let mut end = watched.and_then(watch);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => logging::reopen(),
            () = ended(&mut end) => {
                tracing::info!("the watched process is gone");
                return Ok(());
            }
            () = tokio::time::sleep(WATCH) => {
                if watched.is_some_and(|pid| rustix::process::test_kill_process(pid).is_err()) {
                    tracing::info!("the watched process is gone");
                    return Ok(());
                }
            }
        }
    }
}

/// Hears of the end of a process, where the kernel can tell (5.3): a thread waits for it.
fn watch(pid: rustix::process::Pid) -> Option<oneshot::Receiver<()>> {
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    let (report, end) = oneshot::channel();
    let wait = move || {
        let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
        let mut ready = rustix::event::poll(&mut ends, None);
        while ready == Err(rustix::io::Errno::INTR) {
            ready = rustix::event::poll(&mut ends, None);
        }
        if ready == Ok(1) {
            // Fails only when the server is ending by itself.
            let _ = report.send(());
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(wait).ok()?;
    Some(end)
}

/// Returns when the process has ended; never where nobody can tell.
async fn ended(end: &mut Option<oneshot::Receiver<()>>) {
    if let Some(told) = end
        && told.await.is_ok()
    {
        return;
    }
    *end = None;
    std::future::pending().await
}

impl Server {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn folder(&self, component: &str) -> PathBuf {
        self.paths.events_dir(OsStr::new(component))
    }

    /// Gives an event to a component and carries out what follows.
    fn handle(self: &Rc<Self>, name: &str, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            {
                let mut components = self.components.borrow_mut();
                let slot = components.entry(name.to_owned()).or_default();
                slot.component.handle(self.now_ms(), wall_clock(), event, &mut actions);
            }
            for action in actions {
                if let Some(next) = self.carry_out(name, action) {
                    events.push(next);
                }
            }
        }
        self.changed.notify_one();
    }

    fn carry_out(self: &Rc<Self>, name: &str, action: Action) -> Option<Event> {
        match action {
            Action::List => return Some(Event::Listed(scripts::list(&self.folder(name)))),
            Action::Start { script, event, args } => {
                return self.start(name, &script, &event, &args);
            }
            Action::Kill => {
                if let Some(child) = self.give_up(name) {
                    child.kill();
                }
            }
            Action::Debug { event } => {
                if let Some(child) = self.give_up(name) {
                    child.debug(self.debug_script.clone(), event);
                }
            }
            Action::Answer { asker, result } => {
                if let Some(answers) = self.connections.borrow().get(&asker.connection) {
                    // Fails only when the connection is just closing.
                    let _ = answers.send((asker.reqid, result));
                }
            }
        }
        None
    }

    /// The running script is nobody's business any more.
    fn give_up(&self, name: &str) -> Option<Child> {
        let mut components = self.components.borrow_mut();
        let slot = components.get_mut(name)?;
        slot.generation += 1;
        slot.child.take()
    }

    fn start(
        self: &Rc<Self>,
        name: &str,
        script: &crate::component::Script,
        event: &str,
        args: &[String],
    ) -> Option<Event> {
        match child::spawn(script, event, args) {
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(crate::component::errno::EIO);
                let (ending, at) = (Ending::NotRun(errno), wall_clock());
                Some(Event::Ended { ending, output: Vec::new(), at })
            }
            Ok((process, child)) => {
                let mut components = self.components.borrow_mut();
                let slot = components.entry(name.to_owned()).or_default();
                slot.child = Some(child);
                slot.generation += 1;
                let generation = slot.generation;
                let (server, component) = (Rc::clone(self), name.to_owned());
                let script = script.name.clone();
                tokio::task::spawn_local(async move {
                    let (ending, output) = child::watch(process, &script, OUTPUT_MAX).await;
                    server.script_ended(&component, generation, ending, output);
                });
                None
            }
        }
    }

    fn script_ended(
        self: &Rc<Self>,
        component: &str,
        generation: u64,
        ending: Ending,
        output: Vec<u8>,
    ) {
        let current = {
            let mut components = self.components.borrow_mut();
            let slot = components.get_mut(component);
            let slot = slot.filter(|slot| slot.generation == generation);
            slot.map(|slot| slot.child = None).is_some()
        };
        if current {
            self.handle(component, Event::Ended { ending, output, at: wall_clock() });
        }
    }

    /// Watches deadlines.
    async fn tick(self: Rc<Self>) {
        loop {
            let deadline = {
                let components = self.components.borrow();
                components.values().filter_map(|slot| slot.component.deadline_ms()).min()
            };
            let wait = deadline.map_or(u64::from(u32::MAX), |at| at.saturating_sub(self.now_ms()));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {
                    let names: Vec<String> = self.components.borrow().keys().cloned().collect();
                    for name in names {
                        self.handle(&name, Event::Tick);
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

pub(super) fn wall_clock() -> Timeval {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timeval {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        micros: i64::from(since.subsec_micros()),
    }
}
