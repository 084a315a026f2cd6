//! Text of one report: lines, rows between separators, colours.
//!
//! Role: pure building of output. Where it goes is `output.rs`'s business.
//! Invariants
//! - Bytes, not characters: names and keys need not be UTF-8.
//! - Without colours (the default) nothing but the text itself is in it.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3.

use std::fmt::{self, Display, Write};

/// Meaning of a piece of text; the palette turns it into a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Healthy, running, up.
    Good,
    /// Wants a look: disabled, unknown, partially online.
    Warn,
    /// Wants a hand: unhealthy, banned, disconnected, down.
    Bad,
    /// Present but not in use.
    Dim,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// Text with a tone; displays with the colour's codes around it when colours are on.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    text: T,
    tone: Option<Tone>,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tone {
            Some(tone) => write!(f, "{}{}\x1b[0m", tone.code(), self.text),
            None => self.text.fmt(f),
        }
    }
}

/// Output under construction.
#[derive(Clone, Debug)]
pub struct Page {
    text: Vec<u8>,
    separator: Vec<u8>,
    colors: bool,
}

impl Page {
    /// An empty page; `separator` is used by [`Page::row`].
    #[must_use]
    pub fn new(separator: impl Into<Vec<u8>>, colors: bool) -> Self {
        Self { text: Vec::new(), separator: separator.into(), colors }
    }

    /// One line and its newline.
    pub fn line(&mut self, text: impl Display) {
        self.put(text);
        self.text.push(b'\n');
    }

    /// Text without a newline.
    pub fn put(&mut self, text: impl Display) {
        write!(self, "{text}").expect("writing to memory does not fail");
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// A row: the separator before the first, between all and after the last field, a newline.
    pub fn row<T: Display>(&mut self, fields: impl IntoIterator<Item = T>) {
        for field in fields {
            self.separator();
            self.put(field);
        }
        self.separator();
        self.text.push(b'\n');
    }

    /// The separator alone.
    pub fn separator(&mut self) {
        self.text.extend_from_slice(&self.separator);
    }

    /// `text` in the colour of `tone`, if colours are on.
    pub fn paint<T: Display>(&self, tone: Tone, text: T) -> Painted<T> {
        Painted { text, tone: self.colors.then_some(tone) }
    }

    /// What has been written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Mixed fields of a row: `page.row(fields![pnn, address, "0"])`.
#[macro_export]
macro_rules! fields {
    ($($field:expr),* $(,)?) => {
        [$(&$field as &dyn ::std::fmt::Display),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_begins_and_ends_with_the_separator() {
        let mut page = Page::new("::", false);
        page.row(fields!["Node", 7_u32]);
        assert_eq!(page.as_bytes(), b"::Node::7::\n");
    }

    #[test]
    fn paint_is_invisible_without_colours() {
        let (mut plain, mut colored) = (Page::new("|", false), Page::new("|", true));
        plain.line(plain.paint(Tone::Bad, "BANNED"));
        colored.line(colored.paint(Tone::Bad, "BANNED"));
        assert_eq!(plain.as_bytes(), b"BANNED\n");
        assert_eq!(colored.as_bytes(), b"\x1b[31mBANNED\x1b[0m\n");
    }
}
