//! Many seeds, short: faults on, then everything must come to rest.

use ringmaster_sim::{Options, Summary, run_seed};

fn run(seeds: std::ops::RangeInclusive<u64>, options: impl Fn(u64) -> Options) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        match run_seed(seed, &options(seed)) {
            Ok(summary) => total += summary,
            Err(violation) => panic!("{violation}"),
        }
    }
    total
}

#[test]
fn three_nodes_keep_every_promise() {
    let total = run(1..=200, |seed| Options { readonly: seed % 2 == 1, ..Options::default() });
    // A run that does nothing would prove nothing.
    assert!(total.operations >= 200 * 200);
    assert_eq!(total.faults, 200 * 3);
    assert!(total.recoveries > total.faults && total.copy_reads > 100 && total.vacuumed > 100);
}
