//! Controls that this node's plane answers, one file per family.
//!
//! Role: [`request`] takes one control, from a client, another node or this node's own sequences,
//! and answers it with [`Tell::Reply`](super::Tell): at once, or from a sequence that waits. What
//! else happens to a node and its clients from outside comes in through the functions beside it.
//! Invariants
//! - One reply per request, failures included; none with NOREPLY, none to SHUTDOWN.
//! - What the shards' view shows is published before the reply.
//!
//! Origin: `docs/spec/wire-protocol.md` 3; `ctdb/server/ctdb_control.c`.

pub(super) mod addresses;
mod answer;
pub(super) mod attach;
mod clients;
mod daemon;
mod databases;
mod membership;
mod persistent;
mod recovery;
pub(super) mod statistics;
mod transactions;
mod traverse;
mod vacuum;
mod view;

pub(super) use self::answer::broadcast_to_others;
pub use self::{
    clients::{client_connected, client_gone},
    membership::{ban_self, force_recovery, node_announced, node_connected, node_gone},
};

use std::ops::ControlFlow;

use ringmaster_protocol::{
    Srvid,
    control::{ControlOpcode, ControlRequest, RequestError},
    process::RecMode,
};

use self::answer::{Call, reply, status};
use super::{
    NodeCx, lifecycle,
    world::{ControlAnswer, Request},
};

/// Messages of the plane's own srvids that may wait to be looked at. The oldest goes beyond it: a
/// push or pull then counts too few records and is repeated, anything else is sent again anyway.
const MAILBOX_MAX: usize = 10_000;

/// Controls that may be under way at once (most of them wait for the end of a recovery). More are
/// refused.
const REQUESTS_MAX: usize = 100_000;

/// A control for this node.
pub fn request(cx: &NodeCx, request: Request) {
    if let Some(answer) = at_once(cx, &request) {
        return reply(cx, &request, answer);
    }
    if cx.state().requests >= REQUESTS_MAX {
        tracing::error!(opcode = %request.opcode, "too many controls under way");
        return reply(cx, &request, status(RequestError::STATUS));
    }
    cx.state_mut().requests += 1;
    let sequence = cx.clone();
    cx.spawn(async move {
        let call = Call::new(&request);
        let answer = match decode(&request) {
            Ok(control) => answer(&sequence, &call, control).await,
            Err(error) => {
                tracing::error!(%error, "malformed control");
                Some(status(RequestError::STATUS))
            }
        };
        sequence.state_mut().requests -= 1;
        if let Some(answer) = answer {
            reply(&sequence, &request, answer);
        }
    });
}

/// The answer to what needs no sequence: records of a traverse come by the million.
fn at_once(cx: &NodeCx, request: &Request) -> Option<ControlAnswer> {
    let control = decode(request).ok()?;
    match traverse::answer(cx, &Call::new(request), control) {
        ControlFlow::Break(answer) => Some(answer),
        ControlFlow::Continue(control) => view::answer(cx, control).break_value(),
    }
}

/// A message for a srvid that the plane listens for.
pub fn message(cx: &NodeCx, srvid: Srvid, data: Vec<u8>) {
    let mut state = cx.state_mut();
    if state.mailbox.len() >= MAILBOX_MAX {
        state.mailbox.pop_front();
    }
    state.mailbox.push_back((srvid, data));
}

/// For C a recovery mode that does not exist is as good as NORMAL.
fn decode(request: &Request) -> Result<ControlRequest<'_>, RequestError> {
    let control = ControlRequest::decode(request.opcode, &request.data);
    match (request.opcode, control) {
        (ControlOpcode::SET_RECMODE, Err(RequestError::Payload { .. })) => {
            Ok(ControlRequest::SetRecMode(RecMode::Normal))
        }
        (_, control) => control,
    }
}

/// `None`: never answered.
async fn answer(cx: &NodeCx, call: &Call, control: ControlRequest<'_>) -> Option<ControlAnswer> {
    if matches!(control, ControlRequest::Shutdown) {
        // Whoever asked sees the connection end.
        lifecycle::shutdown(cx, 0);
        return None;
    }
    Some(match families(cx, call, control).await {
        ControlFlow::Break(answer) => answer,
        // Unknown and obsolete numbers, and those that only shards can answer.
        ControlFlow::Continue(_) => status(RequestError::STATUS),
    })
}

/// Each family takes what is its own and hands on the rest.
async fn families<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    let control = clients::answer(cx, call, control).await?;
    let control = attach::answer(cx, call, control).await?;
    let control = databases::answer(cx, call, control).await?;
    let control = persistent::answer(cx, call, control).await?;
    let control = recovery::answer(cx, call, control).await?;
    let control = transactions::answer(cx, call, control).await?;
    let control = vacuum::answer(cx, call, control).await?;
    let control = membership::answer(cx, control).await?;
    let control = daemon::answer(cx, control).await?;
    let control = statistics::answer(cx, control).await?;
    addresses::answer(cx, call, control).await
}

#[cfg(test)]
mod tests;
