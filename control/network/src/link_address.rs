//! Where a packet goes on a link: the kernel's `sockaddr_ll`.
//!
//! Role: the one address family that `rustix` does not know.
//! Invariant: hardware addresses of up to 32 bytes, as the kernel's own limit (`MAX_ADDR_LEN`); the
//! structure proper has room for 8 only, and InfiniBand's have 20.
//! Origin: packet(7).

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// Longest hardware address.
pub(crate) const HARDWARE_LEN_MAX: usize = 32;

/// `struct sockaddr_ll`, with room for long addresses.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct LinkAddress {
    family: u16,
    /// In network order.
    protocol: u16,
    index: i32,
    hardware_type: u16,
    packet_type: u8,
    hardware_len: u8,
    hardware: [u8; HARDWARE_LEN_MAX],
}

const _: () = assert!(size_of::<LinkAddress>() == 12 + HARDWARE_LEN_MAX);
const _: () = assert!(align_of::<LinkAddress>() == align_of::<libc::sockaddr_ll>());

impl LinkAddress {
    /// A station on the link of interface `index`. `None` for an address that no link has.
    pub(crate) fn new(index: u32, protocol: u16, hardware: &[u8]) -> Option<Self> {
        let mut room = [0; HARDWARE_LEN_MAX];
        room.get_mut(..hardware.len())?.copy_from_slice(hardware);
        Some(Self {
            family: u16::try_from(libc::AF_PACKET).ok()?,
            protocol: protocol.to_be(),
            index: i32::try_from(index).ok()?,
            hardware_type: 0,
            packet_type: 0,
            hardware_len: u8::try_from(hardware.len()).ok()?,
            hardware: room,
        })
    }
}

// SAFETY: `with_sockaddr` hands out a pointer to all of `self` with its length; `self` is a plain
// `repr(C)` structure without padding (see the size above) and lives throughout the call. Its layout
// is that of `sockaddr_ll` (same order, sizes and alignment) with a longer last field, which the
// kernel reads as far as `hardware_len` says.
#[allow(unsafe_code)]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let len = SocketAddrLen::try_from(size_of::<Self>()).expect("44 bytes");
        f(std::ptr::from_ref(self).cast(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_hardware_addresses_fit_and_longer_ones_are_refused() {
        assert!(LinkAddress::new(1, 0x0806, &[0; 20]).is_some());
        assert!(LinkAddress::new(1, 0x0806, &[0; HARDWARE_LEN_MAX + 1]).is_none());
    }
}
