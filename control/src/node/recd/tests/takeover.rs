//! Takeover runs among whole nodes: where addresses go, in which order, and what spoils a run.

use std::{collections::BTreeSet, net::IpAddr};

use ringmaster_protocol::{
    Destination, Pnn, SockAddr, Srvid,
    connection::{Interface, InterfaceName, LinkState, PublicIp},
    control::{ControlOpcode, ControlRequest},
    control_packet::ControlFlags,
    node::{BanState, NodeFlags},
    process::{DisableMessage, SrvidMessage},
    text::Text,
    tunable::Tunable,
    wire::Encode,
};

use super::daemons::{leader, run_until};
use super::faults::Dice;
use crate::{
    config::public_addresses::parse,
    failover::addresses::Addresses,
    node::{
        Ask, Outcome, Tell, controls, lifecycle,
        testing::{Cluster, Did, Play, pnn},
        world::{ControlAnswer, Origin, ScriptResult},
    },
};
use ringmaster_protocol::process::RunState;

const FILE: &str = "10.0.0.1/24 eth0\n10.0.0.2/24 eth0\n10.0.0.3/24 eth0\n10.0.0.4/24 eth0\n";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Nodes in service that all know the addresses of [`FILE`].
fn started(count: usize) -> Cluster {
    started_with(count, |_| {})
}

fn started_with(count: usize, prepare: impl Fn(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::of(count);
    for node in 0..count {
        let file = parse(FILE.as_bytes(), |_| true).unwrap().addresses;
        cluster.nodes[node].address_file = file.clone();
        cluster.change(node, |state| {
            state.addresses = Addresses::of_file(&file);
            // As a node is until its first monitor event.
            state.change_own_flags(|flags| flags.with(NodeFlags::UNHEALTHY));
        });
    }
    prepare(&mut cluster);
    for node in 0..count {
        cluster.event(node, lifecycle::start);
    }
    run_until(&mut cluster, 60, "running", |cluster| {
        (0..count).all(|node| {
            cluster.state(node).run_state == RunState::Running
                && (0..count)
                    .all(|of| cluster.state(node).flags_of(pnn(of)) == Some(NodeFlags::NONE))
        })
    });
    cluster
}

fn all() -> BTreeSet<IpAddr> {
    (1..=4).map(|host| IpAddr::from([10, 0, 0, host])).collect()
}

/// Which addresses each node really has.
fn hosted(cluster: &Cluster) -> Vec<BTreeSet<IpAddr>> {
    cluster.nodes.iter().map(|node| node.hosted.clone()).collect()
}

/// Every address is on exactly one of these nodes, and they agree on which.
fn served_by(cluster: &Cluster, nodes: &[usize]) -> bool {
    let once = |address: &IpAddr| {
        let hosts: Vec<usize> =
            nodes.iter().copied().filter(|n| cluster.nodes[*n].hosted.contains(address)).collect();
        let [host] = hosts[..] else { return false };
        let believes =
            |node: &usize| cluster.state(*node).addresses.get(*address).map(|entry| entry.host);
        nodes.iter().all(|node| believes(node) == Some(Some(pnn(host))))
    };
    all().iter().all(once)
}

fn wait_served(cluster: &mut Cluster, nodes: &[usize]) {
    run_until(cluster, 60, "every address hosted once", |cluster| served_by(cluster, nodes));
}

fn loads(cluster: &Cluster) -> Vec<usize> {
    cluster.nodes.iter().map(|node| node.hosted.len()).collect()
}

fn tune(cluster: &mut Cluster, tunable: Tunable, value: u32) {
    for node in 0..cluster.nodes.len() {
        cluster.change(node, |state| state.tunables.set(tunable, value));
    }
}

fn control(cluster: &mut Cluster, node: usize, control: &ControlRequest<'_>) {
    let id = cluster.send_from(node, Origin::Own, control);
    assert_eq!(cluster.reply(id).unwrap().status, 0, "{control:?}");
}

/// Asks for a run and waits for its end, as the tool does; what the leader said.
fn reallocate(cluster: &mut Cluster) -> i32 {
    let srvid = Srvid(0xCE00_0000_0000_0001);
    let leads = leader(cluster, 0);
    let request = SrvidMessage { pnn: Some(pnn(leads)), srvid };
    cluster.took(leads);
    cluster.message(leads, Srvid::TAKEOVER_RUN, request.to_bytes());
    for _ in 0..600 {
        cluster.advance_ms(100);
        let answer = cluster.took(leads).into_iter().find_map(|did| match did {
            Did::Tell(Tell::Message { srvid: to, data, .. }) if to == srvid => Some(data),
            _ => None,
        });
        if let Some(answer) = answer {
            return i32::from_le_bytes(answer.try_into().unwrap());
        }
    }
    panic!("no answer to a request for a takeover run");
}

#[test]
fn addresses_are_spread_over_the_nodes_that_start() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    let mut spread = loads(&cluster);
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
    let before = hosted(&cluster);
    assert_eq!(reallocate(&mut cluster), i32::try_from(leader(&cluster, 0)).unwrap());
    assert_eq!(hosted(&cluster), before, "a run without need moves nothing");
}

/// Controls of a run in the order in which the leader has sent them, without repetitions.
fn run_of(did: &[Did]) -> Vec<&'static str> {
    let mut steps: Vec<&'static str> = Vec::new();
    for did in did {
        let step = match did {
            Did::Tell(Tell::Message { srvid: Srvid::DISABLE_TAKEOVER_RUNS, data, .. }) => {
                if data[16..20] == [0; 4] { "on" } else { "off" }
            }
            Did::Ask(Ask::Control(control)) => match control.opcode {
                ControlOpcode::GET_PUBLIC_IPS if control.flags == ControlFlags::NONE => "known",
                ControlOpcode::GET_PUBLIC_IPS => "available",
                ControlOpcode::START_IPREALLOCATE => "start",
                ControlOpcode::RELEASE_IP => "release",
                ControlOpcode::TAKEOVER_IP => "take over",
                ControlOpcode::IPREALLOCATED => "reallocated",
                _ => continue,
            },
            _ => continue,
        };
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    steps
}

#[test]
fn a_run_goes_through_its_steps_in_order() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    cluster.advance_ms(5_000);
    let leads = leader(&cluster, 0);
    cluster.took(leads);
    cluster.message(
        leads,
        Srvid::TAKEOVER_RUN,
        SrvidMessage { pnn: Some(pnn(leads)), srvid: Srvid::NO_REPLY }.to_bytes(),
    );
    cluster.advance_ms(1_500);
    assert_eq!(
        run_of(&cluster.took(leads)),
        ["off", "known", "available", "start", "release", "take over", "reallocated", "on"]
    );
}

#[test]
fn nothing_is_taken_over_before_everybody_has_released() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let leads = leader(&cluster, 0);
    let other = 1 - leads;
    cluster.play(leads, |ask| match ask {
        Ask::Control(control) if control.opcode == ControlOpcode::RELEASE_IP => Some(Play::Hold),
        _ => None,
    });
    cluster.took(leads);
    control(&mut cluster, other, &ControlRequest::DisableNode);
    cluster.advance_ms(5_000);
    let wish = SrvidMessage { pnn: Some(pnn(leads)), srvid: Srvid::NO_REPLY };
    cluster.message(leads, Srvid::TAKEOVER_RUN, wish.to_bytes());
    cluster.advance_ms(3_000);
    let held = cluster.nodes[leads].held.len();
    assert_eq!(held, 4, "each address, to the node that is not to have it");
    let steps = run_of(&cluster.took(leads));
    assert_eq!(steps.last(), Some(&"release"));
    // The last one to answer decides.
    let (token, ask) = cluster.nodes[leads].held.pop().unwrap();
    cluster.release(leads, &Outcome::Reply(Ok(ControlAnswer::default())));
    assert_eq!(run_of(&cluster.took(leads)), [""; 0]);
    cluster.nodes[leads].held.push((token, ask));
    cluster.release(leads, &Outcome::Reply(Ok(ControlAnswer::default())));
    assert_eq!(run_of(&cluster.took(leads))[0], "take over");
}

#[test]
fn addresses_of_a_dead_node_go_to_the_living() {
    for victim_leads in [false, true] {
        let mut cluster = started(3);
        wait_served(&mut cluster, &[0, 1, 2]);
        let leads = leader(&cluster, 0);
        let victim = if victim_leads { leads } else { (leads + 1) % 3 };
        cluster.kill(victim);
        cluster.nodes[victim].hosted.clear();
        let rest: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
        wait_served(&mut cluster, &rest);
    }
}

#[test]
fn a_disabled_node_gives_its_addresses_away_and_gets_some_when_it_is_back() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    let node = (leader(&cluster, 0) + 1) % 3;
    control(&mut cluster, node, &ControlRequest::DisableNode);
    cluster.advance_ms(2_000);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster)[node], 0);
    assert!(served_by(&cluster, &[0, 1, 2]));
    control(&mut cluster, node, &ControlRequest::EnableNode);
    cluster.advance_ms(2_000);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster)[node], 1);
    assert!(served_by(&cluster, &[0, 1, 2]));
}

#[test]
fn with_no_ip_takeover_nobody_gets_what_a_disabled_node_had() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    tune(&mut cluster, Tunable::NoIPTakeover, 1);
    let node = (leader(&cluster, 0) + 1) % 3;
    let had = cluster.nodes[node].hosted.len();
    let before: usize = loads(&cluster).iter().sum();
    control(&mut cluster, node, &ControlRequest::DisableNode);
    cluster.advance_ms(2_000);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster)[node], 0);
    control(&mut cluster, node, &ControlRequest::EnableNode);
    cluster.advance_ms(2_000);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster).iter().sum::<usize>(), before - had, "they are nowhere");
}

#[test]
fn without_failback_a_node_that_is_back_gets_nothing_from_the_others() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    tune(&mut cluster, Tunable::NoIPFailback, 1);
    let node = (leader(&cluster, 0) + 1) % 3;
    for request in [ControlRequest::DisableNode, ControlRequest::EnableNode] {
        control(&mut cluster, node, &request);
        cluster.advance_ms(2_000);
        reallocate(&mut cluster);
    }
    assert_eq!(loads(&cluster)[node], 0);
    assert!(served_by(&cluster, &[0, 1, 2]));
}

#[test]
fn a_node_asked_to_be_balanced_gets_addresses_though_it_has_some() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let leads = leader(&cluster, 0);
    // All but one to the leader, by hand.
    let moved: Vec<IpAddr> = cluster.nodes[1 - leads].hosted.iter().copied().skip(1).collect();
    for address in moved {
        move_ip(&mut cluster, address, leads);
    }
    cluster.advance_ms(5_000);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster)[1 - leads], 1, "whoever has one is no candidate");
    let data = pnn(1 - leads).get().to_le_bytes().to_vec();
    cluster.message(leads, Srvid::REBALANCE_NODE, data);
    reallocate(&mut cluster);
    assert_eq!(loads(&cluster), [2, 2]);
}

/// What `ctdb moveip` does.
fn move_ip(cluster: &mut Cluster, address: IpAddr, to: usize) {
    let count = cluster.nodes.len();
    for timeout in [60, 0] {
        for node in 0..count {
            let switch = DisableMessage { pnn: None, srvid: Srvid::NO_REPLY, timeout };
            cluster.message(node, Srvid::DISABLE_TAKEOVER_RUNS, switch.to_bytes());
        }
        if timeout == 0 {
            break;
        }
        let ip = PublicIp { pnn: Some(pnn(to)), addr: SockAddr::new(address, 0) };
        for node in (0..count).filter(|node| *node != to) {
            control(cluster, node, &ControlRequest::ReleaseIp(ip));
        }
        control(cluster, to, &ControlRequest::TakeoverIp(ip));
    }
}

#[test]
fn an_address_moved_by_hand_stays_where_it_is() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    let target = (0..3).find(|node| !cluster.nodes[*node].hosted.contains(&address("10.0.0.1")));
    let target = target.unwrap();
    move_ip(&mut cluster, address("10.0.0.1"), target);
    let before = hosted(&cluster);
    assert!(before[target].contains(&address("10.0.0.1")));
    if loads(&cluster).contains(&0) {
        return; // Then a node without addresses gets one, as in C.
    }
    cluster.advance_ms(10_000);
    reallocate(&mut cluster);
    assert_eq!(hosted(&cluster), before);
}

#[test]
fn an_address_is_not_left_on_an_interface_without_link() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let name = InterfaceName::new("eth0").unwrap();
    let set = |link_state| {
        ControlRequest::SetIfaceLinkState(Interface { name, link_state, references: 0 })
    };
    control(&mut cluster, 0, &set(LinkState::Down));
    run_until(&mut cluster, 20, "addresses elsewhere", |cluster| loads(cluster) == [0, 4]);
    control(&mut cluster, 0, &set(LinkState::Up));
    run_until(&mut cluster, 20, "addresses back", |cluster| {
        loads(cluster)[0] > 0 && served_by(cluster, &[0, 1])
    });
}

#[test]
fn an_address_on_two_hosts_or_on_none_is_put_right() {
    let mut cluster = started(3);
    wait_served(&mut cluster, &[0, 1, 2]);
    let host = (0..3).find(|n| cluster.nodes[*n].hosted.contains(&address("10.0.0.2"))).unwrap();
    cluster.nodes[(host + 1) % 3].hosted.insert(address("10.0.0.2"));
    wait_served(&mut cluster, &[0, 1, 2]);
    let host = (0..3).find(|n| cluster.nodes[*n].hosted.contains(&address("10.0.0.3"))).unwrap();
    cluster.nodes[host].hosted.remove(&address("10.0.0.3"));
    wait_served(&mut cluster, &[0, 1, 2]);
}

#[test]
fn a_new_address_is_hosted_without_being_asked_for() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let info = ringmaster_protocol::connection::AddressInfo {
        addr: SockAddr::new(address("10.0.0.9"), 0),
        mask: 24,
        interfaces: Some(Text::new("eth0")),
    };
    control(&mut cluster, 1, &ControlRequest::AddPublicIp(info));
    run_until(&mut cluster, 10, "the new address", |cluster| {
        cluster.nodes[1].hosted.contains(&address("10.0.0.9"))
    });
    control(&mut cluster, 1, &ControlRequest::DelPublicIp(info));
    reallocate(&mut cluster);
    assert!(!cluster.nodes[1].hosted.contains(&address("10.0.0.9")));
    assert!(cluster.state(1).addresses.get(address("10.0.0.9")).is_none());
}

#[test]
fn a_node_that_shuts_down_has_no_address_when_it_goes() {
    let mut cluster = started_with(3, |cluster| {
        for node in 0..3 {
            cluster.change(node, |state| state.constants.shutdown_failover_timeout_s = 10);
        }
    });
    wait_served(&mut cluster, &[0, 1, 2]);
    for node in [(leader(&cluster, 0) + 1) % 3, leader(&cluster, 0)] {
        cluster.event(node, |cx| lifecycle::shutdown(cx, 0));
        run_until(&mut cluster, 20, "the end", |cluster| !cluster.nodes[node].up);
        assert_eq!(loads(&cluster)[node], 0);
        let rest: Vec<usize> = (0..3).filter(|node| cluster.nodes[*node].up).collect();
        for other in &rest {
            cluster.event(*other, |cx| controls::node_gone(cx, pnn(node)));
        }
        wait_served(&mut cluster, &rest);
    }
}

/// A node's answers to one control from now on.
fn answers(cluster: &mut Cluster, leads: usize, opcode: ControlOpcode, to: usize, status: i32) {
    let to = pnn(to);
    cluster.play(leads, move |ask| match ask {
        Ask::Control(control) if control.opcode == opcode && control.to == to => {
            let answer = ControlAnswer { status, ..ControlAnswer::default() };
            Some(Play::Outcome(Outcome::Reply(Ok(answer))))
        }
        _ => None,
    });
}

#[test]
fn a_node_of_4_17_that_does_not_know_the_start_of_a_run_spoils_nothing() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let leads = leader(&cluster, 0);
    answers(&mut cluster, leads, ControlOpcode::START_IPREALLOCATE, 1 - leads, -1);
    assert!(reallocate(&mut cluster) >= 0);
    answers(&mut cluster, leads, ControlOpcode::START_IPREALLOCATE, 1 - leads, 8);
    assert_eq!(reallocate(&mut cluster), -1, "its script has failed");
}

#[test]
fn whoever_spoils_two_runs_is_banned() {
    for opcode in [
        ControlOpcode::GET_PUBLIC_IPS,
        ControlOpcode::START_IPREALLOCATE,
        ControlOpcode::RELEASE_IP,
        ControlOpcode::TAKEOVER_IP,
        ControlOpcode::IPREALLOCATED,
    ] {
        let mut cluster = started(2);
        wait_served(&mut cluster, &[0, 1]);
        let leads = leader(&cluster, 0);
        answers(&mut cluster, leads, opcode, 1 - leads, 9);
        let wish = SrvidMessage { pnn: Some(pnn(leads)), srvid: Srvid::NO_REPLY };
        cluster.message(leads, Srvid::TAKEOVER_RUN, wish.to_bytes());
        cluster.advance_ms(1_500);
        assert!(cluster.state(1 - leads).ban.is_none(), "{opcode}: once is not enough");
        run_until(&mut cluster, 30, "banned", |cluster| cluster.state(1 - leads).ban.is_some());
    }
}

#[test]
fn without_bans_a_failed_run_is_only_repeated() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    tune(&mut cluster, Tunable::EnableBans, 0);
    let leads = leader(&cluster, 0);
    answers(&mut cluster, leads, ControlOpcode::TAKEOVER_IP, 1 - leads, 9);
    assert_eq!(reallocate(&mut cluster), -1);
    cluster.advance_ms(30_000);
    assert!(cluster.state(1 - leads).ban.is_none());
    assert!(cluster.state(leads).recd.need_takeover_run);
}

#[test]
fn with_failover_disabled_a_run_moves_nothing_and_tells_everybody() {
    let mut cluster = started_with(2, |cluster| {
        for node in 0..2 {
            cluster.change(node, |state| state.constants.failover_disabled = true);
        }
    });
    let leads = leader(&cluster, 0);
    cluster.advance_ms(5_000);
    cluster.took(leads);
    let wish = SrvidMessage { pnn: Some(pnn(leads)), srvid: Srvid::NO_REPLY };
    cluster.message(leads, Srvid::TAKEOVER_RUN, wish.to_bytes());
    cluster.advance_ms(1_500);
    assert_eq!(run_of(&cluster.took(leads)), ["off", "reallocated", "on"]);
    assert_eq!(loads(&cluster), [0, 0]);
}

#[test]
fn a_script_that_hangs_costs_its_own_time_only() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let leads = leader(&cluster, 0);
    cluster.script(1 - leads, "releaseip", ScriptResult::TimedOut);
    cluster.nodes[1 - leads].hosted.clear();
    control(&mut cluster, 1 - leads, &ControlRequest::DisableNode);
    cluster.advance_ms(2_000);
    assert!(reallocate(&mut cluster) >= 0);
    assert_eq!(loads(&cluster)[leads], 4);
}

/// One thing that moves addresses, or could.
fn disturb(cluster: &mut Cluster, dice: &mut Dice) {
    let node = dice.node() % 3;
    let ban = |seconds| ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds });
    let name = InterfaceName::new("eth0").unwrap();
    let link = |link_state| {
        ControlRequest::SetIfaceLinkState(Interface { name, link_state, references: 0 })
    };
    let request = match dice.below(9) {
        0 => ControlRequest::DisableNode,
        1 | 2 => ControlRequest::EnableNode,
        3 => ControlRequest::StopNode,
        4 | 5 => ControlRequest::ContinueNode,
        6 => link(LinkState::Down),
        7 => link(LinkState::Up),
        _ => ban(10),
    };
    cluster.send_from(node, Origin::Own, &request);
}

/// However nodes come and go, while all of them see each other no address is ever on two of them,
/// and in the end each is on one.
#[test]
fn no_address_is_ever_on_two_nodes() {
    for seed in 1..=6 {
        let mut cluster = started(3);
        let mut dice = Dice::new(seed);
        wait_served(&mut cluster, &[0, 1, 2]);
        for _ in 0..40 {
            disturb(&mut cluster, &mut dice);
            for _ in 0..20 {
                cluster.advance_ms(100);
                let count: usize = loads(&cluster).iter().sum();
                let distinct: BTreeSet<IpAddr> = hosted(&cluster).into_iter().flatten().collect();
                assert_eq!(count, distinct.len(), "seed {seed}: {:?}", hosted(&cluster));
            }
        }
        for node in 0..3 {
            let name = InterfaceName::new("eth0").unwrap();
            let up = Interface { name, link_state: LinkState::Up, references: 0 };
            for request in [
                ControlRequest::EnableNode,
                ControlRequest::ContinueNode,
                ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds: 0 }),
                ControlRequest::SetIfaceLinkState(up),
            ] {
                cluster.send_from(node, Origin::Own, &request);
            }
        }
        wait_served(&mut cluster, &[0, 1, 2]);
    }
}

/// The destination of messages to whoever leads.
#[test]
fn a_node_that_misses_an_address_asks_every_node() {
    let mut cluster = started(2);
    wait_served(&mut cluster, &[0, 1]);
    let node = 1 - leader(&cluster, 0);
    cluster.advance_ms(5_000);
    cluster.took(node);
    cluster.nodes[node].hosted.clear();
    cluster.advance_ms(1_100);
    let wish = Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::TAKEOVER_RUN,
        data: SrvidMessage { pnn: Pnn::new(u32::try_from(node).unwrap()), srvid: Srvid::NO_REPLY }
            .to_bytes(),
    };
    assert!(cluster.took(node).contains(&Did::Tell(wish)));
}
