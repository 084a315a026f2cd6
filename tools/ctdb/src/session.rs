//! A run with a daemon: the connection, the node asked, the cluster's leader.
//!
//! Role: typed requests with C's messages for their failures, and what several families need
//! (node map, leader, messages to the leader).
//! Invariants
//! - A failed request has said so on standard error when its [`Refused`] is returned; callers add
//!   their own line, as C's do.
//! - With a time limit of 0 nothing is sent, so that nothing can have happened.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2; `docs/spec/wire-protocol.md` 3.5, 5.

use std::fmt::Display;
use std::time::{Duration, Instant};

use ringmaster_client::{Client, ControlError, ControlOptions, ReceiveError};
use ringmaster_protocol::control::{Control, ControlOpcode, kinds};
use ringmaster_protocol::node::{NodeAndFlags, NodeFlags, NodeMap};
use ringmaster_protocol::process::DisableMessage;
use ringmaster_protocol::{Destination, Encode, Pnn, Srvid};

use crate::command::Failure;
use crate::output::Output;
use crate::tool::Tool;

/// Requests on their way at one time when many are sent.
const BATCH: usize = 1000;
/// "As long as it takes", for a library that wants a number.
pub(crate) const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// A request that failed and has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// C's return value: an errno, or what the daemon answered.
    pub code: i32,
    /// The daemon went away: asking again is useless.
    pub closed: bool,
}

impl Refused {
    /// Exit status of a command that stops here without another word.
    #[must_use]
    pub fn status(self) -> u8 {
        Failure::status_of(self.code)
    }

    /// Stops with one more line and this status.
    #[must_use]
    pub fn explain(self, text: impl Display) -> Failure {
        self.explain_with(self.status(), text)
    }

    /// Stops with one more line and another status.
    #[must_use]
    pub fn explain_with(self, status: u8, text: impl Display) -> Failure {
        if self.closed { Failure::Status(1) } else { Failure::with_status(status, text) }
    }
}

impl From<&ControlError> for Refused {
    fn from(error: &ControlError) -> Self {
        match error {
            ControlError::Connection(_) => Self { code: 1, closed: true },
            _ => Self { code: error.errno(), closed: false },
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Status(refused.status())
    }
}

/// A run that is connected.
pub struct Session<'a> {
    pub tool: Tool<'a>,
    pub client: Client,
    /// Node whose daemon we are connected to.
    pub own: u32,
    /// Node the command is about: `-n`, else the own one.
    pub target: u32,
    leader: Option<u32>,
    nodemap: Option<NodeMap>,
    reply_ids: u16,
}

impl<'a> Session<'a> {
    /// Starts a run over a fresh connection.
    #[must_use]
    pub fn new(tool: Tool<'a>, client: Client) -> Self {
        let own = client.own_node().to_raw();
        Self { tool, client, own, target: own, leader: None, nodemap: None, reply_ids: 0 }
    }

    /// The two streams.
    pub fn output(&mut self) -> &mut Output<'a> {
        &mut self.tool.output
    }

    /// A line on standard error.
    pub fn complain(&mut self, text: impl Display) {
        self.tool.output.complain(text);
    }

    /// Limit of one request.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.tool.options.request_timeout().unwrap_or(NO_LIMIT)
    }

    /// Asks a node. For replies that borrow nothing; see [`Session::ask`] for the others.
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn control<C, T>(&mut self, node: u32, request: &C::Request<'_>) -> Result<T, Refused>
    where
        C: for<'r> Control<Reply<'r> = T>,
    {
        self.ask::<C, T>(node, request, |reply| reply)
    }

    /// Asks a node and keeps what `read` takes from the reply.
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn ask<C: Control, T>(
        &mut self,
        node: u32,
        request: &C::Request<'_>,
        read: impl FnOnce(C::Reply<'_>) -> T,
    ) -> Result<T, Refused> {
        let timeout = self.timeout();
        let to = Destination::from_raw(node);
        let answer = if timeout.is_zero() {
            Err(timed_out::<C>(node))
        } else if !matches!(to, Destination::Node(_)) {
            // What a daemon answers; the library refuses to ask.
            Err(ControlError::Failed { control: C::OPCODE, to, status: -1, text: String::new() })
        } else {
            self.client.control_with::<C>(to, request, ControlOptions::timeout(timeout)).map(read)
        };
        answer.map_err(|error| self.refused(C::OPCODE, node, &error))
    }

    /// Asks several nodes at once. Answers in the order of the nodes. Unlike with
    /// [`Session::control`], a failure is not reported: C's tool says what it means for the whole.
    pub fn control_all<C, T>(
        &mut self,
        nodes: &[u32],
        request: &C::Request<'_>,
    ) -> Vec<Result<T, Refused>>
    where
        C: for<'r> Control<Reply<'r> = T>,
    {
        let timeout = self.timeout();
        let mut answers = Vec::with_capacity(nodes.len());
        if timeout.is_zero() {
            answers.extend(nodes.iter().map(|node| Err(timed_out::<C>(*node))));
        } else {
            let pnns: Vec<Pnn> = nodes.iter().filter_map(|node| Pnn::new(*node)).collect();
            let options = ControlOptions::timeout(timeout);
            self.client.control_each::<C>(&pnns, request, options, |_pnn, answer| {
                answers.push(answer);
            });
        }
        answers.into_iter().map(|answer| answer.map_err(|error| Refused::from(&error))).collect()
    }

    /// Sends one node many requests at once and counts those that fail, without a word about any.
    pub fn count_failures<C>(&mut self, node: u32, requests: &[C::Request<'_>]) -> usize
    where
        C: for<'r> Control<Reply<'r> = ()>,
    {
        let timeout = self.timeout();
        if timeout.is_zero() {
            return requests.len();
        }
        let (to, options) = (Destination::from_raw(node), ControlOptions::timeout(timeout));
        let mut failed = 0;
        // Some at a time: the connection bounds the requests that may wait for an answer.
        for batch in requests.chunks(BATCH) {
            let tickets: Vec<_> =
                batch.iter().map(|request| self.client.start::<C>(to, request, options)).collect();
            for ticket in tickets {
                let answer = ticket.and_then(|ticket| self.client.finish::<C>(ticket));
                failed += usize::from(answer.is_err());
            }
        }
        failed
    }

    /// Reports a failed request as C's library does.
    pub fn refused(&mut self, control: ControlOpcode, node: u32, error: &ControlError) -> Refused {
        let (name, code) = (control_name(control), error.errno());
        match error {
            ControlError::Connection(_) => {}
            ControlError::Failed { .. } | ControlError::Malformed { .. } => {
                self.complain(format_args!("Control {name} failed, ret={code}"));
            }
            _ => self.complain(format_args!("Control {name} failed to node {node}, ret={code}")),
        }
        error.into()
    }

    /// Hears the leader's broadcasts from now on, as C's tool does in every run.
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn listen_for_leader(&mut self) -> Result<(), Refused> {
        self.register(Srvid::LEADER)
    }

    /// The own daemon passes messages for this id on to us from now on. No time limit of `-t`:
    /// that is about other people's work.
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn register(&mut self, srvid: Srvid) -> Result<(), Refused> {
        let own = self.own;
        let registered = self.client.register(srvid);
        registered.map_err(|error| self.refused(kinds::RegisterSrvid::OPCODE, own, &error))
    }

    /// Ends [`Session::register`].
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn deregister(&mut self, srvid: Srvid) -> Result<(), Refused> {
        let own = self.own;
        let ended = self.client.deregister(srvid);
        ended.map_err(|error| self.refused(kinds::DeregisterSrvid::OPCODE, own, &error))
    }

    /// An id of our own for answers that come as messages.
    pub fn reply_id(&mut self) -> Srvid {
        self.reply_ids = self.reply_ids.wrapping_add(1);
        Srvid::tool_reply(std::process::id(), self.reply_ids)
    }

    /// Sends a message; `name` is C's for it.
    ///
    /// # Errors
    /// [`Refused`], reported.
    pub fn message(
        &mut self,
        to: Destination,
        srvid: Srvid,
        name: &str,
        data: &[u8],
    ) -> Result<(), Refused> {
        // The message is on its way to our daemon, or that daemon is gone: nothing between.
        let sent = self.client.send_message(to, srvid, data);
        sent.map_err(|_| {
            self.complain(format_args!("Message {name} failed to node {}", to.to_raw()));
            Refused { code: 1, closed: true }
        })
    }

    /// Waits for a message for `srvid` until `limit` has passed (`None` in the result).
    ///
    /// # Errors
    /// The connection is gone.
    pub fn await_message(
        &mut self,
        srvid: Srvid,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, Refused> {
        match self.client.receive_to(srvid, limit) {
            Ok(message) => Ok(Some(message.data)),
            // Lost messages are as good as late ones: whoever waits asks again.
            Err(ReceiveError::TimedOut { .. } | ReceiveError::Lost { .. }) => Ok(None),
            Err(_) => Err(Refused { code: 1, closed: true }),
        }
    }

    /// Number of the leader, if it is heard within the time limit.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn leader(&mut self) -> Result<Option<u32>, Refused> {
        let deadline = Instant::now() + self.timeout();
        loop {
            // Everything that has come meanwhile; only the last word counts.
            while let Some(data) = self.await_message(Srvid::LEADER, Duration::ZERO)? {
                self.note_leader(&data);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.leader.is_some() || left.is_zero() {
                return Ok(self.leader);
            }
            if let Some(data) = self.await_message(Srvid::LEADER, left)? {
                self.note_leader(&data);
            }
        }
    }

    fn note_leader(&mut self, data: &[u8]) {
        if let Some(raw) = data.first_chunk::<4>().map(|raw| u32::from_le_bytes(*raw)) {
            // No number of a node: an election has begun, nobody leads until the next broadcast.
            self.leader = Pnn::new(raw).map(Pnn::get);
        }
    }

    /// The node map, fetched once in a run. Whatever node a command is about, the own daemon is
    /// asked; while the own node is banned its map is as old as the ban, so another connected
    /// node is asked.
    ///
    /// # Errors
    /// Explained.
    pub fn nodemap(&mut self) -> Result<NodeMap, Failure> {
        if self.nodemap.is_none() {
            self.nodemap = Some(self.fresh_nodemap()?);
        }
        Ok(self.nodemap.clone().unwrap_or_default())
    }

    /// The node map as it is now.
    ///
    /// # Errors
    /// Explained.
    pub fn fresh_nodemap(&mut self) -> Result<NodeMap, Failure> {
        let own = self.own;
        let map = self.nodemap_of(own)?;
        let unusable = NodeFlags::DISCONNECTED | NodeFlags::DELETED | NodeFlags::BANNED;
        let banned =
            |node: &NodeAndFlags| node.pnn.get() == own && node.flags.contains(NodeFlags::BANNED);
        let map = if map.0.iter().any(banned) {
            let usable =
                |node: &&NodeAndFlags| node.pnn.get() != own && !node.flags.intersects(unusable);
            let other = map.0.iter().find(usable).map(|node| node.pnn.get());
            // Called a warning, yet the end of every command but unban.
            let other = other.ok_or_else(|| Failure::new("Warning: All nodes are banned."))?;
            self.nodemap_of(other)?
        } else {
            map
        };
        self.nodemap = Some(map.clone());
        Ok(map)
    }

    fn nodemap_of(&mut self, node: u32) -> Result<NodeMap, Failure> {
        self.control::<kinds::GetNodeMap, _>(node, &()).map_err(|refused| {
            refused.explain_with(1, format_args!("Failed to get nodemap from node {node}"))
        })
    }

    /// Tells the recovery daemons of `nodes` to hold something back for `seconds` (0: no longer),
    /// and waits until each has answered, or the time limit has passed.
    ///
    /// # Errors
    /// [`HoldError`].
    pub fn hold(
        &mut self,
        what: Srvid,
        name: &str,
        nodes: &[u32],
        seconds: u32,
    ) -> Result<(), HoldError> {
        let reply_id = self.reply_id();
        self.register(reply_id).map_err(HoldError::Refused)?;
        let held = self.hold_registered(what, name, nodes, seconds, reply_id);
        // The process ends soon, and its registrations with it.
        let _forgotten = self.deregister(reply_id);
        held
    }

    fn hold_registered(
        &mut self,
        what: Srvid,
        name: &str,
        nodes: &[u32],
        seconds: u32,
        reply_id: Srvid,
    ) -> Result<(), HoldError> {
        let message = DisableMessage { pnn: Pnn::new(self.own), srvid: reply_id, timeout: seconds };
        for node in nodes {
            self.message(Destination::from_raw(*node), what, name, &message.to_bytes())
                .map_err(HoldError::Refused)?;
        }
        let deadline = Instant::now() + self.timeout();
        let mut waiting: Vec<u32> = nodes.to_vec();
        while !waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.await_message(reply_id, left).map_err(HoldError::Refused)?;
            // C goes on without those who do not answer: who is stuck does no harm meanwhile.
            let Some(answer) = answer else { break };
            // A number of a node, or a negative errno.
            let Some(answer) = answer.first_chunk::<4>().map(|raw| i32::from_le_bytes(*raw)) else {
                continue;
            };
            let Ok(node) = u32::try_from(answer) else { return Err(HoldError::Failed(answer)) };
            waiting.retain(|waited| *waited != node);
        }
        Ok(())
    }
}

/// Why [`Session::hold`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// A request of ours failed.
    Refused(Refused),
    /// Somebody answered with this negative errno.
    Failed(i32),
}

impl HoldError {
    /// Exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Refused(refused) => refused.status(),
            Self::Failed(_) => 1,
        }
    }
}

/// What a request with no time at all comes to.
fn timed_out<C: Control>(node: u32) -> ControlError {
    let (control, to) = (C::OPCODE, Destination::from_raw(node));
    ControlError::TimedOut { control, to, timeout: Duration::ZERO }
}

/// C's name of a control in its messages, one accident of spelling included.
fn control_name(control: ControlOpcode) -> String {
    match control.to_string().as_str() {
        "SET_DB_READONLY" => "SET_DB_READONY".to_owned(),
        name => name.to_owned(),
    }
}

/// Nodes that are in touch: neither disconnected nor deleted.
#[must_use]
pub fn connected(map: &NodeMap) -> Vec<u32> {
    let gone = NodeFlags::DISCONNECTED | NodeFlags::DELETED;
    pnns(map, |flags| !flags.intersects(gone))
}

/// Nodes that take part in the cluster.
#[must_use]
pub fn active(map: &NodeMap) -> Vec<u32> {
    pnns(map, |flags| !flags.is_inactive())
}

fn pnns(map: &NodeMap, wanted: impl Fn(NodeFlags) -> bool) -> Vec<u32> {
    map.0.iter().filter(|node| wanted(node.flags)).map(|node| node.pnn.get()).collect()
}
