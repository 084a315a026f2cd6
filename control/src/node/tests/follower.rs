//! From the start of a node to its service, and what becomes of it when its leader goes.

use std::collections::BTreeSet;

use ringmaster_protocol::{
    Destination, Srvid,
    address::SockAddr,
    capabilities::Capabilities,
    connection::{PublicIp, PublicIpList, TickleList},
    control::{ControlOpcode, ControlRequest},
    node::{BanState, NodeFlagChange, NodeFlags},
    process::{DisableMessage, ElectionMessage, RecMode, RunState, SrvidMessage, Timeval},
    wire::{Decode, Encode},
};

use crate::node::{
    Ask, Tell, controls, lifecycle,
    testing::{
        Cluster, Did, GENERATION, Play,
        leader::{Leader, election_called},
        pnn,
    },
    world::{Origin, ScriptResult, ScriptRun},
};

const OURS: usize = 1;
const LEADER: Leader = Leader(0);
const OTHER: Leader = Leader(2);
const MEMBERS: [usize; 3] = [0, 1, 2];

/// Nodes 0 and 2 run and answer questions, by themselves they do nothing; node 1 has not started.
fn cluster(lock: bool) -> Cluster {
    let mut cluster = Cluster::of(3);
    for node in MEMBERS {
        cluster.change(node, |state| {
            state.constants.cluster_lock = lock.then(|| "/lock".into());
            state.constants.fast_start = false;
            if node == OURS {
                state.capabilities = state.capabilities.without(Capabilities::LEADER);
                state.change_own_flags(|_| NodeFlags::UNHEALTHY);
            } else {
                state.run_state = RunState::Running;
                state.recovery_mode = RecMode::Normal;
                state.vnn_map.generation = GENERATION;
                state.leader = Some(pnn(0));
            }
        });
    }
    // Held by the leader.
    cluster.lock_holder = lock.then_some(0);
    cluster
}

/// Node 1 is in service.
fn running(lock: bool) -> Cluster {
    let mut cluster = cluster(lock);
    cluster.event(OURS, lifecycle::start);
    LEADER.lead(&mut cluster, OURS, 1);
    LEADER.recover(&mut cluster, OURS, 200, &MEMBERS);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).run_state, RunState::Running);
    assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::NONE);
    cluster.took(OURS);
    cluster
}

fn events(did: &[Did]) -> Vec<&'static str> {
    let event = |did: &Did| match did {
        Did::Ask(Ask::Script(ScriptRun { event, .. })) => Some(*event),
        _ => None,
    };
    did.iter().filter_map(event).collect()
}

/// Payloads of messages to one srvid, with their destinations.
fn messages(did: &[Did], wanted: Srvid) -> Vec<(Destination, Vec<u8>)> {
    let message = |did: &Did| match did {
        Did::Tell(Tell::Message { to, srvid, data }) if *srvid == wanted => {
            Some((*to, data.clone()))
        }
        _ => None,
    };
    did.iter().filter_map(message).collect()
}

/// What it has sent to other nodes, by kind.
fn sent(did: &[Did]) -> BTreeSet<ControlOpcode> {
    let control = |did: &Did| match did {
        Did::Ask(Ask::Control(control)) | Did::Tell(Tell::Control(control)) => {
            (control.to != pnn(OURS)).then_some(control.opcode)
        }
        _ => None,
    };
    did.iter().filter_map(control).collect()
}

/// Whom it has sent a control to.
fn sent_to(did: &[Did], opcode: ControlOpcode) -> Vec<u32> {
    let to = |did: &Did| match did {
        Did::Ask(Ask::Control(control)) | Did::Tell(Tell::Control(control)) => {
            (control.opcode == opcode).then(|| control.to.get())
        }
        _ => None,
    };
    did.iter().filter_map(to).collect()
}

fn leader(cluster: &Cluster) -> Option<u32> {
    cluster.state(OURS).leader.map(ringmaster_protocol::Pnn::get)
}

#[test]
fn a_follower_goes_from_its_start_into_service() {
    for lock in [false, true] {
        let mut cluster = cluster(lock);
        cluster.event(OURS, lifecycle::start);
        assert_eq!(events(&cluster.took(OURS)), ["init", "setup"]);
        assert_eq!(cluster.state(OURS).run_state, RunState::FirstRecovery);
        LEADER.lead(&mut cluster, OURS, 2);
        assert_eq!(leader(&cluster), Some(0));
        assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Active);
        LEADER.recover(&mut cluster, OURS, 200, &MEMBERS);
        assert_eq!(cluster.state(OURS).run_state, RunState::Startup);
        let asked = sent_to(&cluster.took(OURS), ControlOpcode::GET_RECLOCK_FILE);
        assert_eq!(asked, [0], "the leader, for its lock");
        assert_eq!(
            LEADER.control(&mut cluster, OURS, &ControlRequest::Ipreallocated).status,
            0,
            "the takeover run that follows the recovery"
        );
        assert_eq!(events(&cluster.took(OURS)), ["ipreallocated"]);
        // RerecoveryTimeout and three seconds.
        LEADER.lead(&mut cluster, OURS, 12);
        assert_eq!(cluster.state(OURS).run_state, RunState::Startup);
        LEADER.lead(&mut cluster, OURS, 2);
        assert_eq!(cluster.state(OURS).run_state, RunState::Running);
        let did = cluster.took(OURS);
        assert_eq!(events(&did), ["startup"]);
        assert_eq!(sent_to(&did, ControlOpcode::STARTUP), [0, 2]);
        LEADER.lead(&mut cluster, OURS, 2);
        let did = cluster.took(OURS);
        assert_eq!(events(&did), ["monitor"]);
        assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::NONE);
        assert_eq!(sent_to(&did, ControlOpcode::GET_NODEMAP), [0], "whom does the leader see?");
        assert_eq!(sent_to(&did, ControlOpcode::MODIFY_FLAGS), [0, 1, 2]);
        let wish = SrvidMessage { pnn: Some(pnn(OURS)), srvid: Srvid::NO_REPLY };
        assert_eq!(
            messages(&did, Srvid::TAKEOVER_RUN),
            [(Destination::BroadcastConnected, wish.to_bytes())]
        );
        assert_eq!(cluster.lock_holder, lock.then_some(0), "it never wants the lock for itself");
    }
}

#[test]
fn a_follower_asks_others_for_nothing_but_their_capabilities() {
    let mut cluster = running(true);
    LEADER.lead(&mut cluster, OURS, 120);
    let did = cluster.took(OURS);
    assert_eq!(sent(&did), BTreeSet::from([ControlOpcode::GET_CAPABILITIES]));
    let spoken = did.iter().any(|did| matches!(did, Did::Tell(Tell::Message { .. })));
    assert!(!spoken, "and says nothing");
    assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Normal);
}

#[test]
fn a_node_that_starts_stopped_waits_for_its_continuation() {
    let mut cluster = cluster(false);
    cluster.change(OURS, |state| state.change_own_flags(|flags| flags | NodeFlags::STOPPED));
    cluster.event(OURS, lifecycle::start);
    LEADER.lead(&mut cluster, OURS, 60);
    assert_eq!(cluster.state(OURS).run_state, RunState::FirstRecovery);
    assert_eq!(events(&cluster.took(OURS)), ["init", "setup"]);
    assert_eq!(cluster.control(OURS, &ControlRequest::ContinueNode).status, 0);
    LEADER.recover(&mut cluster, OURS, 200, &MEMBERS);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).run_state, RunState::Running);
    assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::NONE);
}

#[test]
fn a_node_that_starts_disabled_is_in_service_without_being_healthy() {
    let mut cluster = cluster(false);
    let disabled = NodeFlags::PERMANENTLY_DISABLED;
    cluster.change(OURS, |state| state.change_own_flags(|flags| flags | disabled));
    cluster.event(OURS, lifecycle::start);
    LEADER.lead(&mut cluster, OURS, 1);
    LEADER.recover(&mut cluster, OURS, 200, &MEMBERS);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).run_state, RunState::Running);
    assert_eq!(cluster.state(OURS).own_flags(), disabled);
}

#[test]
fn another_node_that_becomes_healthy_while_this_one_starts_brings_another_recovery() {
    let mut cluster = cluster(false);
    cluster.event(OURS, lifecycle::start);
    LEADER.lead(&mut cluster, OURS, 1);
    LEADER.recover(&mut cluster, OURS, 200, &MEMBERS);
    cluster.change(OURS, |state| state.nodes[2].flags = NodeFlags::UNHEALTHY);
    let healthy =
        NodeFlagChange { pnn: pnn(2), new_flags: NodeFlags::NONE, old_flags: NodeFlags::UNHEALTHY };
    LEADER.control(&mut cluster, OURS, &ControlRequest::ModifyFlags(healthy));
    assert_eq!(LEADER.control(&mut cluster, OURS, &ControlRequest::GetRecMode).status, 1);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).run_state, RunState::Startup, "not before it");
    LEADER.recover(&mut cluster, OURS, 300, &MEMBERS);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).run_state, RunState::Running);
}

#[test]
fn the_takeover_runs_of_old_and_new_leaders_find_a_node_without_addresses() {
    let mut cluster = running(false);
    let addr = SockAddr::ZERO;
    let ip = |node: usize| PublicIp { pnn: Some(pnn(node)), addr };
    // The other nodes are not to begin runs of their own; nobody wants an answer.
    let disable = DisableMessage { pnn: None, srvid: Srvid::NO_REPLY, timeout: 60 };
    cluster.message(OURS, Srvid::DISABLE_TAKEOVER_RUNS, disable.to_bytes());
    let known = LEADER.control(&mut cluster, OURS, &ControlRequest::GetPublicIps);
    assert_eq!(PublicIpList::from_bytes(&known.data).unwrap(), PublicIpList::default());
    for (control, status) in [
        (ControlRequest::StartIpreallocate, 0),
        (ControlRequest::ReleaseIp(ip(2)), 0),
        (ControlRequest::TakeoverIp(ip(OURS)), 0),
        (ControlRequest::Ipreallocated, 0),
        // Somebody else's address, and connections to it.
        (ControlRequest::TakeoverIp(ip(2)), -1),
        (ControlRequest::SetTcpTickleList(TickleList { addr, connections: Vec::new() }), 1),
        (ControlRequest::GetTcpTickleList(addr), 1),
    ] {
        let answer = LEADER.control(&mut cluster, OURS, &control);
        assert_eq!(answer.status, status, "{control:?}");
    }
    let did = cluster.took(OURS);
    assert_eq!(events(&did), ["startipreallocate", "ipreallocated"]);
    assert_eq!(messages(&did, Srvid::IPREALLOCATED).len(), 1);
    let elsewhere = |did: &&Did| matches!(did, Did::Tell(Tell::Message { to, .. }) if *to != Destination::Node(pnn(OURS)));
    assert_eq!(did.iter().find(elsewhere), None, "no word to anybody else");
    for (event, control) in [
        ("ipreallocated", ControlRequest::Ipreallocated),
        ("startipreallocate", ControlRequest::StartIpreallocate),
    ] {
        for (result, status) in [(ScriptResult::Failed, 8), (ScriptResult::TimedOut, 110)] {
            cluster.script(OURS, event, result);
            assert_eq!(LEADER.control(&mut cluster, OURS, &control).status, status, "{event}");
        }
    }
}

#[test]
fn a_stopped_follower_keeps_itself_out_of_everything_until_it_is_continued() {
    let mut cluster = running(false);
    LEADER.control(&mut cluster, OURS, &ControlRequest::StopNode);
    LEADER.lead(&mut cluster, OURS, 30);
    // Somebody who has not noticed wants to bring it back into service.
    let normal = ControlRequest::SetRecMode(RecMode::Normal);
    assert_eq!(LEADER.control(&mut cluster, OURS, &normal).status, -1);
    let did = cluster.took(OURS);
    assert!(!events(&did).contains(&"monitor"), "not looked at");
    assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Active);
    LEADER.control(&mut cluster, OURS, &ControlRequest::ContinueNode);
    LEADER.lead(&mut cluster, OURS, 2);
    assert_eq!(LEADER.control(&mut cluster, OURS, &ControlRequest::GetRecMode).status, 1);
    LEADER.recover(&mut cluster, OURS, 300, &MEMBERS);
    LEADER.lead(&mut cluster, OURS, 20);
    assert!(events(&cluster.took(OURS)).contains(&"monitor"));
    assert_eq!(cluster.state(OURS).run_state, RunState::Running);
}

#[test]
fn a_follower_that_its_leader_bans_comes_back_when_its_time_is_over() {
    let mut cluster = running(true);
    let ban = BanState { pnn: pnn(OURS), seconds: 10 };
    LEADER.control(&mut cluster, OURS, &ControlRequest::SetBanState(ban));
    LEADER.lead(&mut cluster, OURS, 9);
    assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::BANNED);
    let state = LEADER.control(&mut cluster, OURS, &ControlRequest::GetBanState);
    assert_eq!(BanState::from_bytes(&state.data), Ok(ban));
    LEADER.lead(&mut cluster, OURS, 2);
    assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::NONE);
    assert_eq!(LEADER.control(&mut cluster, OURS, &ControlRequest::GetRecMode).status, 1);
    LEADER.recover(&mut cluster, OURS, 300, &MEMBERS);
    assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Normal);
}

#[test]
fn a_follower_that_becomes_unhealthy_tells_whom_the_leader_sees_and_wants_a_takeover_run() {
    let mut cluster = running(false);
    cluster.change(0, |state| state.nodes[2].flags = NodeFlags::DISCONNECTED);
    cluster.script(OURS, "monitor", ScriptResult::Failed);
    LEADER.lead(&mut cluster, OURS, 20);
    assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::UNHEALTHY);
    let did = cluster.took(OURS);
    assert_eq!(sent_to(&did, ControlOpcode::MODIFY_FLAGS), [0, 1]);
    assert_eq!(messages(&did, Srvid::TAKEOVER_RUN).len(), 1);
    assert_eq!(cluster.state(0).nodes[OURS].flags, NodeFlags::UNHEALTHY, "heard");
}

fn candidature(node: usize, seconds: i64) -> Vec<u8> {
    ElectionMessage {
        num_connected: 2,
        priority_time: Timeval { seconds, micros: 0 },
        pnn: pnn(node),
        node_flags: NodeFlags::NONE,
    }
    .to_bytes()
}

fn lose(cluster: &mut Cluster, node: usize) {
    cluster.event(OURS, |cx| controls::node_gone(cx, pnn(node)));
}

#[test]
fn without_a_lock_a_follower_calls_the_election_that_another_node_wins() {
    let mut cluster = running(false);
    LEADER.beat(&mut cluster, OURS);
    lose(&mut cluster, 0);
    // A second more than those who can lead.
    cluster.advance_ms(5_900);
    assert_eq!(messages(&cluster.took(OURS), Srvid::LEADER), []);
    cluster.advance_ms(200);
    let did = cluster.took(OURS);
    assert_eq!(sent_to(&did, ControlOpcode::SET_RECMODE), [1, 2], "recovery mode first");
    let nobody = Destination::Unknown.to_raw().to_le_bytes().to_vec();
    let called = (Destination::BroadcastConnected, nobody);
    assert_eq!(messages(&did, Srvid::LEADER), [called]);
    let [(to, data)] = &messages(&did, Srvid::ELECTION)[..] else { panic!("{did:?}") };
    let message = ElectionMessage::from_bytes(data).unwrap();
    assert_eq!((*to, message.num_connected), (Destination::BroadcastAll, 0), "cannot lead");
    cluster.advance_ms(500);
    cluster.message(OURS, Srvid::ELECTION, candidature(2, 5_000));
    assert_eq!(leader(&cluster), Some(2));
    cluster.advance_ms(3_000);
    assert!(!cluster.state(OURS).recd.election_in_progress());
    OTHER.lead(&mut cluster, OURS, 3);
    OTHER.recover(&mut cluster, OURS, 300, &[1, 2]);
    OTHER.lead(&mut cluster, OURS, 60);
    assert_eq!(leader(&cluster), Some(2));
    assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Normal);
    assert_eq!(messages(&cluster.took(OURS), Srvid::ELECTION), [], "one candidature was all");
}

#[test]
fn with_a_lock_a_follower_calls_the_election_and_waits_for_who_has_got_it() {
    let mut cluster = running(true);
    LEADER.beat(&mut cluster, OURS);
    lose(&mut cluster, 0);
    cluster.lock_holder = None;
    cluster.advance_ms(6_100);
    let did = cluster.took(OURS);
    assert_eq!(messages(&did, Srvid::LEADER).len(), 1);
    assert_eq!(messages(&did, Srvid::ELECTION), []);
    assert_eq!(cluster.lock_holder, None, "left to those who can lead");
    assert!(!cluster.state(OURS).recd.election_in_progress());
    cluster.lock_holder = Some(2);
    OTHER.lead(&mut cluster, OURS, 2);
    assert_eq!(leader(&cluster), Some(2));
    OTHER.recover(&mut cluster, OURS, 300, &[1, 2]);
}

#[test]
fn elections_of_others_pass_a_follower_by() {
    for lock in [false, true] {
        let mut cluster = running(lock);
        LEADER.beat(&mut cluster, OURS);
        election_called(&mut cluster, OURS);
        LEADER.control(&mut cluster, OURS, &ControlRequest::SetRecMode(RecMode::Active));
        if !lock {
            cluster.message(OURS, Srvid::ELECTION, candidature(2, 10));
        }
        cluster.advance_ms(3_500);
        let did = cluster.took(OURS);
        assert_eq!(messages(&did, Srvid::ELECTION), [], "no candidate");
        assert_eq!(messages(&did, Srvid::LEADER), []);
        cluster.lock_holder = lock.then_some(2);
        OTHER.lead(&mut cluster, OURS, 2);
        assert_eq!(leader(&cluster), Some(2), "lock {lock}");
        OTHER.recover(&mut cluster, OURS, 300, &MEMBERS);
    }
}

#[test]
fn followers_alone_have_no_leader_and_no_service_until_one_comes_back() {
    for lock in [false, true] {
        let mut cluster = running(lock);
        lose(&mut cluster, 0);
        lose(&mut cluster, 2);
        cluster.lock_holder = None;
        cluster.advance_ms(120_000);
        let did = cluster.took(OURS);
        assert!(!did.iter().any(|did| matches!(did, Did::Ask(Ask::TakeLock { .. }))));
        assert_ne!(leader(&cluster), Some(1), "lock {lock}");
        assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Active);
        let own = pnn(OURS).get().to_le_bytes().to_vec();
        assert!(messages(&did, Srvid::LEADER).iter().all(|(_, data)| *data != own));
        assert!(messages(&did, Srvid::LEADER).len() > 5, "it goes on asking");
        cluster.event(OURS, |cx| controls::node_connected(cx, pnn(0)));
        cluster.lock_holder = lock.then_some(0);
        LEADER.lead(&mut cluster, OURS, 5);
        assert_eq!(leader(&cluster), Some(0), "lock {lock}");
        LEADER.recover(&mut cluster, OURS, 300, &[0, 1]);
        assert_eq!(cluster.state(OURS).recovery_mode, RecMode::Normal);
    }
}

#[test]
fn a_leader_that_hands_over_without_an_election_is_followed() {
    let mut cluster = running(false);
    for next in [OTHER, LEADER, OTHER] {
        next.lead(&mut cluster, OURS, 3);
        assert_eq!(leader(&cluster), Some(u32::try_from(next.0).unwrap()));
    }
    assert_eq!(messages(&cluster.took(OURS), Srvid::ELECTION), []);
}

#[test]
fn a_leader_that_asks_while_the_setup_event_runs_is_answered_and_the_start_goes_on() {
    let mut cluster = cluster(false);
    cluster.play(OURS, |ask| match ask {
        Ask::Script(run) if ["setup", "startrecovery"].contains(&run.event) => Some(Play::Hold),
        _ => None,
    });
    cluster.event(OURS, lifecycle::start);
    assert_eq!(cluster.state(OURS).run_state, RunState::Setup);
    LEADER.control(&mut cluster, OURS, &ControlRequest::GetNodeMap);
    let asks = Origin::Node(pnn(0), 40);
    let begun = cluster.send_from(OURS, asks, &ControlRequest::StartRecovery);
    cluster.advance_ms(3_000);
    assert_eq!(cluster.reply(begun), None, "events come one after the other");
    cluster.release(OURS, &crate::node::Outcome::Script(ScriptResult::Ok));
    assert_eq!(cluster.reply(begun).unwrap().status, 0);
    assert_eq!(cluster.state(OURS).run_state, RunState::FirstRecovery);
    LEADER.control(&mut cluster, OURS, &ControlRequest::EndRecovery);
}

#[test]
fn a_nodes_list_that_has_grown_is_taken_by_daemon_and_recovery_daemon() {
    let mut cluster = running(false);
    let longer = Cluster::of(4).node_map();
    cluster.play(OURS, move |ask| {
        let longer = crate::node::Outcome::Nodes(Ok(longer.clone()));
        (*ask == Ask::ReadNodes).then_some(Play::Outcome(longer))
    });
    let disable = DisableMessage { pnn: Some(pnn(2)), srvid: Srvid(0xCE00), timeout: 20 };
    cluster.message(OURS, Srvid::DISABLE_RECOVERIES, disable.to_bytes());
    let did = cluster.took(OURS);
    let done = 1_u32.to_le_bytes().to_vec();
    assert_eq!(messages(&did, Srvid(0xCE00)), [(Destination::Node(pnn(2)), done)]);
    let tool = Origin::Node(pnn(2), 7);
    assert_eq!(cluster.control_from(OURS, tool, &ControlRequest::ReloadNodesFile).status, 0);
    assert!(cluster.took(OURS).contains(&Did::Tell(Tell::NodesChanged)));
    let new = NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
    assert_eq!(cluster.state(OURS).nodes[3].flags, new);
    cluster.event(OURS, |cx| controls::node_connected(cx, pnn(3)));
    assert_eq!(cluster.state(OURS).nodes[3].flags, NodeFlags::UNHEALTHY);
    LEADER.recover(&mut cluster, OURS, 300, &[0, 1, 2, 3]);
}
