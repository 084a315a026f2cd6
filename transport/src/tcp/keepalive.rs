//! What a keepalive's version means for this node.
//!
//! Role: C's rule for mixed versions: the younger daemon leaves. Pure.
//! Origin: `docs/spec/wire-protocol.md` 6.5; `ctdb/server/ctdb_keepalive.c:
//! ctdb_request_keepalive`.

use ringmaster_protocol::keepalive::{KeepalivePayload, SambaVersion};

/// Why this node has to leave the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The peer is so old that it says no version.
    Missing,
    /// The peer says another version and has been there longer.
    Other(SambaVersion),
}

/// Whether this node has to leave because of a peer's keepalive. `allow_mixed`: the tunable
/// `AllowMixedVersions` is 1.
#[must_use]
pub fn clash(
    own: KeepalivePayload,
    peer: Option<KeepalivePayload>,
    allow_mixed: bool,
) -> Option<Clash> {
    if allow_mixed {
        return None;
    }
    let Some(peer) = peer else { return Some(Clash::Missing) };
    if peer.version == own.version {
        return None;
    }
    let older = (peer.uptime, peer.version) > (own.uptime, own.version);
    older.then_some(Clash::Other(peer.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn says(minor: u16, uptime: u32) -> KeepalivePayload {
        KeepalivePayload { version: SambaVersion::new(4, minor), uptime }
    }

    #[test]
    fn the_younger_of_two_versions_leaves_and_of_equals_the_lower() {
        let own = says(17, 100);
        let other = |minor| Some(Clash::Other(SambaVersion::new(4, minor)));
        for (peer, expected) in [
            (says(17, 500), None),
            (says(25, 99), None),
            (says(25, 101), other(25)),
            (says(16, 101), other(16)),
            (says(25, 100), other(25)),
            (says(16, 100), None),
        ] {
            assert_eq!(clash(own, Some(peer), false), expected, "{peer:?}");
            assert_eq!(clash(own, Some(peer), true), None, "{peer:?}");
        }
        assert_eq!(clash(own, None, false), Some(Clash::Missing));
        assert_eq!(clash(own, None, true), None);
    }
}
