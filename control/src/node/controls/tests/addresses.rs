//! Public addresses of one node, and what it tells the others about their connections.

mod configure;
mod moves;
mod tickles;

use std::net::IpAddr;

use ringmaster_protocol::{
    Destination, Pnn, SockAddr, Srvid,
    connection::{Interface, InterfaceName, LinkState, PublicIp, PublicIpList},
    control::ControlRequest,
    control_packet::ControlFlags,
};

use super::{done, events, refused, value};
use crate::{
    config::public_addresses::{PublicAddress, parse},
    failover::addresses::{Address, Addresses},
    node::{
        Ask, Tell,
        testing::{CLIENT, Cluster, Did, Play, pnn},
        world::{Origin, ScriptResult, ScriptRun},
    },
};

const FILE: &str = "10.0.0.1/24 eth0,eth1\n10.0.0.2/24 eth0\nfd00::3/64 eth1\n";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn file(text: &str) -> Vec<PublicAddress> {
    parse(text.as_bytes(), |_| true).unwrap().addresses
}

/// Running nodes that may host the addresses of [`FILE`].
fn cluster(count: usize) -> Cluster {
    let mut cluster = Cluster::running(count);
    for node in 0..count {
        cluster.nodes[node].address_file = file(FILE);
        cluster.change(node, |state| state.addresses = Addresses::of_file(&file(FILE)));
    }
    cluster
}

fn ip(text: &str, host: Option<usize>) -> PublicIp {
    PublicIp { pnn: host.map(pnn), addr: SockAddr::new(address(text), 0) }
}

/// The leader, which is not one of the nodes here.
const LEADER: Origin = Origin::Node(Pnn::new(9).unwrap(), 0);

fn takeover(cluster: &mut Cluster, node: usize, text: &str) -> i32 {
    let control = ControlRequest::TakeoverIp(ip(text, Some(node)));
    cluster.control_from(node, LEADER, &control).status
}

fn release(cluster: &mut Cluster, node: usize, text: &str, to: Option<usize>) -> i32 {
    cluster.control_from(node, LEADER, &ControlRequest::ReleaseIp(ip(text, to))).status
}

fn set_link(cluster: &mut Cluster, name: &str, link_state: LinkState) -> i32 {
    let name = InterfaceName::new(name).unwrap();
    let interface = Interface { name, link_state, references: 0 };
    cluster.control(0, &ControlRequest::SetIfaceLinkState(interface)).status
}

/// What node 0 knows of an address.
fn entry(cluster: &Cluster, text: &str) -> Address {
    cluster.state(0).addresses.get(address(text)).unwrap().clone()
}

/// Addresses, the believed host behind each, in the order of the list.
fn public_ips(cluster: &mut Cluster, node: usize, flags: ControlFlags) -> Vec<String> {
    let control = ControlRequest::GetPublicIps;
    let id = cluster.send_with(node, Origin::Client(CLIENT), Srvid(0), flags, &control);
    let list: PublicIpList = value(&cluster.reply(id).unwrap());
    let show = |ip: &PublicIp| match ip.pnn {
        Some(pnn) => format!("{} {pnn}", ip.addr),
        None => format!("{} -", ip.addr),
    };
    list.0.iter().map(show).collect()
}

fn offered(cluster: &mut Cluster) -> Vec<String> {
    public_ips(cluster, 0, ControlFlags::ONLY_AVAILABLE)
}

/// Scripts with their arguments.
fn scripts(did: &[Did]) -> Vec<String> {
    let script = |did: &Did| match did {
        Did::Ask(Ask::Script(ScriptRun { event, args, .. })) => Some(format!("{event} {args}")),
        _ => None,
    };
    did.iter().filter_map(script).collect()
}

/// Messages to the node's own clients with this srvid, as text.
fn told(did: &[Did], node: usize, wanted: Srvid) -> Vec<String> {
    let own = Destination::Node(pnn(node));
    let message = |did: &Did| match did {
        Did::Tell(Tell::Message { to, srvid, data }) if *to == own && *srvid == wanted => {
            Some(String::from_utf8(data.clone()).unwrap())
        }
        _ => None,
    };
    did.iter().filter_map(message).collect()
}
