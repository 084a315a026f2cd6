//! A recovery that is cut off, or that something comes into, at each of its steps.

use ringmaster_protocol::{
    DbId, Generation, Rsn,
    control::{ControlOpcode, ControlRequest},
    database::RecordCount,
    node::{BanState, NodeFlags},
    process::RecMode,
    record::{RecBuffer, RecBufferBuilder, RecordFlags, RecordHeader},
    text::Text,
    wire::Decode,
};

use crate::node::{
    Ask,
    state::FreezeState,
    testing::{
        CLIENT, Cluster, Play,
        leader::{KEY, Leader, Step},
        pnn,
    },
    world::{DataAsk, Origin, RequestId},
};

const OURS: usize = 1;
const FIRST: Leader = Leader(0);
const NEXT: Leader = Leader(2);
const MEMBERS: [usize; 3] = [0, 1, 2];

fn name(text: &'static str) -> Text<'static> {
    Text::new(text)
}

/// Three nodes, of which ours has a database of each kind.
fn cluster() -> Cluster {
    let mut cluster = Cluster::running(3);
    for control in [
        ControlRequest::DbAttach(name("v")),
        ControlRequest::DbAttachPersistent(name("p")),
        ControlRequest::DbAttachReplicated(name("r")),
    ] {
        assert_eq!(cluster.control(OURS, &control).status, 0);
    }
    for db in [volatile(), DbId::from_name("p"), DbId::from_name("r")] {
        put(&mut cluster, db);
    }
    cluster
}

fn volatile() -> DbId {
    DbId::from_name("v")
}

fn put(cluster: &mut Cluster, db: DbId) {
    let header = RecordHeader { rsn: Rsn(7), dmaster: pnn(OURS).into(), flags: RecordFlags::NONE };
    cluster.nodes[OURS].store.put(db, KEY, header, b"old");
}

fn steps(cluster: &Cluster, leader: Leader, generation: u32) -> Vec<Step> {
    leader.recovery(cluster, OURS, generation, &MEMBERS)
}

/// How many steps a recovery has.
fn length() -> usize {
    steps(&cluster(), FIRST, 200).len()
}

/// The node is in service, with what the recovery of this generation has brought and nothing else.
fn assert_recovered(cluster: &mut Cluster, generation: u32, at: usize) {
    let state = cluster.state(OURS);
    assert_eq!(state.recovery_mode, RecMode::Normal, "cut at {at}");
    assert_eq!(state.vnn_map.generation, Generation(generation), "cut at {at}");
    assert_eq!(state.frozen_all, FreezeState::None, "cut at {at}");
    assert_eq!(state.mailbox, [], "cut at {at}");
    for db in &state.databases {
        let what = format!("cut at {at}: {db:?}");
        assert_eq!(db.generation, Generation(generation), "{what}");
        assert_eq!(db.freeze, FreezeState::None, "{what}");
        assert!(db.transaction.is_none() && db.push.is_none() && !db.invalid_records, "{what}");
        let (_, value) = cluster.nodes[OURS].store.record(db.id, KEY).unwrap();
        assert_eq!(value, generation.to_string().as_bytes(), "{what}");
    }
    drop(state);
    assert_eq!(cluster.listening(OURS), [], "cut at {at}");
}

#[test]
fn a_recovery_cut_off_at_any_step_is_made_up_for_by_the_next_leader() {
    for cut in 0..length() {
        let mut cluster = cluster();
        let begun = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &begun[..cut]);
        NEXT.recover(&mut cluster, OURS, 300, &MEMBERS);
        assert_recovered(&mut cluster, 300, cut);
    }
}

#[test]
fn a_recovery_that_its_leader_begins_again_at_any_step_ends_as_the_second_one() {
    for cut in 0..length() {
        let mut cluster = cluster();
        let begun = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &begun[..cut]);
        FIRST.recover(&mut cluster, OURS, 200, &MEMBERS);
        assert_recovered(&mut cluster, 200, cut);
    }
}

/// Sends steps until one fails, as C's helper does.
fn send_until_failure(cluster: &mut Cluster, steps: &[Step]) {
    for step in steps {
        if FIRST.send(cluster, OURS, step).status != 0 {
            return;
        }
    }
}

/// Records that a pull of this database has counted.
fn pulled(cluster: &mut Cluster, leader: Leader, steps: &[Step], db: DbId) -> u32 {
    let mut count = None;
    for step in steps {
        let answer = leader.send(cluster, OURS, step);
        assert_eq!(answer.status, 0, "{step:?}");
        if matches!(step, Step::Control(ControlRequest::DbPull(pull)) if pull.db == db) {
            count = Some(RecordCount::from_bytes(&answer.data).unwrap().0);
        }
    }
    count.unwrap()
}

/// Nothing of this node counts any more, and no local client gets at a record.
fn assert_out_of_service(cluster: &Cluster, at: usize) {
    let state = cluster.state(OURS);
    assert_eq!(state.recovery_mode, RecMode::Active, "at {at}");
    assert_eq!(state.vnn_map.generation, Generation::INVALID, "at {at}");
    assert_eq!(state.frozen_all, FreezeState::Frozen, "at {at}");
    for db in &state.databases {
        let what = format!("at {at}: {db:?}");
        assert_eq!(db.generation, Generation::INVALID, "{what}");
        assert_eq!(db.freeze, FreezeState::Frozen, "{what}");
        assert_eq!(db.invalid_records, db.is_volatile(), "{what}");
    }
}

fn leave_and_return(leave: &ControlRequest<'static>, come_back: &ControlRequest<'static>) {
    for at in 0..=length() {
        let mut cluster = cluster();
        let all = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &all[..at]);
        let somebody = Origin::Node(pnn(2), 9);
        assert_eq!(cluster.control_from(OURS, somebody, leave).status, 0);
        assert_out_of_service(&cluster, at);
        // The leader does not know it yet.
        send_until_failure(&mut cluster, &all[at..]);
        assert_out_of_service(&cluster, at);
        assert_eq!(cluster.control_from(OURS, somebody, come_back).status, 0);
        assert_eq!(cluster.state(OURS).own_flags(), NodeFlags::NONE);
        let again = steps(&cluster, NEXT, 300);
        let count = pulled(&mut cluster, NEXT, &again, volatile());
        assert_eq!(count, 0, "at {at}: records of an inactive node");
        assert_recovered(&mut cluster, 300, at);
    }
}

#[test]
fn a_node_that_is_stopped_at_any_step_takes_no_further_part_and_brings_nothing_back() {
    leave_and_return(&ControlRequest::StopNode, &ControlRequest::ContinueNode);
}

#[test]
fn a_node_that_is_banned_at_any_step_takes_no_further_part_and_brings_nothing_back() {
    let ban = |seconds| ControlRequest::SetBanState(BanState { pnn: pnn(OURS), seconds });
    leave_and_return(&ban(60), &ban(0));
}

#[test]
fn a_node_that_is_stopped_and_continued_between_two_steps_waits_for_the_next_recovery() {
    for at in 0..length() {
        let mut cluster = cluster();
        let all = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &all[..at]);
        for control in [ControlRequest::StopNode, ControlRequest::ContinueNode] {
            assert_eq!(cluster.control(OURS, &control).status, 0);
        }
        send_until_failure(&mut cluster, &all[at..]);
        let (mode, generation) = {
            let state = cluster.state(OURS);
            (state.recovery_mode, state.vnn_map.generation)
        };
        if mode == RecMode::Normal {
            // Everything of importance came after it.
            assert_recovered(&mut cluster, 200, at);
        } else if generation == Generation::INVALID {
            assert!(at > 5, "at {at}");
        }
        NEXT.recover(&mut cluster, OURS, 300, &MEMBERS);
        assert_recovered(&mut cluster, 300, at);
    }
}

#[test]
fn a_database_that_another_node_announces_at_any_step_is_recovered_at_the_latest_next_time() {
    for at in 0..length() {
        let mut cluster = cluster();
        let all = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &all[..at]);
        let announced = ControlRequest::DbAttach(name("new"));
        let node = Origin::Node(pnn(2), 0);
        assert_eq!(cluster.control_from(OURS, node, &announced).status, 0, "at {at}");
        send_until_failure(&mut cluster, &all[at..]);
        let state = cluster.state(OURS);
        if state.recovery_mode == RecMode::Normal {
            assert!(state.databases.iter().all(|db| db.generation == Generation(200)), "{at}");
        }
        drop(state);
        NEXT.recover(&mut cluster, OURS, 300, &MEMBERS);
        assert_recovered(&mut cluster, 300, at);
    }
}

/// A commit of the node's client that node 2 does not confirm.
fn begin_commit(cluster: &mut Cluster) -> RequestId {
    cluster.play(OURS, |ask| match ask {
        Ask::Control(control)
            if control.opcode == ControlOpcode::UPDATE_RECORD && control.to == pnn(2) =>
        {
            Some(Play::Hold)
        }
        _ => None,
    });
    let mut buffer = RecBufferBuilder::new(DbId::from_name("p"));
    let header = RecordHeader { rsn: Rsn(8), dmaster: pnn(OURS).into(), flags: RecordFlags::NONE };
    buffer.push_with_header(0, KEY, &header, b"committed");
    let buffer = buffer.into_bytes();
    let records = RecBuffer::from_bytes(&buffer).unwrap();
    cluster.send(OURS, &ControlRequest::Trans3Commit(records))
}

#[test]
fn a_commit_that_a_recovery_comes_into_is_answered_when_a_recovery_has_ended_and_not_before() {
    for cut in 4..=length() {
        let mut cluster = cluster();
        let commit = begin_commit(&mut cluster);
        assert_eq!(cluster.reply(commit), None);
        let all = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &all[..cut]);
        let answer = if cut == length() {
            cluster.reply(commit)
        } else {
            assert_eq!(cluster.reply(commit), None, "cut at {cut}");
            // What the members say now counts for nothing; nor does the time.
            cluster.release(OURS, &crate::node::Outcome::Reply(Ok(Default::default())));
            cluster.advance_ms(120_000);
            assert_eq!(cluster.reply(commit), None, "cut at {cut}");
            let again = begin_commit(&mut cluster);
            assert_eq!(cluster.reply(again).unwrap().status, -1, "cut at {cut}");
            NEXT.recover(&mut cluster, OURS, 300, &MEMBERS);
            cluster.reply(commit)
        };
        let answer = answer.unwrap();
        let words = "trans3 commit ended by recovery";
        assert_eq!((answer.status, answer.error.as_str()), (2, words), "cut at {cut}");
        assert!(cluster.state(OURS).databases.iter().all(|db| db.commit.is_none()));
        let over = DataAsk::CommitActive(DbId::from_name("p"), false);
        let told = crate::node::testing::Did::Ask(Ask::Data(over));
        assert!(cluster.took(OURS).contains(&told), "cut at {cut}");
        assert!(cluster.state(OURS).clients.contains_key(&CLIENT));
    }
}

#[test]
fn a_client_that_attaches_at_any_step_waits_for_the_end_of_a_recovery() {
    for cut in 4..length() - 1 {
        let mut cluster = cluster();
        let all = steps(&cluster, FIRST, 200);
        FIRST.send_all(&mut cluster, OURS, &all[..cut]);
        let attach = cluster.send(OURS, &ControlRequest::DbAttach(name("mine")));
        cluster.advance_ms(5_000);
        assert_eq!(cluster.reply(attach), None, "cut at {cut}");
        NEXT.recover(&mut cluster, OURS, 300, &MEMBERS);
        cluster.advance_ms(1_000);
        assert_eq!(cluster.reply(attach).unwrap().status, 0, "cut at {cut}");
    }
}
