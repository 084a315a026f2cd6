//! Children of the daemon: event daemon, guard, lock helpers, notification script, nodes command.
//!
//! Role: the only place that starts processes, always with exec, always from the main thread.
//! Invariants
//! - Every child is in a process group of its own and is ended with the daemon; the guard ends itself.
//! - Every ask that a child serves gets an outcome, whatever becomes of the child.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.8, 10.1, 10.6; `ctdb/server/eventscript.c`,
//! `ctdb/server/ctdb_cluster_mutex.c`.

mod events;
mod guard;
mod lock;

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ringmaster_control::{
    config::{Paths, Settings, nodes, settings::FileOrCommand},
    node::{Outcome, world::ScriptRun},
    plane::Token,
};
use ringmaster_protocol::node::{NodeAndFlags, NodeFlags, NodeMap};
use tokio::{process::Command, sync::mpsc, task::JoinHandle};

use self::lock::Held;
pub(crate) use self::{events::Eventd, guard::Guard};
use crate::driver::Report;

/// A nodes command that says nothing for this long is ended.
const NODES_COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// A lock debug script that runs for this long is ended.
const DEBUG_PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Children {
    eventd: Option<Eventd>,
    lock_command: Option<Vec<OsString>>,
    held: Option<Held>,
    guard: Guard,
    nodes: FileOrCommand,
    port: u16,
    tasks: HashMap<Token, JoinHandle<()>>,
    debugging: Option<JoinHandle<()>>,
}

impl Children {
    /// No child yet.
    pub(crate) fn new(settings: &Settings, paths: &Paths, port: u16) -> Self {
        let lock_command = settings.cluster_lock_command(paths).map(|mut words| {
            if !Path::new(&words[0]).exists()
                && let Some(ours) = own_helper(paths, "ctdb_mutex_fcntl_helper")
                && words[0].to_string_lossy().ends_with("ctdb_mutex_fcntl_helper")
            {
                words[0] = ours.into();
            }
            words
        });
        Self {
            eventd: None,
            lock_command,
            held: None,
            guard: Guard::default(),
            nodes: settings.nodes.clone(),
            port,
            tasks: HashMap::new(),
            debugging: None,
        }
    }

    /// The event daemon, once it runs.
    pub(crate) fn set_eventd(&mut self, eventd: Eventd) {
        self.eventd = Some(eventd);
    }

    /// The guard, once it runs.
    pub(crate) fn set_guard(&mut self, guard: Guard) {
        self.guard = guard;
    }

    /// Who gives up what this daemon leaves.
    pub(crate) const fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(crate) fn run_script(
        &mut self,
        token: Token,
        run: ScriptRun,
        report: &mpsc::Sender<Report>,
    ) {
        let socket = self.eventd.as_ref().map(|eventd| eventd.socket().to_path_buf());
        let report = report.clone();
        let task = tokio::task::spawn_local(async move {
            let result = match socket {
                Some(socket) => events::run(&socket, &run).await,
                None => ringmaster_control::node::world::ScriptResult::NotRun,
            };
            // Fails only when the daemon is ending.
            let _ = report.send(Report::Outcome(token, Outcome::Script(result))).await;
        });
        self.tasks.insert(token, task);
        self.tasks.retain(|_, task| !task.is_finished());
    }

    /// Nobody waits for this any more.
    pub(crate) fn forget(&mut self, token: Token) {
        if let Some(task) = self.tasks.remove(&token) {
            task.abort();
        }
    }

    pub(crate) fn take_lock(
        &mut self,
        token: Token,
        timeout_s: u32,
        report: &mpsc::Sender<Report>,
    ) {
        self.release_lock();
        let Some(command) = self.lock_command.clone() else {
            return lock::no_lock(token, report);
        };
        let guard = self.guard.clone();
        self.held = Some(Held::take(token, command, timeout_s, report.clone(), guard));
    }

    pub(crate) fn test_lock(
        &mut self,
        token: Token,
        timeout_s: u32,
        report: &mpsc::Sender<Report>,
    ) {
        match self.lock_command.clone() {
            Some(command) => lock::test(token, command, timeout_s, report.clone()),
            None => lock::no_lock(token, report),
        }
    }

    pub(crate) fn release_lock(&mut self) {
        // Its task ends the helper.
        self.held = None;
    }

    /// Runs the notification script with a word; nobody waits for it.
    pub(crate) fn notify(&self, paths: &Paths, word: &'static str) {
        let script = paths.notify_script();
        let mut command = Command::new(&script);
        command.arg(word).stdin(Stdio::null()).process_group(0);
        match command.spawn() {
            Ok(mut child) => {
                tokio::task::spawn_local(async move { child.wait().await });
            }
            Err(error) => {
                tracing::error!(script = %script.display(), %error, "cannot run notification script");
            }
        }
    }

    /// Runs the lock debug script; its output goes to the log. One at a time.
    pub(crate) fn debug_locks(
        &mut self,
        script: &Path,
        kind: &'static str,
        database: &Path,
        mutexes: bool,
    ) {
        if self.debugging.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let mut command = Command::new(script);
        command
            .arg(std::process::id().to_string())
            .arg(kind)
            .arg(database)
            .arg(if mutexes { "MUTEX" } else { "FCNTL" })
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .process_group(0);
        let script = script.to_owned();
        self.debugging = Some(tokio::task::spawn_local(async move {
            match tokio::time::timeout(DEBUG_PATIENCE, command.output()).await {
                Ok(Ok(output)) => {
                    for line in String::from_utf8_lossy(&output.stdout).lines() {
                        tracing::warn!("{line}");
                    }
                    for line in String::from_utf8_lossy(&output.stderr).lines() {
                        tracing::warn!("{line}");
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(script = %script.display(), %error, "cannot run lock debug script");
                }
                Err(_) => {
                    tracing::warn!(script = %script.display(), "lock debug script does not end");
                }
            }
        }));
    }

    pub(crate) fn read_nodes(&self, token: Token, report: &mpsc::Sender<Report>) {
        let (nodes, port, report) = (self.nodes.clone(), self.port, report.clone());
        tokio::task::spawn_local(async move {
            let list = read_nodes(&nodes, port).await;
            let _ = report.send(Report::Outcome(token, Outcome::Nodes(list))).await;
        });
    }

    /// Ends all children.
    pub(crate) async fn stop(&mut self) {
        self.held = None;
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
        if let Some(eventd) = self.eventd.take() {
            eventd.stop().await;
        }
    }
}

/// Reads and parses the nodes list.
pub(crate) async fn read_nodes(nodes: &FileOrCommand, port: u16) -> Result<NodeMap, String> {
    let text = match nodes {
        FileOrCommand::File(path) => tokio_read(path)
            .map_err(|error| format!("cannot read the nodes list {}: {error}", path.display()))?,
        FileOrCommand::Command(words) => {
            let named = || words[0].to_string_lossy().into_owned();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
            let output = tokio::time::timeout(NODES_COMMAND_PATIENCE, command.output())
                .await
                .map_err(|_| format!("nodes list command {} does not end", named()))?
                .map_err(|error| format!("cannot run nodes list command {}: {error}", named()))?;
            if !output.status.success() {
                return Err(format!("nodes list command {} failed: {}", named(), output.status));
            }
            output.stdout
        }
    };
    let list = nodes::parse(&text).map_err(|finding| match nodes {
        FileOrCommand::File(path) => format!("nodes list {}: {finding}", path.display()),
        FileOrCommand::Command(words) => {
            format!("output of nodes list command {}: {finding}", words[0].to_string_lossy())
        }
    })?;
    let entry = |node: &nodes::Node| {
        let deleted = node.address.is_none();
        let ip = node.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        NodeAndFlags {
            pnn: node.pnn,
            flags: if deleted { NodeFlags::DELETED } else { NodeFlags::NONE },
            addr: ringmaster_protocol::address::SockAddr::new(ip, if deleted { 0 } else { port }),
        }
    };
    Ok(NodeMap(list.nodes.iter().map(entry).collect()))
}

/// Small configuration files are read in place: they lie on a local disk.
fn tokio_read(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// One of our own helpers: beside this program, or where an installation puts it.
pub(crate) fn own_helper(paths: &Paths, name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    let candidates =
        [folder.join(name), folder.join("../libexec/ctdb").join(name), paths.helper(name)];
    candidates.into_iter().find(|path| path.exists())
}
