//! What every process of ours needs on its host: a log, a PID file.

pub mod logging;
pub mod pidfile;
