//! `ctdb_killtcp`: ends TCP connections.
//!
//! Role: command line and input; how a connection is ended is `ringmaster_network::killing`.
//! Origin: `docs/spec/admin-interface.md` 2.8; `ctdb/tools/ctdb_killtcp.c`.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::OsStrExt,
};

use ringmaster_network::killing;
use ringmaster_protocol::{SockAddr, connection::Connection};

use crate::output::Output;

/// C's exit status for what it cannot read.
const UNREADABLE: u8 = 255;

/// Runs the tool. `program` is its name as it was called.
pub fn run(program: &OsStr, args: &[OsString], input: &mut dyn Read) -> Output {
    let mut output = Output::default();
    let interface = match args {
        [interface] | [interface, _, _] => interface.to_string_lossy(),
        _ => {
            let usage = " <interface> [ <srcip:port> <dstip:port> ]";
            output.out([b"usage: ", program.as_bytes(), usage.as_bytes()].concat());
            return output.with_status(1);
        }
    };
    let pairs = if let [_, src, dst] = args { pair(src, dst) } else { pairs(input) };
    let pairs = match pairs {
        Ok(pairs) => pairs,
        Err(complaint) => {
            output.err(complaint);
            return output.with_status(UNREADABLE);
        }
    };
    if let Err(error) = killing::kill(&interface, &pairs) {
        // As C: what cannot be ended is no failure, for the address leaves all the same.
        output.err(format!("ctdb_killtcp: {interface}: {error}"));
    }
    output
}

fn pair(src: &OsStr, dst: &OsStr) -> Result<Vec<Connection>, String> {
    let end = |text: &OsStr| {
        let text = text.to_string_lossy();
        SockAddr::parse_with_port(&text).map_err(|_| format!("Bad IP:port '{text}'"))
    };
    Ok(vec![Connection { src: end(src)?, dst: end(dst)? }])
}

/// One pair a line; empty lines are none.
fn pairs(input: &mut dyn Read) -> Result<Vec<Connection>, String> {
    let unable = |reason: &str| format!("Unable to parse connections ({reason})");
    let mut text = String::new();
    input.read_to_string(&mut text).map_err(|error| unable(&error.to_string()))?;
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let mut end = || SockAddr::parse_with_port(words.next()?).ok();
        Some(Connection { src: end()?, dst: end()? })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let pairs: Option<Vec<Connection>> = lines.map(read).collect();
    pairs.ok_or_else(|| unable("Invalid argument"))
}
