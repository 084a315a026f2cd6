//! Our client library against C daemons.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ringmaster_client::{
    CallError, Client, ConnectionError, ControlError, ControlOptions, DbKind, ReceiveError,
    RecordError, TransactionError, TransactionOptions,
};
use ringmaster_compat::cluster::{Cluster, Config};
use ringmaster_compat::run::wait_until;
use ringmaster_compat::{prerequisite, require_c_cluster};
use ringmaster_protocol::call::{CallFlags, CallId};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::control::payloads::Pid;
use ringmaster_protocol::record::RecordFlags;
use ringmaster_protocol::tunnel::TunnelFlags;
use ringmaster_protocol::{DbId, Destination, Pnn, Srvid};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(30);

/// One cluster of three nodes for the tests that leave it as it was, while any of them runs. They
/// use databases and srvids of their own.
fn shared_cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start(Config::new(3)).unwrap());
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

fn connect(cluster: &Cluster, node: usize) -> Client {
    Client::connect_to(&cluster.node(node).socket(), TIMEOUT).unwrap()
}

fn pnn(number: u32) -> Pnn {
    Pnn::new(number).unwrap()
}

fn own_pid() -> Pid {
    Pid(std::process::id().cast_signed())
}

#[test]
fn messages_tunnels_and_controls_reach_other_nodes() {
    require_c_cluster!();
    let cluster = shared_cluster();
    let mut clients: Vec<_> = (0..3).map(|node| connect(&cluster, node)).collect();
    for (node, client) in clients.iter().enumerate() {
        assert_eq!(client.pnn().get() as usize, node);
    }
    controls_reach_every_node(&mut clients[0]);
    messages_keep_their_order(&mut clients);
    a_broadcast_reaches_everybody(&mut clients);
    a_tunnel_joins_two_nodes(&mut clients);
    the_death_of_a_client_is_announced(&cluster, &mut clients[0]);
    processes_are_known(&mut clients);
    let leader = clients[2].wait_for_leader(TIMEOUT).unwrap();
    let told = cluster.node(0).tool_ok(&["leader"]).unwrap();
    assert_eq!(leader.map(|leader| format!("{leader}\n")), Some(told));
}

fn controls_reach_every_node(client: &mut Client) {
    let nodes = [pnn(0), pnn(1), pnn(2)];
    let mut answered = Vec::new();
    client.control_each::<kinds::GetPnn>(&nodes, &(), ControlOptions::default(), |node, answer| {
        assert_eq!(answer.unwrap().0, node);
        answered.push(node);
    });
    assert_eq!(answered, nodes);
    let nobody = Destination::Node(pnn(7));
    let error = client.control::<kinds::Ping>(nobody, &()).unwrap_err();
    let ControlError::Failed { status: -1, text, .. } = &error else { panic!("{error:?}") };
    assert_eq!(text, "ctdb_control to disconnected node");
}

fn messages_keep_their_order(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0001);
    clients[2].register(srvid).unwrap();
    for number in 0..500_u32 {
        let data = number.to_le_bytes();
        clients[0].send_message(Destination::Node(pnn(2)), srvid, &data).unwrap();
    }
    for number in 0..500_u32 {
        let message = clients[2].receive(TIMEOUT).unwrap();
        assert_eq!((message.srvid, message.data), (srvid, number.to_le_bytes().to_vec()));
    }
    clients[2].deregister(srvid).unwrap();
    let error = clients[2].deregister(srvid).unwrap_err();
    assert_eq!(error.errno(), 2);
}

fn a_broadcast_reaches_everybody(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0002);
    for client in &mut *clients {
        client.register(srvid).unwrap();
    }
    clients[1].send_message(Destination::BroadcastConnected, srvid, b"all").unwrap();
    for client in clients {
        assert_eq!(client.receive_to(srvid, TIMEOUT).unwrap().data, b"all");
        client.deregister(srvid).unwrap();
    }
}

fn a_tunnel_joins_two_nodes(clients: &mut [Client]) {
    let tunnel = 0xFFFF_FFFF_0000_0005;
    clients[0].register_tunnel(tunnel).unwrap();
    clients[1].register_tunnel(tunnel).unwrap();
    let again = clients[1].register_tunnel(tunnel);
    assert!(matches!(again, Err(ControlError::Failed { .. })), "{again:?}");
    let flags = TunnelFlags(TunnelFlags::REQUEST.0 | TunnelFlags::NOREPLY.0);
    clients[0].send_tunnel(pnn(1), tunnel, flags, b"through").unwrap();
    let packet = clients[1].receive_tunnel(tunnel, TIMEOUT).unwrap();
    assert_eq!((packet.flags, packet.data), (flags, b"through".to_vec()));
    clients[0].deregister_tunnel(tunnel).unwrap();
    clients[1].deregister_tunnel(tunnel).unwrap();
}

fn the_death_of_a_client_is_announced(cluster: &Cluster, observer: &mut Client) {
    let srvid = Srvid(0xAE00_0000_0000_0003);
    observer.register(srvid).unwrap();
    let mut mortal = connect(cluster, 2);
    mortal.register_notify(srvid, b"gone").unwrap();
    drop(mortal);
    assert_eq!(observer.receive_to(srvid, TIMEOUT).unwrap().data, b"gone");
    let mut careful = connect(cluster, 2);
    careful.register_notify(srvid, b"gone").unwrap();
    careful.deregister_notify(srvid).unwrap();
    drop(careful);
    observer.deregister(srvid).unwrap();
}

fn processes_are_known(clients: &mut [Client]) {
    let srvid = Srvid(0xAE00_0000_0000_0004);
    clients[1].register(srvid).unwrap();
    assert!(clients[0].process_exists(pnn(1), own_pid()).unwrap());
    assert!(!clients[0].process_exists(pnn(1), Pid(i32::MAX)).unwrap());
    assert!(clients[0].process_registered(pnn(1), own_pid(), srvid).unwrap());
    assert!(!clients[0].process_registered(pnn(0), own_pid(), srvid).unwrap());
    clients[1].deregister(srvid).unwrap();
}

#[test]
fn a_traverse_hands_over_every_record_once() {
    require_c_cluster!();
    let cluster = shared_cluster();
    let mut client = connect(&cluster, 1);
    let db = client.attach("traverse.tdb", DbKind::Volatile).unwrap();
    assert_eq!(db.id, DbId::from_name("traverse.tdb"));
    assert!(db.path.starts_with(cluster.node(1).volatile_directory()), "{:?}", db.path);
    for number in 0..40 {
        let node = cluster.node(number % 2);
        let (key, value) = (format!("key{number}"), format!("value{number}"));
        node.tool_ok(&["writekey", "traverse.tdb", &key, &value]).unwrap();
    }
    cluster.node(0).tool_ok(&["deletekey", "traverse.tdb", "key7"]).unwrap();
    let mut seen = Vec::new();
    let collect = |client: &mut Client, with_empty, seen: &mut Vec<(String, String)>| {
        seen.clear();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        client.traverse(db.id, with_empty, TIMEOUT, |record| {
            assert!(record.header.is_some());
            seen.push((text(record.key), text(record.value)));
            ControlFlow::Continue(())
        })
    };
    assert_eq!(collect(&mut client, false, &mut seen).unwrap(), 39);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 39);
    assert!(seen.contains(&("key39".into(), "value39".into())));
    assert!(seen.iter().all(|(key, _)| key != "key7"));

    let mut first = 0;
    let stopped = client.traverse(db.id, false, TIMEOUT, |_| {
        first += 1;
        if first == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.unwrap(), first), (3, 3));
    // The rest of the broken-off traverse does not turn up in the next one.
    assert_eq!(collect(&mut client, false, &mut seen).unwrap(), 39);
}

#[test]
fn locked_counters_of_three_nodes_lose_nothing() {
    require_c_cluster!();
    const ROUNDS: u32 = 150;
    let cluster = shared_cluster();
    std::thread::scope(|scope| {
        // Two clients on node 0: they exclude each other by the chain lock, the nodes by migration.
        for node in [0, 0, 1, 2] {
            let cluster = &*cluster;
            scope.spawn(move || {
                let mut client = connect(cluster, node);
                let mut db = client.open("counter.tdb", DbKind::Volatile).unwrap();
                for _ in 0..ROUNDS {
                    let mut record = client.lock_record(&mut db, b"counter").unwrap();
                    let next = count(record.value()) + 1;
                    record.store(&next.to_le_bytes()).unwrap();
                    record.unlock().unwrap();
                }
            });
        }
    });
    let mut client = connect(&cluster, 1);
    let mut db = client.open("counter.tdb", DbKind::Volatile).unwrap();
    let value = client.fetch(&mut db, b"counter").unwrap().unwrap();
    assert_eq!(count(&value), 4 * ROUNDS);

    // The C tool sees the same value, and what it writes is seen here.
    cluster.node(2).tool_ok(&["writekey", "counter.tdb", "counter", "by-the-tool"]).unwrap();
    assert_eq!(client.fetch(&mut db, b"counter").unwrap().unwrap(), b"by-the-tool");
    let mut record = client.lock_record(&mut db, b"counter").unwrap();
    record.store(b"by-us").unwrap();
    record.unlock().unwrap();
    let read = cluster.node(0).tool_ok(&["readkey", "counter.tdb", "counter"]).unwrap();
    assert_eq!(read, "Data: size:5 ptr:[by-us]\n");
    client.lock_record(&mut db, b"counter").unwrap().delete(&mut client).unwrap();
    assert_eq!(client.fetch(&mut db, b"counter").unwrap(), None);
    let read = cluster.node(2).tool_ok(&["readkey", "counter.tdb", "counter"]).unwrap();
    assert_eq!(read, "Data: size:0 ptr:[]\n");
}

fn count(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_le_bytes)
}

#[test]
fn readonly_copies_are_called_back_before_a_change() {
    require_c_cluster!();
    let cluster = shared_cluster();
    let mut clients: Vec<_> = (0..2).map(|node| connect(&cluster, node)).collect();
    let open = |client: &mut Client| client.open("ro.tdb", DbKind::Volatile).unwrap();
    let mut dbs: Vec<_> = clients.iter_mut().map(open).collect();
    clients[0].enable_readonly(dbs[0].id(), &[pnn(0), pnn(1), pnn(2)]).unwrap();
    for round in 0..3_u8 {
        let mut record = clients[0].lock_record(&mut dbs[0], b"key").unwrap();
        assert!(!record.header().flags.intersects(RecordFlags::RO_ALL));
        record.store(&[round + 1]).unwrap();
        record.unlock().unwrap();
        let fetched = clients[1].fetch_readonly(&mut dbs[1], b"key").unwrap();
        assert_eq!(fetched, Some(vec![round + 1]));
        let (header, _) = dbs[1].fetch_local(b"key", TIMEOUT).unwrap().unwrap();
        assert!(header.flags.contains(RecordFlags::RO_HAVE_READONLY), "{header:?}");
        let (header, _) = dbs[0].fetch_local(b"key", TIMEOUT).unwrap().unwrap();
        assert!(header.flags.contains(RecordFlags::RO_HAVE_DELEGATIONS), "{header:?}");
    }
    // The holder of a copy wants to write: the copy is called back, the record moves here.
    let mut record = clients[1].lock_record(&mut dbs[1], b"key").unwrap();
    assert_eq!(record.value(), [3]);
    record.store(b"moved").unwrap();
    record.unlock().unwrap();
    assert_eq!(clients[0].fetch(&mut dbs[0], b"key").unwrap().unwrap(), b"moved");
}

#[test]
fn transactions_beside_the_c_tool_lose_nothing() {
    require_c_cluster!();
    const ROUNDS: u32 = 12;
    let cluster = shared_cluster();
    for (name, kind, word) in [
        ("pers.tdb", DbKind::Persistent, "persistent"),
        ("repl.tdb", DbKind::Replicated, "replicated"),
    ] {
        cluster.node(0).tool_ok(&["attach", name, word]).unwrap();
        std::thread::scope(|scope| {
            for node in 0..3 {
                let cluster = &cluster;
                scope.spawn(move || increment(cluster, node, name, kind, ROUNDS));
            }
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let value = format!("round{round}");
                    cluster.node(1).tool_ok(&["pstore", name, "tool", &value]).unwrap();
                }
            });
        });
        let seqnum = format!("{:#x}\n", 4 * ROUNDS);
        for node in cluster.nodes() {
            assert_eq!(node.tool_ok(&["getdbseqnum", name]).unwrap(), seqnum);
            let last = format!("round{}\n", ROUNDS - 1);
            assert_eq!(node.tool_ok(&["pfetch", name, "tool"]).unwrap(), last);
            let mut client = connect(&cluster, node.index());
            let mut db = client.open(name, kind).unwrap();
            let value = client.fetch(&mut db, b"counter").unwrap().unwrap();
            assert_eq!(count(&value), 3 * ROUNDS, "{name} on node {}", node.index());
        }
    }
    what_a_transaction_refuses(&cluster);
}

fn increment(cluster: &Cluster, node: usize, name: &str, kind: DbKind, rounds: u32) {
    let mut client = connect(cluster, node);
    let mut db = client.open(name, kind).unwrap();
    for _ in 0..rounds {
        let mut transaction = client.begin(&mut db).unwrap();
        let value = transaction.fetch(b"counter").unwrap().unwrap_or_default();
        let next = count(&value) + 1;
        transaction.store(b"counter", &next.to_le_bytes()).unwrap();
        transaction.store(format!("of{node}").as_bytes(), b"x").unwrap();
        transaction.commit().unwrap();
    }
}

fn what_a_transaction_refuses(cluster: &Cluster) {
    let mut client = connect(cluster, 0);
    let mut db = client.open("pers.tdb", DbKind::Persistent).unwrap();
    let error = client.lock_record(&mut db, b"counter").unwrap_err();
    assert!(matches!(error, RecordError::NotVolatile { .. }), "{error:?}");
    let seqnum = |cluster: &Cluster| cluster.node(2).tool_ok(&["getdbseqnum", "pers.tdb"]).unwrap();
    let before = seqnum(cluster);
    let mut transaction = client.begin(&mut db).unwrap();
    transaction.store(b"counter", b"cancelled").unwrap();
    let error = transaction.store(b"__db_sequence_number__\0", b"12345678").unwrap_err();
    assert!(matches!(error, TransactionError::ReservedKey { .. }), "{error:?}");
    // Another client waits for the lock, in vain.
    let options = TransactionOptions {
        lock_timeout: Duration::from_millis(100),
        ..TransactionOptions::default()
    };
    let mut other = connect(cluster, 1);
    let mut other_db = other.open("pers.tdb", DbKind::Persistent).unwrap();
    let error = other.begin_with(&mut other_db, options).unwrap_err();
    let own = format!("held by process {} of node 0", std::process::id());
    assert!(error.to_string().contains(&own), "{error}");
    transaction.cancel().unwrap();
    // Nothing changed, the lock is free again, and no change means no commit.
    other.begin_with(&mut other_db, options).unwrap().commit().unwrap();
    assert_eq!(seqnum(cluster), before);
    let mut transaction = other.begin(&mut other_db).unwrap();
    transaction.delete(b"counter").unwrap();
    assert_eq!(transaction.fetch(b"counter").unwrap(), None);
    transaction.commit().unwrap();
    assert_eq!(client.fetch(&mut db, b"counter").unwrap(), None);
    assert_ne!(seqnum(cluster), before);
}

#[test]
fn a_lock_of_the_dead_is_taken_and_one_of_the_living_waited_for() {
    require_c_cluster!();
    let cluster = shared_cluster();
    let mut client = connect(&cluster, 0);
    let mut db = client.open("dead.tdb", DbKind::Persistent).unwrap();
    let options = TransactionOptions {
        lock_timeout: Duration::from_millis(300),
        ..TransactionOptions::default()
    };
    // The tool begins its transaction and reads changes from its standard input until that ends.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = cluster.node(1).command("/usr/bin/ctdb");
    let mut tool = command.args(["ptrans", "dead.tdb"]).stdin(reader).spawn().unwrap();
    drop(command);
    let locked = wait_until("the tool's transaction lock", TIMEOUT, || {
        client.begin_with(&mut db, options).err()
    });
    let error = locked.unwrap();
    let text = format!("held by process {} of node 1", tool.id());
    assert!(error.to_string().contains(&text), "{error}");
    // Killed with the lock in its hands.
    tool.kill().unwrap();
    tool.wait().unwrap();
    drop(writer);
    let mut transaction = client.begin(&mut db).unwrap();
    transaction.store(b"key", b"after the dead").unwrap();
    transaction.commit().unwrap();
    let fetched = cluster.node(1).tool_ok(&["pfetch", "dead.tdb", "key"]).unwrap();
    assert_eq!(fetched, "after the dead\n");
}

#[test]
fn a_lock_of_sambas_is_waited_for() {
    require_c_cluster!();
    let net = "/usr/bin/net";
    if !std::path::Path::new(net).exists() {
        prerequisite::skip("/usr/bin/net is missing; install Debian's package `samba-common-bin`");
        return;
    }
    let cluster = shared_cluster();
    let mut client = connect(&cluster, 1);
    let mut db = client.open("samba.tdb", DbKind::Persistent).unwrap();
    // Held until the shell's standard input ends.
    let (reader, writer) = std::io::pipe().unwrap();
    let conf = samba_configuration(&cluster);
    let lock = format!("transaction_db_{}", db.id());
    let arguments = ["-s", &conf, "g_lock", "do", &lock, "60", "cat"];
    let mut command = cluster.node(0).command(net);
    let mut holder = command.args(arguments).stdin(reader).spawn().unwrap();
    drop(command);
    let options = TransactionOptions {
        lock_timeout: Duration::from_millis(300),
        ..TransactionOptions::default()
    };
    let error = wait_until("the lock in Samba's hands", TIMEOUT, || {
        client.begin_with(&mut db, options).err()
    });
    let text = format!("held by process {} of node 0", holder.id());
    assert!(error.as_ref().unwrap().to_string().contains(&text), "{error:?}");
    drop(writer);
    let mut transaction = client.begin(&mut db).unwrap();
    transaction.store(b"key", b"afterwards").unwrap();
    transaction.commit().unwrap();
    assert!(holder.wait().unwrap().success());
}

/// A `smb.conf` with which `net` is a client of node 0 and touches nothing outside its directory.
fn samba_configuration(cluster: &Cluster) -> String {
    let directory = cluster.directory().join("samba");
    let mut text = String::from("[global]\nclustering = yes\n");
    text += &format!("ctdbd socket = {}\n", cluster.node(0).socket().display());
    for name in ["private", "lock", "state", "cache", "pid"] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).unwrap();
        let option = if name == "private" { "private dir" } else { &format!("{name} directory") };
        text += &format!("{option} = {}\n", path.display());
    }
    text += &format!("log file = {}\n", directory.join("log").display());
    let conf = directory.join("smb.conf");
    std::fs::write(&conf, text).unwrap();
    conf.display().to_string()
}

#[test]
fn the_examples_run() {
    require_c_cluster!();
    let cluster = shared_cluster();
    // This program is target/PROFILE/deps/NAME-HASH.
    let own = std::env::current_exe().unwrap();
    let directory = own.parent().and_then(std::path::Path::parent).unwrap().join("examples");
    let run = |node: usize, name: &str, arguments: &[&str]| {
        let output = cluster.node(node).run(directory.join(name), arguments).unwrap();
        assert!(output.success(), "{name}: {output}");
        output.stdout
    };
    let names = ["ping", "counter", "transaction", "messages", "traverse"];
    if let Some(name) = names.into_iter().find(|name| !directory.join(name).exists()) {
        prerequisite::skip(&format!(
            "example {name} is not built (cargo test --workspace builds it)"
        ));
        return;
    }
    assert_eq!(run(0, "ping", &[]).lines().count(), 3);
    run(0, "counter", &["20"]);
    let text = run(1, "counter", &["5"]);
    assert_eq!(text, "5 increments, the counter is at 25\n");
    run(0, "transaction", &["7"]);
    assert_eq!(run(1, "transaction", &["1"]), "left: -8, right: 8\n");
    assert_eq!(run(1, "messages", &["hello", "1"]), "node 1: hello\n");
    let text = run(0, "traverse", &["counter-example.tdb"]);
    assert_eq!(text, "\"counter\": 8 bytes, on node 1\n1 records\n");
    assert!(run(1, "traverse", &[]).contains("transaction-example.tdb Persistent\n"));
}

#[test]
fn a_commit_that_a_recovery_interrupts_is_settled() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(3).first_leads()).unwrap();
    let mut client = connect(&cluster, 0);
    let mut db = client.open("pers.tdb", DbKind::Persistent).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                cluster.node(1).tool_ok(&["recover"]).unwrap();
            }
        });
        for round in 0..20_u32 {
            let mut transaction = client.begin(&mut db).unwrap();
            let value = transaction.fetch(b"counter").unwrap().unwrap_or_default();
            assert_eq!(count(&value), round);
            transaction.store(b"counter", &(round + 1).to_le_bytes()).unwrap();
            transaction.commit().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    cluster.settle().unwrap();
    for node in cluster.nodes() {
        assert_eq!(node.tool_ok(&["getdbseqnum", "pers.tdb"]).unwrap(), "0x14\n");
    }
}

#[test]
fn a_database_is_detached_when_attaching_is_forbidden() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    let mut client = connect(&cluster, 0);
    let db = client.attach("short-lived.tdb", DbKind::Volatile).unwrap();
    let error = client.detach(db.id).unwrap_err();
    assert!(matches!(error, ControlError::Failed { .. }), "{error:?}");
    cluster.node(0).tool_ok(&["setvar", "AllowClientDBAttach", "0"]).unwrap();
    client.detach(db.id).unwrap();
    // Carried out by a broadcast that the daemon also sends to itself.
    let gone = wait_until("the end of the database", TIMEOUT, || {
        let left = client.databases().unwrap();
        left.iter().all(|(id, ..)| *id != db.id).then_some(())
    });
    gone.unwrap();
    let error = client.attach("short-lived.tdb", DbKind::Volatile).unwrap_err();
    assert!(error.to_string().contains("cannot attach to database short-lived.tdb"), "{error}");
}

#[test]
fn a_daemon_that_hangs_or_dies_makes_a_clear_error() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    let mut client = connect(&cluster, 0);
    let to = client.own_node();
    client.set_timeout(Duration::from_millis(200));
    let unknown = DbId(0x1234_5678);
    let error = client.call(unknown, b"key", CallId::NULL, CallFlags(0)).unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");

    cluster.node(0).signal_daemon(Signal::STOP).unwrap();
    let error = client.control::<kinds::Ping>(to, &()).unwrap_err();
    assert!(matches!(error, ControlError::TimedOut { .. }), "{error:?}");
    cluster.node(0).signal_daemon(Signal::CONT).unwrap();
    client.set_timeout(TIMEOUT);
    // The late reply to the first PING is not taken for the second one's.
    client.control::<kinds::Ping>(to, &()).unwrap();

    let ticket = {
        cluster.node(0).signal_daemon(Signal::STOP).unwrap();
        client.start::<kinds::Ping>(to, &(), ControlOptions::default()).unwrap()
    };
    cluster.node(0).crash_daemon().unwrap();
    let error = client.finish::<kinds::Ping>(ticket).unwrap_err();
    let ControlError::Connection(ConnectionError::Closed { path }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*path, cluster.node(0).socket());
    let error = client.receive(TIMEOUT).unwrap_err();
    assert!(matches!(error, ReceiveError::Connection(_)), "{error:?}");
}
