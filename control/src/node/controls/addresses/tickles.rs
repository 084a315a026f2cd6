//! Connections to public addresses: who registers them, who else is told.
//!
//! Role: so that the next host of an address can reset what its former host has left behind, every
//! node keeps the connections of every address.
//! Origin: `docs/spec/cluster-semantics.md` 9.6; `ctdb/server/ctdb_takeover.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    SockAddr,
    connection::{Connection, TickleList},
    control::{ControlOpcode, ControlRequest},
    process::RunState,
    tunable::Tunable,
    wire::Encode,
};

use super::ip;
use crate::{
    failover::{
        addresses::Address,
        tickles::{Tickles, canonical},
    },
    node::{
        NodeCx, State,
        controls::{
            answer::{Call, done, payload, refused, status, success},
            broadcast_to_others,
        },
        state::Client,
        world::ControlAnswer,
    },
};

/// Status for an address that is not public.
const NOT_PUBLIC: i32 = 1;

/// Connections that one client may register; it is refused more.
const OF_CLIENT_MAX: usize = 10_000;

pub(super) fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::TcpClient(connection) => client(cx, call, &canonical(&connection)),
        ControlRequest::TcpClientDisconnected(connection) => {
            disconnected(cx, call, &canonical(&connection));
            done()
        }
        ControlRequest::TcpClientPassed(connection) => {
            forget(cx, call, &canonical(&connection));
            done()
        }
        ControlRequest::TcpAdd(connection) => add(cx, &canonical(&connection), false),
        ControlRequest::TcpAddDelayedUpdate(connection) => add(cx, &canonical(&connection), true),
        ControlRequest::TcpRemove(connection) => {
            remove(cx, &canonical(&connection));
            done()
        }
        ControlRequest::GetTcpTickleList(address) => list(&cx.state(), address),
        ControlRequest::SetTcpTickleList(list) => replace(cx, list),
        other => return ControlFlow::Continue(other),
    })
}

fn destination<'a>(state: &'a State, connection: &Connection) -> Option<&'a Address> {
    ip(&connection.dst).and_then(|address| state.addresses.get(address))
}

fn destination_mut<'a>(state: &'a mut State, connection: &Connection) -> Option<&'a mut Address> {
    ip(&connection.dst).and_then(|address| state.addresses.get_mut(address))
}

/// The asking client, to change.
fn asking<'a>(state: &'a mut State, call: &Call) -> Option<&'a mut Client> {
    let id = call.client(state)?;
    state.clients.get_mut(&id)
}

/// smbd has accepted a connection. One to an address that is elsewhere must not go on: smbd ends.
fn client(cx: &NodeCx, call: &Call, connection: &Connection) -> ControlAnswer {
    {
        let mut state = cx.state_mut();
        let own = state.pnn();
        match destination(&state, connection) {
            // Also when there are no public addresses at all.
            None => return done(),
            Some(address) if address.host != Some(own) => {
                tracing::error!(%connection, host = ?address.host, "a client of an address elsewhere");
                return refused();
            }
            Some(_) => {}
        }
        let Some(client) = asking(&mut state, call) else { return refused() };
        if client.connections.len() >= OF_CLIENT_MAX {
            tracing::error!(%connection, "a client registers too many connections");
            return refused();
        }
        client.connections.insert(*connection);
    }
    add(cx, connection, false);
    broadcast_to_others(cx, State::connected, ControlOpcode::TCP_ADD, &connection.to_bytes());
    done()
}

/// Drops a connection from its client's list; whether it was there.
fn forget(cx: &NodeCx, call: &Call, connection: &Connection) -> bool {
    let mut state = cx.state_mut();
    asking(&mut state, call).is_some_and(|client| client.connections.remove(connection))
}

/// smbd has lost a connection. Of an address that is leaving, the next host needs to know it.
fn disconnected(cx: &NodeCx, call: &Call, connection: &Connection) {
    if !forget(cx, call, connection) {
        return;
    }
    let stays = {
        let state = cx.state();
        let own = Some(state.pnn());
        destination(&state, connection)
            .is_some_and(|address| address.host == own && !address.release_in_flight)
    };
    if stays {
        remove(cx, connection);
        let data = connection.to_bytes();
        broadcast_to_others(cx, State::connected, ControlOpcode::TCP_REMOVE, &data);
    }
}

/// A client has gone, with all its connections. Those of addresses that have left stay: their next
/// host needs them.
pub(in crate::node) fn client_gone(cx: &NodeCx, client: &Client) {
    for connection in &client.connections {
        let here = {
            let state = cx.state();
            destination(&state, connection).is_some_and(|one| one.host == Some(state.pnn()))
        };
        if here {
            remove(cx, connection);
        }
    }
}

fn add(cx: &NodeCx, connection: &Connection, update_needed: bool) -> ControlAnswer {
    let mut state = cx.state_mut();
    if state.addresses.is_empty() {
        return done();
    }
    let Some(address) = destination_mut(&mut state, connection) else { return refused() };
    let added = address.tickles.add(*connection);
    address.tickles.update_needed |= added && update_needed;
    done()
}

fn remove(cx: &NodeCx, connection: &Connection) {
    let mut state = cx.state_mut();
    if let Some(address) = destination_mut(&mut state, connection)
        && address.tickles.remove(connection)
    {
        address.tickles.update_needed = true;
    }
}

/// The list, with the address as it was asked for.
fn list(state: &State, asked: SockAddr) -> ControlAnswer {
    let address = ip(&asked).and_then(|address| state.addresses.get(address));
    let port = asked.port();
    address.map_or_else(|| status(NOT_PUBLIC), |one| payload(&one.tickles.list(asked, port)))
}

/// The host's list.
fn replace(cx: &NodeCx, list: TickleList) -> ControlAnswer {
    let mut state = cx.state_mut();
    let own = Some(state.pnn());
    let address = ip(&list.addr).and_then(|address| state.addresses.get_mut(address));
    let Some(address) = address else { return status(NOT_PUBLIC) };
    // This node knows better.
    if address.host != own {
        address.tickles.replace(list.connections.iter().map(canonical).collect());
    }
    success(true)
}

/// Sends the lists of all addresses here to everybody: a node has started.
pub(in crate::node) fn send_all(cx: &NodeCx) {
    send(cx, |_| true);
}

/// Sends the lists that have so much that is new that it cannot wait.
pub(super) fn send_crowds(cx: &NodeCx) {
    send(cx, |tickles| tickles.crowd);
}

/// Sends the lists that are due.
fn send(cx: &NodeCx, is_due: fn(&Tickles) -> bool) {
    let lists: Vec<Vec<u8>> = {
        let mut state = cx.state_mut();
        let own = Some(state.pnn());
        let here = state.addresses.iter_mut().filter(|address| address.host == own);
        let due = here.filter(|address| is_due(&address.tickles));
        due.map(|address| {
            address.tickles.update_needed = false;
            address.tickles.crowd = false;
            address.tickles.list(address.sock_addr(), 0).to_bytes()
        })
        .collect()
    };
    for list in lists {
        broadcast_to_others(cx, State::connected, ControlOpcode::SET_TCP_TICKLE_LIST, &list);
    }
}

/// Sends what has changed from time to time, until the shutdown; returns at once.
pub(in crate::node) fn keep_sending(cx: &NodeCx) {
    let cx = cx.clone();
    cx.clone().spawn(async move {
        let stopping = |state: &State| state.run_state == RunState::Shutdown;
        loop {
            // Not without end if somebody sets it to 0.
            let interval_s = cx.state().tunable(Tunable::TickleUpdateInterval).max(1);
            if cx.until_or(cx.now().plus_seconds(interval_s), stopping).await {
                return;
            }
            send(&cx, |tickles| tickles.update_needed);
        }
    });
}
