//! From the command line to a running driver.
//!
//! Role: phase A of C's start (everything that can fail before the daemon detaches) and the
//! building of all parts. Order and failures: `docs/spec/cluster-semantics.md` 1.1.
//! Invariants
//! - Every failure is one line that names file, value and remedy, and C's exit status.
//! - Detaching is a new process image, before any thread exists.
//!
//! Origin: `ctdb/server/ctdbd.c`.

mod configuration;
mod streams;
mod version;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Read},
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ringmaster_control::{
    config::{
        Paths, Settings,
        native_conf::{NativeConf, ReactorChoice, Shards as ShardsWanted},
    },
    failover::addresses::Addresses,
    node::{
        NodePlane, State, lifecycle,
        state::{Constants, NodeEntry},
    },
    plane::Millis,
};
use ringmaster_dataplane::shard::{lanes::LaneSetup, registry::Registry, runtime::CONTROL};
use ringmaster_host::{logging, pidfile::PidFile};
use ringmaster_protocol::{
    Pnn,
    capabilities::Capabilities,
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, Timeval},
    tunable::TunableList,
};
use ringmaster_transport::{
    local::{Ownership, listen},
    reactor::{AnyReactor, ReactorKind},
    tcp::{
        announce::{Announcement, PROTOCOL_VERSION, TRANSPORT_TCP},
        limits::LINK_OUTPUT_MAX,
    },
};
use tokio::sync::mpsc;

use self::{configuration::Configuration, streams::Starter};
use crate::{
    children::{Children, Eventd, Guard, read_nodes},
    driver::{Driver, Outstanding, REPORTS_MAX, Report, Traverses},
    network::Network,
    options::{self, HELP, Run, USAGE},
    service_manager::ServiceManager,
    shards::Shards,
    supervision::Supervision,
    system,
    view::view_of,
};

/// Set in the image that serves, so that it does not start itself again.
const SERVES: &str = "RINGMASTER_SERVES";

/// C's exit statuses.
const FAILED: u8 = 1;
const CLIENT_SOCKET: u8 = 10;
const PID_FILE: u8 = 11;
const TEST_PARENT_GONE: i32 = 32;

/// Port of the node protocol where the services database has none.
const CTDB_PORT: u16 = 4379;

/// A failure with its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) line: String,
    /// Who started the daemon has heard of it.
    told: bool,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { status: FAILED, line: line.into(), told: false }
    }

    fn with_status(status: u8, error: &dyn std::error::Error) -> Self {
        Self { status, line: error.to_string(), told: false }
    }
}

pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let interactive = match options::parse(args) {
        Run::Help { asked } => {
            print!("{HELP}");
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
        }
        Run::Usage => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Run::CheckConfig => return configuration::check(),
        Run::Interactive => true,
        Run::Daemon => false,
    };
    match start(interactive) {
        Ok(status) => ExitCode::from(u8::try_from(status & 0xFF).unwrap_or(FAILED)),
        Err(failure) => {
            tracing::error!("{}", failure.line);
            if !failure.told {
                eprintln!("ctdbd: {}", failure.line);
            }
            ExitCode::from(failure.status)
        }
    }
}

fn start(interactive: bool) -> Result<i32, Failure> {
    let paths = Paths::from_environment(|name| std::env::var_os(name))
        .map_err(|error| Failure::new(error.to_string()))?;
    let configuration = Configuration::load(paths)?;
    if std::env::var_os(SERVES).is_none() {
        return start_again(&configuration, interactive);
    }
    system::give_large_blocks_back();
    start_log(&configuration, interactive)?;
    logging::panics_end_the_process();
    if !configuration.paths.is_test_mode() {
        system::raise_open_files();
        // Before there is another thread.
        system::drop_capabilities();
    }
    if !interactive {
        // Fails only for a group leader, which has nothing to detach from.
        let _ = rustix::process::setsid();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the control thread: {error}")))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(configuration, interactive))
}

/// Starts the same program again with the environment that all its children shall have: in the
/// background, and leaves; interactive, in its own place.
fn start_again(configuration: &Configuration, interactive: bool) -> Result<i32, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(program);
    command.env(SERVES, "1").envs(environment(configuration, interactive));
    if interactive {
        let error = command.arg("-i").exec();
        return Err(Failure::new(format!("cannot start itself again: {error}")));
    }
    if !configuration.paths.is_test_mode() {
        // In test mode the end of standard input ends the daemon.
        command.stdin(Stdio::null());
    }
    let failed = |error| Failure::new(format!("cannot start in the background: {error}"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let status = streams::hear(&mut child).map_err(failed)?;
    Ok(status.map_or(0, |status| status.code().unwrap_or(FAILED.into())))
}

/// What event scripts and helpers are told by the environment (`docs/spec/admin-interface.md` 2.3.1).
fn environment(configuration: &Configuration, interactive: bool) -> Vec<(&'static str, OsString)> {
    let Configuration { paths, settings, .. } = configuration;
    let mut variables = vec![
        ("CTDB_LOGGING", log_location(settings, interactive).to_owned()),
        ("CTDB_DEBUGLEVEL", settings.log_level.name().into()),
    ];
    if std::env::var_os("CTDB_BASE").is_none() {
        variables.push(("CTDB_BASE", paths.etc_dir().into()));
    }
    if interactive {
        variables.push(("CTDB_INTERACTIVE", "true".into()));
    }
    variables
}

fn start_log(configuration: &Configuration, interactive: bool) -> Result<(), Failure> {
    let Configuration { paths, settings, .. } = configuration;
    let location = log_location(settings, interactive);
    let test_host = paths.is_test_mode().then(|| {
        let base = std::env::var_os("CTDB_BASE").unwrap_or_default();
        let base = std::path::PathBuf::from(base);
        base.file_name().unwrap_or_default().to_string_lossy().into_owned()
    });
    logging::start("ctdbd", location, settings.log_level.number().cast_signed(), test_host)
        .map_err(Failure::new)
}

fn log_location(settings: &Settings, interactive: bool) -> &OsStr {
    if interactive { OsStr::new("file:") } else { &settings.log_location }
}

async fn serve(configuration: Configuration, interactive: bool) -> Result<i32, Failure> {
    let mut starter = None;
    let mut served = start_and_serve(configuration, interactive, &mut starter).await;
    if let (Err(failure), Some(starter)) = (&mut served, starter) {
        failure.told = true;
        starter.failed(&format!("ctdbd: {}", failure.line));
    }
    served
}

/// Takes what only one daemon may have, then starts the parts and runs them. `starter` is who waits
/// for the start in the background.
async fn start_and_serve(
    configuration: Configuration,
    interactive: bool,
    starter: &mut Option<Starter>,
) -> Result<i32, Failure> {
    let Configuration { paths, settings, native, tunables, addresses } = configuration;
    let port = CTDB_PORT;
    let nodes = read_nodes(&settings.nodes, port).await.map_err(Failure::new)?;
    let (pnn, listener) = own_node(&nodes, settings.node_address)?;
    let lanes = lane_setup(&nodes, pnn, &native).await?;
    let pid_file = paths.pidfile(OsStr::new("ctdbd"));
    let _pid_file =
        PidFile::create(&pid_file).map_err(|error| Failure::with_status(PID_FILE, &error))?;
    let ownership = if paths.is_test_mode() { Ownership::Unchanged } else { Ownership::Daemon };
    // Clients may connect from now on, and are accepted when the databases are there.
    let client_listener = listen(&paths.socket(OsStr::new("ctdbd")), ownership)
        .map_err(|error| Failure::with_status(CLIENT_SOCKET, &error))?;
    let realtime = settings.realtime_scheduling && !paths.is_test_mode();
    if realtime {
        system::run_this_thread_first().map_err(|error| {
            Failure::new(format!(
                "cannot use real-time scheduling: {error}; allow it, or set \
                 `realtime scheduling = false` in [legacy]"
            ))
        })?;
    }
    if !interactive {
        let left = streams::leave()
            .map_err(|error| Failure::new(format!("cannot leave the terminal: {error}")))?;
        *starter = Some(left);
    }
    try_reactor(&native)?;
    let mut state = first_state(pnn, &nodes, &settings, &paths, tunables);
    for finding in &addresses.findings {
        tracing::warn!("{}: {finding}", paths.public_addresses_file().display());
    }
    state.addresses = Addresses::of_file(&addresses.addresses);
    let view = Arc::new(view_of(&state));
    let shards = Shards::start(shard_count(&native), reactor_kind(&native), &view, realtime)
        .map_err(|error| Failure::new(format!("cannot start the shards: {error}")))?;
    let (report, reports) = mpsc::channel(REPORTS_MAX);
    watch_signals(&report)?;
    if paths.is_test_mode() {
        watch_standard_input(report.clone());
    }
    let mut children = Children::new(&settings, &paths, port);
    let eventd = Eventd::start(&paths, report.clone()).await.map_err(Failure::new)?;
    children.set_eventd(eventd);
    children.set_guard(Guard::start(&paths));
    if let Some(starter) = starter.take() {
        starter.started();
    }
    let threshold = std::env::var("CTDB_TEST_CPU_USAGE_THRESHOLD").ok();
    let threshold = threshold.and_then(|text| text.parse::<u64>().ok());
    let mut registry = Registry::new();
    registry.add_client(CONTROL);
    let seed = seed();
    let driver = Driver {
        plane: NodePlane::new(state, Millis(0), seed),
        started: Instant::now(),
        shards,
        registry,
        workers: BTreeMap::new(),
        jobs: std::collections::HashMap::new(),
        next_job: 0,
        requests: std::collections::HashMap::new(),
        next_request: 0,
        published: view,
        lost: BTreeMap::new(),
        outstanding: Outstanding::new(),
        node_listener: Some(listener),
        lanes,
        reports,
        report,
        children,
        client_listener: Some(client_listener),
        network: Network::default(),
        paths,
        settings,
        statistics: BTreeMap::new(),
        deletions: std::collections::HashMap::new(),
        manager: ServiceManager::from_environment(|name| std::env::var_os(name)),
        supervision: Supervision::new(1 + u32::from(shard_count(&native)), threshold),
        alive: Duration::ZERO,
        slow_locks: std::collections::HashMap::new(),
        traverses: Traverses::default(),
        actions: std::collections::VecDeque::new(),
        exit: None,
    };
    tracing::info!(pnn = pnn.get(), "CTDB starting on node");
    let status = driver
        .run(Box::new(lifecycle::start))
        .await
        .map_err(|error| Failure::new(format!("the control thread cannot wait: {error}")))?;
    tracing::info!("CTDB daemon shutting down");
    Ok(status)
}

/// What the links to other nodes have in common.
async fn lane_setup(
    nodes: &NodeMap,
    pnn: Pnn,
    native: &NativeConf,
) -> Result<Option<LaneSetup>, Failure> {
    let own = nodes.0.iter().find(|node| node.pnn == pnn).and_then(|node| node.addr.ip());
    let own = own.ok_or_else(|| Failure::new("this node has no address in the nodes list"))?;
    let others =
        |node: &&NodeAndFlags| node.pnn != pnn && !node.flags.intersects(NodeFlags::DELETED);
    let alone = !nodes.0.iter().any(|node| others(&node));
    let version = match version::samba_version(native.samba_version).await {
        Ok(version) => version,
        // Should nodes be added later, the driver says what is missing.
        Err(_) if alone => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let announcement = Announcement {
        version: PROTOCOL_VERSION,
        instance: seed(),
        shards: shard_count(native),
        transports: TRANSPORT_TCP,
    };
    Ok(Some(LaneSetup { own, version, announcement, output_max: LINK_OUTPUT_MAX }))
}

/// `[dataplane] shards`; by default one for four cores that the process may use, 1 to 8.
fn shard_count(native: &NativeConf) -> u16 {
    match native.shards {
        ShardsWanted::Fixed(count) => count,
        ShardsWanted::Auto => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u16::try_from(cores / 4).unwrap_or(u16::MAX).clamp(1, 8)
        }
    }
}

/// A reactor that was asked for and cannot be had is told before the start is over.
fn try_reactor(native: &NativeConf) -> Result<(), Failure> {
    match reactor_kind(native) {
        ReactorKind::IoUring => match AnyReactor::new(ReactorKind::IoUring) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new(error.to_string())),
        },
        // A shard says what it takes instead.
        ReactorKind::Auto | ReactorKind::Epoll => Ok(()),
    }
}

fn reactor_kind(native: &NativeConf) -> ReactorKind {
    match native.reactor {
        ReactorChoice::Auto => ReactorKind::Auto,
        ReactorChoice::Uring => ReactorKind::IoUring,
        ReactorChoice::Epoll => ReactorKind::Epoll,
    }
}

/// How long an address in use is tried again: a killed daemon's files close with its last thread
/// and ring, some time after its process looks gone. One that lives does not let go.
const ADDRESS_RELEASE: Duration = Duration::from_secs(2);

/// Which node this is: the one whose address can be had here.
fn own_node(nodes: &NodeMap, wanted: Option<IpAddr>) -> Result<(Pnn, TcpListener), Failure> {
    let deadline = Instant::now() + ADDRESS_RELEASE;
    loop {
        let mut in_use = false;
        let found = bind_own_node(nodes, wanted, &mut in_use);
        if found.is_ok() || !in_use || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Tries each address that may be ours, once.
fn bind_own_node(
    nodes: &NodeMap,
    wanted: Option<IpAddr>,
    in_use: &mut bool,
) -> Result<(Pnn, TcpListener), Failure> {
    for node in &nodes.0 {
        let Some(ip) = node.addr.ip() else { continue };
        if node.flags.intersects(NodeFlags::DELETED) || wanted.is_some_and(|wanted| wanted != ip) {
            continue;
        }
        match TcpListener::bind(SocketAddr::new(ip, node.addr.port())) {
            Ok(listener) => return Ok((node.pnn, listener)),
            Err(error) if wanted.is_some() => {
                *in_use = error.kind() == io::ErrorKind::AddrInUse;
                return Err(Failure::new(format!(
                    "cannot listen on the node address {ip} port {}: {error}",
                    node.addr.port()
                )));
            }
            Err(error) => *in_use |= error.kind() == io::ErrorKind::AddrInUse,
        }
    }
    Err(Failure::new(match wanted {
        Some(address) => format!("node address {address} is not in the nodes list; add it there"),
        None => "no address of the nodes list can be had on this host; \
                 set `node address` in [cluster]"
            .to_owned(),
    }))
}

fn first_state(
    pnn: Pnn,
    nodes: &NodeMap,
    settings: &Settings,
    paths: &Paths,
    tunables: TunableList,
) -> State {
    let mut flags = NodeFlags::UNHEALTHY;
    if settings.start_as_disabled {
        flags = flags | NodeFlags::PERMANENTLY_DISABLED;
    }
    if settings.start_as_stopped {
        flags = flags | NodeFlags::STOPPED;
    }
    let mut capabilities = Capabilities::DEFAULT;
    if !settings.leader_capability {
        capabilities = capabilities.without(Capabilities::LEADER);
    }
    if !settings.lmaster_capability {
        capabilities = capabilities.without(Capabilities::LMASTER);
    }
    let lock = settings.cluster_lock.as_ref().map(|lock| lock.to_string_lossy().into_owned());
    let constants = Constants {
        pnn,
        daemon_pid: std::process::id().cast_signed(),
        cluster_lock: lock,
        leader_timeout_s: settings.leader_timeout_s,
        failover_disabled: settings.failover_disabled,
        shutdown_failover_timeout_s: settings.shutdown_failover_timeout_s,
        shutdown_extra_timeout_s: settings.shutdown_extra_timeout_s,
        fast_start: paths.is_test_mode(),
        real_addresses: !paths.is_test_mode(),
    };
    let entry = |node: &NodeAndFlags| NodeEntry {
        pnn: node.pnn,
        address: node.addr,
        flags: if node.pnn == pnn {
            flags
        } else if node.flags.intersects(NodeFlags::DELETED) {
            NodeFlags::DISCONNECTED | NodeFlags::DELETED
        } else {
            NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY
        },
    };
    let entries = nodes.0.iter().map(entry).collect();
    let mut state = State::new(constants, entries, tunables, (wall_clock(), Millis(0)));
    state.capabilities = capabilities;
    state.debug_level = DebugLevel(settings.log_level.number().cast_signed());
    state
}

fn wall_clock() -> Timeval {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timeval {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        micros: i64::from(since.subsec_micros()),
    }
}

/// Generations and server ids have to differ between nodes and starts, nothing more.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()) << 32 | wall_clock().micros.unsigned_abs(),
    }
}

/// SIGTERM ends the daemon in order (C dies at once), SIGHUP opens the log again.
fn watch_signals(report: &mpsc::Sender<Report>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::new(format!("cannot watch signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    // Ignored, as C ignores it.
    let mut user = signal(SignalKind::user_defined1()).map_err(failed)?;
    let report = report.clone();
    tokio::task::spawn_local(async move {
        loop {
            let what = tokio::select! {
                _ = terminate.recv() => Report::Shutdown(0),
                _ = interrupt.recv() => Report::Shutdown(0),
                _ = hang_up.recv() => Report::Reopen,
                _ = user.recv() => continue,
            };
            if report.send(what).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Test mode: the end of a pipe on standard input ends the daemon.
fn watch_standard_input(report: mpsc::Sender<Report>) {
    let is_pipe = rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
    });
    if !is_pipe {
        return;
    }
    std::thread::spawn(move || {
        let mut sink = [0; 256];
        let mut stdin = std::io::stdin();
        while stdin.read(&mut sink).is_ok_and(|len| len > 0) {}
        // Fails only when the daemon is ending.
        let _ = report.blocking_send(Report::Shutdown(TEST_PARENT_GONE));
    });
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::node::NodeAndFlags;

    use super::*;

    #[test]
    fn an_address_that_a_dying_daemon_lets_go_is_waited_for() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let (pnn, flags) = (Pnn::new(0).unwrap(), NodeFlags::NONE);
        let nodes = NodeMap(vec![NodeAndFlags { pnn, flags, addr: address.into() }]);
        for wanted in [None, Some(address.ip())] {
            assert!(own_node(&nodes, wanted).is_err(), "the holder lives");
        }
        let waiter = std::thread::spawn(move || own_node(&nodes, Some(address.ip())).is_ok());
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
