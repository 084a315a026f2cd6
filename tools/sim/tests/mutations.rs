//! Every deliberate mistake must be found: else the checkers prove nothing.

use ringmaster_sim::{Mutation, Options, run_seed};

/// Seeds that a mistake may survive at most.
const SEEDS: u64 = 150;

#[test]
fn every_mistake_is_found() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let found = (1..=SEEDS).find_map(|seed| {
            let options = Options {
                mutation: Some(mutation),
                faults: 6,
                operations: 400,
                ..Options::default()
            };
            run_seed(seed, &options).err()
        });
        match found {
            Some(violation) => println!("{mutation:?}: {violation}"),
            None => missed.push(mutation),
        }
    }
    assert_eq!(missed, [], "mistakes that no checker has seen");
}
