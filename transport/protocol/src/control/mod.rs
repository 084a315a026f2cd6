//! Controls: requests to a daemon, by number, with a typed payload in each direction.
//!
//! Role: `(opcode, bytes)` to [`ControlRequest`] and [`ControlReply`] and back. The packets around
//! them are in [`control_packet`](crate::control_packet); what a control does is decided elsewhere.
//! Invariants
//! - One table (`table.rs`) holds number, name, status, size rule and payload types.
//! - A request whose size C's daemon refuses is refused here ([`RequestError`], status -1).
//! - Unknown and obsolete numbers are values ([`ControlRequest::Other`]), not errors.
//!
//! Origin: `docs/spec/wire-protocol.md` 3; `ctdb/server/ctdb_control.c`.

pub mod kinds;
mod opcode;
pub mod payloads;
mod reply;
mod request;
mod table;

pub use kinds::Control;
pub use opcode::{ControlInfo, ControlOpcode, ControlStatus, SizeRule};
pub use reply::{ClientCount, ControlReply, InStatus, ReplyBody, ReplyError, StatusValue};
pub use request::{ControlRequest, RequestError};

#[cfg(test)]
mod tests;
