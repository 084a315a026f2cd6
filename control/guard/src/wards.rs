//! What the daemon holds, as it says itself: one line for each change.
//!
//! Lines: `address IP`, `no-address IP`, `lock PID`, `no-lock PID`.
//! Invariant: at most [`ADDRESSES_MAX`] addresses.

use std::{collections::BTreeSet, net::IpAddr};

/// More than any node hosts; further ones are refused.
pub const ADDRESSES_MAX: usize = 10_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wards {
    addresses: BTreeSet<IpAddr>,
    lock_helper: Option<u32>,
}

/// A line that says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonsense(String);

impl std::fmt::Display for Nonsense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the daemon says '{}', which means nothing here", self.0)
    }
}

impl Wards {
    /// Takes a line in.
    ///
    /// # Errors
    /// [`Nonsense`]: nothing has changed.
    pub fn hear(&mut self, line: &str) -> Result<(), Nonsense> {
        let nonsense = || Nonsense(line.to_owned());
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("address", ip) if self.addresses.len() < ADDRESSES_MAX => {
                self.addresses.insert(ip.parse().map_err(|_| nonsense())?);
            }
            ("no-address", ip) => {
                self.addresses.remove(&ip.parse().map_err(|_| nonsense())?);
            }
            ("lock", pid) => self.lock_helper = Some(pid.parse().map_err(|_| nonsense())?),
            ("no-lock", pid) => {
                let ended: u32 = pid.parse().map_err(|_| nonsense())?;
                // The next one may have been started before the last has ended.
                self.lock_helper.take_if(|helper| *helper == ended);
            }
            _ => return Err(nonsense()),
        }
        Ok(())
    }

    /// The addresses that the daemon hosts, or is about to.
    #[must_use]
    pub const fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Process id of the helper that holds the cluster lock, or tries to take it.
    #[must_use]
    pub const fn lock_helper(&self) -> Option<u32> {
        self.lock_helper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Wards {
        let mut wards = Wards::default();
        for line in lines {
            wards.hear(line).unwrap();
        }
        wards
    }

    #[test]
    fn what_is_held_is_what_was_said_last() {
        let wards = heard(&[
            "address 10.0.0.1",
            "address fd00::1",
            "lock 17",
            "address 10.0.0.2",
            "no-address 10.0.0.1",
            "no-address 10.0.0.9",
            "lock 18",
        ]);
        let expected: BTreeSet<IpAddr> =
            ["fd00::1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(*wards.addresses(), expected);
        assert_eq!(wards.lock_helper(), Some(18));
        assert_eq!(heard(&["lock 1", "no-lock 1"]).lock_helper(), None);
        assert_eq!(heard(&["lock 1", "lock 2", "no-lock 1"]).lock_helper(), Some(2));
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut wards = heard(&["address 10.0.0.1", "lock 5"]);
        let before = wards.clone();
        for line in ["", "address", "address x", "no-address 1", "lock", "lock x", "no-lock", "?"] {
            assert_eq!(wards.hear(line), Err(Nonsense(line.into())), "{line}");
        }
        assert_eq!(wards, before);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut wards = Wards::default();
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            wards.hear(&format!("address {}", std::net::Ipv4Addr::from(number))).unwrap();
        }
        assert!(wards.hear("address fd00::1").is_err());
        wards.hear("no-address 0.0.0.1").unwrap();
        wards.hear("address fd00::1").unwrap();
    }
}
