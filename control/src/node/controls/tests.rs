//! Scenarios of the controls, by family. The quirks each have a test of their own.

mod addresses;
mod attach;
mod clients;
mod daemon;
mod databases;
mod membership;
mod persistent;
mod recovery;
mod transactions;
mod traverse;
mod vacuum;

use ringmaster_protocol::{
    DbId, Rsn,
    control::{ControlOpcode, ControlRequest},
    record::{RecBufferBuilder, RecordFlags, RecordHeader},
    text::Text,
    wire::Decode,
};

use super::super::{
    Ask, Outcome, Tell,
    testing::{Cluster, Did, Play, pnn},
    world::{ControlAnswer, DataAsk, ScriptRun},
};

/// -1 without text.
fn refused() -> ControlAnswer {
    ControlAnswer { status: -1, ..ControlAnswer::default() }
}

/// 0 without data.
fn done() -> ControlAnswer {
    ControlAnswer::default()
}

fn error(status: i32, text: &str) -> ControlAnswer {
    ControlAnswer { status, data: Vec::new(), error: text.into() }
}

/// The payload of a successful answer.
fn value<T: for<'a> Decode<'a>>(answer: &ControlAnswer) -> T {
    assert_eq!((answer.status, answer.error.as_str()), (0, ""));
    T::from_bytes(&answer.data).unwrap()
}

/// A volatile database that all nodes have; node 0's client has asked for it.
fn volatile(cluster: &mut Cluster, name: &str) -> DbId {
    value(&cluster.control(0, &ControlRequest::DbAttach(Text::new(name))))
}

fn persistent(cluster: &mut Cluster, name: &str) -> DbId {
    value(&cluster.control(0, &ControlRequest::DbAttachPersistent(Text::new(name))))
}

fn header(rsn: u64, dmaster: usize) -> RecordHeader {
    RecordHeader { rsn: Rsn(rsn), dmaster: pnn(dmaster).into(), flags: RecordFlags::NONE }
}

/// A buffer with one record.
fn one_record(db: DbId, key: &[u8], header: RecordHeader, value: &[u8]) -> Vec<u8> {
    let mut buffer = RecBufferBuilder::new(db);
    buffer.push_with_header(0, key, &header, value);
    buffer.into_bytes()
}

/// Holds every order to the data plane that `which` knows.
fn hold_data(cluster: &mut Cluster, node: usize, which: fn(&DataAsk) -> bool) {
    cluster.play(node, move |ask| match ask {
        Ask::Data(data) if which(data) => Some(Play::Hold),
        _ => None,
    });
}

/// Fails every order to the data plane that `which` knows.
fn fail_data(cluster: &mut Cluster, node: usize, which: fn(&DataAsk) -> bool) {
    cluster.play(node, move |ask| match ask {
        Ask::Data(data) if which(data) => Some(Play::Outcome(Outcome::Failed("broken".into()))),
        _ => None,
    });
}

/// Nodes that have been sent this control.
fn sent(did: &[Did], opcode: ControlOpcode) -> Vec<u32> {
    let to = |did: &Did| match did {
        Did::Tell(Tell::Control(control)) | Did::Ask(Ask::Control(control)) => {
            (control.opcode == opcode).then(|| control.to.get())
        }
        _ => None,
    };
    did.iter().filter_map(to).collect()
}

/// Orders to the data plane.
fn data_asks(did: &[Did]) -> Vec<DataAsk> {
    let asks = did.iter().filter_map(|did| match did {
        Did::Ask(Ask::Data(data)) => Some(data.clone()),
        _ => None,
    });
    asks.collect()
}

/// Events that have been run.
fn events(did: &[Did]) -> Vec<&'static str> {
    let events = did.iter().filter_map(|did| match did {
        Did::Ask(Ask::Script(ScriptRun { event, .. })) => Some(*event),
        _ => None,
    });
    events.collect()
}
