//! The ctdb command line.
