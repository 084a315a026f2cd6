//! A world of its own for everything the demo does, which is gone when its first process is.
//!
//! Role: namespaces for processes, mounts and network around this very program, which runs a second
//! time inside.
//! Invariants
//! - Nothing is made outside: interfaces, namespaces, mounts and files exist only in here. So
//!   nothing can be left behind, whatever ends the demo, SIGKILL included: the kernel ends the
//!   processes of a PID namespace with its first one, and that one with its parent.
//! - The first process is a shell, because somebody has to collect orphans: a daemon asks whether a
//!   process exists, and one that nobody collected does.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{host::Host, wait};

/// Set for the copy that runs inside.
const INSIDE: &str = "RINGMASTER_WORLD";
/// Everything made inside lies here (or below: `/run` is empty at first).
pub const BASE: &str = "/run/demo";
/// Stands in the place of the cluster file system; the same on all hosts.
pub const SHARED: &str = "/run/cluster";
/// The bridge that joins all hosts.
const BRIDGE: &str = "rm-demo";
/// How long the namespaces may take.
const START: Duration = Duration::from_secs(20);

/// The one user of the share, and the password.
pub const USER: &str = "demo";
pub(super) const USER_ID: u32 = 7701;

/// The inside, with everything that hosts have in common.
pub struct World {
    /// PID of the world's first process as the outside sees it.
    outside_pid: String,
}

/// Why no world can be made here.
#[must_use]
pub fn missing() -> Option<String> {
    if !crate::packages::is_root() {
        return Some("namespaces need root".into());
    }
    let tools = ["unshare", "nsenter", "setpriv", "timeout", "ip"];
    let gone = |tool: &&str| !["/usr/bin", "/bin", "/sbin"].iter().any(|d| in_folder(d, tool));
    if let Some(tool) = tools.into_iter().find(gone) {
        return Some(format!("'{tool}' is missing (Debian: util-linux, coreutils, iproute2)"));
    }
    let mut command = wait::limited(10, "unshare");
    let possible = command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]);
    match wait::success("unshare", possible) {
        Ok(_) => None,
        Err(error) => Some(format!("namespaces are not allowed here: {error:#}")),
    }
}

fn in_folder(folder: &str, tool: &str) -> bool {
    Path::new(folder).join(tool).exists()
}

/// This program, to be run by [`run`] in a new world, where [`is_inside`] is true.
///
/// # Errors
/// When the program cannot find itself.
pub fn again(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--ipc", "--pid", "--fork"])
        .args(["--kill-child=KILL", "--mount-proc", "--propagation", "private", "sh", "-c"])
        .arg("\"$0\" \"$@\"; exit $?")
        .arg(env::current_exe().context("cannot find this program")?)
        .args(args)
        .env(INSIDE, "1");
    Ok(command)
}

/// Runs a command made by [`again`] to its end.
///
/// The world ends with the thread that calls this, as well as with the command.
///
/// # Errors
/// When it cannot be started.
pub fn run(mut command: Command) -> Result<ExitStatus> {
    let mut child =
        command.stdin(Stdio::piped()).spawn().context("cannot start setpriv and unshare")?;
    // What it holds, a pipe perhaps, belongs to the child alone.
    drop(command);
    tell_pid(&mut child)?;
    child.wait().context("waiting for the inside")
}

/// True in the copy that runs inside.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Tells the inside its number, once it has one; without it only a hint for people is missing.
fn tell_pid(child: &mut Child) -> Result<()> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let first = wait::until("making namespaces", START, || {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Ok(String::new());
        }
        let text = fs::read_to_string(&children).unwrap_or_default();
        text.split_whitespace().next().map(str::to_owned).ok_or_else(|| "no child yet".into())
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever has ended already needs no number.
        let _ = writeln!(stdin, "{first}");
    }
    Ok(())
}

impl World {
    /// Sets the inside up. `keep`: a folder outside for all files, instead of memory.
    ///
    /// # Errors
    /// Outside of a world, and for anything the kernel or a tool refuses.
    pub fn prepare(keep: Option<&Path>) -> Result<Self> {
        if !is_inside() {
            bail!("this is the machine itself: nothing may be changed here");
        }
        let mut outside_pid = String::new();
        std::io::stdin().lock().read_line(&mut outside_pid).context("reading the world's PID")?;
        let keep = keep.map(|folder| folder.canonicalize()).transpose()?;
        mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])?;
        fs::create_dir_all(BASE)?;
        if let Some(folder) = keep {
            mount(&["--bind", &folder.to_string_lossy(), BASE])?;
        }
        fs::create_dir_all(Path::new(SHARED))?;
        let shared = Path::new(BASE).join("cluster");
        fs::create_dir_all(shared.join("data"))?;
        fs::create_dir_all(shared.join(".ctdb"))?;
        mount(&["--bind", &shared.to_string_lossy(), SHARED])?;
        add_user()?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { outside_pid: outside_pid.trim().to_owned() })
    }

    /// Adds a host: a network namespace `rm-demo-NAME` with an address on the bridge, and private
    /// folders over the machine's. `place` fills them before the pairs `binds` (what, over what)
    /// are put in place.
    ///
    /// # Errors
    /// Anything the kernel or a tool refuses.
    pub fn add_host(
        &self,
        name: &str,
        address: &str,
        binds: &[(PathBuf, PathBuf)],
        place: impl FnOnce(&Host) -> Result<()>,
    ) -> Result<Host> {
        Host::new(name, address, BRIDGE, binds, place)
    }

    /// How somebody outside runs a command on a host.
    #[must_use]
    pub fn from_outside(&self, host: &Host) -> String {
        format!("nsenter -at {} {}", self.outside_pid, host.door().display())
    }
}

/// Puts copies of the user tables, with the demo's user added, over the machine's.
fn add_user() -> Result<()> {
    let lines = [
        ("passwd", format!("{USER}:x:{USER_ID}:{USER_ID}::/nonexistent:/usr/sbin/nologin\n")),
        ("group", format!("{USER}:x:{USER_ID}:\n")),
    ];
    for (table, line) in lines {
        let path = format!("/etc/{table}");
        let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&line);
        let copy = format!("/run/{table}");
        fs::write(&copy, text).with_context(|| format!("cannot write {copy}"))?;
        mount(&["--bind", &copy, &path])?;
    }
    let data = format!("{SHARED}/data");
    std::os::unix::fs::chown(&data, Some(USER_ID), Some(USER_ID))
        .with_context(|| format!("cannot give {data} to the demo's user"))
}

fn mount(args: &[&str]) -> Result<()> {
    let what = format!("mount {}", args.join(" "));
    wait::success(&what, wait::limited(10, "mount").args(args)).map(drop)
}

/// `ip ARGS…` in the namespace of this process.
pub(super) fn ip(args: &[&str]) -> Result<()> {
    if args.is_empty() {
        bail!("ip needs arguments");
    }
    let what = format!("ip {}", args.join(" "));
    wait::success(&what, wait::limited(10, "ip").args(args)).map(drop)
}
