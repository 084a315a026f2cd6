//! What nodes say to each other about one record, in words that a test can compare.
//!
//! Role: picks the packets for a key out of what a relay noted. Pure.
//! Invariants: a request id is shown as the number of its first appearance (`q1`, `q2`, …), so that
//! equal ones can be told; a node by the name that the caller gives it.
//!
//! Origin: `docs/spec/wire-protocol.md` 2, `docs/spec/cluster-semantics.md` A.10.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ringmaster_compat::cluster::Passed;
use ringmaster_protocol::control::ControlOpcode;
use ringmaster_protocol::record::{RecBuffer, RecordFlags, RecordHeader};
use ringmaster_protocol::{DbId, Decode, Destination, Packet, Reqid, RequestHeader};

/// Controls about records.
const CONTROLS: [ControlOpcode; 3] =
    [ControlOpcode::VACUUM_FETCH, ControlOpcode::TRY_DELETE_RECORDS, ControlOpcode::UPDATE_RECORD];

/// The record, and what its nodes are called.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Database.
    pub db: DbId,
    /// Key.
    pub key: &'a [u8],
    /// Name of each node.
    pub names: &'a [char],
}

/// Every packet about the record, one line each, in order.
///
/// # Errors
/// A packet cannot be decoded.
pub fn lines(passed: &[Passed], subject: &Subject<'_>) -> Result<Vec<String>> {
    let mut reader = Reader { subject, reqids: Vec::new(), asked: BTreeMap::new() };
    let mut lines = Vec::new();
    for packet in passed {
        let (header, content) = Packet::decode(&packet.bytes)
            .with_context(|| format!("from node {} to {}", packet.from, packet.to))?;
        if let Some(said) = reader.said(packet, &header, &content)? {
            let [from, to] = [packet.from, packet.to].map(|node| subject.names[node]);
            lines.push(format!("{from}>{to} {said}"));
        }
    }
    Ok(lines)
}

/// A header as the specification writes it: `{rsn,dmaster,flags}`.
#[must_use]
pub fn header(header: &RecordHeader, names: &[char]) -> String {
    let dmaster = header.dmaster.pnn().map(|pnn| names[pnn.get() as usize]);
    let dmaster = dmaster.map_or_else(|| "?".to_owned(), |name| name.to_string());
    format!("{{{},{dmaster},{}}}", header.rsn.0, flags(header.flags))
}

/// `m` for MIGRATED_WITH_DATA, and the read-only flags; `0` for none.
fn flags(flags: RecordFlags) -> String {
    let known = [
        (RecordFlags::MIGRATED_WITH_DATA, "m"),
        (RecordFlags::RO_HAVE_DELEGATIONS, "delegations"),
        (RecordFlags::RO_HAVE_READONLY, "copy"),
        (RecordFlags::RO_REVOKING_READONLY, "revoking"),
        (RecordFlags::RO_REVOKE_COMPLETE, "revoked"),
    ];
    let set: Vec<_> = known.iter().filter(|(f, _)| flags.contains(*f)).map(|(_, n)| *n).collect();
    if set.is_empty() { "0".to_owned() } else { set.join("+") }
}

/// A value as it is compared: `-` for none.
#[must_use]
pub fn value(data: &[u8]) -> String {
    if data.is_empty() { "-".into() } else { String::from_utf8_lossy(data).into_owned() }
}

struct Reader<'a> {
    subject: &'a Subject<'a>,
    reqids: Vec<Reqid>,
    /// Controls about the record that wait for their answer: (asking node, asked node, request id).
    asked: BTreeMap<(usize, usize, u32), ControlOpcode>,
}

impl Reader<'_> {
    fn said(
        &mut self,
        passed: &Passed,
        header: &RequestHeader,
        packet: &Packet<'_>,
    ) -> Result<Option<String>> {
        let Subject { db, key, names } = *self.subject;
        let reqid = header.envelope.reqid;
        Ok(match packet {
            Packet::ReqCall(call) if (call.db, call.key) == (db, key) => {
                let origin = match header.envelope.source {
                    Destination::Node(pnn) => names[pnn.get() as usize],
                    _ => '?',
                };
                let (q, flags, hops) = (self.number(reqid), call.flags.0, call.hopcount);
                Some(format!("REQ_CALL {q} of {origin}, flags {flags}, hop {hops}"))
            }
            Packet::ReqDmaster(record) if (record.db, record.key) == (db, key) => {
                let to = record.new_dmaster().map_or('?', |pnn| names[pnn.get() as usize]);
                let (q, rsn, flags) =
                    (self.number(reqid), record.rsn.0, flags(record.record_flags));
                let data = value(record.data);
                Some(format!("REQ_DMASTER {q} to {to}, rsn {rsn}, {data}, flags {flags}"))
            }
            Packet::ReplyDmaster(record) if (record.db, record.key) == (db, key) => {
                let (q, rsn, flags) =
                    (self.number(reqid), record.rsn.0, flags(record.record_flags));
                Some(format!("REPLY_DMASTER {q}, rsn {rsn}, {}, flags {flags}", value(record.data)))
            }
            Packet::ReplyCall(reply) if self.reqids.contains(&reqid) => {
                let q = self.number(reqid);
                let record = RecordHeader::split(reply.data);
                let record = record.map_or_else(String::new, |(record, data)| {
                    format!(", {} {}", self::header(&record, names), value(data))
                });
                Some(format!("REPLY_CALL {q}{record}"))
            }
            Packet::ReqControl(control) if CONTROLS.contains(&ControlOpcode(control.opcode)) => {
                let opcode = ControlOpcode(control.opcode);
                let buffer = RecBuffer::from_bytes(control.data)?;
                let record = buffer.iter().find(|record| record.key == key);
                let Some(record) = record.filter(|_| buffer.db() == db) else { return Ok(None) };
                self.asked.insert((passed.from, passed.to, reqid.0), opcode);
                let record = RecordHeader::split(record.data).map_or_else(String::new, |split| {
                    format!(" {} {}", self::header(&split.0, names), value(split.1))
                });
                Some(format!("{opcode}{record}"))
            }
            Packet::ReplyControl(reply) => {
                let asked = self.asked.remove(&(passed.to, passed.from, reqid.0));
                asked.map(|opcode| {
                    let left = RecBuffer::from_bytes(reply.data).map_or(0, |left| left.count());
                    format!("answers {opcode} {}, {left} records", reply.status)
                })
            }
            _ => None,
        })
    }

    fn number(&mut self, reqid: Reqid) -> String {
        let known = self.reqids.iter().position(|known| *known == reqid);
        let position = known.unwrap_or_else(|| {
            self.reqids.push(reqid);
            self.reqids.len() - 1
        });
        format!("q{}", position + 1)
    }
}
