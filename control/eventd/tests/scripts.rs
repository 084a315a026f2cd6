//! Real scripts under the real program, asked by Debian's tool.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Debian's tool.
const CTDB_EVENT: &str = "/usr/libexec/ctdb/ctdb-event";
const PATIENCE: Duration = Duration::from_secs(30);

struct Eventd {
    base: tempfile::TempDir,
    child: Child,
}

fn tool() -> Option<&'static Path> {
    let tool = Path::new(CTDB_EVENT);
    if tool.exists() {
        return Some(tool);
    }
    println!("skipped: {CTDB_EVENT} is not installed");
    assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none());
    None
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn script(path: PathBuf, text: &str) {
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
}

impl Eventd {
    fn start(scripts: &[(&str, &str)]) -> Self {
        let base = tempfile::tempdir().expect("a folder");
        let path = base.path();
        fs::create_dir_all(path.join("events/legacy")).expect("made");
        for folder in ["run", "var", "log"] {
            fs::create_dir_all(path.join(folder)).expect("made");
        }
        for (name, text) in scripts {
            script(path.join(format!("events/legacy/{name}.script")), text);
        }
        script(path.join("debug.sh"), "echo \"debug of $2\"; test -d /proc/$1 && echo it lives");
        let conf = format!(
            "[logging]\n\tlocation = file:{}/log/log\n[event]\n\tdebug script = debug.sh\n",
            path.display()
        );
        fs::write(path.join("ctdb.conf"), conf).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_ctdb-eventd"))
            .env("CTDB_TEST_MODE", "yes")
            .env("CTDB_BASE", path)
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let eventd = Self { base, child };
        wait_for("it does not start", || eventd.log().contains("daemon started"));
        eventd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.base.path().join("log/log")).unwrap_or_default()
    }

    fn tool(&self, words: &[&str]) -> Output {
        Command::new(CTDB_EVENT)
            .args(words)
            .env("CTDB_TEST_MODE", "yes")
            .env("CTDB_BASE", self.base.path())
            .stdin(Stdio::null())
            .output()
            .expect("run")
    }

    fn status(&self) -> String {
        let output = self.tool(&["status", "legacy", "monitor"]);
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Eventd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn many_scripts_run_in_their_order() {
    if tool().is_none() {
        return;
    }
    let names: Vec<String> = (0..100).map(|number| format!("{number:02}.script{number}")).collect();
    let text = "echo \"$0\" >> \"$CTDB_BASE/order\"";
    let scripts: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text)).collect();
    let eventd = Eventd::start(&scripts);
    let output = eventd.tool(&["run", "30", "legacy", "monitor"]);
    assert!(output.status.success(), "{output:?}");
    let order = fs::read_to_string(eventd.base.path().join("order")).expect("readable");
    let ran = order.lines().filter_map(|line| line.rsplit('/').next());
    assert!(ran.eq(names.iter().map(|name| format!("{name}.script"))), "{order}");
    let status = eventd.status();
    assert_eq!(status.lines().filter(|line| line.contains(" OK ")).count(), 100, "{status}");
}

#[test]
fn a_script_that_hangs_is_looked_at_and_ended_and_the_rest_does_not_run() {
    if tool().is_none() {
        return;
    }
    let hang = "echo $$ > \"$CTDB_BASE/pid\"; exec sleep 1000";
    let eventd = Eventd::start(&[("01.hang", hang), ("02.after", "touch \"$CTDB_BASE/after\"")]);
    let output = eventd.tool(&["run", "1", "legacy", "monitor"]);
    assert!(!output.status.success(), "{output:?}");
    wait_for("the debug script says nothing", || eventd.log().contains("it lives"));
    assert!(eventd.log().contains("debug of monitor"), "{}", eventd.log());
    let pid = fs::read_to_string(eventd.base.path().join("pid")).expect("readable");
    let proc = Path::new("/proc").join(pid.trim());
    wait_for("the script lives on", || !proc.exists());
    assert!(!eventd.base.path().join("after").exists());
    assert!(eventd.status().contains("TIMEDOUT"), "{}", eventd.status());
}

#[test]
fn endless_output_is_cut_and_stops_nobody() {
    if tool().is_none() {
        return;
    }
    let chatter = "head -c 3000000 /dev/zero | tr '\\0' x; echo end";
    let eventd = Eventd::start(&[("01.chatter", chatter), ("02.after", "echo after; exit 1")]);
    let output = eventd.tool(&["run", "30", "legacy", "monitor"]);
    assert!(!output.status.success(), "{output:?}");
    let status = eventd.status();
    assert!(status.len() < 1_100_000, "{}", status.len());
    assert!(status.contains("OUTPUT: after"), "the last script has failed");
}
