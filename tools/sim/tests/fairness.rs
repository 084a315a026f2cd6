//! Who asks for a record gets it before others have had it again and again.

use ringmaster_sim::{Mutation, Options, Summary, run_seed};

/// Everybody wants the same record all the time.
fn crowd(nodes: usize) -> Options {
    Options {
        nodes,
        clients: 3,
        keys: 1,
        operations: 600,
        seconds: 2,
        faults: 0,
        readonly: false,
        calm: true,
        ..Options::default()
    }
}

#[test]
fn nobody_is_passed_over_again_and_again() {
    let mut total = Summary::default();
    for seed in 1..=20 {
        for nodes in [3, 5] {
            match run_seed(seed, &crowd(nodes)) {
                Ok(summary) => total += summary,
                Err(violation) => panic!("{violation}"),
            }
        }
    }
    // A run without a crowd would prove nothing.
    assert!(total.passed_over > 1);
}

/// What leases are for: a record in demand makes fewer journeys for the same work, because whoever
/// was told "it is here" finds it.
#[test]
fn with_leases_a_crowd_gets_more_done_per_journey() {
    let journeys = |leases| {
        let options = Options { clients: 16, operations: 2_000, leases, ..crowd(3) };
        let runs = (1..=3).map(|seed| run_seed(seed, &options).unwrap().travels);
        runs.sum::<u64>()
    };
    let (with, without) = (journeys(true), journeys(false));
    assert!(with * 2 < without, "{with} against {without}");
}

#[test]
fn a_node_that_is_not_served_is_noticed() {
    let options = Options { mutation: Some(Mutation::CallsHeldBack), ..crowd(3) };
    let violation = (1..=5).find_map(|seed| run_seed(seed, &options).err());
    let violation = violation.expect("the checker says so");
    assert!(violation.what.contains("while another waits"), "{violation}");
}
