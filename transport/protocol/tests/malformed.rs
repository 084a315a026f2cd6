//! Packets that lie about their lengths, after CVE-2026-58224: fields pointing behind the end of
//! the packet must be refused, and counts larger than the packet must not be believed when memory
//! is reserved. Every u32 of every captured packet is made to lie in turn.

#[path = "support/mod.rs"]
mod support;

use ringmaster_protocol::record::{KeyData, PushRecord, RecBuffer, RecData};
use ringmaster_protocol::{Decode, Operation, Packet, PacketStyle};
use support::corpus::examples;
use support::counting::{CountingAllocator, Usage, measure};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Values that make sums wrap, reach just behind the end, or promise gigabytes.
fn lies(truth: u32) -> impl Iterator<Item = u32> {
    let near = (1..=64).map(move |more| truth.wrapping_add(more));
    let wrapping = [u32::MAX, u32::MAX - 3, u32::MAX - 31, i32::MAX as u32, 1 << 31, 1 << 24];
    near.chain(wrapping)
}

/// Offsets of the length fields of each operation, and of the body's variable part.
fn length_fields(operation: Operation) -> &'static [usize] {
    match operation {
        Operation::ReqCall => &[48, 52],
        Operation::ReplyCall | Operation::ReplyError => &[36],
        Operation::ReqDmaster => &[52, 56],
        Operation::ReplyDmaster => &[48, 52],
        Operation::ReqMessage => &[40],
        Operation::ReqControl => &[56],
        Operation::ReplyControl => &[36, 40],
        Operation::ReqTunnel => &[44],
        Operation::ReqKeepalive | Operation::Unknown(_) => &[],
    }
}

fn bounded(usage: Usage, packet: &[u8]) -> bool {
    usage.peak_bytes <= 2 * packet.len() + 4096
}

#[test]
fn a_length_behind_the_end_of_the_packet_is_refused() {
    let mut refused = 0;
    for example in examples().iter().filter(|example| example.is_packet()) {
        let (header, _) = Packet::decode(&example.bytes).expect("captured packets decode");
        for &field in length_fields(header.operation) {
            let mut bytes = example.bytes.clone();
            let truth = word(&bytes, field);
            for lie in lies(truth) {
                // What is really there behind the fixed part: anything longer is a lie.
                let there = bytes.len() - header.operation.fixed_len();
                bytes[field..field + 4].copy_from_slice(&lie.to_le_bytes());
                let (decoded, usage) = measure(|| Packet::decode(&bytes).map(|_| ()));
                if lie as usize > there {
                    assert!(decoded.is_err(), "{}: field {field} = {lie}", example.title);
                    refused += 1;
                }
                assert_eq!(usage.allocations, 0);
            }
        }
    }
    assert!(refused > 1000, "only {refused} lies were tried");
}

#[test]
fn two_lengths_whose_sum_wraps_are_refused() {
    for example in examples().iter().filter(|example| example.is_packet()) {
        let (header, _) = Packet::decode(&example.bytes).expect("captured packets decode");
        let &[first, second] = length_fields(header.operation) else { continue };
        for (a, b) in [(u32::MAX, 1), (1 << 31, 1 << 31), (u32::MAX, u32::MAX), (4, u32::MAX - 3)] {
            let mut bytes = example.bytes.clone();
            bytes[first..first + 4].copy_from_slice(&a.to_le_bytes());
            bytes[second..second + 4].copy_from_slice(&b.to_le_bytes());
            assert!(Packet::decode(&bytes).is_err(), "{}: {a} + {b}", example.title);
        }
    }
}

#[test]
fn a_header_longer_than_the_bytes_is_refused() {
    for example in examples().iter().filter(|example| example.is_packet()) {
        for cut in 0..example.bytes.len() {
            assert!(Packet::decode(&example.bytes[..cut]).is_err(), "{}", example.title);
        }
    }
}

#[test]
fn every_word_of_every_captured_packet_may_lie() {
    let mut out = Vec::new();
    for example in examples().iter().filter(|example| example.is_packet()) {
        for field in (0..example.bytes.len() - 3).step_by(4) {
            let mut bytes = example.bytes.clone();
            let truth = word(&bytes, field);
            for lie in lies(truth) {
                bytes[field..field + 4].copy_from_slice(&lie.to_le_bytes());
                let ((), usage) = measure(|| decode_everything(&bytes));
                assert!(bounded(usage, &bytes), "{} field {field}: {usage:?}", example.title);
                if let Ok((header, packet)) = Packet::decode(&bytes) {
                    out.clear();
                    packet.encode_into(&mut out, header.envelope, PacketStyle::Exact);
                    // Never more than came in, but for a dmaster packet's flags, always written.
                    assert!(out.len() <= bytes.len() + 4, "{} field {field}", example.title);
                }
            }
        }
    }
}

/// The packet and whatever its payload could be taken for.
fn decode_everything(bytes: &[u8]) {
    let Ok((_, packet)) = Packet::decode(bytes) else { return };
    let payload = match packet {
        Packet::ReqControl(control) => control.data,
        Packet::ReplyControl(reply) => reply.data,
        Packet::ReqMessage(message) => message.data,
        _ => return,
    };
    if let Ok(buffer) = RecBuffer::from_bytes(payload) {
        assert_eq!(buffer.iter().count(), buffer.count() as usize);
    }
    let _ = RecData::from_bytes(payload);
    let _ = KeyData::from_bytes(payload);
    let _ = PushRecord::from_bytes(payload);
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    let (word, _) = bytes[offset..].split_first_chunk().expect("inside the packet");
    u32::from_le_bytes(*word)
}
