//! What a node of ours says about itself behind the payload of its keepalives.
//!
//! Role: lets two of ours find each other. C's daemon reads version and uptime and not what
//! follows. Nothing uses it yet.
//! Invariants
//! - The tail says its own length: later versions may append to it, and padding is not part of it.
//! - Whatever else stands there is no announcement, and no error.
//!
//! ```text
//!  0 u32 mark "RGMR"    4 u16 length (24)   6 u16 protocol version (1)
//!  8 u64 instance id   16 u16 shards       18 u16 transports (bit 0: TCP)   20 u32 0
//! ```
//! Origin: ours.

/// Bytes of this version's tail.
pub const ANNOUNCEMENT_LEN: usize = 24;

const MARK: [u8; 4] = *b"RGMR";

/// Version of what is spoken on lanes of our own.
pub const PROTOCOL_VERSION: u16 = 1;

/// Transport bit: further TCP connections.
pub const TRANSPORT_TCP: u16 = 1;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Of our own protocol; the lower of two is spoken.
    pub version: u16,
    /// Chosen at the daemon's start: tells a restarted one from its predecessor.
    pub instance: u64,
    /// Shards of the node.
    pub shards: u16,
    /// Ways to reach it, besides lane 0.
    pub transports: u16,
}

impl Announcement {
    /// The bytes behind a keepalive's payload.
    #[must_use]
    pub fn to_tail(self) -> [u8; ANNOUNCEMENT_LEN] {
        let mut tail = [0; ANNOUNCEMENT_LEN];
        tail[0..4].copy_from_slice(&MARK);
        tail[4] = 24;
        tail[6..8].copy_from_slice(&self.version.to_le_bytes());
        tail[8..16].copy_from_slice(&self.instance.to_le_bytes());
        tail[16..18].copy_from_slice(&self.shards.to_le_bytes());
        tail[18..20].copy_from_slice(&self.transports.to_le_bytes());
        tail
    }

    /// Reads it; `None` when the peer is not one of ours.
    #[must_use]
    pub fn of_tail(tail: &[u8]) -> Option<Self> {
        let head = tail.first_chunk::<ANNOUNCEMENT_LEN>()?;
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let len = usize::from(word(4));
        if head[0..4] != MARK || len < ANNOUNCEMENT_LEN || len > tail.len() || word(6) == 0 {
            return None;
        }
        let mut instance = [0; 8];
        instance.copy_from_slice(&head[8..16]);
        Some(Self {
            version: word(6),
            instance: u64::from_le_bytes(instance),
            shards: word(16),
            transports: word(18),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Announcement =
        Announcement { version: 1, instance: 0x0102_0304_0506_0708, shards: 4, transports: 1 };

    #[test]
    fn an_announcement_survives_the_wire_and_what_is_appended_later() {
        let mut tail = OURS.to_tail().to_vec();
        assert_eq!(Announcement::of_tail(&tail), Some(OURS));
        tail[4] = 40;
        assert_eq!(Announcement::of_tail(&tail), None, "cut off");
        tail.extend([7; 16]);
        assert_eq!(Announcement::of_tail(&tail), Some(OURS));
    }

    #[test]
    fn anything_else_is_no_announcement() {
        let tail = OURS.to_tail();
        for len in 0..ANNOUNCEMENT_LEN {
            assert_eq!(Announcement::of_tail(&tail[..len]), None);
        }
        assert_eq!(Announcement::of_tail(&[0; 64]), None);
        for at in [0, 3, 4, 6] {
            let mut bad = tail;
            bad[at] = 0;
            assert_eq!(Announcement::of_tail(&bad), None, "byte {at}");
        }
    }
}
