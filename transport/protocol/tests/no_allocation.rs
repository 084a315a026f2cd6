//! Hot packets allocate nothing: neither when decoded nor when encoded into a buffer that has
//! grown to its size. A counting allocator watches.

#[path = "support/mod.rs"]
mod support;

use ringmaster_protocol::header::{Frame, Framing, Transport};
use ringmaster_protocol::record::{RecBuffer, RecBufferBuilder, RecData, RecordHeader};
use ringmaster_protocol::{DbId, Decode, Encode, Packet, PacketStyle};
use support::corpus::examples;
use support::counting::{CountingAllocator, measure};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn the_allocator_does_count() {
    let (_, usage) = measure(|| std::hint::black_box(vec![0_u8; 1000]));
    assert_eq!((usage.allocations, usage.peak_bytes), (1, 1000));
}

#[test]
fn decoding_and_forwarding_a_packet_allocates_nothing() {
    let mut out = Vec::with_capacity(4096);
    for example in examples().iter().filter(|example| example.is_packet()) {
        let framing = Framing { transport: Transport::Local, packet_len_max: 1 << 20 };
        let (kind, usage) = measure(|| {
            let Ok(Frame::Packet { header, bytes }) = framing.next_frame(&example.bytes) else {
                panic!("captured packets are whole");
            };
            let packet = Packet::decode_body(&header, bytes).expect("captured packets decode");
            for style in [PacketStyle::Daemon, PacketStyle::Library, PacketStyle::Exact] {
                out.clear();
                packet.encode_into(&mut out, header.envelope, style);
                let parts = packet.encode_parts(&mut out, header.envelope, style);
                assert!(parts.payload.iter().all(|slice| inside(slice, bytes)), "copied");
            }
            packet.operation().name()
        });
        assert_eq!(usage.allocations, 0, "{kind}: {}", example.title);
    }
}

/// Whether `part` is memory of `whole`.
fn inside(part: &[u8], whole: &[u8]) -> bool {
    part.is_empty() || whole.as_ptr_range().contains(&part.as_ptr())
}

#[test]
fn walking_and_rebuilding_a_record_buffer_allocates_nothing() {
    let header = RecordHeader::split(&[0; 24]).expect("24 bytes are a header").0;
    let mut builder = RecBufferBuilder::new(DbId(1));
    for _ in 0..100 {
        builder.push_with_header(0, b"some key", &header, b"some value");
    }
    let bytes = builder.as_bytes().to_vec();
    let mut out = Vec::with_capacity(bytes.len());
    let (count, usage) = measure(|| {
        let buffer = RecBuffer::from_bytes(&bytes).expect("just built");
        builder.restart(buffer.db());
        for RecData { reqid, key, data } in &buffer {
            let (header, value) = RecordHeader::split(data).expect("has a header");
            builder.push_with_header(reqid, key, &header, value);
        }
        buffer.encode(&mut out);
        buffer.iter().len()
    });
    assert_eq!((count, usage.allocations), (100, 0));
    assert_eq!(builder.as_bytes(), bytes);
    assert_eq!(out, bytes);
}
