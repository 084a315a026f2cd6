//! One request to the event daemon and its reply, over its unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ringmaster_protocol::eventd::{EVENT_HEADER_LEN, EventRequest, frame_len};

/// Largest reply that is read: the output of all scripts of an event.
const PACKET_LEN_MAX: u32 = 64 << 20;
/// C's ids count up from `INT_MAX - 200`.
const REQID: u32 = 0x7fff_ff38;

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nobody listens.
    Connect,
    /// The daemon closed the connection, or what it sent cannot be cut into packets.
    Closed,
}

/// Sends `request` and returns the packet that answers it. Packets with another id are skipped;
/// one that is no reply at all is returned as it is, for the caller to complain about.
pub(super) fn call(socket: &Path, request: &EventRequest<'_>) -> Result<Vec<u8>, CallError> {
    let mut stream = UnixStream::connect(socket).map_err(|_| CallError::Connect)?;
    let mut packet = Vec::new();
    request.append_packet(REQID, &mut packet);
    stream.write_all(&packet).map_err(|_| CallError::Closed)?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(len) = frame_len(&received, PACKET_LEN_MAX).map_err(|_| CallError::Closed)? {
            let rest = received.split_off(len);
            let packet = std::mem::replace(&mut received, rest);
            // Read before the rest: a packet with another id may hold anything.
            if packet.get(8..EVENT_HEADER_LEN) == Some(&REQID.to_le_bytes()) {
                return Ok(packet);
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(CallError::Closed),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(CallError::Closed),
        }
    }
}
