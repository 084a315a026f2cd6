//! Our daemon among C's. Each scenario is one life of a cluster, on C's daemons alone and on mixed ones.
//! Many of them run side by side: they mostly wait.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod databases;
mod deaths;
mod hangs;
mod inactive;
mod life_of_a_record;
mod members;
mod movement;
mod recoveries;
mod vacuum;

/// The tests of one scenario: one for each composition.
macro_rules! lives {
    ($shape:expr, $story:path) => {
        #[test]
        fn ccc() {
            ringmaster_follow::life::live(ringmaster_follow::life::CCC, $shape, $story);
        }
        #[test]
        fn cco() {
            ringmaster_follow::life::live(ringmaster_follow::life::CCO, $shape, $story);
        }
        #[test]
        fn coo() {
            ringmaster_follow::life::live(ringmaster_follow::life::COO, $shape, $story);
        }
    };
}
use lives;
