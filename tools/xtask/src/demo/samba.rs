//! Samba on the hosts: configuration, the one user, the server, and a client's session.
//!
//! Role: an unmodified smbd as Debian has it. Invariant: nothing here depends on whose daemon runs.

use std::{fs, net::IpAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    cluster::Cluster,
    host::Host,
    wait,
    world::{SHARED, USER},
};

/// Name of the share.
pub const SHARE: &str = "data";
/// Where the server listens.
pub(super) const PORT: u16 = 445;
/// The user's password.
const PASSWORD: &str = "demo";
/// How long a server may take until it answers.
const ANSWERS: Duration = Duration::from_secs(60);

/// Fills a node's `/etc/samba`.
///
/// # Errors
/// When the file cannot be written.
pub fn configure(host: &Host) -> Result<()> {
    let conf = format!(
        "[global]\n\tnetbios name = CLUSTER\n\tworkgroup = DEMO\n\tserver role = standalone server\n\
         \tsecurity = user\n\tclustering = yes\n\tdisable netbios = yes\n\tsmb ports = 445\n\
         \tload printers = no\n\tprintcap name = /dev/null\n\tdisable spoolss = yes\n\
         \tlog level = 1\n\tlog file = /var/log/samba/log.%m\n\
         [{SHARE}]\n\tpath = {SHARED}/data\n\tread only = no\n"
    );
    fs::write(host.own("etc-samba").join("smb.conf"), conf).context("cannot write smb.conf")
}

/// The same for a host with clients only.
///
/// # Errors
/// When the file cannot be written.
pub fn configure_client(host: &Host) -> Result<()> {
    let conf = "[global]\n\tworkgroup = DEMO\n\tdisable netbios = yes\n";
    fs::write(host.own("etc-samba").join("smb.conf"), conf).context("cannot write smb.conf")
}

/// Adds the user to the password database, which is clustered: on one host only.
///
/// # Errors
/// When `smbpasswd` fails; the daemon must be there for it.
pub fn add_user(host: &Host) -> Result<()> {
    let input = host.own("password");
    fs::write(&input, format!("{PASSWORD}\n{PASSWORD}\n"))?;
    let mut command = host.command(60, "smbpasswd");
    command.args(["-s", "-a", USER]).stdin(fs::File::open(&input)?);
    let what = format!("{}: smbpasswd -a {USER}", host.name());
    wait::success(&what, &mut command).map(drop)
}

/// Starts the server; it may still be starting when this returns.
///
/// # Errors
/// When it refuses to start.
pub fn start(host: &Host) -> Result<()> {
    let what = format!("{}: starting smbd", host.name());
    let mut command = host.command(30, "smbd");
    // It keeps its standard error, which nobody would read to the end.
    command.arg("-D").stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().with_context(|| what.clone())?;
    if !status.success() {
        bail!("{what}: {status}\n{}", last_words(host));
    }
    Ok(())
}

/// Waits until a server answers a client.
///
/// # Errors
/// When that takes too long: with the end of its log.
pub fn wait_ready(cluster: &Cluster, node: &Host) -> Result<()> {
    let what = format!("{}: waiting for smbd to answer", node.name());
    wait::until(&what, ANSWERS, || {
        session(cluster, node, 20, "ls").map_err(|error| format!("{error:#}"))
    })
    .map(drop)
    .with_context(|| last_words(node))
}

/// The command of one session: `smbclient` from the client's host, with commands separated by `;`.
#[must_use]
pub fn client(cluster: &Cluster, node: &Host, limit_s: u32, work: &str) -> std::process::Command {
    let mut command = interactive(cluster, node, limit_s);
    command.args(["-c", work]);
    command
}

/// The command of a session that reads its commands, line by line, from its standard input.
#[must_use]
pub fn interactive(cluster: &Cluster, node: &Host, limit_s: u32) -> std::process::Command {
    on_share(cluster, node, limit_s, SHARE)
}

/// The same on another share.
#[must_use]
pub fn on_share(
    cluster: &Cluster,
    node: &Host,
    limit_s: u32,
    share: &str,
) -> std::process::Command {
    let mut command = cluster.client.command(limit_s, "smbclient");
    command.args([&format!("//{}/{share}", node.address()), "-U", &credentials()]);
    command
}

/// One session with a public address that must succeed: what it printed.
///
/// # Errors
/// When it fails or takes longer than `limit_s` seconds.
pub fn session_at(cluster: &Cluster, address: IpAddr, limit_s: u32, work: &str) -> Result<String> {
    let mut command = cluster.client.command(limit_s, "smbclient");
    with_address(&mut command, address).args(["-c", work]);
    wait::success(&format!("a session of smbclient with {address}"), &mut command)
}

/// A session from where this program runs, with any address.
pub(super) fn here(address: IpAddr, limit_s: u32) -> std::process::Command {
    let mut command = wait::limited(limit_s, "smbclient");
    with_address(&mut command, address);
    command
}

/// An IPv6 address cannot stand in a share's name.
fn with_address(
    smbclient: &mut std::process::Command,
    address: IpAddr,
) -> &mut std::process::Command {
    let (share, address) = (format!("//CLUSTER/{SHARE}"), address.to_string());
    smbclient.args([&share, "-I", &address, "-U", &credentials()])
}

fn credentials() -> String {
    format!("{USER}%{PASSWORD}")
}

/// One session that must succeed: what it printed.
///
/// # Errors
/// When it fails or takes longer than `limit_s` seconds.
pub fn session(cluster: &Cluster, node: &Host, limit_s: u32, work: &str) -> Result<String> {
    let what = format!("a session of smbclient with {}", node.name());
    wait::success(&what, &mut client(cluster, node, limit_s, work))
}

/// The SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn checksum(file: &Path) -> Result<String> {
    let what = format!("sha256sum {}", file.display());
    let printed = wait::success(&what, wait::limited(300, "sha256sum").arg(file))?;
    printed.split_whitespace().next().map(str::to_owned).context("sha256sum printed nothing")
}

/// The end of the server's log, for a message.
#[must_use]
pub fn last_words(host: &Host) -> String {
    let path = host.own("log-samba").join("log.smbd");
    let log = fs::read(&path).map(|raw| String::from_utf8_lossy(&raw).into_owned());
    let log = log.unwrap_or_else(|error| format!("cannot read {}: {error}", path.display()));
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    format!("smbd's log on {} ends with:\n{tail}\n", host.name())
}
