//! Puts the pieces of a byte stream together into packets.
//!
//! Role: between a reactor's buffers and whoever understands packets. A packet that lies whole in
//! a received buffer is handed on from there; only what is cut in two is copied.
//! Invariants
//! - Memory grows with the bytes that have really arrived, never with a length that a peer claims.
//! - After an error the stream is of no use: the caller closes it.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.1, 1.3; `ctdb/common/ctdb_io.c`.

use ringmaster_protocol::{
    RequestHeader,
    header::{Frame, FrameError, Framing},
};

/// The unfinished packet of one stream.
#[derive(Debug)]
pub struct Assembly {
    framing: Framing,
    partial: Vec<u8>,
    /// Total length that the partial packet needs before it is worth looking again.
    needed: usize,
}

/// Memory that an idle stream may keep.
const KEPT_MAX: usize = 8 * 1024;

impl Assembly {
    /// An empty one, with the rules of its stream.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self { framing, partial: Vec::new(), needed: 0 }
    }

    /// Bytes that wait for the rest of their packet.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.partial.len()
    }

    /// Takes received bytes and hands on every packet that is complete with them. `ignored` is
    /// told of packets that C skips.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be understood any further.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut packet: impl FnMut(&RequestHeader, &[u8]),
        mut ignored: impl FnMut(FrameError),
    ) -> Result<(), FrameError> {
        while !self.partial.is_empty() {
            let take = self.needed.saturating_sub(self.partial.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(take);
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < self.needed {
                return Ok(());
            }
            match self.framing.next_frame(&self.partial)? {
                Frame::Packet { header, bytes } => packet(&header, bytes),
                Frame::Ignored { reason, .. } => ignored(reason),
                Frame::Incomplete { needed } => {
                    self.needed = needed;
                    continue;
                }
            }
            // `needed` is the packet's own length by now: nothing of a next one is in here.
            self.partial.clear();
            if self.partial.capacity() > KEPT_MAX {
                self.partial = Vec::new();
            }
        }
        while !bytes.is_empty() {
            match self.framing.next_frame(bytes)? {
                Frame::Packet { header, bytes: whole } => {
                    packet(&header, whole);
                    bytes = &bytes[whole.len()..];
                }
                Frame::Ignored { len, reason } => {
                    ignored(reason);
                    bytes = &bytes[len..];
                }
                Frame::Incomplete { needed } => {
                    self.partial.extend_from_slice(bytes);
                    self.needed = needed;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::{
        Destination, Generation, Packet, PacketStyle, Reqid, Srvid,
        header::{Envelope, Transport},
        message::ReqMessage,
    };

    use super::*;

    const LOCAL: Framing = Framing { transport: Transport::Local, packet_len_max: 1 << 20 };

    fn message(len: usize, style: PacketStyle) -> Vec<u8> {
        let data: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
        let envelope = Envelope {
            generation: Generation(7),
            destination: Destination::Current,
            source: Destination::Unknown,
            reqid: Reqid(u32::try_from(len).unwrap()),
        };
        let mut out = Vec::new();
        let body = Packet::ReqMessage(ReqMessage { srvid: Srvid(1), data: &data });
        body.encode_into(&mut out, envelope, style);
        out
    }

    fn lengths(stream: &[u8], cut: impl Fn(usize) -> usize) -> Vec<u32> {
        let mut assembly = Assembly::new(LOCAL);
        let (mut seen, mut rest, mut number) = (Vec::new(), stream, 0);
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(cut(number).clamp(1, rest.len()));
            assembly
                .feed(head, |header, _| seen.push(header.envelope.reqid.0), |_| {})
                .expect("well-formed");
            rest = tail;
            number += 1;
        }
        assert_eq!(assembly.waiting(), 0);
        seen
    }

    #[test]
    fn packets_arrive_whole_however_the_stream_is_cut() {
        let sizes = [0_usize, 1, 5, 4_000, 70_000, 3];
        let mut stream = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let style = if number % 2 == 0 { PacketStyle::Exact } else { PacketStyle::Library };
            stream.extend(message(size, style));
        }
        let wanted: Vec<u32> = sizes.iter().map(|size| u32::try_from(*size).unwrap()).collect();
        for piece in [1, 2, 3, 7, 31, 33, 100, 16_384, usize::MAX] {
            assert_eq!(lengths(&stream, |_| piece), wanted, "pieces of {piece}");
        }
        assert_eq!(lengths(&stream, |number| 1 + number * 7 % 97), wanted);
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut assembly = Assembly::new(LOCAL);
        let mut head = message(1, PacketStyle::Exact);
        head[..4].copy_from_slice(&1_000_000_u32.to_le_bytes());
        assembly.feed(&head, |_, _| panic!("not whole"), |_| {}).expect("may still come");
        assert!(assembly.partial.capacity() < 1_000);
    }

    #[test]
    fn a_packet_beyond_the_limit_ends_the_stream() {
        let mut assembly = Assembly::new(LOCAL);
        let error = assembly.feed(&u32::MAX.to_le_bytes(), |_, _| {}, |_| {}).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn what_c_skips_is_skipped_and_the_next_packet_is_seen() {
        let mut stream = message(3, PacketStyle::Exact);
        stream[4] ^= 0xFF; // the magic
        stream.extend(message(9, PacketStyle::Exact));
        let (mut seen, mut skipped) = (Vec::new(), 0);
        for piece in [stream.len(), 10] {
            let mut assembly = Assembly::new(LOCAL);
            for bytes in stream.chunks(piece) {
                assembly
                    .feed(bytes, |header, _| seen.push(header.envelope.reqid.0), |_| skipped += 1)
                    .expect("C goes on");
            }
        }
        assert_eq!((seen, skipped), (vec![9, 9], 2));
    }
}
