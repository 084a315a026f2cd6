//! Which addresses the host has.
//!
//! Invariant: what somebody has finished to add or remove before the question is in the answer. The
//! kernel is only asked for the list after something has changed.
//! Origin: `docs/spec/cluster-semantics.md` 9.1 ("on an interface"). C's 4.17 tries to bind to the
//! address instead, which `net.ipv4.ip_nonlocal_bind` deceives.

use std::{collections::BTreeSet, io, net::IpAddr};

use crate::netlink::{AddressNews, Conversation};

/// See the module.
#[derive(Debug)]
pub struct HostAddresses {
    news: AddressNews,
    kernel: Conversation,
    /// `None`: not known, or changed since.
    known: Option<BTreeSet<IpAddr>>,
}

impl HostAddresses {
    /// Opens the sockets.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        // News first: a change after the list must not be missed.
        let news = AddressNews::subscribe()?;
        Ok(Self { news, kernel: Conversation::open()?, known: None })
    }

    /// Those of `wanted` that the host has on some interface.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn held(&mut self, wanted: &[IpAddr]) -> io::Result<BTreeSet<IpAddr>> {
        if self.news.any() {
            self.known = None;
        }
        let known = match self.known.take() {
            Some(known) => known,
            None => self.kernel.addresses()?.into_iter().collect(),
        };
        let held = wanted.iter().copied().filter(|address| known.contains(address)).collect();
        self.known = Some(known);
        Ok(held)
    }
}

/// Removes those of `unwanted` that the host has, from whatever interface; returns them.
///
/// # Errors
/// The kernel does not say, or refuses. What comes before the one that is refused is removed.
pub fn give_up(unwanted: &BTreeSet<IpAddr>) -> io::Result<BTreeSet<IpAddr>> {
    Conversation::open()?.remove_addresses(unwanted)
}
