//! Configuration files: text in, typed values and findings out.
//!
//! Role: everything an administrator may write into the configuration directory, by C's exact
//! rules, with C's messages, and with a diagnosis of our own beside them ([`Finding`]).
//! Invariants
//! - Nothing here opens a file; where C's validation asks the file system, the caller answers
//!   through [`ctdb_conf::Surroundings`].
//! - Total: no text makes it panic.
//!
//! Origin: `docs/spec/admin-interface.md` chapter 3.

pub mod check;
pub mod conf_file;
pub mod ctdb_conf;
pub mod finding;
pub mod home_nodes;
pub mod log_level;
pub mod native_conf;
pub mod nodes;
pub mod options;
pub mod paths;
pub mod public_addresses;
pub mod settings;
pub mod tunables_file;
pub mod validation;

pub use finding::{Finding, Severity};
pub use log_level::LogLevel;
pub use paths::Paths;
pub use settings::Settings;
