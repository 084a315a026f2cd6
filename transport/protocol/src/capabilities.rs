//! What a node can do (GET_CAPABILITIES).
//!
//! Origin: `docs/spec/wire-protocol.md` 4.9.

use crate::flags::flag_set;
use crate::layout::fixed_newtype;

flag_set! {
    /// Roles a node may take and features its daemon has.
    pub struct Capabilities {
        /// May become the cluster leader (`leader capability`).
        const LEADER = 0x0000_0001;
        /// May be location master of records (`lmaster capability`).
        const LMASTER = 0x0000_0002;
        /// Obsolete.
        const LVS = 0x0000_0004;
        /// Obsolete.
        const NATGW = 0x0000_0008;
        /// Recovers databases in parallel.
        const PARALLEL_RECOVERY = 0x0001_0000;
        /// Takes recovery data as messages (DB_PULL, DB_PUSH).
        const FRAGMENTED_CONTROLS = 0x0002_0000;
        /// What a daemon announces by default.
        const DEFAULT = 0x0003_0003;
    }
}

fixed_newtype!(Capabilities(u32));
