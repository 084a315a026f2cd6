//! The requests behind `ip` and `ipinfo`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use ringmaster_protocol::connection::{Interface, LinkState, PublicIp, PublicIpInfo};
use ringmaster_protocol::control::kinds;

use super::format::{InterfaceUse, PublicAddress, PublicAddressDetails, PublicAddresses};
use crate::arguments::{address, text};
use crate::command::{Failure, Outcome};
use crate::session::{Session, active};

/// `ip`.
///
/// # Errors
/// A node does not answer.
pub fn ip(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let all = !arguments.is_empty();
    if all && text(arguments, 0) != "all" {
        return Err(Failure::Usage);
    }
    let target = session.target;
    let list = if all {
        addresses_of_all(session)?
    } else {
        session.control::<kinds::GetPublicIps, _>(target, &())?.0
    };
    let mut list = sorted(list);
    let mut public_ips = Vec::with_capacity(list.len());
    for entry in list.drain(..) {
        // With `all`, who serves an address knows its interfaces; if nobody does, nobody is asked.
        let node = if all { entry.pnn.map(|pnn| pnn.get()) } else { Some(target) };
        let info = node
            .and_then(|node| session.control::<kinds::GetPublicIpInfo, _>(node, &entry.addr).ok());
        public_ips.push(public_address(&entry, info.as_ref()));
    }
    let verbose = session.tool.options.verbose;
    let node = (!all).then_some(target);
    session.output().report(&PublicAddresses { node, public_ips, verbose })?;
    Ok(0)
}

/// The addresses of every active node; each knows best what it serves itself.
fn addresses_of_all(session: &mut Session<'_>) -> Result<Vec<PublicIp>, Failure> {
    let map = session.nodemap()?;
    let mut all: BTreeMap<String, PublicIp> = BTreeMap::new();
    for node in active(&map) {
        // Whatever the reason, C exits with 1 here.
        let list = session
            .control::<kinds::GetPublicIps, _>(node, &())
            .map_err(|_reported| Failure::Status(1))?;
        for entry in list.0 {
            let serves = entry.pnn.is_some_and(|pnn| pnn.get() == node);
            let known = all.entry(entry.addr.to_string()).or_insert(entry);
            if serves {
                *known = entry;
            }
        }
    }
    Ok(all.into_values().collect())
}

fn sorted(mut list: Vec<PublicIp>) -> Vec<PublicIp> {
    list.sort_by(|a, b| a.addr.cmp_ip(&b.addr));
    list
}

fn public_address(entry: &PublicIp, info: Option<&PublicIpInfo>) -> PublicAddress {
    let name = |interface: &Interface| interface.name.text().to_string();
    let interfaces = info.map(|info| info.interfaces.as_slice()).unwrap_or_default();
    PublicAddress {
        ip: entry.addr.to_string(),
        pnn: entry.pnn.map(|pnn| pnn.get()),
        active_interface: info.and_then(PublicIpInfo::active).map(name),
        available_interfaces: interfaces
            .iter()
            .filter(|interface| interface.link_state == LinkState::Up)
            .map(name)
            .collect(),
        configured_interfaces: interfaces.iter().map(name).collect(),
    }
}

/// `ipinfo`.
///
/// # Errors
/// The word is no address; the node does not know it or does not answer.
pub fn ipinfo(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    const ETIMEDOUT: i32 = 110;
    let wanted = address(&arguments[0])?;
    let node = session.target;
    let info = match session.control::<kinds::GetPublicIpInfo, _>(node, &wanted) {
        Ok(info) => info,
        Err(refused) => {
            if refused.code != ETIMEDOUT && !refused.closed {
                session
                    .output()
                    .notice(format_args!("Node {node} does not know about IP {wanted}"))?;
            }
            return Err(refused.into());
        }
    };
    let interfaces = info
        .interfaces
        .iter()
        .enumerate()
        .map(|(index, interface)| InterfaceUse {
            name: interface.name.text().to_string(),
            link_up: interface.link_state == LinkState::Up,
            references: interface.references,
            active: u32::try_from(index).is_ok_and(|index| index == info.active_index),
        })
        .collect();
    let ip = info.ip.addr.to_string();
    let current_node = info.ip.pnn.map(|pnn| pnn.get());
    session.output().report(&PublicAddressDetails { node, ip, current_node, interfaces })?;
    Ok(0)
}
