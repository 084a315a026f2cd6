//! What all packet bodies have in common: fixed fields, then bytes that belong to somebody else,
//! then sometimes four bytes of trailer.
//!
//! Role: one description per packet from which both encodings follow: contiguous
//! ([`Encode`](crate::wire::Encode)), and in parts for a gathering send, where the payload stays
//! where it is ([`PacketParts`](crate::packet::PacketParts)).
//! Origin: `docs/spec/wire-protocol.md` 2.

use crate::wire::Put;

/// A packet's body. The payload slices follow each other without padding.
pub(crate) trait Body<'a> {
    /// Appends the fixed fields, lengths of the payload included.
    fn put_fixed(&self, out: &mut Vec<u8>);
    /// Bytes that [`Body::put_fixed`] appends.
    fn fixed_len(&self) -> usize;
    /// The borrowed bytes, at most two slices.
    fn payload(&self) -> [&'a [u8]; 2];
    /// The record flags behind a dmaster packet's data.
    fn trailer(&self) -> Option<u32> {
        None
    }
}

/// Bytes of a body on the wire.
pub(crate) fn body_len<'a>(body: &impl Body<'a>) -> usize {
    let [first, second] = body.payload();
    body.fixed_len() + first.len() + second.len() + body.trailer().map_or(0, |_| 4)
}

/// Appends a body.
pub(crate) fn put_body<'a>(body: &impl Body<'a>, out: &mut Vec<u8>) {
    let [first, second] = body.payload();
    body.put_fixed(out);
    out.put_bytes(first);
    out.put_bytes(second);
    if let Some(word) = body.trailer() {
        out.put_u32(word);
    }
}

/// [`Encode`](crate::wire::Encode) of types that are a [`Body`].
macro_rules! encode_body {
    ($($name:ident),* $(,)?) => {$(
        impl $crate::wire::Encode for $name<'_> {
            fn encoded_len(&self) -> usize {
                $crate::body::body_len(self)
            }
            fn encode(&self, out: &mut Vec<u8>) {
                $crate::body::put_body(self, out);
            }
        }
    )*};
}

pub(crate) use encode_body;
