//! Every event of every event script of Debian's, under C's event daemon and under ours.
//!
//! The scripts are the package's, unmodified; so is `functions`, but for a line that puts stubs in
//! front of the programs that a test cannot let them run. Compared are status, output, and what was
//! called with which arguments.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringmaster_e2e::Lab;
use ringmaster_xtask::demo::wait;

const SCRIPTS: &str = "/usr/share/ctdb/events/legacy";
const HELPERS: &str = "/usr/libexec/ctdb";
const PATIENCE: Duration = Duration::from_secs(30);

/// Events in the order of a node's life, with arguments.
const EVENTS: &[&str] = &[
    "init",
    "setup",
    "startup",
    "monitor",
    "startrecovery",
    "recovered",
    "takeip eth0 10.77.0.130 24",
    "updateip eth0 eth0 10.77.0.130 24",
    "releaseip eth0 10.77.0.130 24",
    "ipreallocated",
    "nonsense",
    "shutdown",
];

/// Programs that say that they have been called, and do nothing.
const STUBS: &[&str] = &[
    "ctdb",
    "ctdb_killtcp",
    "ctdb_lvs",
    "ctdb_natgw",
    "ethtool",
    "exportfs",
    "free",
    "ip",
    "ip6tables",
    "iptables",
    "ipvsadm",
    "lsof",
    "multipath",
    "mpathconf",
    "net",
    "netstat",
    "nfsconf",
    "nmbd",
    "pkill",
    "ps",
    "pstree",
    "rpc.lockd",
    "rpc.mountd",
    "rpc.nfsd",
    "rpc.rquotad",
    "rpc.statd",
    "rpcinfo",
    "service",
    "showmount",
    "smbcontrol",
    "smnotify",
    "ss",
    "sync",
    "systemctl",
    "tgtadm",
    "testparm",
    "timeout",
    "wbinfo",
    "invoke-rc.d",
    "update-rc.d",
    "kill",
    "killall",
    "initctl",
];

/// Options without which a script does nothing.
const OPTIONS: &str = "\
CTDB_NATGW_NODES=\"$CTDB_BASE/natgw_nodes\"
CTDB_NATGW_PUBLIC_IP=10.77.0.140/24
CTDB_NATGW_PUBLIC_IFACE=eth0
CTDB_NATGW_DEFAULT_GATEWAY=10.77.0.1
CTDB_NATGW_PRIVATE_NETWORK=10.78.0.0/24
CTDB_PER_IP_ROUTING_CONF=\"$CTDB_BASE/policy_routing\"
CTDB_PER_IP_ROUTING_RULE_PREF=100
CTDB_PER_IP_ROUTING_TABLE_ID_LOW=1000
CTDB_PER_IP_ROUTING_TABLE_ID_HIGH=2000
CTDB_MONITOR_MPDEVICES=mpatha
CTDB_LVS_NODES=\"$CTDB_BASE/lvs_nodes\"
CTDB_LVS_PUBLIC_IP=10.77.0.141
CTDB_LVS_PUBLIC_IFACE=eth0
CTDB_START_ISCSI_SCRIPTS=\"$CTDB_BASE/iscsi\"
CTDB_NFS_CALLOUT=\"$CTDB_BASE/stubs/service\"
";

/// An event daemon with a node's directory of its own.
struct Eventd {
    base: PathBuf,
    child: Child,
}

impl Eventd {
    fn start(lab: &Lab, program: &Path, base: &Path) -> Result<Self> {
        for folder in ["events/legacy", "run", "var", "log", "stubs", "share", "iscsi"] {
            fs::create_dir_all(base.join(folder))?;
        }
        let functions = fs::read_to_string("/etc/ctdb/functions")?;
        let stubbed = format!("{functions}\nPATH=\"$CTDB_BASE/stubs:$PATH\"\n");
        fs::write(base.join("functions"), stubbed)?;
        fs::write(base.join("script.options"), OPTIONS)?;
        fs::write(base.join("nodes"), "10.77.0.10\n")?;
        fs::write(base.join("public_addresses"), "10.77.0.130/24 eth0\n")?;
        for file in ["natgw_nodes", "lvs_nodes"] {
            fs::write(base.join(file), "10.77.0.10\n")?;
        }
        fs::write(base.join("policy_routing"), "10.77.0.130 10.77.0.0/24\n")?;
        fs::write(base.join("static-routes"), "eth0 10.79.0.0/24 10.77.0.1\n")?;
        let copied =
            Command::new("cp").args(["-a", "/etc/ctdb/nfs-checks.d"]).arg(base).status()?;
        ensure!(copied.success(), "nfs-checks.d: {copied}");
        let conf = format!("[logging]\n\tlocation = file:{}/log/log\n", base.display());
        fs::write(base.join("ctdb.conf"), conf)?;
        for name in STUBS {
            let stub = base.join("stubs").join(name);
            fs::write(&stub, "#!/bin/sh\necho \"${0##*/} $*\" >>\"$CTDB_BASE/calls\"\n")?;
            fs::set_permissions(&stub, fs::Permissions::from_mode(0o755))?;
        }
        for name in ["ctdb-config", "ctdb-path", "ctdb-event"] {
            symlink(Path::new(HELPERS).join(name), base.join("stubs").join(name))?;
        }
        // Scripts name it by its whole path.
        let stub = base.join("stubs/service");
        lab.node().run(&format!("mount --bind {} /usr/sbin/service", stub.display()))?;
        let mut command = lab.node().command(600, "env");
        command.args(environment(base)).arg(program).stdin(Stdio::null());
        let child = command.spawn().context("the event daemon")?;
        let eventd = Self { base: base.to_owned(), child };
        wait::until("the event daemon is ready", PATIENCE, || {
            let there = eventd.base.join("run/eventd.socket").exists()
                || fs::read_to_string(base.join("log/log"))
                    .is_ok_and(|log| log.contains("started"));
            if there { Ok(()) } else { Err("no socket".into()) }
        })?;
        Ok(eventd)
    }

    fn tool(&self, lab: &Lab, words: &[&str]) -> Result<Output> {
        let mut command = lab.node().command(60, "env");
        command.args(environment(&self.base)).arg(format!("{HELPERS}/ctdb-event")).args(words);
        wait::output("ctdb-event", &mut command)
    }

    /// Runs an event with one script enabled: everything there is to be seen of it.
    fn play(&self, lab: &Lab, script: &str, event: &str) -> Result<String> {
        let calls = self.base.join("calls");
        fs::write(&calls, "")?;
        let words: Vec<&str> = event.split(' ').collect();
        let run =
            self.tool(lab, &[["run", "30", "legacy"].as_slice(), words.as_slice()].concat())?;
        let status = self.tool(lab, &["status", "legacy", words[0]])?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut seen = format!("{script} {event}: {:?}\n", run.status.code());
        for line in text(&status.stdout).lines() {
            // A script's line ends with its duration and the time.
            let brief: Vec<&str> = line.split_whitespace().take(2).collect();
            let is_script = line.starts_with(script);
            seen += &if is_script { brief.join(" ") } else { line.to_owned() };
            seen.push('\n');
        }
        seen += &text(&fs::read(&calls)?);
        Ok(seen.replace(&self.base.display().to_string(), "BASE"))
    }
}

impl Drop for Eventd {
    fn drop(&mut self) {
        // timeout(1) passes it on.
        let mut kill = Command::new("kill");
        let _ = kill.arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn environment(base: &Path) -> Vec<String> {
    let base = base.display();
    vec![
        "CTDB_TEST_MODE=yes".into(),
        format!("CTDB_BASE={base}"),
        format!("CTDB={base}/stubs/ctdb"),
        format!("CTDB_HELPER_BINDIR={base}/stubs"),
        format!("CTDB_SYS_ETCDIR={base}/etc"),
        format!("CTDB_SCRIPT_VARDIR={base}/var/scripts"),
    ]
}

fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(SCRIPTS).context(SCRIPTS)?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".script")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// All that is seen, script by script.
fn play_all(lab: &Lab, program: &Path, base: &Path) -> Result<Vec<String>> {
    let eventd = Eventd::start(lab, program, base)?;
    let mut all = Vec::new();
    for name in names()? {
        let enabled = base.join(format!("events/legacy/{name}.script"));
        symlink(Path::new(SCRIPTS).join(format!("{name}.script")), &enabled)?;
        for event in EVENTS {
            all.push(eventd.play(lab, &name, event)?);
        }
        fs::remove_file(&enabled)?;
    }
    Ok(all)
}

pub(super) fn every_event(lab: &Lab) -> Result<()> {
    let ours = Path::new(HELPERS).join("ctdb-eventd");
    // The host has ours in C's place; the world around it has not.
    let theirs = lab.node().own("c-eventd");
    fs::copy(&ours, &theirs)?;
    let bases = [lab.node().own("scripts-c"), lab.node().own("scripts-o")];
    let (theirs, ours) = (play_all(lab, &theirs, &bases[0])?, play_all(lab, &ours, &bases[1])?);
    ensure!(theirs.len() == ours.len() && !theirs.is_empty(), "as many events");
    let different: Vec<String> = theirs
        .iter()
        .zip(&ours)
        .filter(|(theirs, ours)| theirs != ours)
        .map(|(theirs, ours)| format!("under C's:\n{theirs}\nunder ours:\n{ours}"))
        .collect();
    println!("    {} events of {} scripts", ours.len(), names()?.len());
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}
