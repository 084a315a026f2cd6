use super::*;
use crate::limits::READ_LEN;
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::{Pnn, RequestHeader, Srvid};

fn own() -> Destination {
    Destination::Node(Pnn::new(0).unwrap())
}

fn ask(connection: &mut Connection) -> Reqid {
    let (srvid, flags) = (Srvid(0), ControlFlags(0));
    let request = ReqControl { opcode: 3, srvid, client_id: 0, flags, data: &[] };
    connection.request(own(), &Packet::ReqControl(request)).unwrap()
}

fn from_daemon(packet: &Packet<'_>, reqid: Reqid) -> Vec<u8> {
    let mut bytes = Vec::new();
    let envelope = Envelope { generation: Generation(7), destination: own(), source: own(), reqid };
    packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    bytes
}

fn answer(reqid: Reqid, status: i32) -> Vec<u8> {
    from_daemon(&Packet::ReplyControl(ReplyControl::new(status, &[])), reqid)
}

fn message(data: &[u8]) -> Vec<u8> {
    let message = ReqMessage { srvid: Srvid(9), data };
    from_daemon(&Packet::ReqMessage(message), Reqid::NONE)
}

fn status(reply: &[u8]) -> i32 {
    match Packet::decode(reply).unwrap().1 {
        Packet::ReplyControl(reply) => reply.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn replies_find_their_requests_in_any_order_and_any_pieces() {
    let mut connection = Connection::new();
    let (first, second) = (ask(&mut connection), ask(&mut connection));
    let stream = [answer(second, 2), message(b"between"), answer(first, 1)].concat();
    for byte in stream {
        connection.input(&[byte]).unwrap();
    }
    assert_eq!(status(&connection.take_reply(first).unwrap()), 1);
    assert_eq!(status(&connection.take_reply(second).unwrap()), 2);
    assert_eq!(connection.messages().pop(|_| true).unwrap().data, b"between");
}

#[test]
fn a_reply_is_taken_once_and_only_when_it_is_there() {
    let mut connection = Connection::new();
    let reqid = ask(&mut connection);
    assert_eq!(connection.take_reply(reqid), None);
    connection.input(&answer(reqid, 0)).unwrap();
    assert!(connection.take_reply(reqid).is_some());
    assert_eq!(connection.take_reply(reqid), None);
}

#[test]
fn a_reply_nobody_waits_for_is_dropped() {
    let mut connection = Connection::new();
    let late = ask(&mut connection);
    connection.forget(late);
    connection.input(&answer(late, 0)).unwrap();
    let next = ask(&mut connection);
    assert_ne!(next, late);
    assert_eq!(connection.take_reply(late), None);
    assert_eq!(connection.take_reply(next), None);
}

#[test]
fn requests_carry_the_own_node_once_it_is_known() {
    let mut connection = Connection::new();
    ask(&mut connection);
    let unknown = RequestHeader::decode(connection.output()).unwrap();
    assert_eq!(unknown.envelope.source, Destination::Unknown);
    connection.output_written(connection.output().len());
    connection.set_source(own());
    ask(&mut connection);
    let known = RequestHeader::decode(connection.output()).unwrap();
    assert_eq!(known.envelope.source, own());
}

#[test]
fn request_ids_stay_positive_and_pass_over_those_that_wait() {
    let mut connection = Connection::new();
    connection.last_reqid = REQID_MAX - 1;
    assert_eq!(ask(&mut connection), Reqid(REQID_MAX));
    assert_eq!(ask(&mut connection), Reqid(1));
    connection.last_reqid = REQID_MAX - 1;
    assert_eq!(ask(&mut connection), Reqid(2));
}

#[test]
fn more_requests_than_the_limit_are_refused() {
    let mut connection = Connection::new();
    for _ in 0..REQUESTS_MAX {
        let reqid = ask(&mut connection);
        connection.output_written(connection.output().len());
        assert_ne!(reqid, Reqid::NONE);
    }
    let (srvid, flags) = (Srvid(0), ControlFlags(0));
    let request = ReqControl { opcode: 3, srvid, client_id: 0, flags, data: &[] };
    assert_eq!(connection.request(own(), &Packet::ReqControl(request)), Err(TooManyRequests));
    assert!(connection.output().is_empty());
}

#[test]
fn messages_beyond_the_limit_are_counted() {
    let mut connection = Connection::new();
    let packet = message(&[]);
    let batch = packet.repeat(READ_LEN / packet.len());
    let in_batch = READ_LEN / packet.len();
    let mut sent = 0;
    while sent < INBOX_MESSAGES_MAX + 10 {
        connection.input(&batch).unwrap();
        sent += in_batch;
    }
    let mut kept = 0;
    while connection.messages().pop(|_| true).is_some() {
        kept += 1;
    }
    assert_eq!(kept, INBOX_MESSAGES_MAX);
    assert_eq!(connection.messages().take_lost(), (sent - kept) as u64);
    assert_eq!(connection.messages().take_lost(), 0);
}

#[test]
fn garbage_ends_the_stream_and_a_bad_packet_does_not() {
    let mut connection = Connection::new();
    let reqid = ask(&mut connection);
    let mut bad_magic = answer(reqid, 1);
    bad_magic[4] ^= 1;
    connection.input(&bad_magic).unwrap();
    assert_eq!(connection.take_reply(reqid), None);
    connection.input(&answer(reqid, 1)).unwrap();
    assert!(connection.take_reply(reqid).is_some());
    assert_eq!(connection.input(&[0; 4]), Err(FrameError::Empty));
}
