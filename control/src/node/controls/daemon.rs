//! The daemon itself: settings, nodes list, memory.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.3, 1.5, 11.1, 15.4; `ctdb/server/ctdb_control.c`.

use std::{fmt::Write, ops::ControlFlow};

use ringmaster_protocol::{
    Destination, Srvid,
    control::ControlRequest,
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, ReclockLatency},
    text::{BareText, Text},
    tunable::{Tunable, TunableSetting},
};

use super::{
    addresses,
    answer::{done, payload, publish, refused, status},
    statistics::add_latency,
};
use crate::node::{Ask, NodeCx, Outcome, State, Tell, state::NodeEntry, world::ControlAnswer};

/// Status of SET_TUNABLE for a name without effect; its value is kept all the same.
const OBSOLETE: i32 = 1;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::SetTunable(setting) => set_tunable(cx, setting).await,
        ControlRequest::SetDebug(level) => set_debug(cx, level).await,
        // The recovery daemon's sequences are part of this process: nobody to be missed.
        ControlRequest::RecdPing => done(),
        // A node has started: it wants the tickle lists of the addresses here.
        ControlRequest::Startup => {
            addresses::tickles::send_all(cx);
            done()
        }
        ControlRequest::RecdReclockLatency(ReclockLatency(seconds)) => {
            add_latency(&mut cx.state_mut().counters.reclock_recd, seconds);
            done()
        }
        ControlRequest::DumpMemory => dump_memory(&cx.state()),
        ControlRequest::GetNodesFile => nodes_file(cx).await,
        ControlRequest::ReloadNodesFile => reload_nodes(cx).await,
        other => return ControlFlow::Continue(other),
    })
}

async fn set_tunable(cx: &NodeCx, setting: TunableSetting<'_>) -> ControlAnswer {
    let Some(tunable) = Tunable::from_name(setting.name.0.as_bytes()) else { return refused() };
    cx.state_mut().tunables.set(tunable, setting.value);
    publish(cx).await;
    if tunable.info().obsolete { status(OBSOLETE) } else { done() }
}

async fn set_debug(cx: &NodeCx, level: DebugLevel) -> ControlAnswer {
    cx.state_mut().debug_level = level;
    cx.tell(Tell::SetLogLevel(level.0));
    publish(cx).await;
    done()
}

/// What the tables hold, in the form of C's report: tools only look at the form.
fn dump_memory(state: &State) -> ControlAnswer {
    let tables = [
        ("nodes", state.nodes.len(), size_of::<NodeEntry>()),
        ("vnn_map", state.vnn_map.map.len(), size_of::<u32>()),
        ("tunables", 1, size_of_val(&state.tunables)),
        ("databases", state.databases.len(), size_of::<crate::node::state::Database>()),
        ("clients", state.clients.len(), size_of::<crate::node::state::Client>()),
        ("attaching", state.attaching.len(), size_of::<String>()),
        ("traverses", state.traverses.len(), size_of::<crate::node::state::Traverse>()),
        (
            "local_traverses",
            state.local_traverses.len(),
            size_of::<crate::node::state::LocalTraverse>(),
        ),
        ("mailbox", state.mailbox.len(), size_of::<(Srvid, Vec<u8>)>()),
        ("counters", 1, size_of_val(&state.counters)),
        ("statistics_history", state.history.len(), 488),
    ];
    let bytes: usize = tables.iter().map(|(_, count, size)| count * size).sum();
    let blocks: usize = tables.iter().map(|(_, count, _)| count).sum();
    let mut text = format!(
        "full talloc report on 'ctdb_context' (total {bytes:6} bytes in {blocks} blocks)\n"
    );
    for (name, count, size) in tables {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "    {name:<30} contains {:6} bytes in {count:3} blocks (ref 0) 0x0",
            count * size,
        );
    }
    payload(&BareText(Text::new(text.as_bytes())))
}

async fn read_nodes(cx: &NodeCx) -> Option<NodeMap> {
    match cx.ask(Ask::ReadNodes).await {
        Outcome::Nodes(Ok(nodes)) => Some(nodes),
        other => {
            tracing::error!(?other, "cannot read the nodes list");
            None
        }
    }
}

async fn nodes_file(cx: &NodeCx) -> ControlAnswer {
    let Some(mut nodes) = read_nodes(cx).await else { return refused() };
    for node in &mut nodes.0 {
        node.flags = NodeFlags(node.flags.0 & NodeFlags::DELETED.0);
    }
    payload(&nodes)
}

/// A node whose address is as before stays as it is; any other one is new. A list in which this
/// node is not what it was is refused: C's daemon goes on as somebody it is not.
async fn reload_nodes(cx: &NodeCx) -> ControlAnswer {
    let Some(nodes) = read_nodes(cx).await else {
        // C's daemon ends too: it cannot tell any more who belongs to the cluster.
        cx.tell(Tell::Exit(1));
        return refused();
    };
    let own = {
        let mut state = cx.state_mut();
        let own = state.pnn();
        if !keeps(&state, &nodes) {
            tracing::error!(
                pnn = %own,
                "the new nodes list has another node, or none, in this node's place; not taken. \
                 Put the address back, or stop this daemon first",
            );
            return refused();
        }
        let old = std::mem::take(&mut state.nodes);
        state.nodes = nodes.0.iter().map(|node| taken_over(&old, node)).collect();
        own
    };
    cx.tell(Tell::NodesChanged);
    publish(cx).await;
    let to = Destination::Node(own);
    cx.tell(Tell::Message { to, srvid: Srvid::RELOAD_NODES, data: Vec::new() });
    done()
}

/// This node stands in the new list as in the old one.
fn keeps(state: &State, nodes: &NodeMap) -> bool {
    let own = state.nodes.iter().find(|node| node.pnn == state.pnn());
    let new = nodes.find(state.pnn());
    new.is_some_and(|new| !new.flags.intersects(NodeFlags::DELETED))
        && own.map(|own| own.address) == new.map(|new| new.addr)
}

fn taken_over(old: &[NodeEntry], node: &NodeAndFlags) -> NodeEntry {
    let same = |old: &&NodeEntry| old.pnn == node.pnn && old.address == node.addr;
    let deleted = node.flags.intersects(NodeFlags::DELETED);
    let new = if deleted { NodeFlags::DELETED } else { NodeFlags::UNHEALTHY };
    old.iter().find(same).cloned().unwrap_or(NodeEntry {
        pnn: node.pnn,
        address: node.addr,
        flags: new.with(NodeFlags::DISCONNECTED),
    })
}
