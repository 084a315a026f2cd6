//! Database only; failover without services.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use ringmaster_e2e::Lab;
use ringmaster_xtask::demo::{addresses, cluster, samba, wait};

/// How long anything may take that the daemon does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Enables these event scripts and no others.
fn enable(lab: &Lab, scripts: &[&str]) -> Result<()> {
    let enabled = lab.node().own("etc-ctdb").join("events/legacy");
    fs::remove_dir_all(&enabled)?;
    fs::create_dir_all(&enabled)?;
    for name in scripts {
        let script = format!("{name}.script");
        let place = Path::new("/usr/share/ctdb/events/legacy").join(&script);
        std::os::unix::fs::symlink(place, enabled.join(&script))?;
    }
    Ok(())
}

fn stop(lab: &Lab) -> Result<()> {
    lab.node().run("ctdb shutdown")?;
    wait::until("the end of the daemon", PATIENCE, || match lab.node().run("ctdb ping") {
        Err(_) if cluster::daemon_pid(lab.node()).is_err() => Ok(()),
        _ => Err("it is still there".into()),
    })
}

pub(super) fn database_only(lab: &Lab) -> Result<()> {
    let node = lab.node();
    enable(lab, &[])?;
    let conf = node.own("etc-ctdb").join("ctdb.conf");
    let before = fs::read_to_string(&conf)?;
    fs::write(&conf, format!("{before}[failover]\n\tdisabled = true\n"))?;
    // It is somebody else's: of Pacemaker, keepalived, an orchestrator.
    fs::write(node.own("etc-ctdb").join("public_addresses"), "10.77.0.150/24 eth0\n")?;
    node.run("ip addr add 10.77.0.150/24 dev eth0")?;
    cluster::start_daemon(node)?;
    cluster::wait_healthy(node)?;
    samba::add_user(node)?;
    samba::start(node)?;
    let address = addresses::hosts(node)?.into_iter().next().context("the file has one")?;
    ensure!(address.1.is_none(), "the cluster hosts it: {address:?}");
    wait::until("smbd serves through it", PATIENCE, || {
        samba::session_at(&lab.cluster, address.0, 20, "ls").map_err(|error| format!("{error:#}"))
    })?;
    cluster::kill(cluster::daemon_pid(node)?)?;
    let stays = |what: &str| {
        let shown = node.run("ip -o addr show dev eth0")?;
        ensure!(shown.contains(" 10.77.0.150/"), "{what} took the address away:\n{shown}");
        Ok(())
    };
    stays("the death of the daemon")?;
    none_left(lab)?;
    cluster::start_daemon(node)?;
    cluster::wait_healthy(node)?;
    stop(lab)?;
    stays("an orderly end")?;
    node.run("ip addr del 10.77.0.150/24 dev eth0")?;
    fs::write(&conf, before).context("ctdb.conf")
}

/// C's daemon does not start beside what is left of a killed one.
fn none_left(lab: &Lab) -> Result<()> {
    let names = ["ctdbd", "ctdb-eventd", "smbd"];
    wait::until(&format!("the end of {names:?}"), PATIENCE, || {
        let left = names.map(|name| ringmaster_e2e::processes(name).unwrap_or_default());
        if left.iter().all(Vec::is_empty) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .with_context(|| cluster::last_words(lab.node()))
}

pub(super) fn failover_only(lab: &Lab) -> Result<()> {
    let node = lab.node();
    enable(lab, &["00.ctdb", "01.reclock", "05.system", "10.interface"])?;
    fs::write(node.own("etc-ctdb").join("public_addresses"), "10.77.0.151/24 eth0\n")?;
    cluster::start_daemon(node)?;
    cluster::wait_healthy(node)?;
    let hosts = addresses::wait_hosted(node, 1)?;
    let address = *hosts.keys().next().context("the file has one")?;
    samba::start(node)?;
    wait::until("smbd serves", PATIENCE, || {
        samba::session_at(&lab.cluster, address, 20, "ls").map_err(|error| format!("{error:#}"))
    })?;
    for pid in ringmaster_e2e::processes("smbd")? {
        // One ends with the other.
        let _ = cluster::kill(pid);
    }
    // Somebody else looks after the server: the node stays what it is, also after monitoring.
    node.run("ctdb event run 30 legacy monitor")?;
    ensure!(node.run("ctdb nodestatus").is_ok(), "the node is OK");
    ensure!(addresses::hosts(node)? == hosts, "the address stays");
    stop(lab)?;
    let shown = node.run("ip -o addr show dev eth0")?;
    ensure!(!shown.contains(" 10.77.0.151/"), "an orderly end gives addresses away:\n{shown}");
    fs::remove_file(node.own("etc-ctdb").join("public_addresses")).context("public_addresses")
}
