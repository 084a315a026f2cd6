//! onnode, ctdb-path, ctdb-config, ctdb-event, ltdbtool, ping_pong, lock helpers.
