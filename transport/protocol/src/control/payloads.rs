//! Every type that appears as the payload of a control, for one `use`.

pub use super::reply::{ClientCount, InStatus};
pub use crate::address::SockAddr;
pub use crate::capabilities::Capabilities;
pub use crate::connection::{
    AddressInfo, Connection, Interface, InterfaceList, PublicIp, PublicIpInfo, PublicIpList,
    TickleList,
};
pub use crate::database::{
    DbIdMap, DbSeqnum, DbVacuum, GetDbSeqnum, PullDb, RecordCount, TdbOpenFlags, TransDb, VnnMap,
};
pub use crate::id::{DbId, Pnn, Srvid};
pub use crate::node::{BanState, NodeFlagChange, NodeMap};
pub use crate::process::{
    DebugLevel, EchoData, NotifyData, Pid, PidSrvid, RecMode, ReclockLatency, Role, RunState,
    Uptime,
};
pub use crate::record::{KeyData, PushRecord, RecBuffer, RecData};
pub use crate::statistics::{DbStatistics, Statistics, StatisticsHistory};
pub use crate::text::{BareText, Text};
pub use crate::traverse::{TraverseAll, TraverseAllExt, TraverseStart, TraverseStartExt};
pub use crate::tunable::{TunableList, TunableName, TunableNames, TunableSetting, TunableValue};
