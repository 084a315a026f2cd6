//! What nodes are and how they are: `status`, `nodestatus`, `listnodes`, `uptime`, `ping`, …
//!
//! Role: the reports of these commands as text, rows and JSON, and the requests behind them.
//! Invariant: while the asked node is banned the node map comes from another connected node; its
//! own map is as old as the ban.
//!
//! Origin: `docs/spec/admin-interface.md` 1.5.

mod format;
mod query;

pub use format::{
    GETPID, GetPid, LEADER, LISTNODES, Leader, ListedNode, ListedNodes, NODESTATUS, NodeRow,
    NodeStatus, NodeTable, PING, PNN, Ping, Pnn, RUNSTATE, RunStateReport, STATUS, Status, UPTIME,
    UptimeReport,
};
pub use query::{getpid, leader, listnodes, nodestatus, ping, pnn, runstate, status, uptime};

pub(crate) use query::read_nodes;
