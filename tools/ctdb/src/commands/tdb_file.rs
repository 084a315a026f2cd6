//! Records of a TDB file that no daemon uses: `tfetch`, `tstore`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.7; tried with the 4.17 tool.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ringmaster_protocol::Rsn;
use ringmaster_protocol::record::{Dmaster, RecordFlags, RecordHeader};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::open::{OpenOptions as TdbOptions, open};
use serde::Serialize;

use super::data::{Escaped, Hex, key_argument, value_argument};
use super::record::{Body, flag_names};
use super::tunables::bad_number;
use crate::arguments::{atoi, text, unsigned};
use crate::command::{Failure, Key, Outcome, key};
use crate::output::Report;
use crate::page::Page;
use crate::session::Session;

/// Keys of `tfetch`.
pub const TFETCH: &[Key] = &[
    key("dmaster", "number", "node that owns the record"),
    key("rsn", "number", "record sequence number"),
    key("flags_raw", "number", "flags of the record's header"),
    key("flags[]", "string", "their names"),
    key("size", "number", "bytes of the value"),
    key("value", "string", "value; what is not printable, and \" and \\, as \\XX"),
    key("value_hex", "string", "value in hexadecimal"),
];

#[derive(Clone, Debug, Serialize)]
struct FileRecord {
    dmaster: u32,
    rsn: u64,
    flags_raw: u32,
    flags: Vec<&'static str>,
    size: usize,
    value: String,
    value_hex: String,
    #[serde(skip)]
    text: String,
}

impl FileRecord {
    fn new(header: RecordHeader, value: &[u8]) -> Self {
        Self {
            dmaster: header.dmaster.raw(),
            rsn: header.rsn.0,
            flags_raw: header.flags.0,
            flags: flag_names(header.flags).collect(),
            size: value.len(),
            value: Escaped(value).to_string(),
            value_hex: Hex(value).to_string(),
            text: Body { header, value }.to_string(),
        }
    }
}

impl Report for FileRecord {
    fn human(&self, page: &mut Page) {
        page.put(&self.text);
    }
}

/// `tfetch`: shows a record, and writes it with its header into a file.
///
/// # Errors
/// The file is no TDB file, or in use with mutexes; no such record, or one without header.
pub fn tfetch(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let mut file = open_file(&arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let word = text(arguments, 1);
    let mut bytes = Vec::new();
    let found = file.fetch(&key, &mut bytes).unwrap_or(false);
    if !found {
        return Err(Failure::new(format_args!("No record for key {word}")));
    }
    let Some((header, value)) = RecordHeader::split(&bytes) else {
        return Err(Failure::new(format_args!("Invalid record for key {word}")));
    };
    session.output().report(&FileRecord::new(header, value))?;
    if let Some(name) = arguments.get(2) {
        write_out(session, name, &bytes);
    }
    Ok(0)
}

/// What goes wrong with the output file changes no exit status, as in C: the record was shown.
fn write_out(session: &mut Session<'_>, name: &OsStr, bytes: &[u8]) {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(name);
    match opened {
        Ok(mut file) => {
            if file.write_all(bytes).is_err() {
                session.complain("Failed to write record to file");
            }
        }
        Err(_) => {
            let name = name.to_string_lossy();
            session.complain(format_args!("Failed to open output file {name}"));
        }
    }
}

/// `tstore`.
///
/// # Errors
/// The file is no TDB file, or in use with mutexes; no key, value or number; it cannot be written.
pub fn tstore(_session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let mut file = open_file(&arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let value = value_argument(&arguments[2])?;
    let rsn = arguments.get(3).map(|word| unsigned(word).ok_or_else(|| bad_number(word)));
    let dmaster = arguments.get(4).map_or(0, |word| atoi(word));
    let header = RecordHeader {
        rsn: Rsn(rsn.transpose()?.unwrap_or(0)),
        dmaster: Dmaster::from_raw(u32::from_ne_bytes(dmaster.to_ne_bytes())),
        flags: RecordFlags::NONE,
    };
    match file.store(&key, &[&header.to_array(), &value], StoreMode::Replace) {
        Ok(Stored::Done) => Ok(0),
        Ok(_) | Err(_) => {
            let (key, file) = (text(arguments, 1), text(arguments, 0));
            Err(Failure::new(format_args!("Failed to write record {key} to file {file}")))
        }
    }
}

fn open_file(name: &OsStr) -> Result<Handle, Failure> {
    open(Path::new(name), &TdbOptions::existing(Flags::DEFAULT)).map_err(|_| {
        Failure::new(format_args!("Failed to open TDB file {}", name.to_string_lossy()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human};

    #[test]
    fn a_record_is_shown_without_its_key() {
        let flags = RecordFlags::MIGRATED_WITH_DATA;
        let header = RecordHeader { rsn: Rsn(5), dmaster: Dmaster::from_raw(2), flags };
        let record = FileRecord::new(header, b"value1");
        assert_eq!(
            human(&record),
            "dmaster: 2\nrsn: 5\nflags: 0x00010000 MIGRATED_WITH_DATA\ndata(6) = \"value1\"\n"
        );
        documented(&record, TFETCH);
    }
}
