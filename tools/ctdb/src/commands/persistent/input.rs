//! The input of `ptrans`: one change in a line, `"KEY" "VALUE"`.
//!
//! Role: pure; bytes in, changes and C's complaints out.
//! Invariants
//! - A line ends where C's does: at a newline, after [`LINE_MAX`] bytes, or at a NUL.
//! - A complaint shows what C's does: the rest of the line from where reading began, newline
//!   included.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.4; tried with the 4.17 tool.

use super::super::data::{BadHex, parse};

/// Bytes that C reads at a time.
const LINE_MAX: usize = 1023;

/// One record to be written; an empty value deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Reads the whole input. Lines with an empty key are skipped without a word.
pub(super) fn changes(input: &[u8]) -> Vec<Result<Change, String>> {
    let mut found = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let window = &rest[..rest.len().min(LINE_MAX)];
        let end = window.iter().position(|byte| *byte == b'\n').map_or(window.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        // C works on a string.
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        match change(line) {
            Ok(change) if change.key.is_empty() => {}
            other => found.push(other),
        }
    }
    found
}

fn change(line: &[u8]) -> Result<Change, String> {
    let (key, rest) = quoted(line)?;
    let (value, _ignored) = quoted(rest)?;
    Ok(Change { key, value })
}

/// The bytes between the next quotation marks, and what follows.
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let shown = || String::from_utf8_lossy(text);
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    let inner = start.and_then(|start| text[start..].strip_prefix(b"\""));
    let inner = inner.ok_or_else(|| format!("Unsupported input format in {}", shown()))?;
    let end = inner.iter().position(|byte| *byte == b'"');
    let end = end.ok_or_else(|| format!("Unmatched \" in input {}", shown()))?;
    let bytes = parse(&inner[..end], inner).map_err(|BadHex(reason)| reason)?;
    Ok((bytes, &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(key: &[u8], value: &[u8]) -> Result<Change, String> {
        Ok(Change { key: key.to_vec(), value: value.to_vec() })
    }

    #[test]
    fn a_change_is_two_words_in_quotation_marks() {
        let input =
            b"\"a1\" \"b1\"\n  \"a2\"\t \"0x0041\"\n\"a7\"\"x\"\n\"a3\" \"b3\" more\n\"a5\" \"\"";
        let expected = [
            ok(b"a1", b"b1"),
            ok(b"a2", b"\0A"),
            ok(b"a7", b"x"),
            ok(b"a3", b"b3"),
            ok(b"a5", b""),
        ];
        assert_eq!(changes(input), expected);
    }

    #[test]
    fn what_is_no_change_is_shown_from_where_reading_began() {
        let read = |line: &str| changes(line.as_bytes()).pop().unwrap().unwrap_err();
        assert_eq!(read("\n"), "Unsupported input format in \n");
        assert_eq!(read("foo \"x\"\n"), "Unsupported input format in foo \"x\"\n");
        assert_eq!(read("\"a8\" x \"y\"\n"), "Unsupported input format in  x \"y\"\n");
        assert_eq!(read("\"a\" \"b\n"), "Unmatched \" in input  \"b\n");
        assert_eq!(read("\"0x1\" \"y\"\n"), "Key (1\" \"y\"\n) contains odd number of hex digits");
        assert_eq!(read("\"a\" \"0xzz\"\n"), "Invalid hex: zz\"\n");
    }

    #[test]
    fn an_empty_key_is_skipped_without_a_word() {
        assert_eq!(changes(b"\"\" \"x\"\n"), []);
    }

    #[test]
    fn a_long_line_is_several_and_a_nul_ends_one() {
        let long = format!("\"k\" \"{}\"\n", "x".repeat(1020));
        let read = changes(long.as_bytes());
        assert_eq!(read.len(), 2);
        assert!(read[0].as_ref().unwrap_err().starts_with("Unmatched \" in input  \"xxx"));
        assert_eq!(read[1], Err("Unsupported input format in xx\"\n".into()));
        let read = changes(b"\"k\" \"z\0y\"\n\"l\" \"1\"\n");
        assert_eq!(read, [Err("Unmatched \" in input  \"z".into()), ok(b"l", b"1")]);
    }
}
