//! The same command lines, run with Debian's program and with ours: standard output, standard
//! error, exit status and the files left behind must be the same.
//!
//! Debian's programs are the specification; where they are not installed the cases are skipped
//! (and fail with `RINGMASTER_REQUIRE_ALL=1`).

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its surroundings must fail")]

mod like_c {
    pub(super) mod world;

    mod config;
    mod diagnostics;
    mod event;
    mod groups;
    mod killtcp;
    mod lock;
    mod onnode;
    mod path;
    mod ping_pong;
}
