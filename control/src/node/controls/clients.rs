//! Clients of this node: registrations, notifications, and what their end undoes.
//!
//! Origin: `docs/spec/wire-protocol.md` 3.3, 6.3; `ctdb/server/ctdb_daemon.c`, `ctdb_tunnel.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{Destination, control::ControlRequest};

use super::{
    addresses::tickles,
    answer::{Call, data, done, refused, status, success},
    force_recovery, persistent, traverse,
};
use crate::node::{
    NodeCx, Tell,
    state::Client,
    world::{ClientId, ControlAnswer, DataAsk, Registration},
};

/// Status of DEREGISTER_SRVID for a registration that is not there.
const ENOENT: i32 = 2;

/// A client has connected.
pub fn client_connected(cx: &NodeCx, id: ClientId, pid: i32) {
    cx.state_mut().clients.insert(id, Client { pid, ..Client::default() });
}

/// A client has gone; the shards have dropped its registrations.
pub fn client_gone(cx: &NodeCx, id: ClientId) {
    let Some(client) = cx.state_mut().clients.remove(&id) else { return };
    tickles::client_gone(cx, &client);
    for (srvid, data) in client.notify {
        cx.tell(Tell::Message { to: Destination::BroadcastConnected, srvid, data });
    }
    if client.persistent_updates > 0 {
        tracing::warn!("a client has gone in the middle of a persistent update; recovering");
        force_recovery(cx);
    }
    persistent::client_gone(cx, id);
    traverse::client_gone(cx, id);
}

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::RegisterSrvid => {
            register(cx, call, -1, |client| Registration::Srvid(call.srvid, client)).await
        }
        ControlRequest::DeregisterSrvid => {
            register(cx, call, ENOENT, |client| Registration::NoSrvid(call.srvid, client)).await
        }
        ControlRequest::TunnelRegister => {
            register(cx, call, -1, |client| Registration::Tunnel(call.srvid.0, client)).await
        }
        ControlRequest::TunnelDeregister => {
            register(cx, call, -1, |client| Registration::NoTunnel(call.srvid.0, client)).await
        }
        ControlRequest::RegisterNotify(notify) => with_client(cx, call, |client| {
            let new = !client.notify.iter().any(|(srvid, _)| *srvid == notify.srvid);
            if new {
                client.notify.push((notify.srvid, notify.data.to_vec()));
            }
            new
        }),
        ControlRequest::DeregisterNotify(srvid) => with_client(cx, call, |client| {
            let before = client.notify.len();
            client.notify.retain(|(registered, _)| *registered != srvid);
            client.notify.len() < before
        }),
        ControlRequest::StartPersistentUpdate => with_client(cx, call, |client| {
            client.persistent_updates = client.persistent_updates.saturating_add(1);
            true
        }),
        ControlRequest::CancelPersistentUpdate => with_client(cx, call, |client| {
            client.persistent_updates = client.persistent_updates.saturating_sub(1);
            true
        }),
        other => return ControlFlow::Continue(other),
    })
}

/// A registration in all shards; `failure` is the status when they refuse it.
async fn register(
    cx: &NodeCx,
    call: &Call,
    failure: i32,
    registration: impl FnOnce(ClientId) -> Registration,
) -> ControlAnswer {
    let client = call.client(&cx.state());
    match client {
        None => refused(),
        Some(client) if data(cx, DataAsk::Register(registration(client))).await => done(),
        Some(_) => status(failure),
    }
}

/// What concerns the asking client alone.
fn with_client(
    cx: &NodeCx,
    call: &Call,
    change: impl FnOnce(&mut Client) -> bool,
) -> ControlAnswer {
    let client = call.client(&cx.state());
    let mut state = cx.state_mut();
    let client = client.and_then(|id| state.clients.get_mut(&id));
    success(client.is_some_and(change))
}
