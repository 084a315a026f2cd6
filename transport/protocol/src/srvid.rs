//! Who listens to messages: ranges, well-known ids, and the ids programs make for themselves.
//!
//! Role: names for 64-bit numbers. The daemon routes by equality only; nothing here is enforced.
//! Invariants: [`WellKnown`] and [`Srvid`] convert without loss in both directions.
//! Origin: `docs/spec/wire-protocol.md` 5; `ctdb/protocol/protocol.h`,
//! `source3/include/ctdb_srvids.h`.

use crate::id::{Pnn, Srvid};

impl Srvid {
    /// A registration for it receives every message.
    pub const ALL: Self = Self(u64::MAX);
    /// "No reply wanted" in messages that carry a reply srvid.
    pub const NO_REPLY: Self = Self(0);

    /// Takeover helper to its recovery daemon: assign ban credits to a node.
    pub const BANNING: Self = Self(0xF002_0000_0000_0000);
    /// Vote of an election.
    pub const ELECTION: Self = Self(0xF100_0000_0000_0000);
    /// The leader's broadcast, every second.
    pub const LEADER: Self = Self(0xF101_0000_0000_0000);
    /// Recovery completed.
    pub const RECONFIGURE: Self = Self(0xF200_0000_0000_0000);
    /// A public address was released on this node; text with NUL.
    pub const RELEASE_IP: Self = Self(0xF300_0000_0000_0000);
    /// A public address was taken on this node; text with NUL.
    pub const TAKE_IP: Self = Self(0xF301_0000_0000_0000);
    /// Event `ipreallocated` finished on this node (C: after 4.17).
    pub const IPREALLOCATED: Self = Self(0xF302_0000_0000_0000);
    /// Event `startipreallocate` finished on this node (C: after 4.17).
    pub const START_IPREALLOCATE: Self = Self(0xF303_0000_0000_0000);
    /// Obsolete; logged and ignored.
    pub const SET_NODE_FLAGS: Self = Self(0xF400_0000_0000_0000);
    /// Obsolete.
    pub const RECD_UPDATE_IP: Self = Self(0xF500_0000_0000_0000);
    /// Obsolete; control VACUUM_FETCH took its place.
    pub const VACUUM_FETCH: Self = Self(0xF700_0000_0000_0000);
    /// Obsolete.
    pub const DETACH_DATABASE: Self = Self(0xF701_0000_0000_0000);
    /// Asks the recovery daemon for its memory report.
    pub const MEM_DUMP: Self = Self(0xF800_0000_0000_0000);
    /// Obsolete.
    pub const GETLOG: Self = Self(0xF801_0000_0000_0000);
    /// Obsolete.
    pub const CLEARLOG: Self = Self(0xF802_0000_0000_0000);
    /// Daemon to its recovery daemon: a node's flags changed.
    pub const PUSH_NODE_FLAGS: Self = Self(0xF900_0000_0000_0000);
    /// Daemon to its recovery daemon: read the nodes file again.
    pub const RELOAD_NODES: Self = Self(0xFA00_0000_0000_0000);
    /// Asks the leader for a takeover run.
    pub const TAKEOVER_RUN: Self = Self(0xFB00_0000_0000_0000);
    /// Tells the leader to rebalance a node.
    pub const REBALANCE_NODE: Self = Self(0xFB01_0000_0000_0000);
    /// Disables takeover runs for some seconds; 0 enables.
    pub const DISABLE_TAKEOVER_RUNS: Self = Self(0xFB03_0000_0000_0000);
    /// Disables recoveries for some seconds; 0 enables.
    pub const DISABLE_RECOVERIES: Self = Self(0xFB04_0000_0000_0000);
    /// Old form of DISABLE_TAKEOVER_RUNS, without reply.
    pub const DISABLE_IP_CHECK: Self = Self(0xFC00_0000_0000_0000);
    /// Sent on behalf of a dead client.
    pub const SAMBA_NOTIFY: Self = Self(0xFE00_0000_0000_0000);
    /// Between notify daemons, every second.
    pub const SAMBA_NOTIFY_PROXY: Self = Self(0xFE00_0000_0000_0001);
    /// To every Samba process.
    pub const SAMBA_PROCESS: Self = Self(0xFE00_0000_0000_0002);

    /// What a process registers for messages to itself.
    #[must_use]
    pub const fn of_pid(pid: u32) -> Self {
        Self(pid as u64)
    }

    /// Bulk records of one recovery; `counter` starts at 1. Only its low 48 bits count.
    #[must_use]
    pub const fn recovery(counter: u64) -> Self {
        Self(PREFIX_RECOVERY << 48 | counter & LOW_48)
    }

    /// Reply id of a program using the client library (traverses, recovery daemons).
    #[must_use]
    pub const fn client_reply(pid: u32) -> Self {
        Self(0xBE << 56 | pid as u64)
    }

    /// Reply id of the `ctdb` tool; `counter` starts at 1.
    #[must_use]
    pub const fn tool_reply(pid: u32, counter: u16) -> Self {
        Self(PREFIX_TOOL << 48 | (pid as u64 & 0xFFFF) << 16 | counter as u64)
    }

    /// Reply id of a daemon that shuts down and wants to hear of the takeover run. The low 24 bits
    /// of the node number count.
    #[must_use]
    pub const fn daemon_reply(pnn: Pnn) -> Self {
        Self(0x9E << 56 | (pnn.get() as u64 & 0xFF_FFFF) << 32)
    }

    /// Whose range the id is in.
    #[must_use]
    pub const fn range(self) -> SrvidRange {
        match (self.0 >> 56, self.0) {
            (_, u64::MAX) => SrvidRange::All,
            (_, 0..=0xFFFF_FFFF_FFFF) => SrvidRange::Pid,
            (0x9E, _) => SrvidRange::Daemon,
            (0xAE, _) => SrvidRange::Test,
            (0xBE, _) => SrvidRange::Client,
            (0xCE, _) => SrvidRange::Tool,
            (0xDE, _) => SrvidRange::Iscsi,
            (0xEE, _) => SrvidRange::Nfs,
            (0xF0..=0xFC, _) => SrvidRange::Ctdb,
            (0xFE, _) => SrvidRange::Samba,
            _ => SrvidRange::Other,
        }
    }

    /// The well-known id this is, if any.
    #[must_use]
    pub fn well_known(self) -> Option<WellKnown> {
        if self.0 >> 48 == PREFIX_RECOVERY {
            return Some(WellKnown::Recovery(self.0 & LOW_48));
        }
        NAMED.iter().find(|(srvid, ..)| *srvid == self).map(|(_, known, _)| *known)
    }

    /// C's name of a well-known id, for logs.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        if self.0 >> 48 == PREFIX_RECOVERY {
            return Some("RECOVERY");
        }
        NAMED.iter().find(|(srvid, ..)| *srvid == self).map(|(.., name)| *name)
    }
}

const PREFIX_RECOVERY: u64 = 0xF001;
const PREFIX_TOOL: u64 = 0xCE01;
const LOW_48: u64 = (1 << 48) - 1;

/// Who makes ids of a kind, by the id's top byte. A convention: random ids of smbd fall anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrvidRange {
    /// A process id.
    Pid,
    /// Reply ids of daemons.
    Daemon,
    /// Test programs.
    Test,
    /// Client library.
    Client,
    /// The `ctdb` tool.
    Tool,
    /// Reserved for iSCSI servers.
    Iscsi,
    /// Reserved for NFS servers.
    Nfs,
    /// CTDB's own.
    Ctdb,
    /// Samba.
    Samba,
    /// The one id that receives everything.
    All,
    /// No range.
    Other,
}

macro_rules! well_known {
    ($($(#[$meta:meta])* $variant:ident = $constant:ident;)*) => {
        /// The well-known ids as an enum, to match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum WellKnown {
            /// Bulk records of a recovery; the 48-bit counter of the transfer.
            Recovery(u64),
            $($(#[$meta])* $variant,)*
        }

        impl WellKnown {
            /// The id.
            #[must_use]
            pub const fn srvid(self) -> Srvid {
                match self {
                    Self::Recovery(counter) => Srvid::recovery(counter),
                    $(Self::$variant => Srvid::$constant,)*
                }
            }
        }

        /// Id, meaning, C's name.
        const NAMED: &[(Srvid, WellKnown, &str)] =
            &[$((Srvid::$constant, WellKnown::$variant, stringify!($constant)),)*];
    };
}

well_known! {
    /// [`Srvid::BANNING`].
    Banning = BANNING;
    /// [`Srvid::ELECTION`].
    Election = ELECTION;
    /// [`Srvid::LEADER`].
    Leader = LEADER;
    /// [`Srvid::RECONFIGURE`].
    Reconfigure = RECONFIGURE;
    /// [`Srvid::RELEASE_IP`].
    ReleaseIp = RELEASE_IP;
    /// [`Srvid::TAKE_IP`].
    TakeIp = TAKE_IP;
    /// [`Srvid::IPREALLOCATED`].
    Ipreallocated = IPREALLOCATED;
    /// [`Srvid::START_IPREALLOCATE`].
    StartIpreallocate = START_IPREALLOCATE;
    /// [`Srvid::SET_NODE_FLAGS`].
    SetNodeFlags = SET_NODE_FLAGS;
    /// [`Srvid::RECD_UPDATE_IP`].
    RecdUpdateIp = RECD_UPDATE_IP;
    /// [`Srvid::VACUUM_FETCH`].
    VacuumFetch = VACUUM_FETCH;
    /// [`Srvid::DETACH_DATABASE`].
    DetachDatabase = DETACH_DATABASE;
    /// [`Srvid::MEM_DUMP`].
    MemDump = MEM_DUMP;
    /// [`Srvid::GETLOG`].
    Getlog = GETLOG;
    /// [`Srvid::CLEARLOG`].
    Clearlog = CLEARLOG;
    /// [`Srvid::PUSH_NODE_FLAGS`].
    PushNodeFlags = PUSH_NODE_FLAGS;
    /// [`Srvid::RELOAD_NODES`].
    ReloadNodes = RELOAD_NODES;
    /// [`Srvid::TAKEOVER_RUN`].
    TakeoverRun = TAKEOVER_RUN;
    /// [`Srvid::REBALANCE_NODE`].
    RebalanceNode = REBALANCE_NODE;
    /// [`Srvid::DISABLE_TAKEOVER_RUNS`].
    DisableTakeoverRuns = DISABLE_TAKEOVER_RUNS;
    /// [`Srvid::DISABLE_RECOVERIES`].
    DisableRecoveries = DISABLE_RECOVERIES;
    /// [`Srvid::DISABLE_IP_CHECK`].
    DisableIpCheck = DISABLE_IP_CHECK;
    /// [`Srvid::SAMBA_NOTIFY`].
    SambaNotify = SAMBA_NOTIFY;
    /// [`Srvid::SAMBA_NOTIFY_PROXY`].
    SambaNotifyProxy = SAMBA_NOTIFY_PROXY;
    /// [`Srvid::SAMBA_PROCESS`].
    SambaProcess = SAMBA_PROCESS;
    /// [`Srvid::ALL`].
    All = ALL;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_ids_convert_both_ways() {
        for (srvid, known, name) in NAMED {
            assert_eq!(srvid.well_known(), Some(*known), "{name}");
            assert_eq!(known.srvid(), *srvid, "{name}");
            assert_eq!(srvid.name(), Some(*name));
        }
        let transfer = Srvid(0xF001_0000_0000_0008);
        assert_eq!(transfer.well_known(), Some(WellKnown::Recovery(8)));
        assert_eq!(Srvid::recovery(8), transfer);
        assert_eq!(Srvid(0xF600_0000_0000_0000).well_known(), None);
    }

    #[test]
    fn ids_of_programs_are_those_seen_on_the_wire() {
        // A traverse by a client library with pid 0x4c2c; the tool's first id with pid 0x1234.
        assert_eq!(Srvid::client_reply(0x4c2c), Srvid(0xBE00_0000_0000_4C2C));
        assert_eq!(Srvid::tool_reply(0xABCD_1234, 1), Srvid(0xCE01_0000_1234_0001));
        let node = Pnn::new(2).unwrap();
        assert_eq!(Srvid::daemon_reply(node), Srvid(0x9E00_0002_0000_0000));
    }

    #[test]
    fn ranges_go_by_the_top_byte() {
        assert_eq!(Srvid::of_pid(4_000_000).range(), SrvidRange::Pid);
        assert_eq!(Srvid::ALL.range(), SrvidRange::All);
        assert_eq!(Srvid::LEADER.range(), SrvidRange::Ctdb);
        assert_eq!(Srvid::DISABLE_IP_CHECK.range(), SrvidRange::Ctdb);
        assert_eq!(Srvid::SAMBA_PROCESS.range(), SrvidRange::Samba);
        assert_eq!(Srvid(0xFD00_0000_0000_0000).range(), SrvidRange::Other);
        assert_eq!(Srvid(0xFF00_0000_0000_0000).range(), SrvidRange::Other);
        assert_eq!(Srvid(0x0001_0000_0000_0000).range(), SrvidRange::Other);
        assert_eq!(Srvid::client_reply(1).range(), SrvidRange::Client);
        assert_eq!(Srvid::tool_reply(1, 1).range(), SrvidRange::Tool);
    }
}
