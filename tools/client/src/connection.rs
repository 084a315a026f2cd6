//! The state of one connection to a daemon: bytes in, bytes out, who waits for what.
//!
//! Role: gives requests their ids, frames packets, sorts what arrives into replies, messages and
//! tunnel packets. Does no I/O and reads no clock: `socket` moves the bytes, `client` waits.
//! Invariants
//! - A reply is kept only while its request waits: one that comes after a time-out is dropped, and
//!   its id is not used again before all others were.
//! - Queues are bounded by [`crate::limits`]; what does not fit is counted, never silently lost.
//! - Replies are kept as bytes and decoded by whoever knows what was asked.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.2–1.7, 6; `ctdb/client/client_connect.c`.

use std::collections::{HashMap, VecDeque};

use ringmaster_protocol::header::{Envelope, Frame, FrameError, Framing, PacketStyle, Transport};
use ringmaster_protocol::{Destination, Generation, Operation, Packet, Reqid};

use crate::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, PACKET_LEN_MAX, REQUESTS_MAX};
use crate::message::{Message, TunnelPacket};

/// Highest request id: C's are positive 31-bit numbers.
const REQID_MAX: u32 = i32::MAX.cast_unsigned();

/// No more requests can wait; see [`REQUESTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRequests;

/// State of a connection.
#[derive(Debug)]
pub struct Connection {
    source: Destination,
    input: Vec<u8>,
    output: Vec<u8>,
    /// `None`: waiting; `Some`: the whole reply packet.
    requests: HashMap<u32, Option<Vec<u8>>>,
    last_reqid: u32,
    messages: Inbox<Message>,
    tunnel_packets: Inbox<TunnelPacket>,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    const FRAMING: Framing =
        Framing { transport: Transport::Local, packet_len_max: PACKET_LEN_MAX };

    /// Before the first byte: the own node number is not known.
    #[must_use]
    pub fn new() -> Self {
        Self {
            source: Destination::Unknown,
            input: Vec::new(),
            output: Vec::new(),
            requests: HashMap::new(),
            last_reqid: 0,
            messages: Inbox::default(),
            tunnel_packets: Inbox::default(),
        }
    }

    /// What later packets carry as their source: the own node, once known.
    pub const fn set_source(&mut self, source: Destination) {
        self.source = source;
    }

    /// Queues a packet that will be answered.
    ///
    /// # Errors
    /// [`TooManyRequests`]; nothing is queued then.
    pub fn request(
        &mut self,
        to: Destination,
        packet: &Packet<'_>,
    ) -> Result<Reqid, TooManyRequests> {
        if self.requests.len() >= REQUESTS_MAX {
            return Err(TooManyRequests);
        }
        let reqid = self.unused_reqid();
        self.requests.insert(reqid, None);
        self.put(to, packet, Reqid(reqid));
        Ok(Reqid(reqid))
    }

    /// Queues a packet that nobody answers.
    pub fn send(&mut self, to: Destination, packet: &Packet<'_>) {
        // C's library numbers these too; the number means nothing.
        let reqid = self.unused_reqid();
        self.put(to, packet, Reqid(reqid));
    }

    fn put(&mut self, to: Destination, packet: &Packet<'_>, reqid: Reqid) {
        let envelope =
            Envelope { generation: Generation(0), destination: to, source: self.source, reqid };
        packet.encode_into(&mut self.output, envelope, PacketStyle::Library);
    }

    /// Ids go up and round, so that a late reply to a forgotten request meets no newer one.
    fn unused_reqid(&mut self) -> u32 {
        loop {
            self.last_reqid = if self.last_reqid >= REQID_MAX { 1 } else { self.last_reqid + 1 };
            if !self.requests.contains_key(&self.last_reqid) {
                return self.last_reqid;
            }
        }
    }

    /// Bytes to write.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `len` bytes of [`Connection::output`] have been written.
    pub fn output_written(&mut self, len: usize) {
        self.output.drain(..len);
    }

    /// Takes bytes that were read.
    ///
    /// # Errors
    /// [`FrameError`]: this is no stream of packets, the connection has to be closed.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.input.extend_from_slice(bytes);
        let mut at = 0;
        // Taken out, so that the packets in it can be handed to methods.
        let input = std::mem::take(&mut self.input);
        let result = loop {
            match Self::FRAMING.next_frame(&input[at..]) {
                Ok(Frame::Packet { bytes, .. }) => {
                    self.packet(bytes);
                    at += bytes.len();
                }
                // As C: a client ignores what it cannot read.
                Ok(Frame::Ignored { len, .. }) => at += len,
                Ok(Frame::Incomplete { .. }) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.input = input;
        self.input.drain(..at);
        result
    }

    fn packet(&mut self, bytes: &[u8]) {
        let decoded = Packet::decode(bytes);
        match decoded {
            Ok((_, Packet::ReqMessage(message))) => {
                let message = Message { srvid: message.srvid, data: message.data.to_vec() };
                let len = message.data.len();
                self.messages.push(message, len);
            }
            Ok((_, Packet::ReqTunnel(packet))) => {
                let packet = TunnelPacket {
                    tunnel_id: packet.tunnel_id,
                    flags: packet.flags,
                    data: packet.data.to_vec(),
                };
                let len = packet.data.len();
                self.tunnel_packets.push(packet, len);
            }
            // Replies, also malformed ones: who asked decides what that means.
            _ => {
                let header = ringmaster_protocol::RequestHeader::decode(bytes);
                let Ok(header) = header else { return };
                let is_reply = matches!(
                    header.operation,
                    Operation::ReplyControl | Operation::ReplyCall | Operation::ReplyError
                );
                if is_reply && let Some(slot) = self.requests.get_mut(&header.envelope.reqid.0) {
                    *slot = Some(bytes.to_vec());
                }
            }
        }
    }

    /// The reply to a request, once it is there; the request is over then.
    pub fn take_reply(&mut self, reqid: Reqid) -> Option<Vec<u8>> {
        if self.requests.get(&reqid.0)?.is_none() {
            return None;
        }
        self.requests.remove(&reqid.0).flatten()
    }

    /// Nobody waits for this reply any more.
    pub fn forget(&mut self, reqid: Reqid) {
        self.requests.remove(&reqid.0);
    }

    /// Messages that have arrived.
    pub const fn messages(&mut self) -> &mut Inbox<Message> {
        &mut self.messages
    }

    /// Tunnel packets that have arrived.
    pub const fn tunnel_packets(&mut self) -> &mut Inbox<TunnelPacket> {
        &mut self.tunnel_packets
    }
}

/// A bounded queue of what arrived unasked.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
    lost: u64,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0, lost: 0 }
    }
}

impl<T> Inbox<T> {
    fn push(&mut self, item: T, len: usize) {
        if self.queue.len() >= INBOX_MESSAGES_MAX || self.bytes + len > INBOX_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.bytes += len;
        self.queue.push_back((item, len));
    }

    /// The oldest one for which `wanted` holds.
    pub fn pop(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let index = self.queue.iter().position(|(item, _)| wanted(item))?;
        let (item, len) = self.queue.remove(index)?;
        self.bytes -= len;
        Some(item)
    }

    /// How many did not fit since the last call.
    pub const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }
}

#[cfg(test)]
mod tests;
