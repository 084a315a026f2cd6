//! Vectors of the specification.

use super::*;

#[test]
fn hashes_equal_the_vectors_of_the_c_library() {
    let vectors: [(&[u8], u32, u32); 12] = [
        (b"", 0x0000_3039, 0xdead_beef),
        (b"\0", 0x1d26_bc5e, 0x8ba9_414b),
        (b"a", 0x094a_72e9, 0x58d6_8708),
        (b"\xff", 0xa1ae_d8f3, 0x2c43_362b),
        (b"hi", 0x3da2_605b, 0x54bb_3ab8),
        (b"TDB file\n\0", 0xf67d_9f0d, 0xd7b6_94e5),
        (b"12345678901", 0x3214_375b, 0x7a79_47d1),
        (b"123456789012", 0xace3_3680, 0xb578_f5b0),
        (b"1234567890123", 0xe3fe_d2a5, 0xde86_d9f5),
        (b"the quick brown fox jumps over", 0x3ed6_e6ae, 0x66ef_ca8f),
        (&[0xff; 37], 0x47cb_eb70, 0x44a1_d8f9),
        (b"__db_sequence_number__\0", 0x7ada_95b3, 0xd64d_294d),
    ];
    for (key, old, jenkins) in vectors {
        assert_eq!(HashKind::Old.hash(key), old, "{key:?}");
        assert_eq!(HashKind::Jenkins.hash(key), jenkins, "{key:?}");
    }
}

#[test]
fn header_survives_both_byte_orders() {
    for order in [ByteOrder::Native, ByteOrder::Foreign] {
        for (hash, mutex_size) in
            [(HashKind::Old, 0), (HashKind::Jenkins, 0), (HashKind::Jenkins, 4096)]
        {
            let header = Header::with_order(7, hash, mutex_size, order);
            let again = Header::parse(&header.encode()).unwrap();
            assert_eq!(again, header);
            assert_eq!(again.hash_kind(), Some(hash));
            assert_eq!(again.has_mutexes(), mutex_size != 0);
        }
    }
}

#[test]
fn wrong_headers_are_named() {
    let good = Header::new(3, HashKind::Old, 0).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        Header::parse(&bytes)
    };
    assert_eq!(with(0, b'X'), Err(HeaderError::NotTdb));
    assert_eq!(with(32, 0), Err(HeaderError::Version { found: 0x2601_1900 }));
    assert_eq!(with(36, 0), Err(HeaderError::NoChains));
    assert_eq!(with(40, 1), Err(HeaderError::Rwlocks { found: 1 }));
    let mut bytes = Header::new(3, HashKind::Jenkins, 4096).encode();
    bytes[60] = 3;
    assert_eq!(Header::parse(&bytes), Err(HeaderError::Features { found: 3 }));
}

#[test]
fn layout_places_heads_and_data() {
    let layout = Layout { hash_size: 131, hash: HashKind::Old, page_size: 4096 };
    assert_eq!(layout.head_of(0), 172);
    assert_eq!(layout.data_start(), 696);
    assert_eq!(layout.chain_of(262), 0);
}
