//! ctdbd: wires the crates, carries out actions, owns children.
//!
//! Role: everything that control (pure) asks for is done here: shards, database workers, children,
//! sockets, files. If logic collects here, it belongs one level down.

pub mod worker;
