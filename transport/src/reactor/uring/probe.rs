//! What the kernel must be able to do, and what it does better.
//!
//! Role: sets the ring up, says what is missing; tries out what no flag tells.
//! Origin: `io_uring_setup(2)`, `io_uring_enter(2)`.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::fd::AsRawFd;
use rustix::net::sockopt;

use super::super::ReactorError;
use super::{COMPLETIONS, ENTRIES};

const fn unavailable(what: &'static str) -> ReactorError {
    ReactorError::Unavailable { what, source: None }
}

/// A ring with everything that the reactor needs.
///
/// # Errors
/// [`ReactorError::Unavailable`] where the kernel lacks an operation or forbids the calls.
pub(super) fn ring() -> Result<IoUring, ReactorError> {
    let refused = |what| move |source| ReactorError::Unavailable { what, source: Some(source) };
    let ring = IoUring::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(ENTRIES)
        .map_err(refused("the kernel refuses to set up a ring"))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(refused("the kernel refuses a probe"))?;
    for (code, what) in [
        (opcode::Accept::CODE, "accept is missing"),
        (opcode::RecvMulti::CODE, "receive is missing"),
        (opcode::Send::CODE, "send is missing"),
        (opcode::Read::CODE, "read is missing"),
        (opcode::AsyncCancel::CODE, "cancel is missing"),
        (opcode::PollAdd::CODE, "poll is missing"),
    ] {
        if !probe.is_supported(code) {
            return Err(unavailable(what));
        }
    }
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err(unavailable("the kernel is too old (before 5.11)"));
    }
    Ok(ring)
}

/// A send that ends while it is submitted, and completes only when it has not taken everything.
pub(super) fn send_at_once(fd: types::Fd, bytes: *const u8, len: u32) -> squeue::Entry {
    opcode::Send::new(fd, bytes, len)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
}

/// Whether sends at once do what [`send_at_once`] says. Kernels before 6.1 lose count of what such
/// a send has taken when it does not take all; patched ones of any number may be like either.
/// Tried out on a socket pair, because a wrong answer would send bytes twice.
pub(super) fn sends_at_once(ring: &mut IoUring) -> bool {
    ring.params().is_feature_skip_cqe_on_success() && try_out(ring).unwrap_or(false)
}

fn try_out(ring: &mut IoUring) -> io::Result<bool> {
    let (ours, mut theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    sockopt::set_socket_send_buffer_size(&ours, 4096)?;
    // The first fits, the second in part, the third not at all.
    let long = vec![0_u8; 1 << 20];
    let mut seen = Vec::new();
    for bytes in [&long[..16], &long, &long] {
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        let operation = send_at_once(types::Fd(ours.as_raw_fd()), bytes.as_ptr(), len);
        // SAFETY: the descriptor and the bytes live to the end of this function, and such a send
        // never stays with the kernel: the flag MSG_DONTWAIT forbids it to wait.
        let pushed = unsafe { ring.submission().push(&operation) };
        if pushed.is_err() {
            return Ok(false);
        }
        ring.submit()?;
        seen.push(ring.completion().next().map(|completion| completion.result()));
    }
    let mut arrived = 0;
    let mut sink = vec![0; 1 << 16];
    loop {
        match theirs.read(&mut sink) {
            Ok(0) => break,
            Ok(len) => arrived += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let [None, Some(part), Some(nothing)] = seen[..] else { return Ok(false) };
    let part = usize::try_from(part).unwrap_or(0);
    Ok(part > 0 && part < long.len() && arrived == 16 + part && nothing == -libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not required: a kernel that cannot do it is served with one more system call.
    #[test]
    fn sends_at_once_are_tried_out() {
        match ring() {
            Ok(mut ring) => println!("sends at once: {}", sends_at_once(&mut ring)),
            Err(error) => {
                assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "{error}");
                println!("skipped: io_uring: {error}");
            }
        }
    }
}
