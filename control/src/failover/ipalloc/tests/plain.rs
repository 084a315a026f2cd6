//! The arithmetic as the specification states it: every sum computed anew whenever it is needed.
//!
//! Shares only the merged table with what it is compared to.

use std::cmp::Reverse;

use super::super::{Algorithm, Entry, Placement, Question, Table, key, pnn};
use ringmaster_protocol::SockAddr;

pub(super) fn allocate(question: &Question<'_>) -> Vec<Placement> {
    let Table { nodes, mut entries, .. } = Table::merge(question);
    let mut plain = Plain { nodes, entries: std::mem::take(&mut entries), question };
    match question.algorithm {
        Algorithm::Deterministic => plain.deterministic(),
        Algorithm::NonDeterministic => plain.nondeterministic(),
        Algorithm::Lcp2 => plain.lcp2(),
    }
    let placement = |entry: Entry| Placement {
        address: entry.address,
        host: entry.host.and_then(pnn),
        known_on: entry.known_on.into_iter().filter_map(pnn).collect(),
    };
    plain.entries.into_iter().map(placement).collect()
}

struct Plain<'a> {
    nodes: usize,
    entries: Vec<Entry>,
    question: &'a Question<'a>,
}

impl Plain<'_> {
    fn can_take(&self, entry: usize, node: usize) -> bool {
        !self.question.no_takeover && self.entries[entry].available_on.contains(&node)
    }

    fn load(&self, node: usize) -> usize {
        self.entries.iter().filter(|entry| entry.host == Some(node)).count()
    }

    fn unassign(&mut self) {
        for entry in &mut self.entries {
            if entry.host.is_some_and(|host| !entry.available_on.contains(&host)) {
                entry.host = None;
            }
        }
    }

    fn least_loaded(&mut self, entry: usize) {
        let mut best: Option<usize> = None;
        for node in 0..self.nodes {
            if self.can_take(entry, node)
                && best.is_none_or(|best| self.load(node) < self.load(best))
            {
                best = Some(node);
            }
        }
        if best.is_some() {
            self.entries[entry].host = best;
        }
    }

    fn least_loaded_for_unassigned(&mut self) {
        for entry in 0..self.entries.len() {
            if self.entries[entry].host.is_none() {
                self.least_loaded(entry);
            }
        }
    }

    fn deterministic(&mut self) {
        for index in 0..self.entries.len() {
            let mut host = index % self.nodes;
            for home in self.question.homes.iter().rev() {
                let address = SockAddr::new(home.address, 0);
                let there = home.pnn.get() as usize;
                if key(&address) == Some(self.entries[index].key) && there < self.nodes {
                    host = there;
                }
            }
            self.entries[index].host = Some(host);
        }
        self.unassign();
        self.least_loaded_for_unassigned();
    }

    fn nondeterministic(&mut self) {
        self.unassign();
        self.least_loaded_for_unassigned();
        let mut moves = 0;
        while !self.question.no_failback && self.even_out(&mut moves) {}
    }

    /// One pass; whether it has moved something and another one is due.
    fn even_out(&mut self, moves: &mut usize) -> bool {
        for entry in 0..self.entries.len() {
            if self.entries[entry].host.is_none() {
                continue;
            }
            let takers: Vec<usize> =
                (0..self.nodes).filter(|node| self.can_take(entry, *node)).collect();
            let (mut most, mut least) = (None, None);
            for taker in takers {
                let load = self.load(taker);
                if most.is_none_or(|(_, found)| load > found) {
                    most = Some((taker, load));
                }
                if least.is_none_or(|(_, found)| load < found) {
                    least = Some((taker, load));
                }
            }
            let (Some((node, most)), Some((_, least))) = (most, least) else { continue };
            if most >= least + 2 && *moves < self.entries.len() + 5 {
                let first = self.entries.iter().position(|entry| entry.host == Some(node)).unwrap();
                self.least_loaded(first);
                *moves += 1;
                return true;
            }
        }
        false
    }

    fn distance2(&self, one: usize, other: usize) -> u32 {
        let mut distance = 0;
        for (a, b) in self.entries[one].key.iter().zip(self.entries[other].key) {
            distance += if *a == b { 32 } else { (a ^ b).leading_zeros() };
        }
        distance * distance
    }

    fn on(&self, node: usize) -> Vec<usize> {
        (0..self.entries.len()).filter(|entry| self.entries[*entry].host == Some(node)).collect()
    }

    fn cost(&self, entry: usize, node: usize) -> u32 {
        let others = self.on(node).into_iter().filter(|other| *other != entry);
        others.fold(0, |sum, other| sum.wrapping_add(self.distance2(entry, other)))
    }

    fn imbalance(&self, node: usize) -> u32 {
        let there = self.on(node);
        let mut sum = 0_u32;
        for (place, one) in there.iter().enumerate() {
            for other in &there[place + 1..] {
                sum = sum.wrapping_add(self.distance2(*one, *other));
            }
        }
        sum
    }

    fn lcp2(&mut self) {
        self.unassign();
        let mut imbalances: Vec<u32> = (0..self.nodes).map(|node| self.imbalance(node)).collect();
        let rebalance = &self.question.rebalance;
        let forced = |node| rebalance.iter().any(|pnn| pnn.get() as usize == node);
        let candidates: Vec<bool> =
            (0..self.nodes).map(|node| self.on(node).is_empty() || forced(node)).collect();
        self.lcp2_assign(&mut imbalances);
        if !self.question.no_failback && candidates.contains(&true) {
            while self.lcp2_move(&mut imbalances, &candidates) {}
        }
    }

    fn lcp2_assign(&mut self, imbalances: &mut [u32]) {
        loop {
            let mut best: Option<(usize, usize, u32)> = None;
            for entry in 0..self.entries.len() {
                for node in 0..self.nodes {
                    if self.entries[entry].host.is_some() || !self.can_take(entry, node) {
                        continue;
                    }
                    let cost = self.cost(entry, node);
                    if best.is_none_or(|(_, _, found)| cost < found) {
                        best = Some((entry, node, cost));
                    }
                }
            }
            let Some((entry, node, cost)) = best else { return };
            imbalances[node] = imbalances[node].wrapping_add(cost);
            self.entries[entry].host = Some(node);
        }
    }

    fn lcp2_move(&mut self, imbalances: &mut [u32], candidates: &[bool]) -> bool {
        let mut order: Vec<usize> = (0..self.nodes).collect();
        order.sort_by_key(|node| Reverse(imbalances[*node]));
        for source in order {
            if imbalances[source] == 0 {
                return false;
            }
            let mut best: Option<(usize, usize, u32, u32)> = None;
            for entry in self.on(source) {
                if (0..self.nodes).all(|to| !self.can_take(entry, to) || to == source) {
                    continue;
                }
                let here = self.cost(entry, source);
                let left = imbalances[source].wrapping_sub(here);
                for to in (0..self.nodes).filter(|to| candidates[*to] && self.can_take(entry, *to))
                {
                    let there = self.cost(entry, to);
                    let right = imbalances[to].wrapping_add(there);
                    let pays = right < imbalances[source] && there < here;
                    let sum = left.wrapping_add(right);
                    if pays && best.is_none_or(|(_, _, l, r)| sum < l.wrapping_add(r)) {
                        best = Some((entry, to, left, right));
                    }
                }
            }
            if let Some((entry, to, left, right)) = best {
                self.entries[entry].host = Some(to);
                imbalances[source] = left;
                imbalances[to] = right;
                return true;
            }
        }
        false
    }
}
