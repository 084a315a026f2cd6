use super::*;
use crate::control_packet::ReplyControl;
use crate::id::Pnn;
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
