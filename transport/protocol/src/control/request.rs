//! Requests with their payload.

use thiserror::Error;

use super::opcode::{ControlOpcode, SizeRule};
use super::payloads::*;
use super::table::for_each_control;
use crate::wire::{Decode, DecodeError, Encode, Put};

/// Why a daemon does not carry a request out; the answer is [`RequestError::STATUS`], no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The payload's size breaks the control's rule.
    #[error("{opcode}: {len} bytes of data, the rule is {rule}")]
    Size { opcode: ControlOpcode, rule: SizeRule, len: usize },
    /// The payload has an acceptable size and makes no sense.
    #[error("{opcode}: malformed data")]
    Payload {
        opcode: ControlOpcode,
        #[source]
        source: DecodeError,
    },
}

impl RequestError {
    /// Status of the reply to such a request.
    pub const STATUS: i32 = -1;
}

macro_rules! define_requests {
    ($(
        $number:literal $status:ident $($name:ident $($variant:ident $size:expr =>
            [$($request:ty)?] -> [$($reply:ty)?])?)?;
    )*) => {
        /// A request by control. Arguments in the packet's header (srvid, client id, flags) are
        /// not part of it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ControlRequest<'a> {
            $($($(
                #[doc = concat!("Control ", stringify!($number), " `", stringify!($name), "`.")]
                $variant $(($request))?,
            )?)?)*
            /// A number that is obsolete, unassigned or unknown: to be answered with status -1.
            Other { opcode: ControlOpcode, data: &'a [u8] },
        }

        impl<'a> ControlRequest<'a> {
            /// Which control this is.
            #[must_use]
            pub const fn opcode(&self) -> ControlOpcode {
                match self {
                    $($($(
                        Self::$variant { .. } => ControlOpcode($number),
                    )?)?)*
                    Self::Other { opcode, .. } => *opcode,
                }
            }

            fn parse(opcode: ControlOpcode, data: &'a [u8]) -> Result<Self, DecodeError> {
                Ok(match opcode.0 {
                    $($($(
                        $number => Self::$variant $((<$request as Decode<'a>>::from_bytes(data)?))?,
                    )?)?)*
                    _ => Self::Other { opcode, data },
                })
            }
        }

        /// The payload of the packet.
        impl Encode for ControlRequest<'_> {
            fn encoded_len(&self) -> usize {
                match self {
                    $($($(
                        define_requests!(@pattern payload, Self::$variant $(, $request)?) =>
                            define_requests!(@len payload $(, $request)?),
                    )?)?)*
                    Self::Other { data, .. } => data.len(),
                }
            }
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $($($(
                        define_requests!(@pattern payload, Self::$variant $(, $request)?) =>
                            define_requests!(@encode payload, out $(, $request)?),
                    )?)?)*
                    Self::Other { data, .. } => out.put_bytes(data),
                }
            }
        }
    };
    (@pattern $payload:ident, $variant:path, $request:ty) => { $variant($payload) };
    (@pattern $payload:ident, $variant:path) => { $variant };
    (@len $payload:ident, $request:ty) => { Encode::encoded_len($payload) };
    (@len $payload:ident) => { 0 };
    (@encode $payload:ident, $out:ident, $request:ty) => { Encode::encode($payload, $out) };
    (@encode $payload:ident, $out:ident) => { () };
}

for_each_control!(define_requests);

impl<'a> ControlRequest<'a> {
    /// Reads the payload of a request. Payloads of controls that take none are dropped, as C
    /// ignores them.
    ///
    /// # Errors
    /// [`RequestError`] where C's daemon answers -1.
    pub fn decode(opcode: ControlOpcode, data: &'a [u8]) -> Result<Self, RequestError> {
        let rule = opcode.request_size();
        if !rule.admits(data) {
            return Err(RequestError::Size { opcode, rule, len: data.len() });
        }
        Self::parse(opcode, data).map_err(|source| RequestError::Payload { opcode, source })
    }
}
