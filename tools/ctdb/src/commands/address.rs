//! Public addresses: `ip`, `ipinfo`, `moveip`, `addip`, `delip`, `reloadips`, `ipreallocate`,
//! `gratarp`.
//!
//! Role: the reports as text, rows and JSON, and the requests behind them.
//! Origin: `docs/spec/admin-interface.md` 1.6.

mod change;
mod format;
mod query;

pub use change::{addip, delip, gratarp, ipreallocate, moveip, reloadips};
pub use format::{IP, IPINFO, InterfaceUse, PublicAddress, PublicAddressDetails, PublicAddresses};
pub use query::{ip, ipinfo};

pub(crate) use change::reallocate;
pub(crate) use format::link;
