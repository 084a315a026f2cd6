//! A column of the comparison: which tool speaks to which daemon, and which columns run.
//!
//! Role: finds our programs and reads the environment's wishes.
//! Invariants: looks only; a column that cannot run says why.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::case::Case;
use crate::cluster::Subject;
use crate::prerequisite;

/// Path of our `ctdb`; without it the one in the build directory.
pub const OUR_TOOL: &str = "RINGMASTER_CTDB";
/// Path of our `ctdbd`; without it the one in the build directory.
pub const OUR_DAEMON: &str = "RINGMASTER_CTDBD";
/// `1`: run the C tool on C daemons and write what it prints as expected output.
pub const REFRESH: &str = "RINGMASTER_COMPAT_REFRESH";
/// `1`: run the C tool on C daemons and compare with the committed output.
pub const VERIFY: &str = "RINGMASTER_COMPAT_VERIFY";

/// The helper that most commands need.
const A_HELPER: &str = "ctdb-event";

/// A tool against a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Our tool, or C's when `None`.
    pub tool: Option<PathBuf>,
    /// The daemon of every node.
    pub daemon: Subject,
    /// Whether the output is written down instead of compared.
    pub refresh: bool,
}

impl Column {
    /// The gap that makes `case` fail here, if there is one.
    #[must_use]
    pub fn gap<'a>(&self, case: &'a Case) -> Option<&'a str> {
        let tool = case.gap_tool.as_deref().filter(|_| self.tool.is_some());
        let ours = matches!(self.daemon, Subject::Ours { .. });
        tool.or_else(|| case.gap_daemon.as_deref().filter(|_| ours))
    }

    /// Directory of the helper programs of the column's tool: beside ours if they are built, else
    /// C's.
    #[must_use]
    pub fn tool_helpers(&self) -> &Path {
        let beside = self.tool.as_deref().and_then(Path::parent);
        let built = beside.filter(|directory| directory.join(A_HELPER).is_file());
        built.unwrap_or(Path::new(prerequisite::C_HELPERS))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = if self.tool.is_some() { "our tool" } else { "C tool" };
        let daemon = match self.daemon {
            Subject::CDaemon => "C daemon",
            Subject::Ours { .. } => "our daemon",
        };
        write!(f, "{tool} -> {daemon}")
    }
}

/// The columns to run, and for the others one line each that says why not.
#[must_use]
pub fn columns() -> (Vec<Column>, Vec<String>) {
    let wanted = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    let refresh = wanted(REFRESH);
    if refresh || wanted(VERIFY) {
        columns.push(Column { tool: None, daemon: Subject::CDaemon, refresh });
    } else {
        left_out.push(format!("C tool -> C daemon: committed output (run it: {VERIFY}=1)"));
    }
    if refresh {
        return (columns, left_out);
    }
    let tool = our_tool();
    let daemon = our_daemon().map(|ctdbd| Subject::Ours { ctdbd });
    match &tool {
        Some(tool) => columns.push(Column {
            tool: Some(tool.clone()),
            daemon: Subject::CDaemon,
            refresh: false,
        }),
        None => left_out.push("our tool: not built (cargo build -p ringmaster-ctdb)".into()),
    }
    if let Some(column) = columns.last()
        && column.tool.is_some()
        && column.tool_helpers() == Path::new(prerequisite::C_HELPERS)
    {
        let reason = "our helpers: not built (cargo build -p ringmaster-admin), C's are used";
        left_out.push(reason.into());
    }
    match daemon {
        Some(daemon) => {
            columns.push(Column { tool: None, daemon: daemon.clone(), refresh: false });
            if tool.is_some() {
                columns.push(Column { tool, daemon, refresh: false });
            }
        }
        None => left_out.push(
            "our daemon: not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)".into(),
        ),
    }
    (columns, left_out)
}

/// Our daemon, if it and its event daemon are built.
#[must_use]
pub fn our_daemon() -> Option<PathBuf> {
    find(OUR_DAEMON, "ctdbd").filter(|ctdbd| ctdbd.with_file_name("ctdb-eventd").is_file())
}

/// Path of our daemon; leaves the calling test, with its reason printed, where it is not built or
/// the C tool, which asks it, is missing.
#[macro_export]
macro_rules! require_our_daemon {
    () => {{
        $crate::require_c_cluster!();
        match $crate::column::our_daemon() {
            Some(ctdbd) => ctdbd,
            None => {
                $crate::prerequisite::skip(
                    "our ctdbd is not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)",
                );
                return;
            }
        }
    }};
}

/// Our tool, if it is built.
#[must_use]
pub fn our_tool() -> Option<PathBuf> {
    find(OUR_TOOL, "ctdb")
}

/// The program named by `variable`, or `name` in the directory cargo builds into.
fn find(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    // This program is target/PROFILE/deps/NAME-HASH.
    let own = std::env::current_exe().ok()?;
    let candidate = own.parent()?.parent()?.join(name);
    candidate.is_file().then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Family;

    #[test]
    fn a_gap_counts_only_where_the_part_with_the_gap_takes_part() {
        let text = "case: a\nrun: x\ngap-daemon: gap-2\ncase: b\nrun: x\ngap-tool: gap-1\n";
        let family = Family::parse("f", text).unwrap();
        let (in_daemon, in_tool) = (&family.cases[0], &family.cases[1]);
        let ours = Subject::Ours { ctdbd: "/d/ctdbd".into() };
        let column = |tool: Option<&str>, daemon: &Subject| Column {
            tool: tool.map(PathBuf::from),
            daemon: daemon.clone(),
            refresh: false,
        };
        let tool_only = column(Some("/d/ctdb"), &Subject::CDaemon);
        let daemon_only = column(None, &ours);
        assert_eq!(tool_only.gap(in_tool), Some("gap-1"));
        assert_eq!(tool_only.gap(in_daemon), None);
        assert_eq!(daemon_only.gap(in_tool), None);
        assert_eq!(daemon_only.gap(in_daemon), Some("gap-2"));
    }
}
