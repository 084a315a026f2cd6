//! Operation codes of packets and the sizes C gives them.
//!
//! Role: what kind of packet this is, nothing about its content.
//! Invariants: total in both directions; an unknown code is a value, not an error, because C logs
//! and ignores it and so must whoever routes packets.
//! Origin: `docs/spec/wire-protocol.md` 1.4, 2; `ctdb/protocol/protocol.h`.

use crate::header::HEADER_LEN;

/// Kind of a packet (`operation` in its header).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Run a function on a record, or migrate it here.
    ReqCall,
    /// Its result.
    ReplyCall,
    /// Current dmaster hands a record to the lmaster.
    ReqDmaster,
    /// Lmaster hands a record to its new dmaster.
    ReplyDmaster,
    /// A call or dmaster request could not be processed; between daemons only.
    ReplyError,
    /// One-way message to a srvid.
    ReqMessage,
    /// Control request.
    ReqControl,
    /// Control reply.
    ReplyControl,
    /// Sign of life between daemons.
    ReqKeepalive,
    /// Opaque packet between clients.
    ReqTunnel,
    /// A code without a meaning (6 was removed; everything above 10).
    Unknown(u32),
}

impl Operation {
    /// All known operations, in code order.
    pub const ALL: [Self; 10] = [
        Self::ReqCall,
        Self::ReplyCall,
        Self::ReqDmaster,
        Self::ReplyDmaster,
        Self::ReplyError,
        Self::ReqMessage,
        Self::ReqControl,
        Self::ReplyControl,
        Self::ReqKeepalive,
        Self::ReqTunnel,
    ];

    /// From the wire; total.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::ReqCall,
            1 => Self::ReplyCall,
            2 => Self::ReqDmaster,
            3 => Self::ReplyDmaster,
            4 => Self::ReplyError,
            5 => Self::ReqMessage,
            7 => Self::ReqControl,
            8 => Self::ReplyControl,
            9 => Self::ReqKeepalive,
            10 => Self::ReqTunnel,
            other => Self::Unknown(other),
        }
    }

    /// To the wire; inverse of [`Operation::from_raw`].
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::ReqCall => 0,
            Self::ReplyCall => 1,
            Self::ReqDmaster => 2,
            Self::ReplyDmaster => 3,
            Self::ReplyError => 4,
            Self::ReqMessage => 5,
            Self::ReqControl => 7,
            Self::ReplyControl => 8,
            Self::ReqKeepalive => 9,
            Self::ReqTunnel => 10,
            Self::Unknown(raw) => raw,
        }
    }

    /// C's name of it, for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReqCall => "REQ_CALL",
            Self::ReplyCall => "REPLY_CALL",
            Self::ReqDmaster => "REQ_DMASTER",
            Self::ReplyDmaster => "REPLY_DMASTER",
            Self::ReplyError => "REPLY_ERROR",
            Self::ReqMessage => "REQ_MESSAGE",
            Self::ReqControl => "REQ_CONTROL",
            Self::ReplyControl => "REPLY_CONTROL",
            Self::ReqKeepalive => "REQ_KEEPALIVE",
            Self::ReqTunnel => "REQ_TUNNEL",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    /// Length of the smallest packet of this kind a C daemon sends, header included: the size of
    /// its C struct, which ends in a one-byte array and tail padding, rounded to 8.
    #[must_use]
    pub const fn daemon_len_min(self) -> usize {
        match self {
            Self::ReqCall | Self::ReqDmaster | Self::ReplyDmaster | Self::ReqControl => 64,
            Self::ReplyCall | Self::ReplyError | Self::ReqMessage | Self::ReplyControl => 48,
            Self::ReqKeepalive => 40,
            Self::ReqTunnel => 56,
            Self::Unknown(_) => HEADER_LEN,
        }
    }

    /// Bytes before the variable part, header included: no shorter packet can be decoded. (The
    /// historical keepalive of 32 bytes is the one exception, see `keepalive`.)
    #[must_use]
    pub const fn fixed_len(self) -> usize {
        match self {
            Self::ReqCall | Self::ReplyDmaster => 56,
            Self::ReplyCall | Self::ReplyError | Self::ReqKeepalive => 40,
            Self::ReqDmaster | Self::ReqControl => 60,
            Self::ReqMessage | Self::ReplyControl => 44,
            Self::ReqTunnel => 48,
            Self::Unknown(_) => HEADER_LEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for raw in (0..=12).chain([u32::MAX]) {
            assert_eq!(Operation::from_raw(raw).to_raw(), raw);
        }
        assert_eq!(Operation::from_raw(6), Operation::Unknown(6));
        assert!(Operation::ALL.iter().all(|operation| operation.name() != "UNKNOWN"));
    }
}
