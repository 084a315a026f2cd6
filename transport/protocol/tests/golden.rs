//! Every captured packet of the specification's chapter 9 decodes to what its text says and encodes
//! to the very same bytes. Payloads of controls are compared as bytes here; their types have their
//! own tests.

#[path = "support/mod.rs"]
mod support;
#[path = "golden/table.rs"]
mod table;

use std::num::NonZeroI32;

use ringmaster_protocol::call::{
    CallFlags, CallId, ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster,
};
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::eventd::{
    EventReply, EventRequest, EventStatus, RunFlags, ScriptAction, ScriptStatus, frame_len,
};
use ringmaster_protocol::header::{Frame, Framing, Transport};
use ringmaster_protocol::keepalive::{KeepalivePayload, ReqKeepalive, SambaVersion};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::process::Timeval;
use ringmaster_protocol::record::{
    Dmaster, KeyData, PushRecord, RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader,
};
use ringmaster_protocol::text::Text;
use ringmaster_protocol::tunnel::{ReqTunnel, TunnelFlags};
use ringmaster_protocol::{
    DbId, Decode, Destination, Encode, Envelope, Generation, Packet, PacketStyle, Reqid, Rsn, Srvid,
};
use support::corpus::{example, examples};

fn call(flags: u32, db: u32, callid: CallId, hopcount: u32, key: &[u8]) -> Packet<'_> {
    let (flags, db) = (CallFlags(flags), DbId(db));
    Packet::ReqCall(ReqCall { flags, db, callid, hopcount, key, calldata: b"" })
}

fn reply_call(status: i32, data: &[u8]) -> Packet<'_> {
    Packet::ReplyCall(ReplyCall { status, data })
}

fn req_dmaster<'a>(
    db: u32,
    rsn: u64,
    dmaster: u32,
    key: &'a [u8],
    data: &'a [u8],
    flags: u32,
) -> Packet<'a> {
    Packet::ReqDmaster(ReqDmaster {
        db: DbId(db),
        rsn: Rsn(rsn),
        dmaster: Dmaster::from_raw(dmaster),
        key,
        data,
        record_flags: RecordFlags(flags),
    })
}

fn reply_dmaster<'a>(db: u32, rsn: u64, key: &'a [u8], data: &'a [u8], flags: u32) -> Packet<'a> {
    let record_flags = RecordFlags(flags);
    Packet::ReplyDmaster(ReplyDmaster { db: DbId(db), rsn: Rsn(rsn), key, data, record_flags })
}

fn reply_error(status: i32, message: &[u8]) -> Packet<'_> {
    Packet::ReplyError(ReplyError { status, message })
}

fn message(srvid: u64, data: &[u8]) -> Packet<'_> {
    Packet::ReqMessage(ReqMessage { srvid: Srvid(srvid), data })
}

fn control(opcode: u32, srvid: u64, client_id: u32, flags: u32, data: &[u8]) -> Packet<'_> {
    let flags = ControlFlags(flags);
    Packet::ReqControl(ReqControl { opcode, srvid: Srvid(srvid), client_id, flags, data })
}

fn reply<'a>(status: i32, data: &'a [u8], error: &'a [u8]) -> Packet<'a> {
    Packet::ReplyControl(ReplyControl { status, data, error })
}

fn keepalive(version: u32, uptime: u32) -> Packet<'static> {
    let payload = Some(KeepalivePayload { version: SambaVersion(version), uptime });
    Packet::ReqKeepalive(ReqKeepalive { payload, tail: b"" })
}

fn tunnel(tunnel_id: u64, flags: u32, data: &[u8]) -> Packet<'_> {
    Packet::ReqTunnel(ReqTunnel { tunnel_id, flags: TunnelFlags(flags), data })
}

#[test]
fn every_captured_packet_decodes_to_its_fields_and_encodes_to_its_bytes() {
    let packets: Vec<_> = examples().iter().filter(|example| example.is_packet()).collect();
    assert_eq!(packets.len(), table::PACKETS.len(), "one row per packet of chapter 9");
    for (example, row) in packets.iter().zip(table::PACKETS) {
        let (section, title, style, (generation, destination, source, reqid), body) = *row;
        let name = format!("{} {}", example.section, example.title);
        assert!(example.section == section && example.title.starts_with(title), "row for {name}");
        let envelope = Envelope {
            generation: Generation(generation),
            destination: Destination::from_raw(destination),
            source: Destination::from_raw(source),
            reqid: Reqid(reqid),
        };
        let (header, packet) = Packet::decode(&example.bytes).expect(&name);
        assert_eq!(header.length as usize, example.bytes.len(), "{name}");
        assert_eq!(header.envelope, envelope, "{name}");
        assert_eq!(packet, body(&example.bytes), "{name}");
        assert_eq!(header.operation, packet.operation(), "{name}");
        let mut encoded = Vec::new();
        packet.encode_into(&mut encoded, envelope, style);
        assert_eq!(encoded, example.bytes, "{name}");
    }
}

#[test]
fn every_captured_packet_is_framed_on_its_transport() {
    for example in examples().iter().filter(|example| example.is_packet()) {
        let aligned = example.bytes.len().is_multiple_of(8);
        for transport in [Transport::Local, Transport::Tcp] {
            let framing = Framing { transport, packet_len_max: 1 << 20 };
            let framed = framing.next_frame(&example.bytes);
            if transport == Transport::Local || aligned {
                assert!(
                    matches!(framed, Ok(Frame::Packet { bytes, .. }) if bytes == example.bytes)
                );
            } else {
                assert!(framed.is_err());
            }
        }
    }
}

/// Payload of the control or message in a captured packet.
fn payload(section: &str, title: &str) -> &'static [u8] {
    match Packet::decode(example(section, title)).expect("checked above").1 {
        Packet::ReqControl(control) => control.data,
        Packet::ReqMessage(message) => message.data,
        Packet::ReplyCall(reply) => reply.data,
        other => panic!("{other:?} has no payload"),
    }
}

fn header(rsn: u64, dmaster: u32, flags: u32) -> RecordHeader {
    RecordHeader { rsn: Rsn(rsn), dmaster: Dmaster::from_raw(dmaster), flags: RecordFlags(flags) }
}

type Record<'a> = (u32, &'a [u8], RecordHeader, &'a [u8]);

/// Decodes a buffer, compares its records, encodes it again in both ways.
fn check_buffer(bytes: &[u8], db: u32, records: &[Record<'_>]) {
    let buffer = RecBuffer::from_bytes(bytes).expect("captured buffer");
    assert_eq!(buffer.db(), DbId(db));
    let found: Vec<Record<'_>> = buffer
        .iter()
        .map(|record| {
            let (header, value) = record.split_header().expect("has a header");
            (record.reqid, record.key, header, value)
        })
        .collect();
    assert_eq!(found, records);
    assert_eq!(buffer.to_bytes(), bytes);
    let mut builder = RecBufferBuilder::new(DbId(db));
    for (reqid, key, header, value) in records {
        builder.push_with_header(*reqid, key, header, value);
    }
    assert_eq!(builder.as_bytes(), bytes);
}

#[test]
fn captured_record_buffers_hold_what_the_text_says() {
    let seqnum = b"__db_sequence_number__\0";
    let transaction: &[Record<'_>] = &[
        (0, b"k1", header(1, 0, 0), b"v1"),
        (0, seqnum, header(1, 0, 0), &[1, 0, 0, 0, 0, 0, 0, 0]),
    ];
    check_buffer(payload("9.17", "TRANS3_COMMIT"), 0x1a2e_2e2b, transaction);
    check_buffer(payload("9.19", "Pull message"), 0x1a2e_2e2b, transaction);
    check_buffer(payload("9.19", "Push message"), 0x4d2a_432b, &[]);
    check_buffer(
        payload("9.21", "UPDATE_RECORD"),
        0x802c_17a4,
        &[(0, b"k1", header(7, 1, 0x1_0000), b"XYZ")],
    );
    check_buffer(
        payload("9.28", "TRY_DELETE_RECORDS"),
        0x802c_17a4,
        &[(0x802c_17a4, b"k0", header(9, 0, 0x1_0000), b"")],
    );
}

#[test]
fn captured_vacuum_fetch_carries_keys_without_data() {
    let bytes = payload("9.28", "VACUUM_FETCH");
    let buffer = RecBuffer::from_bytes(bytes).expect("captured buffer");
    let records: Vec<_> = buffer.iter().collect();
    assert_eq!(records, [RecData { reqid: 1, key: b"k0", data: b"" }]);
    assert_eq!(buffer.to_bytes(), bytes);
}

#[test]
fn captured_traverse_records_and_their_end_marker() {
    for (title, reqid) in [("TRAVERSE_DATA", 0xc9), ("Record message", 0)] {
        let bytes = payload("9.22", title);
        let record = RecData::from_bytes(bytes).expect("captured record");
        assert_eq!((record.reqid, record.key), (reqid, &b"k1"[..]));
        assert_eq!(record.split_header(), Some((header(11, 1, 0x1_0000), &b"XYZ"[..])));
        assert_eq!(record.to_bytes(), bytes);
    }
    let end = RecData::from_bytes(payload("9.22", "End marker")).expect("captured record");
    assert!(end.is_end_marker());
    assert_eq!(end.to_bytes(), payload("9.22", "End marker"));
}

#[test]
fn captured_fetch_replies_begin_with_the_record_header() {
    let hello = payload("9.9", "REPLY_CALL (datalen 29");
    assert_eq!(RecordHeader::split(hello), Some((header(4, 0, 0), &b"hello"[..])));
    let absent = payload("9.9", "REPLY_CALL to FETCH_WITH_HEADER");
    assert_eq!(RecordHeader::split(absent), Some((header(1, 0, 0), &b""[..])));
    let delegated = payload("9.21", "REPLY_CALL 1 -> 0");
    let flags = RecordFlags::MIGRATED_WITH_DATA | RecordFlags::RO_HAVE_READONLY;
    assert_eq!(RecordHeader::split(delegated), Some((header(6, 1, flags.0), &b"XYZ"[..])));
}

#[test]
fn captured_deletion_and_pushed_record() {
    let bytes = payload("9.17", "SCHEDULE_FOR_DELETION");
    let deletion = KeyData {
        db: DbId(0x4d2a_432b),
        header: header(2, 0, 0),
        key: b"transaction_db_0x1a2e2e2b\0",
    };
    assert_eq!(KeyData::from_bytes(bytes), Ok(deletion));
    assert_eq!(deletion.to_bytes(), bytes);

    let bytes = payload("9.28", "PUSH_RECORD");
    let pushed = PushRecord {
        generation: Generation(0x5452_26d5),
        db: DbId(0x802c_17a4),
        header: header(9, 0, 1),
        key: b"k0",
        data: b"val",
    };
    assert_eq!(PushRecord::from_bytes(bytes), Ok(pushed));
    assert_eq!(pushed.to_bytes(), bytes);
}

#[test]
fn captured_event_daemon_packets_say_and_encode_the_same() {
    let text = |text: &'static str| Some(Text::new(text));
    let (component, event) = (text("legacy"), text("monitor"));
    let requests = [
        ("STATUS request", 7, EventRequest::Status { component, event }),
        (
            "RUN request",
            10,
            EventRequest::Run {
                component,
                event,
                args: None,
                timeout_s: 30,
                flags: RunFlags::NONE,
            },
        ),
        (
            "SCRIPT request",
            11,
            EventRequest::Script {
                component,
                script: text("10.dummy"),
                action: ScriptAction::Enable,
            },
        ),
    ];
    for (title, reqid, request) in requests {
        let bytes = example("9.27", title);
        assert_eq!(frame_len(bytes, 4096), Ok(Some(bytes.len())));
        assert_eq!(EventRequest::from_packet(bytes), Ok((reqid, request)), "{title}");
        let mut encoded = Vec::new();
        request.append_packet(reqid, &mut encoded);
        assert_eq!(encoded, bytes, "{title}");
    }

    let time = |micros| Timeval { seconds: 0x6aff_b2c8, micros };
    let script = ScriptStatus {
        name: text("10.dummy"),
        begin: time(0x1_bce1),
        end: time(0x1_c1de),
        result: 0,
        output: text("hello from monitor\n"),
    };
    let never_ran = NonZeroI32::new(22).expect("EINVAL");
    let ran = EventStatus { summary: 0, scripts: vec![script] };
    let replies = [
        ("STATUS reply (", 7, EventReply::Status { status: Ok(ran) }),
        ("STATUS reply, event never ran", 8, EventReply::Status { status: Err(never_ran) }),
        ("RUN reply", 10, EventReply::Run { result: 0 }),
    ];
    for (title, reqid, reply) in replies {
        let bytes = example("9.27", title);
        assert_eq!(EventReply::from_packet(bytes), Ok((reqid, reply.clone())), "{title}");
        let mut encoded = Vec::new();
        reply.append_packet(reqid, &mut encoded);
        assert_eq!(encoded, bytes, "{title}");
    }
}
