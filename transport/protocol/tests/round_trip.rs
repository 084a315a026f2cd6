//! Whatever can be said survives the wire: any value of any packet, in any style, alone or in a
//! stream, comes back as it was.

use proptest::collection::vec;
use proptest::prelude::*;
use ringmaster_protocol::call::{
    CallFlags, CallId, ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster,
};
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::eventd::{
    EventReply, EventRequest, EventStatus, RunFlags, ScriptAction, ScriptStatus,
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

/// Raw material for one packet of any kind: packets borrow, so the bytes live here.
#[derive(Clone, Debug)]
struct Material {
    kind: u8,
    words: [u32; 4],
    long: u64,
    first: Vec<u8>,
    second: Vec<u8>,
}

fn material() -> impl Strategy<Value = Material> {
    (0..10_u8, any::<[u32; 4]>(), any::<u64>(), vec(any::<u8>(), 0..70), vec(any::<u8>(), 0..70))
        .prop_map(|(kind, words, long, first, second)| Material {
            kind,
            words,
            long,
            first,
            second,
        })
}

impl Material {
    fn packet(&self) -> Packet<'_> {
        let [a, b, c, d] = self.words;
        let (key, data) = (&self.first[..], &self.second[..]);
        let (db, rsn, srvid) = (DbId(a), Rsn(self.long), Srvid(self.long));
        let (status, record_flags) = (b.cast_signed(), RecordFlags(c));
        match self.kind {
            0 => Packet::ReqCall(ReqCall {
                flags: CallFlags(b),
                db,
                callid: CallId(c),
                hopcount: d,
                key,
                calldata: data,
            }),
            1 => Packet::ReplyCall(ReplyCall { status, data }),
            2 => Packet::ReqDmaster(ReqDmaster {
                db,
                rsn,
                dmaster: Dmaster::from_raw(b),
                key,
                data,
                record_flags,
            }),
            3 => Packet::ReplyDmaster(ReplyDmaster { db, rsn, key, data, record_flags }),
            4 => Packet::ReplyError(ReplyError { status, message: data }),
            5 => Packet::ReqMessage(ReqMessage { srvid, data }),
            6 => {
                let (opcode, client_id, flags) = (a, b, ControlFlags(c));
                Packet::ReqControl(ReqControl { opcode, srvid, client_id, flags, data })
            }
            7 => Packet::ReplyControl(ReplyControl { status, data: key, error: data }),
            8 => {
                let payload = Some(KeepalivePayload { version: SambaVersion(a), uptime: b });
                // A tail has no length of its own: whole words come back as they were.
                let tail = &data[..data.len() / 8 * 8];
                Packet::ReqKeepalive(ReqKeepalive { payload, tail })
            }
            _ => Packet::ReqTunnel(ReqTunnel { tunnel_id: self.long, flags: TunnelFlags(a), data }),
        }
    }
}

fn envelope() -> impl Strategy<Value = Envelope> {
    any::<[u32; 4]>().prop_map(|[generation, destination, source, reqid]| Envelope {
        generation: Generation(generation),
        destination: Destination::from_raw(destination),
        source: Destination::from_raw(source),
        reqid: Reqid(reqid),
    })
}

fn style() -> impl Strategy<Value = PacketStyle> {
    prop_oneof![Just(PacketStyle::Daemon), Just(PacketStyle::Library), Just(PacketStyle::Exact)]
}

fn record_header() -> impl Strategy<Value = RecordHeader> {
    any::<(u64, u32, u32)>().prop_map(|(rsn, dmaster, flags)| RecordHeader {
        rsn: Rsn(rsn),
        dmaster: Dmaster::from_raw(dmaster),
        flags: RecordFlags(flags),
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

/// Text without NUL, or C's NULL.
fn text() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(vec(1..=255_u8, 0..40))
}

fn borrowed(text: Option<&Vec<u8>>) -> Option<Text<'_>> {
    text.map(Text::new)
}

proptest! {
    #[test]
    fn any_packet_survives_in_any_style(
        material in material(), envelope in envelope(), style in style(),
    ) {
        let packet = material.packet();
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope, style);
        let (header, decoded) = Packet::decode(&bytes)?;
        prop_assert_eq!(header.length as usize, bytes.len());
        prop_assert_eq!(header.envelope, envelope);
        prop_assert_eq!(decoded, packet);
        prop_assert_eq!(packet.encoded_len(), packet.to_bytes().len());
        prop_assert!(style == PacketStyle::Exact || bytes.len().is_multiple_of(8));
        prop_assert!(bytes[32 + packet.encoded_len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_packet_in_parts_is_the_packet(
        material in material(), envelope in envelope(), style in style(), before in 0..20_usize,
    ) {
        let packet = material.packet();
        let mut whole = Vec::new();
        packet.encode_into(&mut whole, envelope, style);
        let mut out = vec![0xEE; before];
        let parts = packet.encode_parts(&mut out, envelope, style);
        prop_assert_eq!(parts.head.start, before);
        prop_assert_eq!(parts.tail.end, out.len());
        let [first, second] = parts.payload;
        let gathered =
            [&out[parts.head.clone()], first, second, &out[parts.tail.clone()]].concat();
        prop_assert_eq!(parts.packet_len(), gathered.len());
        prop_assert_eq!(gathered, whole);
    }

    #[test]
    fn a_stream_of_packets_comes_apart_where_it_was_put_together(
        materials in vec(material(), 1..6),
        envelope in envelope(),
        tcp in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (transport, style) =
            if tcp { (Transport::Tcp, PacketStyle::Daemon) } else { (Transport::Local, PacketStyle::Exact) };
        let framing = Framing { transport, packet_len_max: 1 << 16 };
        let mut stream = Vec::new();
        for material in &materials {
            material.packet().encode_into(&mut stream, envelope, style);
        }
        // Bytes arrive in two portions; whole packets are taken from each.
        let cut = cut.index(stream.len());
        let (mut taken, mut found) = (0, Vec::new());
        for end in [cut, stream.len()] {
            while let Frame::Packet { header, bytes } = framing.next_frame(&stream[taken..end])? {
                taken += bytes.len();
                found.push(Packet::decode_body(&header, bytes)?);
            }
        }
        prop_assert_eq!(taken, stream.len());
        let sent: Vec<_> = materials.iter().map(Material::packet).collect();
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn any_record_buffer_survives(
        db in any::<u32>(),
        records in vec((any::<u32>(), bytes(), record_header(), bytes()), 0..12),
    ) {
        let mut builder = RecBufferBuilder::new(DbId(db));
        for (reqid, key, header, value) in &records {
            builder.push_with_header(*reqid, key, header, value);
        }
        let buffer = RecBuffer::from_bytes(builder.as_bytes())?;
        prop_assert_eq!(buffer.iter().len(), records.len());
        for (record, (reqid, key, header, value)) in buffer.iter().zip(&records) {
            prop_assert_eq!((record.reqid, record.key), (*reqid, &key[..]));
            prop_assert_eq!(record.split_header(), Some((*header, &value[..])));
        }
        prop_assert_eq!(buffer.to_bytes(), builder.as_bytes());
    }

    #[test]
    fn any_record_structure_survives(
        words in any::<[u32; 2]>(), header in record_header(), key in bytes(), data in bytes(),
    ) {
        let [generation, db] = words;
        prop_assert_eq!(RecordHeader::from_bytes(&header.to_bytes())?, header);
        let record = RecData { reqid: generation, key: &key, data: &data };
        let bytes = record.to_bytes();
        prop_assert_eq!(RecData::from_bytes(&bytes)?, record);
        let deletion = KeyData { db: DbId(db), header, key: &key };
        let bytes = deletion.to_bytes();
        prop_assert_eq!(KeyData::from_bytes(&bytes)?, deletion);
        let generation = Generation(generation);
        let pushed = PushRecord { generation, db: DbId(db), header, key: &key, data: &data };
        let bytes = pushed.to_bytes();
        prop_assert_eq!(PushRecord::from_bytes(&bytes)?, pushed);
        prop_assert_eq!(pushed.encoded_len(), bytes.len());
    }

    #[test]
    fn any_event_request_survives(
        kind in 0..3_u8, texts in [text(), text(), text()], words in any::<[u32; 2]>(),
        reqid in any::<u32>(),
    ) {
        let [component, second, args] = [0, 1, 2].map(|index| borrowed(texts[index].as_ref()));
        let [timeout_s, flags] = words;
        let request = match kind {
            0 => {
                let flags = RunFlags(flags);
                EventRequest::Run { component, event: second, args, timeout_s, flags }
            }
            1 => EventRequest::Status { component, event: second },
            _ => {
                let action =
                    if flags & 1 == 0 { ScriptAction::Disable } else { ScriptAction::Enable };
                EventRequest::Script { component, script: second, action }
            }
        };
        let mut packet = Vec::new();
        request.append_packet(reqid, &mut packet);
        prop_assert_eq!(EventRequest::from_packet(&packet)?, (reqid, request));
    }

    #[test]
    fn any_event_status_survives(
        summary in any::<i32>(),
        scripts in vec((text(), any::<[i64; 4]>(), any::<i32>(), text()), 0..5),
        reqid in any::<u32>(),
    ) {
        let time = |seconds, micros| Timeval { seconds, micros };
        let scripts = scripts
            .iter()
            .map(|(name, [a, b, c, d], result, output)| ScriptStatus {
                name: borrowed(name.as_ref()),
                begin: time(*a, *b),
                end: time(*c, *d),
                result: *result,
                output: borrowed(output.as_ref()),
            })
            .collect();
        let reply = EventReply::Status { status: Ok(EventStatus { summary, scripts }) };
        let mut packet = Vec::new();
        reply.append_packet(reqid, &mut packet);
        prop_assert_eq!(EventReply::from_packet(&packet)?, (reqid, reply));
    }
}
