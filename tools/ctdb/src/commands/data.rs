//! Keys and values: how they are written on the command line, shown, and put into documents.
//!
//! Role: pure.
//! Invariant: bytes are kept: what a document or a dump shows can be turned back into them.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2 (key/value arguments), 1.8.3; tried with 4.17.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::command::{Failure, Key, key};

/// Why bytes written in hexadecimal cannot be read, in C's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadHex(pub(crate) String);

/// Text taken literally, or bytes in hexadecimal behind `0x`. `word` is what C's message shows of
/// it: everything up to the end of the string it works on.
pub(crate) fn parse(bytes: &[u8], shown: &[u8]) -> Result<Vec<u8>, BadHex> {
    let Some(digits) = bytes.strip_prefix(b"0x") else { return Ok(bytes.to_vec()) };
    let shown = String::from_utf8_lossy(shown.get(2..).unwrap_or_default()).into_owned();
    if !digits.len().is_multiple_of(2) {
        return Err(BadHex(format!("Key ({shown}) contains odd number of hex digits")));
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let parsed: Option<Vec<u8>> = digits.chunks_exact(2).map(pair).collect();
    parsed.ok_or_else(|| BadHex(format!("Invalid hex: {shown}")))
}

/// An argument that is a key.
///
/// # Errors
/// C's two lines, exit status 22.
pub(crate) fn key_argument(word: &OsStr) -> Result<Vec<u8>, Failure> {
    argument(word, "key")
}

/// An argument that is a value.
///
/// # Errors
/// As [`key_argument`].
pub(crate) fn value_argument(word: &OsStr) -> Result<Vec<u8>, Failure> {
    argument(word, "value")
}

fn argument(word: &OsStr, what: &str) -> Result<Vec<u8>, Failure> {
    const EINVAL: u8 = 22;
    parse(word.as_bytes(), word.as_bytes()).map_err(|BadHex(reason)| {
        let word = word.to_string_lossy();
        Failure::with_status(EINVAL, format_args!("{reason}\nFailed to parse {what} {word}"))
    })
}

/// Bytes between quotation marks: what cannot be printed, `"` and `\` as `\XX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b' '..=b'~' if !matches!(byte, b'"' | b'\\') => {
                    fmt::Write::write_char(f, char::from(*byte))?;
                }
                _ => write!(f, "\\{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// Bytes as pairs of lower-case digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What C's `%.*s` prints of bytes: those before the first NUL.
pub(crate) fn before_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Keys of [`ValueOfKey`].
pub(crate) const VALUE_OF_KEY: &[Key] = &[
    key("key", "string", "key; what is not printable, and \" and \\, as \\XX"),
    key("key_hex", "string", "key in hexadecimal"),
    key("size", "number", "bytes of the value; 0 if there is no such record"),
    key("value", "string", "value, written as the key is"),
    key("value_hex", "string", "value in hexadecimal"),
];

/// A key and its value, as commands that read one record document them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ValueOfKey {
    key: String,
    key_hex: String,
    /// Bytes of the value; 0 if there is no such record.
    pub(crate) size: usize,
    value: String,
    value_hex: String,
    /// The value as it is.
    #[serde(skip)]
    pub(crate) bytes: Vec<u8>,
}

impl ValueOfKey {
    pub(crate) fn new(key: &[u8], bytes: Vec<u8>) -> Self {
        Self {
            key: Escaped(key).to_string(),
            key_hex: Hex(key).to_string(),
            size: bytes.len(),
            value: Escaped(&bytes).to_string(),
            value_hex: Hex(&bytes).to_string(),
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Result<Vec<u8>, String> {
        parse(word.as_bytes(), word.as_bytes()).map_err(|BadHex(reason)| reason)
    }

    #[test]
    fn words_are_literal_unless_they_begin_with_0x() {
        assert_eq!(read("key1"), Ok(b"key1".to_vec()));
        assert_eq!(read("0x6b00fF"), Ok(vec![0x6b, 0, 0xff]));
        assert_eq!(read("0X31"), Ok(b"0X31".to_vec()));
        assert_eq!(read("0x"), Ok(Vec::new()));
        assert_eq!(read("0x123"), Err("Key (123) contains odd number of hex digits".into()));
        assert_eq!(read("0xzz"), Err("Invalid hex: zz".into()));
    }

    #[test]
    fn an_argument_that_is_no_key_is_explained_twice() {
        let failure = key_argument(OsStr::new("0x1")).unwrap_err();
        let expected = "Key (1) contains odd number of hex digits\nFailed to parse key 0x1";
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn bytes_are_shown_so_that_they_can_be_read_back() {
        assert_eq!(Escaped(b"a \"\\\0\xff~").to_string(), "a \\22\\5C\\00\\FF~");
        assert_eq!(Hex(&[0, 0xab]).to_string(), "00ab");
        assert_eq!(before_nul(b"a\0b"), b"a");
    }
}
