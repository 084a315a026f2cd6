//! Numbers, names and size rules of the controls.

use std::fmt;

use super::table::for_each_control;

/// Number of a control. Any number can arrive; those of the table have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlOpcode(pub u32);

/// Standing of a control number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlStatus {
    /// Implemented by 4.17 and by current C.
    Live,
    /// Implemented by current C, answered with -1 by 4.17.
    MasterOnly,
    /// Reserved: a daemon answers -1 without text.
    Obsolete,
    /// Never assigned or removed: a daemon answers -1 without text.
    Unassigned,
}

impl ControlStatus {
    /// A daemon carries the control out.
    #[must_use]
    pub const fn is_implemented(self) -> bool {
        matches!(self, Self::Live | Self::MasterOnly)
    }
}

/// What C's daemon demands of a request's size before it looks at the payload. A violation is
/// answered with status -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeRule {
    /// Exactly so many bytes; 0 for controls without payload that insist on none.
    Exact(usize),
    /// So many bytes or more.
    AtLeast(usize),
    /// Exactly `fixed` plus the u32 at offset `length_at`.
    Counted { fixed: usize, length_at: usize },
    /// A string: there must be a NUL in it.
    Terminated,
    /// Whatever the payload's own structure demands; trailing bytes are tolerated.
    Parsed,
    /// Not looked at at all.
    Ignored,
}

impl SizeRule {
    /// Whether a daemon goes on with this payload.
    #[must_use]
    pub fn admits(self, data: &[u8]) -> bool {
        match self {
            Self::Exact(len) => data.len() == len,
            Self::AtLeast(len) => data.len() >= len,
            Self::Counted { fixed, length_at } => {
                let length = data.get(length_at..).and_then(<[u8]>::first_chunk::<4>);
                length.is_some_and(|length| {
                    let length = u32::from_le_bytes(*length) as usize;
                    fixed.checked_add(length) == Some(data.len())
                })
            }
            Self::Terminated => data.contains(&0),
            Self::Parsed | Self::Ignored => true,
        }
    }
}

/// The notation of the specification's table.
impl fmt::Display for SizeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(0) => f.write_str("0"),
            Self::Exact(len) => write!(f, "={len}"),
            Self::AtLeast(len) => write!(f, ">={len}"),
            Self::Counted { fixed: 0, .. } => f.write_str("=length"),
            Self::Counted { fixed, .. } => write!(f, "={fixed}+len"),
            Self::Terminated => f.write_str("NUL"),
            Self::Parsed => f.write_str("parse"),
            Self::Ignored => f.write_str("none"),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlInfo {
    /// The number.
    pub opcode: ControlOpcode,
    /// C's name without `CTDB_CONTROL_`; empty for unassigned numbers.
    pub name: &'static str,
    /// Standing.
    pub status: ControlStatus,
    /// Rule for the request's size; [`SizeRule::Ignored`] for controls nobody carries out.
    pub request_size: SizeRule,
    /// Type of the request's payload, empty without one.
    pub request: &'static str,
    /// Type of the reply, empty without one.
    pub reply: &'static str,
}

macro_rules! define_opcodes {
    ($(
        $number:literal $status:ident $($name:ident $($variant:ident $size:expr =>
            [$($request:ty)?] -> [$($reply:ty)?])?)?;
    )*) => {
        /// The numbers by C's names.
        #[allow(non_upper_case_globals, reason = "C's names, some of which end in v4")]
        impl ControlOpcode {
            $($(
                #[doc = concat!("`CTDB_CONTROL_", stringify!($name), "`")]
                pub const $name: Self = Self($number);
            )?)*
        }

        /// All numbers that current C knows; a number is its own index.
        const CONTROLS: &[ControlInfo] = &[$(
            ControlInfo {
                opcode: ControlOpcode($number),
                name: concat!($(stringify!($name))?),
                status: ControlStatus::$status,
                request_size: define_opcodes!(@size $($($size)?)?),
                request: concat!($($($(stringify!($request))?)?)?),
                reply: concat!($($($(stringify!($reply))?)?)?),
            },
        )*];
    };
    (@size $size:expr) => {{
        #[allow(clippy::enum_glob_use, reason = "the table names the rules without a path")]
        use SizeRule::*;
        $size
    }};
    (@size) => { SizeRule::Ignored };
}

for_each_control!(define_opcodes);

const _: () = {
    let mut index = 0;
    while index < CONTROLS.len() {
        assert!(CONTROLS[index].opcode.0 as usize == index, "rows in order, none missing");
        index += 1;
    }
};

impl ControlOpcode {
    /// The table, obsolete and unassigned numbers included, in order.
    #[must_use]
    pub const fn table() -> &'static [ControlInfo] {
        CONTROLS
    }

    /// The table's row; `None` for numbers beyond the table.
    #[must_use]
    pub fn info(self) -> Option<&'static ControlInfo> {
        CONTROLS.get(usize::try_from(self.0).ok()?)
    }

    /// C's name without `CTDB_CONTROL_`; `None` for numbers without one. The messages of C's
    /// client library use these names, but for one slip: control 129 is `SET_DB_READONY` there.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.info().map(|info| info.name).filter(|name| !name.is_empty())
    }

    /// Standing; numbers beyond the table are unassigned.
    #[must_use]
    pub fn status(self) -> ControlStatus {
        self.info().map_or(ControlStatus::Unassigned, |info| info.status)
    }

    /// Rule for the request's size.
    #[must_use]
    pub fn request_size(self) -> SizeRule {
        self.info().map_or(SizeRule::Ignored, |info| info.request_size)
    }
}

/// C's name, or the number.
impl fmt::Display for ControlOpcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "control {}", self.0),
        }
    }
}
