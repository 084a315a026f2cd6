use super::*;

fn header(rsn: u64) -> RecordHeader {
    RecordHeader { rsn: Rsn(rsn), dmaster: Dmaster::from_raw(1), flags: RecordFlags(0x1_0000) }
}

#[test]
fn record_header_has_the_bytes_of_the_c_struct() {
    let bytes = header(6).to_array();
    let mut expected = [0_u8; 24];
    expected[0] = 6;
    expected[8] = 1;
    expected[18] = 1;
    assert_eq!(bytes, expected);
    assert_eq!(RecordHeader::from_bytes(&bytes), Ok(header(6)));
}

#[test]
fn reserved_words_of_a_header_are_ignored_and_written_as_zero() {
    let mut bytes = header(6).to_array();
    bytes[12..16].fill(0xAA);
    bytes[20..24].fill(0xBB);
    let decoded = RecordHeader::from_bytes(&bytes).unwrap();
    assert_eq!(decoded.to_array(), header(6).to_array());
}

#[test]
fn a_dmaster_that_is_no_node_is_kept() {
    let unknown = RecordHeader { dmaster: Dmaster::UNKNOWN, ..header(1) };
    let decoded = RecordHeader::from_bytes(&unknown.to_array()).unwrap();
    assert_eq!(decoded.dmaster.raw(), 0xFFFF_FFFF);
    assert_eq!(decoded.dmaster.pnn(), None);
    assert!(!decoded.dmaster.is(Pnn::new(3).unwrap()));
}

#[test]
fn a_value_shorter_than_a_header_has_none() {
    assert_eq!(RecordHeader::split(&[0; 23]), None);
    let value = [&header(2).to_array()[..], b"data"].concat();
    assert_eq!(RecordHeader::split(&value), Some((header(2), &b"data"[..])));
}

#[test]
fn built_buffers_iterate_in_order() {
    let mut builder = RecBufferBuilder::new(DbId(7));
    builder.push_with_header(1, b"k1", &header(1), b"v1");
    builder.push(&RecData { reqid: 2, key: b"k2", data: b"" });
    builder.push_with_header(3, b"", &header(3), b"");
    let buffer = RecBuffer::from_bytes(builder.as_bytes()).unwrap();
    assert_eq!((buffer.db(), buffer.count()), (DbId(7), 3));
    let records: Vec<_> = buffer.iter().collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].split_header(), Some((header(1), &b"v1"[..])));
    assert_eq!(records[1], RecData { reqid: 2, key: b"k2", data: b"" });
    assert_eq!(records[2].split_header(), Some((header(3), &b""[..])));
    assert_eq!(buffer.to_bytes(), builder.as_bytes());
    builder.restart(DbId(8));
    assert_eq!(RecBuffer::from_bytes(builder.as_bytes()).unwrap().iter().count(), 0);
}

#[test]
fn a_record_is_stepped_over_by_its_length_field() {
    let mut bytes = Vec::new();
    bytes.put_u32(9);
    bytes.put_u32(2);
    for key in [b'a', b'b'] {
        bytes.put_u32(16 + 1 + 3); // three bytes more than key and data need
        bytes.put_u32(0);
        bytes.put_u32(1);
        bytes.put_u32(0);
        bytes.put_bytes(&[key, 0xEE, 0xEE, 0xEE]);
    }
    let buffer = RecBuffer::from_bytes(&bytes).unwrap();
    let keys: Vec<_> = buffer.iter().map(|record| record.key).collect();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(buffer.to_bytes(), bytes, "forwarded as it came");
}

#[test]
fn lying_lengths_in_a_record_are_refused() {
    let record = |length: u32, key_len: u32, data_len: u32| {
        let mut bytes = Vec::new();
        bytes.put_u32(length);
        bytes.put_u32(0);
        bytes.put_u32(key_len);
        bytes.put_u32(data_len);
        bytes.put_bytes(b"12345678");
        bytes
    };
    assert!(RecData::from_bytes(&record(24, 4, 4)).is_ok());
    for (length, key_len, data_len) in [
        (0, 0, 0),
        (3, 0, 0),
        (15, 0, 0),
        (25, 4, 4),
        (24, 4, 5),
        (24, u32::MAX, 9),
        (24, 9, u32::MAX),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        assert!(RecData::from_bytes(&record(length, key_len, data_len)).is_err());
    }
}

#[test]
fn a_count_above_the_records_is_refused() {
    let mut builder = RecBufferBuilder::new(DbId(7));
    builder.push(&RecData { reqid: 0, key: b"k", data: b"v" });
    let mut bytes = builder.into_bytes();
    bytes[4] = 2;
    assert!(RecBuffer::from_bytes(&bytes).is_err());
    bytes[4..8].fill(0xFF);
    assert!(RecBuffer::from_bytes(&bytes).is_err());
}

#[test]
fn bytes_behind_the_last_record_do_not_belong_to_the_buffer() {
    let mut builder = RecBufferBuilder::new(DbId(7));
    builder.push(&RecData { reqid: 0, key: b"k", data: b"v" });
    let exact = builder.into_bytes();
    let padded = [&exact[..], &[0; 5]].concat();
    assert_eq!(RecBuffer::from_bytes(&padded).unwrap().to_bytes(), exact);
}
