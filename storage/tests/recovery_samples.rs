//! Every sample that libtdb left at some point of a commit is recovered to libtdb's own bytes.

#[path = "support/samples.rs"]
mod samples;

use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::recovery::{Recovery, needs_recovery};
use ringmaster_storage::transaction::Step;

#[test]
fn files_left_by_a_dead_commit_recover_to_the_bytes_libtdb_recovers_them_to() {
    let mut recovered = 0;
    for sample in samples::expected() {
        if !sample.name.starts_with("tx") {
            continue;
        }
        let store = MemoryStore::new(samples::load(&sample.name));
        assert_eq!(needs_recovery(&store).unwrap(), sample.recovered, "{}", sample.name);
        if let Some(mut recovery) = Recovery::begin(&store).unwrap() {
            assert_eq!(recovery.step(&store).unwrap(), Step::Done);
            recovered += 1;
        }
        assert!(!needs_recovery(&store).unwrap(), "{}", sample.name);
        let expected = sample.sha256_after_close.expect("none of these has mutexes");
        assert_eq!(samples::sha256(&store.image()), expected, "{}", sample.name);
    }
    assert_eq!(recovered, 8, "tx4 to tx6, tx8 to tx10, sync2 and sync3");
}
