//! A directory with the files of a case, rebuilt for each program, and the comparison.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use tempfile::TempDir;

/// Debian's program and ours.
pub(crate) struct Pair {
    pub(crate) theirs: PathBuf,
    pub(crate) ours: PathBuf,
}

/// Both programs, or `None` after saying why the case is skipped.
pub(crate) fn pair(theirs: &str, ours: &str) -> Option<Pair> {
    let theirs = PathBuf::from(theirs);
    if theirs.exists() {
        return Some(Pair { theirs, ours: ours.into() });
    }
    let reason = format!("{} is not installed (Debian package ctdb)", theirs.display());
    assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "{reason}");
    println!("skipped: {reason}");
    None
}

/// A child has our open files until it execs. If one is a script being written by another test,
/// that script cannot be run ("text file busy"): so nothing is started while a file is written.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a command; every start in these tests goes through here.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _no_file_is_open = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap()
}

/// Starts with nothing; files are made by the closure given to [`World::compare`].
pub(crate) struct World {
    directory: TempDir,
    variables: Vec<(&'static str, OsString)>,
}

/// What a run did.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    status: Option<i32>,
    tree: BTreeMap<PathBuf, String>,
}

impl World {
    /// A test node's directory: `CTDB_TEST_MODE` and `CTDB_BASE` are set.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        let variables =
            vec![("CTDB_TEST_MODE", OsString::from("1")), ("CTDB_BASE", base.into_os_string())];
        Self { directory, variables }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.into()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.retain(|(other, _)| *other != name);
    }

    /// Wipes the directory and makes it anew.
    pub(crate) fn rebuild(&self, files: &dyn Fn(&World)) {
        for entry in fs::read_dir(self.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        for directory in ["run", "var/volatile", "events/legacy", "share/events/legacy"] {
            fs::create_dir_all(self.base().join(directory)).unwrap();
        }
        files(self);
    }

    /// Writes a file below the base, with a mode.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.base().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let nothing_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
        fs::write(&path, content).unwrap();
        drop(nothing_starts);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        symlink(target, self.base().join(path)).unwrap();
    }

    pub(crate) fn command(&self, program: &Path, args: &[&OsStr]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TZ", "UTC")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn outcome(&self, program: &Path, args: &[&OsStr], files: &dyn Fn(&World)) -> Outcome {
        self.rebuild(files);
        let output = output(&mut self.command(program, args));
        let mut tree = BTreeMap::new();
        describe(self.directory.path(), &mut tree);
        self.describe_output(program, output, tree)
    }

    fn describe_output(
        &self,
        program: &Path,
        output: Output,
        tree: BTreeMap<PathBuf, String>,
    ) -> Outcome {
        // A program's own path is the one thing that may differ.
        let text = |bytes: &[u8]| {
            let text = bytes.escape_ascii().to_string().replace("\\n", "\n");
            text.replace(&program.display().to_string(), "PROGRAM")
        };
        Outcome {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            status: output.status.code(),
            tree,
        }
    }

    /// Runs both programs in the same surroundings.
    pub(crate) fn compare(&self, pair: &Pair, args: &[&str], files: &dyn Fn(&World)) {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        self.compare_os(pair, &args, files);
    }

    pub(crate) fn compare_os(&self, pair: &Pair, args: &[&OsStr], files: &dyn Fn(&World)) {
        let theirs = self.outcome(&pair.theirs, args, files);
        let ours = self.outcome(&pair.ours, args, files);
        assert_eq!(ours, theirs, "ours (left) differs from theirs (right) for {args:?}");
    }
}

/// Kind, mode, link target and content of everything below `directory`.
fn describe(directory: &Path, tree: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let mode = found.permissions().mode();
        let text = if found.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if found.is_dir() {
            describe(&path, tree);
            format!("directory {mode:o}")
        } else if found.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            format!("file {mode:o} {}", content.escape_ascii())
        } else {
            format!("other {mode:o}")
        };
        tree.insert(path, text);
    }
}

/// No files beside the empty directories.
pub(crate) fn nothing(_: &World) {}

/// Splits a command line at blanks; `""` stands for an empty word.
pub(crate) fn words(line: &str) -> Vec<&str> {
    if line.is_empty() {
        return Vec::new();
    }
    line.split(' ').map(|word| if word == "\"\"" { "" } else { word }).collect()
}

/// Bytes as an argument.
pub(crate) fn raw(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
