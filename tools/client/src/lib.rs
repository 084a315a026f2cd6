//! Blocking client of a CTDB daemon's unix socket.
