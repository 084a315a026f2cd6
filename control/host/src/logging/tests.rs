use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use super::*;

/// The log is one per process: each case runs this test program again, for itself alone.
fn alone(case: &str, folder: &Path) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "logging::tests::inside", "--nocapture"])
        .env("LOG_CASE", case)
        .env("LOG_FOLDER", folder)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Not a test by itself: what [`alone`] runs.
#[test]
fn inside() {
    let Some(case) = std::env::var_os("LOG_CASE") else { return };
    let folder = PathBuf::from(std::env::var_os("LOG_FOLDER").unwrap());
    let path = folder.join("log");
    let location = format!("file:{}", path.display());
    start("ctdbd", OsStr::new(&location), 3, Some("node.0".into())).unwrap();
    match case.to_str().unwrap() {
        "lines" => {
            tracing::info!(db = "0x4d", count = 3, "noted");
            tracing::debug!("not at this level");
            set_level(5);
            tracing::debug!("at this level");
        }
        "reopen" => {
            tracing::info!("before");
            fs::rename(&path, folder.join("old")).unwrap();
            tracing::info!("still the old file");
            reopen();
            tracing::info!("after");
        }
        "copytruncate" => {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    std::thread::spawn(move || {
                        for number in 0..500 {
                            tracing::info!(thread, number, "line");
                        }
                    })
                })
                .collect();
            while !threads.iter().all(std::thread::JoinHandle::is_finished) {
                OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
            }
            tracing::info!("last");
        }
        "panic" => {
            panics_end_the_process();
            let thread = std::thread::Builder::new().name("shard-3".into());
            let _ = thread.spawn(|| panic!("a chain\nis gone")).unwrap().join();
            tracing::error!("must not go on");
        }
        other => panic!("{other}"),
    }
}

fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once("]: ").unwrap().1.to_owned()).collect()
}

#[test]
fn a_line_is_cs_and_the_level_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    assert!(alone("lines", folder.path()).status.success());
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let first: Vec<&str> = text.lines().next().unwrap().splitn(4, ' ').collect();
    let [time, host, program, message] = first[..] else { panic!("{first:?}") };
    assert_eq!(time.len(), "2026-11-20T02:35:19.929831+00:00".len());
    assert_eq!(host, "node.0");
    assert!(program.starts_with("ctdbd[") && program.ends_with("]:"), "{program}");
    assert_eq!(message, "noted db=0x4d count=3");
    assert_eq!(texts(&folder.path().join("log"))[1..], ["at this level"]);
}

#[test]
fn a_file_that_was_moved_away_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    assert!(alone("reopen", folder.path()).status.success());
    assert_eq!(texts(&folder.path().join("old")), ["before", "still the old file"]);
    assert_eq!(texts(&folder.path().join("log")), ["after"]);
}

#[test]
fn truncation_leaves_neither_holes_nor_halves() {
    let folder = tempfile::tempdir().unwrap();
    assert!(alone("copytruncate", folder.path()).status.success());
    let lines = texts(&folder.path().join("log"));
    assert_eq!(lines.last().map(String::as_str), Some("last"));
    assert!(lines.iter().rev().skip(1).all(|line| line.starts_with("line thread=")), "{lines:?}");
}

#[test]
fn a_panic_is_one_line_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let output = alone("panic", folder.path());
    assert_eq!(output.status.signal(), Some(6), "SIGABRT");
    let lines = texts(&folder.path().join("log"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("PANIC in thread shard-3 at "), "{lines:?}");
    assert!(lines[0].ends_with(": a chain is gone"), "{lines:?}");
}

#[test]
fn places_are_cs_and_journald() {
    for good in
        ["syslog", "syslog:nonblocking", "syslog:udp", "syslog:udp-rfc5424", "journald", "file::-"]
    {
        assert!(open_sink(OsStr::new(good)).is_ok(), "{good}");
    }
    for bad in ["", "syslog:tcp", "journald:x", "/var/log/ctdb", "file:/proc/none/log"] {
        assert!(open_sink(OsStr::new(bad)).is_err(), "{bad}");
    }
}
