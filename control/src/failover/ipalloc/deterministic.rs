//! Each address has a home; where that is away, the least loaded node.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.9; `ctdb/server/ipalloc_deterministic.c`.

use tracing::warn;

use super::{Question, Table, key};
use ringmaster_protocol::SockAddr;

/// Places everything. `NoIPFailback` cannot be obeyed: homes do not depend on where things are.
pub(super) fn place(table: &mut Table, question: &Question<'_>) {
    if question.no_failback {
        warn!("NoIPFailback has no meaning with the deterministic allocation; ignored");
    }
    for (index, entry) in table.entries.iter_mut().enumerate() {
        let home = question.homes.iter().find(|home| {
            let address = SockAddr::new(home.address, 0);
            key(&address) == Some(entry.key) && address.same_ip(&entry.address)
        });
        let home = home.and_then(|home| usize::try_from(home.pnn.get()).ok());
        let home = home.filter(|home| *home < table.nodes);
        entry.host = home.or_else(|| index.checked_rem(table.nodes));
    }
    table.unassign_unsuitable();
    let mut loads = table.loads();
    table.give_unassigned_to_least_loaded(&mut loads);
}
