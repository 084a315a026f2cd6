//! onnode, ctdb-path, ctdb-config, ctdb-event, ctdb_killtcp, ctdb_natgw, ctdb_lvs, ltdbtool, ping_pong, lock
//! helpers.
//!
//! Role: the small programs beside `ctdb`; each is a module here and a few lines in `src/bin/`.
//! Invariant: what C's or the shell's version prints, ours prints: same streams, same bytes, same
//! exit status (`tests/like_c.rs` compares).
//! Origin: `docs/spec/admin-interface.md` chapter 2.
#![deny(unsafe_code)]

pub mod cmdline;
pub mod config_tool;
pub mod diagnostics;
pub mod environment;
pub mod errno;
pub mod event_tool;
pub mod files;
pub mod groups;
pub mod killtcp;
pub mod ltdbtool;
pub mod mutex_fcntl;
pub mod onnode;
pub mod output;
pub mod path_tool;
pub mod ping_pong;
pub mod popt;
pub mod posix_lock;
pub mod signals;
