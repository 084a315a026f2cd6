use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const TUNABLES: Tunables = Tunables { interval: Duration::from_secs(5), limit: 5 };

fn at(millis: u64) -> Moment {
    Duration::from_millis(millis)
}

fn handle(link: &mut Link, millis: u64, event: Event) -> Vec<Action> {
    let mut out = Vec::new();
    link.handle(at(millis), event, TUNABLES, &mut out);
    out
}

fn turn(link: &mut Link, millis: u64) -> Vec<Action> {
    let mut out = Vec::new();
    link.turn(at(millis), TUNABLES, &mut out);
    out
}

/// A link that is up since 0.1 s.
fn up() -> Link {
    let mut link = Link::new(at(0));
    assert_eq!(turn(&mut link, 0), [Action::Connect]);
    assert_eq!(handle(&mut link, 0, Event::StartKeepalive), []);
    assert_eq!(handle(&mut link, 50, Event::Connected), []);
    assert_eq!(handle(&mut link, 100, Event::Accepted), [Action::Up]);
    link
}

#[test]
fn a_node_is_up_when_both_connections_stand_in_any_order() {
    let mut link = Link::new(at(0));
    assert_eq!(turn(&mut link, 0), [Action::Connect]);
    assert!(link.accepts());
    assert_eq!(handle(&mut link, 10, Event::Accepted), []);
    assert!(!link.accepts(), "a second one is refused");
    assert!(!link.is_up());
    assert_eq!(handle(&mut link, 20, Event::Connected), [Action::Up]);
    assert!(link.is_up());
    assert!(up().is_up());
}

#[test]
fn either_connection_breaking_is_the_nodes_death_and_closes_the_other() {
    for (event, why) in [
        (Event::IncomingBroken(Why::Closed), Why::Closed),
        (Event::OutgoingBroken(Why::Malformed), Why::Malformed),
        (Event::Overfull, Why::Overfull),
    ] {
        let mut link = up();
        assert_eq!(
            handle(&mut link, 60_000, event),
            [Action::CloseOutgoing, Action::CloseIncoming, Action::Down(why)]
        );
        assert!(link.accepts(), "the peer may come back");
        assert_eq!(turn(&mut link, 60_000), [Action::Connect, Action::Keepalive][..1]);
        assert_eq!(handle(&mut link, 60_010, Event::Connected), []);
        assert_eq!(handle(&mut link, 60_020, Event::Accepted), [Action::Up]);
    }
}

#[test]
fn a_peer_that_takes_and_closes_connections_is_tried_once_a_second() {
    let mut link = Link::new(at(0));
    for second in 0..5 {
        assert_eq!(link.next_deadline(), Some(at(second * 1_000)));
        assert_eq!(turn(&mut link, second * 1_000), [Action::Connect]);
        assert_eq!(handle(&mut link, second * 1_000 + 1, Event::Connected), []);
        let broken = Event::OutgoingBroken(Why::Closed);
        assert_eq!(handle(&mut link, second * 1_000 + 2, broken), [Action::CloseOutgoing]);
        assert_eq!(turn(&mut link, second * 1_000 + 500), []);
    }
}

#[test]
fn a_connect_that_fails_waits_and_one_that_hangs_is_begun_anew() {
    let mut link = Link::new(at(0));
    assert_eq!(turn(&mut link, 0), [Action::Connect]);
    assert_eq!(handle(&mut link, 300, Event::OutgoingBroken(Why::Closed)), []);
    assert_eq!(link.next_deadline(), Some(at(1_300)));
    assert_eq!(turn(&mut link, 1_299), []);
    assert_eq!(turn(&mut link, 1_300), [Action::Connect]);
    assert_eq!(turn(&mut link, 2_299), []);
    assert_eq!(turn(&mut link, 2_300), [Action::CloseOutgoing, Action::Connect]);
}

#[test]
fn a_failed_connect_does_not_cost_the_connection_of_the_peer() {
    let mut link = Link::new(at(0));
    turn(&mut link, 0);
    handle(&mut link, 1, Event::Accepted);
    assert_eq!(handle(&mut link, 2, Event::OutgoingBroken(Why::Closed)), []);
    assert!(!link.accepts());
}

#[test]
fn keepalives_are_sent_in_every_interval_whatever_else_is() {
    let mut link = up();
    for interval in 1..10 {
        link.heard();
        assert_eq!(link.next_deadline(), Some(at(interval * 5_000)));
        assert_eq!(turn(&mut link, interval * 5_000), [Action::Keepalive]);
    }
}

#[test]
fn a_silent_node_is_dead_after_the_limit_and_one_word_saves_it() {
    let mut link = up();
    for interval in 1..=4 {
        assert_eq!(turn(&mut link, interval * 5_000), [Action::Keepalive]);
    }
    link.heard();
    for interval in 5..=9 {
        assert_eq!(turn(&mut link, interval * 5_000), [Action::Keepalive], "{interval}");
    }
    assert_eq!(
        turn(&mut link, 50_000),
        [
            Action::CloseOutgoing,
            Action::CloseIncoming,
            Action::Down(Why::Silent),
            Action::Keepalive
        ]
    );
}

#[test]
fn a_node_that_is_heard_on_one_connection_alone_counts_as_connected() {
    let mut link = Link::new(at(0));
    handle(&mut link, 0, Event::StartKeepalive);
    turn(&mut link, 0);
    handle(&mut link, 1, Event::Accepted);
    link.heard();
    handle(&mut link, 4_999, Event::OutgoingBroken(Why::Closed));
    assert_eq!(turn(&mut link, 5_000), [Action::Up]);
    turn(&mut link, 6_000);
    assert_eq!(handle(&mut link, 6_010, Event::Connected), [], "it is up already");
}

#[test]
fn an_interval_of_nothing_does_not_spin() {
    let mut link = up();
    let tunables = Tunables { interval: Duration::ZERO, limit: 5 };
    let mut out = Vec::new();
    link.turn(at(5_000), tunables, &mut out);
    assert_eq!(link.next_deadline(), Some(at(6_000)));
}

/// Something that the world may do to a link, if it can happen now.
#[derive(Clone, Copy, Debug)]
enum Step {
    ConnectEnds(bool),
    OutgoingBreaks,
    PeerConnects,
    IncomingBreaks,
    Speaks,
    Overfull,
    Time(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<bool>().prop_map(Step::ConnectEnds),
        Just(Step::OutgoingBreaks),
        Just(Step::PeerConnects),
        Just(Step::IncomingBreaks),
        Just(Step::Speaks),
        Just(Step::Overfull),
        (0_u64..7_000).prop_map(Step::Time),
    ];
    prop::collection::vec(step, 0..120)
}

/// The sockets as the owner of a link keeps them.
#[derive(Debug, Default)]
struct Sockets {
    connecting: bool,
    outgoing: bool,
    incoming: bool,
    up: bool,
    keepalives: u32,
    attempts: BTreeSet<Moment>,
}

impl Sockets {
    fn do_all(&mut self, now: Moment, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => {
                    assert!(!self.connecting && !self.outgoing, "one attempt at a time");
                    self.connecting = true;
                    assert!(self.attempts.insert(now), "two attempts in one moment");
                }
                Action::CloseOutgoing => {
                    assert!(self.connecting || self.outgoing, "nothing to close");
                    (self.connecting, self.outgoing) = (false, false);
                }
                Action::CloseIncoming => {
                    assert!(std::mem::take(&mut self.incoming), "nothing to close");
                }
                Action::Up => assert!(!std::mem::replace(&mut self.up, true), "up twice"),
                Action::Down(_) => {
                    assert!(std::mem::take(&mut self.up), "down twice");
                    assert!(!self.connecting && !self.outgoing && !self.incoming);
                }
                Action::Keepalive => self.keepalives += 1,
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_link_and_its_sockets_agree(steps in steps()) {
        let (mut now, mut link, mut sockets) = (at(0), Link::new(at(0)), Sockets::default());
        link.handle(now, Event::StartKeepalive, TUNABLES, &mut Vec::new());
        for step in steps {
            let event = match step {
                Step::ConnectEnds(well) if sockets.connecting => {
                    (sockets.connecting, sockets.outgoing) = (false, well);
                    let failed = Event::OutgoingBroken(Why::Closed);
                    Some(if well { Event::Connected } else { failed })
                }
                // The connection is gone before the link hears of it; it says close all the same.
                Step::OutgoingBreaks if sockets.outgoing => {
                    Some(Event::OutgoingBroken(Why::Closed))
                }
                Step::PeerConnects if link.accepts() => {
                    prop_assert!(!sockets.incoming);
                    sockets.incoming = true;
                    Some(Event::Accepted)
                }
                Step::IncomingBreaks if sockets.incoming => {
                    Some(Event::IncomingBroken(Why::Malformed))
                }
                Step::Overfull if sockets.outgoing => Some(Event::Overfull),
                Step::Speaks if sockets.incoming => {
                    link.heard();
                    None
                }
                Step::Time(millis) => {
                    now += at(millis);
                    None
                }
                _ => None,
            };
            let mut out = Vec::new();
            if let Some(event) = event {
                link.handle(now, event, TUNABLES, &mut out);
            }
            if link.next_deadline().is_some_and(|at| now >= at) {
                link.turn(now, TUNABLES, &mut out);
            }
            sockets.do_all(now, out);
            prop_assert_eq!(link.is_up(), sockets.up);
            prop_assert_eq!(link.accepts(), !sockets.incoming);
            if sockets.outgoing && sockets.incoming {
                prop_assert!(sockets.up, "both connections stand");
            }
            if !sockets.outgoing {
                prop_assert!(link.next_deadline().is_some(), "nothing would ever connect");
            }
        }
        for pair in sockets.attempts.iter().collect::<Vec<_>>().windows(2) {
            prop_assert!(*pair[1] >= *pair[0] + CONNECT_PAUSE, "attempts too close");
        }
        // Whatever has been: with a network that works both ways the peers find each other.
        for _ in 0..4 {
            now = now.max(link.next_deadline().unwrap_or(now));
            let mut out = Vec::new();
            if sockets.incoming {
                link.heard();
            }
            link.turn(now, TUNABLES, &mut out);
            sockets.do_all(now, std::mem::take(&mut out));
            if std::mem::take(&mut sockets.connecting) {
                sockets.outgoing = true;
                link.handle(now, Event::Connected, TUNABLES, &mut out);
            }
            if link.accepts() {
                sockets.incoming = true;
                link.handle(now, Event::Accepted, TUNABLES, &mut out);
            }
            sockets.do_all(now, out);
        }
        prop_assert!(link.is_up());
    }
}
