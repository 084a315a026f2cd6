//! Who leads: broadcasts, the timeout, elections by lock and by messages.
//!
//! Role: keeps [`State::leader`] and the cluster lock. The comparison of candidates: `election`.
//! Invariants
//! - One election at a time: neither a timeout nor a message starts a second one inside the first,
//!   and a node that is only about to call one gives way to one that has been called meanwhile.
//! - An election always ends: by its timer, or by the limit on taking the lock. Only while none is
//!   under way the leader timeout runs.
//! - Whoever holds the cluster lock and can lead is the leader after every election: a late
//!   broadcast of its predecessor costs one leader timeout, no more.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.2–6.5, 6.8; `ctdb/server/ctdb_recoverd.c`.

use ringmaster_protocol::{
    Decode, Destination, Pnn, Srvid,
    capabilities::Capabilities,
    control::kinds,
    node::BanState,
    process::{ElectionMessage, RecMode},
    tunable::Tunable,
};
use tracing::{info, warn};

use super::{
    ask::{control, message, multi},
    election::{Candidate, wins},
};
use crate::{
    node::{
        NodeCx, State,
        world::{Ask, LockResult, Outcome, Tell},
    },
    plane::Millis,
};

/// Between two broadcasts of the leader, in milliseconds.
const BROADCAST_MS: u64 = 1_000;
/// Between losing to nobody and saying so: C's delay of its election message, in milliseconds.
const ELECTION_RESEND_MS: u64 = 500;
/// Length of an election by messages in test mode, in milliseconds.
const ELECTION_FAST_MS: u64 = 500;
/// The same without anybody to wait for but this node's own word that there is an election, which
/// must not arrive after it and start another one; in milliseconds.
const ELECTION_ALONE_MS: u64 = 100;
/// A node that may not lead waits this much longer for a leader, in seconds. Its call for an election
/// would put off the timeout of a C node that may, each time anew (semantics 6.2).
const DEFERENCE_S: u32 = 1;
/// The longest election by messages among ours, in milliseconds: twice the delay of a candidature.
/// C nodes get the seconds of the tunable `ElectionTimeout`.
const ELECTION_OURS_MS: u64 = 1_000;
/// From giving up leadership to saying so among ours, in milliseconds: the lock has to be free by
/// then. C nodes wait for their leader timeout.
const YIELD_MS: u64 = 500;
/// Between two attempts at the cluster lock among ours, in milliseconds.
const LOCK_RETRY_MS: u64 = 500;
/// Limit on taking the cluster lock, in seconds.
const LOCK_TIMEOUT_S: u32 = 120;

/// Whether this node may lead.
pub(super) fn can_lead(state: &State) -> bool {
    !state.is_inactive() && state.capabilities.contains(Capabilities::LEADER)
}

/// Whether this node leads.
pub(super) fn leads(state: &State) -> bool {
    state.leader == Some(state.pnn())
}

fn has_lock(state: &State) -> bool {
    state.constants.cluster_lock.is_some()
}

/// In test mode a node that is alone in the list waits for nobody: no other node could answer.
fn hurries_alone(state: &State) -> bool {
    let deleted = ringmaster_protocol::node::NodeFlags::DELETED;
    state.constants.fast_start
        && !state.recd.elected_once
        && state.nodes_without(deleted).len() <= 1
}

/// Starts the leader timeout anew.
pub(super) fn restart_timeout(cx: &NodeCx) {
    let now = cx.now();
    let mut state = cx.state_mut();
    let wait_s = if hurries_alone(&state) {
        0
    } else if can_lead(&state) {
        state.constants.leader_timeout_s
    } else {
        state.constants.leader_timeout_s.saturating_add(DEFERENCE_S)
    };
    state.recd.leader_deadline = Some(now.plus_seconds(wait_s));
}

/// Starts it unless it is running: main loop step 4.
pub(super) fn start_timeout(cx: &NodeCx) {
    let running = cx.state().recd.leader_deadline.is_some();
    if !running {
        restart_timeout(cx);
    }
}

/// Broadcasts each second while this node leads; gives leadership and lock up when it cannot.
pub(super) async fn broadcasts(cx: NodeCx) {
    loop {
        let (able, leading, election) = {
            let state = cx.state();
            (can_lead(&state), leads(&state), state.recd.election_in_progress)
        };
        if !able {
            give_up(&cx);
        } else if leading && !election {
            announce(&cx, cx.state().leader);
        }
        let next = cx.now().plus(BROADCAST_MS);
        cx.until_or(next, |state| {
            // Not to keep the lock, or the word "leader", a second longer than necessary.
            !can_lead(state) && (leads(state) || state.lock_held)
        })
        .await;
    }
}

fn give_up(cx: &NodeCx) {
    let (leading, locked, ours) = {
        let state = cx.state();
        (leads(&state), state.lock_held, state.all_are_ours())
    };
    if leading {
        cx.state_mut().leader = None;
    }
    if locked {
        release_lock(cx);
    }
    if leading && ours {
        let own = cx.clone();
        super::spawn(cx, async move {
            own.sleep(YIELD_MS).await;
            let nobody = own.state().leader.is_none();
            if nobody {
                announce(&own, None);
            }
        });
    }
}

pub(super) fn release_lock(cx: &NodeCx) {
    cx.state_mut().lock_held = false;
    cx.tell(Tell::ReleaseLock);
}

fn announce(cx: &NodeCx, leader: Option<Pnn>) {
    let raw = leader.map_or(Destination::Unknown.to_raw(), Pnn::get);
    cx.tell(Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::LEADER,
        data: raw.to_le_bytes().to_vec(),
    });
}

/// A LEADER message.
pub(super) fn heard(cx: &NodeCx, data: &[u8]) {
    let Some(raw) = data.first_chunk::<4>().filter(|_| data.len() == 4) else { return };
    let raw = u32::from_le_bytes(*raw);
    if Destination::from_raw(raw) == Destination::Unknown {
        election_called(cx);
        return;
    }
    let Some(leader) = Pnn::new(raw) else { return };
    let echo = {
        let state = cx.state();
        leader == state.pnn() && !leads(&state)
    };
    if echo {
        // This node's own word, back after it has lost the leadership. C leads again then, without
        // an election, and bans itself if there is a cluster lock that it does not hold.
        return;
    }
    if cx.state().leader != Some(leader) {
        info!("Received leader broadcast, leader={leader}");
        cx.state_mut().leader = Some(leader);
    }
    restart_timeout(cx);
}

/// Somebody (perhaps this node) has called an election.
fn election_called(cx: &NodeCx) {
    let (was, lock) = {
        let mut state = cx.state_mut();
        state.recd.leader_deadline = None;
        (std::mem::replace(&mut state.recd.election_in_progress, true), has_lock(&state))
    };
    if was {
        return;
    }
    if lock {
        super::spawn(cx, {
            let cx = cx.clone();
            async move { lock_election(&cx).await }
        });
    } else {
        // The ELECTION message that follows starts this again. C starts nothing here and waits for
        // ever if the caller dies before it sends it.
        arm_election_timer(cx);
        let stands = {
            let state = cx.state();
            state.all_are_ours() && can_lead(&state)
        };
        if stands {
            // Who has given up its leadership sends none.
            send_candidature(cx);
        }
    }
}

/// Calls an election when no leader has been heard of for too long.
pub(super) async fn watch(cx: NodeCx) {
    loop {
        cx.until(|state| state.recd.leader_deadline.is_some()).await;
        let Some(deadline) = cx.state().recd.leader_deadline else { continue };
        if cx.until_or(deadline, |state| state.recd.leader_deadline != Some(deadline)).await {
            continue;
        }
        warn!("Leader broadcast timeout");
        cx.state_mut().recd.leader_deadline = None;
        force_election(&cx).await;
    }
}

/// Calls an election and holds it. Gives up without one if a node cannot be put into recovery
/// mode; the next leader timeout tries again.
pub(in crate::node::recd) async fn force_election(cx: &NodeCx) {
    {
        let mut state = cx.state_mut();
        if state.recd.election_in_progress || state.recd.calling_election {
            return;
        }
        state.recd.calling_election = true;
    }
    let active = cx.state().active();
    let stopped = multi::<kinds::SetRecMode>(cx, &active, &RecMode::Active).await;
    cx.state_mut().recd.calling_election = false;
    if let Err(failed) = stopped {
        warn!("Unable to set recovery mode to active on cluster: {failed}");
        return;
    }
    if cx.state().recd.election_in_progress {
        // Called by another node while this one was getting ready.
        return;
    }
    cx.state_mut().recd.election_in_progress = true;
    announce(cx, None);
    if has_lock(&cx.state()) {
        lock_election(cx).await;
    } else {
        arm_election_timer(cx);
        send_candidature(cx);
        cx.until(|state| !state.recd.election_in_progress).await;
    }
}

/// The node that gets the cluster lock leads.
async fn lock_election(cx: &NodeCx) {
    if !can_lead(&cx.state()) {
        if cx.state().lock_held {
            release_lock(cx);
        }
    } else if cx.state().lock_held {
        let own = cx.state().pnn();
        cx.state_mut().leader = Some(own);
    } else {
        cx.state_mut().leader = None;
        if take_free_lock(cx).await {
            let own = cx.state().pnn();
            warn!("Took cluster lock, leader={own}");
            cx.state_mut().leader = Some(own);
        }
    }
    election_over(cx);
}

/// Takes the lock. A dead leader's helper may hold it for some seconds: among ours, who does not
/// get it tries again until somebody leads, for no longer than the leader timeout.
async fn take_free_lock(cx: &NodeCx) -> bool {
    let until = cx.now().plus_seconds(cx.state().constants.leader_timeout_s);
    loop {
        if take_lock(cx).await {
            return true;
        }
        let tries_again = {
            let state = cx.state();
            state.all_are_ours() && can_lead(&state)
        };
        let next = cx.now().plus(LOCK_RETRY_MS);
        if !tries_again || next > until {
            return false;
        }
        if cx.until_or(next, |state| state.leader.is_some()).await {
            return false;
        }
    }
}

/// Takes the cluster lock.
async fn take_lock(cx: &NodeCx) -> bool {
    let outcome = cx.ask(Ask::TakeLock { timeout_s: LOCK_TIMEOUT_S }).await;
    match outcome {
        Outcome::Lock(LockResult::Taken(latency)) => {
            let mut state = cx.state_mut();
            state.lock_held = true;
            let counter = &mut state.counters.reclock_recd;
            counter.min = if counter.num == 0 { latency } else { counter.min.min(latency) };
            counter.num = counter.num.saturating_add(1);
            counter.max = counter.max.max(latency);
            counter.total += latency;
            true
        }
        Outcome::Lock(LockResult::Contention(_)) => {
            warn!("Unable to take cluster lock - contention");
            false
        }
        Outcome::Lock(LockResult::TimedOut) => {
            warn!("Unable to take cluster lock - timeout");
            false
        }
        _ => {
            warn!("Unable to take cluster lock - unknown error");
            false
        }
    }
}

fn election_over(cx: &NodeCx) {
    {
        let mut state = cx.state_mut();
        state.recd.election_in_progress = false;
        state.recd.election_ends = None;
        state.recd.elected_once = true;
        // The next round of the main loop need not wait for its second.
        state.recd.wake = state.constants.fast_start;
    }
    let leading = leads(&cx.state());
    if leading {
        announce(cx, cx.state().leader);
    }
}

fn arm_election_timer(cx: &NodeCx) {
    let now = cx.now();
    let mut state = cx.state_mut();
    let configured_ms = 1_000 * u64::from(state.tunables.value(Tunable::ElectionTimeout));
    let wait_ms = match (hurries_alone(&state), fast(&state)) {
        (true, _) => ELECTION_ALONE_MS,
        (false, true) => ELECTION_FAST_MS,
        (false, false) if state.all_are_ours() => ELECTION_OURS_MS.min(configured_ms),
        (false, false) => configured_ms,
    };
    state.recd.election_ends = Some(now.plus(wait_ms));
}

/// Test mode hurries until the first election has been held.
fn fast(state: &State) -> bool {
    state.constants.fast_start && !state.recd.elected_once
}

/// Sends this node's candidature and takes it for the winner.
fn send_candidature(cx: &NodeCx) {
    let candidature = {
        let state = cx.state();
        let able = can_lead(&state);
        let connected = state.connected().len();
        ElectionMessage {
            num_connected: if able { u32::try_from(connected).unwrap_or(u32::MAX) } else { 0 },
            priority_time: candidate(&state, cx.now()).priority_time,
            pnn: state.pnn(),
            node_flags: state.own_flags(),
        }
    };
    let own = candidature.pnn;
    cx.state_mut().leader = Some(own);
    message(cx, Destination::BroadcastAll, Srvid::ELECTION, &candidature);
}

fn candidate(state: &State, now: Millis) -> Candidate {
    let can_lead = can_lead(state);
    let priority_time = if can_lead { state.recd.priority_time } else { state.wall_clock_at(now) };
    Candidate { pnn: state.pnn(), can_lead, priority_time }
}

/// An ELECTION message.
pub(super) fn rival(cx: &NodeCx, data: &[u8]) {
    let Ok(rival) = ElectionMessage::from_bytes(data) else { return };
    let own = candidate(&cx.state(), cx.now());
    if rival.pnn == own.pnn {
        return;
    }
    {
        let mut state = cx.state_mut();
        state.recd.election_in_progress = true;
        state.recd.leader_deadline = None;
    }
    arm_election_timer(cx);
    if wins(&own, &rival) {
        let at = cx.now().plus(ELECTION_RESEND_MS);
        cx.state_mut().recd.election_send_at.get_or_insert(at);
        return;
    }
    let locked = {
        let mut state = cx.state_mut();
        state.recd.election_send_at = None;
        state.lock_held
    };
    if locked {
        release_lock(cx);
    }
    cx.state_mut().leader = Some(rival.pnn);
}

/// Sends the scheduled candidatures.
pub(super) async fn candidatures(cx: NodeCx) {
    loop {
        cx.until(|state| state.recd.election_send_at.is_some()).await;
        let Some(at) = cx.state().recd.election_send_at else { continue };
        if !cx.until_or(at, |state| state.recd.election_send_at != Some(at)).await {
            cx.state_mut().recd.election_send_at = None;
            send_candidature(&cx);
        }
    }
}

/// Ends elections by messages.
pub(super) async fn election_timer(cx: NodeCx) {
    loop {
        cx.until(|state| state.recd.election_ends.is_some()).await;
        let Some(at) = cx.state().recd.election_ends else { continue };
        if !cx.until_or(at, |state| state.recd.election_ends != Some(at)).await {
            election_ended(&cx).await;
        }
    }
}

/// The winner takes the cluster lock before the election is over: nobody may find it leading
/// without.
async fn election_ended(cx: &NodeCx) {
    cx.state_mut().recd.election_ends = None;
    let (own, take) = {
        let state = cx.state();
        (state.pnn(), leads(&state) && has_lock(&state) && !state.lock_held)
    };
    let failed = take && !take_lock(cx).await;
    if cx.state().recd.election_ends.is_some() {
        // Another candidate has spoken meanwhile.
        return;
    }
    let leader = cx.state().leader;
    let shown = leader.map_or(Destination::Unknown.to_raw(), Pnn::get);
    warn!("Election period ended, leader={shown}");
    if failed {
        warn!("Unable to get cluster lock, banning this node");
        ban_self(cx, own).await;
    }
    election_over(cx);
}

/// Bans this node for `RecoveryBanPeriod`.
pub(super) async fn ban_self(cx: &NodeCx, own: Pnn) {
    let seconds = cx.state().tunables.value(Tunable::RecoveryBanPeriod);
    let ban = BanState { pnn: own, seconds };
    if let Err(failed) = control::<kinds::SetBanState>(cx, own, &ban).await {
        warn!("Unable to ban this node: {failed}");
    }
}
