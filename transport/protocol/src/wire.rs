//! Marshalling primitives: a bounds-checked reader, append-only encoding, the two codec traits.
//!
//! Role: every structure and packet is built from these. All integers are little-endian (x86-64
//! and aarch64 hosts; C sends host byte order). Nothing is aligned: loads and stores are bytewise.
//! Invariants
//! - A `Reader` never reads outside its slice; a short buffer is [`DecodeError::Short`].
//! - Allocation while decoding is bounded by the bytes that are really there: a count is checked
//!   against `remaining / smallest element` before anything is reserved.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.8.

use thiserror::Error;

/// Why bytes could not become a value. `what` names the field or structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The buffer ends before the value does (C: `EMSGSIZE`).
    #[error("{what}: needs {needed} bytes, only {left} left")]
    Short {
        /// Field or structure.
        what: &'static str,
        /// Bytes it takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The bytes are there and mean nothing (C: `EINVAL`).
    #[error("{what}: value {value:#x} is not valid")]
    Invalid {
        /// Field or structure.
        what: &'static str,
        /// What stands there.
        value: u64,
    },
}

/// A value that knows its bytes.
pub trait Encode {
    /// Number of bytes that [`Encode::encode`] appends.
    fn encoded_len(&self) -> usize;
    /// Appends exactly [`Encode::encoded_len`] bytes, padding zeroed. Never fails.
    fn encode(&self, out: &mut Vec<u8>);

    /// Convenience for cold paths: the value in a buffer of its own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out
    }
}

/// A value that can be read from bytes; may borrow from them.
pub trait Decode<'a>: Sized {
    /// Consumes the value's bytes from `reader`. Trailing bytes are the caller's business.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are too few or mean nothing; never panics.
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Reads one value from the start of `bytes`; like C, extra trailing bytes are tolerated.
    ///
    /// # Errors
    /// As [`Decode::decode`].
    fn from_bytes(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// Cursor over received bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet consumed.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The unread bytes, not consumed.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes everything that is left.
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left; nothing is consumed then.
    pub fn bytes(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(DecodeError::Short { what, needed: len, left: self.rest.len() }),
        }
    }

    /// Takes `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(DecodeError::Short { what, needed: N, left: self.rest.len() }),
        }
    }

    /// Skips `len` padding bytes without looking at them.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn padding(&mut self, len: usize) -> Result<(), DecodeError> {
        self.bytes("padding", len).map(drop)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.array(what).map(i64::from_le_bytes)
    }

    /// Eight bytes, IEEE 754, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn f64(&mut self, what: &'static str) -> Result<f64, DecodeError> {
        self.array(what).map(f64::from_le_bytes)
    }

    /// One byte, 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Short`]; [`DecodeError::Invalid`] for any other value.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Invalid { what, value: u64::from(other) }),
        }
    }

    /// C's `datan`: u32 length, then that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn datan(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(what)? as usize;
        self.bytes(what, len)
    }

    /// A u32 element count, checked against the bytes that are left: `count * element_min` must
    /// fit. The result is safe to hand to `Vec::with_capacity`.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn count(&mut self, what: &'static str, element_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32(what)? as usize;
        let needed = count.saturating_mul(element_min.max(1));
        if needed > self.remaining() {
            return Err(DecodeError::Short { what, needed, left: self.remaining() });
        }
        Ok(count)
    }
}

/// The bytes before the first NUL, or all of them.
#[must_use]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Appending primitives; counterpart of [`Reader`].
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes, little-endian.
    fn put_u16(&mut self, value: u16);
    /// Four bytes, little-endian.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes, little-endian.
    fn put_u64(&mut self, value: u64);
    /// Four bytes, little-endian.
    fn put_i32(&mut self, value: i32);
    /// Eight bytes, little-endian.
    fn put_i64(&mut self, value: i64);
    /// Eight bytes, IEEE 754, little-endian.
    fn put_f64(&mut self, value: f64);
    /// Appends `len` zero bytes.
    fn put_zeros(&mut self, len: usize);
    /// Appends raw bytes.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// Length as u32 (a `Vec` beyond 4 GiB saturates: such a packet cannot be framed anyway).
    fn put_len(&mut self, len: usize);
    /// C's `datan`: u32 length and the bytes.
    fn put_datan(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_f64(&mut self, value: f64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_zeros(&mut self, len: usize) {
        self.resize(self.len() + len, 0);
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn put_len(&mut self, len: usize) {
        self.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    }
    fn put_datan(&mut self, bytes: &[u8]) {
        self.put_len(bytes.len());
        self.put_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_larger_than_the_buffer_is_refused_before_allocating() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        let error = Reader::new(&bytes).count("list", 4).unwrap_err();
        assert_eq!(error, DecodeError::Short { what: "list", needed: 0xffff_ffff * 4, left: 4 });
    }

    #[test]
    fn a_short_read_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert!(reader.u32("word").is_err());
        assert_eq!(reader.remaining(), 3);
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert_eq!(Reader::new(&[1]).bool("flag"), Ok(true));
        assert_eq!(
            Reader::new(&[2]).bool("flag"),
            Err(DecodeError::Invalid { what: "flag", value: 2 })
        );
    }
}
