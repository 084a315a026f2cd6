//! Records as `catdb`, `cattdb`, `dumpdbbackup` and `tfetch` print them.
//!
//! Role: the layout of one record, and the [`Sink`] that takes any number of them.
//! Invariant: as text, records leave one by one: a dump may be larger than memory. Only a document
//! is collected.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.3; tried with the 4.17 tool.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use ringmaster_protocol::record::{RecordFlags, RecordHeader};
use serde::Serialize;

use super::data::{Escaped, Hex};
use crate::command::{Key, key};
use crate::output::{Mode, Output, Report};
use crate::page::Page;

/// Flags in C's order, with its words.
const FLAGS: [(RecordFlags, &str); 9] = [
    (RecordFlags::MIGRATED_WITH_DATA, "MIGRATED_WITH_DATA"),
    (RecordFlags::VACUUM_MIGRATED, "VACUUM_MIGRATED"),
    (RecordFlags::AUTOMATIC, "AUTOMATIC"),
    (RecordFlags::RO_HAVE_DELEGATIONS, "RO_HAVE_DELEGATIONS"),
    (RecordFlags::RO_HAVE_READONLY, "RO_HAVE_READONLY"),
    (RecordFlags::RO_REVOKING_READONLY, "RO_REVOKING_READONLY"),
    (RecordFlags::RO_REVOKE_COMPLETE, "RO_REVOKE_COMPLETE"),
    (RecordFlags::PERSISTENT, "PERSISTENT"),
    (RecordFlags::PERSISTENT_IN_PROGRESS, "PERSISTENT_IN_PROGRESS"),
];

/// Keys of every dump.
pub(crate) const RECORDS: &[Key] = &[
    key("records[].key", "string", "key; what is not printable, and \" and \\, as \\XX"),
    key("records[].key_hex", "string", "key in hexadecimal"),
    key("records[].dmaster", "number", "node that owns the record"),
    key("records[].rsn", "number", "record sequence number"),
    key("records[].flags_raw", "number", "flags of the record's header"),
    key("records[].flags[]", "string", "their names"),
    key("records[].size", "number", "bytes of the value"),
    key("records[].value", "string", "value, written as the key is"),
    key("records[].value_hex", "string", "value in hexadecimal"),
    key("count", "number", "number of records"),
];

/// One record as text, with an empty line behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) header: RecordHeader,
    pub(crate) value: &'a [u8],
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key({}) = \"{}\"", self.key.len(), Escaped(self.key))?;
        writeln!(f, "{}", self.body())
    }
}

impl<'a> Shown<'a> {
    /// Without the key.
    pub(crate) fn body(&self) -> Body<'a> {
        Body { header: self.header, value: self.value }
    }
}

/// The rest of a record: header and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<'a> {
    pub(crate) header: RecordHeader,
    pub(crate) value: &'a [u8],
}

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordHeader { rsn, dmaster, flags } = self.header;
        write!(f, "dmaster: {}\nrsn: {}\nflags: {:#010x}", dmaster.raw(), rsn.0, flags.0)?;
        for name in flag_names(flags) {
            write!(f, " {name}")?;
        }
        writeln!(f, "\ndata({}) = \"{}\"", self.value.len(), Escaped(self.value))
    }
}

/// Names of the flags that are set.
pub(crate) fn flag_names(flags: RecordFlags) -> impl Iterator<Item = &'static str> {
    FLAGS.iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, name)| *name)
}

/// One record of a document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DumpedRecord {
    key: String,
    key_hex: String,
    dmaster: u32,
    rsn: u64,
    flags_raw: u32,
    flags: Vec<&'static str>,
    size: usize,
    value: String,
    value_hex: String,
}

impl DumpedRecord {
    pub(crate) fn new(record: &Shown<'_>) -> Self {
        let Shown { key, header, value } = *record;
        Self {
            key: Escaped(key).to_string(),
            key_hex: Hex(key).to_string(),
            dmaster: header.dmaster.raw(),
            rsn: header.rsn.0,
            flags_raw: header.flags.0,
            flags: flag_names(header.flags).collect(),
            size: value.len(),
            value: Escaped(value).to_string(),
            value_hex: Hex(value).to_string(),
        }
    }
}

/// The document of a dump.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Dump {
    records: Vec<DumpedRecord>,
    count: usize,
}

impl Report for Dump {
    /// Never used: as text, records are printed as they come.
    fn human(&self, _page: &mut Page) {}
}

/// Where records go.
pub(crate) struct Sink<'a> {
    out: BufWriter<&'a mut dyn Write>,
    document: Option<Dump>,
    count: u64,
    failed: Option<io::Error>,
}

impl<'a> Sink<'a> {
    /// Prints to the output's stream, unless that is for a document.
    pub(crate) fn new(output: &'a mut Output<'_>) -> Self {
        let document = (output.form.mode == Mode::Json).then(Dump::default);
        Self { out: BufWriter::new(output.stdout()), document, count: 0, failed: None }
    }

    /// Takes a record; breaks off when it cannot be written.
    pub(crate) fn put(&mut self, record: &Shown<'_>) -> ControlFlow<()> {
        self.count += 1;
        let written = match &mut self.document {
            Some(dump) => {
                dump.records.push(DumpedRecord::new(record));
                Ok(())
            }
            None => write!(self.out, "{record}"),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the dump with a line that counts (`noun`), unless it broke off. The document, if one
    /// is wanted.
    pub(crate) fn finish(mut self, noun: Option<&str>) -> io::Result<Option<Dump>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(mut dump) = self.document {
            dump.count = dump.records.len();
            return Ok(Some(dump));
        }
        if let Some(noun) = noun {
            writeln!(self.out, "Dumped {} {noun}", self.count)?;
        }
        self.out.flush()?;
        Ok(None)
    }
}

#[cfg(test)]
impl Dump {
    /// One record, for tests of what holds a dump.
    pub(crate) fn sample() -> Self {
        let header = RecordHeader {
            rsn: ringmaster_protocol::Rsn(1),
            dmaster: ringmaster_protocol::record::Dmaster::from_raw(0),
            flags: RecordFlags::MIGRATED_WITH_DATA,
        };
        let record = Shown { key: b"k", header, value: b"v" };
        Self { records: vec![DumpedRecord::new(&record)], count: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::documented;
    use ringmaster_protocol::Rsn;
    use ringmaster_protocol::record::Dmaster;

    fn record() -> Shown<'static> {
        let flags = RecordFlags::MIGRATED_WITH_DATA;
        let header = RecordHeader { rsn: Rsn(11), dmaster: Dmaster::from_raw(0), flags };
        Shown { key: b"key2", header, value: b"v\0\"" }
    }

    #[test]
    fn a_record_takes_five_lines_and_an_empty_one() {
        assert_eq!(
            record().to_string(),
            "key(4) = \"key2\"\ndmaster: 0\nrsn: 11\nflags: 0x00010000 MIGRATED_WITH_DATA\n\
             data(3) = \"v\\00\\22\"\n\n"
        );
    }

    #[test]
    fn flags_are_named_in_cs_order() {
        let flags = RecordFlags(0x0F07_0003);
        let names: Vec<_> = flag_names(flags).collect();
        assert_eq!(names.len(), 9);
        assert_eq!((names[0], names[7]), ("MIGRATED_WITH_DATA", "PERSISTENT"));
    }

    #[test]
    fn a_document_counts_its_records() {
        documented(&Dump::sample(), RECORDS);
    }
}
