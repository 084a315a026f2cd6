//! What the C tool and a C daemon say to each other, overheard on the unix socket: every packet is
//! decoded down to the payload of its control and encoded to the very bytes that were sent.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "wire/garbage.rs"]
mod garbage;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use garbage::without_garbage;
use ringmaster_compat::cluster::{Cluster, Config};
use ringmaster_compat::require_c_cluster;
use ringmaster_protocol::control::{ControlOpcode, ControlReply, ControlRequest, ReplyError};
use ringmaster_protocol::{Encode, Packet, PacketStyle, Reqid};

/// Both directions of one conversation.
struct Overheard {
    from_tool: Vec<u8>,
    from_daemon: Vec<u8>,
}

/// Copies `from` to `to` until it ends; returns what passed.
fn forward(mut from: UnixStream, mut to: UnixStream) -> Vec<u8> {
    let (mut passed, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let len = from.read(&mut chunk).unwrap_or(0);
        if len == 0 || to.write_all(&chunk[..len]).is_err() {
            // Both ends are done for: a tool that exits, or a daemon that drops it.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return passed;
        }
        passed.extend_from_slice(&chunk[..len]);
    }
}

/// Stands between the tool and the daemon for one connection.
fn overhear(socket: &Path, daemon: PathBuf) -> thread::JoinHandle<Overheard> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (tool, _) = listener.accept().unwrap();
        let daemon = UnixStream::connect(daemon).unwrap();
        let (tool_again, daemon_again) = (tool.try_clone().unwrap(), daemon.try_clone().unwrap());
        let requests = thread::spawn(move || forward(tool, daemon));
        let from_daemon = forward(daemon_again, tool_again);
        Overheard { from_tool: requests.join().unwrap(), from_daemon }
    })
}

/// The packets of a stream that ends with its last packet.
fn packets(stream: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut packets) = (stream, Vec::new());
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let Some((packet, tail)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        else {
            break; // Cut off: the tool left while the daemon was still talking.
        };
        packets.push(packet);
        rest = tail;
    }
    packets
}

/// A packet says everything with its types: encoded again, it has the same bytes.
fn whole(bytes: &[u8], style: PacketStyle) -> (Reqid, Packet<'_>) {
    let (header, packet) = Packet::decode(bytes).unwrap();
    let mut again = Vec::new();
    packet.encode_into(&mut again, header.envelope, style);
    assert_eq!(again, bytes, "{packet:?}");
    (header.envelope.reqid, packet)
}

/// Checks a conversation; returns the controls that were understood.
fn understood(overheard: &Overheard, command: &[&str]) -> BTreeSet<&'static str> {
    let (mut pending, mut names) = (BTreeMap::new(), BTreeSet::new());
    for bytes in packets(&overheard.from_tool) {
        let (reqid, packet) = whole(bytes, PacketStyle::Library);
        let Packet::ReqControl(control) = packet else { continue };
        let opcode = ControlOpcode(control.opcode);
        let request = ControlRequest::decode(opcode, control.data)
            .unwrap_or_else(|error| panic!("{command:?}: {error:?}: {:02x?}", control.data));
        assert_eq!(request.to_bytes(), control.data, "{command:?}: {opcode}");
        assert!(opcode.status().is_implemented(), "{command:?}: {opcode}");
        pending.insert(reqid.0, opcode);
        names.extend(opcode.name());
    }
    assert!(!names.is_empty(), "{command:?} sent nothing");
    for bytes in packets(&overheard.from_daemon) {
        let (reqid, packet) = whole(bytes, PacketStyle::Daemon);
        let Packet::ReplyControl(received) = packet else { continue };
        let opcode = pending.remove(&reqid.0).expect("a reply has a request");
        match ControlReply::decode(opcode, &received) {
            Ok(reply) => {
                let data = without_garbage(opcode, received.data);
                assert_eq!((reply.status(), reply.to_bytes()), (received.status, data), "{opcode}");
            }
            Err(ReplyError::Failed { .. }) => {}
            Err(error) => panic!("{command:?}: {opcode}: {error:?}: {:02x?}", received.data),
        }
    }
    names
}

#[test]
fn everything_the_c_tool_and_daemon_say_is_understood() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(2).with_public_addresses()).unwrap();
    let node = cluster.node(0);
    let socket = node.base().join("overhear.socket");
    let backup = node.base().join("backup");
    let backup = backup.to_str().unwrap();
    let commands: &[&[&str]] = &[
        &["status"],
        &["nodestatus", "all"],
        &["uptime"],
        &["runstate"],
        &["ping"],
        &["pnn"],
        &["getcapabilities"],
        &["getreclock"],
        &["getpid"],
        &["dumpmemory"],
        &["statistics"],
        &["stats"],
        &["statisticsreset"],
        &["listvars"],
        &["getvar", "ControlTimeout"],
        &["setvar", "ControlTimeout", "60"],
        &["getdebug"],
        &["setdebug", "INFO"],
        &["process-exists", "1"],
        &["process-exists", "1", "0x1"],
        &["leader"],
        &["attach", "heard.tdb"],
        &["attach", "heard_p.tdb", "persistent"],
        &["attach", "heard_r.tdb", "replicated"],
        &["setdbreadonly", "heard.tdb"],
        &["setdbsticky", "heard.tdb"],
        &["getdbmap"],
        &["getdbstatus", "heard.tdb"],
        &["writekey", "heard.tdb", "key", "value"],
        &["readkey", "heard.tdb", "key"],
        &["dbstatistics", "heard.tdb"],
        &["catdb", "heard.tdb"],
        &["deletekey", "heard.tdb", "key"],
        &["pstore", "heard_p.tdb", "key", "value"],
        &["pfetch", "heard_p.tdb", "key"],
        &["getdbseqnum", "heard_p.tdb"],
        &["catdb", "heard_p.tdb"],
        &["pdelete", "heard_p.tdb", "key"],
        &["backupdb", "heard_p.tdb", backup],
        &["restoredb", backup, "heard_r2.tdb"],
        &["wipedb", "heard_p.tdb"],
        &["ip", "all"],
        &["ipinfo", "192.168.100.1"],
        &["ipinfo", "10.9.8.7"],
        &["ifaces"],
        &["setifacelink", "lo", "up"],
        &["addtickle", "10.0.0.9:5", "192.168.100.1:445"],
        &["gettickles", "192.168.100.1"],
        &["deltickle", "10.0.0.9:5", "192.168.100.1:445"],
        &["gratarp", "192.168.100.1", "lo"],
        &["addip", "192.168.100.77/24", "lo"],
        &["moveip", "192.168.100.1", "0"],
        &["delip", "192.168.100.77"],
        &["reloadips"],
        &["ipreallocate"],
        &["setlmasterrole", "on"],
        &["setleaderrole", "on"],
        &["disable"],
        &["enable"],
        &["recover"],
        &["reloadnodes"],
        &["rddumpmemory"],
        &["detach", "heard.tdb"],
    ];
    let mut names = BTreeSet::new();
    for command in commands {
        let ear = overhear(&socket, node.socket());
        let mut tool = node.command("/usr/bin/ctdb");
        let output = tool.env("CTDB_SOCKET", &socket).args(*command).output().unwrap();
        // Should the tool not have connected, this does, and the assertion below tells.
        drop(UnixStream::connect(&socket));
        std::fs::remove_file(&socket).unwrap();
        names.extend(understood(&ear.join().unwrap(), command));
        println!("{command:?}: {}", output.status);
    }
    println!("{} controls: {names:?}", names.len());
    assert!(names.len() > 60, "only {} controls were overheard: {names:?}", names.len());
}
