//! Packets of the event daemon's socket, in both directions.
//!
//! Role: `ctdb-eventd` is a program of its own with a format of its own: no magic, no padding,
//! u32 length first. Its clients are ctdbd and `ctdb event`.
//! Invariants
//! - Requests borrow their texts; a list of scripts is the only thing that allocates, and only as
//!   much as the packet's bytes justify.
//! - What C takes for a parse error (unknown command, unknown action, negative count) is an error
//!   here: the daemon closes such a connection.
//!
//! Origin: `docs/spec/wire-protocol.md` 8; `ctdb/event/event_protocol.c`.

use std::num::NonZeroI32;

use thiserror::Error;

use crate::flags::flag_set;
use crate::process::Timeval;
use crate::text::{Text, put_stringn, stringn, stringn_len};
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

/// Bytes of length, version and reqid.
pub const EVENT_HEADER_LEN: usize = 12;

/// What C's encoder writes as version; nobody looks at it.
const VERSION: u32 = 0;
/// name 4, begin and end 2 × 16, result 4, output 4.
const SCRIPT_LEN_MIN: usize = 44;

flag_set! {
    /// Flags of a RUN request.
    pub struct RunFlags {
        /// Go on after a script has failed.
        const RUN_ALL = 1;
    }
}

/// What to do with a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptAction {
    /// Take its execute permission.
    Disable,
    /// Give it execute permission.
    Enable,
}

/// A request to the event daemon. C sends texts with length 0 only for `args`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRequest<'a> {
    /// Run the scripts of a component for an event.
    Run {
        /// Directory below `events`; ctdbd's is `legacy`.
        component: Option<Text<'a>>,
        /// First argument of each script.
        event: Option<Text<'a>>,
        /// Further arguments, separated by blanks.
        args: Option<Text<'a>>,
        /// Seconds for the whole run; 0 = no limit.
        timeout_s: u32,
        /// How to go on after a failure.
        flags: RunFlags,
    },
    /// What the last run of an event came to.
    Status {
        /// Component.
        component: Option<Text<'a>>,
        /// Event.
        event: Option<Text<'a>>,
    },
    /// Enable or disable a script.
    Script {
        /// Component.
        component: Option<Text<'a>>,
        /// File name without `.script`.
        script: Option<Text<'a>>,
        /// Which of both.
        action: ScriptAction,
    },
}

/// A reply of the event daemon. `result` is 0 or a positive errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventReply<'a> {
    /// To RUN.
    Run {
        /// ENOEXEC, ETIMEDOUT, ECANCELED, ENOENT, EIO.
        result: i32,
    },
    /// To STATUS.
    Status {
        /// The scripts, or EINVAL (never ran), ENOENT (no such component).
        status: Result<EventStatus<'a>, NonZeroI32>,
    },
    /// To SCRIPT.
    Script {
        /// From chmod.
        result: i32,
    },
}

/// Outcome of an event's last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStatus<'a> {
    /// 0, exit status of the script that failed, or a negative errno.
    pub summary: i32,
    /// In the order they run.
    pub scripts: Vec<ScriptStatus<'a>>,
}

/// Outcome of one script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptStatus<'a> {
    /// File name without `.script`.
    pub name: Option<Text<'a>>,
    /// When it started.
    pub begin: Timeval,
    /// When it ended.
    pub end: Timeval,
    /// 0, exit status, or negative: ETIMEDOUT, ENOEXEC (disabled), EINTR (killed), ENOMSG (not run).
    pub result: i32,
    /// What it printed.
    pub output: Option<Text<'a>>,
}

/// Why bytes are not an event daemon's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventPacketError {
    /// The length field is shorter than a header.
    #[error("event packet length {length} is less than its header of {EVENT_HEADER_LEN} bytes")]
    TooShort {
        /// What the length field says.
        length: u32,
    },
    /// Above the receiver's limit.
    #[error("event packet length {length} exceeds the limit of {limit} bytes")]
    TooLong {
        /// What the length field says.
        length: u32,
        /// What the receiver allows.
        limit: u32,
    },
    /// The content is not what command and lengths promise.
    #[error("malformed event packet")]
    Body(#[from] DecodeError),
}

/// Length of the packet at the front of `buffer`; `None` while its first four bytes or its end are
/// still missing.
///
/// # Errors
/// [`EventPacketError`]: the connection has to be closed.
pub fn frame_len(buffer: &[u8], packet_len_max: u32) -> Result<Option<usize>, EventPacketError> {
    let Some((word, _)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*word);
    if (length as usize) < EVENT_HEADER_LEN {
        return Err(EventPacketError::TooShort { length });
    }
    if length > packet_len_max {
        return Err(EventPacketError::TooLong { length, limit: packet_len_max });
    }
    Ok((length as usize <= buffer.len()).then_some(length as usize))
}

impl<'a> EventRequest<'a> {
    /// Reads a whole packet: its reqid and the request.
    ///
    /// # Errors
    /// [`EventPacketError`].
    pub fn from_packet(packet: &'a [u8]) -> Result<(u32, Self), EventPacketError> {
        let (reqid, mut reader) = open(packet)?;
        Ok((reqid, Self::decode(&mut reader)?))
    }

    /// Appends a whole packet to `out`.
    pub fn append_packet(&self, reqid: u32, out: &mut Vec<u8>) {
        append(self, reqid, out);
    }
}

impl<'a> EventReply<'a> {
    /// Reads a whole packet: its reqid and the reply.
    ///
    /// # Errors
    /// [`EventPacketError`].
    pub fn from_packet(packet: &'a [u8]) -> Result<(u32, Self), EventPacketError> {
        let (reqid, mut reader) = open(packet)?;
        Ok((reqid, Self::decode(&mut reader)?))
    }

    /// Appends a whole packet to `out`.
    pub fn append_packet(&self, reqid: u32, out: &mut Vec<u8>) {
        append(self, reqid, out);
    }
}

fn open(packet: &[u8]) -> Result<(u32, Reader<'_>), EventPacketError> {
    let mut reader = Reader::new(packet);
    let length = reader.u32("event length")?;
    if (length as usize) < EVENT_HEADER_LEN {
        return Err(EventPacketError::TooShort { length });
    }
    let mut reader = Reader::new(reader.bytes("event packet", length as usize - 4)?);
    reader.u32("event version")?;
    let reqid = reader.u32("event reqid")?;
    Ok((reqid, reader))
}

fn append(body: &impl Encode, reqid: u32, out: &mut Vec<u8>) {
    out.put_len(EVENT_HEADER_LEN + body.encoded_len());
    out.put_u32(VERSION);
    out.put_u32(reqid);
    body.encode(out);
}

const RUN: u32 = 1;
const STATUS: u32 = 2;
const SCRIPT: u32 = 3;

/// From the command on.
impl Encode for EventRequest<'_> {
    fn encoded_len(&self) -> usize {
        4 + match *self {
            Self::Run { component, event, args, .. } => {
                stringn_len(component) + stringn_len(event) + stringn_len(args) + 8
            }
            Self::Status { component, event } => stringn_len(component) + stringn_len(event),
            Self::Script { component, script, .. } => {
                stringn_len(component) + stringn_len(script) + 4
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Run { component, event, args, timeout_s, flags } => {
                out.put_u32(RUN);
                put_stringn(out, component);
                put_stringn(out, event);
                put_stringn(out, args);
                out.put_u32(timeout_s);
                out.put_u32(flags.0);
            }
            Self::Status { component, event } => {
                out.put_u32(STATUS);
                put_stringn(out, component);
                put_stringn(out, event);
            }
            Self::Script { component, script, action } => {
                out.put_u32(SCRIPT);
                put_stringn(out, component);
                put_stringn(out, script);
                out.put_u32(u32::from(action == ScriptAction::Enable));
            }
        }
    }
}

impl<'a> Decode<'a> for EventRequest<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u32("event command")? {
            RUN => Ok(Self::Run {
                component: stringn(reader, "component")?,
                event: stringn(reader, "event")?,
                args: stringn(reader, "event arguments")?,
                timeout_s: reader.u32("event timeout")?,
                flags: RunFlags(reader.u32("event flags")?),
            }),
            STATUS => Ok(Self::Status {
                component: stringn(reader, "component")?,
                event: stringn(reader, "event")?,
            }),
            SCRIPT => Ok(Self::Script {
                component: stringn(reader, "component")?,
                script: stringn(reader, "script name")?,
                action: match reader.u32("script action")? {
                    0 => ScriptAction::Disable,
                    1 => ScriptAction::Enable,
                    other => return Err(invalid("script action", other)),
                },
            }),
            other => Err(invalid("event command", other)),
        }
    }
}

/// From the command on.
impl Encode for EventReply<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Self::Run { .. } | Self::Script { .. } | Self::Status { status: Err(_) } => 8,
            Self::Status { status: Ok(status) } => {
                16 + status.scripts.iter().map(Encode::encoded_len).sum::<usize>()
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Run { result } => {
                out.put_u32(RUN);
                out.put_i32(*result);
            }
            Self::Status { status: Err(result) } => {
                out.put_u32(STATUS);
                out.put_i32(result.get());
            }
            Self::Status { status: Ok(status) } => {
                out.put_u32(STATUS);
                out.put_i32(0);
                out.put_i32(status.summary);
                out.put_len(status.scripts.len());
                for script in &status.scripts {
                    script.encode(out);
                }
            }
            Self::Script { result } => {
                out.put_u32(SCRIPT);
                out.put_i32(*result);
            }
        }
    }
}

impl<'a> Decode<'a> for EventReply<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let command = reader.u32("event command")?;
        let result = reader.i32("event result")?;
        match command {
            RUN => Ok(Self::Run { result }),
            STATUS => Ok(Self::Status {
                status: match NonZeroI32::new(result) {
                    None => Ok(EventStatus::decode(reader)?),
                    Some(error) => Err(error),
                },
            }),
            SCRIPT => Ok(Self::Script { result }),
            other => Err(invalid("event command", other)),
        }
    }
}

impl<'a> Decode<'a> for EventStatus<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let summary = reader.i32("event summary")?;
        // A negative i32 is a count no packet can hold, so it is refused as such.
        let count = reader.count("number of scripts", SCRIPT_LEN_MIN)?;
        let mut scripts = Vec::with_capacity(count);
        for _ in 0..count {
            scripts.push(ScriptStatus::decode(reader)?);
        }
        Ok(Self { summary, scripts })
    }
}

impl Encode for ScriptStatus<'_> {
    fn encoded_len(&self) -> usize {
        36 + stringn_len(self.name) + stringn_len(self.output)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_stringn(out, self.name);
        self.begin.encode(out);
        self.end.encode(out);
        out.put_i32(self.result);
        put_stringn(out, self.output);
    }
}

impl<'a> Decode<'a> for ScriptStatus<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: stringn(reader, "script name")?,
            begin: Timeval::decode(reader)?,
            end: Timeval::decode(reader)?,
            result: reader.i32("script result")?,
            output: stringn(reader, "script output")?,
        })
    }
}

fn invalid(what: &'static str, value: u32) -> DecodeError {
    DecodeError::Invalid { what, value: u64::from(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<Text<'_>> {
        Some(Text::new(text))
    }

    #[test]
    fn a_packet_is_framed_by_its_first_word() {
        let mut packet = Vec::new();
        let request = EventRequest::Status { component: text("legacy"), event: text("monitor") };
        request.append_packet(7, &mut packet);
        assert_eq!(frame_len(&packet[..3], 100), Ok(None));
        assert_eq!(frame_len(&packet[..38], 100), Ok(None));
        assert_eq!(frame_len(&packet, 100), Ok(Some(39)));
        assert_eq!(
            frame_len(&packet, 38),
            Err(EventPacketError::TooLong { length: 39, limit: 38 })
        );
        assert_eq!(frame_len(&[11, 0, 0, 0], 38), Err(EventPacketError::TooShort { length: 11 }));
        assert_eq!(EventRequest::from_packet(&packet), Ok((7, request)));
    }

    #[test]
    fn unknown_commands_and_actions_are_refused() {
        for command in [0, 4, u32::MAX] {
            let bytes = [command.to_le_bytes(), [0; 4], [0; 4]].concat();
            assert!(EventRequest::from_bytes(&bytes).is_err());
            assert!(EventReply::from_bytes(&bytes).is_err());
        }
        let mut script = Vec::new();
        let action = ScriptAction::Enable;
        EventRequest::Script { component: text("legacy"), script: text("10.x"), action }
            .encode(&mut script);
        *script.last_mut().unwrap() = 1; // 0x01000001
        assert!(EventRequest::from_bytes(&script).is_err());
    }

    #[test]
    fn an_impossible_number_of_scripts_is_refused() {
        for count in [-1, i32::MAX, 1] {
            let mut bytes = Vec::new();
            for word in [2, 0, 0, count] {
                bytes.put_i32(word);
            }
            bytes.put_zeros(43);
            assert!(EventReply::from_bytes(&bytes).is_err(), "{count}");
        }
    }
}
