//! Lane 0: the links of one shard to other nodes, and what is sent over them.
//!
//! Role: carries out what each peer's link (`ringmaster_transport::tcp::link`) decides: connects,
//! accepts, closes, sends keepalives, tells control who is up. What peers send: `nodes`.
//! Owner: each peer belongs to one shard ([`owner_of_peer`]); the connections of the node's socket
//! come in at shard 0 and are handed on.
//! Invariants
//! - Packets to one peer leave in the order in which they reach its shard; of one turn, in one send.
//! - A packet to a peer without an outgoing connection is dropped, as in C; control knows who is
//!   connected.
//! - A peer that leaves more than `LINK_OUTPUT_MAX` bytes unread is dead.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4, 1.6, 1.7.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ringmaster_protocol::{Pnn, keepalive::SambaVersion, node::NodeFlags};
use ringmaster_transport::{
    frames::Assembly,
    reactor::{AnyReactor, Reactor, Token},
    tcp::{NODE_FRAMING, announce::Announcement, link::Link, socket},
};
use rustix::fd::OwnedFd;

use super::{ShardId, message::Credit};
use crate::view::NodeView;

/// How often a busy link reminds the kernel that acknowledgements may wait.
const ACKS_WAIT: Duration = Duration::from_millis(20);

/// The shard that owns the links to a peer.
#[must_use]
pub fn owner_of_peer(peer: Pnn, shard_count: u16) -> ShardId {
    let index = peer.get() % u32::from(shard_count.max(1));
    ShardId(u16::try_from(index).unwrap_or(0))
}

/// What all links have in common; from control, when the transport starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSetup {
    /// The node's own address: peers know it by that.
    pub own: IpAddr,
    /// Version that keepalives say.
    pub version: SambaVersion,
    /// What they say to nodes of ours.
    pub announcement: Announcement,
    /// Output that a peer may leave unread, in bytes: `LINK_OUTPUT_MAX`.
    pub output_max: usize,
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Outgoing,
    Incoming,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) link: Link,
    address: SocketAddr,
    outgoing: Option<Token>,
    incoming: Option<Token>,
    /// Of the accepted connection; taken out while its packets are processed.
    pub(super) assembly: Option<Assembly>,
    /// What the peer said of itself, if it is one of ours.
    pub(super) announced: Option<Announcement>,
    /// Something without a meaning has been complained about on this connection.
    pub(super) complained: bool,
    /// Bytes appended to the outgoing connection since it stands.
    appended: u64,
    /// Until when the kernel still knows that acknowledgements may wait; time since the start.
    acks_wait_until: Duration,
    /// Credits of streams, each with the position at which its packet ends.
    credits: VecDeque<(u64, Credit)>,
}

/// All links of a shard.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) setup: Option<LaneSetup>,
    pub(super) keepalive: bool,
    pub(super) by_pnn: BTreeMap<Pnn, Lane>,
    pub(super) by_token: HashMap<Token, (Pnn, Way)>,
    /// Have left too much unread; dealt with at the end of the turn.
    pub(super) overfull: Vec<Pnn>,
    /// Links that have been dropped while up: control has to hear of it.
    pub(super) dropped: Vec<Pnn>,
}

impl Lanes {
    /// Makes and drops links so that there is one to each peer of this shard that the view names.
    /// A peer with another address is another peer.
    pub(super) fn reconcile(
        &mut self,
        reactor: &mut AnyReactor,
        view: &NodeView,
        mine: impl Fn(Pnn) -> bool,
        now: Duration,
    ) {
        if self.setup.is_none() {
            return;
        }
        let wanted: BTreeMap<Pnn, SocketAddr> = view
            .nodes
            .0
            .iter()
            .filter(|node| node.pnn != view.pnn && mine(node.pnn))
            .filter(|node| !node.flags.intersects(NodeFlags::DELETED))
            .filter_map(|node| Some((node.pnn, SocketAddr::new(node.addr.ip()?, node.addr.port()))))
            .collect();
        let gone: Vec<Pnn> = self
            .by_pnn
            .iter()
            .filter(|(pnn, lane)| wanted.get(pnn) != Some(&lane.address))
            .map(|(pnn, _)| *pnn)
            .collect();
        for pnn in gone {
            self.close(reactor, pnn, Way::Outgoing);
            self.close(reactor, pnn, Way::Incoming);
            let lane = self.by_pnn.remove(&pnn);
            if lane.is_some_and(|lane| lane.link.is_up()) {
                self.dropped.push(pnn);
            }
        }
        for (pnn, address) in wanted {
            self.by_pnn.entry(pnn).or_insert_with(|| Lane::new(address, now));
        }
    }

    /// Starts to connect to a peer.
    pub(super) fn connect(&mut self, reactor: &mut AnyReactor, pnn: Pnn) -> Result<(), String> {
        let (Some(setup), Some(lane)) = (&self.setup, self.by_pnn.get_mut(&pnn)) else {
            return Ok(());
        };
        let socket = socket::start_connect(setup.own, lane.address);
        let socket = socket.map_err(|error| error.to_string())?;
        let token = reactor.add_connecting(socket).map_err(|error| error.to_string())?;
        lane.outgoing = Some(token);
        self.by_token.insert(token, (pnn, Way::Outgoing));
        Ok(())
    }

    /// Something has arrived from a peer: its acknowledgement may wait for the next.
    pub(super) fn delay_acks(&mut self, reactor: &AnyReactor, pnn: Pnn, now: Duration) {
        let Some(lane) = self.by_pnn.get_mut(&pnn) else { return };
        if now < lane.acks_wait_until {
            return;
        }
        lane.acks_wait_until = now + ACKS_WAIT;
        if let Some(stream) = lane.incoming.and_then(|token| reactor.socket(token)) {
            socket::delay_acks(stream);
        }
    }

    /// Takes a connection of a peer.
    pub(super) fn accept(
        &mut self,
        reactor: &mut AnyReactor,
        pnn: Pnn,
        stream: OwnedFd,
    ) -> Result<(), String> {
        let Some(lane) = self.by_pnn.get_mut(&pnn) else { return Ok(()) };
        let token = reactor.add_stream(stream).map_err(|error| error.to_string())?;
        lane.incoming = Some(token);
        lane.assembly = Some(Assembly::new(NODE_FRAMING));
        lane.complained = false;
        lane.announced = None;
        lane.acks_wait_until = Duration::ZERO;
        self.by_token.insert(token, (pnn, Way::Incoming));
        Ok(())
    }

    /// Closes a connection and forgets what belongs to it.
    pub(super) fn close(&mut self, reactor: &mut AnyReactor, pnn: Pnn, way: Way) {
        if let Some(token) = self.forget(pnn, way) {
            reactor.close(token);
        }
    }

    /// A connection is gone: its token says nothing any more.
    pub(super) fn forget(&mut self, pnn: Pnn, way: Way) -> Option<Token> {
        let lane = self.by_pnn.get_mut(&pnn)?;
        let token = match way {
            Way::Outgoing => {
                lane.appended = 0;
                lane.credits.clear();
                lane.outgoing.take()
            }
            Way::Incoming => {
                lane.assembly = None;
                lane.incoming.take()
            }
        }?;
        self.by_token.remove(&token);
        Some(token)
    }

    /// Whether this is the connection on which the peer sends.
    pub(super) fn is_incoming(&self, pnn: Pnn, token: Token) -> bool {
        self.by_pnn.get(&pnn).is_some_and(|lane| lane.incoming == Some(token))
    }

    /// Appends a packet to what the peer is sent. `false` without a connection: it is dropped.
    pub(super) fn append(
        &mut self,
        reactor: &mut AnyReactor,
        pnn: Pnn,
        credit: Option<Credit>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(lane) = self.by_pnn.get_mut(&pnn) else { return false };
        let Some(token) = lane.outgoing else { return false };
        let Some(output) = reactor.output(token) else { return false };
        let before = output.len();
        write(output);
        lane.appended += (output.len() - before) as u64;
        lane.credits.extend(credit.map(|credit| (lane.appended, credit)));
        if self.setup.is_some_and(|setup| reactor.queued(token) > setup.output_max) {
            self.overfull.push(pnn);
        }
        true
    }

    /// Gives back the credits of packets that the kernel has taken.
    pub(super) fn release_credits(&mut self, reactor: &AnyReactor) {
        for lane in self.by_pnn.values_mut() {
            let Some(token) = lane.outgoing.filter(|_| !lane.credits.is_empty()) else { continue };
            let sent = lane.appended.saturating_sub(reactor.queued(token) as u64);
            while lane.credits.front().is_some_and(|(end, _)| *end <= sent) {
                lane.credits.pop_front();
            }
        }
    }

    /// Whether somebody waits for what has not left yet.
    pub(super) fn owes_credit(&self) -> bool {
        self.by_pnn.values().any(|lane| !lane.credits.is_empty())
    }

    /// When some link wants its turn.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.by_pnn.values().filter_map(|lane| lane.link.next_deadline()).min()
    }

    /// Links that want their turn now.
    pub(super) fn due(&self, now: Duration) -> Vec<Pnn> {
        let due = |lane: &Lane| lane.link.next_deadline().is_some_and(|at| now >= at);
        self.by_pnn.iter().filter(|(_, lane)| due(lane)).map(|(pnn, _)| *pnn).collect()
    }
}

impl Lane {
    fn new(address: SocketAddr, now: Duration) -> Self {
        Self {
            link: Link::new(now),
            address,
            outgoing: None,
            incoming: None,
            assembly: None,
            announced: None,
            complained: false,
            appended: 0,
            acks_wait_until: Duration::ZERO,
            credits: VecDeque::new(),
        }
    }
}

/// The peer that a connection comes from, by its source address; `None` for a stranger.
pub(super) fn peer_at(view: &NodeView, source: IpAddr) -> Option<Pnn> {
    let known = view.nodes.0.iter().filter(|node| !node.flags.intersects(NodeFlags::DELETED));
    let mut known = known.filter(|node| node.addr.ip().map(|ip| ip.to_canonical()) == Some(source));
    known.next().map(|node| node.pnn)
}
