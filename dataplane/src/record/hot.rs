//! Hot keys: which records move most.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.11; `ctdb/server/ctdb_call.c:
//! ctdb_update_db_stat_hot_keys`.

use std::collections::BTreeMap;

use super::{HotKey, Micros};

/// Slots that C reports.
pub(super) const HOT_KEYS: usize = 10;

/// Window in which migrations of one key are counted, in microseconds.
const WINDOW: u64 = 1_000_000;

/// Windows older than this are dropped, in microseconds.
const STALE: u64 = 10_000_000;

/// Keys counted at a time; beyond it a new key waits until stale ones have been dropped.
const COUNTED_MAX: usize = 65_536;

/// Migrations to this node per key, in the current second.
#[derive(Clone, Debug, Default)]
pub(super) struct MigrationCounts {
    windows: BTreeMap<Box<[u8]>, (Micros, u32)>,
    purged: Micros,
}

impl MigrationCounts {
    /// Notes a migration; returns the count of the key's current window.
    pub(super) fn count(&mut self, now: Micros, key: &[u8]) -> u32 {
        if now.since(self.purged) >= STALE {
            self.purged = now;
            self.windows.retain(|_, (start, _)| now.since(*start) < STALE);
        }
        if let Some((start, count)) = self.windows.get_mut(key) {
            if now.since(*start) < WINDOW {
                *count = count.saturating_add(1);
            } else {
                (*start, *count) = (now, 1);
            }
            return *count;
        }
        if self.windows.len() < COUNTED_MAX {
            self.windows.insert(key.into(), (now, 1));
        }
        1
    }
}

/// Puts a key with its count into the table (used slots first, ascending by count).
pub(super) fn update(table: &mut Vec<HotKey>, key: &[u8], count: u32) {
    if let Some(known) = table.iter_mut().find(|hot| &*hot.key == key) {
        if count <= known.count {
            return;
        }
        known.count = count;
    } else if table.len() < HOT_KEYS {
        table.push(HotKey { count, key: key.into() });
    } else if count > table[0].count {
        table[0] = HotKey { count, key: key.into() };
    } else {
        return;
    }
    table.sort_by_key(|hot| hot.count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_start_again_after_a_second() {
        let mut counts = MigrationCounts::default();
        assert_eq!(counts.count(Micros(5_000), b"k"), 1);
        assert_eq!(counts.count(Micros(900_000), b"k"), 2);
        assert_eq!(counts.count(Micros(1_005_000), b"k"), 1);
    }

    #[test]
    fn the_coolest_key_makes_room_for_a_hotter_one() {
        let mut table = Vec::new();
        for number in 0..10_u8 {
            update(&mut table, &[number], 10 + u32::from(number));
        }
        update(&mut table, b"cool", 10);
        assert!(table.iter().all(|hot| &*hot.key != b"cool"));
        update(&mut table, b"warm", 11);
        assert!(table.iter().any(|hot| &*hot.key == b"warm"));
        assert_eq!(table.len(), HOT_KEYS);
        update(&mut table, &[1], 99);
        assert_eq!(table.last().map(|hot| hot.count), Some(99));
    }
}
