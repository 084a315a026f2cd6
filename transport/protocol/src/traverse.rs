//! Parameters of the traverse controls.
//!
//! `reqid` of the START forms is the number the client wants to see in the record messages;
//! `reqid` of the ALL forms is the originating daemon's traverse id, echoed in TRAVERSE_DATA.
//! Origin: `docs/spec/wire-protocol.md` 4.5.

use crate::id::{DbId, Pnn, Reqid, Srvid};
use crate::layout::wire_struct;

wire_struct! {
    /// TRAVERSE_START and TRAVERSE_KILL (`ctdb_traverse_start`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TraverseStart = 16 bytes {
        /// The database.
        pub db: DbId;
        /// Echoed in every record message.
        pub reqid: Reqid;
        /// Where the record messages go.
        pub srvid: Srvid;
    }
}

wire_struct! {
    /// TRAVERSE_START_EXT (`ctdb_traverse_start_ext`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TraverseStartExt = 24 bytes {
        /// The database.
        pub db: DbId;
        /// Echoed in every record message.
        pub reqid: Reqid;
        /// Where the record messages go.
        pub srvid: Srvid;
        /// Also report records without data.
        pub with_empty_records: bool, pad 7;
    }
}

wire_struct! {
    /// TRAVERSE_ALL (`ctdb_traverse_all`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TraverseAll = 24 bytes {
        /// The database.
        pub db: DbId;
        /// Traverse id of the originating daemon.
        pub reqid: Reqid;
        /// The originating node.
        pub pnn: Pnn;
        /// The client's number; only TRAVERSE_KILL looks at it.
        pub client_reqid: Reqid;
        /// The client's address; only TRAVERSE_KILL looks at it.
        pub srvid: Srvid;
    }
}

wire_struct! {
    /// TRAVERSE_ALL_EXT (`ctdb_traverse_all_ext`). C leaves the last 7 bytes uninitialised.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TraverseAllExt = 32 bytes {
        /// The database.
        pub db: DbId;
        /// Traverse id of the originating daemon.
        pub reqid: Reqid;
        /// The originating node.
        pub pnn: Pnn;
        /// The client's number; only TRAVERSE_KILL looks at it.
        pub client_reqid: Reqid;
        /// The client's address; only TRAVERSE_KILL looks at it.
        pub srvid: Srvid;
        /// Also report records without data.
        pub with_empty_records: bool, pad 7;
    }
}
