//! Our daemon among C's. Each scenario is one life of a cluster, on C's daemons alone and on mixed ones.
//! Many of them run side by side: they mostly wait.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod churn;
mod databases;
mod deaths;
mod hangs;
mod hostile;
mod inactive;
mod ipv6;
mod life_of_a_record;
mod members;
mod movement;
mod pushes;
mod recoveries;
mod vacuum;

/// The tests of one scenario: one for each composition.
macro_rules! lives {
    ($shape:expr, $story:path) => {
        $crate::lives! { $shape, $story, ccc CCC, cco CCO, coo COO }
    };
    ($shape:expr, $story:path, $($name:ident $composition:ident),*) => {
        $(#[test]
        fn $name() {
            use ringmaster_follow::life::{$composition, live};
            live($composition, $shape, $story);
        })*
    };
}
use lives;
