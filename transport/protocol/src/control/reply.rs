//! Replies with their payload, and values that travel in the status.

use thiserror::Error;

use super::opcode::ControlOpcode;
use super::payloads::*;
use super::table::for_each_control;
use crate::control_packet::ReplyControl;
use crate::wire::{Decode, DecodeError, Encode, Put};

/// Why a reply yields no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError<'a> {
    /// The other side refused or failed; `text` is often empty.
    #[error("status {status} {text}")]
    Failed { status: i32, text: Text<'a> },
    /// Success was reported with data that makes no sense.
    #[error("malformed reply")]
    Payload(#[from] DecodeError),
}

/// What a reply carries: data behind a zero status, or a value in the status.
pub trait ReplyBody<'a>: Sized {
    /// Reads the value, or the failure, from a reply.
    ///
    /// # Errors
    /// [`ReplyError`].
    fn from_reply(reply: &ReplyControl<'a>) -> Result<Self, ReplyError<'a>>;
    /// Status to send.
    fn reply_status(&self) -> i32;
    /// Bytes that [`ReplyBody::encode_data`] appends.
    fn data_len(&self) -> usize;
    /// Appends the data to send.
    fn encode_data(&self, out: &mut Vec<u8>);
}

/// Every structure: status 0 and its bytes.
impl<'a, T: Encode + Decode<'a>> ReplyBody<'a> for T {
    fn from_reply(reply: &ReplyControl<'a>) -> Result<Self, ReplyError<'a>> {
        succeeded(reply)?;
        Ok(T::from_bytes(reply.data)?)
    }
    fn reply_status(&self) -> i32 {
        0
    }
    fn data_len(&self) -> usize {
        self.encoded_len()
    }
    fn encode_data(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

fn succeeded<'a>(reply: &ReplyControl<'a>) -> Result<(), ReplyError<'a>> {
    if reply.status == 0 { Ok(()) } else { Err(failure(reply)) }
}

fn failure<'a>(reply: &ReplyControl<'a>) -> ReplyError<'a> {
    ReplyError::Failed { status: reply.status, text: Text::new(reply.error) }
}

/// No payload.
impl Encode for () {
    fn encoded_len(&self) -> usize {
        0
    }
    fn encode(&self, _out: &mut Vec<u8>) {}
}

impl Decode<'_> for () {
    fn decode(_reader: &mut crate::wire::Reader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

/// A value that C's daemon returns as the status of the reply, without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InStatus<T>(pub T);

/// How a value is written as a status.
pub trait StatusValue: Sized {
    /// `None` when the status is a failure.
    fn from_status(status: i32) -> Option<Self>;
    /// The status to send.
    fn to_status(&self) -> i32;
}

impl<'a, T: StatusValue> ReplyBody<'a> for InStatus<T> {
    /// A reply with an error text is a failure whatever its status.
    fn from_reply(reply: &ReplyControl<'a>) -> Result<Self, ReplyError<'a>> {
        let value = if reply.error.is_empty() { T::from_status(reply.status) } else { None };
        value.map(Self).ok_or_else(|| failure(reply))
    }
    fn reply_status(&self) -> i32 {
        self.0.to_status()
    }
    fn data_len(&self) -> usize {
        0
    }
    fn encode_data(&self, _out: &mut Vec<u8>) {}
}

/// PROCESS_EXISTS, CHECK_PID_SRVID: 0 is yes, -1 is no.
impl StatusValue for bool {
    fn from_status(status: i32) -> Option<Self> {
        Some(status == 0)
    }
    fn to_status(&self) -> i32 {
        if *self { 0 } else { -1 }
    }
}

/// Reply of PING: connected clients, helpers and recovery daemon included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCount(pub u32);

impl StatusValue for ClientCount {
    fn from_status(status: i32) -> Option<Self> {
        u32::try_from(status).ok().map(Self)
    }
    fn to_status(&self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

/// GET_PID.
impl StatusValue for Pid {
    fn from_status(status: i32) -> Option<Self> {
        (status >= 0).then_some(Self(status))
    }
    fn to_status(&self) -> i32 {
        self.0
    }
}

/// GET_PNN.
impl StatusValue for Pnn {
    fn from_status(status: i32) -> Option<Self> {
        u32::try_from(status).ok().and_then(Self::new)
    }
    fn to_status(&self) -> i32 {
        self.get().cast_signed()
    }
}

/// GET_RECMODE.
impl StatusValue for RecMode {
    fn from_status(status: i32) -> Option<Self> {
        u32::try_from(status).ok().and_then(Self::from_raw)
    }
    fn to_status(&self) -> i32 {
        self.to_raw().cast_signed()
    }
}

macro_rules! define_replies {
    ($(
        $number:literal $status:ident $($name:ident $($variant:ident $size:expr =>
            [$($request:ty)?] -> [$($reply:ty)?])?)?;
    )*) => {
        /// A successful reply by control.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ControlReply<'a> {
            $($($(
                #[doc = concat!("To control ", stringify!($number), " `", stringify!($name), "`.")]
                $variant $(($reply))?,
            )?)?)*
            /// To a control this table does not carry out.
            Other { opcode: ControlOpcode, data: &'a [u8] },
        }

        impl<'a> ControlReply<'a> {
            /// Which control this answers.
            #[must_use]
            pub const fn opcode(&self) -> ControlOpcode {
                match self {
                    $($($(
                        Self::$variant { .. } => ControlOpcode($number),
                    )?)?)*
                    Self::Other { opcode, .. } => *opcode,
                }
            }

            /// Reads the reply to control `opcode`.
            ///
            /// # Errors
            /// [`ReplyError::Failed`] for a status that is neither success nor a value,
            /// [`ReplyError::Payload`] for data that makes no sense.
            pub fn decode(
                opcode: ControlOpcode,
                reply: &ReplyControl<'a>,
            ) -> Result<Self, ReplyError<'a>> {
                Ok(match opcode.0 {
                    $($($(
                        $number => define_replies!(@decode reply, Self::$variant $(, $reply)?),
                    )?)?)*
                    _ => {
                        succeeded(reply)?;
                        Self::Other { opcode, data: reply.data }
                    }
                })
            }

            /// Status to send: 0, or the value for controls that answer in the status.
            #[must_use]
            pub fn status(&self) -> i32 {
                match self {
                    $($($(
                        define_replies!(@pattern body, Self::$variant $(, $reply)?) =>
                            define_replies!(@status body $(, $reply)?),
                    )?)?)*
                    Self::Other { .. } => 0,
                }
            }
        }

        /// The data of the packet.
        impl Encode for ControlReply<'_> {
            fn encoded_len(&self) -> usize {
                match self {
                    $($($(
                        define_replies!(@pattern body, Self::$variant $(, $reply)?) =>
                            define_replies!(@len body $(, $reply)?),
                    )?)?)*
                    Self::Other { data, .. } => data.len(),
                }
            }
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $($($(
                        define_replies!(@pattern body, Self::$variant $(, $reply)?) =>
                            define_replies!(@encode body, out $(, $reply)?),
                    )?)?)*
                    Self::Other { data, .. } => out.put_bytes(data),
                }
            }
        }
    };
    (@decode $packet:ident, $variant:path, $reply:ty) => {
        $variant(<$reply as ReplyBody<'a>>::from_reply($packet)?)
    };
    (@decode $packet:ident, $variant:path) => {{
        succeeded($packet)?;
        $variant
    }};
    (@pattern $body:ident, $variant:path, $reply:ty) => { $variant($body) };
    (@pattern $body:ident, $variant:path) => { $variant };
    (@status $body:ident, $reply:ty) => { ReplyBody::reply_status($body) };
    (@status $body:ident) => { 0 };
    (@len $body:ident, $reply:ty) => { ReplyBody::data_len($body) };
    (@len $body:ident) => { 0 };
    (@encode $body:ident, $out:ident, $reply:ty) => { ReplyBody::encode_data($body, $out) };
    (@encode $body:ident, $out:ident) => { () };
}

for_each_control!(define_replies);
