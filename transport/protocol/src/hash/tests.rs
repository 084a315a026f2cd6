//! Vectors computed with libtdb 1.4.8 and ids seen with a running ctdbd.

use super::*;

/// Key, old hash, Jenkins hash.
fn vectors() -> Vec<(Vec<u8>, u32, u32)> {
    let counting = |end: u8| (0..=end).collect::<Vec<u8>>();
    let text: &[(&[u8], u32, u32)] = &[
        (b"", 0x0000_3039, 0xdead_beef),
        (b"\0", 0x1d26_bc5e, 0x8ba9_414b),
        (b"a", 0x094a_72e9, 0x58d6_8708),
        (b"\xff", 0xa1ae_d8f3, 0x2c43_362b),
        (b"hi", 0x3da2_605b, 0x54bb_3ab8),
        (b"abc", 0xc225_adf3, 0x0e39_7631),
        (b"Hello", 0xae5b_91ea, 0xc7bc_405b),
        (b"hello\0", 0x044b_eb6f, 0xcaee_a99f),
        (b"TDB file\n\0", 0xf67d_9f0d, 0xd7b6_94e5),
        (b"\x99\x19\x01\x26", 0x3afe_f920, 0x76b9_440e),
        (b"\x26\x01\x19\x99", 0x566f_1e0f, 0x123c_1283),
        (b"12345678901", 0x3214_375b, 0x7a79_47d1),
        (b"123456789012", 0xace3_3680, 0xb578_f5b0),
        (b"1234567890123", 0xe3fe_d2a5, 0xde86_d9f5),
        (b"the quick brown fox jumps over", 0x3ed6_e6ae, 0x66ef_ca8f),
        (b"__db_sequence_number__\0", 0x7ada_95b3, 0xd64d_294d),
        (b"locking.tdb\0", 0x42fe_72c5, 0x7a19_d84d),
        (b"brlock.tdb\0", 0x1421_fb78, 0x4e66_c2b2),
        (b"g_lock.tdb\0", 0x2607_456f, 0x4d2a_432b),
        (b"secrets.tdb\0", 0xb775_fff6, 0x7132_c184),
        (b"registry.tdb\0", 0xf2a5_8948, 0x6cf2_837d),
        (b"passdb.tdb\0", 0x7bbb_d26c, 0x3ef1_9640),
        (b"ctdb.tdb\0", 0xcba5_e45f, 0x6645_c6c4),
        (b"smbXsrv_session_global.tdb\0", 0x9024_3c85, 0x6b06_a26d),
        (b"test.tdb\0", 0x1222_24da, 0xc445_c6ab),
        (b"key1", 0xc79a_fa66, 0x1de0_df49),
        (b"key1\0", 0xe4c1_868b, 0x8440_bd35),
        (b"key2", 0xeed0_7a66, 0x70b6_c153),
        (b"key3", 0x1605_fa66, 0x7d24_72ef),
        (b"key4", 0x3d3b_7a66, 0xb473_02f2),
        (b"rec1", 0x6912_5753, 0x432c_734c),
        (b"rec2", 0x9047_d753, 0x7b31_e3d0),
        (b"rec3", 0xb77d_5753, 0x3671_097c),
        (b"testkey", 0x1b7b_ddc6, 0x6ea5_e637),
    ];
    let mut all: Vec<_> = text.iter().map(|&(key, old, new)| (key.to_vec(), old, new)).collect();
    all.push((counting(0x17), 0x2533_c4df, 0x9c0a_dd53));
    all.push((counting(0x18), 0x6cf1_ab0c, 0x3a88_2244));
    all.push((counting(0xff), 0x59e5_81bb, 0xe20e_0833));
    all.push((counting(0x07), 0x012e_4f6f, 0xd4cc_b93c));
    all.push((vec![0xff; 37], 0x47cb_eb70, 0x44a1_d8f9));
    all
}

#[test]
fn both_hashes_agree_with_libtdb() {
    for (key, old_hash, jenkins_hash) in vectors() {
        assert_eq!(old(&key), old_hash, "old hash of {key:02x?}");
        assert_eq!(jenkins(&key), jenkins_hash, "Jenkins hash of {key:02x?}");
    }
}

#[test]
fn database_ids_are_those_of_a_running_ctdbd() {
    assert_eq!(DbId::from_name("volt.tdb"), DbId(0xd3c5_c46b));
    assert_eq!(DbId::from_name("pers.tdb"), DbId(0x3880_c3f1));
    assert_eq!(DbId::from_name("locking.tdb"), DbId(0x7a19_d84d));
}
