//! Random faults: whatever happens, the cluster comes back and keeps what it must.

use ringmaster_protocol::{database::DbFlags, node::NodeFlags};

use super::{
    cluster::{Cluster, Setup},
    model::Database,
};

const COUNT: usize = 4;
const MEMBERS: [usize; COUNT] = [0, 1, 2, 3];

/// Numbers from a seed (xorshift).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed * 7_919 + 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(super) fn node(&mut self) -> usize {
        usize::try_from(self.below(COUNT as u64)).unwrap()
    }
}

/// Nodes with one record each that only they have.
fn cluster(setup: Setup) -> Cluster {
    let mut cluster = Cluster::new(COUNT, setup);
    for node in MEMBERS {
        let own = format!("own{node}");
        let copy = Database::new("db", DbFlags::NONE).with(&own, 5, node, "value");
        cluster.nodes[node].databases.insert(7, copy);
    }
    cluster
}

/// One fault; the node whose records may be lost by it.
fn fault(cluster: &mut Cluster, dice: &mut Dice) -> Option<usize> {
    let node = dice.node();
    match dice.below(6) {
        0 => {
            cluster.leave(node, NodeFlags::STOPPED);
            return Some(node);
        }
        1 => cluster.set_flags(node, node, |flags| flags.without(NodeFlags::STOPPED)),
        2 => cluster.hang(node),
        3 => cluster.go_on(node),
        4 => cluster.split(&[node]),
        _ => cluster.heal(),
    }
    None
}

fn repair(cluster: &mut Cluster, dead: Option<usize>) {
    cluster.heal();
    for node in MEMBERS.into_iter().filter(|node| Some(*node) != dead) {
        cluster.go_on(node);
        cluster.set_flags(node, node, |_| NodeFlags::NONE);
    }
}

fn play(seed: u64, setup: Setup) {
    let Setup { lock, ours, .. } = setup;
    let mut dice = Dice::new(seed);
    let mut cluster = cluster(setup);
    let mut worthless = Vec::new();
    let dead = (dice.below(3) == 0).then(|| dice.node());
    for _ in 0..dice.below(8) {
        cluster.run_for(dice.below(8_000));
        worthless.extend(fault(&mut cluster, &mut dice));
    }
    if let Some(dead) = dead {
        worthless.push(dead);
        cluster.kill(dead);
        cluster.run_for(dice.below(8_000));
    }
    repair(&mut cluster, dead);
    let members: Vec<usize> = MEMBERS.into_iter().filter(|node| Some(*node) != dead).collect();
    cluster.run_until(600, &format!("service, seed {seed}, lock {lock}, ours {ours}"), |cluster| {
        cluster.settled(&members)
            && cluster.state(members[0], |state| state.vnn_map.map.len()) == members.len()
            && members.iter().all(|node| cluster.state(*node, |state| state.own_flags().is_empty()))
    });
    let leader = cluster.leader(members[0]).unwrap();
    for node in members.iter().copied() {
        let copy = &cluster.nodes[node].databases[&7];
        let keys: Vec<String> = copy.content().into_iter().map(|record| record.0).collect();
        for other in MEMBERS.iter().filter(|other| !worthless.contains(other)) {
            assert!(keys.contains(&format!("own{other}")), "seed {seed}: {keys:?} at {node}");
        }
        // The leader may be another one than the node that recovered, the owner not.
        let owners = |node: usize| -> Vec<(String, u32)> {
            let content = cluster.nodes[node].databases[&7].content();
            content.into_iter().map(|record| (record.0, record.2)).collect()
        };
        assert_eq!(owners(node), owners(members[0]), "seed {seed}");
    }
    if lock {
        assert_eq!(cluster.lock, Some(leader), "seed {seed}");
    }
}

fn play_all(lock: bool, ours: bool) {
    for seed in 0..100 {
        play(seed, Setup { lock, fast_start: true, ours });
    }
}

#[test]
fn the_cluster_comes_back_from_any_faults() {
    play_all(false, false);
}

#[test]
fn the_cluster_with_a_lock_comes_back_from_any_faults() {
    play_all(true, false);
}

#[test]
fn a_cluster_of_ours_comes_back_from_any_faults() {
    play_all(false, true);
    play_all(true, true);
}
