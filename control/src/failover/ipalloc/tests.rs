//! Placements beside C's: the specification's worked example, what C's helper makes of random
//! situations, and a plain writing-down of C's arithmetic.
//!
//! `tests/*.txt` was printed by `tools/compat/examples/ipalloc.rs`, which puts its questions to the
//! takeover helper of Debian's 4.17; the first line of each file has its arguments. A line is an
//! address, the nodes that know it, that could host it, that say that they host it, and the one that
//! gets it.

mod plain;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use proptest::prelude::*;
use ringmaster_protocol::{Pnn, SockAddr, connection::PublicIp};

use super::{Algorithm, Offer, Question, allocate, can_host};
use crate::config::home_nodes::HomeNode;

const C_ANSWERS: [&str; 5] = [
    include_str!("tests/3-nodes.txt"),
    include_str!("tests/4-nodes.txt"),
    include_str!("tests/6-nodes.txt"),
    include_str!("tests/8-nodes.txt"),
    include_str!("tests/16-nodes.txt"),
];

fn node(pnn: usize) -> Pnn {
    Pnn::new(u32::try_from(pnn).unwrap()).unwrap()
}

/// A question that owns what it asks about.
#[derive(Clone, Debug)]
struct Situation {
    offers: Vec<Offer>,
    algorithm: Algorithm,
    no_takeover: bool,
    no_failback: bool,
    rebalance: BTreeSet<Pnn>,
    homes: Vec<HomeNode>,
}

impl Situation {
    fn of(nodes: usize) -> Self {
        Self {
            offers: vec![Offer::default(); nodes],
            algorithm: Algorithm::Lcp2,
            no_takeover: false,
            no_failback: false,
            rebalance: BTreeSet::new(),
            homes: Vec::new(),
        }
    }

    /// An address, and the nodes that know it, offer it, claim it.
    fn address(&mut self, address: IpAddr, known: &[usize], available: &[usize], claims: &[usize]) {
        let addr = SockAddr::new(address, 0);
        for known in known {
            let pnn = claims.contains(known).then(|| node(*known));
            self.offers[*known].known.push(PublicIp { pnn, addr });
        }
        for available in available {
            self.offers[*available].available.push(PublicIp { pnn: None, addr });
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            offers: &self.offers,
            algorithm: self.algorithm,
            no_takeover: self.no_takeover,
            no_failback: self.no_failback,
            rebalance: &self.rebalance,
            homes: &self.homes,
        }
    }

    /// Addresses with their hosts, as text.
    fn hosts(&self) -> Vec<String> {
        let show = |placement: super::Placement| match placement.host {
            Some(host) => format!("{} {host}", placement.address),
            None => format!("{} -", placement.address),
        };
        allocate(&self.question()).into_iter().map(show).collect()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// 10.0.0.1 to 10.0.0.4 on three nodes, each with its host.
fn worked_example(hosts: [&[usize]; 4]) -> Situation {
    let mut situation = Situation::of(3);
    for (last, claims) in (1..).zip(hosts) {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        situation.address(address, &[0, 1, 2], &[0, 1, 2], claims);
    }
    situation
}

#[test]
fn lcp2_starts_as_in_the_worked_example() {
    let situation = worked_example([&[], &[], &[], &[]]);
    assert_eq!(situation.hosts(), ["10.0.0.4 0", "10.0.0.3 1", "10.0.0.2 2", "10.0.0.1 0"]);
}

#[test]
fn lcp2_fills_a_node_that_joins_as_in_the_worked_example() {
    let situation = worked_example([&[0], &[1], &[1], &[0]]);
    assert_eq!(situation.hosts(), ["10.0.0.4 0", "10.0.0.3 2", "10.0.0.2 1", "10.0.0.1 0"]);
}

#[test]
fn without_failback_nothing_moves_to_a_node_that_joins() {
    let mut situation = worked_example([&[0], &[1], &[1], &[0]]);
    situation.no_failback = true;
    for algorithm in [Algorithm::Lcp2, Algorithm::NonDeterministic] {
        situation.algorithm = algorithm;
        assert_eq!(situation.hosts(), ["10.0.0.4 0", "10.0.0.3 1", "10.0.0.2 1", "10.0.0.1 0"]);
    }
}

#[test]
fn of_two_claims_the_higher_node_wins() {
    let mut situation = worked_example([&[0, 2], &[1], &[], &[]]);
    situation.no_failback = true;
    assert_eq!(situation.hosts()[3], "10.0.0.1 2");
}

#[test]
fn a_claim_about_another_node_counts_for_nothing() {
    let mut situation = Situation::of(2);
    let addr = SockAddr::new(address("10.0.0.1"), 0);
    situation.offers[0].known.push(PublicIp { pnn: Some(node(1)), addr });
    situation.offers[1].known.push(PublicIp { pnn: None, addr });
    assert!(!can_host(&situation.offers));
    assert_eq!(situation.hosts(), ["10.0.0.1 -"]);
}

#[test]
fn an_address_that_nobody_offers_loses_its_host() {
    let mut situation = Situation::of(2);
    situation.address(address("10.0.0.1"), &[0, 1], &[], &[1]);
    assert!(can_host(&situation.offers), "somebody hosts it: it must be released");
    for algorithm in [Algorithm::Deterministic, Algorithm::NonDeterministic, Algorithm::Lcp2] {
        situation.algorithm = algorithm;
        assert_eq!(situation.hosts(), ["10.0.0.1 -"]);
    }
}

#[test]
fn the_first_home_node_of_an_address_counts_if_there_is_such_a_node() {
    let mut situation = worked_example([&[], &[], &[], &[]]);
    situation.algorithm = Algorithm::Deterministic;
    let home = |address: &str, pnn| HomeNode { address: address.parse().unwrap(), pnn: node(pnn) };
    situation.homes =
        vec![home("10.0.0.4", 2), home("10.0.0.4", 1), home("10.0.0.3", 3), home("::a00:2", 0)];
    assert_eq!(situation.hosts(), ["10.0.0.4 2", "10.0.0.3 1", "10.0.0.2 2", "10.0.0.1 0"]);
}

#[test]
fn no_nodes_and_no_addresses_are_no_harm() {
    for algorithm in [Algorithm::Deterministic, Algorithm::NonDeterministic, Algorithm::Lcp2] {
        let mut situation = Situation::of(0);
        situation.algorithm = algorithm;
        assert!(situation.hosts().is_empty() && !can_host(&situation.offers));
        situation = Situation::of(3);
        situation.algorithm = algorithm;
        assert!(situation.hosts().is_empty() && !can_host(&situation.offers));
    }
}

fn set(text: &str) -> Vec<usize> {
    if text == "-" { Vec::new() } else { text.split(',').map(|pnn| pnn.parse().unwrap()).collect() }
}

/// A case of a file and C's answer to it, in the form of [`Situation::hosts`].
fn c_case(text: &str) -> (Situation, Vec<String>) {
    let mut lines = text.lines();
    let options = lines.next().unwrap();
    let option = |name: &str| {
        let value = options.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} in {options:?}"))
    };
    let mut situation = Situation::of(option("nodes").parse().unwrap());
    situation.algorithm = Algorithm::from_tunable(option("IPAllocAlgorithm").parse().unwrap());
    situation.no_takeover = option("NoIPTakeover") == "1";
    situation.no_failback = option("NoIPFailback") == "1";
    situation.rebalance = set(option("rebalance")).into_iter().map(node).collect();
    let mut hosts = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [ip, known, available, claims, host] = words[..] else { panic!("{line:?}") };
        situation.address(address(ip), &set(known), &set(available), &set(claims));
        hosts.push(format!("{ip} {host}"));
    }
    (situation, hosts)
}

#[test]
fn placements_are_those_of_c() {
    let mut cases = 0;
    for file in C_ANSWERS {
        for text in file.split("\n\n").filter_map(|text| text.trim().strip_prefix("case ")) {
            let (situation, mut hosts) = c_case(text);
            let mut ours = situation.hosts();
            // The file is in the order of the addresses' texts, ours in C's.
            ours.sort();
            hosts.sort();
            assert_eq!(ours, hosts, "case {text}");
            cases += 1;
        }
    }
    assert!(cases > 150, "only {cases} cases were found");
}

/// Any cluster: up to 24 addresses that often look alike, on up to 6 nodes.
fn situations() -> impl Strategy<Value = Situation> {
    let ip = prop_oneof![
        3 => (0_u8..3, any::<u8>()).prop_map(|(net, host)| IpAddr::from([10, 0, net, host])),
        1 => any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        1 => (0_u16..3, any::<u16>())
            .prop_map(|(net, host)| IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, host])),
    ];
    let row = (ip, any::<[bool; 6]>(), any::<[bool; 6]>(), 0_usize..8);
    let rows = proptest::collection::vec(row, 0..24);
    let options = (0_u32..3, proptest::bool::weighted(0.1), proptest::bool::weighted(0.2));
    (1_usize..=6, rows, options, proptest::collection::btree_set(0_usize..6, 0..2)).prop_map(
        |(nodes, rows, (algorithm, no_takeover, no_failback), rebalance)| {
            let mut situation = Situation::of(nodes);
            situation.algorithm = Algorithm::from_tunable(algorithm);
            situation.no_takeover = no_takeover;
            situation.no_failback = no_failback;
            situation.rebalance = rebalance.into_iter().map(node).collect();
            let mut seen = BTreeSet::new();
            for (ip, known, available, claim) in rows {
                let pick = |flags: [bool; 6]| (0..nodes).filter(|n| flags[*n]).collect::<Vec<_>>();
                let known = pick(known);
                let mut available = pick(available);
                available.retain(|node| known.contains(node));
                let claims: Vec<usize> = known.iter().copied().filter(|n| *n == claim).collect();
                if seen.insert(ip) {
                    situation.address(ip, &known, &available, &claims);
                }
            }
            situation
        },
    )
}

proptest! {
    #[test]
    fn sums_kept_up_to_date_place_like_sums_computed_anew(situation in situations()) {
        prop_assert_eq!(allocate(&situation.question()), plain::allocate(&situation.question()));
    }

    /// Otherwise a run on a new leader would move addresses for nothing.
    #[test]
    fn a_second_run_moves_nothing(situation in situations()) {
        let placements = allocate(&situation.question());
        let mut again = situation.clone();
        again.rebalance.clear();
        for (index, offer) in again.offers.iter_mut().enumerate() {
            for ip in &mut offer.known {
                let placed = placements.iter().find(|placed| placed.address == ip.addr).unwrap();
                ip.pnn = placed.host.filter(|host| *host == node(index));
            }
        }
        if situation.algorithm != Algorithm::NonDeterministic {
            prop_assert_eq!(allocate(&again.question()), placements);
        }
    }
}

/// As many addresses as wrap the sums, all on one node, when the others come back.
#[test]
fn sums_that_wrap_place_like_plain_sums_that_wrap() {
    let mut situation = Situation::of(3);
    for host in 0..800_u16 {
        let [high, low] = host.to_be_bytes();
        // Few may move: the plain sums take their time.
        let takers: &[usize] = if host % 100 == 0 { &[0, 1, 2] } else { &[0] };
        situation.address(IpAddr::from([10, 0, high, low]), &[0, 1, 2], takers, &[0]);
    }
    assert_eq!(allocate(&situation.question()), plain::allocate(&situation.question()));
}
