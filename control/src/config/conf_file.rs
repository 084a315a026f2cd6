//! Lines of `ctdb.conf` and of every other file that C reads with its "tini" parser.
//!
//! Role: bytes in; sections and `name = value` pairs out, each with the line it began on. Which
//! names exist is decided in `options.rs`.
//! Invariants
//! - Total: any bytes give a result; nothing is allocated beyond the size of the input.
//! - Where C stops reading, so do we ([`Parsed::stopped`]); what came before is still listed.
//!
//! Rules that no INI crate has: a comment only where a line begins; of a run of white space the
//! first character stays; a backslash before the line end (white space between them is allowed)
//! joins lines, but not in comments; quotes are ordinary characters; a NUL ends its line.
//! Origin: `lib/util/tini.c`, found by comparing with `tini_parse()` of libsamba-util 4.17 over
//! random input; `docs/spec/admin-interface.md` 3.2.

/// A line that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `[name]`. Blanks inside the brackets are part of the name.
    Section { line: u32, name: Vec<u8> },
    /// `name = value`; both trimmed. The value may be empty; the name too (after a continued
    /// empty line), and then it matches nothing.
    Setting { line: u32, name: Vec<u8>, value: Vec<u8> },
    /// A line without `=`, trimmed. C skips it in `ctdb.conf` and complains in a tunables file.
    Bare { line: u32, text: Vec<u8> },
}

impl Entry {
    /// Where the entry began, from 1.
    #[must_use]
    pub const fn line(&self) -> u32 {
        match self {
            Self::Section { line, .. } | Self::Setting { line, .. } | Self::Bare { line, .. } => {
                *line
            }
        }
    }
}

/// Why C stops reading in the middle of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// `[` without `]` on the same (joined) line.
    UnclosedSection,
    /// The line begins with `=`.
    NoName,
}

/// The line at which reading ended early. C then behaves as if the file held nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub line: u32,
    pub reason: StopReason,
}

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub entries: Vec<Entry>,
    pub stopped: Option<Stop>,
}

/// White space as `isspace()` in the C locale has it.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// `bytes` without white space (C's `isspace`) at both ends.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_space(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&b| !is_space(b)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Lines of the files C reads with `file_lines_load()`: number from 1 and text. A carriage return
/// or a NUL ends the text of its line.
pub(crate) fn plain_lines(text: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (1u32..).zip(text.split(|&b| b == b'\n')).map(|(line, content)| {
        let end = content.iter().position(|&b| b == b'\r' || b == 0);
        (line, &content[..end.unwrap_or(content.len())])
    })
}

/// Splits a file into entries by C's rules.
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut cursor = Cursor { text, at: 0, line: 1 };
    while let Some((line, content)) = cursor.next_logical_line() {
        let content = match content.iter().position(|&b| b == 0) {
            Some(nul) => &content[..nul],
            None => &content[..],
        };
        let Some(&first) = content.first() else { continue };
        if first == b'[' {
            let Some(end) = content.iter().position(|&b| b == b']') else {
                parsed.stopped = Some(Stop { line, reason: StopReason::UnclosedSection });
                break;
            };
            parsed.entries.push(Entry::Section { line, name: content[1..end].to_vec() });
            continue;
        }
        match content.iter().position(|&b| b == b'=') {
            None => {
                parsed.entries.push(Entry::Bare { line, text: trimmed(content).to_vec() });
            }
            Some(0) => {
                parsed.stopped = Some(Stop { line, reason: StopReason::NoName });
                break;
            }
            Some(equals) => parsed.entries.push(Entry::Setting {
                line,
                name: trimmed(&content[..equals]).to_vec(),
                value: trimmed(&content[equals + 1..]).to_vec(),
            }),
        }
    }
    parsed
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
}

impl Cursor<'_> {
    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        if byte == b'\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(byte)
    }

    /// Skips blank lines, leading white space and comments; `None` at the end of the file.
    fn skip_to_content(&mut self) -> Option<()> {
        loop {
            match *self.text.get(self.at)? {
                byte if is_space(byte) => {
                    self.next_byte();
                }
                b'#' | b';' => while self.next_byte()? != b'\n' {},
                _ => return Some(()),
            }
        }
    }

    /// The next line with its continuations, white space collapsed, and where it began.
    fn next_logical_line(&mut self) -> Option<(u32, Vec<u8>)> {
        self.skip_to_content()?;
        let began = self.line;
        let mut content: Vec<u8> = Vec::new();
        while let Some(byte) = self.next_byte() {
            if byte == b'\n' {
                let end = content.iter().rposition(|&b| !is_space(b)).map_or(0, |last| last + 1);
                content.truncate(end);
                if content.last() != Some(&b'\\') {
                    break;
                }
                content.pop();
            } else if !(is_space(byte) && content.last().is_some_and(|&last| is_space(last))) {
                content.push(byte);
            }
        }
        Some((began, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes())
            .entries
            .into_iter()
            .map(|entry| match entry {
                Entry::Section { name, .. } => ("[]".into(), String::from_utf8(name).unwrap()),
                Entry::Setting { name, value, .. } => {
                    (String::from_utf8(name).unwrap(), String::from_utf8(value).unwrap())
                }
                Entry::Bare { text, .. } => ("bare".into(), String::from_utf8(text).unwrap()),
            })
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}");
        all.remove(0)
    }

    #[test]
    fn values_are_taken_as_tini_parse_of_samba_4_17_takes_them() {
        let cases = [
            ("a = b\n", "a", "b"),
            ("a = \"b  c\"\n", "a", "\"b c\""),
            ("a = b # c ; d\n", "a", "b # c ; d"),
            ("a = b \\\n   c\n", "a", "b c"),
            ("a\\\t\r\nb=x\n", "ab", "x"),
            ("a\\\\\nb=x\n", "a\\b", "x"),
            ("a = b\\", "a", "b\\"),
            ("a = \\ ", "a", "\\"),
            ("a\tb = c \t d\n", "a\tb", "c d"),
            ("a \tb = c\t d\n", "a b", "c\td"),
            ("\x0ca\x0b b\x0c=\x0cc\x0b d\x0c", "a\x0bb", "c\x0bd"),
            ("a\r=b\rc\r\n", "a", "b\rc"),
            ("a==b", "a", "=b"),
            ("\\x=y", "\\x", "y"),
            ("\\\n =x", "", "x"),
            ("#x\\\ny=z\n", "y", "z"),
            ("[a\\\nb]", "[]", "ab"),
            ("[ a  b ]", "[]", " a b "),
            ("[a]b]", "[]", "a"),
            ("[a] x\\\ny=z\n", "[]", "a"),
        ];
        for (text, name, value) in cases {
            assert_eq!(one(text), (name.to_owned(), value.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn reading_stops_where_c_stops() {
        let stopped = |text: &str| parse(text.as_bytes()).stopped;
        assert_eq!(
            stopped("[a]\n[cluster\nx=y\n"),
            Some(Stop { line: 2, reason: StopReason::UnclosedSection })
        );
        assert_eq!(stopped("a=b\n\n =x\n"), Some(Stop { line: 3, reason: StopReason::NoName }));
        assert_eq!(stopped("[a\0b]"), Some(Stop { line: 1, reason: StopReason::UnclosedSection }));
        assert_eq!(stopped("a=b\n"), None);
    }

    #[test]
    fn a_line_without_equals_sign_is_an_entry_of_its_own() {
        let parsed = parse(b"[a]\n\nfoo  bar \nb=c\n");
        assert_eq!(parsed.entries[1], Entry::Bare { line: 3, text: b"foo bar".to_vec() });
        assert_eq!(parsed.entries.len(), 3);
    }

    #[test]
    fn an_entry_carries_the_line_it_began_on() {
        let parsed = parse(b"# x\n[a]\nb = c \\\n d\ne = f\n");
        let lines: Vec<u32> = parsed.entries.iter().map(Entry::line).collect();
        assert_eq!(lines, [2, 3, 5]);
    }
}
