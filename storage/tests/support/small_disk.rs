//! A disk of a few hundred kilobytes that a test can fill.
//!
//! Role: runs the calling test once more, in a mount namespace of its own with a small tmpfs. The
//! namespace and the disk end with that process. Where namespaces are not allowed the test skips.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the process that has the disk: where it is mounted.
const DISK: &str = "RINGMASTER_SMALL_DISK";
/// What the shell says when the disk is there; what comes after is the test.
const MOUNTED: &str = "@@ small disk mounted";

/// Runs `body` with a directory on a disk of `size` (as `mount` takes it). `test` is the name of
/// the calling test.
///
/// # Panics
/// As `body`, and if its process dies (SIGBUS is what a full disk could do to it).
pub(crate) fn with(test: &str, size: &str, body: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        return body(Path::new(&disk));
    }
    let directory = tempfile::tempdir().expect("a directory to mount on");
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs \"$1\" && echo '{MOUNTED}' && exec \"$2\" --exact \"$3\" --nocapture"
    );
    // SAFETY: no preconditions.
    let user: &[&str] = if unsafe { libc::geteuid() } == 0 { &[] } else { &["-U", "-r"] };
    let output = Command::new("unshare")
        .args(user)
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().expect("a test binary knows its path"))
        .arg(test)
        .env(DISK, directory.path())
        .output();
    let said = match &output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    };
    let Some((_, said)) = said.split_once(MOUNTED) else {
        let reason = format!("no mount namespace for a small disk: {output:?}");
        assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "skipped: {reason}");
        println!("skipped: {reason}");
        return;
    };
    let output = output.expect("it said something");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}\n{errors}", output.status);
    assert!(said.contains("1 passed"), "the test did not run there: {said}");
}

/// Takes all space but `left` bytes; the file that does so.
///
/// # Panics
/// If the disk is larger than a test should fill.
pub(crate) fn fill(disk: &Path, left: u64) -> PathBuf {
    const MOST: usize = 64 << 20;
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).expect("an empty file has room");
    let mut written = 0;
    while let Ok(more) = file.write(&[7; 4096]) {
        written += more;
        assert!(written < MOST, "this is no small disk");
    }
    let len = file.metadata().expect("an open file").len();
    file.set_len(len.saturating_sub(left)).expect("a file can be cut");
    path
}
