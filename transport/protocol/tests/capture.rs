//! Real traffic of a three-node cluster of C daemons (`capture/README.md`): every packet decodes,
//! typed payloads included, and encodes to the very same bytes, but for what [`MASKS`] names.

#[path = "capture/file.rs"]
mod file;
#[path = "capture/variety.rs"]
mod variety;

use std::collections::{BTreeMap, HashMap};

use ringmaster_protocol::call::CallId;
use ringmaster_protocol::control::{
    ControlOpcode, ControlReply, ControlRequest, ReplyError as ControlReplyError,
};
use ringmaster_protocol::control_packet::{ControlFlags, ReqControl};
use ringmaster_protocol::eventd::{EventReply, EventRequest, frame_len};
use ringmaster_protocol::header::{Frame, Framing, Transport};
use ringmaster_protocol::node::NodeFlagChange;
use ringmaster_protocol::process::{DisableMessage, ElectionMessage, SrvidMessage};
use ringmaster_protocol::record::{RecBuffer, RecData, RecordHeader};
use ringmaster_protocol::srvid::{SrvidRange, WellKnown};
use ringmaster_protocol::text::Text;
use ringmaster_protocol::{
    Decode, Encode, Envelope, Operation, Packet, PacketStyle, Pnn, RequestHeader, Srvid,
};

use file::{Channel, Entry, entries};

/// Bytes that C's daemons leave as they find them (`docs/spec/wire-protocol.md` 4.13). Zeroed on
/// both sides before comparing; nothing else may differ.
const MASKS: &[Mask] = &[
    // Tail of the structure, never initialised.
    Mask {
        opcode: ControlOpcode::TRAVERSE_ALL_EXT,
        direction: Direction::Request,
        offsets: &[(25, 7)],
    },
    // Where the sender keeps its hot keys: addresses in its memory.
    Mask {
        opcode: ControlOpcode::GET_DB_STATISTICS,
        direction: Direction::Reply,
        offsets: &[
            (232, 8),
            (256, 8),
            (280, 8),
            (304, 8),
            (328, 8),
            (352, 8),
            (376, 8),
            (400, 8),
            (424, 8),
            (448, 8),
        ],
    },
];

struct Mask {
    opcode: ControlOpcode,
    direction: Direction,
    /// First byte and number of bytes.
    offsets: &'static [(usize, usize)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

fn masked(opcode: ControlOpcode, direction: Direction, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for mask in MASKS.iter().filter(|mask| (mask.opcode, mask.direction) == (opcode, direction)) {
        for (first, len) in mask.offsets {
            if let Some(bytes) = bytes.get_mut(*first..first + len) {
                bytes.fill(0);
            }
        }
    }
    bytes
}

/// Compares payloads of one direction and knows which masks were needed for it.
struct Comparison {
    direction: Direction,
    needed: Vec<ControlOpcode>,
}

impl Comparison {
    const fn of(direction: Direction) -> Self {
        Self { direction, needed: Vec::new() }
    }

    fn compare(&mut self, opcode: ControlOpcode, ours: &[u8], theirs: &[u8]) {
        if ours != theirs {
            let ours = masked(opcode, self.direction, ours);
            assert_eq!(ours, masked(opcode, self.direction, theirs), "{opcode}");
            self.needed.push(opcode);
        }
    }

    fn every_mask_was_needed(&self) {
        for mask in MASKS.iter().filter(|mask| mask.direction == self.direction) {
            assert!(self.needed.contains(&mask.opcode), "{} needs no mask", mask.opcode);
        }
    }
}

fn packets() -> impl Iterator<Item = Entry<'static>> {
    entries().filter(|entry| !entry.channel.is_eventd())
}

fn decoded(entry: &Entry<'static>) -> (RequestHeader, Packet<'static>) {
    Packet::decode(entry.packet).unwrap_or_else(|error| panic!("{entry:?}: {error:?}"))
}

fn encoded(packet: &Packet<'_>, envelope: Envelope, style: PacketStyle) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode_into(&mut bytes, envelope, style);
    bytes
}

#[test]
fn every_packet_is_framed_whole_by_the_rules_of_its_transport() {
    for entry in packets() {
        let transport = match entry.channel {
            Channel::ToNode => Transport::Tcp,
            _ => Transport::Local,
        };
        let framing = Framing { transport, packet_len_max: 1 << 24 };
        assert!(
            matches!(framing.next_frame(entry.packet),
                Ok(Frame::Packet { bytes, .. }) if bytes == entry.packet),
            "{entry:?}"
        );
    }
}

#[test]
fn what_daemons_send_encodes_to_the_same_bytes() {
    for entry in packets().filter(|entry| entry.channel != Channel::FromClient) {
        let (header, packet) = decoded(&entry);
        assert_eq!(
            encoded(&packet, header.envelope, PacketStyle::Daemon),
            entry.packet,
            "{entry:?}"
        );
    }
}

#[test]
fn what_clients_send_encodes_to_the_same_bytes_in_one_style_per_client() {
    let all = [PacketStyle::Daemon, PacketStyle::Library, PacketStyle::Exact];
    let mut styles: HashMap<u16, Vec<PacketStyle>> = HashMap::new();
    for entry in packets().filter(|entry| entry.channel == Channel::FromClient) {
        let (header, packet) = decoded(&entry);
        let possible = styles.entry(entry.connection).or_insert_with(|| all.to_vec());
        possible.retain(|style| encoded(&packet, header.envelope, *style) == entry.packet);
        assert!(!possible.is_empty(), "{entry:?}");
    }
    let exact = |possible: &Vec<PacketStyle>| *possible == [PacketStyle::Exact];
    assert!(styles.values().any(exact), "a client framing like smbd is in the capture");
    let rounds = |possible: &Vec<PacketStyle>| !possible.contains(&PacketStyle::Exact);
    assert!(styles.values().any(rounds), "so is the tool");
}

#[test]
fn every_control_request_has_a_typed_payload_with_the_same_bytes() {
    let mut comparison = Comparison::of(Direction::Request);
    for entry in packets() {
        let (_, Packet::ReqControl(request)) = decoded(&entry) else { continue };
        let opcode = ControlOpcode(request.opcode);
        if opcode.name().is_none() {
            continue; // sent on purpose, to see the answer
        }
        let typed = ControlRequest::decode(opcode, request.data)
            .unwrap_or_else(|error| panic!("{opcode} {error:?} {entry:?}"));
        assert_eq!(typed.to_bytes().len(), typed.encoded_len(), "{opcode}");
        comparison.compare(opcode, &typed.to_bytes(), request.data);
    }
    comparison.every_mask_was_needed();
}

/// The requests that are waiting for a reply: which control.
#[derive(Default)]
struct Pending(HashMap<(u32, u32, u32), ControlOpcode>);

impl Pending {
    fn asked(&mut self, entry: &Entry<'_>, envelope: Envelope, request: &ReqControl<'_>) {
        if !request.flags.contains(ControlFlags::NOREPLY) {
            let leg = Self::leg(entry, envelope, false);
            self.0.insert(leg, ControlOpcode(request.opcode));
        }
    }

    fn answered(&mut self, entry: &Entry<'_>, envelope: Envelope) -> ControlOpcode {
        let opcode = self.0.remove(&Self::leg(entry, envelope, true));
        opcode.unwrap_or_else(|| panic!("a reply nobody asked for: {entry:?}"))
    }

    /// One id space per client connection, one per pair of nodes. On TCP a request travels to
    /// where its reply comes from.
    fn leg(entry: &Entry<'_>, envelope: Envelope, reply: bool) -> (u32, u32, u32) {
        if entry.channel == Channel::ToNode {
            let ends = (envelope.source.to_raw(), envelope.destination.to_raw());
            let (from, to) = if reply { (ends.1, ends.0) } else { ends };
            (from, to, envelope.reqid.0)
        } else {
            (u32::MAX, u32::from(entry.connection), envelope.reqid.0)
        }
    }
}

#[test]
fn every_control_reply_answers_a_request_and_has_a_typed_payload_with_the_same_bytes() {
    let (mut pending, mut replies, mut failures) = (Pending::default(), 0, 0);
    let mut comparison = Comparison::of(Direction::Reply);
    for entry in packets() {
        let (header, packet) = decoded(&entry);
        match packet {
            Packet::ReqControl(request) => {
                pending.asked(&entry, header.envelope, &request);
            }
            Packet::ReplyControl(reply) => {
                let opcode = pending.answered(&entry, header.envelope);
                match ControlReply::decode(opcode, &reply) {
                    Ok(typed) => {
                        replies += 1;
                        assert_eq!(typed.status(), reply.status, "{opcode} {entry:?}");
                        comparison.compare(opcode, &typed.to_bytes(), reply.data);
                    }
                    Err(ControlReplyError::Failed { status, .. }) => {
                        failures += 1;
                        assert_eq!(status, reply.status);
                        assert!(reply.data.is_empty(), "failure with data: {opcode} {entry:?}");
                    }
                    Err(error) => panic!("{opcode} {error:?} {entry:?}"),
                }
            }
            _ => {}
        }
    }
    comparison.every_mask_was_needed();
    assert!(replies > 500 && failures > 2, "{replies} replies, {failures} failures");
}

/// Decodes a payload and compares what it encodes to.
fn same<'a, T: Decode<'a> + Encode>(srvid: Srvid, payload: &'a [u8]) {
    let typed = T::from_bytes(payload).unwrap_or_else(|error| panic!("{srvid:?} {error:?}"));
    assert_eq!(typed.to_bytes(), payload, "{srvid:?}");
}

#[test]
fn messages_to_well_known_srvids_have_typed_payloads_with_the_same_bytes() {
    let mut typed = 0;
    for entry in packets() {
        let (_, Packet::ReqMessage(message)) = decoded(&entry) else { continue };
        let (srvid, data) = (message.srvid, message.data);
        match srvid.well_known() {
            Some(WellKnown::Recovery(_)) => same::<RecBuffer<'_>>(srvid, data),
            Some(WellKnown::Election) => same::<ElectionMessage>(srvid, data),
            Some(WellKnown::Leader) => {
                let raw = data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
                let leader = raw.and_then(Pnn::new);
                assert!(data.len() == 4 && (leader.is_some() || raw == Some(u32::MAX)));
            }
            Some(WellKnown::ReleaseIp | WellKnown::TakeIp) => same::<Text<'_>>(srvid, data),
            Some(WellKnown::DisableTakeoverRuns | WellKnown::DisableRecoveries) => {
                same::<DisableMessage>(srvid, data);
            }
            Some(WellKnown::TakeoverRun | WellKnown::MemDump) => same::<SrvidMessage>(srvid, data),
            Some(WellKnown::PushNodeFlags) => same::<NodeFlagChange>(srvid, data),
            Some(WellKnown::Reconfigure | WellKnown::ReloadNodes) => assert!(data.is_empty()),
            _ if srvid.range() == SrvidRange::Client && data.len() >= 16 => {
                same::<RecData<'_>>(srvid, data); // a traverse
            }
            _ => continue,
        }
        typed += 1;
    }
    assert!(typed > 50, "{typed} typed messages");
}

#[test]
fn replies_to_calls_with_header_begin_with_one() {
    let mut pending = HashMap::new();
    let mut headers = 0;
    for entry in packets().filter(|entry| entry.channel != Channel::ToNode) {
        let (header, packet) = decoded(&entry);
        let leg = (entry.connection, header.envelope.reqid);
        match packet {
            Packet::ReqCall(call) => {
                pending.insert(leg, call.callid);
            }
            Packet::ReplyCall(reply) if pending.remove(&leg) == Some(CallId::FETCH_WITH_HEADER) => {
                let (record, _) = RecordHeader::split(reply.data).expect("at least 24 bytes");
                assert_eq!(record.to_array(), reply.data[..24]);
                headers += 1;
            }
            _ => {}
        }
    }
    assert!(headers > 5, "{headers} records with header");
}

#[test]
fn packets_of_the_event_daemon_encode_to_the_same_bytes() {
    let (mut requests, mut replies) = (0, 0);
    for entry in entries() {
        let mut again = Vec::new();
        match entry.channel {
            Channel::ToEventd => {
                let (reqid, request) = EventRequest::from_packet(entry.packet).expect("a request");
                request.append_packet(reqid, &mut again);
                requests += 1;
            }
            Channel::FromEventd => {
                let (reqid, reply) = EventReply::from_packet(entry.packet).expect("a reply");
                reply.append_packet(reqid, &mut again);
                replies += 1;
            }
            _ => continue,
        }
        assert_eq!(frame_len(entry.packet, 1 << 20), Ok(Some(entry.packet.len())));
        assert_eq!(again, entry.packet, "{entry:?}");
    }
    assert!(requests > 5 && replies > 5, "{requests} requests, {replies} replies");
}

#[test]
fn the_capture_holds_the_expected_variety() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut pending = Pending::default();
    for entry in packets() {
        let (header, packet) = decoded(&entry);
        let place = if entry.channel == Channel::ToNode { "tcp" } else { "unix" };
        *found.entry(format!("{place} {}", header.operation.name())).or_default() += 1;
        let name = match packet {
            Packet::ReqControl(request) => {
                pending.asked(&entry, header.envelope, &request);
                format!("request {}", ControlOpcode(request.opcode))
            }
            Packet::ReplyControl(_) => {
                format!("reply {}", pending.answered(&entry, header.envelope))
            }
            Packet::ReqMessage(message) => {
                format!("message {}", message.srvid.name().unwrap_or("other"))
            }
            _ => continue,
        };
        *found.entry(name).or_default() += 1;
    }
    let listing: String = found.iter().map(|(name, count)| format!("{count:6} {name}\n")).collect();
    println!("{listing}");
    let missing: Vec<_> = variety::EXPECTED
        .iter()
        .filter(|(name, least)| found.get(*name).is_none_or(|count| count < least))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}\n{listing}");
    assert!(found.keys().all(|name| !name.ends_with(Operation::Unknown(0).name())));
}
