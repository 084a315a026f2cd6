//! The same cases against the C daemon and tool and against ours.
