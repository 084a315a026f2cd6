//! TCP connections to public addresses: `tickle`, `gettickles`, `addtickle`, `deltickle`.
//!
//! Role: pairs of addresses from arguments or standard input, and what is done with each.
//! Origin: `docs/spec/admin-interface.md` 1.6.5.

use std::ffi::OsString;
use std::io::{self, Read};

use ringmaster_network::tickle::{SendError, Sender};
use ringmaster_protocol::SockAddr;
use ringmaster_protocol::connection::Connection;
use ringmaster_protocol::control::kinds;
use serde::Serialize;

use crate::arguments::{address, decimal32, text};
use crate::command::{Failure, Key, Outcome, key};
use crate::fields;
use crate::output::Report;
use crate::page::Page;
use crate::session::Session;
use crate::tool::Tool;

/// Keys of `gettickles`.
pub const GETTICKLES: &[Key] = &[
    key("ip", "string", "public address"),
    key("connections[].src_ip", "string", "the client's address"),
    key("connections[].src_port", "number", "the client's port"),
    key("connections[].dst_ip", "string", "the public address"),
    key("connections[].dst_port", "number", "the server's port"),
];

/// `gettickles`.
#[derive(Clone, Debug)]
struct Tickles {
    ip: SockAddr,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
struct ConnectionObject {
    src_ip: String,
    src_port: u16,
    dst_ip: String,
    dst_port: u16,
}

impl Serialize for Tickles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object {
            ip: String,
            connections: Vec<ConnectionObject>,
        }
        let object = |connection: &Connection| ConnectionObject {
            src_ip: connection.src.to_string(),
            src_port: connection.src.port(),
            dst_ip: connection.dst.to_string(),
            dst_port: connection.dst.port(),
        };
        let connections = self.connections.iter().map(object).collect();
        Object { ip: self.ip.to_string(), connections }.serialize(serializer)
    }
}

impl Report for Tickles {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("Connections for IP: {}", self.ip));
        page.line(format_args!("Num connections: {}", self.connections.len()));
        for Connection { src, dst } in &self.connections {
            let (src, dst) = (src.display_with_port(), dst.display_with_port());
            page.line(format_args!("SRC: {src}   DST: {dst}"));
        }
    }

    fn machine(&self, page: &mut Page) {
        // Scripts may compare the header: the letter that is missing has to be missing.
        page.row(["Source IP", "Port", "Destiation IP", "Port"]);
        for Connection { src, dst } in &self.connections {
            page.row(fields![src, src.port(), dst, dst.port()]);
        }
    }
}

/// `gettickles`.
///
/// # Errors
/// The words are no address and port; the node does not know the address or does not answer.
pub fn gettickles(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let ip = address(&arguments[0])?;
    let port = match arguments.get(1) {
        Some(word) => {
            // Only the lower half is the port.
            let [low, high, ..] = decimal32(word).ok_or(Failure::BAD_NUMBER)?.to_le_bytes();
            u16::from_le_bytes([low, high])
        }
        // Port 0 stands for all of them.
        None => 0,
    };
    let list = session
        .control::<kinds::GetTcpTickleList, _>(session.target, &ip)
        .map_err(|refused| refused.explain("Failed to get list of connections"))?;
    let mut connections = list.connections;
    connections.retain(|connection| port == 0 || connection.dst.port() == port);
    session.output().report(&Tickles { ip, connections })?;
    Ok(0)
}

/// What to do: one pair from the command line, or many from standard input.
enum Pairs {
    One(Connection),
    Many(Vec<Connection>),
}

fn pairs(arguments: &[OsString]) -> Result<Pairs, Failure> {
    match arguments.len() {
        0 => {
            let mut input = Vec::new();
            // C, too, takes a broken standard input for its end.
            let _end = io::stdin().read_to_end(&mut input);
            parse_lines(&input).map(Pairs::Many)
        }
        2 => {
            let end = |index| {
                let word = text(arguments, index);
                SockAddr::parse_with_port(&word)
                    .map_err(|_| Failure::new(format_args!("Invalid IP address {word}")))
            };
            Ok(Pairs::One(Connection { src: end(0)?, dst: end(1)? }))
        }
        _ => Err(Failure::Usage),
    }
}

/// One pair in each line; empty lines and those that begin with `#` are skipped. One bad line
/// makes all of them bad.
fn parse_lines(input: &[u8]) -> Result<Vec<Connection>, Failure> {
    input
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .map(|line| {
            let line = std::str::from_utf8(line).map_err(|_| Failure::BAD_NUMBER)?;
            Connection::parse(line).map_err(|_| Failure::BAD_NUMBER)
        })
        .collect()
}

/// `tickle`.
///
/// # Errors
/// The words are no pairs; a packet cannot be sent.
pub fn tickle(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    match pairs(arguments)? {
        Pairs::One(connection) => {
            if let Err(error) = Sender::default().tickle(&connection) {
                tool.output.complain(wording(&error));
                return Err(Failure::new("Failed to send tickle ack"));
            }
        }
        Pairs::Many(connections) => {
            let mut failed = 0_usize;
            let mut sender = Sender::default();
            for connection in &connections {
                if let Err(error) = sender.tickle(connection) {
                    tool.output.complain(wording(&error));
                    failed += 1;
                }
            }
            if failed > 0 {
                return Err(Failure::new(format_args!("Failed to send {failed} tickles")));
            }
        }
    }
    Ok(0)
}

/// Why a tickle was not sent, in C's words.
fn wording(error: &SendError) -> String {
    // The system's text without Rust's number behind it.
    let reason = |error: &io::Error| {
        let text = error.to_string();
        text.split(" (os error").next().unwrap_or_default().to_owned()
    };
    match error {
        SendError::Open(source) => format!("Failed to open raw socket ({})", reason(source)),
        SendError::Send { source, .. } => format!("Failed sendto ({})", reason(source)),
        // A packet has one family; C notices when the kernel refuses the other.
        SendError::Mixed => {
            let source = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
            format!("Failed sendto ({})", reason(&source))
        }
        _ => "Not an ipv4/v6 address".to_owned(),
    }
}

/// `addtickle`.
///
/// # Errors
/// The words are no pairs; the node does not take one.
pub fn addtickle(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let node = session.target;
    match pairs(arguments)? {
        Pairs::One(connection) => session
            .control::<kinds::TcpAddDelayedUpdate, ()>(node, &connection)
            .map_err(|refused| refused.explain("Failed to register connection"))?,
        Pairs::Many(connections) => {
            let failed = session.count_failures::<kinds::TcpAddDelayedUpdate>(node, &connections);
            if failed > 0 {
                return Err(Failure::new(format_args!("Failed to add {failed} tickles")));
            }
        }
    }
    Ok(0)
}

/// `deltickle`.
///
/// # Errors
/// The words are no pairs; the node does not take one.
pub fn deltickle(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let node = session.target;
    match pairs(arguments)? {
        Pairs::One(connection) => session
            .control::<kinds::TcpRemove, ()>(node, &connection)
            .map_err(|refused| refused.explain("Failed to unregister connection"))?,
        Pairs::Many(connections) => {
            let failed = session.count_failures::<kinds::TcpRemove>(node, &connections);
            if failed > 0 {
                return Err(Failure::new(format_args!("Failed to remove {failed} tickles")));
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};

    fn tickles(src: &str, dst: &str) -> Tickles {
        let dst = SockAddr::parse_with_port(dst).unwrap();
        let connection = Connection { src: SockAddr::parse_with_port(src).unwrap(), dst };
        Tickles { ip: dst.with_port(0), connections: vec![connection] }
    }

    #[test]
    fn people_see_brackets_around_ipv6_and_scripts_do_not() {
        let v6 = tickles("[fd66::200]:1234", "[fd66::104]:445");
        let expected = "\
Connections for IP: fd66::104
Num connections: 1
SRC: [fd66::200]:1234   DST: [fd66::104]:445
";
        assert_eq!(human(&v6), expected);
        let rows = "|Source IP|Port|Destiation IP|Port|\n|fd66::200|1234|fd66::104|445|\n";
        assert_eq!(machine(&v6), rows);
        documented(&v6, GETTICKLES);
    }

    #[test]
    fn one_bad_line_makes_all_bad() {
        let good = b"# comment\n\n1.2.3.4:1 5.6.7.8:2\n 1.2.3.4:1\t5.6.7.8:2 surplus\n";
        assert_eq!(parse_lines(good).unwrap().len(), 2);
        for bad in ["1.2.3.4:1\n", "   \n", " # no comment\n", "1.2.3.4:1 [::1]:2\n"] {
            let lines = ["1.2.3.4:1 5.6.7.8:2\n", bad].concat();
            assert!(parse_lines(lines.as_bytes()).is_err(), "{bad}");
        }
    }
}
