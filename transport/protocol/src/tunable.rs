//! Tunables: names, defaults, the packed list, and the payloads of their controls.
//!
//! Role: one table says everything about a tunable; its position there is its position in the
//! 248-byte list. What a value means is decided where it is used.
//! Invariants: values are free u32 without range checks; obsolete ones are stored and returned and
//! have no effect.
//! Origin: `docs/spec/wire-protocol.md` 4.12, `docs/spec/admin-interface.md` 3.6;
//! `ctdb/common/tunable.c`.

use crate::layout::{Fixed, fixed_codec, fixed_newtype};
use crate::text::{Text, put_stringn, stringn, stringn_len};
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

/// What is known of one tunable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunableInfo {
    /// C's name as `listvars` prints it; names compare case-insensitively.
    pub name: &'static str,
    /// Value of a daemon that was told nothing.
    pub default: u32,
    /// Kept in the list for its position only; SET answers 1, LIST leaves it out.
    pub obsolete: bool,
}

macro_rules! tunables {
    ($($index:literal $variant:ident = $default:literal $($obsolete:ident)?;)+) => {
        /// A tunable; the discriminant is its position in [`TunableList`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Tunable {
            $(
                #[doc = concat!("Default ", stringify!($default), ".")]
                $variant = $index,
            )+
        }

        /// All tunables in the order of the packed list.
        pub const TUNABLES: [Tunable; Tunable::COUNT] = [$(Tunable::$variant),+];

        impl Tunable {
            /// Name, default, obsolete or not.
            #[must_use]
            pub const fn info(self) -> TunableInfo {
                match self {
                    $(Self::$variant => TunableInfo {
                        name: stringify!($variant),
                        default: $default,
                        obsolete: tunables!(@obsolete $($obsolete)?),
                    },)+
                }
            }
        }
    };
    (@obsolete obsolete) => { true };
    (@obsolete) => { false };
}

tunables! {
    0 MaxRedirectCount = 3 obsolete;
    1 SeqnumInterval = 1000;
    2 ControlTimeout = 60;
    3 TraverseTimeout = 20;
    4 KeepaliveInterval = 5;
    5 KeepaliveLimit = 5;
    6 RecoverTimeout = 30;
    7 RecoverInterval = 1;
    8 ElectionTimeout = 3;
    9 TakeoverTimeout = 9;
    10 MonitorInterval = 15;
    11 TickleUpdateInterval = 20;
    12 EventScriptTimeout = 30;
    13 MonitorTimeoutCount = 20;
    14 EventScriptUnhealthyOnTimeout = 0 obsolete;
    15 RecoveryGracePeriod = 120;
    16 RecoveryBanPeriod = 300;
    17 DatabaseHashSize = 100001;
    18 DatabaseMaxDead = 5;
    19 RerecoveryTimeout = 10;
    20 EnableBans = 1;
    21 DeterministicIPs = 0 obsolete;
    22 ReclockPingPeriod = 60 obsolete;
    23 NoIPFailback = 0;
    24 DisableIPFailover = 0 obsolete;
    25 VerboseMemoryNames = 0;
    26 RecdPingTimeout = 60;
    27 RecdFailCount = 10;
    28 LogLatencyMs = 0;
    29 RecLockLatencyMs = 1000;
    30 RecoveryDropAllIPs = 120;
    31 VerifyRecoveryLock = 1 obsolete;
    32 VacuumInterval = 10;
    33 VacuumMaxRunTime = 120;
    34 RepackLimit = 10000;
    35 VacuumLimit = 5000 obsolete;
    36 MaxQueueDropMsg = 1000000;
    37 AllowUnhealthyDBRead = 0;
    38 StatHistoryInterval = 1;
    39 DeferredAttachTO = 120;
    40 VacuumFastPathCount = 60;
    41 LCP2PublicIPs = 1 obsolete;
    42 AllowClientDBAttach = 1;
    43 RecoverPDBBySeqNum = 1 obsolete;
    44 DeferredRebalanceOnNodeAdd = 300 obsolete;
    45 FetchCollapse = 1;
    46 HopcountMakeSticky = 50;
    47 StickyDuration = 600;
    48 StickyPindown = 200;
    49 NoIPTakeover = 0;
    50 DBRecordCountWarn = 100000;
    51 DBRecordSizeWarn = 10000000;
    52 DBSizeWarn = 100000000;
    53 PullDBPreallocation = 10485760;
    54 NoIPHostOnAllDisabled = 1 obsolete;
    55 Samba3AvoidDeadlocks = 0 obsolete;
    56 TDBMutexEnabled = 1 obsolete;
    57 LockProcessesPerDB = 200;
    58 RecBufferSizeLimit = 1000000;
    59 QueueBufferSize = 1024;
    60 IPAllocAlgorithm = 2;
    61 AllowMixedVersions = 0;
}

impl Tunable {
    /// Number of tunables, obsolete ones included.
    pub const COUNT: usize = 62;

    /// Finds a tunable by name; ASCII case does not matter.
    #[must_use]
    pub fn from_name(name: &(impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        let name = name.as_ref();
        TUNABLES.into_iter().find(|t| t.info().name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The names `ctdb listvars` shows, in its order: that of the packed list, except that
    /// VacuumFastPathCount stands where the obsolete VacuumLimit would be.
    pub fn listed() -> impl Iterator<Item = Self> {
        let moved = Self::VacuumFastPathCount;
        TUNABLES
            .into_iter()
            .flat_map(move |tunable| match tunable {
                Self::VacuumLimit => Some(moved),
                other if other == moved => None,
                other => Some(other),
            })
            .filter(|tunable| !tunable.info().obsolete)
    }

    /// Text of LIST_TUNABLES: every name of [`Tunable::listed`] behind a `:`, as C sends it.
    #[must_use]
    pub fn list_text() -> String {
        Self::listed().fold(String::new(), |text, tunable| text + ":" + tunable.info().name)
    }
}

/// All values (`ctdb_tunable_list`): reply of GET_ALL_TUNABLES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunableList([u32; Tunable::COUNT]);

impl TunableList {
    /// The value of one tunable.
    #[must_use]
    pub const fn value(&self, tunable: Tunable) -> u32 {
        self.0[tunable as usize]
    }

    /// Changes one tunable.
    pub const fn set(&mut self, tunable: Tunable, value: u32) {
        self.0[tunable as usize] = value;
    }
}

/// The defaults of C.
impl Default for TunableList {
    fn default() -> Self {
        Self(TUNABLES.map(|tunable| tunable.info().default))
    }
}

/// 62 words, 248 bytes.
impl Fixed for TunableList {
    const SIZE: usize = 4 * Tunable::COUNT;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let mut values = [0; Tunable::COUNT];
        for value in &mut values {
            *value = reader.u32(what)?;
        }
        Ok(Self(values))
    }
    fn write(&self, out: &mut Vec<u8>) {
        for value in self.0 {
            out.put_u32(value);
        }
    }
}

fixed_codec!(TunableList);

/// Reply of GET_TUNABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunableValue(pub u32);

fixed_newtype!(TunableValue(u32));

/// Request of GET_TUNABLE: u32 length, name with NUL. The daemon demands at least 8 bytes, so a
/// name shorter than 4 characters with its NUL is refused before it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunableName<'a>(pub Text<'a>);

impl Encode for TunableName<'_> {
    fn encoded_len(&self) -> usize {
        stringn_len(Some(self.0))
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_stringn(out, Some(self.0));
    }
}

impl<'a> Decode<'a> for TunableName<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self(stringn(reader, "tunable.name")?.unwrap_or_default()))
    }
}

/// Request of SET_TUNABLE (`ctdb_tunable`): value, then the name as in [`TunableName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunableSetting<'a> {
    /// The new value.
    pub value: u32,
    /// Which tunable.
    pub name: TunableName<'a>,
}

impl Encode for TunableSetting<'_> {
    fn encoded_len(&self) -> usize {
        4 + self.name.encoded_len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.value);
        self.name.encode(out);
    }
}

impl<'a> Decode<'a> for TunableSetting<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let value = reader.u32("tunable.value")?;
        Ok(Self { value, name: TunableName::decode(reader)? })
    }
}

/// Reply of LIST_TUNABLES: u32 length, names joined with `:`. C's text begins with a `:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunableNames<'a>(pub Text<'a>);

impl<'a> TunableNames<'a> {
    /// The names; empty tokens are skipped.
    pub fn names(self) -> impl Iterator<Item = Text<'a>> {
        let tokens = self.0.as_bytes().split(|byte| *byte == b':');
        tokens.filter(|token| !token.is_empty()).map(Text::new)
    }
}

impl Encode for TunableNames<'_> {
    fn encoded_len(&self) -> usize {
        stringn_len(Some(self.0))
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_stringn(out, Some(self.0));
    }
}

impl<'a> Decode<'a> for TunableNames<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self(stringn(reader, "tunable_names")?.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_text_has_the_length_of_the_c_daemons() {
        let text = Tunable::list_text();
        assert!(text.starts_with(":SeqnumInterval:ControlTimeout:TraverseTimeout:"));
        assert!(text.contains(":RepackLimit:VacuumFastPathCount:MaxQueueDropMsg:"));
        assert!(!text.contains("MaxRedirectCount"));
        assert_eq!(text.len() + 1, 0x333);
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Tunable::from_name("controltimeout"), Some(Tunable::ControlTimeout));
        assert_eq!(Tunable::from_name("SAMBA3AVOIDDEADLOCKS"), Some(Tunable::Samba3AvoidDeadlocks));
        assert_eq!(Tunable::from_name("ControlTimeout2"), None);
    }

    #[test]
    fn positions_in_the_list_are_those_of_the_table() {
        for (index, tunable) in TUNABLES.into_iter().enumerate() {
            assert_eq!(tunable as usize, index);
        }
        assert_eq!(TunableList::SIZE, 248);
    }
}
