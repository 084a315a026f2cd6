//! Changing the table, links, and what can be asked.

use super::*;
use crate::node::Outcome;
use ringmaster_protocol::{
    connection::{AddressInfo, InterfaceList, PublicIpInfo},
    text::Text,
};

fn info<'a>(text: &str, interfaces: &'a str) -> AddressInfo<'a> {
    let addr = SockAddr::new(address(text), 0);
    AddressInfo { addr, mask: 24, interfaces: Some(Text::new(interfaces)) }
}

/// Requests to be balanced.
fn balance_requests(did: &[Did], node: usize) -> usize {
    let wanted = Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::REBALANCE_NODE,
        data: pnn(node).get().to_le_bytes().to_vec(),
    };
    did.iter().filter(|did| **did == Did::Tell(wanted.clone())).count()
}

#[test]
fn an_address_is_added_once_and_on_interfaces_that_exist() {
    let mut cluster = cluster(1);
    let add = |cluster: &mut Cluster, text, interfaces| {
        cluster.control(0, &ControlRequest::AddPublicIp(info(text, interfaces))).status
    };
    assert_eq!(add(&mut cluster, "10.0.0.9", "eth1,nosuch"), -1);
    assert_eq!(add(&mut cluster, "10.0.0.9", "lo,eth1"), 0);
    assert_eq!(add(&mut cluster, "10.0.0.9", "lo"), -1);
    assert_eq!(add(&mut cluster, "::ffff:10.0.0.9", "lo"), -1, "the same address");
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE)[0], "10.0.0.9 -");
    assert_eq!(entry(&cluster, "10.0.0.9").interfaces, ["lo", "eth1"]);
    let nothing = AddressInfo { interfaces: None, ..info("10.0.0.8", "") };
    assert_eq!(cluster.control(0, &ControlRequest::AddPublicIp(nothing)), refused());
}

#[test]
fn an_address_that_is_hosted_here_is_deleted_by_its_release() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    let delete = |cluster: &mut Cluster, text| {
        cluster.control(0, &ControlRequest::DelPublicIp(info(text, ""))).status
    };
    assert_eq!(delete(&mut cluster, "10.0.0.9"), -1);
    assert_eq!(delete(&mut cluster, "10.0.0.2"), 0);
    assert_eq!(delete(&mut cluster, "10.0.0.1"), 0);
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE), ["fd00::3 -", "10.0.0.1 0"]);
    assert_eq!(offered(&mut cluster), ["fd00::3 -"], "no longer to be had");
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), 0);
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE), ["fd00::3 -"]);
    let list: InterfaceList = value(&cluster.control(0, &ControlRequest::GetIfaces));
    assert_eq!(list.0.len(), 1, "eth0 has gone with the last address on it");
}

#[test]
fn a_reload_makes_the_table_what_the_file_says() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::ReloadPublicIps), done());
    assert_eq!(balance_requests(&cluster.took(0), 0), 0, "nothing new");
    cluster.nodes[0].address_file = file("10.0.0.7/24 lo\n10.0.0.2/16 lo\n10.0.0.8/24 lo\n");
    assert_eq!(cluster.control(0, &ControlRequest::ReloadPublicIps), done());
    assert_eq!(balance_requests(&cluster.took(0), 0), 1);
    // New ones in front in the order of the file; the hosted one goes with its release.
    let now = public_ips(&mut cluster, 0, ControlFlags::NONE);
    assert_eq!(now, ["10.0.0.7 -", "10.0.0.8 -", "10.0.0.2 -", "10.0.0.1 0"]);
    let kept = entry(&cluster, "10.0.0.2");
    assert_eq!((kept.mask_bits, kept.interfaces), (24, vec!["eth0".to_owned()]), "as it was");
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), 0);
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE).len(), 3);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let mut cluster = cluster(1);
    let before = public_ips(&mut cluster, 0, ControlFlags::NONE);
    cluster.play(0, |ask| {
        let wrong = Outcome::PublicAddresses(Err("line 1 is wrong".into()));
        (*ask == Ask::ReadPublicAddresses).then_some(Play::Outcome(wrong))
    });
    assert_eq!(cluster.control(0, &ControlRequest::ReloadPublicIps).status, 1);
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE), before);
}

#[test]
fn links_are_set_for_interfaces_of_the_table_only() {
    let mut cluster = cluster(1);
    assert_eq!(set_link(&mut cluster, "eth1", LinkState::Down), 0);
    assert_eq!(set_link(&mut cluster, "lo", LinkState::Down), -1);
    assert_eq!(set_link(&mut cluster, "aaaaaaaaaaaaaaaa", LinkState::Up), -1, "16 characters");
    let interface = Interface {
        name: InterfaceName::new("eth0").unwrap(),
        link_state: LinkState::Up,
        references: 1,
    };
    assert_eq!(cluster.control(0, &ControlRequest::SetIfaceLinkState(interface)), refused());
    let list: InterfaceList = value(&cluster.control(0, &ControlRequest::GetIfaces));
    let show = |one: &Interface| format!("{} {:?} {}", one.name, one.link_state, one.references);
    let shown: Vec<String> = list.0.iter().map(show).collect();
    assert_eq!(shown, ["eth1 Down 0", "eth0 Up 0"]);
}

#[test]
fn an_address_is_described_with_its_interfaces_and_the_one_in_use() {
    let mut cluster = cluster(1);
    let ask = |cluster: &mut Cluster, text: &str| {
        let addr = SockAddr::new(address(text), 0);
        cluster.control(0, &ControlRequest::GetPublicIpInfo(addr))
    };
    assert_eq!(ask(&mut cluster, "10.0.0.9"), refused());
    let before: PublicIpInfo = value(&ask(&mut cluster, "10.0.0.1"));
    assert_eq!((before.ip.pnn, before.active()), (None, None));
    set_link(&mut cluster, "eth0", LinkState::Down);
    takeover(&mut cluster, 0, "10.0.0.1");
    let after: PublicIpInfo = value(&ask(&mut cluster, "::ffff:10.0.0.1"));
    assert_eq!((after.ip, after.active_index), (ip("10.0.0.1", Some(0)), 1));
    let names: Vec<String> = after.interfaces.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert_eq!(after.interfaces[1].references, 1);
}

#[test]
fn an_announcement_on_request_is_answered_at_once_and_made_three_times() {
    let mut cluster = cluster(1);
    let request = ControlRequest::SendGratuitousArp(info("10.9.9.9", "nosuch"));
    assert_eq!(cluster.control(0, &request), done());
    cluster.advance_ms(60_000);
    let told = Tell::Announce { address: address("10.9.9.9"), interface: "nosuch".into() };
    let times = cluster.took(0).iter().filter(|did| **did == Did::Tell(told.clone())).count();
    assert_eq!(times, 3);
}
