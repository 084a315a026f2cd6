//! The captured packets of the specification's chapter 9, read from the document itself: a byte
//! that is corrected there is corrected here.

use std::sync::OnceLock;

const SPECIFICATION: &str = include_str!("../../../../docs/spec/wire-protocol.md");

/// One hex dump of chapter 9.
#[derive(Debug)]
pub struct Example {
    /// "9.20".
    pub section: &'static str,
    /// The line above the dump.
    pub title: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Example {
    /// Whether it is a CTDB packet (not an event daemon's, not a bare payload).
    pub fn is_packet(&self) -> bool {
        self.bytes.get(4..8) == Some(b"BDTC")
    }
}

/// All dumps in order.
pub fn examples() -> &'static [Example] {
    static EXAMPLES: OnceLock<Vec<Example>> = OnceLock::new();
    EXAMPLES.get_or_init(read_examples)
}

/// The dump in `section` whose title begins with `title`.
pub fn example(section: &str, title: &str) -> &'static [u8] {
    let found: Vec<_> = examples()
        .iter()
        .filter(|example| example.section == section && example.title.starts_with(title))
        .collect();
    assert!(!found.is_empty(), "no example {title:?} in section {section}");
    &found[0].bytes
}

fn read_examples() -> Vec<Example> {
    let start = SPECIFICATION.find("\n## 9. ").expect("chapter 9 is there");
    let end = SPECIFICATION.find("\n## 10. ").expect("chapter 10 is there");
    let (mut section, mut title) = ("", "");
    let mut dump: Option<Vec<u8>> = None;
    let mut examples = Vec::new();
    for line in SPECIFICATION[start..end].lines() {
        match (&mut dump, line.starts_with("```")) {
            (None, true) => dump = Some(Vec::new()),
            (Some(_), true) => {
                let bytes = dump.take().expect("inside a dump");
                examples.push(Example { section, title, bytes });
            }
            (Some(bytes), false) => bytes.extend(hex(line)),
            (None, false) => {
                if let Some(heading) = line.strip_prefix("### ") {
                    section = heading.split(' ').next().unwrap_or(heading);
                } else if !line.is_empty() {
                    title = line;
                }
            }
        }
    }
    examples
}

/// `0010  08 00 …` without its offset.
fn hex(line: &str) -> impl Iterator<Item = u8> {
    line.split_ascii_whitespace()
        .skip(1)
        .map(|byte| u8::from_str_radix(byte, 16).expect("dumps hold hex bytes"))
}
