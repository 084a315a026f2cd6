//! Our daemon as a process: starts, refusals, ends, and what it holds meanwhile.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmaster_compat::cluster::{Cluster, Config, Node, Subject, processes};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::run::{RunOutput, run, wait_until};
use ringmaster_compat::vitals::{Vitals, descriptors};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(ctdbd: &Path) -> Config {
    Config::new(1).all(&Subject::Ours { ctdbd: ctdbd.to_path_buf() })
}

/// Runs the daemon's program in the foreground of its own start; for starts that end at once.
fn start_by_hand(node: Node<'_>, ctdbd: &Path, arguments: &[&str]) -> RunOutput {
    run(node.command(ctdbd).args(arguments), PATIENCE).expect("the test machine plays along")
}

fn wait_for_health(node: Node<'_>) {
    wait_until("a healthy node", PATIENCE, || {
        let healthy = node.tool(&["nodestatus"]).ok()?;
        healthy.success().then_some(())
    })
    .expect("the test machine plays along");
}

fn wait_for_the_end(node: Node<'_>) {
    wait_until("no process is left", PATIENCE, || {
        processes::under(node.base()).is_empty().then_some(())
    })
    .expect("the test machine plays along");
}

#[test]
fn a_killed_daemon_starts_at_once_with_everything_left_behind() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::start(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    for arguments in [
        &["attach", "p.tdb", "persistent"][..],
        &["attach", "v.tdb"],
        &["pstore", "p.tdb", "key", "value"],
        &["writekey", "v.tdb", "key", "value"],
    ] {
        node.tool_ok(arguments).unwrap();
    }
    for _ in 0..3 {
        node.crash_daemon().unwrap();
        // Socket and PID file are there, and perhaps the event daemon still is.
        assert!(node.base().join("run/ctdbd.pid").exists());
        assert!(node.socket().exists());
        node.start().unwrap();
        wait_for_health(node);
        let value = node.tool_ok(&["pfetch", "p.tdb", "key"]).unwrap();
        assert_eq!(value, "value\n");
        // Volatile records do not outlive their daemon.
        let databases = node.tool_ok(&["getdbmap"]).unwrap();
        assert!(
            databases.contains("name:p.tdb") && !databases.contains("name:v.tdb"),
            "{databases}"
        );
    }
    node.tool_ok(&["event", "status", "legacy", "startup"]).unwrap();
}

#[test]
fn a_second_daemon_is_refused_in_one_line() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::start(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    let before = node.daemon_pid();
    // C sees the address taken first and exits with 1; told of another address, the PID file: 11.
    let second = start_by_hand(node, &ctdbd, &[]);
    assert_eq!((second.status, second.stderr.lines().count()), (1, 1), "{second}");
    assert!(second.stderr.contains("cannot listen on the node address"), "{second}");
    let own = node.address().to_string();
    let free = free_address(node);
    for name in ["ctdb.conf", "nodes"] {
        let path = node.base().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&own, &free)).unwrap();
    }
    let second = start_by_hand(node, &ctdbd, &[]);
    assert_eq!((second.status, second.stderr.lines().count()), (11, 1), "{second}");
    assert!(
        second.stderr.contains("ctdbd.pid") && second.stderr.contains("ctdb shutdown"),
        "{second}"
    );
    // The first one has not noticed.
    assert_eq!(node.daemon_pid(), before);
    assert_eq!(node.tool_ok(&["pnn"]).unwrap(), "0\n");
}

/// Another address of the node's subnet, which is this test's alone.
fn free_address(node: Node<'_>) -> String {
    let address = node.address().to_string();
    let (subnet, _) = address.rsplit_once('.').expect("an IPv4 address");
    format!("{subnet}.7")
}

fn write(base: &Path, name: &str, text: &str) {
    fs::write(base.join(name), text).expect("the test machine plays along");
}

fn append(base: &Path, name: &str, text: &str) {
    let before = fs::read_to_string(base.join(name)).expect("the test machine plays along");
    write(base, name, &(before + text));
}

#[test]
fn the_configuration_check_names_line_and_remedy() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::prepare(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    let good = start_by_hand(node, &ctdbd, &["--check-config"]);
    assert_eq!(good.status, 0, "{good}");
    assert!(good.stdout.contains("configuration is good"), "{good}");
    append(node.base(), "ctdb.conf", "[cluster]\n\tleader timeout = soon\n");
    append(node.base(), "nodes", "rubbish here\n");
    write(node.base(), "ctdb.tunables", "MonitorInterval=15\nNoSuchTunable=1\n");
    let bad = start_by_hand(node, &ctdbd, &["--check-config"]);
    assert_eq!(bad.status, 1, "{bad}");
    let conf = fs::read_to_string(node.base().join("ctdb.conf")).unwrap();
    for (file, line) in [("ctdb.conf", conf.lines().count()), ("nodes", 2), ("ctdb.tunables", 2)] {
        let named = |text: &&str| text.contains(file) && text.contains(&line.to_string());
        assert!(bad.stdout.lines().any(|text| named(&text)), "{file} line {line}: {bad}");
    }
    assert_eq!(processes::under(node.base()), []);
}

#[test]
fn sigterm_and_shutdown_end_in_order_and_leave_no_process() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::start(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    let left = || -> Vec<PathBuf> {
        // The daemon's socket stays, as C's does.
        let names = ["run/ctdbd.pid", "run/eventd.socket", "run/eventd.pid"];
        names.map(|name| node.base().join(name)).into_iter().filter(|path| path.exists()).collect()
    };
    let shutdowns = || node.events().iter().filter(|event| *event == "shutdown").count();
    node.tool_ok(&["shutdown"]).unwrap();
    wait_for_the_end(node);
    assert_eq!((shutdowns(), left()), (1, Vec::new()));

    node.start().unwrap();
    wait_for_health(node);
    node.signal_daemon(Signal::TERM).unwrap();
    wait_for_the_end(node);
    assert_eq!((shutdowns(), left()), (2, Vec::new()));

    // And while it starts.
    node.start().unwrap();
    node.signal_daemon(Signal::TERM).unwrap();
    wait_for_the_end(node);
    assert_eq!(left(), Vec::<PathBuf>::new());
}

#[test]
fn after_sighup_the_log_goes_to_a_new_file() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::start(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    let old = node.base().join("log.ctdb.1");
    let recoveries = |log: &Path| {
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().filter(|line| line.contains("Recovery starting")).count()
    };
    fs::rename(node.log(), &old).unwrap();
    let before = recoveries(&old);
    node.signal_daemon(Signal::HUP).unwrap();
    wait_until("a new log", PATIENCE, || node.log().exists().then_some(())).unwrap();
    // The event daemon shares the file, and is told by the daemon.
    let rotated = fs::read_to_string(&old).unwrap();
    node.tool_ok(&["event", "run", "30", "legacy", "monitor"]).unwrap();
    node.tool_ok(&["recover"]).unwrap();
    assert_eq!((recoveries(&old), recoveries(&node.log())), (before, 1));
    let added = fs::read_to_string(&old).unwrap().split_off(rotated.len());
    assert!(!added.contains("monitor"), "{added}");
}

#[test]
fn clients_that_have_gone_leave_nothing_behind() {
    let ctdbd = require_our_daemon!();
    let cluster = Cluster::start(config(&ctdbd)).unwrap();
    let node = cluster.node(0);
    let pid = node.daemon_pid().unwrap();
    let crowd = || {
        let clients: Vec<_> =
            (0..250).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
        wait_until("250 clients are connected", PATIENCE, || {
            (descriptors(pid).unwrap() >= 250).then_some(())
        })
        .unwrap();
        drop(clients);
    };
    let flat = |before: usize| {
        // A monitor event may hold a pipe or two for a moment.
        wait_until("all descriptors are closed", PATIENCE, || {
            (descriptors(pid).unwrap() <= before).then_some(())
        })
        .unwrap();
    };
    let before = descriptors(pid).unwrap();
    // What the first crowd leaves is what tables have grown to.
    crowd();
    flat(before);
    let memory = Vitals::of(pid).unwrap().resident_kb;
    for _ in 0..4 {
        crowd();
        crowd();
        flat(before);
    }
    let grown = Vitals::of(pid).unwrap().resident_kb.saturating_sub(memory);
    assert!(grown < 4_096, "2000 clients have left {grown} kB behind");
    assert_eq!(node.tool_ok(&["pnn"]).unwrap(), "0\n");
}
