//! Bytes in C's replies that mean nothing and differ from run to run.

use ringmaster_protocol::control::ControlOpcode;

/// The data of a reply with leftovers of C's memory zeroed: padding behind the count of
/// GET_STAT_HISTORY, pointers in the hot keys of GET_DB_STATISTICS.
pub(crate) fn without_garbage(opcode: ControlOpcode, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    match opcode {
        ControlOpcode::GET_STAT_HISTORY => data[4..8].fill(0),
        ControlOpcode::GET_DB_STATISTICS => {
            for slot in data[224..464].chunks_mut(24) {
                slot[4..16].fill(0);
            }
        }
        _ => {}
    }
    data
}
