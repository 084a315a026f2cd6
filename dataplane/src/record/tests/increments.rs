//! Everything at once, in random order.

use super::*;

/// Clients on every node add to counters under the chain lock; the network reorders between pairs
/// of nodes, chains are busy at random. Nothing is lost, and every record has one dmaster.
#[test]
fn increments_on_all_nodes_add_up_whatever_the_order() {
    for seed in 1..=60_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let nodes = usize::try_from(2 + next(3)).unwrap();
        let flags = if next(2) == 0 { DbFlags::NONE } else { DbFlags::READONLY };
        let mut cluster = Cluster::new(nodes, flags);
        let keys: Vec<Vec<u8>> = (0..3).map(|n| format!("counter-{n}").into_bytes()).collect();
        let mut wanted: Vec<Vec<u32>> = vec![vec![4; keys.len()]; nodes];
        let mut asked: Vec<Vec<bool>> = vec![vec![false; keys.len()]; nodes];
        for step in 0..200_000 {
            if wanted.iter().flatten().all(|left| *left == 0) {
                break;
            }
            assert!(step < 199_999, "seed {seed}: increments do not get done");
            let node = usize::try_from(next(nodes as u64)).unwrap();
            match next(4) {
                0 => {
                    let which = usize::try_from(next(keys.len() as u64)).unwrap();
                    let key = &keys[which];
                    if wanted[node][which] == 0 {
                        continue;
                    }
                    let value = cluster.record(node, key).map(|record| record.3);
                    let number =
                        value.map_or(0, |value| value.try_into().map_or(0, u32::from_le_bytes));
                    if cluster.nodes[node].store.is_unlocked()
                        && cluster.write(node, key, &(number + 1).to_le_bytes())
                    {
                        wanted[node][which] -= 1;
                        asked[node][which] = false;
                    } else if !asked[node][which] {
                        asked[node][which] = true;
                        let reqid = u32::try_from(which).unwrap() + 1;
                        if next(4) == 0 {
                            cluster.call(
                                node,
                                90 + reqid,
                                CallFlags::WANT_READONLY,
                                CallId::FETCH,
                                key,
                            );
                        }
                        cluster.migrate(node, reqid, key);
                    }
                }
                1 => {
                    cluster.turn(node);
                    cluster.now = cluster.now.plus_millis(next(5));
                }
                _ => {
                    let pairs: Vec<_> = cluster.network.keys().copied().collect();
                    if !pairs.is_empty() {
                        let pair = pairs[usize::try_from(next(pairs.len() as u64)).unwrap()];
                        cluster.deliver(pair.0, pair.1);
                    }
                }
            }
            for (reqid, ..) in cluster.replies(node) {
                if (1..90).contains(&reqid) {
                    asked[node][reqid as usize - 1] = false; // look again, ask again if need be
                }
            }
            for key in &keys {
                let owners = (0..nodes)
                    .filter(|node| {
                        cluster.record(*node, key).is_some_and(|record| record.1 as usize == *node)
                    })
                    .count();
                assert!(owners <= 1, "seed {seed}: {owners} dmasters");
            }
        }
        cluster.settle();
        for key in &keys {
            let values: Vec<u32> = (0..nodes)
                .filter_map(|node| {
                    let record = cluster.record(node, key)?;
                    (record.1 as usize == node).then(|| record.3.try_into().ok())?
                })
                .map(u32::from_le_bytes)
                .collect();
            assert_eq!(values, [4 * u32::try_from(nodes).unwrap()], "seed {seed}");
        }
        assert!(cluster.nodes.iter().all(|node| node.out.recoveries.is_empty()), "seed {seed}");
    }
}
