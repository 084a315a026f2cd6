//! Taking over and releasing.

use super::*;
use crate::node::Outcome;
use ringmaster_protocol::{process::RecMode, tunable::Tunable};

#[test]
fn an_address_comes_with_its_script_and_its_news() {
    let mut cluster = cluster(1);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0);
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["takeip eth0 10.0.0.1 24"]);
    assert_eq!(told(&did, 0, Srvid::TAKE_IP), ["10.0.0.1\0"]);
    let now = entry(&cluster, "10.0.0.1");
    assert_eq!((now.host, now.current.as_deref()), (Some(pnn(0)), Some("eth0")));
    // The second is put where there is more room.
    assert_eq!(takeover(&mut cluster, 0, "fd00::3"), 0);
    assert_eq!(scripts(&cluster.took(0)), ["takeip eth1 fd00::3 64"]);
    assert_eq!(
        public_ips(&mut cluster, 0, ControlFlags::NONE),
        ["fd00::3 0", "10.0.0.2 -", "10.0.0.1 0"]
    );
}

#[test]
fn a_takeover_is_answered_when_its_script_has_ended() {
    let mut cluster = cluster(1);
    cluster.play(0, |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    let control = ControlRequest::TakeoverIp(ip("10.0.0.1", Some(0)));
    let waiting = cluster.send_from(0, LEADER, &control);
    assert_eq!(cluster.reply(waiting), None);
    assert_eq!(entry(&cluster, "10.0.0.1").host, Some(pnn(0)), "smbd may accept from now on");
    // Nobody else moves it meanwhile.
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), -1);
    cluster.nodes[0].hosted.insert(address("10.0.0.1"));
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), -1);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0, "as good as done");
    cluster.release(0, &Outcome::Script(ScriptResult::Ok));
    assert_eq!(cluster.reply(waiting), Some(done()));
    assert_eq!(release(&mut cluster, 0, "10.0.0.2", Some(4)), 0);
}

#[test]
fn neighbours_hear_of_a_takeover_three_times() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    let announced = |cluster: &mut Cluster| {
        let told =
            Did::Tell(Tell::Announce { address: address("10.0.0.1"), interface: "eth0".into() });
        cluster.took(0).iter().filter(|did| **did == told).count()
    };
    assert_eq!(announced(&mut cluster), 1);
    for (until_ms, times) in [(1_099, 0), (1, 1), (1_099, 0), (1, 1), (10_000, 0)] {
        cluster.advance_ms(until_ms);
        assert_eq!(announced(&mut cluster), times);
    }
}

#[test]
fn an_announcement_ends_with_the_release() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    cluster.took(0);
    cluster.advance_ms(10_000);
    assert_eq!(cluster.took(0), []);
}

#[test]
fn a_takeover_for_another_node_or_without_an_interface_is_refused() {
    let mut cluster = cluster(2);
    let control = ControlRequest::TakeoverIp(ip("10.0.0.1", Some(1)));
    assert_eq!(cluster.control_from(0, LEADER, &control), refused());
    assert_eq!(takeover(&mut cluster, 0, "10.9.9.9"), 0, "not public here: ignored");
    assert_eq!(set_link(&mut cluster, "eth0", LinkState::Down), 0);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.2"), -1);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0, "it has another interface");
    assert_eq!(scripts(&cluster.took(0)), ["takeip eth1 10.0.0.1 24"]);
}

#[test]
fn an_address_that_is_here_already_needs_no_script() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.took(0);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0);
    assert_eq!(scripts(&cluster.took(0)), [""; 0]);
}

#[test]
fn an_address_that_somebody_else_put_here_is_told_to_the_script() {
    let mut cluster = cluster(1);
    cluster.nodes[0].hosted.insert(address("10.0.0.2"));
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.2"), 0);
    assert_eq!(scripts(&cluster.took(0)), ["updateip __none__ eth0 10.0.0.2 24"]);
    assert_eq!(entry(&cluster, "10.0.0.2").host, Some(pnn(0)));
}

#[test]
fn an_address_that_is_here_but_believed_elsewhere_is_a_ban() {
    let mut cluster = cluster(2);
    cluster.nodes[0].hosted.insert(address("10.0.0.2"));
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    cluster.change(0, |state| {
        state.addresses.get_mut(address("10.0.0.2")).unwrap().host = Some(pnn(1));
    });
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.2"), -1);
    assert!(cluster.state(0).ban.is_some());
}

#[test]
fn an_address_goes_to_another_interface_when_its_own_goes_down() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    set_link(&mut cluster, "eth0", LinkState::Down);
    cluster.took(0);
    cluster.script(0, "updateip", ScriptResult::Failed);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 8);
    assert_eq!(entry(&cluster, "10.0.0.1").current.as_deref(), Some("eth0"), "it is still there");
    cluster.script(0, "updateip", ScriptResult::Ok);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0);
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["updateip eth0 eth1 10.0.0.1 24"; 2]);
    assert_eq!(told(&did, 0, Srvid::TAKE_IP), [""; 0], "clients keep their connections");
    assert_eq!(entry(&cluster, "10.0.0.1").current.as_deref(), Some("eth1"));
}

#[test]
fn a_takeover_whose_script_fails_stays_assigned() {
    let mut cluster = cluster(1);
    cluster.script(0, "takeip", ScriptResult::Failed);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 8);
    assert_eq!(told(&cluster.took(0), 0, Srvid::TAKE_IP), [""; 0]);
    assert_eq!(entry(&cluster, "10.0.0.1").host, Some(pnn(0)));
    cluster.script(0, "takeip", ScriptResult::TimedOut);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0, "a hung script does not hold up a run");
}

#[test]
fn during_a_recovery_addresses_go_but_do_not_come() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert_eq!(takeover(&mut cluster, 0, "10.0.0.2"), -1);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), 0);
    assert_eq!(events(&cluster.took(0)), ["takeip", "releaseip"]);
    assert!(!entry(&cluster, "10.0.0.2").update_in_flight);
}

#[test]
fn a_release_tells_clients_before_it_is_answered() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.took(0);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(4)), 0);
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["releaseip eth0 10.0.0.1 24"]);
    let news = |did: &Did| matches!(did, Did::Tell(Tell::Message { srvid: Srvid::RELEASE_IP, .. }));
    let answer = |did: &Did| matches!(did, Did::Tell(Tell::Reply { .. }));
    assert!(did.iter().position(news).unwrap() < did.iter().position(answer).unwrap());
    assert_eq!(told(&did, 0, Srvid::RELEASE_IP), ["10.0.0.1\0"]);
    let now = entry(&cluster, "10.0.0.1");
    assert_eq!((now.host, now.current, now.update_in_flight), (Some(pnn(4)), None, false));
}

#[test]
fn a_release_of_what_is_not_here_only_tells_where_it_is() {
    let mut cluster = cluster(1);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    assert_eq!(release(&mut cluster, 0, "10.9.9.9", Some(1)), 0);
    assert_eq!(entry(&cluster, "10.0.0.1").host, Some(pnn(1)));
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", None), 0);
    assert_eq!(entry(&cluster, "10.0.0.1").host, None);
    assert_eq!(scripts(&cluster.took(0)), [""; 0]);
}

#[test]
fn a_release_counts_when_the_address_has_gone_whatever_the_script_says() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.script(0, "releaseip", ScriptResult::Ok);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), -1, "the script did nothing");
    let now = entry(&cluster, "10.0.0.1");
    assert_eq!(
        (now.host, now.update_in_flight, now.release_in_flight),
        (Some(pnn(0)), false, false)
    );
    assert_eq!(told(&cluster.took(0), 0, Srvid::RELEASE_IP), [""; 0]);
    // Gone when it ends, though it says that it has failed.
    cluster.play(0, move |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    let control = ControlRequest::ReleaseIp(ip("10.0.0.1", Some(1)));
    let waiting = cluster.send_from(0, LEADER, &control);
    cluster.nodes[0].hosted.remove(&address("10.0.0.1"));
    cluster.release(0, &Outcome::Script(ScriptResult::Failed));
    assert_eq!(cluster.reply(waiting), Some(done()));
    assert_eq!(entry(&cluster, "10.0.0.1").host, Some(pnn(1)));
}

#[test]
fn in_test_mode_the_table_is_all_there_is() {
    let mut cluster = cluster(1);
    cluster.change(0, |state| state.constants.real_addresses = false);
    for _ in 0..2 {
        assert_eq!(takeover(&mut cluster, 0, "10.0.0.1"), 0);
    }
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["takeip eth0 10.0.0.1 24"; 2], "each time, as in C");
    assert!(!did.iter().any(|did| matches!(did, Did::Tell(Tell::Announce { .. }))));
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    assert_eq!(release(&mut cluster, 0, "10.0.0.1", Some(1)), 0);
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["releaseip eth0 10.0.0.1 24"]);
    assert!(!did.iter().any(|did| matches!(did, Did::Ask(Ask::Held(_)))));
}

#[test]
fn two_controls_about_one_address_look_and_decide_one_after_the_other() {
    let mut cluster = cluster(1);
    cluster.play(0, |ask| matches!(ask, Ask::Held(_)).then_some(Play::Hold));
    let control = ControlRequest::TakeoverIp(ip("10.0.0.1", Some(0)));
    let first = cluster.send_from(0, LEADER, &control);
    let second = cluster.send_from(0, LEADER, &control);
    assert_eq!(cluster.nodes[0].held.len(), 1, "the second waits for the first one's decision");
    cluster.release(0, &Outcome::Held([].into()));
    assert_eq!(cluster.reply(first), Some(done()));
    assert_eq!(cluster.reply(second), None);
    cluster.release(0, &Outcome::Held([address("10.0.0.1")].into()));
    assert_eq!(cluster.reply(second), Some(done()));
    assert_eq!(scripts(&cluster.took(0)), ["takeip eth0 10.0.0.1 24"]);
}

#[test]
fn a_stopped_node_has_released_everything_when_it_answers() {
    let mut cluster = cluster(1);
    for text in ["10.0.0.1", "fd00::3"] {
        takeover(&mut cluster, 0, text);
    }
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    let did = cluster.took(0);
    assert_eq!(scripts(&did), ["releaseip eth1 fd00::3 64", "releaseip eth0 10.0.0.1 24"]);
    assert_eq!(told(&did, 0, Srvid::RELEASE_IP), ["fd00::3\0", "10.0.0.1\0"]);
    assert!(cluster.nodes[0].hosted.is_empty());
    assert_eq!(
        public_ips(&mut cluster, 0, ControlFlags::NONE),
        ["fd00::3 -", "10.0.0.2 -", "10.0.0.1 -"]
    );
}

#[test]
fn a_stopped_node_of_a_test_drops_its_assignments_without_scripts() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.nodes[0].hosted.clear();
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    assert_eq!(scripts(&cluster.took(0)), [""; 0]);
    assert_eq!(entry(&cluster, "10.0.0.1").host, None);
}

#[test]
fn what_cannot_be_released_stays_with_a_stopped_node() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.script(0, "releaseip", ScriptResult::Failed);
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    assert_eq!(entry(&cluster, "10.0.0.1").host, Some(pnn(0)));
    assert!(!entry(&cluster, "10.0.0.1").update_in_flight);
}

#[test]
fn with_failover_disabled_nothing_is_looked_at_or_released() {
    let mut cluster = cluster(1);
    cluster.change(0, |state| state.constants.failover_disabled = true);
    cluster.nodes[0].hosted.insert(address("10.0.0.1"));
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    let did = cluster.took(0);
    assert!(!did.iter().any(|did| matches!(did, Did::Ask(Ask::Held(_) | Ask::Script(_)))));
}

#[test]
fn a_recovery_without_end_costs_the_addresses() {
    let mut cluster = cluster(1);
    takeover(&mut cluster, 0, "10.0.0.1");
    cluster.change(0, |state| state.tunables.set(Tunable::RecoveryDropAllIPs, 30));
    let begin = ControlRequest::SetRecMode(RecMode::Active);
    let end = ControlRequest::SetRecMode(RecMode::Normal);
    // One that ends in time costs nothing, whatever comes after it.
    assert_eq!(cluster.control(0, &begin), done());
    cluster.advance_ms(29_000);
    assert_eq!(cluster.control(0, &end), done());
    assert_eq!(cluster.control(0, &begin), done());
    cluster.took(0);
    cluster.advance_ms(29_000);
    assert_eq!(scripts(&cluster.took(0)), [""; 0]);
    cluster.advance_ms(1_000);
    assert_eq!(scripts(&cluster.took(0)), ["releaseip eth0 10.0.0.1 24"]);
}

#[test]
fn a_node_that_should_not_host_offers_nothing() {
    use ringmaster_protocol::{node::NodeFlags, process::RunState};
    let mut cluster = cluster(1);
    assert_eq!(offered(&mut cluster).len(), 3);
    for flag in [NodeFlags::UNHEALTHY, NodeFlags::PERMANENTLY_DISABLED, NodeFlags::BANNED] {
        cluster.change(0, |state| state.change_own_flags(|_| flag));
        assert_eq!(offered(&mut cluster), [""; 0]);
    }
    cluster.change(0, |state| state.change_own_flags(|_| NodeFlags::NONE));
    set_link(&mut cluster, "eth0", LinkState::Down);
    assert_eq!(offered(&mut cluster), ["fd00::3 -", "10.0.0.1 -"]);
    cluster.change(0, |state| state.run_state = RunState::Shutdown);
    assert_eq!(offered(&mut cluster), [""; 0]);
    assert_eq!(public_ips(&mut cluster, 0, ControlFlags::NONE).len(), 3);
}
