//! The program as scripts see it, as far as it needs no daemon. What needs one is compared with
//! the C tool by the compatibility cases.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn ctdb(base: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctdb"));
    command
        .args(arguments)
        .env("CTDB_TEST_MODE", "yes")
        .env("CTDB_BASE", base)
        .env_remove("CTDB_SOCKET")
        .env_remove("CTDB_TIMEOUT")
        .env_remove("POSIXLY_CORRECT")
        .stdin(Stdio::null());
    command
}

fn run(base: &Path, arguments: &[&str]) -> Output {
    ctdb(base, arguments).output().expect("the program was built beside this test")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only text is printed here")
}

/// A configuration directory with a nodes file in which nobody is this machine.
fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("there is a temporary directory");
    std::fs::write(base.path().join("nodes"), "192.0.2.1\n#192.0.2.2\n192.0.2.3\n")
        .expect("it can be written");
    base
}

#[test]
fn listnodes_prints_the_same_list_in_three_forms() {
    let base = base();
    let plain = run(base.path(), &["listnodes"]);
    assert_eq!(text(&plain.stdout), "192.0.2.1\n192.0.2.3\n");
    let rows = run(base.path(), &["listnodes", "-X", "-x", ","]);
    assert_eq!(text(&rows.stdout), ",0,192.0.2.1,\n,2,192.0.2.3,\n");
    let json = run(base.path(), &["--json", "listnodes"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["nodes"][1]["pnn"], 2);
    assert!(!json.stdout.ends_with(b"\n"));
}

#[test]
fn without_a_daemon_the_advice_depends_on_the_nodes_file() {
    let base = base();
    let output = run(base.path(), &["status"]);
    let socket = base.path().join("run/ctdbd.socket");
    let expected = format!(
        "connect() failed, errno=2\n\
         Failed to connect to CTDB daemon ({})\n\
         Failed to detect PNN of the current node.\n\
         Is this node part of CTDB cluster?\n",
        socket.display()
    );
    assert_eq!((text(&output.stderr), output.status.code()), (expected.as_str(), Some(1)));

    std::fs::write(base.path().join("nodes"), "127.0.0.1\n").unwrap();
    let output = run(base.path(), &["status"]);
    assert_eq!(text(&output.stderr).lines().count(), 2, "this machine is in the file");
}

#[test]
fn new_options_are_refused_where_they_make_no_sense() {
    let base = base();
    for (arguments, expected) in [
        (["--json", "-X", "version"], "--json and -Y options are mutually exclusive\n"),
        (["--json", "ban", "5"], "--json not supported by the ban subcommand\n"),
        (["--watch=1", "ban", "5"], "--watch not supported by the ban subcommand\n"),
        (["--watch", "0", "version"], "Invalid option 0: invalid value\n"),
    ] {
        let output = run(base.path(), &arguments);
        assert_eq!((text(&output.stderr), output.status.code()), (expected, Some(1)));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_watched_report_is_one_document_a_line() {
    let base = base();
    let mut child = ctdb(base.path(), &["--json", "--watch", "1", "listnodes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let document = r#"{"nodes":[{"pnn":0,"address":"192.0.2.1"},{"pnn":2,"address":"192.0.2.3"}]}"#;
    assert_eq!(lines, [document, document]);
}

#[test]
fn colours_come_only_when_asked_for() {
    let base = base();
    for color in ["--color=auto", "--color=never", "--color=always"] {
        let output = run(base.path(), &[color, "listnodes"]);
        assert!(!text(&output.stdout).contains('\x1b'), "{color}: nothing here has a colour");
    }
    let output = run(base.path(), &["--color=blue", "listnodes"]);
    assert_eq!(text(&output.stderr), "Invalid option --color=blue: invalid value\n");
}

#[test]
fn the_limit_of_the_run_ends_a_helper_too() {
    let base = base();
    let mut command = ctdb(base.path(), &["-T", "1", "event", "1000"]);
    // `sleep 1000`. It shares our output: reading that ends only when it is gone too.
    let output = command.env("CTDB_EVENT_HELPER", "/bin/sleep").output().unwrap();
    assert_eq!(text(&output.stderr), "Maximum runtime exceeded - exiting\n");
    assert_eq!(output.status.code(), Some(1));
}
