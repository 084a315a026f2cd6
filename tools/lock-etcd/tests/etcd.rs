//! The helper beside Debian's etcd server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const ETCD: &str = "/usr/bin/etcd";
const HELPER: &str = env!("CARGO_BIN_EXE_ctdb_mutex_etcd_helper");
/// Limit of every wait: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set to `1` where a skipped test counts as a failed one (CI).
const REQUIRE_ALL: &str = "RINGMASTER_REQUIRE_ALL";

struct Etcd {
    server: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// `None`, with the reason printed: there is no etcd here.
    fn start() -> Option<Self> {
        if !Path::new(ETCD).exists() {
            let required = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
            assert!(!required, "{REQUIRE_ALL} is set, but {ETCD} is missing");
            println!("skipped: {ETCD} is missing; install Debian's package `etcd-server`");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let server = Command::new(ETCD)
            .args(["--data-dir".as_ref(), directory.path().as_os_str()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { server, url: client, _directory: directory };
        // It listens before it answers.
        wait("an etcd that answers", || {
            let mut probe = etcd.helper("/probe", "ttl=3");
            let verdict = probe.verdict();
            probe.signal(Signal::TERM);
            probe.child.wait().unwrap();
            verdict == '0'
        });
        Some(etcd)
    }

    fn helper(&self, key: &str, option: &str) -> Helper {
        Helper::start(&[&self.url, key, option])
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Free at this moment.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

struct Helper {
    child: Child,
    stdout: ChildStdout,
}

impl Helper {
    fn start(arguments: &[&str]) -> Self {
        let mut child =
            Command::new(HELPER).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self { child, stdout }
    }

    fn verdict(&mut self) -> char {
        let mut character = [0];
        self.stdout.read_exact(&mut character).expect("one character");
        character[0].into()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    fn ended(&mut self) {
        wait("the end of the helper", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Tries until somebody gets the lock.
fn next_holder(etcd: &Etcd, key: &str) -> Helper {
    let mut holder = None;
    wait("a free lock", || {
        let mut helper = etcd.helper(key, "ttl=3");
        let taken = helper.verdict() == '0';
        holder = taken.then_some(helper);
        taken
    });
    holder.unwrap()
}

#[test]
fn one_holder_at_a_time() {
    let Some(etcd) = Etcd::start() else { return };
    let mut first = etcd.helper("/lock", "ttl=60");
    assert_eq!(first.verdict(), '0');
    for _ in 0..3 {
        let mut second = etcd.helper("/lock", "ttl=60");
        assert_eq!(second.verdict(), '1');
        second.ended();
    }
    assert_eq!(etcd.helper("/another", "ttl=60").verdict(), '0', "another cluster's lock");
    // Its lease of a minute does not matter when it gives the lock back.
    first.signal(Signal::TERM);
    first.ended();
    assert_eq!(etcd.helper("/lock", "ttl=60").verdict(), '0');
}

#[test]
fn of_many_at_once_one_gets_it() {
    let Some(etcd) = Etcd::start() else { return };
    let mut helpers: Vec<_> = (0..8).map(|_| etcd.helper("/lock", "ttl=60")).collect();
    let verdicts: String = helpers.iter_mut().map(Helper::verdict).collect();
    assert_eq!(verdicts.matches('0').count(), 1, "{verdicts}");
    assert_eq!(verdicts.matches('1').count(), 7, "{verdicts}");
}

#[test]
fn a_holder_keeps_it_for_longer_than_one_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(etcd.helper("/lock", "ttl=3").verdict(), '1');
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(holder.child.try_wait().unwrap().is_none());
}

#[test]
fn a_killed_holder_is_outlived_by_its_lease_only() {
    let Some(etcd) = Etcd::start() else { return };
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    next_holder(&etcd, "/lock");
}

#[test]
fn a_holder_that_stood_still_does_not_believe_that_it_holds() {
    let Some(etcd) = Etcd::start() else { return };
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    holder.signal(Signal::STOP);
    let next = next_holder(&etcd, "/lock");
    holder.signal(Signal::CONT);
    holder.ended();
    // And it does not take the lock from who has it now.
    assert_eq!(etcd.helper("/lock", "ttl=3").verdict(), '1');
    drop(next);
}

#[test]
fn without_etcd_a_holder_gives_up() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    etcd.server.kill().unwrap();
    etcd.server.wait().unwrap();
    holder.ended();
    assert_eq!(etcd.helper("/lock", "ttl=3").verdict(), '3');
}

#[test]
fn an_etcd_that_stands_still_is_no_etcd() {
    let Some(etcd) = Etcd::start() else { return };
    let server = Pid::from_raw(i32::try_from(etcd.server.id()).unwrap()).unwrap();
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    kill_process(server, Signal::STOP).unwrap();
    holder.ended();
    assert_eq!(etcd.helper("/lock", "ttl=3").verdict(), '3');
    kill_process(server, Signal::CONT).unwrap();
    next_holder(&etcd, "/lock");
}

#[test]
fn a_key_that_somebody_deletes_is_a_lost_lock() {
    let Some(etcd) = Etcd::start() else { return };
    let mut holder = etcd.helper("/lock", "ttl=3");
    assert_eq!(holder.verdict(), '0');
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([&etcd.url], None).await.unwrap();
        client.delete("/lock", None).await.unwrap();
    });
    holder.ended();
    next_holder(&etcd, "/lock");
}

#[test]
fn a_holder_ends_with_its_daemon() {
    let Some(etcd) = Etcd::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let script = "\"$0\" \"$1\" /lock ttl=60 >\"$2\" & echo $!; wait";
    let mut daemon = Command::new("/bin/sh")
        .args(["-c", script, HELPER, &etcd.url])
        .arg(&said)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait("the lock", || fs::read_to_string(&said).is_ok_and(|text| text == "0"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let mut pid = String::new();
    daemon.stdout.take().unwrap().read_to_string(&mut pid).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    wait("the end of the helper", || test_kill_process(pid).is_err());
    // In order: not by the end of a lease of a minute.
    assert_eq!(etcd.helper("/lock", "ttl=60").verdict(), '0');
}

#[test]
fn a_wrong_command_line_says_nothing_to_the_daemon() {
    let output = Command::new(HELPER).args(["localhost:2379", "/lock"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("'localhost:2379'") && text.contains("Usage"), "{text}");
}
