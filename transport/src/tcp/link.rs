//! The state of the link to one peer: connections, keepalives, alive or dead.
//!
//! Role: says when to connect, whom to accept, when the peer is up and when it is dead. Pure:
//! events and time in, actions out; sockets and packets are the caller's.
//! Invariants
//! - [`Action::Up`] and [`Action::Down`] alternate, beginning with `Up`.
//! - At most one connection each way; [`Action::Connect`] only while there is none or attempt.
//! - While there is no outgoing connection, [`Link::next_deadline`] says when one is tried.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.6, 1.7; `ctdb/tcp/tcp_connect.c`,
//! `ctdb/server/ctdb_server.c: ctdb_node_dead`, `ctdb/server/ctdb_keepalive.c`.

use std::{fmt, time::Duration};

use super::limits::{CONNECT_PATIENCE, CONNECT_PAUSE, KEEPALIVE_INTERVAL_MIN};

/// Time since an arbitrary start; never goes back.
pub type Moment = Duration;

/// Something has happened to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The outgoing connection stands.
    Connected,
    /// The outgoing connection could not be made, has ended, or the peer has written to it.
    OutgoingBroken(Why),
    /// The peer has connected; [`Link::accepts`] has said yes.
    Accepted,
    /// The accepted connection has ended or makes no sense.
    IncomingBroken(Why),
    /// More output waits than the peer may leave unread.
    Overfull,
    /// Keepalives are sent from now on (the event `setup` has been run).
    StartKeepalive,
}

/// Why a connection, and with it the peer, is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer, or the network, has closed it.
    Closed,
    /// What came in makes no sense; the caller has said what.
    Malformed,
    /// Nothing has been heard for `KeepaliveLimit` intervals.
    Silent,
    /// It does not read what it is sent.
    Overfull,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "a connection has been closed",
            Self::Malformed => "it has sent what makes no sense",
            Self::Silent => "nothing has been heard of it for too long",
            Self::Overfull => "it does not read what it is sent",
        })
    }
}

/// Left to be done by whoever owns the link, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start to connect; answer with [`Event::Connected`] or [`Event::OutgoingBroken`].
    Connect,
    /// Close the outgoing connection, or give the attempt up. No event follows.
    CloseOutgoing,
    /// Close the accepted connection. No event follows.
    CloseIncoming,
    /// The node is connected.
    Up,
    /// The node is dead.
    Down(Why),
    /// Send a keepalive, if there is a connection to send it on.
    Keepalive,
}

/// Tunables, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// `KeepaliveInterval`.
    pub interval: Duration,
    /// `KeepaliveLimit`: silent intervals after which a peer is dead.
    pub limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    /// Tried at this time.
    Waiting(Moment),
    /// Given up at this time.
    Connecting(Moment),
    Connected,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Link {
    outgoing: Outgoing,
    /// When the last attempt to connect began.
    attempted: Option<Moment>,
    incoming: bool,
    up: bool,
    /// Packets of the peer since the last look.
    heard: bool,
    /// Looks at which nothing had been heard.
    silent: u32,
    /// Next look; `None` before keepalives have been started.
    look: Option<Moment>,
}

impl Link {
    /// A link without connections; the first attempt is due at once.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self {
            outgoing: Outgoing::Waiting(now),
            attempted: None,
            incoming: false,
            up: false,
            heard: false,
            silent: 0,
            look: None,
        }
    }

    /// Whether the node counts as connected.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether a connection of the peer is wanted: one at a time. (A peer that has come back is
    /// refused until the end of its old connection has been noticed, as by C.)
    #[must_use]
    pub const fn accepts(&self) -> bool {
        !self.incoming
    }

    /// A packet of the peer's own has come in: it lives.
    pub const fn heard(&mut self) {
        self.heard = true;
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Moment, event: Event, tunables: Tunables, out: &mut Vec<Action>) {
        match event {
            Event::Connected => {
                self.outgoing = Outgoing::Connected;
                self.up_if_complete(out);
            }
            // Nobody dies of a connection that has never been.
            Event::OutgoingBroken(_) if self.outgoing != Outgoing::Connected => {
                self.outgoing = Outgoing::Waiting(now + CONNECT_PAUSE);
            }
            Event::Accepted => {
                self.incoming = true;
                self.up_if_complete(out);
            }
            Event::OutgoingBroken(why) | Event::IncomingBroken(why) => self.die(now, why, out),
            Event::Overfull => self.die(now, Why::Overfull, out),
            Event::StartKeepalive => {
                if self.look.is_none() {
                    self.look = Some(now + tunables.interval.max(KEEPALIVE_INTERVAL_MIN));
                }
            }
        }
    }

    /// Time has passed.
    pub fn turn(&mut self, now: Moment, tunables: Tunables, out: &mut Vec<Action>) {
        match self.outgoing {
            Outgoing::Waiting(at) if now >= at => self.connect(now, out),
            Outgoing::Connecting(until) if now >= until => {
                out.push(Action::CloseOutgoing);
                self.connect(now, out);
            }
            _ => {}
        }
        if self.look.is_some_and(|at| now >= at) {
            self.look = Some(now + tunables.interval.max(KEEPALIVE_INTERVAL_MIN));
            self.look_after(now, tunables.limit, out);
        }
    }

    /// When [`Link::turn`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let connect = match self.outgoing {
            Outgoing::Waiting(at) | Outgoing::Connecting(at) => Some(at),
            Outgoing::Connected => None,
        };
        connect.into_iter().chain(self.look).min()
    }

    fn connect(&mut self, now: Moment, out: &mut Vec<Action>) {
        self.outgoing = Outgoing::Connecting(now + CONNECT_PATIENCE);
        self.attempted = Some(now);
        out.push(Action::Connect);
    }

    fn up_if_complete(&mut self, out: &mut Vec<Action>) {
        if self.incoming && self.outgoing == Outgoing::Connected {
            self.rise(out);
        }
    }

    fn rise(&mut self, out: &mut Vec<Action>) {
        if !self.up {
            self.up = true;
            self.silent = 0;
            out.push(Action::Up);
        }
    }

    /// Closes what is open and begins anew.
    fn die(&mut self, now: Moment, why: Why, out: &mut Vec<Action>) {
        if !matches!(self.outgoing, Outgoing::Waiting(_)) {
            out.push(Action::CloseOutgoing);
        }
        if std::mem::take(&mut self.incoming) {
            out.push(Action::CloseIncoming);
        }
        let again = self.attempted.map_or(now, |at| now.max(at + CONNECT_PAUSE));
        self.outgoing = Outgoing::Waiting(again);
        self.heard = false;
        self.silent = 0;
        if std::mem::take(&mut self.up) {
            out.push(Action::Down(why));
        }
    }

    /// Every `KeepaliveInterval`. A peer that is heard though not both connections stand is
    /// connected all the same: so it is for C.
    fn look_after(&mut self, now: Moment, limit: u32, out: &mut Vec<Action>) {
        if !self.up {
            if self.heard {
                self.rise(out);
            }
            return;
        }
        if std::mem::take(&mut self.heard) {
            self.silent = 0;
        } else {
            self.silent = self.silent.saturating_add(1);
        }
        if self.silent >= limit {
            self.die(now, Why::Silent, out);
        }
        out.push(Action::Keepalive);
    }
}

#[cfg(test)]
mod tests;
