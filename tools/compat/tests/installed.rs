//! Our daemon as it is installed: not in test mode, with the system's paths and the rights of root.
//!
//! Each daemon has mounts and a network of its own (`unshare`), so that paths and port 4379 are free.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ringmaster_compat::prerequisite::{C_TOOL, skip};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::run::{RunOutput, run, wait_until};
use ringmaster_compat::vitals::{self, Status, Vitals};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// Capabilities that the daemon keeps, as `/proc` shows them: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH,
/// FOWNER, KILL, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE.
const KEPT: [u32; 10] = [0, 1, 2, 3, 5, 10, 12, 13, 14, 23];

/// The system's places, and the names of the directories that stand for them.
const PLACES: [(&str, &str); 4] = [
    ("/etc/ctdb", "etc"),
    ("/var/lib/ctdb", "lib"),
    ("/run/ctdb", "run"),
    ("/var/log/ctdb", "log"),
];

/// Mounts pairs of arguments up to `--` on each other, then becomes the rest.
const ENTER: &str = "ip link set lo up; \
    while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\"; shift 2; done; shift; exec \"$@\"";

/// Tells what an event script of ours may do, and that it ran.
const SCRIPT: &str = "#!/bin/sh\ngrep ^Cap /proc/self/status > \"/etc/ctdb/$1.caps\"\n";

/// A daemon in the foreground, and everything that is its own. Ends with the value.
struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

/// Path of our daemon, or the test says why it is skipped.
macro_rules! require_our_installed_daemon {
    () => {{
        let ctdbd = require_our_daemon!();
        let folders = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
        let there = |name: &&str| folders.iter().any(|one| Path::new(one).join(name).exists());
        if let Some(name) = ["unshare", "setpriv", "mount", "ip"].iter().find(|name| !there(name)) {
            skip(&format!("{name} is missing; install Debian's packages util-linux and iproute2"));
            return;
        }
        ctdbd
    }};
}

struct Setup<'a> {
    ctdbd: &'a Path,
    legacy: &'a str,
    variables: Vec<(&'static str, String)>,
    /// Runs the daemon, e.g. with fewer rights.
    wrapper: &'a [&'a str],
    folder: tempfile::TempDir,
}

impl<'a> Setup<'a> {
    fn new(ctdbd: &'a Path) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        Self { ctdbd, legacy: "", variables: Vec::new(), wrapper: &[], folder }
    }

    fn command(&self) -> Command {
        let base = self.folder.path();
        for name in
            ["etc/events/legacy", "lib/volatile", "lib/persistent", "lib/state", "run", "log"]
        {
            fs::create_dir_all(base.join(name)).expect("a directory");
        }
        let conf = format!(
            "[logging]\n\tlog level = INFO\n[cluster]\n\tnode address = 127.0.0.1\n\
             \tleader timeout = 3\n[legacy]\n{}",
            self.legacy
        );
        fs::write(base.join("etc/ctdb.conf"), conf).expect("written");
        fs::write(base.join("etc/nodes"), "127.0.0.1\n").expect("written");
        // Otherwise a start takes half a minute.
        fs::write(base.join("etc/ctdb.tunables"), "RerecoveryTimeout=0\n").expect("written");
        let script = base.join("etc/events/legacy/00.test.script");
        fs::write(&script, SCRIPT).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--net",
            "--propagation",
            "private",
            "sh",
            "-euc",
            ENTER,
            "enter",
        ]);
        for (place, own) in PLACES {
            // /run is emptied at each boot; the others come with Debian's package.
            fs::create_dir_all(place).expect("a directory");
            command.arg(base.join(own)).arg(place);
        }
        let helpers = self.ctdbd.parent().expect("a directory");
        for name in ["ctdb-eventd", "ctdb_mutex_fcntl_helper"] {
            command.arg(helpers.join(name)).arg(Path::new("/usr/libexec/ctdb").join(name));
        }
        command.arg("--").args(self.wrapper).arg(self.ctdbd).arg("-i");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    fn start(self) -> Daemon {
        let log = fs::File::create(self.folder.path().join("stderr")).expect("a file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().expect("unshare starts");
        let daemon = Daemon { folder: self.folder, child };
        wait_until("a healthy daemon", PATIENCE, || {
            let healthy = daemon.tool(&["nodestatus"]).ok()?;
            healthy.success().then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.stderr()));
        daemon
    }
}

impl Daemon {
    /// `unshare`, the shell and both images of the daemon are one process.
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    fn own(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.own("stderr")).unwrap_or_default()
    }

    fn tool(&self, arguments: &[&str]) -> anyhow::Result<RunOutput> {
        let mut command = Command::new(C_TOOL);
        run(command.args(arguments).env("CTDB_SOCKET", self.own("run/ctdbd.socket")), PATIENCE)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a pid");
        kill_process(pid, signal).expect("it lives");
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the end of the daemon", PATIENCE, || {
            self.child.try_wait().expect("a child is waited for")
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.stderr()))
    }

    fn status(&self, thread: &Path) -> Status {
        Status::of(thread).expect("the daemon lives")
    }

    /// Name and scheduling policy of each thread, as in `/proc`: 0 is normal, 1 is SCHED_FIFO. Those
    /// that come and go may be missing.
    fn policies(&self) -> BTreeSet<(String, u32)> {
        let mut policies = BTreeSet::new();
        for thread in vitals::threads(self.pid()) {
            let Ok(stat) = fs::read_to_string(thread.join("stat")) else { continue };
            let Some((name, fields)) = stat.rsplit_once(") ") else { continue };
            let name = name.split_once('(').map_or(name, |(_, name)| name);
            let policy = fields.split(' ').nth(41 - 3).and_then(|field| field.parse().ok());
            policies.insert((name.to_owned(), policy.expect("a policy")));
        }
        policies
    }

    /// The event daemon, whose parent is the daemon.
    fn event_daemon(&self) -> PathBuf {
        let own = self.pid().to_string();
        let mut processes = fs::read_dir("/proc").expect("mounted").flatten().map(|one| one.path());
        let is_ours = |path: &PathBuf| {
            Status::of(path).is_ok_and(|status| {
                status.text("PPid").ok() == Some(&own)
                    && status.text("Name").ok() == Some("ctdb-eventd")
            })
        };
        processes.find(is_ours).expect("an event daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It leads its process group; its children have groups of their own and end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bits(numbers: impl IntoIterator<Item = u32>) -> u64 {
    numbers.into_iter().fold(0, |bits, number| bits | 1 << number)
}

#[test]
fn memory_is_locked_and_new_memory_too() {
    let ctdbd = require_our_installed_daemon!();
    let daemon = Setup::new(&ctdbd).start();
    let vitals = || Vitals::of(daemon.pid()).expect("the daemon lives");
    // What is mapped but never touched may be missing.
    let locked = vitals();
    assert!(locked.locked_kb * 10 >= locked.resident_kb * 9, "{locked:?}");
    daemon.tool(&["attach", "later.tdb"]).expect("attached");
    let later = vitals();
    assert!(later.locked_kb > locked.locked_kb, "{locked:?}, then {later:?}");
}

#[test]
fn the_loops_are_real_time_and_nothing_else() {
    let ctdbd = require_our_installed_daemon!();
    let daemon = Setup::new(&ctdbd).start();
    daemon.tool(&["attach", "some.tdb"]).expect("attached");
    let policies = daemon.policies();
    assert!(policies.contains(&("ctdbd".into(), 1)), "{policies:?}");
    assert!(policies.contains(&("shard-0".into(), 1)), "{policies:?}");
    let loops = |name: &str| name == "ctdbd" || name.starts_with("shard-");
    let others = policies.iter().filter(|(name, _)| !loops(name));
    assert!(others.clone().count() > 0 && others.clone().all(|one| one.1 == 0), "{policies:?}");
    let eventd = fs::read_to_string(daemon.event_daemon().join("stat")).expect("it lives");
    let policy = eventd.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(41 - 3));
    assert_eq!(policy, Some("0"), "{eventd}");
}

#[test]
fn without_real_time_scheduling_every_thread_is_normal() {
    let ctdbd = require_our_installed_daemon!();
    let mut setup = Setup::new(&ctdbd);
    setup.legacy = "\trealtime scheduling = false\n";
    let daemon = setup.start();
    let policies = daemon.policies();
    assert!(policies.iter().all(|(_, policy)| *policy == 0), "{policies:?}");
}

#[test]
fn real_time_scheduling_that_is_refused_ends_the_start() {
    let ctdbd = require_our_installed_daemon!();
    let mut setup = Setup::new(&ctdbd);
    setup.wrapper = &["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"];
    let refused = run(&mut setup.command(), PATIENCE).expect("it ends");
    assert_eq!(refused.status, 1, "{refused}");
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("real-time") && last.contains("realtime scheduling = false"),
        "{refused}"
    );
}

#[test]
fn every_thread_keeps_the_capabilities_it_needs_and_scripts_get_all() {
    let ctdbd = require_our_installed_daemon!();
    let daemon = Setup::new(&ctdbd).start();
    daemon.tool(&["attach", "some.tdb"]).expect("attached");
    let own = Status::of(Path::new("/proc/self")).expect("this process lives");
    let all = own.bits("CapEff").expect("bits");
    let kept = bits(KEPT) & all;
    let threads = vitals::threads(daemon.pid());
    assert!(threads.len() > 2, "{threads:?}");
    for thread in threads {
        let status = daemon.status(&thread);
        let name = status.text("Name").expect("a name");
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(status.bits(set).expect("bits"), kept, "{set} of {name}");
        }
        assert_eq!(status.bits("CapInh").expect("bits"), 0, "{name}");
    }
    // Event scripts change addresses, mount, load modules: they have what root has.
    let script = fs::read_to_string(daemon.own("etc/startup.caps")).expect("it ran");
    let line = script.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a line");
    let bounding = own.bits("CapBnd").expect("bits");
    assert_eq!(u64::from_str_radix(line.trim(), 16), Ok(bounding), "{script}");
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end() {
    let ctdbd = require_our_installed_daemon!();
    let mut setup = Setup::new(&ctdbd);
    let path = setup.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(PATIENCE)).expect("set");
    setup.variables =
        vec![("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "400000".into())];
    let mut daemon = setup.start();
    let heard = || {
        let mut bytes = [0; 200];
        match manager.recv(&mut bytes) {
            Ok(len) => String::from_utf8_lossy(&bytes[..len]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing is said"),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(heard(), format!("READY=1\nMAINPID={}\n", daemon.pid()));
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1\n");
    }
    daemon.signal(Signal::TERM);
    let end = std::iter::repeat_with(heard).find(|text| text != "WATCHDOG=1\n");
    assert_eq!(end.as_deref(), Some("STOPPING=1\n"));
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn sigterm_hands_everything_back() {
    let ctdbd = require_our_installed_daemon!();
    let mut daemon = Setup::new(&ctdbd).start();
    let pid_file = daemon.own("run/ctdbd.pid");
    let written = fs::read_to_string(&pid_file).expect("a PID file");
    assert_eq!(written.trim(), daemon.pid().to_string());
    let socket = fs::metadata(daemon.own("run/ctdbd.socket")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o700);
    let eventd = daemon.event_daemon();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.stderr());
    assert!(daemon.own("etc/shutdown.caps").exists(), "the event shutdown has run");
    assert!(!pid_file.exists());
    assert!(!eventd.exists(), "the event daemon has ended, too");
}

#[test]
fn the_check_reads_the_systems_files() {
    let ctdbd = require_our_installed_daemon!();
    let setup = Setup::new(&ctdbd);
    let mut command = setup.command();
    command.arg("--check-config");
    let checked = run(&mut command, PATIENCE).expect("it ends");
    assert_eq!(
        (checked.status, checked.stdout.as_str()),
        (0, "configuration is good\n"),
        "{checked}"
    );
}
