//! What all families need: who asks, and the forms of an answer.

use ringmaster_protocol::{
    Encode, Generation, Pnn, Srvid, control::ControlOpcode, control_packet::ControlFlags,
};

use crate::node::{
    Ask, NodeCx, Outcome, State, Tell,
    world::{ClientId, ControlAnswer, DataAsk, Origin, OutgoingControl, Request},
};

/// A control's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Who asks.
    pub(super) from: Origin,
    /// Argument of a few controls.
    pub(super) srvid: Srvid,
    /// Flags.
    pub(super) flags: ControlFlags,
    /// Of the asking node's map; `None` for this node's own.
    pub(super) generation: Option<Generation>,
}

impl Call {
    pub(super) const fn new(request: &Request) -> Self {
        let Request { from, srvid, flags, generation, .. } = request;
        Self { from: *from, srvid: *srvid, flags: *flags, generation: *generation }
    }

    /// Whether the asking node was in the generation that holds here when it asked. Between its
    /// asking and now a recovery may have been.
    pub(super) fn is_current(&self, state: &State) -> bool {
        self.generation.is_none_or(|generation| generation == state.vnn_map.generation)
    }

    /// The client of this node that asks, if it is still there.
    pub(super) fn client(&self, state: &State) -> Option<ClientId> {
        match self.from {
            Origin::Client(id) if state.clients.contains_key(&id) => Some(id),
            _ => None,
        }
    }

    /// The node that asks.
    pub(super) fn node(&self, state: &State) -> Pnn {
        match self.from {
            Origin::Node(pnn, _) => pnn,
            Origin::Client(_) | Origin::Own => state.pnn(),
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

/// A status with an error text.
pub(super) fn error(status: i32, text: &str) -> ControlAnswer {
    ControlAnswer { status, data: Vec::new(), error: text.to_owned() }
}

/// 0 with a payload.
pub(super) fn payload(data: &impl Encode) -> ControlAnswer {
    ControlAnswer { data: data.to_bytes(), ..ControlAnswer::default() }
}

/// 0 with bytes as they are.
pub(super) fn bytes(data: Vec<u8>) -> ControlAnswer {
    ControlAnswer { data, ..ControlAnswer::default() }
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

/// A control for several nodes that nobody answers; with client id 0.
pub(super) fn broadcast(cx: &NodeCx, to: Vec<Pnn>, opcode: ControlOpcode, data: &[u8]) {
    for to in to {
        cx.tell(Tell::Control(OutgoingControl {
            to,
            opcode,
            srvid: Srvid(0),
            flags: ControlFlags::NOREPLY,
            client: None,
            data: data.to_vec(),
            timeout_s: 0,
        }));
    }
}

/// The same, for all nodes that a broadcast reaches but this one.
pub(in crate::node) fn broadcast_to_others(
    cx: &NodeCx,
    reached: fn(&State) -> Vec<Pnn>,
    opcode: ControlOpcode,
    data: &[u8],
) {
    let others = {
        let state = cx.state();
        let own = state.pnn();
        reached(&state).into_iter().filter(|pnn| *pnn != own).collect()
    };
    broadcast(cx, others, opcode, data);
}

/// Whether the client that asks has gone.
pub(super) fn gone_client(call: &Call) -> impl Fn(&State) -> bool + Unpin + use<> {
    let from = call.from;
    move |state| matches!(from, Origin::Client(id) if !state.clients.contains_key(&id))
}
