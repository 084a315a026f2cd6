//! Addresses stay where they are unless nodes differ by two or more addresses.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.9; `ctdb/server/ipalloc_nondeterministic.c`.

use super::{Question, Table};

/// Attempts to even out, beyond one for each address.
const ATTEMPTS_EXTRA: usize = 5;

pub(super) fn place(table: &mut Table, question: &Question<'_>) {
    table.unassign_unsuitable();
    let mut loads = table.loads();
    table.give_unassigned_to_least_loaded(&mut loads);
    if question.no_failback {
        return;
    }
    // Bounded because an attempt need not move anything: the address may stay where it was.
    let attempts_max = table.entries.len() + ATTEMPTS_EXTRA;
    for _ in 0..attempts_max {
        let Some(most_loaded) = uneven(table, &loads) else { return };
        let on_it = table.entries.iter().position(|entry| entry.host == Some(most_loaded));
        let Some(entry) = on_it else { return };
        table.give_to_least_loaded(entry, &mut loads);
    }
}

/// The node that has too many addresses, seen from the first address for which that is so: of the
/// nodes that could take it one has at least two more than another.
fn uneven(table: &Table, loads: &[usize]) -> Option<usize> {
    (0..table.entries.len()).filter(|entry| table.entries[*entry].host.is_some()).find_map(
        |entry| {
            let takers = table.takers(entry);
            // The first on ties, which `max_by_key` alone would not give.
            let most = takers.iter().copied().rev().max_by_key(|node| loads[*node])?;
            let least = takers.iter().copied().min_by_key(|node| loads[*node])?;
            (loads[most] > loads[least] + 1).then_some(most)
        },
    )
}
