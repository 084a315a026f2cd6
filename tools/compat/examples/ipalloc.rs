//! Truth about the placement of public addresses: what C's takeover helper makes of random
//! situations. Prints the data that `control/src/failover/ipalloc/tests.rs` compares with.
//!
//! `cargo run -p ringmaster-compat --example ipalloc -- NODES ADDRESSES CASES SEED`
//!
//! A line of a case: the address; the nodes that know it; that could host it; that say that they
//! host it; that get it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use ringmaster_compat::takeover_helper::{NodeAnswers, Orders, Situation, node_map, run};
use ringmaster_protocol::{
    Pnn, SockAddr,
    connection::PublicIp,
    node::NodeFlags,
    tunable::{Tunable, TunableList},
};

/// xorshift64*: the same seed, the same questions.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let [.., a, b, c, d] = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes();
        (u32::from_be_bytes([d, a, b, c]) >> 1) % bound
    }

    fn one_in(&mut self, bound: u32) -> bool {
        self.below(bound) == 0
    }
}

/// Who says what about one address.
#[derive(Default)]
struct Row {
    known: BTreeSet<u32>,
    available: BTreeSet<u32>,
    claims: BTreeSet<u32>,
}

/// What a case asks.
struct Case {
    nodes: u32,
    rows: BTreeMap<IpAddr, Row>,
    tunables: Vec<(Tunable, u32)>,
    rebalance: BTreeSet<u32>,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut number = |what: &str| -> Result<u32> {
        words.next().with_context(|| what.to_owned())?.parse().with_context(|| what.to_owned())
    };
    let (nodes, addresses, cases) = (number("NODES")?, number("ADDRESSES")?, number("CASES")?);
    let seed = number("SEED")?;
    let mut random = Random(u64::from(seed) | 1);
    println!("# made by tools/compat/examples/ipalloc.rs {nodes} {addresses} {cases} {seed}");
    for _ in 0..cases {
        let case = Case::random(nodes, addresses, &mut random);
        let orders = run(&case.situation()?)?;
        case.print(&orders);
    }
    Ok(())
}

/// Addresses that lie near each other and far apart, of both families.
fn address(random: &mut Random) -> IpAddr {
    let host = random.below(250) + 1;
    let text = match random.below(8) {
        0 => format!("fd00:{:x}::{host:x}", random.below(4)),
        1 => format!("2001:db8::{:x}:{host:x}", random.below(3)),
        2 => format!("192.168.{}.{host}", random.below(3)),
        3 => format!("172.{}.0.{host}", 16 + random.below(4)),
        _ => format!("10.0.0.{host}"),
    };
    text.parse().expect("an address")
}

impl Case {
    fn random(nodes: u32, addresses: u32, random: &mut Random) -> Self {
        let mut rows = BTreeMap::new();
        let gone: BTreeSet<u32> = (0..nodes).filter(|_| random.one_in(4)).collect();
        // Claims of before: of a cluster that is starting there are none.
        let (unassigned, spread) = (random.below(6), random.below(nodes) + 1);
        while rows.len() < addresses as usize {
            let mut row = Row::default();
            for node in 0..nodes {
                if random.one_in(8) {
                    continue;
                }
                row.known.insert(node);
                if !gone.contains(&node) && !random.one_in(10) {
                    row.available.insert(node);
                }
            }
            if row.known.is_empty() {
                continue;
            }
            let claim = random.below(spread);
            if unassigned > 0 && !random.one_in(unassigned + 1) && row.known.contains(&claim) {
                row.claims.insert(claim);
            }
            let second = random.below(nodes);
            if random.one_in(20) && row.known.contains(&second) {
                row.claims.insert(second);
            }
            rows.insert(address(random), row);
        }
        let algorithm = [2, 2, 2, 0, 1][random.below(5) as usize];
        let tunables = vec![
            (Tunable::IPAllocAlgorithm, algorithm),
            (Tunable::NoIPTakeover, u32::from(random.one_in(8))),
            (Tunable::NoIPFailback, u32::from(random.one_in(4))),
        ];
        let rebalance = (0..nodes).filter(|_| random.one_in(3 * nodes)).collect();
        Self { nodes, rows, tunables, rebalance }
    }

    fn situation(&self) -> Result<Situation> {
        let mut answers = vec![NodeAnswers::default(); self.nodes as usize];
        for (address, row) in &self.rows {
            let addr = SockAddr::new(*address, 0);
            for node in &row.known {
                let pnn = Pnn::new(*node).filter(|_| row.claims.contains(node));
                answers[*node as usize].known.0.push(PublicIp { pnn, addr });
            }
            for node in &row.available {
                answers[*node as usize].available.0.push(PublicIp { pnn: None, addr });
            }
        }
        let mut tunables = TunableList::default();
        for (tunable, value) in &self.tunables {
            tunables.set(*tunable, *value);
        }
        let rebalance = self.rebalance.iter().copied().filter_map(Pnn::new).collect();
        let nodes = node_map(&vec![NodeFlags::NONE; self.nodes as usize]);
        Ok(Situation { nodes, answers, tunables, rebalance })
    }

    fn print(&self, orders: &Orders) {
        print!("\ncase nodes={} rebalance={}", self.nodes, set(&self.rebalance));
        for (tunable, value) in &self.tunables {
            print!(" {}={value}", tunable.info().name);
        }
        println!();
        for (address, Row { known, available, claims }) in &self.rows {
            let got = orders.takeovers.iter().filter(|(_, ip)| ip.addr.ip() == Some(*address));
            let hosts = got.map(|(pnn, _)| pnn.get()).collect();
            let (known, available, claims) = (set(known), set(available), set(claims));
            println!("{address} {known} {available} {claims} {}", set(&hosts));
        }
    }
}

fn set(nodes: &BTreeSet<u32>) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
