//! Who wins an election by messages.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.5; `ctdb_recoverd.c: ctdb_election_win`.

use ringmaster_protocol::{
    Pnn,
    process::{ElectionMessage, Timeval},
};

/// This node in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Number.
    pub pnn: Pnn,
    /// Active and willing.
    pub can_lead: bool,
    /// Since when.
    pub priority_time: Timeval,
}

/// Whether this node would win against the sender of `rival`. The number of nodes that each sees
/// is carried in the message and not compared.
pub(super) fn wins(own: &Candidate, rival: &ElectionMessage) -> bool {
    if !own.can_lead {
        return false;
    }
    if rival.node_flags.is_inactive() {
        return true;
    }
    match own.priority_time.cmp(&rival.priority_time) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => own.pnn > rival.pnn,
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::node::NodeFlags;

    use super::*;

    fn candidate(pnn: u32, seconds: i64) -> Candidate {
        let priority_time = Timeval { seconds, micros: 0 };
        Candidate { pnn: Pnn::new(pnn).unwrap(), can_lead: true, priority_time }
    }

    fn rival(pnn: u32, seconds: i64) -> ElectionMessage {
        ElectionMessage {
            num_connected: 3,
            priority_time: Timeval { seconds, micros: 0 },
            pnn: Pnn::new(pnn).unwrap(),
            node_flags: NodeFlags::NONE,
        }
    }

    #[test]
    fn the_older_candidate_wins() {
        assert!(wins(&candidate(0, 10), &rival(1, 11)));
        assert!(!wins(&candidate(1, 11), &rival(0, 10)));
    }

    #[test]
    fn among_equals_the_larger_number_wins() {
        assert!(wins(&candidate(2, 10), &rival(1, 10)));
        assert!(!wins(&candidate(1, 10), &rival(2, 10)));
    }

    #[test]
    fn an_inactive_rival_loses_and_who_cannot_lead_never_wins() {
        let stopped = ElectionMessage { node_flags: NodeFlags::STOPPED, ..rival(1, 1) };
        assert!(wins(&candidate(0, 10), &stopped));
        let unable = Candidate { can_lead: false, ..candidate(0, 10) };
        assert!(!wins(&unable, &stopped));
    }

    #[test]
    fn the_number_of_connected_nodes_is_not_compared() {
        let lonely = ElectionMessage { num_connected: 0, ..rival(1, 9) };
        assert!(!wins(&candidate(0, 10), &lonely));
    }
}
