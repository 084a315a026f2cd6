//! Who leads.

use ringmaster_protocol::{
    Destination, Encode, Srvid,
    capabilities::Capabilities,
    control::ControlOpcode,
    node::NodeFlags,
    process::{ElectionMessage, RecMode, Timeval},
};

use super::{
    super::{leader::force_election, lock_lost, stop},
    cluster::{Cluster, Setup, pnn},
};

const PLAIN: Setup = Setup { lock: false, fast_start: false, ours: false };
const LOCK: Setup = Setup { lock: true, fast_start: false, ours: false };

fn settled(setup: Setup) -> Cluster {
    let mut cluster = Cluster::new(3, setup);
    cluster.settle(20, &[0, 1, 2]);
    cluster
}

#[test]
fn a_lone_node_in_test_mode_is_in_service_at_once() {
    for lock in [false, true] {
        let mut cluster = Cluster::new(1, Setup { lock, fast_start: true, ours: false });
        cluster.settle(1, &[0]);
        assert!(cluster.now.0 < 500, "{:?}", cluster.now);
        assert_eq!(cluster.leader(0), Some(0));
        assert_eq!(cluster.lock, lock.then_some(0));
        assert_eq!(cluster.state(0, |state| state.counters.num_recoveries), 1);
    }
}

#[test]
fn a_lone_node_waits_for_the_leader_timeout_and_the_election() {
    let mut cluster = Cluster::new(1, PLAIN);
    cluster.run_for(4_900);
    assert_eq!(cluster.leader(0), None);
    cluster.settle(10, &[0]);
    cluster.run_for(60_000);
    assert_eq!(cluster.state(0, |state| state.counters.num_recoveries), 1, "and recovers once");
}

#[test]
fn of_three_nodes_the_oldest_leads_without_a_lock() {
    // Node 2's clock says that it started first.
    assert_eq!(settled(PLAIN).leader(0), Some(2));
}

#[test]
fn of_three_nodes_the_holder_of_the_lock_leads() {
    let cluster = settled(LOCK);
    assert_eq!(cluster.leader(0), cluster.lock);
}

#[test]
fn a_settled_cluster_stays_as_it_is() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let leader = cluster.leader(0).unwrap();
        let recoveries = cluster.state(0, |state| state.counters.num_recoveries);
        cluster.run_for(120_000);
        assert!(cluster.settled(&[0, 1, 2]));
        assert_eq!(cluster.leader(0), Some(leader));
        assert_eq!(cluster.state(0, |state| state.counters.num_recoveries), recoveries);
    }
}

#[test]
fn the_survivors_of_a_dead_leader_elect_another_and_recover() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let dead = cluster.leader(0).unwrap();
        let others: Vec<usize> = (0..3).filter(|node| *node != dead).collect();
        let before = cluster.state(others[0], |state| state.vnn_map.generation);
        cluster.kill(dead);
        cluster.run_until(40, "another leader", |cluster| {
            cluster.settled(&others) && cluster.leader(others[0]) != Some(dead)
        });
        let map = cluster.state(others[0], |state| state.vnn_map.clone());
        assert_ne!(map.generation, before);
        assert_eq!(map.map, others.iter().map(|node| pnn(*node)).collect::<Vec<_>>());
    }
}

#[test]
fn a_stopped_leader_steps_down_and_comes_back_as_a_member() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let stopped = cluster.leader(0).unwrap();
        let others: Vec<usize> = (0..3).filter(|node| *node != stopped).collect();
        cluster.leave(stopped, NodeFlags::STOPPED);
        assert_ne!(cluster.lock, Some(stopped), "the lock is given back at once");
        cluster.run_until(40, "another leader", |cluster| {
            cluster.settled(&others) && cluster.leader(others[0]) != Some(stopped)
        });
        let mode = cluster.state(stopped, |state| state.recovery_mode);
        assert_eq!(mode, RecMode::Active);
        assert!(cluster.sent(stopped, ControlOpcode::FREEZE) > 0);
        let leader = cluster.leader(others[0]);
        cluster.set_flags(stopped, stopped, |flags| flags.without(NodeFlags::STOPPED));
        cluster.settle(40, &[0, 1, 2]);
        assert_eq!(cluster.leader(stopped), leader, "who came back later does not lead");
    }
}

#[test]
fn a_leader_that_may_not_lead_any_more_makes_room() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let unwilling = cluster.leader(0).unwrap();
        cluster.enter(unwilling, |cx| {
            let mut state = cx.state_mut();
            state.capabilities = state.capabilities.without(Capabilities::LEADER);
        });
        cluster.run_until(40, "another leader", |cluster| {
            cluster.settled(&[0, 1, 2]) && cluster.leader(0) != Some(unwilling)
        });
    }
}

#[test]
fn a_lost_lock_leads_to_an_election() {
    let mut cluster = settled(LOCK);
    let loser = cluster.leader(0).unwrap();
    let other = (loser + 1) % 3;
    // The lock is in other hands by the time its loser hears of it.
    cluster.lock = Some(other);
    cluster.enter(loser, lock_lost);
    cluster.run_until(20, "another leader", |cluster| {
        cluster.settled(&[0, 1, 2]) && cluster.leader(loser) == Some(other)
    });
}

#[test]
fn a_lost_lock_bans_nobody() {
    // Whatever the leader was doing at that moment: its main loop must not find itself leading
    // without the lock.
    for offset in (0..1_000).step_by(53) {
        let mut cluster = settled(LOCK);
        let loser = cluster.leader(0).unwrap();
        cluster.run_for(15_000 + offset);
        cluster.lock = None;
        cluster.enter(loser, lock_lost);
        assert_ne!(cluster.leader(loser), Some(loser));
        cluster.run_until(30, "service", |cluster| cluster.settled(&[0, 1, 2]));
        cluster.run_for(5_000);
        for node in 0..3 {
            assert_eq!(cluster.state(node, |state| state.own_flags()), NodeFlags::NONE);
        }
    }
}

#[test]
fn a_late_broadcast_of_the_last_leader_costs_one_timeout() {
    // The leader took the word of its dead predecessor for a new one's, broadcast nothing any more
    // and, holding the lock already, never said again that it leads.
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let leader = cluster.leader(0).unwrap();
        let late = (leader + 1) % 3;
        let word = pnn(late).to_bytes();
        cluster.message(late, Destination::Node(pnn(leader)), Srvid::LEADER, &word);
        cluster.run_until(1, "the late word", |cluster| cluster.leader(leader) == Some(late));
        // Nobody hears a leader any more until the timeout.
        cluster.run_for(4_000);
        assert_eq!(cluster.leader(leader), Some(late));
        cluster.run_until(20, "its leadership", |cluster| {
            cluster.settled(&[0, 1, 2]) && cluster.leader(leader) == Some(leader)
        });
    }
}

#[test]
fn nobody_leads_by_the_echo_of_its_own_word() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let leader = cluster.leader(0).unwrap();
        let other = (leader + 1) % 3;
        let word = pnn(other).to_bytes();
        cluster.message(other, Destination::Node(pnn(other)), Srvid::LEADER, &word);
        cluster.run_for(10);
        assert_eq!(cluster.leader(other), Some(leader));
        cluster.run_for(20_000);
        assert!(cluster.settled(&[0, 1, 2]));
        assert_eq!(cluster.state(other, |state| state.own_flags()), NodeFlags::NONE);
    }
}

#[test]
fn one_election_at_a_time() {
    // All nodes miss the leader at the same moment: nobody starts a second election inside the
    // first, so nobody goes through more than two calls of SET_RECMODE per timeout.
    let mut cluster = settled(PLAIN);
    let dead = cluster.leader(0).unwrap();
    cluster.kill(dead);
    let before: usize = (0..3).map(|node| cluster.sent(node, ControlOpcode::SET_RECMODE)).sum();
    let others: Vec<usize> = (0..3).filter(|node| *node != dead).collect();
    cluster.run_until(40, "an election", |cluster| {
        others.iter().any(|node| cluster.state(*node, |state| state.recd.election_in_progress))
    });
    cluster.run_until(40, "its end", |cluster| {
        others.iter().all(|node| !cluster.state(*node, |state| state.recd.election_in_progress))
    });
    let after: usize = (0..3).map(|node| cluster.sent(node, ControlOpcode::SET_RECMODE)).sum();
    assert!(after - before <= 4, "{}", after - before);
}

#[test]
fn a_node_calls_one_election_however_many_reasons_it_has() {
    for setup in [PLAIN, LOCK] {
        let mut cluster = settled(setup);
        let before = cluster.sent(0, ControlOpcode::SET_RECMODE);
        for _ in 0..3 {
            cluster.enter(0, |cx| {
                let own = cx.clone();
                cx.spawn(async move { force_election(&own).await });
            });
        }
        cluster.run_for(100);
        assert_eq!(cluster.sent(0, ControlOpcode::SET_RECMODE) - before, 3, "one per node");
        cluster.run_until(20, "service", |cluster| cluster.settled(&[0, 1, 2]));
    }
}

#[test]
fn who_gets_ready_for_an_election_gives_way_to_one_that_has_been_called() {
    let mut cluster = settled(PLAIN);
    cluster.hang(1);
    cluster.enter(0, |cx| {
        let own = cx.clone();
        cx.spawn(async move { force_election(&own).await });
    });
    cluster.run_for(100);
    assert!(cluster.state(0, |state| state.recd.calling_election));
    let nobody = u32::MAX.to_le_bytes();
    cluster.message(2, Destination::Node(pnn(0)), Srvid::LEADER, &nobody);
    cluster.run_for(100);
    cluster.go_on(1);
    cluster.run_for(100);
    let sent = cluster.state(0, |state| {
        (state.recd.calling_election, state.recd.election_in_progress, state.leader)
    });
    assert_eq!(sent, (false, true, Some(pnn(2))), "no candidature of its own");
    cluster.settle(30, &[0, 1, 2]);
}

#[test]
fn who_loses_an_election_by_messages_gives_the_lock_back() {
    // The other node has no cluster lock in its configuration and elects by messages.
    let mut cluster = settled(LOCK);
    let holder = cluster.leader(0).unwrap();
    let rival = ElectionMessage {
        num_connected: 3,
        priority_time: Timeval::default(),
        pnn: pnn((holder + 1) % 3),
        node_flags: NodeFlags::NONE,
    };
    let word = rival.to_bytes();
    cluster.message((holder + 1) % 3, Destination::Node(pnn(holder)), Srvid::ELECTION, &word);
    cluster.run_for(10);
    assert_eq!(cluster.lock, None);
    assert!(!cluster.state(holder, |state| state.lock_held));
    cluster.run_until(40, "service", |cluster| {
        cluster.settled(&[0, 1, 2]) && cluster.lock == cluster.leader(0)
    });
}

#[test]
fn a_leader_that_stood_still_finds_its_place() {
    for setup in [PLAIN, LOCK] {
        for seconds in [3, 8, 20, 40] {
            let mut cluster = settled(setup);
            let hung = cluster.leader(0).unwrap();
            cluster.hang(hung);
            cluster.run_for(seconds * 1_000);
            cluster.go_on(hung);
            cluster.run_for(1_000);
            cluster.run_until(60, "service", |cluster| cluster.settled(&[0, 1, 2]));
            cluster.run_for(30_000);
            assert!(cluster.settled(&[0, 1, 2]), "{seconds} s");
        }
    }
}

#[test]
fn an_election_whose_caller_dies_ends_by_itself() {
    // Without a lock, the word that there is an election was followed by nothing.
    let mut cluster = settled(PLAIN);
    let caller = (cluster.leader(0).unwrap() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|node| *node != caller).collect();
    let nobody = u32::MAX.to_le_bytes();
    cluster.message(caller, Destination::BroadcastConnected, Srvid::LEADER, &nobody);
    cluster.run_for(1);
    cluster.kill(caller);
    assert!(cluster.state(others[0], |state| state.recd.election_in_progress));
    cluster.run_until(40, "service without the caller", |cluster| {
        cluster.settled(&others) && cluster.state(others[0], |state| state.vnn_map.map.len()) == 2
    });
}

#[test]
fn a_split_without_a_lock_gives_two_leaders_and_heals_to_one() {
    let mut cluster = settled(PLAIN);
    cluster.split(&[0]);
    cluster.run_until(60, "both halves in service", |cluster| {
        cluster.settled(&[0]) && cluster.settled(&[1, 2])
    });
    cluster.heal();
    cluster.settle(60, &[0, 1, 2]);
    let generation = cluster.state(0, |state| state.vnn_map.generation);
    assert_eq!(cluster.state(2, |state| state.vnn_map.generation), generation);
    assert_eq!(cluster.state(0, |state| state.vnn_map.map.len()), 3);
}

#[test]
fn the_half_without_the_lock_has_no_leader_and_no_service() {
    let mut cluster = settled(LOCK);
    let leader = cluster.leader(0).unwrap();
    let other = (leader + 1) % 3;
    cluster.split(&[other]);
    cluster.run_for(60_000);
    let rest: Vec<usize> = (0..3).filter(|node| *node != other).collect();
    assert!(cluster.settled(&rest));
    assert_eq!(cluster.leader(rest[0]), Some(leader));
    assert_ne!(cluster.leader(other), Some(other));
    assert_eq!(cluster.state(other, |state| state.recovery_mode), RecMode::Active);
    cluster.heal();
    cluster.settle(30, &[0, 1, 2]);
    assert_eq!(cluster.leader(other), Some(leader));
}

#[test]
fn nothing_goes_on_after_the_stop() {
    let mut cluster = settled(LOCK);
    let leader = cluster.leader(0).unwrap();
    cluster.enter(leader, stop);
    assert_eq!(cluster.lock, None);
    assert!(cluster.nodes[leader].plane.is_empty());
}

const OURS: [Setup; 2] = [Setup { ours: true, ..PLAIN }, Setup { ours: true, ..LOCK }];

/// When the others have another leader and have recovered after `event`, in milliseconds.
fn without_the_leader(mut cluster: Cluster, event: fn(&mut Cluster, usize)) -> u64 {
    cluster.run_for(20_000);
    let leader = cluster.leader(0).unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let before = cluster.now.0;
    event(&mut cluster, leader);
    cluster.run_until(40, "another leader", |cluster| {
        cluster.settled(&others) && cluster.leader(others[0]) != Some(leader)
    });
    cluster.now.0 - before
}

#[test]
fn nodes_of_ours_elect_as_soon_as_they_have_lost_their_leader() {
    for setup in OURS {
        let took = without_the_leader(settled(setup), Cluster::kill);
        assert!(took < 3_000, "{took} ms, lock {}", setup.lock);
    }
}

#[test]
fn the_lock_of_a_dead_leader_is_taken_when_its_helper_lets_go() {
    let mut cluster = settled(OURS[1]);
    cluster.run_for(20_000);
    let leader = cluster.leader(0).unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    cluster.kill(leader);
    cluster.lock = Some(leader);
    cluster.run_for(3_000);
    assert!(others.iter().all(|node| cluster.leader(*node).is_none()));
    cluster.lock = None;
    let before = cluster.now.0;
    cluster.run_until(40, "another leader", |cluster| cluster.settled(&others));
    let took = cluster.now.0 - before;
    assert!(took < 2_000, "{took} ms");
}

#[test]
fn a_lock_that_nobody_lets_go_of_is_not_tried_for_ever() {
    let mut cluster = settled(OURS[1]);
    let leader = cluster.leader(0).unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    cluster.kill(leader);
    cluster.lock = Some(leader);
    cluster.run_until(20, "the end of the election", |cluster| {
        others.iter().all(|node| !cluster.state(*node, |state| state.recd.election_in_progress))
    });
    cluster.run_for(60_000);
    cluster.lock = None;
    cluster.settle(20, &others);
}

#[test]
fn one_node_of_c_among_ours_gets_the_patience_that_it_has_itself() {
    for setup in OURS {
        let mut cluster = settled(setup);
        let leader = cluster.leader(0).unwrap();
        let stranger = (leader + 1) % 3;
        for node in 0..3 {
            cluster.enter(node, |cx| {
                let known = &mut cx.state_mut().announced;
                known.retain(|pnn| node != stranger && pnn.get() as usize != stranger);
            });
        }
        cluster.run_for(20_000);
        cluster.kill(leader);
        cluster.run_for(3_900);
        let other = (leader + 2) % 3;
        assert_eq!(cluster.leader(other), Some(leader), "still waiting for a broadcast");
        cluster.run_until(40, "another leader", |cluster| cluster.settled(&[stranger, other]));
    }
}

#[test]
fn a_leader_of_ours_that_steps_down_says_so() {
    for setup in OURS {
        let stop = |cluster: &mut Cluster, leader| cluster.leave(leader, NodeFlags::STOPPED);
        let took = without_the_leader(settled(setup), stop);
        assert!(took < 4_000, "stopped: {took} ms, lock {}", setup.lock);
        let unwilling = |cluster: &mut Cluster, leader| {
            cluster.enter(leader, |cx| {
                let mut state = cx.state_mut();
                state.capabilities = state.capabilities.without(Capabilities::LEADER);
            });
        };
        let took = without_the_leader(settled(setup), unwilling);
        assert!(took < 4_000, "unwilling: {took} ms, lock {}", setup.lock);
    }
}

#[test]
fn a_leader_and_another_node_that_die_together_are_replaced_at_once_too() {
    for setup in OURS {
        let mut cluster = Cluster::new(4, setup);
        cluster.settle(20, &[0, 1, 2, 3]);
        cluster.run_for(20_000);
        let leader = cluster.leader(0).unwrap();
        let (second, rest) = ((leader + 1) % 4, [(leader + 2) % 4, (leader + 3) % 4]);
        let before = cluster.now.0;
        cluster.kill(leader);
        cluster.run_for(1);
        cluster.kill(second);
        cluster.run_until(40, "another leader", |cluster| cluster.settled(&rest));
        let took = cluster.now.0 - before;
        assert!(took < 3_500, "{took} ms, lock {}", setup.lock);
    }
}
