//! Payloads of controls that lie about counts and lengths: decoding refuses or ignores the lie, and
//! never reserves more memory than twice the payload and 4 KiB.

#[path = "support/mod.rs"]
mod support;

use ringmaster_protocol::control::payloads::*;
use ringmaster_protocol::control::{ControlOpcode, ControlReply, ControlRequest};
use ringmaster_protocol::control_packet::ReplyControl;
use ringmaster_protocol::process::GLockList;
use ringmaster_protocol::statistics::HotKey;
use ringmaster_protocol::{Decode, DecodeError, Encode, Packet};
use support::corpus::{example, examples};
use support::counting::{CountingAllocator, measure};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Decodes the payload as request and reply of a control; tells whether one of them took it.
fn decode_both(opcode: ControlOpcode, data: &[u8]) -> bool {
    let packet = ReplyControl::new(0, data);
    let (taken, usage) = measure(|| {
        let request = ControlRequest::decode(opcode, data).is_ok();
        // One after the other: only one of them is alive in a daemon or client.
        ControlReply::decode(opcode, &packet).is_ok() || request
    });
    assert!(usage.peak_bytes <= 2 * data.len() + 4096, "{opcode}: {usage:?} for {}", data.len());
    taken
}

/// Payloads with counts and lengths in them, captured and made.
fn payloads() -> Vec<(ControlOpcode, Vec<u8>)> {
    let mut payloads: Vec<_> = examples()
        .iter()
        .filter_map(|example| match Packet::decode(&example.bytes).ok()?.1 {
            Packet::ReqControl(control) => {
                Some((ControlOpcode(control.opcode), control.data.to_vec()))
            }
            _ => None,
        })
        .collect();
    let reply = |section, title| match Packet::decode(example(section, title)) {
        Ok((_, Packet::ReplyControl(reply))) => reply.data.to_vec(),
        other => panic!("{title}: {other:?}"),
    };
    let history = StatisticsHistory(vec![Statistics::default(); 3]);
    let mut statistics = DbStatistics::default();
    statistics.hot_keys[0] = HotKey { count: 3, key: b"first" };
    statistics.hot_keys[9] = HotKey { count: 1, key: b"last" };
    payloads.extend([
        (ControlOpcode::GETVNNMAP, reply("9.4", "Reply")),
        (ControlOpcode::GET_NODEMAP, reply("9.5", "Reply")),
        (ControlOpcode::GET_DBMAP, reply("9.8", "GET_DBMAP")),
        (ControlOpcode::GET_PUBLIC_IPS, reply("9.25", "GET_PUBLIC_IPS")),
        (ControlOpcode::GET_PUBLIC_IP_INFO, reply("9.25", "GET_PUBLIC_IP_INFO")),
        (ControlOpcode::GET_IFACES, reply("9.25", "GET_IFACES")),
        (ControlOpcode::GET_TCP_TICKLE_LIST, reply("9.25", "GET_TCP_TICKLE_LIST")),
        (ControlOpcode::SET_TCP_TICKLE_LIST, example("9.28", "payload SET_TCP").to_vec()),
        (ControlOpcode::LIST_TUNABLES, TunableNames(Text::new(":A:B")).to_bytes()),
        (ControlOpcode::GET_STAT_HISTORY, history.to_bytes()),
        (ControlOpcode::GET_DB_STATISTICS, statistics.to_bytes()),
        (ControlOpcode::ECHO_DATA, EchoData { timeout: 0, data: b"echo" }.to_bytes()),
    ]);
    payloads
}

#[test]
fn every_word_of_a_payload_may_lie() {
    let mut refused = 0;
    for (opcode, payload) in payloads() {
        assert!(decode_both(opcode, &payload), "{opcode}: the true payload");
        for at in 0..payload.len().saturating_sub(3) {
            let truth =
                payload[at..].first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
            let near = [1, 2, 8, 24].map(|more| truth.wrapping_add(more));
            let far = [u32::MAX, u32::MAX - 3, u32::MAX / 36 + 1, 1 << 31, 1 << 24, 0x0100_0001];
            for lie in near.into_iter().chain(far) {
                let mut lying = payload.clone();
                lying[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                refused += usize::from(!decode_both(opcode, &lying));
            }
        }
    }
    assert!(refused > 1000, "only {refused} lies were noticed");
}

#[test]
fn a_payload_cut_anywhere_is_decoded_within_bounds() {
    for (opcode, payload) in payloads() {
        for len in 0..payload.len() {
            decode_both(opcode, &payload[..len]);
        }
    }
}

#[test]
fn any_payload_may_arrive_under_any_number() {
    for (_, payload) in payloads() {
        for opcode in 0..=200 {
            decode_both(ControlOpcode(opcode), &payload);
        }
        let (_, usage) = measure(|| GLockList::from_bytes(&payload));
        assert!(usage.peak_bytes <= 2 * payload.len() + 4096);
    }
}

#[test]
fn a_count_of_billions_is_refused_before_anything_is_reserved() {
    let mut payload = vec![0xff; 4];
    payload.resize(100, 0);
    for opcode in [
        ControlOpcode::GET_NODEMAP,
        ControlOpcode::GET_DBMAP,
        ControlOpcode::GET_PUBLIC_IPS,
        ControlOpcode::GET_IFACES,
        ControlOpcode::GET_STAT_HISTORY,
    ] {
        let packet = ReplyControl::new(0, &payload);
        let (reply, usage) = measure(|| ControlReply::decode(opcode, &packet));
        assert!(reply.is_err(), "{opcode}");
        assert_eq!(usage.allocations, 0, "{opcode}");
    }
}

#[test]
fn more_hot_keys_than_slots_are_refused() {
    let mut bytes = DbStatistics::default().to_bytes();
    bytes[216..220].copy_from_slice(&11_u32.to_le_bytes());
    let invalid = DecodeError::Invalid { what: "db_statistics.num_hot_keys", value: 11 };
    assert_eq!(DbStatistics::from_bytes(&bytes), Err(invalid));
}
