//! The decoders by family, and what must hold for any input whatever:
//! no panic; while decoding, no more memory than twice the input and 4 KiB; what was decoded
//! encodes to something that decodes to the same again.

use ringmaster_protocol::control::payloads::*;
use ringmaster_protocol::control::{ControlOpcode, ControlReply, ControlRequest, RequestError};
use ringmaster_protocol::control_packet::ReplyControl;
use ringmaster_protocol::eventd::{EventReply, EventRequest, frame_len};
use ringmaster_protocol::header::{Frame, Framing, Transport};
use ringmaster_protocol::process::{
    DisableMessage, ElectionMessage, GLockList, ServerId, SrvidMessage,
};
use ringmaster_protocol::record::{RecBufferBuilder, RecordHeader};
use ringmaster_protocol::{
    Decode, Encode, Envelope, Operation, Packet, PacketStyle, Reqid, RequestHeader,
};

use super::capture::entries;
use super::corpus::examples;
use super::counting::{Usage, measure};
use super::driver::Family;

/// All of them.
pub fn families() -> Vec<Family> {
    let family = |name, corpus, length_first, check| Family { name, corpus, length_first, check };
    vec![
        family("framing", streams(), false, framing as fn(&[u8]) -> bool),
        family("calls", packets(is_call), true, packet),
        family("messages", packets(is_message), true, packet),
        family("controls", controls(), true, control),
        family("records", payloads(), false, records),
        family("structures", payloads(), false, structures),
        family("eventd", event_packets(), true, event),
    ]
}

/// The bound of every decoder of this crate.
pub fn assert_bounded(what: &str, usage: Usage, input: &[u8]) {
    let limit = 2 * input.len() + 4096;
    assert!(usage.peak_bytes <= limit, "{what} took {usage:?} for {} bytes", input.len());
}

/// Decodes, encodes, decodes and encodes again. True when the input meant something.
macro_rules! stable {
    ($type:ty, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        let (decoded, usage) = measure(|| <$type as Decode<'_>>::from_bytes(bytes));
        assert_bounded(stringify!($type), usage, bytes);
        match decoded {
            Err(_) => false,
            Ok(value) => {
                let first = value.to_bytes();
                assert_eq!(first.len(), value.encoded_len(), stringify!($type));
                let again = <$type as Decode<'_>>::from_bytes(&first).expect(stringify!($type));
                assert_eq!(again.to_bytes(), first, stringify!($type));
                true
            }
        }
    }};
}

fn framing(input: &[u8]) -> bool {
    let mut found = false;
    for transport in [Transport::Local, Transport::Tcp] {
        let framing = Framing { transport, packet_len_max: 1 << 16 };
        let mut rest = input;
        loop {
            let (frame, usage) = measure(|| framing.next_frame(rest));
            assert_eq!(usage.allocations, 0);
            let taken = match frame {
                Ok(Frame::Packet { header, bytes }) => {
                    assert_eq!(header.length as usize, bytes.len());
                    assert_eq!(RequestHeader::decode(bytes), Ok(header));
                    found = true;
                    bytes.len()
                }
                Ok(Frame::Ignored { len, .. }) => {
                    assert_eq!(transport, Transport::Local, "TCP forgives nothing");
                    len
                }
                Ok(Frame::Incomplete { needed }) => {
                    assert!(needed > rest.len(), "a whole packet was not seen");
                    break;
                }
                Err(_) => break,
            };
            assert!(taken > 0, "no progress");
            rest = &rest[taken..];
        }
    }
    found
}

fn packet(input: &[u8]) -> bool {
    let (decoded, usage) = measure(|| Packet::decode(input));
    assert_eq!(usage.allocations, 0);
    let Ok((header, packet)) = decoded else { return false };
    for style in [PacketStyle::Exact, PacketStyle::Library, PacketStyle::Daemon] {
        let mut first = Vec::new();
        packet.encode_into(&mut first, header.envelope, style);
        let (header_again, again) = Packet::decode(&first).expect("own packets decode");
        assert_eq!(header_again.envelope, header.envelope);
        // A keepalive's tail takes the padding in; everything else comes back as it was.
        if style == PacketStyle::Exact || header.operation != Operation::ReqKeepalive {
            assert_eq!(again, packet);
        }
        let mut second = Vec::new();
        again.encode_into(&mut second, header.envelope, style);
        assert_eq!(second, first);
    }
    true
}

fn control(input: &[u8]) -> bool {
    if !packet(input) {
        return false;
    }
    match Packet::decode(input) {
        Ok((_, Packet::ReqControl(request))) => {
            let opcode = ControlOpcode(request.opcode);
            let (typed, usage) = measure(|| ControlRequest::decode(opcode, request.data));
            assert_bounded("request", usage, input);
            let Ok(typed) = typed else { return false };
            let first = typed.to_bytes();
            assert_eq!(first.len(), typed.encoded_len(), "{opcode}");
            match ControlRequest::decode(opcode, &first) {
                Ok(again) => assert_eq!(again.to_bytes(), first, "{opcode}"),
                // A text with an early NUL becomes shorter, perhaps too short for C's size rule.
                Err(RequestError::Size { .. }) => assert!(first.len() < request.data.len()),
                Err(error) => panic!("own request does not decode: {error:?}"),
            }
            true
        }
        // A reply does not say what it answers: the reqid plays that part here.
        Ok((header, Packet::ReplyControl(reply))) => {
            let opcode = ControlOpcode(header.envelope.reqid.0 % 170);
            let (typed, usage) = measure(|| ControlReply::decode(opcode, &reply));
            assert_bounded("reply", usage, input);
            let Ok(typed) = typed else { return false };
            let first = typed.to_bytes();
            assert_eq!(first.len(), typed.encoded_len(), "{opcode}");
            let reply = ReplyControl::new(typed.status(), &first);
            let again = ControlReply::decode(opcode, &reply).expect("own replies decode");
            assert_eq!((again.status(), again.to_bytes()), (typed.status(), first), "{opcode}");
            true
        }
        _ => false,
    }
}

fn records(input: &[u8]) -> bool {
    let mut known = stable!(RecordHeader, input);
    known |= stable!(RecData<'_>, input);
    known |= stable!(KeyData<'_>, input);
    known |= stable!(PushRecord<'_>, input);
    if stable!(RecBuffer<'_>, input) {
        let buffer = RecBuffer::from_bytes(input).expect("just decoded");
        let mut builder = RecBufferBuilder::new(buffer.db());
        for record in &buffer {
            builder.push(&record);
        }
        assert_eq!(builder.count(), buffer.count());
        let rebuilt = RecBuffer::from_bytes(builder.as_bytes()).expect("own buffers decode");
        assert!(rebuilt.iter().eq(buffer.iter()));
        known = true;
    }
    known
}

/// How many types [`structures`] chooses from.
const STRUCTURES: u8 = 43;

fn structures(input: &[u8]) -> bool {
    // The first byte chooses, so that one input costs one decoder.
    let Some((choice, input)) = input.split_first() else { return false };
    macro_rules! choose {
        ($($type:ty),* $(,)?) => {{
            let choices: [fn(&[u8]) -> bool; STRUCTURES as usize] =
                [$(|input| stable!($type, input)),*];
            choices[usize::from(*choice) % choices.len()](input)
        }};
    }
    choose!(
        AddressInfo<'_>,
        BanState,
        BareText<'_>,
        Capabilities,
        Connection,
        DbIdMap,
        DbSeqnum,
        DbStatistics<'_>,
        DbVacuum,
        DisableMessage,
        EchoData<'_>,
        ElectionMessage,
        GLockList,
        GetDbSeqnum,
        Interface,
        InterfaceList,
        NodeFlagChange,
        NodeMap,
        NotifyData<'_>,
        Option<Text<'_>>,
        PidSrvid,
        PublicIp,
        PublicIpInfo,
        PublicIpList,
        PullDb,
        ServerId,
        SockAddr,
        SrvidMessage,
        Statistics,
        StatisticsHistory,
        Text<'_>,
        TickleList,
        TransDb,
        TraverseAll,
        TraverseAllExt,
        TraverseStart,
        TraverseStartExt,
        TunableList,
        TunableName<'_>,
        TunableNames<'_>,
        TunableSetting<'_>,
        Uptime,
        VnnMap,
    )
}

fn event(input: &[u8]) -> bool {
    let (framed, usage) = measure(|| frame_len(input, 1 << 16));
    assert_eq!(usage.allocations, 0);
    if let Ok(Some(len)) = framed {
        assert!(len <= input.len());
    }
    let (request, usage) = measure(|| EventRequest::from_packet(input));
    assert_bounded("event request", usage, input);
    if let Ok((reqid, request)) = &request {
        let mut first = Vec::new();
        request.append_packet(*reqid, &mut first);
        assert_eq!(EventRequest::from_packet(&first), Ok((*reqid, *request)));
    }
    let (reply, usage) = measure(|| EventReply::from_packet(input));
    assert_bounded("event reply", usage, input);
    if let Ok((reqid, reply)) = &reply {
        let mut first = Vec::new();
        reply.append_packet(*reqid, &mut first);
        assert_eq!(EventReply::from_packet(&first), Ok((*reqid, reply.clone())));
    }
    request.is_ok() || reply.is_ok()
}

fn is_call(operation: Operation) -> bool {
    use Operation::{ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster};
    matches!(operation, ReqCall | ReplyCall | ReqDmaster | ReplyDmaster | ReplyError)
}

fn is_message(operation: Operation) -> bool {
    use Operation::{ReqKeepalive, ReqMessage, ReqTunnel};
    matches!(operation, ReqMessage | ReqKeepalive | ReqTunnel)
}

/// Longer ones would make every round slow and have nothing else to show.
const CORPUS_PACKET_MAX: usize = 1024;

/// Chapter 9 and the capture of a cluster.
fn captured() -> impl Iterator<Item = (RequestHeader, Packet<'static>, &'static [u8])> {
    let chapter = examples().iter().filter(|example| example.is_packet());
    let cluster = entries().filter(|entry| !entry.channel.is_eventd()).map(|entry| entry.packet);
    let all = chapter.map(|example| &example.bytes[..]).chain(cluster);
    all.filter(|bytes| bytes.len() <= CORPUS_PACKET_MAX).map(|bytes| {
        let (header, packet) = Packet::decode(bytes).expect("captured packets decode");
        (header, packet, bytes)
    })
}

fn packets(wanted: fn(Operation) -> bool) -> Vec<Vec<u8>> {
    captured()
        .filter(|(header, ..)| wanted(header.operation))
        .map(|(.., bytes)| bytes.to_vec())
        .collect()
}

/// Requests as captured; replies once for every control they could answer.
fn controls() -> Vec<Vec<u8>> {
    let mut corpus = packets(|operation| operation == Operation::ReqControl);
    for (header, packet, _) in captured() {
        let Packet::ReplyControl(reply) = packet else { continue };
        for info in ControlOpcode::table() {
            let fits = ControlReply::decode(info.opcode, &reply)
                .is_ok_and(|typed| !reply.data.is_empty() && typed.to_bytes() == reply.data);
            if fits {
                let mut bytes = Vec::new();
                let envelope = Envelope { reqid: Reqid(info.opcode.0), ..header.envelope };
                packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
                corpus.push(bytes);
            }
        }
    }
    distinct(corpus)
}

fn distinct(mut corpus: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    corpus.sort();
    corpus.dedup();
    corpus
}

/// What packets carry, and chapter 9's bare payloads; with and without a leading byte, which
/// chooses the structure.
fn payloads() -> Vec<Vec<u8>> {
    let bare =
        examples().iter().filter(|example| !example.is_packet() && example.section != "9.27");
    let mut corpus: Vec<Vec<u8>> = bare.map(|example| example.bytes.clone()).collect();
    for (_, packet, _) in captured() {
        corpus.push(match packet {
            Packet::ReqControl(request) => request.data.to_vec(),
            Packet::ReplyControl(reply) => reply.data.to_vec(),
            Packet::ReqMessage(message) => message.data.to_vec(),
            Packet::ReplyCall(reply) => reply.data.to_vec(),
            _ => continue,
        });
    }
    let mut corpus = distinct(corpus);
    let chosen: Vec<Vec<u8>> = (0..STRUCTURES)
        .flat_map(|choice| corpus.iter().map(move |bytes| [&[choice], &bytes[..]].concat()))
        .filter(|bytes| structures(bytes))
        .collect();
    corpus.extend(chosen);
    corpus
}

/// Packets one behind the other.
fn streams() -> Vec<Vec<u8>> {
    let all: Vec<&[u8]> = captured().map(|(.., bytes)| bytes).collect();
    let mut corpus: Vec<Vec<u8>> = all.windows(3).map(<[&[u8]]>::concat).collect();
    corpus.extend(all.iter().map(|bytes| bytes.to_vec()));
    corpus
}

fn event_packets() -> Vec<Vec<u8>> {
    let chapter = examples().iter().filter(|example| example.section == "9.27");
    let cluster = entries().filter(|entry| entry.channel.is_eventd()).map(|entry| entry.packet);
    let all = chapter.map(|example| &example.bytes[..]).chain(cluster);
    distinct(all.map(<[u8]>::to_vec).collect())
}
