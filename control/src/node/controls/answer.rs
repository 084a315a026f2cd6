//! What all families need: who asks, and the forms of an answer.

use ringmaster_protocol::{Srvid, control_packet::ControlFlags};

use crate::node::{
    Ask, NodeCx, Outcome, State, Tell,
    world::{ClientId, ControlAnswer, DataAsk, Origin, Request},
};

/// A control's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Who asks.
    pub(super) from: Origin,
    /// Argument of a few controls.
    pub(super) srvid: Srvid,
}

impl Call {
    pub(super) const fn new(request: &Request) -> Self {
        Self { from: request.from, srvid: request.srvid }
    }

    /// The client of this node that asks, if it is still there.
    pub(super) fn client(&self, state: &State) -> Option<ClientId> {
        match self.from {
            Origin::Client(id) if state.clients.contains_key(&id) => Some(id),
            _ => None,
        }
    }
}

/// Sends the answer, unless nobody wants one.
pub(super) fn reply(cx: &NodeCx, request: &Request, answer: ControlAnswer) {
    if !request.flags.contains(ControlFlags::NOREPLY) {
        cx.tell(Tell::Reply { request: request.id, answer });
    }
}

/// A status and nothing else.
pub(super) fn status(status: i32) -> ControlAnswer {
    ControlAnswer { status, ..ControlAnswer::default() }
}

/// 0.
pub(super) fn done() -> ControlAnswer {
    status(0)
}

/// -1 without text.
pub(super) fn refused() -> ControlAnswer {
    status(-1)
}

/// 0 or -1.
pub(super) fn success(done: bool) -> ControlAnswer {
    status(if done { 0 } else { -1 })
}

/// An order to the data plane that either works or does not.
pub(super) async fn data(cx: &NodeCx, ask: DataAsk) -> bool {
    !matches!(cx.ask(Ask::Data(ask)).await, Outcome::Failed(_))
}

/// Lets the shards know how things are.
pub(super) async fn publish(cx: &NodeCx) {
    cx.ask(Ask::Data(DataAsk::Publish)).await;
}

/// The same, from where nobody can wait.
pub(super) fn publish_soon(cx: &NodeCx) {
    let sequence = cx.clone();
    cx.spawn(async move { publish(&sequence).await });
}
