//! Controls and messages of the recovery daemon.
//!
//! Role: one control to one node or to several at once ("multi"), each with the timeout
//! `RecoverTimeout`; typed requests and replies.
//! Invariant: a multi waits for all its replies; its failure is the one that came first in time.
//! Origin: `docs/spec/cluster-semantics.md` 6.1, 7; `ctdb/client/client_control.c`.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use ringmaster_protocol::{
    Destination, Encode, Pnn, Srvid,
    control::{Control, ReplyBody},
    control_packet::{ControlFlags, ReplyControl},
    tunable::Tunable,
};

use crate::node::{
    NodeCx, State,
    world::{Ask, ControlAnswer, Outcome, OutgoingControl, Tell},
};

/// A control that failed, or another step that has a culprit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node}: {reason}")]
pub(super) struct Failed {
    /// Whose failure it was.
    pub node: Pnn,
    /// For the log.
    pub reason: String,
}

impl Failed {
    pub(super) fn new(node: Pnn, reason: impl Into<String>) -> Self {
        Self { node, reason: reason.into() }
    }
}

/// A control of type `K` with this payload.
pub(super) fn outgoing<K: Control>(
    state: &State,
    to: Pnn,
    request: &K::Request<'_>,
) -> OutgoingControl {
    OutgoingControl {
        to,
        opcode: K::OPCODE,
        srvid: Srvid(0),
        flags: ControlFlags::NONE,
        client: None,
        data: request.to_bytes(),
        timeout_s: state.tunables.value(Tunable::RecoverTimeout),
    }
}

/// Reads a reply to a `K`; `None` for a failure or for bytes that make no sense.
pub(super) fn read<K: Control>(answer: &ControlAnswer) -> Option<K::Reply<'_>> {
    let packet =
        ReplyControl { status: answer.status, data: &answer.data, error: answer.error.as_bytes() };
    K::Reply::from_reply(&packet).ok()
}

/// One control to one node.
pub(super) async fn control<K: Control>(
    cx: &NodeCx,
    to: Pnn,
    request: &K::Request<'_>,
) -> Result<ControlAnswer, Failed> {
    let what = outgoing::<K>(&cx.state(), to, request);
    judge::<K>(to, cx.ask(Ask::Control(what)).await)
}

/// The same control to several nodes at once.
pub(super) async fn multi<K: Control>(
    cx: &NodeCx,
    nodes: &[Pnn],
    request: &K::Request<'_>,
) -> Result<Vec<(Pnn, ControlAnswer)>, Failed> {
    multi_with::<K>(cx, nodes, request, |_| {}).await
}

/// The same with flags.
pub(super) async fn multi_flagged<K: Control>(
    cx: &NodeCx,
    nodes: &[Pnn],
    request: &K::Request<'_>,
    flags: ControlFlags,
) -> Result<Vec<(Pnn, ControlAnswer)>, Failed> {
    multi_with::<K>(cx, nodes, request, |what| what.flags = flags).await
}

/// The same with whatever change to each control.
pub(super) async fn multi_with<K: Control>(
    cx: &NodeCx,
    nodes: &[Pnn],
    request: &K::Request<'_>,
    change: impl Fn(&mut OutgoingControl),
) -> Result<Vec<(Pnn, ControlAnswer)>, Failed> {
    let ask = |to: &Pnn| {
        let mut what = outgoing::<K>(&cx.state(), *to, request);
        change(&mut what);
        what
    };
    let outcomes = crowd(cx, nodes.iter().map(ask).collect()).await;
    let mut answers = Vec::with_capacity(nodes.len());
    for (place, outcome) in outcomes {
        let node = nodes[place];
        answers.push((place, node, judge::<K>(node, outcome)?));
    }
    answers.sort_by_key(|(place, ..)| *place);
    Ok(answers.into_iter().map(|(_, node, answer)| (node, answer)).collect())
}

/// Many controls at once; the outcomes in the order in which they came, each with its place.
pub(super) async fn crowd(cx: &NodeCx, what: Vec<OutgoingControl>) -> Vec<(usize, Outcome)> {
    cx.ask_all(what.into_iter().map(Ask::Control)).await
}

/// Each node's reply on its own, failures included.
pub(super) async fn each<K: Control>(
    cx: &NodeCx,
    nodes: &[Pnn],
    request: &K::Request<'_>,
) -> Vec<(Pnn, Result<ControlAnswer, Failed>)> {
    let ask = |to: &Pnn| cx.ask(Ask::Control(outgoing::<K>(&cx.state(), *to, request)));
    let outcomes = crate::plane::join_all(nodes.iter().map(ask).collect()).await;
    let judged = nodes.iter().zip(outcomes);
    judged.map(|(node, outcome)| (*node, judge::<K>(*node, outcome))).collect()
}

/// A success, or who failed and how.
pub(super) fn judge<K: Control>(node: Pnn, outcome: Outcome) -> Result<ControlAnswer, Failed> {
    let failed = |reason: String| Failed::new(node, format!("{}: {reason}", K::OPCODE));
    match outcome {
        Outcome::Reply(Ok(answer)) if read::<K>(&answer).is_some() => Ok(answer),
        Outcome::Reply(Ok(answer)) => {
            Err(failed(format!("status {} {}", answer.status, answer.error)))
        }
        Outcome::Reply(Err(failure)) => Err(failed(format!("{failure:?}"))),
        Outcome::Failed(reason) => Err(failed(reason)),
        other => Err(failed(format!("unexpected outcome {other:?}"))),
    }
}

/// A message.
pub(super) fn message(cx: &NodeCx, to: Destination, srvid: Srvid, data: &impl Encode) {
    cx.tell(Tell::Message { to, srvid, data: data.to_bytes() });
}

/// Carries `work` on until it ends or until the state says that it is `over` (`None`); then
/// nothing that it waits for matters any more.
pub(super) async fn unless<T>(
    cx: &NodeCx,
    work: impl Future<Output = T>,
    over: impl Fn(&State) -> bool,
) -> Option<T> {
    let mut work = Box::pin(work);
    poll_fn(|task| {
        if over(&cx.state()) {
            return Poll::Ready(None);
        }
        work.as_mut().poll(task).map(Some)
    })
    .await
}
