//! Configuration files that should be the same on all nodes.

use std::io;
use std::path::Path;
use std::process::Command;

/// Must be there, in C's order; `SERVICE` is the distribution's directory of service settings.
const REQUIRED: [&str; 14] = [
    "/etc/krb5.conf",
    "/etc/hosts",
    "/etc/ctdb/nodes",
    "SERVICE/ctdb",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/sysctl.conf",
    "/etc/samba/smb.conf",
    "/etc/fstab",
    "/etc/multipath.conf",
    "/etc/pam.d/system-auth",
    "SERVICE/nfs",
    "/etc/exports",
    "/etc/vsftpd/vsftpd.conf",
];

const OPTIONAL: [&str; 2] = ["/etc/ctdb/public_addresses", "/etc/ctdb/static-routes"];

/// Paths, and whether each must be there.
pub(super) fn to_compare() -> Vec<(String, bool)> {
    let service =
        if Path::new("/etc/sysconfig").is_dir() { "/etc/sysconfig" } else { "/etc/default" };
    let required = REQUIRED.map(|path| (path.replace("SERVICE", service), true));
    let optional = OPTIONAL.map(|path| (path.to_owned(), false));
    required.into_iter().chain(optional).collect()
}

/// Shell command that shows a file in a frame. The paths are ours and need no quoting.
pub(super) fn show_command(path: &str) -> String {
    let frame = "echo '  ================================'";
    format!(
        "{{ {frame}; echo '  File: {path}'; ls -l {path} | sed 's/^/  /'; \
         sed 's/^/  /' {path}; {frame}; }} 2>&1"
    )
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DiffOptions {
    pub(super) ignore_comments: bool,
    pub(super) ignore_blanks: bool,
}

/// Output of `diff`, or `None` when there is no difference that counts.
pub(super) fn difference(
    reference: &[u8],
    other: &[u8],
    options: DiffOptions,
    scratch: &Path,
) -> io::Result<Option<Vec<u8>>> {
    if reference == other {
        return Ok(None);
    }
    let (left, right) = (scratch.join("first"), scratch.join("other"));
    std::fs::write(&left, reference)?;
    std::fs::write(&right, other)?;
    let mut diff = Command::new("diff");
    diff.arg("-u");
    if options.ignore_comments {
        diff.args(["-I", "^#.*"]);
    }
    if options.ignore_blanks {
        diff.arg("-w");
    }
    let output = diff.arg(left).arg(right).output()?;
    Ok((!output.status.success()).then_some(output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_decide_which_differences_count() {
        let scratch = tempfile::tempdir().unwrap();
        let differs = |other: &[u8], ignore_comments, ignore_blanks| {
            let options = DiffOptions { ignore_comments, ignore_blanks };
            difference(b"a b\n# one\n", other, options, scratch.path()).unwrap().is_some()
        };
        assert!(!differs(b"a b\n# one\n", false, false));
        assert!(differs(b"a b\n# two\n", false, false));
        assert!(!differs(b"a b\n# two\n", true, false));
        assert!(differs(b"a  b\n# one\n", true, false));
        assert!(!differs(b"a  b\n# one\n", false, true));
        assert!(differs(b"c\n", true, true));
    }
}
