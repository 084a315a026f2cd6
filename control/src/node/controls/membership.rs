//! Flags, bans and roles of nodes, and what this node sees of the others.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.6, 1.8, 7.10; `ctdb/server/ctdb_banning.c`,
//! `ctdb_monitor.c`, `ctdb_recover.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    Pnn,
    capabilities::Capabilities,
    control::ControlRequest,
    node::{BanState, NodeFlagChange, NodeFlags},
    process::{RecMode, Role, RunState},
    tunable::Tunable,
};

use super::{
    answer::{done, payload, publish, publish_soon, refused},
    traverse,
};
use crate::node::{
    NodeCx, State, freeze::become_inactive, recd, state::FreezeState, world::ControlAnswer,
};

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::StopNode => {
            cx.state_mut().change_own_flags(|flags| flags.with(NodeFlags::STOPPED));
            become_inactive(cx).await;
            done()
        }
        ControlRequest::ContinueNode => {
            own_flags(cx, |flags| flags.without(NodeFlags::STOPPED)).await
        }
        ControlRequest::DisableNode => {
            own_flags(cx, |flags| flags.with(NodeFlags::PERMANENTLY_DISABLED)).await
        }
        ControlRequest::EnableNode => {
            own_flags(cx, |flags| flags.without(NodeFlags::PERMANENTLY_DISABLED)).await
        }
        ControlRequest::ModifyFlags(change) => modify_flags(cx, change).await,
        ControlRequest::SetBanState(ban) => set_ban(cx, ban).await,
        ControlRequest::GetBanState => {
            let state = cx.state();
            let seconds = state.ban.map_or(0, |(_, seconds)| seconds);
            payload(&BanState { pnn: state.pnn(), seconds })
        }
        ControlRequest::SetLmasterRole(role) => set_role(cx, Capabilities::LMASTER, role).await,
        ControlRequest::SetRecmasterRole(role) => set_role(cx, Capabilities::LEADER, role).await,
        other => return ControlFlow::Continue(other),
    })
}

async fn own_flags(cx: &NodeCx, change: impl FnOnce(NodeFlags) -> NodeFlags) -> ControlAnswer {
    cx.state_mut().change_own_flags(change);
    publish(cx).await;
    done()
}

async fn set_role(cx: &NodeCx, role: Capabilities, wanted: Role) -> ControlAnswer {
    {
        let capabilities = &mut cx.state_mut().capabilities;
        *capabilities = match wanted {
            Role::On => capabilities.with(role),
            Role::Off => capabilities.without(role),
        };
    }
    publish(cx).await;
    done()
}

/// What the leader knows of a node. Nobody is told about itself, and who is connected only this
/// node can see.
async fn modify_flags(cx: &NodeCx, change: NodeFlagChange) -> ControlAnswer {
    let changed = {
        let mut state = cx.state_mut();
        if change.pnn == state.pnn() {
            return done();
        }
        let starting = state.run_state <= RunState::Startup;
        let Some(old) = state.flags_of(change.pnn) else { return refused() };
        if old.intersects(NodeFlags::DISCONNECTED) {
            return done();
        }
        let flags = change.new_flags.without(NodeFlags::DISCONNECTED);
        state.set_flags(change.pnn, flags);
        if old != flags && flags.is_empty() && starting {
            tracing::info!(pnn = %change.pnn, "a node has become healthy; recovering for the start");
            state.recovery_mode = RecMode::Active;
        }
        old != flags
    };
    if changed {
        publish(cx).await;
    }
    done()
}

async fn set_ban(cx: &NodeCx, ban: BanState) -> ControlAnswer {
    if ban.pnn != cx.state().pnn() {
        return refused();
    }
    let was_banned = cx.state_mut().ban.take().is_some();
    if ban.seconds == 0 {
        return own_flags(cx, |flags| flags.without(NodeFlags::BANNED)).await;
    }
    if cx.state().tunable(Tunable::EnableBans) == 0 {
        tracing::info!("bans are disabled, the ban is ignored");
        return done();
    }
    tracing::warn!(seconds = ban.seconds, "this node is banned");
    let until = cx.now().plus_seconds(ban.seconds);
    {
        let mut state = cx.state_mut();
        state.ban = Some((until, ban.seconds));
        state.change_own_flags(|flags| flags.with(NodeFlags::BANNED));
    }
    cx.spawn(end_ban(cx.clone(), (until, ban.seconds)));
    if was_banned {
        publish(cx).await;
    } else {
        become_inactive(cx).await;
    }
    done()
}

/// Bans this node for `RecoveryBanPeriod`, as other nodes would.
pub fn ban_self(cx: &NodeCx) {
    let ban = {
        let state = cx.state();
        BanState { pnn: state.pnn(), seconds: state.tunable(Tunable::RecoveryBanPeriod) }
    };
    let sequence = cx.clone();
    cx.spawn(async move {
        set_ban(&sequence, ban).await;
    });
}

async fn end_ban(cx: NodeCx, ban: (crate::plane::Millis, u32)) {
    let replaced = move |state: &State| state.ban != Some(ban);
    if cx.until_or(ban.0, replaced).await {
        return;
    }
    if cx.state().frozen_all == FreezeState::Frozen {
        cx.state_mut().ban = None;
        own_flags(&cx, |flags| flags.without(NodeFlags::BANNED)).await;
    } else {
        tracing::error!("the databases are not frozen yet; the ban goes on");
        ban_self(&cx);
    }
}

/// Both connections to a node stand.
pub fn node_connected(cx: &NodeCx, pnn: Pnn) {
    seen_flags(cx, pnn, |flags| flags.without(NodeFlags::DISCONNECTED));
}

/// A connected node is of our kind.
pub fn node_announced(cx: &NodeCx, pnn: Pnn) {
    cx.state_mut().announced.insert(pnn);
}

/// A node is dead: its connections have broken, or it is silent.
pub fn node_gone(cx: &NodeCx, pnn: Pnn) {
    let lost = NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
    seen_flags(cx, pnn, |flags| flags.with(lost));
    traverse::node_gone(cx, pnn);
    if cx.state_mut().announced.remove(&pnn) {
        recd::lost_one_of_ours(cx, pnn);
    }
}

fn seen_flags(cx: &NodeCx, pnn: Pnn, change: impl Fn(NodeFlags) -> NodeFlags) {
    let changed = {
        let mut state = cx.state_mut();
        state.flags_of(pnn).is_some_and(|old| {
            let flags = change(old);
            state.set_flags(pnn, flags);
            old != flags
        })
    };
    if changed {
        publish_soon(cx);
    }
}

/// Something has happened that only a recovery repairs; the leader notices.
pub fn force_recovery(cx: &NodeCx) {
    let was = std::mem::replace(&mut cx.state_mut().recovery_mode, RecMode::Active);
    if was != RecMode::Active {
        publish_soon(cx);
    }
}
