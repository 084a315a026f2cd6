//! Limits of a shard, by name, with what happens at each.

use std::time::Duration;

/// Messages that fit into a shard's or control's inbox; more wait at the sender.
pub const INBOX_MESSAGES: usize = 4_096;

/// Requests that wait at a sender whose receiver's inbox is full; then the sender stops reading
/// from its clients.
pub const PARKED_MAX: usize = 65_536;

/// Answers beyond that: one for each request that the other side may have under way.
pub const PARKED_REPLIES: usize = 1_048_576;

/// Credit that must be there before a buffer of input is looked at: a buffer of 16 KiB holds at
/// most 512 packets of 32 bytes, each of which may become one message.
pub const CREDIT_MIN: usize = 512;

const _: () = assert!(CREDIT_MIN * 32 >= ringmaster_transport::reactor::BUFFER_LEN);
const _: () = assert!(PARKED_MAX > 4 * CREDIT_MIN);

/// Messages taken from the inbox in one turn, so that sockets get their share.
pub const MESSAGES_PER_TURN: usize = 1_024;

/// Output that may wait for a client that does not read, in bytes; then its connection is closed
/// (C: `MaxQueueDropMsg` packets, which bounds nothing in bytes).
pub const CLIENT_OUTPUT_MAX: usize = 512 * 1024 * 1024;

/// A shard without work wakes up this often to look after its timers' clock.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// Refused connections are reported at most this often, with their number.
pub const REFUSALS_PAUSE: Duration = Duration::from_secs(1);

/// Record packets of other nodes that wait in a shard for their database to be attached; one more
/// is refused like a call for a database that nobody knows.
pub const EARLY_MAX: usize = 4_096;

/// So long they wait; then they are refused.
pub const EARLY_TIME: Duration = Duration::from_secs(10);

/// A listener that ran out of descriptors tries again after this long.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Another shard or process that works has the freelist for a few microseconds: so often is it
/// tried for before the record is deferred.
pub const FREELIST_TRIES: u32 = 16;

/// A record that another process keeps out of the file (it holds the freelist) is tried again after
/// this long, and after twice as long each time.
pub const FREELIST_PAUSE_MIN: Duration = Duration::from_millis(1);

/// The pause grows no further than this.
pub const FREELIST_PAUSE_MAX: Duration = Duration::from_millis(100);

/// A wait for a chain is reported each time it has lasted this much longer.
pub const SLOW_LOCK: Duration = Duration::from_secs(10);
