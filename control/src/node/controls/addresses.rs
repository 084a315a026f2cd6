//! Public addresses on a node that has none.
//!
//! Role: the answers C gives with an empty address list. What would change an address list, or
//! act on an address that is not in it, is refused.
//! Origin: `docs/spec/cluster-semantics.md` 9.1-9.7; `ctdb/server/ctdb_takeover.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    Destination, Srvid,
    connection::{InterfaceList, PublicIp, PublicIpList},
    control::ControlRequest,
    process::RunState,
};

use super::answer::{done, payload, refused, status, success};
use crate::node::{Ask, NodeCx, Outcome, Tell, events, world::ControlAnswer};

/// Status of tickle controls for an address that is not public.
const NOT_PUBLIC: i32 = 1;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::GetPublicIps => payload(&PublicIpList::default()),
        ControlRequest::GetIfaces => payload(&InterfaceList::default()),
        // Without public addresses there is nothing to be tickled.
        ControlRequest::TcpClient(_)
        | ControlRequest::TcpClientDisconnected(_)
        | ControlRequest::TcpClientPassed(_)
        | ControlRequest::TcpAdd(_)
        | ControlRequest::TcpAddDelayedUpdate(_)
        | ControlRequest::TcpRemove(_) => done(),
        ControlRequest::GetTcpTickleList(_) | ControlRequest::SetTcpTickleList(_) => {
            status(NOT_PUBLIC)
        }
        ControlRequest::ReleaseIp(_) => done(),
        ControlRequest::TakeoverIp(PublicIp { pnn, .. }) => success(pnn == Some(cx.state().pnn())),
        ControlRequest::GetPublicIpInfo(_)
        | ControlRequest::SetIfaceLinkState(_)
        | ControlRequest::SendGratuitousArp(_)
        | ControlRequest::AddPublicIp(_)
        | ControlRequest::DelPublicIp(_) => refused(),
        ControlRequest::ReloadPublicIps => reload(cx).await,
        ControlRequest::StartIpreallocate => {
            if cx.state().run_state < RunState::Running {
                return ControlFlow::Break(done());
            }
            announce(cx, "startipreallocate", Srvid::START_IPREALLOCATE).await
        }
        ControlRequest::Ipreallocated => announce(cx, "ipreallocated", Srvid::IPREALLOCATED).await,
        other => return ControlFlow::Continue(other),
    })
}

/// A file without addresses is what this node has already.
async fn reload(cx: &NodeCx) -> ControlAnswer {
    match cx.ask(Ask::ReadPublicAddresses).await {
        Outcome::Names(Ok(names)) if names.is_empty() => done(),
        Outcome::Names(Ok(names)) => {
            tracing::error!(?names, "public addresses are not hosted by this daemon yet");
            refused()
        }
        other => {
            tracing::error!(?other, "cannot read the public addresses");
            refused()
        }
    }
}

/// Runs the event and tells the local clients.
async fn announce(cx: &NodeCx, event: &'static str, srvid: Srvid) -> ControlAnswer {
    let result = events::run(cx, event).await;
    let status_of_event = events::status(result);
    if status_of_event >= 0 {
        let to = Destination::Node(cx.state().pnn());
        cx.tell(Tell::Message { to, srvid, data: Vec::new() });
    }
    status(status_of_event)
}
