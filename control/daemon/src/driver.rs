//! Drives the control plane: events in, actions carried out.
//!
//! Role: the main thread's loop. Takes what shards, workers, children and clocks say to the plane,
//! and has done what the plane asks for.
//! Owner: the main thread; everything here is single-threaded.
//! Invariants
//! - Every ask gets exactly one outcome.
//! - A request of a client that has gone is still carried out; its answer goes nowhere.
//!
//! Origin: ours; `ctdb/server/ctdb_control.c` for where controls go.

mod data;
mod nodes;
mod requests;
mod traverses;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ringmaster_control::{
    config::{Paths, Settings},
    node::{Ask, NodeCx, NodePlane, Outcome, Tell, controls, world::RequestId},
    plane::{Action, Millis, Token},
};
use ringmaster_dataplane::{
    record::ControlToken,
    shard::{
        ShardId,
        lanes::LaneSetup,
        message::{AckToken, Credit, FromShard, Order, RegistryChange, ToShard},
        registry::{ClientRef, Registry},
        runtime::CONTROL,
        statistics::ShardStatistics,
    },
    view::NodeView,
};
use ringmaster_protocol::{DbId, Generation, Pnn, Reqid};
use tokio::sync::mpsc;

pub(crate) use self::{nodes::Outstanding, traverses::Traverses};
use crate::{
    alarm::Alarm,
    children::Children,
    network::{self, Network},
    service_manager::ServiceManager,
    shards::Shards,
    supervision::Supervision,
    system,
    worker::{self, Opened, Sent, Worker},
};

/// Reports of workers and children that may wait for the main thread; beyond it a worker waits.
pub(crate) const REPORTS_MAX: usize = 1_024;

/// What threads and tasks tell the main thread.
#[derive(Debug)]
pub(crate) enum Report {
    /// A worker has opened its file.
    Opened(DbId, Result<Opened, String>),
    /// A worker wants something sent; the credit goes back when it has left.
    Sent(Sent, Credit),
    /// A worker's job has ended.
    JobDone(u64, Outcome),
    /// A child's or task's answer to an ask.
    Outcome(Token, Outcome),
    /// The cluster lock has been lost: its helper has ended.
    LockLost,
    /// The event daemon has gone away.
    EventdGone,
    /// Somebody wants the daemon to end in order (SIGTERM, or the test's standard input).
    Shutdown(i32),
    /// A freeze has waited this many seconds for the locks of a database.
    SlowFreeze(DbId, u64),
    /// SIGHUP: open the log file again.
    Reopen,
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Client {
        client: ClientRef,
        reqid: Reqid,
    },
    /// A sequence of the plane has sent itself a control.
    Own(Token),
    /// Another node; the request id is its own.
    Node(Pnn, Reqid),
    /// A shard's record engine.
    Shard(ShardId, ControlToken),
    /// Nobody.
    Nobody,
}

/// How a control plane is started.
pub(crate) type Starter = Box<dyn FnOnce(&NodeCx)>;

/// See the module.
pub(crate) struct Driver {
    pub(crate) plane: NodePlane,
    pub(crate) started: Instant,
    pub(crate) shards: Shards<Driver>,
    /// A copy of what every shard knows, for answering on behalf of other askers.
    pub(crate) registry: Registry,
    pub(crate) workers: BTreeMap<DbId, Attached>,
    pub(crate) jobs: HashMap<u64, Job>,
    pub(crate) next_job: u64,
    pub(crate) requests: HashMap<RequestId, Asker>,
    pub(crate) next_request: u64,
    /// The state as it was last shown to the shards.
    pub(crate) published: Arc<NodeView>,
    /// Active nodes whose links have broken, and in which generation.
    pub(crate) lost: BTreeMap<Pnn, Generation>,
    /// Controls that other nodes have to answer.
    pub(crate) outstanding: Outstanding,
    /// Until the transport starts: where other nodes connect.
    pub(crate) node_listener: Option<TcpListener>,
    /// What all links to other nodes have in common; `None` when this node does not know which
    /// version to say and was alone at its start.
    pub(crate) lanes: Option<LaneSetup>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) report: mpsc::Sender<Report>,
    pub(crate) children: Children,
    pub(crate) network: Network,
    pub(crate) paths: Paths,
    pub(crate) settings: Settings,
    /// Until clients are accepted.
    pub(crate) client_listener: Option<OwnedFd>,
    /// Counters that have arrived, by the order that asked for them.
    pub(crate) statistics: BTreeMap<AckToken, Vec<ShardStatistics>>,
    /// What shards have handed over for a vacuum round, until its job is given to the worker.
    pub(crate) deletions: HashMap<DbId, Vec<worker::Tombstone>>,
    pub(crate) manager: ServiceManager,
    pub(crate) supervision: Supervision,
    /// When the service manager was last told that the daemon lives, since the start.
    pub(crate) alive: Duration,
    /// Freezes under way, by job: reports that they take long, until they end.
    pub(crate) slow_locks: HashMap<u64, tokio::task::JoinHandle<()>>,
    pub(crate) traverses: Traverses,
    /// Actions of the plane that have not been carried out yet.
    pub(crate) actions: VecDeque<Action<Ask, Tell>>,
    pub(crate) exit: Option<i32>,
}

/// An attached database.
pub(crate) struct Attached {
    worker: Worker,
    opened: Option<Opened>,
    path: PathBuf,
    /// Waits for the file to be opened.
    waiting: Option<(Token, ringmaster_protocol::database::DbFlags, bool)>,
}

/// What happens when a job ends.
pub(crate) enum Job {
    /// Its outcome is the ask's.
    Ask(Token),
    /// A traverse.
    Traverse(Token),
    /// A crashed commit is undone: then the shards.
    Recover(DbId),
    /// The worker counts changes: then the shards.
    EnableSeqnum(Token, DbId),
    /// Thaw: then the shards.
    Thaw(Token, DbId, Option<ringmaster_protocol::Generation>),
}

impl Driver {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs until the plane says that the daemon is to end; returns its exit status.
    ///
    /// # Errors
    /// When the doorbell cannot be watched.
    pub(crate) async fn run(mut self, start: Starter) -> std::io::Result<i32> {
        let inbox = Arc::clone(self.shards.inbox());
        // An eventfd, not a pipe; waiting for it and reading it are the same.
        let bell = inbox.wake_fd().try_clone_to_owned()?;
        let bell = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(bell)?;
        let mut alarm = Alarm::new()?;
        self.event(start);
        let mut woken = self.started.elapsed();
        loop {
            while let Some(message) = inbox.pop() {
                self.shard_says(message);
            }
            while let Ok(report) = self.reports.try_recv() {
                self.report(report);
            }
            self.late_controls();
            self.event(|_| {});
            if let Some(status) = self.exit {
                self.manager.stopping();
                self.end().await;
                return Ok(status);
            }
            let flushed = self.shards.flush();
            if !inbox.may_sleep() {
                continue;
            }
            let deadline = self.plane.next_deadline().into_iter();
            let deadline = deadline.chain(self.outstanding.next_deadline()).min();
            let mut pause = deadline.map(|at| at.0.saturating_sub(self.now().0));
            if !flushed {
                pause = Some(pause.unwrap_or(1).min(1));
            }
            let now = self.started.elapsed();
            warn_of(Supervision::handled(now.saturating_sub(woken)));
            let pause = Duration::from_millis(pause.unwrap_or(60_000)).min(self.look_after(now));
            tokio::select! {
                ready = bell.readable() => {
                    ready?;
                    // Clears the counter; an empty one is a wake-up that has been seen already.
                    let _ = bell.try_read(&mut [0; 8]);
                }
                report = self.reports.recv() => {
                    if let Some(report) = report {
                        self.report(report);
                    }
                }
                rung = alarm.until(now, now + pause) => rung?,
            }
            woken = self.started.elapsed();
            warn_of(Supervision::slept(pause, woken.saturating_sub(now)));
            inbox.awake();
        }
    }

    /// What the daemon does for itself from time to time; returns when to come again at the latest.
    fn look_after(&mut self, now: Duration) -> Duration {
        if now >= self.supervision.next_look() {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            warn_of(self.supervision.cpu(now, used.try_into().unwrap_or_default()));
        }
        let mut next = self.supervision.next_look();
        if let Some(interval) = self.manager.watchdog() {
            if now >= self.alive + interval {
                self.alive = now;
                self.manager.alive();
            }
            next = next.min(self.alive + interval);
        }
        next.saturating_sub(now)
    }

    async fn end(self) {
        let Self { shards, workers, mut children, .. } = self;
        children.stop().await;
        for attached in workers.into_values() {
            attached.worker.end();
        }
        shards.stop();
    }

    /// Gives an event to the plane and carries out what it asks for, and what comes of that.
    fn event(&mut self, event: impl FnOnce(&NodeCx)) {
        let mut out = Vec::new();
        let now = self.now();
        self.plane.handle(now, event, &mut out);
        self.actions.extend(out);
        while let Some(action) = self.actions.pop_front() {
            self.carry_out(action);
        }
    }

    fn outcome(&mut self, token: Token, outcome: Outcome) {
        let mut out = Vec::new();
        let now = self.now();
        self.plane.outcome(now, token, outcome, &mut out);
        self.actions.extend(out);
    }

    fn carry_out(&mut self, action: Action<Ask, Tell>) {
        match action {
            Action::Ask(token, ask) => self.ask(token, ask),
            Action::Tell(tell) => self.tell(tell),
            // Outcomes of what nobody waits for are dropped by the plane.
            Action::Forget(token) => {
                self.stop_traverse(token);
                self.children.forget(token);
            }
        }
    }

    fn ask(&mut self, token: Token, ask: Ask) {
        match ask {
            Ask::Control(control) => self.send_control(Some(token), control),
            Ask::Data(data) => self.data(token, data),
            Ask::Script(run) => self.children.run_script(token, run, &self.report),
            Ask::TakeLock { timeout_s } => {
                self.children.take_lock(token, timeout_s, &self.report);
            }
            Ask::TestLock { timeout_s } => {
                self.children.test_lock(token, timeout_s, &self.report);
            }
            Ask::ListPersistent => {
                let names = list_persistent(&self.settings.persistent_dir, self.pnn());
                self.outcome(token, Outcome::Names(names));
            }
            Ask::ReadPublicAddresses => {
                let file = network::public_addresses(&self.paths);
                let file = file.map(|list| list.addresses).map_err(|failure| failure.to_string());
                self.outcome(token, Outcome::PublicAddresses(file));
            }
            Ask::ReadHomeNodes => {
                let homes = network::home_nodes(&self.paths);
                self.outcome(token, Outcome::HomeNodes(homes));
            }
            Ask::Held(addresses) => {
                let held = self.network.held(&addresses);
                self.outcome(token, held);
            }
            Ask::Connections(addresses) => {
                let connections = self.network.connections(&addresses);
                self.outcome(token, connections);
            }
            Ask::ExistingInterfaces(names) => {
                self.outcome(token, network::existing_interfaces(&names));
            }
            Ask::ReadNodes => self.children.read_nodes(token, &self.report),
            Ask::ListenSrvid(srvid) => {
                self.registry.register(srvid, CONTROL.id);
                let change = RegistryChange::Register(srvid, CONTROL.id);
                self.change_registry(change, move |driver, _| {
                    driver.outcome(token, Outcome::Done);
                });
            }
        }
    }

    fn tell(&mut self, tell: Tell) {
        match tell {
            Tell::Reply { request, answer } => self.reply(request, answer),
            Tell::ForgetSrvid(srvid) => {
                self.registry.deregister(srvid, CONTROL.id);
                self.change_registry(RegistryChange::Deregister(srvid, CONTROL.id), |_, _| {});
            }
            Tell::Control(control) => self.send_control(None, control),
            Tell::Message { to, srvid, data } => self.send_message(to, srvid, data),
            Tell::ReleaseLock => self.children.release_lock(),
            Tell::CloseClient(client) => {
                let id = ringmaster_dataplane::record::ClientId(client.0);
                if let Some(client) = self.registry.client(id) {
                    self.shards.send(client.shard, ToShard::CloseClient(client.id));
                }
            }
            Tell::NodesChanged => {
                if self.lanes.is_none() {
                    tracing::error!(
                        "nodes have been added, but this one does not know which Samba version to \
                         say; write `samba version` into [transport] of ringmaster.conf and restart"
                    );
                }
                let view = Arc::new(self.view());
                self.published = Arc::clone(&view);
                self.shards.order(move || Order::View(Arc::clone(&view)), |_, _| {});
            }
            Tell::StartKeepalive => {
                self.shards.send_all(|| ToShard::StartKeepalive);
                // The event `setup` has been run.
                if !self.paths.is_test_mode() {
                    system::lock_memory();
                }
            }
            Tell::Notify(word) => self.children.notify(&self.paths, word),
            Tell::StartTransport => {
                self.listen();
                if let (Some(lanes), Some(listener)) = (self.lanes, self.node_listener.take()) {
                    self.shards.send_all(|| ToShard::StartLanes(lanes));
                    self.shards.send(ShardId(0), ToShard::ListenNodes(listener.into()));
                }
            }
            Tell::Announce { address, interface } => Network::announce(address, &interface),
            Tell::Guard { address, here } => self.children.guard().address(address, here),
            Tell::Tickle(connections) => self.network.tickle(&connections),
            Tell::SetLogLevel(level) => ringmaster_host::logging::set_level(level),
            Tell::Exit(status) => self.exit = Some(status),
        }
    }

    /// Accepts the clients that may be waiting already.
    fn listen(&mut self) {
        if let Some(socket) = self.client_listener.take() {
            self.shards.send(ShardId(0), ToShard::Listen(socket));
            self.manager.ready();
        }
    }

    fn pnn(&self) -> Pnn {
        self.plane.cx().state().pnn()
    }

    fn change_registry(
        &mut self,
        change: RegistryChange,
        then: impl FnOnce(&mut Self, bool) + 'static,
    ) {
        let order = move || Order::Registry(change);
        self.shards.order(order, then);
    }

    fn shard_says(&mut self, message: FromShard) {
        match message {
            FromShard::Ack { token, done, .. } => {
                if let Some(then) = self.shards.acknowledged(token, done) {
                    then(self);
                }
            }
            FromShard::Connected(client) => self.connected(client),
            FromShard::Gone(id) => self.gone(id),
            FromShard::Control(control) => self.client_control(control),
            FromShard::NodeUp(node) => self.node_up(node),
            FromShard::NodeIsOurs(node) => self.event(|cx| controls::node_announced(cx, node)),
            FromShard::NodeDown(node) => self.node_down(node),
            FromShard::NodeControl(bytes) => self.node_control(&bytes),
            FromShard::Leave(reason) => {
                tracing::error!(reason, "leaving the cluster");
                self.event(|cx| ringmaster_control::node::lifecycle::shutdown(cx, 0));
            }
            FromShard::ControlMessage { srvid, data } => {
                self.event(|cx| controls::message(cx, srvid, data.to_vec()));
            }
            FromShard::UpdateRecord { shard, to, token, payload } => {
                self.update_record(shard, to, token, payload);
            }
            FromShard::ForceRecovery { reason } => {
                tracing::warn!(reason, "forcing a recovery");
                self.event(|cx| {
                    cx.state_mut().recovery_mode = ringmaster_protocol::process::RecMode::Active;
                });
            }
            FromShard::SlowLock { db, waited_s } => self.slow_lock(db, "RECORD", waited_s),
            FromShard::Crashed(db) => self.job(Job::Recover(db), db, worker::Job::Recover),
            FromShard::Broken { db, error } => {
                self.broken(db, &error.to_string());
            }
            FromShard::Statistics { token, statistics } => {
                self.statistics.entry(token).or_default().push(*statistics);
            }
            FromShard::Deletions { db, records } => {
                self.deletions.entry(db).or_default().extend(records);
            }
            FromShard::Stopped { shard, error } => {
                if let Some(error) = error {
                    tracing::error!(shard = shard.0, error, "shard has ended; so does the daemon");
                    self.exit = Some(1);
                }
            }
        }
    }

    /// Whoever holds the lock is looked for by the script, unless nobody needs this node.
    fn slow_lock(&mut self, db: DbId, kind: &'static str, waited_s: u64) {
        let Some(attached) = self.workers.get(&db) else { return };
        let path = attached.path.display();
        tracing::warn!("Unable to get {kind} lock on database {path} for {waited_s} seconds");
        if self.plane.cx().state().is_inactive() {
            return;
        }
        let mutexes =
            attached.opened.as_ref().is_some_and(|opened| opened.database.mutexes().is_some());
        let script = self.settings.lock_debug_script.clone();
        let script = script.unwrap_or_else(|| self.paths.etc_dir().join("debug_locks.sh"));
        self.children.debug_locks(&script, kind, &attached.path, mutexes);
    }

    fn broken(&mut self, db: DbId, error: &str) {
        tracing::error!(%db, error, "database is broken here; a recovery rebuilds it");
        self.event(|cx| {
            let mut state = cx.state_mut();
            state.recovery_mode = ringmaster_protocol::process::RecMode::Active;
            if let Some(db) = state.database_mut(db) {
                db.invalid_records = true;
            }
        });
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Opened(db, opened) => self.opened(db, opened),
            Report::Sent(sent, credit) => self.stream(sent, credit),
            Report::JobDone(number, outcome) => self.job_done(number, outcome),
            Report::Outcome(token, outcome) => self.outcome(token, outcome),
            Report::LockLost => self.event(ringmaster_control::node::recd::lock_lost),
            Report::EventdGone => {
                tracing::error!("event daemon went away - exiting");
                self.exit = Some(1);
            }
            Report::Shutdown(status) => {
                self.event(|cx| ringmaster_control::node::lifecycle::shutdown(cx, status));
            }
            Report::SlowFreeze(db, waited_s) => self.slow_lock(db, "DB", waited_s),
            Report::Reopen => ringmaster_host::logging::reopen(),
        }
    }
}

fn warn_of(line: Option<String>) {
    if let Some(line) = line {
        tracing::warn!("{line}");
    }
}

/// Databases of this node in the persistent directory, sorted.
fn list_persistent(folder: &std::path::Path, pnn: Pnn) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("cannot list {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        match ringmaster_storage::ltdb::database_of_file(name, pnn) {
            Some(database) => names.push(database.to_owned()),
            None => tracing::info!(name, "Ignoring persistent database"),
        }
    }
    names.sort();
    Ok(names)
}
