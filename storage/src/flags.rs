//! The flags of `tdb_open`, by their numbers: they travel between daemon and clients.
//!
//! Role: name the bits and keep those nobody knows. What they do: `open.rs`.
//! Invariants
//! - Any 32 bits are a value: the DB_OPEN_FLAGS control hands the daemon's own to clients.
//!
//! Origin: `docs/spec/tdb-format.md` 3.1.

use std::ops::BitOr;

/// Flags of an open database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// None.
    pub const DEFAULT: Self = Self(0);
    /// Empty the file if nobody else has it open; hold ACTIVE.
    pub const CLEAR_IF_FIRST: Self = Self(1);
    /// Memory only. Not for files: refused.
    pub const INTERNAL: Self = Self(2);
    /// Take no locks.
    pub const NOLOCK: Self = Self(4);
    /// libtdb then uses no mapping. Ours maps all the same; kept for clients.
    pub const NOMMAP: Self = Self(8);
    /// Create in the foreign byte order. Never done by us: refused.
    pub const CONVERT: Self = Self(16);
    /// Informational: the file is big-endian.
    pub const BIGENDIAN: Self = Self(32);
    /// Transactions do not wait for the disk.
    pub const NOSYNC: Self = Self(64);
    /// This handle counts changes in the sequence number.
    pub const SEQNUM: Self = Self(128);
    /// Keep up to 5 dead records per chain.
    pub const VOLATILE: Self = Self(256);
    /// A transaction may be started inside another.
    pub const ALLOW_NESTING: Self = Self(512);
    /// It may not.
    pub const DISALLOW_NESTING: Self = Self(1024);
    /// Create with the Jenkins hash.
    pub const INCOMPATIBLE_HASH: Self = Self(2048);
    /// Create with robust mutexes, or be ready for them.
    pub const MUTEX_LOCKING: Self = Self(4096);

    /// From a number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// `true` if all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}
