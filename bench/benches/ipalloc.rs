//! Placement of public addresses: ours beside C's takeover helper.
//!
//! Groups `control/ipalloc/SITUATION`, parameter: addresses, on 16 nodes that all know and offer
//! all of them. Situations: `start` (nobody hosts any), `death` (the addresses of one node have no
//! host), `join` (one node has none yet). C's time is from its last question to its first order;
//! both use LCP2. Without Debian's package only ours is measured.

use std::{collections::BTreeSet, hint::black_box, net::IpAddr, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use ringmaster_compat::{
    prerequisite::C_HELPERS,
    takeover_helper::{NodeAnswers, Situation, node_map, run},
};
use ringmaster_control::failover::ipalloc::{Algorithm, Offer, Question, allocate};
use ringmaster_protocol::{
    Pnn, SockAddr,
    connection::{PublicIp, PublicIpList},
    node::NodeFlags,
    tunable::TunableList,
};

const NODES: u32 = 16;

/// What is the case before the run.
#[derive(Clone, Copy)]
enum Before {
    Start,
    Death,
    Join,
}

/// The answers of all nodes.
fn answers(addresses: u16, before: Before) -> Vec<NodeAnswers> {
    let node = |node: u32| {
        let gone = matches!(before, Before::Death) && node == NODES - 1;
        let hosts = match before {
            Before::Start => 0,
            Before::Death => NODES,
            Before::Join => NODES - 1,
        };
        let entry = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let addr = SockAddr::new(IpAddr::from([10, 0, high, low]), 0);
            let hosted = u32::from(number).checked_rem(hosts) == Some(node);
            PublicIp { pnn: Pnn::new(node).filter(|_| hosted && !gone), addr }
        };
        let known: Vec<PublicIp> = (1..=addresses).map(entry).collect();
        let available = if gone { Vec::new() } else { known.clone() };
        NodeAnswers { known: PublicIpList(known), available: PublicIpList(available) }
    };
    (0..NODES).map(node).collect()
}

fn ours(answers: &[NodeAnswers]) -> usize {
    let offer = |answers: &NodeAnswers| Offer {
        known: answers.known.0.clone(),
        available: answers.available.0.clone(),
    };
    let offers: Vec<Offer> = answers.iter().map(offer).collect();
    let question = Question {
        offers: &offers,
        algorithm: Algorithm::Lcp2,
        no_takeover: false,
        no_failback: false,
        rebalance: &BTreeSet::new(),
        homes: &[],
    };
    allocate(&question).len()
}

fn theirs(answers: &[NodeAnswers]) -> Duration {
    let situation = Situation {
        nodes: node_map(&[NodeFlags::NONE; NODES as usize]),
        answers: answers.to_vec(),
        tunables: TunableList::default(),
        rebalance: Vec::new(),
    };
    run(&situation).expect("C's helper places addresses").thinking
}

fn placement(criterion: &mut Criterion) {
    let smoke = std::env::args().any(|word| word == "--test");
    let sizes: &[u16] = if smoke { &[60] } else { &[100, 300, 900] };
    let helper = std::path::Path::new(C_HELPERS).join("ctdb_takeover_helper").exists();
    for (name, before) in
        [("start", Before::Start), ("death", Before::Death), ("join", Before::Join)]
    {
        let mut group = criterion.benchmark_group(format!("control/ipalloc/{name}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        for size in sizes {
            let answers = answers(*size, before);
            group.bench_with_input(BenchmarkId::new("ours", size), &answers, |bencher, answers| {
                bencher.iter(|| ours(black_box(answers)));
            });
            if !helper {
                continue;
            }
            group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
            group.bench_with_input(BenchmarkId::new("c", size), &answers, |bencher, answers| {
                bencher.iter_custom(|times| (0..times).map(|_| theirs(answers)).sum());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, placement);
criterion_main!(benches);
