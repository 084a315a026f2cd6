//! Strings of the wire in C's three forms: to the end of the payload, with a length, and without
//! the terminating NUL.
//!
//! Role: names, paths and lists as bytes (they need not be UTF-8); [`Text`] never holds a NUL.
//! Origin: `docs/spec/wire-protocol.md` 1.8 (`string`, `stringn`), 2.8.

use std::fmt;

use crate::wire::{Decode, DecodeError, Encode, Put, Reader, until_nul};

/// A C string without its NUL. As a payload of its own it is encoded with the NUL and decoded up
/// to the first NUL or the end (C tolerates the missing NUL); the whole payload is consumed.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// `bytes` up to the first NUL, as C would see them.
    #[must_use]
    pub fn new(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(until_nul(bytes.as_ref()))
    }

    /// The bytes before the NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// `None` when the bytes are not UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// Length of the NUL-terminated form.
    #[must_use]
    pub const fn terminated_len(self) -> usize {
        self.0.len() + 1
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(self.0))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.0), f)
    }
}

impl Encode for Text<'_> {
    fn encoded_len(&self) -> usize {
        self.terminated_len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.0);
        out.put_u8(0);
    }
}

impl<'a> Decode<'a> for Text<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.take_rest()))
    }
}

/// A string that may be absent: no bytes at all stand for C's NULL.
impl Encode for Option<Text<'_>> {
    fn encoded_len(&self) -> usize {
        self.as_ref().map_or(0, Encode::encoded_len)
    }
    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(text) = self {
            text.encode(out);
        }
    }
}

impl<'a> Decode<'a> for Option<Text<'a>> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.remaining() == 0 { Ok(None) } else { Text::decode(reader).map(Some) }
    }
}

/// Text that C sends without its NUL (DUMP_MEMORY, error texts). Readers also accept a NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BareText<'a>(pub Text<'a>);

impl Encode for BareText<'_> {
    fn encoded_len(&self) -> usize {
        self.0.as_bytes().len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.0.as_bytes());
    }
}

impl<'a> Decode<'a> for BareText<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Text::decode(reader).map(Self)
    }
}

/// C's `stringn`: u32 length and the text with its NUL; `None` is length 0.
pub(crate) fn stringn_len(text: Option<Text<'_>>) -> usize {
    4 + text.map_or(0, Text::terminated_len)
}

/// Appends a `stringn`.
pub(crate) fn put_stringn(out: &mut Vec<u8>, text: Option<Text<'_>>) {
    out.put_len(text.map_or(0, Text::terminated_len));
    text.encode(out);
}

/// Reads a `stringn`: consumes exactly the length, the text ends at the first NUL.
pub(crate) fn stringn<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
) -> Result<Option<Text<'a>>, DecodeError> {
    let bytes = reader.datan(what)?;
    Ok(if bytes.is_empty() { None } else { Some(Text::new(bytes)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_nul_is_tolerated_and_an_empty_payload_is_null() {
        assert_eq!(Text::from_bytes(b"abc").map(Text::as_bytes), Ok(&b"abc"[..]));
        assert_eq!(Text::from_bytes(b"abc\0junk").map(Text::as_bytes), Ok(&b"abc"[..]));
        assert_eq!(Option::<Text<'_>>::from_bytes(b""), Ok(None));
        assert_eq!(Option::<Text<'_>>::from_bytes(b"\0"), Ok(Some(Text::new(""))));
    }

    #[test]
    fn stringn_consumes_its_length_even_past_a_nul() {
        let mut reader = Reader::new(b"\x04\0\0\0a\0bc!");
        assert_eq!(stringn(&mut reader, "name"), Ok(Some(Text::new("a"))));
        assert_eq!(reader.rest(), b"!");
    }
}
