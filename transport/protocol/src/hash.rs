//! The two hash functions of TDB files and database ids.
//!
//! Role: pick chain and lmaster of a key, and the id of a database name.
//! Invariants
//! - Words are read little-endian on every machine; all arithmetic wraps at 2^32.
//! - The cluster's view of a key (lmaster) is always [`jenkins`]; the file's view (chain) depends
//!   on the file: [`jenkins`] for volatile and replicated databases, [`old`] for persistent ones.
//!
//! Origin: `docs/spec/tdb-format.md` 2.3–2.5, `docs/spec/wire-protocol.md` 7.1.

use crate::id::DbId;

/// Jenkins' lookup3 `hashlittle` with initial value 0: database ids, lmaster of a key, and the
/// chain in files whose header says so.
#[must_use]
pub fn jenkins(key: &[u8]) -> u32 {
    // A key is at most a packet long; as in C, the length counts modulo 2^32.
    let seed = 0xDEAD_BEEF_u32.wrapping_add(length_word(key));
    let (mut a, mut b, mut c) = (seed, seed, seed);
    // The last block, full or not, goes through the final mix: all blocks but the last come here.
    let last_len = match key.len() {
        0 => return c,
        len => (len - 1) % 12 + 1,
    };
    let (body, last) = key.split_at(key.len() - last_len);
    let (blocks, _) = body.as_chunks::<12>();
    for block in blocks {
        let [x, y, z] = words(block);
        a = a.wrapping_add(x);
        b = b.wrapping_add(y);
        c = c.wrapping_add(z);
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
    }
    let [x, y, z] = last_words(last);
    a = a.wrapping_add(x);
    b = b.wrapping_add(y);
    c = c.wrapping_add(z);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// TDB's old hash (descended from gdbm): the chain in files without the Jenkins mark, which in a
/// cluster are the persistent ones.
#[must_use]
pub fn old(key: &[u8]) -> u32 {
    let mut value = 0x238F_13AF_u32.wrapping_mul(length_word(key));
    let mut shift = 0;
    for &byte in key {
        value = value.wrapping_add(u32::from(byte) << shift);
        shift = if shift < 19 { shift + 5 } else { shift - 19 }; // 5 * index mod 24
    }
    // 1103515243, not the well-known ...245.
    value.wrapping_mul(1_103_515_243).wrapping_add(12345)
}

impl DbId {
    /// The id of a database: hash of its file name without directory and node suffix
    /// (`locking.tdb`), terminating NUL included.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 1);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        Self(jenkins(&bytes))
    }
}

/// The words of the last, 1 to 12 bytes, filled up with zeros. Word by word: a copy of unknown
/// length is a call, and costs as much as the mixing.
fn last_words(last: &[u8]) -> [u32; 3] {
    let mut words = [0; 3];
    let (whole, rest) = last.as_chunks::<4>();
    for (word, bytes) in words.iter_mut().zip(whole) {
        *word = u32::from_le_bytes(*bytes);
    }
    if let Some(word) = words.get_mut(whole.len()) {
        for (index, byte) in rest.iter().enumerate() {
            *word |= u32::from(*byte) << (8 * index);
        }
    }
    words
}

fn length_word(key: &[u8]) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "C's length is a u32, modulo 2^32")]
    let len = key.len() as u32;
    len
}

fn words(block: &[u8; 12]) -> [u32; 3] {
    let (words, _) = block.as_chunks::<4>();
    [0, 1, 2].map(|index| u32::from_le_bytes(words[index]))
}

#[cfg(test)]
mod tests;
