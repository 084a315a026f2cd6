use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ringmaster_protocol::control_packet::ReplyControl;
use ringmaster_protocol::header::{Envelope, PacketStyle};
use ringmaster_protocol::{Generation, RequestHeader};

/// What the scripted daemon does after it has answered GET_PNN with 5.
enum Script {
    /// Closes after the next packet.
    Close,
    /// Reads and says nothing.
    Silence,
    /// Sends these bytes after the next packet; `REQID` bytes are patched into replies.
    Send(fn(reqid: Reqid) -> Vec<u8>),
}

struct Daemon {
    _directory: tempfile::TempDir,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn new(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut next = || {
                let mut head = [0; 32];
                stream.read_exact(&mut head).ok()?;
                let header = RequestHeader::decode(&head).unwrap();
                let mut rest = vec![0; header.length as usize - 32];
                stream.read_exact(&mut rest).ok()?;
                Some((header, stream.try_clone().unwrap()))
            };
            let (header, mut stream) = next().unwrap();
            stream.write_all(&reply(header.envelope.reqid, 5, b"", b"")).unwrap();
            match script {
                Script::Close => drop(next()),
                Script::Silence => while next().is_some() {},
                Script::Send(bytes) => {
                    while let Some((header, mut stream)) = next() {
                        stream.write_all(&bytes(header.envelope.reqid)).unwrap();
                    }
                }
            }
        });
        Self { _directory: directory, path, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect_to(&self.path, Duration::from_secs(30)).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the scripted daemon failed");
        }
    }
}

fn packet(packet: &Packet<'_>, reqid: Reqid) -> Vec<u8> {
    let mut bytes = Vec::new();
    let source = Destination::Node(Pnn::new(5).unwrap());
    let envelope = Envelope { generation: Generation(1), destination: source, source, reqid };
    packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    bytes
}

fn reply(reqid: Reqid, status: i32, data: &[u8], error: &[u8]) -> Vec<u8> {
    packet(&Packet::ReplyControl(ReplyControl { status, data, error }), reqid)
}

fn message(srvid: u64) -> Vec<u8> {
    packet(&Packet::ReqMessage(ReqMessage { srvid: Srvid(srvid), data: b"m" }), Reqid::NONE)
}

#[test]
fn a_daemon_that_closes_in_the_middle_of_a_request_is_named() {
    let daemon = Daemon::new(Script::Close);
    let mut client = daemon.client();
    assert_eq!(client.pnn().get(), 5);
    let error = client.control::<kinds::Ping>(client.own_node(), &()).unwrap_err();
    assert!(matches!(error, ControlError::Connection(ConnectionError::Closed { .. })), "{error:?}");
    assert!(error.to_string().contains("closed the connection at"), "{error}");
    let again = client.control::<kinds::Ping>(client.own_node(), &()).unwrap_err();
    assert!(matches!(again, ControlError::Connection(_)), "{again:?}");
}

#[test]
fn a_silent_daemon_costs_the_time_out_and_the_error_names_the_control() {
    let daemon = Daemon::new(Script::Silence);
    let mut client = daemon.client();
    let timeout = Duration::from_millis(20);
    let options = ControlOptions::timeout(timeout);
    let to = client.own_node();
    let error = client.control_with::<kinds::Ping>(to, &(), options).unwrap_err();
    assert_eq!(error.errno(), 110);
    assert_eq!(error.to_string(), "control PING to node 5: no reply within 20ms");
    client.set_timeout(timeout);
    let db = DbId(0xAB);
    let error = client.call(db, b"k", CallId::NULL, CallFlags(0)).unwrap_err();
    assert!(error.to_string().contains("0x000000ab: no reply within"), "{error}");
    let error = client.receive(timeout).unwrap_err();
    assert!(matches!(error, ReceiveError::TimedOut { .. }), "{error}");
    drop(client);
}

#[test]
fn a_refusal_carries_status_and_text() {
    let daemon = Daemon::new(Script::Send(|reqid| reply(reqid, -1, b"", b"no such thing")));
    let mut client = daemon.client();
    let error = client.control::<kinds::GetDbName>(client.own_node(), &DbId(1)).unwrap_err();
    assert_eq!(error.errno(), -1);
    let text = "control GET_DBNAME to node 5 failed with status -1: no such thing";
    assert_eq!(error.to_string(), text);
    drop(client);
}

#[test]
fn a_reply_of_another_kind_or_shape_is_an_error() {
    let daemon = Daemon::new(Script::Send(|reqid| reply(reqid, 0, b"abc", b"")));
    let mut client = daemon.client();
    let error = client.control::<kinds::GetNodeMap>(client.own_node(), &()).unwrap_err();
    assert!(matches!(error, ControlError::Malformed { .. }), "{error:?}");
    let error = client.call(DbId(1), b"k", CallId::NULL, CallFlags(0)).unwrap_err();
    assert!(matches!(error, CallError::Malformed { .. }), "{error:?}");
    drop(client);
}

#[test]
fn values_that_borrow_live_until_the_next_request() {
    let daemon = Daemon::new(Script::Send(|reqid| reply(reqid, 0, b"some.tdb\0", b"")));
    let mut client = daemon.client();
    let name = client.control::<kinds::GetDbName>(client.own_node(), &DbId(1)).unwrap();
    assert_eq!(name.as_str(), Some("some.tdb"));
    drop(client);
}

#[test]
fn a_control_to_a_broadcast_is_refused_unless_no_reply_is_wanted() {
    let daemon = Daemon::new(Script::Silence);
    let mut client = daemon.client();
    let to = Destination::BroadcastConnected;
    let error = client.control::<kinds::Ping>(to, &()).unwrap_err();
    assert!(matches!(error, ControlError::Broadcast { .. }), "{error:?}");
    client.control_noreply::<kinds::Ping>(to, &(), ControlOptions::default()).unwrap();
    drop(client);
}

#[test]
fn messages_during_a_request_reach_their_handler_or_wait() {
    let both = |reqid| [message(1), message(2), reply(reqid, 0, b"", b""), message(1)].concat();
    let daemon = Daemon::new(Script::Send(both));
    let mut client = daemon.client();
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let handler = move |_: &Message| *count.lock().unwrap() += 1;
    client.register_handler(Srvid(1), handler).unwrap();
    assert_eq!(client.receive(Duration::from_secs(30)).unwrap().srvid, Srvid(2));
    while *seen.lock().unwrap() < 2 {
        client.serve(Duration::from_millis(5)).unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), 2);
    drop(client);
}

#[test]
fn several_requests_can_wait_at_once() {
    let daemon =
        Daemon::new(Script::Send(|reqid| reply(reqid, i32::try_from(reqid.0).unwrap(), b"", b"")));
    let mut client = daemon.client();
    let nodes: Vec<_> = (0..3).map(|n| Pnn::new(n).unwrap()).collect();
    let mut counts = Vec::new();
    client.control_each::<kinds::Ping>(&nodes, &(), ControlOptions::default(), |pnn, answer| {
        counts.push((pnn.get(), answer.unwrap().0.0));
    });
    // GET_PNN was request 1.
    assert_eq!(counts, [(0, 2), (1, 3), (2, 4)]);
    drop(client);
}

#[test]
fn no_daemon_is_an_error_that_names_the_socket() {
    let error = Client::connect_to(Path::new("/nonexistent/socket"), TIMEOUT_DEFAULT).unwrap_err();
    assert_eq!(error.errno(), 2);
    assert!(error.to_string().contains("/nonexistent/socket"), "{error}");
}
