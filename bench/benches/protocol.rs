//! Codec of the wire protocol: what one packet costs on its way in and out.
//!
//! Groups `protocol/decode/KIND` and `protocol/encode/KIND`, parameter: payload bytes. Decoding
//! includes framing; encoding goes into a reused buffer, as on a shard. Throughput is the packet's
//! bytes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmaster_protocol::call::{
    CallFlags, CallId, ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster,
};
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::hash::{jenkins, old};
use ringmaster_protocol::header::{Frame, Framing, Transport};
use ringmaster_protocol::keepalive::{KeepalivePayload, ReqKeepalive, SambaVersion};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::record::{
    Dmaster, RecBuffer, RecBufferBuilder, RecordFlags, RecordHeader,
};
use ringmaster_protocol::tunnel::{ReqTunnel, TunnelFlags};
use ringmaster_protocol::{
    DbId, Decode, Destination, Envelope, Generation, Packet, PacketStyle, Reqid, Rsn, Srvid,
};

const PAYLOADS: [usize; 3] = [32, 512, 16384];
/// A file id as smbd uses it: device, inode, extra id.
const KEY: &[u8] = &[0x5A; 24];

const ENVELOPE: Envelope = Envelope {
    generation: Generation(0x5452_26d5),
    destination: Destination::Current,
    source: Destination::Unknown,
    reqid: Reqid(77),
};

/// One packet of every kind with this payload.
fn packets(data: &[u8]) -> Vec<(&'static str, Packet<'_>)> {
    let (db, rsn, record_flags) = (DbId(0x802c_17a4), Rsn(9), RecordFlags::MIGRATED_WITH_DATA);
    let status = 0;
    let req_call = ReqCall {
        flags: CallFlags::IMMEDIATE_MIGRATION,
        db,
        callid: CallId::NULL,
        hopcount: 0,
        key: KEY,
        calldata: data,
    };
    let dmaster = Dmaster::from_raw(2);
    let req_dmaster = ReqDmaster { db, rsn, dmaster, key: KEY, data, record_flags };
    let req_control =
        ReqControl { opcode: 63, srvid: Srvid(0), client_id: 5, flags: ControlFlags::NONE, data };
    let payload = Some(KeepalivePayload { version: SambaVersion::new(4, 17), uptime: 5 });
    let tunnel = ReqTunnel { tunnel_id: 1, flags: TunnelFlags::REQUEST, data };
    vec![
        ("req_call", Packet::ReqCall(req_call)),
        ("reply_call", Packet::ReplyCall(ReplyCall { status, data })),
        ("req_dmaster", Packet::ReqDmaster(req_dmaster)),
        (
            "reply_dmaster",
            Packet::ReplyDmaster(ReplyDmaster { db, rsn, key: KEY, data, record_flags }),
        ),
        ("reply_error", Packet::ReplyError(ReplyError { status: -1, message: data })),
        ("req_message", Packet::ReqMessage(ReqMessage { srvid: Srvid::LEADER, data })),
        ("req_control", Packet::ReqControl(req_control)),
        ("reply_control", Packet::ReplyControl(ReplyControl::new(status, data))),
        ("req_keepalive", Packet::ReqKeepalive(ReqKeepalive { payload, tail: data })),
        ("req_tunnel", Packet::ReqTunnel(tunnel)),
    ]
}

fn each_packet(mut work: impl FnMut(&'static str, usize, Packet<'_>, &[u8])) {
    for payload_len in PAYLOADS {
        let data = vec![0xA5; payload_len];
        for (kind, packet) in packets(&data) {
            let mut bytes = Vec::new();
            packet.encode_into(&mut bytes, ENVELOPE, PacketStyle::Daemon);
            work(kind, payload_len, packet, &bytes);
        }
    }
}

fn decode(criterion: &mut Criterion) {
    let framing = Framing { transport: Transport::Tcp, packet_len_max: 1 << 26 };
    each_packet(|kind, payload_len, _, bytes| {
        let mut group = criterion.benchmark_group(format!("protocol/decode/{kind}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(payload_len),
            bytes,
            |bencher, bytes| {
                bencher.iter(|| {
                    let Ok(Frame::Packet { header, bytes }) = framing.next_frame(black_box(bytes))
                    else {
                        panic!("a whole packet");
                    };
                    black_box(Packet::decode_body(&header, bytes)).is_ok()
                });
            },
        );
        group.finish();
    });
}

fn encode(criterion: &mut Criterion) {
    let mut out = Vec::new();
    each_packet(|kind, payload_len, packet, bytes| {
        let mut group = criterion.benchmark_group(format!("protocol/encode/{kind}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_len), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&packet).encode_into(&mut out, ENVELOPE, PacketStyle::Daemon);
                black_box(out.len())
            });
        });
        group.finish();
    });
}

/// As `encode`, without copying the payload.
fn encode_parts(criterion: &mut Criterion) {
    let mut out = Vec::new();
    each_packet(|kind, payload_len, packet, bytes| {
        let mut group = criterion.benchmark_group(format!("protocol/encode_parts/{kind}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_len), |bencher| {
            bencher.iter(|| {
                out.clear();
                let packet = black_box(&packet);
                black_box(packet.encode_parts(&mut out, ENVELOPE, PacketStyle::Daemon).packet_len())
            });
        });
        group.finish();
    });
}

fn record_buffer(criterion: &mut Criterion) {
    const RECORDS: u64 = 1000;
    let header = RecordHeader {
        rsn: Rsn(4),
        dmaster: Dmaster::from_raw(1),
        flags: RecordFlags::MIGRATED_WITH_DATA,
    };
    let value = [7; 200];
    let mut builder = RecBufferBuilder::new(DbId(1));
    let fill = |builder: &mut RecBufferBuilder| {
        builder.restart(DbId(1));
        for _ in 0..RECORDS {
            builder.push_with_header(0, black_box(KEY), &header, black_box(&value));
        }
        builder.byte_len()
    };
    let mut group = criterion.benchmark_group("protocol/rec_buffer");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function(BenchmarkId::new("build", RECORDS), |bencher| {
        bencher.iter(|| fill(&mut builder));
    });
    fill(&mut builder);
    group.bench_function(BenchmarkId::new("walk", RECORDS), |bencher| {
        bencher.iter(|| {
            let buffer = RecBuffer::from_bytes(black_box(builder.as_bytes())).expect("just built");
            buffer.iter().filter_map(|record| record.split_header()).count()
        });
    });
    group.finish();
}

fn hashes(criterion: &mut Criterion) {
    for (name, hash) in [("jenkins", jenkins as fn(&[u8]) -> u32), ("old", old)] {
        let mut group = criterion.benchmark_group(format!("protocol/hash/{name}"));
        for key_len in [8_usize, 24, 100] {
            group.throughput(Throughput::Bytes(key_len as u64));
            let key = vec![0x5A; key_len];
            group.bench_with_input(BenchmarkId::from_parameter(key_len), &key, |bencher, key| {
                bencher.iter(|| hash(black_box(key)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decode, encode, encode_parts, record_buffer, hashes);
criterion_main!(benches);
