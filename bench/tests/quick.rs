//! `ringmaster bench --quick` works: every load, every daemon that is there.

use std::path::Path;
use std::process::Command;

use ringmaster_compat::{prerequisite, require_c_cluster};

#[test]
fn a_quick_bench_measures_every_load() {
    require_c_cluster!();
    let program = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let daemons = if is_built(program) { "c,ours,ours-epoll" } else { "c" };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let json = scratch.path().join("result.json");
    let output = Command::new(program)
        .args(["bench", "--quick", "--daemons", daemons, "--json"])
        .arg(&json)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&json).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let lines = result["lines"].as_array().expect("lines");
    // Four loads from 1 and from 16 clients.
    assert_eq!(lines.len(), 8 * daemons.split(',').count());
    for line in lines {
        assert!(line["rate_per_s"]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
    }
}

#[test]
fn a_quick_bench_of_two_nodes_measures_every_load() {
    require_c_cluster!();
    let program = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let (daemons, count) = if is_built(program) { ("c,ours", 2) } else { ("c", 1) };
    let output = Command::new(program)
        .args(["bench", "--quick", "--nodes", "2", "--daemons", daemons])
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout);
    for load in ["ring", "storm", "g_lock", "pairs"] {
        let lines = table.lines().filter(|line| line.starts_with(&format!("| {load}, 2 nodes")));
        assert_eq!(lines.count(), count, "{load} in {table}");
    }
}

fn is_built(program: &Path) -> bool {
    let built = program.with_file_name("ctdbd").is_file()
        && program.with_file_name("ctdb-eventd").is_file();
    if !built {
        prerequisite::skip("our daemon is not built: only C's is measured");
    }
    built
}
