use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::table::for_each_control;
use super::*;
use crate::control_packet::{ControlFlags, ReplyControl, ReqControl};
use crate::header::{Envelope, PacketStyle};
use crate::id::{Destination, Generation, Pnn, Reqid, Srvid};
use crate::packet::Packet;
use crate::text::Text;
use crate::wire::Encode;

#[test]
fn the_table_covers_every_number_of_c() {
    assert_eq!(ControlOpcode::table().len(), 163);
    let count = |status| ControlOpcode::table().iter().filter(|c| c.status == status).count();
    assert_eq!(count(ControlStatus::MasterOnly), 4);
    for info in ControlOpcode::table() {
        assert_eq!(info.name.is_empty(), info.status == ControlStatus::Unassigned, "{info:?}");
    }
    assert_eq!(ControlOpcode::PUSH_RECORD, ControlOpcode(162));
    assert_eq!(ControlOpcode(163).status(), ControlStatus::Unassigned);
    assert_eq!(ControlOpcode(8).to_string(), "SET_DEBUG");
    assert_eq!(ControlOpcode(999).to_string(), "control 999");
}

#[test]
fn wrong_sizes_are_refused_where_the_daemon_refuses_them() {
    let refused = |opcode, data: &[u8]| {
        matches!(ControlRequest::decode(opcode, data), Err(RequestError::Size { .. }))
    };
    assert!(refused(ControlOpcode::GET_DB_SEQNUM, &[0; 4]));
    assert!(!refused(ControlOpcode::GET_DB_SEQNUM, &[0; 8]));
    assert!(refused(ControlOpcode::DB_VACUUM, &[0; 8]));
    assert!(!refused(ControlOpcode::DB_VACUUM, &[0; 5]));
    assert!(refused(ControlOpcode::CHECK_PID_SRVID, &[0; 16]));
    assert!(!refused(ControlOpcode::CHECK_PID_SRVID, &[0; 12]));
    assert!(refused(ControlOpcode::GETVNNMAP, &[0; 1]));
    assert!(!refused(ControlOpcode::GET_PID, &[0; 1]));
    assert!(refused(ControlOpcode::DB_ATTACH, b"no nul"));
    assert!(refused(ControlOpcode::REGISTER_NOTIFY, &[0; 13]));
    assert!(!refused(ControlOpcode::REGISTER_NOTIFY, &[0; 12]));
    assert!(refused(ControlOpcode::REGISTER_NOTIFY, &[0xff; 12]));
    assert!(refused(ControlOpcode::REGISTER_NOTIFY, &[0; 9]));
}

#[test]
fn unknown_and_obsolete_numbers_survive_as_bytes() {
    for opcode in [ControlOpcode(2), ControlOpcode::THAW, ControlOpcode(999)] {
        let request = ControlRequest::decode(opcode, b"abc").unwrap();
        assert_eq!(request, ControlRequest::Other { opcode, data: b"abc" });
        assert_eq!((request.opcode(), request.to_bytes()), (opcode, b"abc".to_vec()));
    }
}

#[test]
fn values_in_the_status_are_not_mistaken_for_failures() {
    let decode = |opcode, status| ControlReply::decode(opcode, &ReplyControl::new(status, &[]));
    let pnn = Pnn::new(3).unwrap();
    assert_eq!(decode(ControlOpcode::GET_PNN, 3), Ok(ControlReply::GetPnn(InStatus(pnn))));
    assert_eq!(
        decode(ControlOpcode::PROCESS_EXISTS, -1),
        Ok(ControlReply::ProcessExists(InStatus(false)))
    );
    assert_eq!(ControlReply::GetPnn(InStatus(pnn)).status(), 3);
    let failed = ReplyError::Failed { status: -1, text: Text::default() };
    assert_eq!(decode(ControlOpcode::PING, -1), Err(failed));
    assert_eq!(decode(ControlOpcode::STOP_NODE, -1), Err(failed));
}

#[test]
fn an_error_text_makes_a_predicate_a_failure() {
    let reply = ReplyControl { status: -1, data: &[], error: b"node is disconnected" };
    let failed = ReplyError::Failed { status: -1, text: Text::new("node is disconnected") };
    assert_eq!(ControlReply::decode(ControlOpcode::PROCESS_EXISTS, &reply), Err(failed));
}

/// A strategy for every control, from the table.
macro_rules! define_strategies {
    ($(
        $number:literal $status:ident $($name:ident $($variant:ident $size:expr =>
            [$($request:ty)?] -> [$($reply:ty)?])?)?;
    )*) => {
        fn requests() -> Vec<BoxedStrategy<ControlRequest<'static>>> {
            vec![$($($(
                define_strategies!(@value ControlRequest::$variant $(, $request)?),
            )?)?)*]
        }
        fn replies() -> Vec<BoxedStrategy<ControlReply<'static>>> {
            vec![$($($(
                define_strategies!(@value ControlReply::$variant $(, $reply)?),
            )?)?)*]
        }
    };
    (@value $variant:path, $ty:ty) => { strategy($variant) };
    (@value $variant:path) => { Just($variant).boxed() };
}

for_each_control!(define_strategies);

fn strategy<T: Arbitrary + 'static, C: Debug + 'static>(variant: fn(T) -> C) -> BoxedStrategy<C> {
    any::<T>().prop_map(variant).boxed()
}

const ENVELOPE: Envelope = Envelope {
    generation: Generation(7),
    destination: Destination::Current,
    source: Destination::Unknown,
    reqid: Reqid(42),
};

fn packet_bytes(packet: &Packet<'_>) -> &'static [u8] {
    let mut bytes = Vec::new();
    packet.encode_into(&mut bytes, ENVELOPE, PacketStyle::Library);
    bytes.leak()
}

/// Request, payload, packet, bytes, and all the way back to the same bytes.
fn request_survives(request: &ControlRequest<'_>) -> Result<(), TestCaseError> {
    let opcode = request.opcode();
    let data = request.to_bytes();
    prop_assert_eq!(data.len(), request.encoded_len());
    let flags = ControlFlags::NONE;
    let control =
        ReqControl { opcode: opcode.0, srvid: Srvid(1), client_id: 2, flags, data: &data };
    let bytes = packet_bytes(&Packet::ReqControl(control));
    let Ok((_, Packet::ReqControl(received))) = Packet::decode(bytes) else {
        return Err(TestCaseError::fail("not a control packet"));
    };
    let decoded = ControlRequest::decode(ControlOpcode(received.opcode), received.data);
    prop_assert_eq!(decoded.as_ref(), Ok(request));
    prop_assert_eq!(packet_bytes(&Packet::ReqControl(received)), bytes);
    Ok(())
}

fn reply_survives(reply: &ControlReply<'_>) -> Result<(), TestCaseError> {
    let data = reply.to_bytes();
    prop_assert_eq!(data.len(), reply.encoded_len());
    let packet = ReplyControl::new(reply.status(), &data);
    let bytes = packet_bytes(&Packet::ReplyControl(packet));
    let Ok((_, Packet::ReplyControl(received))) = Packet::decode(bytes) else {
        return Err(TestCaseError::fail("not a control reply"));
    };
    let decoded = ControlReply::decode(reply.opcode(), &received);
    prop_assert_eq!(decoded.as_ref(), Ok(reply));
    Ok(())
}

#[test]
fn every_request_and_reply_survives_a_packet() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let (requests, replies) = (requests(), replies());
    let implemented = ControlOpcode::table().iter().filter(|c| c.status.is_implemented()).count();
    assert_eq!((requests.len(), replies.len()), (implemented, implemented));
    for request in requests {
        runner.run(&request, |request| request_survives(&request)).unwrap();
    }
    for reply in replies {
        runner.run(&reply, |reply| reply_survives(&reply)).unwrap();
    }
}

proptest! {
    #[test]
    fn any_bytes_for_any_control_are_an_error_or_a_stable_value(
        opcode in 0u32..170,
        words in proptest::collection::vec(prop_oneof![0u32..4, Just(24), any::<u32>()], 0..40),
        cut in 0usize..4,
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let bytes: &'static [u8] = bytes.leak();
        let data = &bytes[..bytes.len().saturating_sub(cut)];
        let opcode = ControlOpcode(opcode);
        if let Ok(request) = ControlRequest::decode(opcode, data) {
            prop_assert_eq!(request.opcode(), opcode);
            let again = request.to_bytes();
            let decoded = ControlRequest::decode(opcode, again.leak());
            // The canonical form of an empty name may be too short for the daemon's rule.
            if let Ok(decoded) = decoded {
                prop_assert_eq!(decoded.to_bytes(), request.to_bytes());
            }
        }
        if let Ok(reply) = ControlReply::decode(opcode, &ReplyControl::new(0, data)) {
            let packet = ReplyControl::new(reply.status(), reply.to_bytes().leak());
            let decoded = ControlReply::decode(opcode, &packet).unwrap();
            prop_assert_eq!(decoded.to_bytes(), reply.to_bytes());
        }
    }
}
