//! Addresses that look alike go to different nodes.
//!
//! Role: C's algorithm with its sums kept up to date instead of computed anew: the cost of every
//! address on every node. A placement or move changes one column of it. C walks all addresses for
//! every cost, which takes it seconds for a thousand of them.
//! Invariants
//! - All sums are `u32` and wrap, as C's: the order of additions does not matter, so the results are
//!   the same.
//! - Every loop ends: [`moves_max`].
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.9; `ctdb/server/ipalloc_lcp2.c`.

use tracing::{error, warn};

use super::{Key, Question, Table};

/// Square of the likeness of two addresses: leading bits that are equal, in each of the four words.
fn distance(a: &Key, b: &Key) -> u32 {
    let likeness: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).leading_zeros()).sum();
    likeness * likeness
}

/// Moves of one failback. Only sums that wrap (more than 700 addresses on one node) could make it go
/// in circles; C then never ends. At the limit the allocation stays as it is.
fn moves_max(addresses: usize, nodes: usize) -> usize {
    addresses.saturating_mul(nodes.max(4))
}

pub(super) fn place(table: &mut Table, question: &Question<'_>) {
    table.unassign_unsuitable();
    let mut work = Work::new(table);
    let mut candidates: Vec<bool> = table.loads().into_iter().map(|load| load == 0).collect();
    for node in question.rebalance {
        let candidate = usize::try_from(node.get()).ok().and_then(|node| candidates.get_mut(node));
        if let Some(candidate) = candidate {
            *candidate = true;
        }
    }
    work.assign(table);
    if !question.no_failback && candidates.contains(&true) {
        work.fail_back(table, &candidates);
    }
}

/// The sums.
struct Work {
    nodes: usize,
    /// Cost of each address on each node, by `address * nodes + node`: the distances to all other
    /// addresses there.
    costs: Vec<u32>,
    /// Of each node: the distances between all pairs of addresses there.
    imbalances: Vec<u32>,
}

/// A move that pays: its address, where to, and the imbalances of source and destination then.
struct Move {
    entry: usize,
    to: usize,
    source: u32,
    destination: u32,
}

impl Work {
    fn new(table: &Table) -> Self {
        let nodes = table.nodes;
        let mut work =
            Self { nodes, costs: vec![0; table.entries.len() * nodes], imbalances: vec![0; nodes] };
        for (index, entry) in table.entries.iter().enumerate() {
            if let Some(host) = entry.host {
                // Only those before it have been counted: each pair counts once.
                let cost = work.cost(index, host);
                work.add_imbalance(host, cost);
                work.count_in(table, index, host);
            }
        }
        work
    }

    fn cost(&self, entry: usize, node: usize) -> u32 {
        self.costs[entry * self.nodes + node]
    }

    fn add_imbalance(&mut self, node: usize, cost: u32) {
        self.imbalances[node] = self.imbalances[node].wrapping_add(cost);
    }

    /// An address is on a node from now on: it makes that node dearer for all others.
    fn count_in(&mut self, table: &Table, entry: usize, node: usize) {
        self.change(table, entry, node, u32::wrapping_add);
    }

    /// The opposite.
    fn count_out(&mut self, table: &Table, entry: usize, node: usize) {
        self.change(table, entry, node, u32::wrapping_sub);
    }

    fn change(&mut self, table: &Table, entry: usize, node: usize, change: fn(u32, u32) -> u32) {
        let key = &table.entries[entry].key;
        let rows = self.costs.chunks_exact_mut(self.nodes);
        for (other, (row, to)) in rows.zip(&table.entries).enumerate() {
            if other != entry {
                row[node] = change(row[node], distance(key, &to.key));
            }
        }
    }

    /// Gives what has no host to somebody, the cheapest pair first.
    fn assign(&mut self, table: &mut Table) {
        let mut unassigned: Vec<usize> =
            (0..table.entries.len()).filter(|entry| table.entries[*entry].host.is_none()).collect();
        while let Some((entry, node, cost)) = self.cheapest(table, &unassigned) {
            unassigned.retain(|other| *other != entry);
            table.entries[entry].host = Some(node);
            self.add_imbalance(node, cost);
            self.count_in(table, entry, node);
        }
        for entry in unassigned {
            warn!("no node can take over {}", table.entries[entry].address);
        }
    }

    /// The first of the cheapest pairs of address and node.
    fn cheapest(&self, table: &Table, unassigned: &[usize]) -> Option<(usize, usize, u32)> {
        let pairs = unassigned.iter().flat_map(|entry| {
            let takers = table.takers(*entry).iter();
            takers.map(|node| (*entry, *node, self.cost(*entry, *node)))
        });
        pairs.min_by_key(|(_, _, cost)| *cost)
    }

    /// Moves addresses to candidates as long as that makes the cluster more even.
    fn fail_back(&mut self, table: &mut Table, candidates: &[bool]) {
        for _ in 0..moves_max(table.entries.len(), self.nodes) {
            if !self.move_one(table, candidates) {
                return;
            }
        }
        error!("the allocation of public addresses goes in circles; it stays as it is");
    }

    /// Makes the best move away from the first node, most uneven first, that has one.
    fn move_one(&mut self, table: &mut Table, candidates: &[bool]) -> bool {
        let mut sources: Vec<usize> = (0..self.nodes).collect();
        sources.sort_by_key(|node| std::cmp::Reverse(self.imbalances[*node]));
        // From here on nodes have one address at most.
        let uneven = sources.into_iter().take_while(|node| self.imbalances[*node] != 0);
        for source in uneven {
            let Some(best) = self.best_move(table, source, candidates) else { continue };
            let Move { entry, to, .. } = best;
            self.count_out(table, entry, source);
            self.count_in(table, entry, to);
            self.imbalances[source] = best.source;
            self.imbalances[to] = best.destination;
            table.entries[entry].host = Some(to);
            return true;
        }
        false
    }

    fn best_move(&self, table: &Table, source: usize, candidates: &[bool]) -> Option<Move> {
        let mut best: Option<Move> = None;
        let there =
            table.entries.iter().enumerate().filter(|(_, entry)| entry.host == Some(source));
        for (entry, _) in there {
            let cost_here = self.cost(entry, source);
            let left = self.imbalances[source].wrapping_sub(cost_here);
            for to in table.takers(entry).iter().copied().filter(|node| candidates[*node]) {
                let cost = self.cost(entry, to);
                let destination = self.imbalances[to].wrapping_add(cost);
                let pays = destination < self.imbalances[source] && cost < cost_here;
                let sum = left.wrapping_add(destination);
                let better = best
                    .as_ref()
                    .is_none_or(|best| sum < best.source.wrapping_add(best.destination));
                if pays && better {
                    best = Some(Move { entry, to, source: left, destination });
                }
            }
        }
        best
    }
}
