//! Every bound of the client, and what happens at it.

use std::time::Duration;

/// Time-out of a request unless the caller sets another one. At it the request fails with its
/// name; a later reply is dropped. The C tool's default (`-t`) is the same.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long [`crate::Client::begin`] waits for other transactions on the database, unless the caller
/// says otherwise; then it fails with the holder's name.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// How long a refused commit is tried again, and how long the answer to each try is waited for,
/// unless the caller says otherwise. A daemon answers within its tunable `ControlTimeout` (60 s) or
/// when the recovery that settles the commit ends. Without an answer the commit fails as unsettled:
/// nobody knows whether it will take place.
pub const COMMIT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(180);

/// Longest packet accepted from the daemon, in bytes; a longer one ends the connection. Far above
/// any record: a record is never split, and smbd's have reached tens of megabytes.
pub const PACKET_LEN_MAX: u32 = 1 << 30;

/// Requests waiting for a reply at one time; the next one fails.
pub const REQUESTS_MAX: usize = 65_536;

/// Messages waiting to be received; further ones are dropped and counted, and the next receive
/// reports the loss.
pub const INBOX_MESSAGES_MAX: usize = 100_000;

/// Bytes of messages waiting to be received; as [`INBOX_MESSAGES_MAX`].
pub const INBOX_BYTES_MAX: usize = 256 << 20;

/// Bytes read from the socket at a time.
pub const READ_LEN: usize = 64 << 10;

const _: () = assert!(INBOX_MESSAGES_MAX > READ_LEN / 48, "one read never overflows an inbox");
