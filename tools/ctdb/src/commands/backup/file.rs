//! The backup file: a header, then buffers of records.
//!
//! ```text
//! 0    u64 version (3)          little-endian, as x86 C writes it
//! 8    i64 time, seconds since 1970
//! 16   u64 flags of the database (GET_DBMAP)
//! 24   u64 buffers that follow
//! 32   u64 records in them
//! 40   64 bytes name, NUL-padded
//! then each buffer: u32 database id, u32 records, u64 length, records (ctdb_rec_data)
//! ```
//!
//! Role: reads and writes it over any stream.
//! Invariant: what a file says of lengths is checked before memory is taken.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.6; files of the 4.17 tool.

use std::io::{self, Read, Seek, SeekFrom, Write};

use ringmaster_protocol::record::{RecBufferBuilder, RecData, RecordHeader};
use ringmaster_protocol::{DbId, Decode, Reader as Bytes};

/// The only version there is.
pub(super) const VERSION: u64 = 3;
const HEADER_LEN: usize = 104;
const NAME_LEN: usize = 64;
/// Bytes of a buffer before its records, here and in memory.
const FILE_PREFIX: usize = 16;
const MEMORY_PREFIX: usize = 8;
/// A buffer is written when its records have grown this large, as in C; the last one may reach beyond.
const BUFFER_LEN: usize = 100_000;
/// Largest buffer that is read; C cannot hold more either.
const BUFFER_MAX: u64 = 256 << 20;

const ENOENT: u8 = 2;
const ENOMEM: u8 = 12;
const EINVAL: u8 = 22;
const EMSGSIZE: u8 = 90;

/// The header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) timestamp: i64,
    pub(super) flags: u64,
    pub(super) buffers: u64,
    pub(super) records: u64,
    pub(super) name: Vec<u8>,
}

impl Header {
    fn encode(&self) -> io::Result<[u8; HEADER_LEN]> {
        if self.name.len() >= NAME_LEN {
            let reason = "the database's name is too long for a backup";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut bytes = [0; HEADER_LEN];
        let words =
            [VERSION, self.timestamp.cast_unsigned(), self.flags, self.buffers, self.records];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes[HEADER_LEN - NAME_LEN..][..self.name.len()].copy_from_slice(&self.name);
        Ok(bytes)
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, ReadError> {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..][..8]);
            u64::from_le_bytes(word)
        };
        if word(0) != VERSION {
            return Err(ReadError::Version { found: word(0) });
        }
        let name = &bytes[HEADER_LEN - NAME_LEN..];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let timestamp = word(1).cast_signed();
        Ok(Self { timestamp, flags: word(2), buffers: word(3), records: word(4), name })
    }

    pub(super) fn name_text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// Why a backup cannot be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Version {
        found: u64,
    },
    Io(io::Error),
    /// The file ends within what the header promises.
    Truncated,
    /// A buffer of a length that cannot be.
    TooLong,
    /// The records do not fit into their buffer; the exit status.
    Records(u8),
}

impl ReadError {
    /// C's exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Version { .. } => EINVAL,
            Self::Io(error) => super::errno(error),
            Self::Truncated => ENOENT,
            Self::TooLong => ENOMEM,
            Self::Records(status) => *status,
        }
    }
}

/// One buffer as it stands in the file.
#[derive(Debug)]
pub(super) struct Buffer {
    count: u32,
    records: Vec<u8>,
}

impl Buffer {
    /// Hands each record to `take` until that says `Some(false)`; `None`: it is no record.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(RecData<'_>) -> Option<bool>,
    ) -> Result<(), ReadError> {
        let mut bytes = Bytes::new(&self.records);
        for _ in 0..self.count {
            let record = RecData::decode(&mut bytes).map_err(|_| ReadError::Records(EMSGSIZE))?;
            match take(record) {
                Some(true) => {}
                Some(false) => return Ok(()),
                None => return Err(ReadError::Records(EMSGSIZE)),
            }
        }
        Ok(())
    }

    /// The payload of a message to DB_PUSH_START's receiver: for database `db`, whatever the file
    /// says.
    pub(super) fn message(&self, db: DbId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MEMORY_PREFIX + self.records.len());
        bytes.extend_from_slice(&db.0.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.records);
        bytes
    }
}

/// Reads a backup.
#[derive(Debug)]
pub(super) struct Reader<R> {
    stream: R,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the header. What a short file lacks of it counts as zero, as in C.
    pub(super) fn new(mut stream: R) -> Result<(Self, Header), ReadError> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        let limit = u64::try_from(HEADER_LEN).unwrap_or(u64::MAX);
        stream.by_ref().take(limit).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        let mut header = [0; HEADER_LEN];
        header[..bytes.len()].copy_from_slice(&bytes);
        let header = Header::decode(&header)?;
        Ok((Self { stream }, header))
    }

    /// Back to the first buffer.
    pub(super) fn rewind(&mut self) -> Result<(), ReadError> {
        let start = u64::try_from(HEADER_LEN).unwrap_or(u64::MAX);
        self.stream.seek(SeekFrom::Start(start)).map(drop).map_err(ReadError::Io)
    }

    /// Reads everything the header promises; the number of records.
    pub(super) fn check(&mut self, header: &Header) -> Result<u64, ReadError> {
        let mut records = 0;
        for _ in 0..header.buffers {
            let buffer = self.next_buffer()?;
            buffer.each(|record| RecordHeader::split(record.data).map(|_| true))?;
            records += u64::from(buffer.count);
        }
        Ok(records)
    }

    pub(super) fn next_buffer(&mut self) -> Result<Buffer, ReadError> {
        let mut prefix = [0; FILE_PREFIX];
        self.exactly(&mut prefix)?;
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&prefix[at..][..4]);
            u32::from_le_bytes(word)
        };
        let len = u64::from(word(8)) | u64::from(word(12)) << 32;
        if len >= BUFFER_MAX {
            return Err(ReadError::TooLong);
        }
        let mut records = Vec::new();
        self.stream.by_ref().take(len).read_to_end(&mut records).map_err(ReadError::Io)?;
        if u64::try_from(records.len()) != Ok(len) {
            return Err(ReadError::Truncated);
        }
        Ok(Buffer { count: word(4), records })
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.stream.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Truncated,
            _ => ReadError::Io(error),
        })
    }
}

/// Writes a backup: the header twice, because only the end knows how much there was.
#[derive(Debug)]
pub(super) struct Writer<W: Write + Seek> {
    stream: W,
    header: Header,
    db: DbId,
    buffer: RecBufferBuilder,
}

impl<W: Write + Seek> Writer<W> {
    pub(super) fn new(mut stream: W, header: Header, db: DbId) -> io::Result<Self> {
        stream.write_all(&header.encode()?)?;
        Ok(Self { stream, header, db, buffer: RecBufferBuilder::new(db) })
    }

    pub(super) fn push(
        &mut self,
        key: &[u8],
        header: &RecordHeader,
        value: &[u8],
    ) -> io::Result<()> {
        self.buffer.push_with_header(0, key, header, value);
        self.header.records += 1;
        if self.buffer.byte_len() >= MEMORY_PREFIX + BUFFER_LEN {
            self.flush_buffer()
        } else {
            Ok(())
        }
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        let bytes = self.buffer.as_bytes();
        // The same bytes, with the length between count and records.
        let (prefix, records) = bytes.split_at(MEMORY_PREFIX);
        self.stream.write_all(prefix)?;
        self.stream.write_all(&(records.len() as u64).to_le_bytes())?;
        self.stream.write_all(records)?;
        self.header.buffers += 1;
        self.buffer.restart(self.db);
        Ok(())
    }

    /// Completes the file and gives the stream back.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.buffer.count() > 0 {
            self.flush_buffer()?;
        }
        self.stream.seek(SeekFrom::Start(0))?;
        self.stream.write_all(&self.header.encode()?)?;
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::Rsn;
    use ringmaster_protocol::record::{Dmaster, RecordFlags};
    use std::io::Cursor;

    fn header() -> Header {
        let name = b"pers.tdb".to_vec();
        Header { timestamp: 1_795_153_406, flags: 1, buffers: 0, records: 0, name }
    }

    fn record_header() -> RecordHeader {
        let flags = RecordFlags::NONE;
        RecordHeader { rsn: Rsn(1), dmaster: Dmaster::from_raw(0), flags }
    }

    fn written(values: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(Cursor::new(&mut bytes), header(), DbId(0x5087_64e0)).unwrap();
        for value in values {
            writer.push(b"a9", &record_header(), value).unwrap();
        }
        writer.finish().unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, usize)>, ReadError> {
        let (mut reader, header) = Reader::new(Cursor::new(bytes))?;
        let records = reader.check(&header)?;
        reader.rewind()?;
        let mut found = Vec::new();
        for _ in 0..header.buffers {
            reader.next_buffer()?.each(|record| {
                found.push((record.key.to_vec(), record.data.len()));
                Some(true)
            })?;
        }
        assert_eq!((header.records, records), (found.len() as u64, found.len() as u64));
        Ok(found)
    }

    #[test]
    fn a_file_has_cs_bytes() {
        let bytes = written(&[b"z"]);
        assert_eq!(&bytes[..8], &3_u64.to_le_bytes());
        assert_eq!(&bytes[8..16], &1_795_153_406_i64.to_le_bytes());
        assert_eq!(&bytes[24..40], &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[40..49], b"pers.tdb\0");
        // Captured from the 4.17 tool: database, count, length; then length, reqid, key and data.
        assert_eq!(&bytes[104..120], b"\xe0\x64\x87\x50\x01\0\0\0\x2b\0\0\0\0\0\0\0");
        assert_eq!(&bytes[120..138], b"\x2b\0\0\0\0\0\0\0\x02\0\0\0\x19\0\0\0a9");
    }

    #[test]
    fn what_is_written_is_read_in_several_buffers() {
        let large = vec![7; BUFFER_LEN];
        let found = read(&written(&[&large, b"x", b""])).unwrap();
        let sizes: Vec<_> = found.iter().map(|(_, len)| *len).collect();
        assert_eq!(sizes, [BUFFER_LEN + 24, 25, 24]);
        assert!(read(&written(&[])).unwrap().is_empty());
    }

    #[test]
    fn broken_files_are_refused_with_cs_statuses() {
        let good = written(&[b"z"]);
        let status = |bytes: &[u8]| read(bytes).unwrap_err().status();
        assert_eq!(status(b""), EINVAL);
        assert_eq!(status(b"\x02"), EINVAL);
        for len in [100, 110, good.len() - 1] {
            // What is left of the header still promises a buffer.
            assert_eq!(status(&good[..len]), ENOENT, "{len}");
        }
        let mut long = good.clone();
        long[117] = 1;
        assert_eq!(status(&long), ENOMEM);
        let mut many = good;
        many[108] = 200;
        assert_eq!(status(&many), EMSGSIZE);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let header = Header { name: vec![b'n'; NAME_LEN], ..header() };
        assert!(Writer::new(Cursor::new(Vec::new()), header, DbId(1)).is_err());
    }

    #[test]
    fn a_message_names_the_database_it_goes_to() {
        let bytes = written(&[b"z"]);
        let (mut reader, _) = Reader::new(Cursor::new(&bytes)).unwrap();
        let buffer = reader.next_buffer().unwrap();
        assert_eq!(buffer.count, 1);
        let message = buffer.message(DbId(9));
        assert_eq!(&message[..8], b"\x09\0\0\0\x01\0\0\0");
        assert_eq!(message[8..], bytes[120..]);
    }
}
