//! Starts of our daemon that must fail: one line that names what is wrong and the remedy, C's exit
//! status, nothing left behind. The C daemon is started in the same broken surroundings.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use ringmaster_compat::cluster::{Cluster, Config, NODE_PORT, Node, Subject, processes};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::run::{RunOutput, run};

const PATIENCE: Duration = Duration::from_secs(20);

/// A user without any rights (`nobody`).
const NOBODY: u32 = 65_534;

/// What C does in the same surroundings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum C {
    /// It ends with the same status.
    Same,
    /// With another one, for a reason.
    Status(i32, &'static str),
    /// It cannot fail like this.
    Without(&'static str),
}

/// How the daemon is started after something has been broken.
#[derive(Default)]
struct Attempt {
    variables: Vec<(&'static str, String)>,
    user: Option<u32>,
    /// In use by somebody else.
    taken: Option<TcpListener>,
}

struct Case {
    what: &'static str,
    breaks: fn(Node<'_>) -> Attempt,
    status: i32,
    /// Words that the one line must have.
    words: &'static [&'static str],
    c: C,
}

const fn case(
    what: &'static str,
    breaks: fn(Node<'_>) -> Attempt,
    status: i32,
    words: &'static [&'static str],
    c: C,
) -> Case {
    Case { what, breaks, status, words, c }
}

fn write(node: Node<'_>, name: &str, text: &str) -> Attempt {
    fs::write(node.base().join(name), text).expect("the test machine plays along");
    Attempt::default()
}

fn remove(node: Node<'_>, name: &str) -> Attempt {
    let path = node.base().join(name);
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.expect("the test machine plays along");
    Attempt::default()
}

/// A directory where a file should be: nobody can read that, root included.
fn directory(node: Node<'_>, name: &str) -> Attempt {
    let path = node.base().join(name);
    // Some of them are not there.
    let _ = fs::remove_file(&path);
    fs::create_dir(path).expect("the test machine plays along");
    Attempt::default()
}

fn append(node: Node<'_>, name: &str, text: &str) -> Attempt {
    let before = fs::read_to_string(node.base().join(name)).expect("the test machine plays along");
    write(node, name, &(before + text))
}

fn replace(node: Node<'_>, name: &str, from: &str, to: &str) -> Attempt {
    let before = fs::read_to_string(node.base().join(name)).expect("the test machine plays along");
    assert!(before.contains(from), "no {from} in {before}");
    write(node, name, &before.replace(from, to))
}

fn with(name: &'static str, value: String) -> Attempt {
    Attempt { variables: vec![(name, value)], ..Attempt::default() }
}

/// Everything is the user's but `name`.
fn as_nobody_without(node: Node<'_>, name: &str) -> Attempt {
    give(node.base());
    let cluster = node.base().parent().expect("below the cluster's directory");
    fs::set_permissions(cluster, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = node.base().join(name);
    chown(&path, Some(0), Some(0)).expect("as root");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("as root");
    Attempt { user: Some(NOBODY), ..Attempt::default() }
}

fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("as root");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path());
        }
    }
}

fn own_address(node: Node<'_>) -> String {
    node.address().to_string()
}

const LIKE_EMPTY: C = C::Without("C takes the file as empty and runs in the system's directories");
const NO_NATIVE: C = C::Without("C has no ringmaster.conf");

const CASES: &[Case] = &[
    case("no nodes file", |node| remove(node, "nodes"), 1, &["/nodes", "No such file"], C::Same),
    case(
        "a nodes file that cannot be read",
        |node| directory(node, "nodes"),
        1,
        &["/nodes", "directory"],
        C::Same,
    ),
    case(
        "an empty nodes file",
        |node| write(node, "nodes", "# nobody\n"),
        1,
        &["node address", "nodes list", "add it"],
        C::Status(134, "C aborts"),
    ),
    case(
        "a nodes file with rubbish",
        |node| write(node, "nodes", "\nnot an address\n"),
        1,
        &["/nodes", "line 2", "not an address"],
        C::Same,
    ),
    case(
        "a node address that is not in the nodes file",
        |node| write(node, "nodes", "192.0.2.7\n"),
        1,
        &["node address", "nodes list", "add it"],
        C::Status(134, "C aborts"),
    ),
    case(
        "a node address that this host does not have",
        |node| {
            write(node, "nodes", "192.0.2.7\n");
            replace(node, "ctdb.conf", &own_address(node), "192.0.2.7")
        },
        1,
        &["192.0.2.7", "4379"],
        C::Same,
    ),
    case(
        "a node address that is none",
        |node| replace(node, "ctdb.conf", &own_address(node), "here"),
        1,
        &["ctdb.conf", "line", "here", "addresses of the nodes file"],
        C::Same,
    ),
    case(
        "an address in use",
        |node| {
            let taken = TcpListener::bind((node.address(), NODE_PORT)).expect("a free port");
            Attempt { taken: Some(taken), ..Attempt::default() }
        },
        1,
        &["cannot listen on the node address", "4379", "in use"],
        C::Same,
    ),
    case(
        "a ctdb.conf that cannot be read",
        |node| directory(node, "ctdb.conf"),
        1,
        &["ctdb.conf", "directory"],
        LIKE_EMPTY,
    ),
    case(
        "a value that is no number",
        |node| append(node, "ctdb.conf", "[cluster]\n\tleader timeout = soon\n"),
        1,
        &["ctdb.conf", "line", "leader timeout", "write a number"],
        C::Same,
    ),
    case(
        "a value that is neither true nor false",
        |node| append(node, "ctdb.conf", "[legacy]\n\trealtime scheduling = perhaps\n"),
        1,
        &["ctdb.conf", "line", "perhaps", "true or false"],
        C::Same,
    ),
    case(
        "a section without an end",
        |node| append(node, "ctdb.conf", "[legacy\n"),
        1,
        &["ctdb.conf", "line", "closing bracket", "close the bracket"],
        LIKE_EMPTY,
    ),
    case(
        "a ringmaster.conf that cannot be read",
        |node| directory(node, "ringmaster.conf"),
        1,
        &["ringmaster.conf", "directory"],
        NO_NATIVE,
    ),
    case(
        "an unknown option in ringmaster.conf",
        |node| write(node, "ringmaster.conf", "[dataplane]\nshard = 2\n"),
        1,
        &["ringmaster.conf", "line 2", "shards"],
        NO_NATIVE,
    ),
    case(
        "a bad value in ringmaster.conf",
        |node| write(node, "ringmaster.conf", "[dataplane]\nreactor = kqueue\n"),
        1,
        &["ringmaster.conf", "line 2", "kqueue", "epoll"],
        NO_NATIVE,
    ),
    case(
        "public addresses with rubbish",
        |node| write(node, "public_addresses", "10.0.0.1/24 lo\nnowhere\n"),
        1,
        &["public_addresses", "line 2", "no interface"],
        C::Same,
    ),
    case(
        "no volatile database directory",
        |node| remove(node, "db/volatile"),
        1,
        &["db/volatile", "create it", "ctdb.conf"],
        C::Same,
    ),
    case(
        "no persistent database directory",
        |node| remove(node, "db/persistent"),
        1,
        &["db/persistent", "create it", "ctdb.conf"],
        C::Same,
    ),
    case(
        "no state directory",
        |node| remove(node, "db/state"),
        1,
        &["db/state", "create it", "ctdb.conf"],
        C::Same,
    ),
    case(
        "a file where a database directory should be",
        |node| {
            remove(node, "db/state");
            write(node, "db/state", "")
        },
        1,
        &["db/state", "create it", "ctdb.conf"],
        C::Same,
    ),
    case(
        "a database directory that cannot be written",
        |node| as_nobody_without(node, "db/persistent"),
        1,
        &["db/persistent", "Permission denied", "user of ctdbd"],
        C::Without("C starts and attaches nothing"),
    ),
    case(
        "a log location that cannot be written",
        |node| replace(node, "ctdb.conf", "/log.ctdb", "/nowhere/log.ctdb"),
        1,
        &["nowhere is not a directory", "create it"],
        C::Same,
    ),
    case(
        "a log location that is none",
        |node| replace(node, "ctdb.conf", "location = file:", "location = paper:"),
        1,
        &["ctdb.conf", "line 2", "paper:", "syslog"],
        C::Same,
    ),
    case(
        "no directory for the PID file",
        |node| remove(node, "run"),
        11,
        &["run/ctdbd.pid", "directory"],
        C::Same,
    ),
    case(
        "a PID file that cannot be written",
        |node| directory(node, "run/ctdbd.pid"),
        11,
        &["run/ctdbd.pid", "directory"],
        C::Same,
    ),
    case(
        "no permission for the run directory",
        |node| as_nobody_without(node, "run"),
        11,
        &["run/ctdbd.pid", "Permission denied"],
        C::Same,
    ),
    case(
        "no directory for the client socket",
        |node| {
            let socket = node.base().join("nowhere/ctdbd.socket");
            with("CTDB_SOCKET", socket.display().to_string())
        },
        10,
        &["nowhere/ctdbd.socket", "run directory"],
        C::Same,
    ),
    case(
        "a directory where the client socket should be",
        |node| directory(node, "run/ctdbd.socket"),
        10,
        &["run/ctdbd.socket", "run directory"],
        C::Same,
    ),
    case(
        "a client socket with too long a name",
        |node| with("CTDB_SOCKET", format!("{}/{}", node.base().display(), "s".repeat(100))),
        10,
        &["ssssssssss", "run directory"],
        C::Same,
    ),
    case(
        "no event daemon",
        |node| with("CTDB_EVENTD", node.base().join("nothing").display().to_string()),
        1,
        &["event daemon", "/nothing"],
        C::Same,
    ),
    case(
        "an event daemon that ends at once",
        |_| with("CTDB_EVENTD", "/bin/false".into()),
        1,
        &["event daemon", "/bin/false"],
        C::Same,
    ),
];

/// Starts a daemon in surroundings that `case` has broken; ours in the background, whose starter has
/// to hear everything, C's in the foreground, where alone its status can be seen.
fn attempt(case: &Case, subject: &Subject) -> Result<RunOutput, String> {
    let cluster = Cluster::prepare(Config::new(1).all(subject)).expect("a prepared node");
    let node = cluster.node(0);
    let attempt = (case.breaks)(node);
    let mut command = node.command(subject.daemon());
    if *subject == Subject::CDaemon {
        command.arg("-i");
    }
    command.envs(attempt.variables.clone());
    if let Some(user) = attempt.user {
        command.uid(user).gid(user);
    }
    let output =
        run(&mut command, PATIENCE).map_err(|error| format!("{}: {error:#}", case.what))?;
    drop(attempt.taken);
    let left = processes::under(node.base());
    // C's children notice the death of their parent by themselves, sooner or later.
    if *subject != Subject::CDaemon && !left.is_empty() {
        return Err(format!("{}: {left:?} still run after {output}", case.what));
    }
    Ok(output)
}

#[test]
fn every_failed_start_is_one_line() {
    let ctdbd = require_our_daemon!();
    let ours = Subject::Ours { ctdbd };
    let mut wrong = Vec::new();
    for case in CASES {
        let failed = match attempt(case, &ours) {
            Ok(failed) => failed,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let named = case.words.iter().all(|word| failed.stderr.contains(word));
        if failed.status != case.status || failed.stderr.lines().count() != 1 || !named {
            let (what, status, words) = (case.what, case.status, case.words);
            wrong.push(format!("{what}: not {status} with {words:?}, but {failed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_failed_start_has_cs_status() {
    let _ = require_our_daemon!();
    let mut wrong = Vec::new();
    for case in CASES {
        let expected = match case.c {
            C::Same => case.status,
            C::Status(status, _) => status,
            C::Without(_) => continue,
        };
        match attempt(case, &Subject::CDaemon) {
            Ok(failed) if failed.status == expected => {}
            Ok(failed) => wrong.push(format!("{}: not {expected}, but {failed}", case.what)),
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
