//! Every limit of this crate by name, and what happens at it.

use std::time::Duration;

/// Waits for busy chains of one database at the same time, over all shards (`LockProcessesPerDB`
/// of the C daemon). Beyond it a wait is refused and the caller keeps the request queued.
pub const WAITERS_PER_DATABASE_MAX: usize = 200;

/// Longest uninterrupted sleep of a thread that waits for a lock: so long may a cancelled wait
/// linger. Shorter costs wake-ups, longer keeps a chain of ours unusable after a cancel.
pub const SLEEP_SLICE_MAX: Duration = Duration::from_millis(100);

/// Dead records one handle with a reserve leaves in one chain: every lookup there passes them.
/// Beyond it a delete frees them as libtdb does.
pub const BURIED_PER_CHAIN_MAX: u8 = 5;

/// Bytes of keys a rescue holds at once to tell candidates of one hash and length apart. Beyond it
/// they count as one key.
pub const RESCUED_KEYS_MAX: usize = 64 << 20;
