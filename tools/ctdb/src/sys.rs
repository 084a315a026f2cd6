//! The one setting of the process that has no safe face.
//!
//! Role: give SIGPIPE its default action back, which Rust's start-up code takes away.

/// Lets a reader that goes away end the process, as `ctdb … | head` expects and as the C tool
/// does. To be called once, before any thread starts.
#[allow(unsafe_code)]
pub fn end_on_broken_pipe() {
    // SAFETY: SIGPIPE is a valid signal and SIG_DFL a valid action for it; no handler of ours is
    // replaced (Rust's runtime only set it to "ignore"), so no code of this process depends on it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
