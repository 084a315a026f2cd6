//! The container: `ctdbcap1`, then for each packet microseconds since the first (u64), node (u8),
//! channel (u8), connection (u16), length (u32), and the bytes. Little-endian.

const CAPTURE: &[u8] = include_bytes!("capture.bin");
const MAGIC: &[u8] = b"ctdbcap1";

/// Where a packet was seen, from the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    FromClient,
    ToClient,
    ToNode,
    ToEventd,
    FromEventd,
}

impl Channel {
    /// Whether the packet is the event daemon's, in its own format.
    pub(crate) const fn is_eventd(self) -> bool {
        matches!(self, Self::ToEventd | Self::FromEventd)
    }
}

/// One packet.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "time and node are for whoever reads a failure")]
pub(crate) struct Entry<'a> {
    pub(crate) micros: u64,
    pub(crate) node: u8,
    pub(crate) channel: Channel,
    pub(crate) connection: u16,
    pub(crate) packet: &'a [u8],
}

/// All packets in the order of time.
pub(crate) fn entries() -> impl Iterator<Item = Entry<'static>> {
    let mut rest = CAPTURE.strip_prefix(MAGIC).expect("the capture begins with its magic");
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<16>()?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, node, channel, c0, c1, l0, l1, l2, l3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (packet, tail) = tail.split_at(length);
        rest = tail;
        let channel = match channel {
            0 => Channel::FromClient,
            1 => Channel::ToClient,
            2 => Channel::ToNode,
            3 => Channel::ToEventd,
            4 => Channel::FromEventd,
            other => panic!("channel {other}"),
        };
        let micros = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
        let connection = u16::from_le_bytes([c0, c1]);
        Some(Entry { micros, node, channel, connection, packet })
    })
}
