use super::*;

const ENVELOPE: Envelope = Envelope {
    generation: Generation(0x5e82_284e),
    destination: Destination::Current,
    source: Destination::Unknown,
    reqid: Reqid(0x65),
};

fn local() -> Framing {
    Framing { transport: Transport::Local, packet_len_max: 1 << 20 }
}

fn tcp() -> Framing {
    Framing { transport: Transport::Tcp, packet_len_max: 1 << 20 }
}

fn packet(body: &[u8], style: PacketStyle) -> Vec<u8> {
    let mut out = Vec::new();
    append_packet(&mut out, Operation::ReqMessage, ENVELOPE, style, |out| out.put_bytes(body));
    out
}

#[test]
fn header_survives_the_wire() {
    let bytes = packet(b"", PacketStyle::Exact);
    assert_eq!(bytes.len(), HEADER_LEN);
    let header = RequestHeader::decode(&bytes).unwrap();
    assert_eq!(header.envelope, ENVELOPE);
    assert_eq!(header.operation, Operation::ReqMessage);
    assert_eq!(&bytes[4..8], b"BDTC");
}

#[test]
fn styles_differ_only_in_zeroed_tail_and_length() {
    let exact = packet(b"123456789", PacketStyle::Exact);
    let library = packet(b"123456789", PacketStyle::Library);
    let daemon = packet(b"1", PacketStyle::Daemon);
    assert_eq!(exact.len(), 41);
    assert_eq!(library.len(), 48);
    assert_eq!(&library[4..41], &exact[4..]);
    assert_eq!(&library[41..], &[0; 7]);
    assert_eq!(daemon.len(), 48, "the C struct of a message has 48 bytes");
    assert_eq!(packet(b"1", PacketStyle::Library).len(), 40);
}

#[test]
fn packets_follow_each_other_in_one_buffer() {
    let mut stream = packet(b"first", PacketStyle::Library);
    let first_len = stream.len();
    append_packet(&mut stream, Operation::ReqCall, ENVELOPE, PacketStyle::Library, |_| {});
    let Ok(Frame::Packet { bytes, .. }) = tcp().next_frame(&stream) else { panic!("first") };
    assert_eq!(bytes.len(), first_len);
    let Ok(Frame::Packet { header, bytes }) = tcp().next_frame(&stream[first_len..]) else {
        panic!("second")
    };
    assert_eq!((header.operation, bytes.len()), (Operation::ReqCall, HEADER_LEN));
}

#[test]
fn a_packet_is_complete_with_its_last_byte_and_not_before() {
    let whole = packet(b"body", PacketStyle::Library);
    for framing in [local(), tcp()] {
        for len in 0..4 {
            assert_eq!(framing.next_frame(&whole[..len]), Ok(Frame::Incomplete { needed: 4 }));
        }
        for len in 4..whole.len() {
            let needed = whole.len();
            assert_eq!(framing.next_frame(&whole[..len]), Ok(Frame::Incomplete { needed }));
        }
        assert!(matches!(framing.next_frame(&whole), Ok(Frame::Packet { .. })));
    }
}

#[test]
fn unaligned_lengths_are_for_the_unix_socket_only() {
    let bytes = packet(b"odd", PacketStyle::Exact);
    assert!(matches!(local().next_frame(&bytes), Ok(Frame::Packet { .. })));
    assert_eq!(tcp().next_frame(&bytes), Err(FrameError::Unaligned { length: 35 }));
}

#[test]
fn zero_length_breaks_the_stream_on_both_transports() {
    for framing in [local(), tcp()] {
        assert_eq!(framing.next_frame(&[0; 64]), Err(FrameError::Empty));
    }
}

#[test]
fn short_packets_are_skipped_on_the_unix_socket_and_fatal_on_tcp() {
    let mut stream = vec![8, 0, 0, 0, 1, 2, 3, 4];
    stream.extend(packet(b"next", PacketStyle::Exact));
    let reason = FrameError::TooShort { length: 8 };
    assert_eq!(local().next_frame(&stream), Ok(Frame::Ignored { len: 8, reason }));
    assert!(matches!(local().next_frame(&stream[8..]), Ok(Frame::Packet { .. })));
    assert_eq!(tcp().next_frame(&stream), Err(reason));
}

#[test]
fn lengths_below_four_count_as_they_say() {
    // ctdbd 4.17 answered the packet behind such a length: the fourth byte is the next packet's.
    for junk in [2_usize, 3] {
        let mut stream = vec![0; junk];
        stream[0] = u8::try_from(junk).unwrap();
        // A packet whose own length begins with the zero bytes that complete the word before.
        let padded_len = if junk == 3 { 256 } else { 65536 };
        stream.extend(packet(&vec![0; padded_len - HEADER_LEN], PacketStyle::Exact));
        let reason = FrameError::TooShort { length: u32::try_from(junk).unwrap() };
        assert_eq!(local().next_frame(&stream), Ok(Frame::Ignored { len: junk, reason }));
        let next = local().next_frame(&stream[junk..]);
        assert!(matches!(next, Ok(Frame::Packet { bytes, .. }) if bytes.len() == padded_len));
    }
}

#[test]
fn wrong_magic_or_version_is_skipped_on_the_unix_socket_and_fatal_on_tcp() {
    let good = packet(b"12345678", PacketStyle::Library);
    let mut magic = good.clone();
    magic[4] = 0;
    let mut version = good.clone();
    version[8] = 2;
    for (bytes, reason) in [
        (magic, FrameError::Magic { found: 0x4354_4400 }),
        (version, FrameError::Version { found: 2 }),
    ] {
        let len = bytes.len();
        assert_eq!(local().next_frame(&bytes), Ok(Frame::Ignored { len, reason }));
        assert_eq!(tcp().next_frame(&bytes), Err(reason));
    }
}

#[test]
fn a_length_above_the_limit_is_refused_from_four_bytes() {
    let bytes = (1_u32 << 20).wrapping_add(8).to_le_bytes();
    for framing in [local(), tcp()] {
        assert_eq!(
            framing.next_frame(&bytes),
            Err(FrameError::TooLong { length: (1 << 20) + 8, limit: 1 << 20 })
        );
    }
}
