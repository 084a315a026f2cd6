//! Which Samba version this node tells the others.
//!
//! Role: nodes of different versions do not stay in one cluster (the younger one leaves), so we say
//! the version of the cluster we join: as configured, else that of this host's `smbd`.
//! Origin: `docs/spec/wire-protocol.md` 6.5.

use std::{process::Stdio, time::Duration};

use ringmaster_control::config::native_conf::parse_version;
use ringmaster_protocol::keepalive::SambaVersion;
use tokio::process::Command;

use super::Failure;

/// Replaces the version, as a decimal number, as for C's daemon.
const TEST_VERSION: &str = "CTDB_TEST_SAMBA_VERSION";

/// Where `smbd` is when the daemon's `PATH` does not say so.
const SMBD: [&str; 3] = ["smbd", "/usr/sbin/smbd", "/usr/local/samba/sbin/smbd"];

/// An `smbd` that does not say its version within this time is not asked further.
const PATIENCE: Duration = Duration::from_secs(10);

/// The version for keepalives.
///
/// # Errors
/// Nobody says which.
pub(super) async fn samba_version(
    configured: Option<SambaVersion>,
) -> Result<SambaVersion, Failure> {
    let test = std::env::var(TEST_VERSION).ok().and_then(|text| text.parse::<u32>().ok());
    if let Some(version) = test.filter(|version| *version > 0) {
        return Ok(SambaVersion(version));
    }
    if let Some(version) = configured {
        return Ok(version);
    }
    first_of(&SMBD).await
}

async fn first_of(programs: &[&str]) -> Result<SambaVersion, Failure> {
    for program in programs {
        if let Some(version) = ask(program).await {
            return Ok(version);
        }
    }
    Err(Failure::new(
        "cannot find out which Samba version the other nodes expect (no smbd here says one); write \
         `samba version = 4.17`, with the cluster's version, into [transport] of ringmaster.conf",
    ))
}

/// What `smbd -V` says: `Version 4.17.12-Debian`.
async fn ask(program: &str) -> Option<SambaVersion> {
    let mut command = Command::new(program);
    command.arg("-V").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(text.trim().strip_prefix("Version ")?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn say(programs: &[&str]) -> Result<SambaVersion, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(first_of(programs))
    }

    #[test]
    fn the_first_smbd_that_says_its_version_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let silent = program("silent", "#!/bin/sh\nexit 1\n");
        let odd = program("odd", "#!/bin/sh\necho no version of mine\n");
        let good = program("good", "#!/bin/sh\n[ \"$1\" = -V ] && echo Version 4.17.12-Debian\n");
        let none = folder.path().join("none");
        let tried = [none.to_str().unwrap(), &silent, &odd, &good];
        assert_eq!(say(&tried).unwrap(), SambaVersion::new(4, 17));
    }

    #[test]
    fn without_an_answer_the_remedy_is_said_in_one_line() {
        let failure = say(&["/nowhere/smbd"]).unwrap_err();
        assert!(!failure.line.contains('\n'), "{}", failure.line);
        for word in ["samba version", "[transport]", "ringmaster.conf"] {
            assert!(failure.line.contains(word), "{}", failure.line);
        }
    }
}
