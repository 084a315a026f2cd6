//! `ringmaster bench --quick` works: every load, every daemon that is there.

use std::path::Path;
use std::process::Command;

use ringmaster_compat::{prerequisite, require_c_cluster};

#[test]
fn a_quick_bench_measures_every_load() {
    require_c_cluster!();
    let program = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let built = program.with_file_name("ctdbd").is_file()
        && program.with_file_name("ctdb-eventd").is_file();
    let daemons = if built { "c,ours,ours-epoll" } else { "c" };
    if !built {
        prerequisite::skip("our daemon is not built: only C's is measured");
    }
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
