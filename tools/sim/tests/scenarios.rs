//! Scenarios that read like a script: who does what, what breaks, and what must be true then.

use ringmaster_sim::{Kind, Mutation, Options, Sim, run_seed};

const NODE_0: usize = 0;
const NODE_1: usize = 1;
const NODE_2: usize = 2;
const COUNTER: usize = 0;

/// Three nodes that have had their first recovery, and nothing to do.
fn cluster(seed: u64) -> Sim {
    let options = Options { faults: 0, operations: 1, ..Options::default() };
    let mut sim = Sim::new(seed, options);
    sim.run().expect("a cluster starts");
    sim
}

/// Each of these scenarios holds for whatever the seed makes of the timing.
fn for_seeds(scenario: impl Fn(&mut Sim)) {
    for seed in 1..=20 {
        scenario(&mut cluster(seed));
    }
}

#[test]
fn clients_on_all_nodes_count_together() {
    for_seeds(|sim| {
        for _ in 0..5 {
            for node in [NODE_0, NODE_1, NODE_2] {
                sim.start(node, Kind::Increment, COUNTER);
            }
        }
        sim.run().unwrap();
        assert_eq!(sim.count(COUNTER), 15);
    });
}

#[test]
fn a_connection_that_breaks_while_the_record_moves_loses_nothing() {
    for_seeds(|sim| {
        sim.start(NODE_0, Kind::Increment, COUNTER).run().unwrap();
        sim.start(NODE_1, Kind::Increment, COUNTER);
        sim.start(NODE_2, Kind::Increment, COUNTER);
        sim.run_until(|sim| sim.in_flight() > 0).unwrap();
        sim.break_link(NODE_0, NODE_1);
        sim.break_link(NODE_1, NODE_2);
        sim.run().unwrap();
        assert_eq!(sim.count(COUNTER), 3);
    });
}

#[test]
fn readers_see_the_new_value_after_a_writer_has_called_their_copies_back() {
    for_seeds(|sim| {
        sim.start(NODE_0, Kind::Increment, COUNTER).run().unwrap();
        for node in [NODE_1, NODE_2] {
            sim.start(node, Kind::Read, COUNTER).run().unwrap();
            sim.start(node, Kind::Read, COUNTER).run().unwrap();
        }
        assert!(sim.summary().copy_reads >= 1, "the second read needs no daemon");
        sim.start(NODE_0, Kind::Increment, COUNTER);
        for node in [NODE_1, NODE_2, NODE_1, NODE_2] {
            sim.start(node, Kind::Read, COUNTER);
        }
        sim.run().unwrap();
        assert_eq!(sim.count(COUNTER), 2);
    });
}

#[test]
fn a_deleted_record_stays_deleted_over_a_recovery() {
    for_seeds(|sim| {
        for node in [NODE_0, NODE_1, NODE_2] {
            sim.start(node, Kind::Increment, COUNTER).run().unwrap();
        }
        sim.start(NODE_1, Kind::Delete, COUNTER).run().unwrap();
        sim.want_recovery("the script says so");
        sim.run().unwrap();
        sim.start(NODE_2, Kind::Read, COUNTER).run().unwrap();
        assert_eq!(sim.count(COUNTER), 0);
    });
}

#[test]
fn a_write_dies_with_its_node_and_an_earlier_one_does_not() {
    for_seeds(|sim| {
        sim.start(NODE_0, Kind::Increment, COUNTER).run().unwrap();
        sim.start(NODE_1, Kind::Increment, COUNTER).run().unwrap();
        sim.crash(NODE_1);
        sim.run().unwrap();
        assert_eq!(sim.count(COUNTER), 1, "what node 0 had before it gave the record away");
        sim.start(NODE_1, Kind::Increment, COUNTER).run().unwrap();
        assert_eq!(sim.count(COUNTER), 2);
    });
}

#[test]
fn a_daemon_that_stops_for_a_second_delays_and_loses_nothing() {
    for_seeds(|sim| {
        sim.start(NODE_0, Kind::Increment, COUNTER).run().unwrap();
        sim.pause(NODE_0, 1_000_000);
        let before = sim.now();
        sim.start(NODE_1, Kind::Increment, COUNTER).run().unwrap();
        assert!(sim.now() >= before + 900_000, "it had to wait for the record's node");
        assert_eq!(sim.count(COUNTER), 2);
    });
}

#[test]
fn a_node_that_was_cut_off_comes_back_without_its_old_records() {
    for_seeds(|sim| {
        sim.start(NODE_2, Kind::Increment, COUNTER).run().unwrap();
        sim.start(NODE_0, Kind::Increment, COUNTER).run().unwrap();
        sim.cut_off(NODE_2);
        sim.start(NODE_0, Kind::Increment, COUNTER);
        sim.start(NODE_2, Kind::Increment, COUNTER);
        sim.run().unwrap();
        assert_eq!(sim.count(COUNTER), 4, "its client waited, and then went on with the others");
    });
}

#[test]
fn one_node_alone_and_seven_together_work_too() {
    for nodes in [1, 2, 7] {
        let options = Options { nodes, operations: 300, ..Options::default() };
        run_seed(11, &options).unwrap();
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let trace = |seed| {
        let mut sim = Sim::new(seed, Options { trace: true, ..Options::default() });
        sim.load();
        sim.run().unwrap();
        sim.trace().to_vec()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

#[test]
fn a_violation_names_its_seed_and_the_trace_shows_it() {
    let options =
        Options { mutation: Some(Mutation::DmasterStoredLate), trace: true, ..Options::default() };
    let mut sim = Sim::new(1, options);
    sim.load();
    let violation = sim.run().unwrap_err();
    assert!(violation.to_string().starts_with("seed 1: at "));
    assert!(sim.trace().iter().any(|line| line.contains("VIOLATION dmasters of key")));
}
