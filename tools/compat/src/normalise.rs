//! The one place where output that differs from run to run becomes equal.
//!
//! Role: replaces times, durations, process ids, generations, addresses and paths of the run by
//! words in angle brackets. What only some cases need is an [`Extra`] that a case asks for.
//! Invariants
//! - Pure text to text; a line that holds nothing variable is unchanged, byte for byte.
//! - Columns survive: an address is replaced by one of another length together with its padding.
//!
//! Origin: formats in `docs/spec/admin-interface.md` 1.3–1.9 and appendix A.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What is variable because of where the cluster runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The directory of the whole cluster; `node.N` below it is node N.
    pub directory: PathBuf,
    /// Addresses of the nodes in PNN order.
    pub addresses: Vec<IpAddr>,
}

/// A replacement that a case asks for with `normalise:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// `numbers`: every run of digits, with the blanks of its column before it.
    Numbers,
    /// `sort`: lines in byte order, for output whose order C does not define.
    Sort,
}

impl Extra {
    /// From its word in a case file.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "numbers" => Some(Self::Numbers),
            "sort" => Some(Self::Sort),
            _ => None,
        }
    }
}

/// Patterns replaced in every output. In a pattern `A` is an upper-case letter, `a` a lower-case
/// one, `9` a digit, `#` one or more digits, `_` a digit or a blank, `\` takes the next character
/// literally; all else stands for itself.
const ALWAYS: [(&str, &str); 13] = [
    ("#.#.#-Debi\\an", "<samba version>"),
    ("#.#.#-Ringm\\aster", "<samba version>"),
    ("9999-99-99T99:99:99.999999", "<timestamp>"),
    ("_9.999 Aaa Aaa _9 99:99:99 9999", "<duration> <time>"),
    ("Aaa Aaa _9 99:99:99 9999", "<time>"),
    ("9999/99/99 99:99:99", "<time>"),
    ("(999 99:99:99)", "<duration>"),
    ("#.999999", "<seconds>"),
    ("Gener\\ation:#", "Generation:<generation>"),
    ("PID:#", "PID:<pid>"),
    ("pid:#", "pid:<pid>"),
    ("(# clients)", "(<count> clients)"),
    ("[#]:", "[<pid>]:"),
];

/// `text` with everything replaced that differs between two runs of the same case.
#[must_use]
pub fn normalise(text: &str, place: &Place, extras: &[Extra]) -> String {
    let mut text = replace_paths(text, &place.directory);
    for (index, address) in place.addresses.iter().enumerate() {
        text = replace_padded(&text, &address.to_string(), &format!("127.0.0.{}", index + 1));
    }
    for (pattern, word) in ALWAYS {
        text = replace_pattern(&text, pattern, word);
    }
    for extra in extras {
        text = match extra {
            Extra::Numbers => replace_numbers(&text),
            Extra::Sort => sort_lines(&text),
        };
    }
    text
}

fn replace_paths(text: &str, directory: &Path) -> String {
    let directory = directory.to_string_lossy();
    if directory.is_empty() { text.to_owned() } else { text.replace(&*directory, "<cluster>") }
}

/// Replaces `from`, and when two or more blanks follow, adds or removes blanks so that what comes
/// after them keeps its column.
fn replace_padded(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, tail) = (&rest[..at], &rest[at + from.len()..]);
        // 127.1.1.1 is also the beginning of 127.1.1.10.
        let part_of_more = tail.starts_with(|c: char| c.is_ascii_digit())
            || before.ends_with(|c: char| c.is_ascii_digit() || c == '.');
        out.push_str(before);
        if part_of_more {
            out.push_str(from);
            rest = tail;
            continue;
        }
        out.push_str(to);
        let after = tail.trim_start_matches(' ');
        let blanks = tail.len() - after.len();
        let kept =
            if blanks >= 2 { (blanks + from.len()).saturating_sub(to.len()) } else { blanks };
        out.extend(std::iter::repeat_n(' ', kept));
        rest = after;
    }
    out + rest
}

fn replace_pattern(text: &str, pattern: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        // A number is replaced as a whole or not at all.
        let splits_number = previous.is_ascii_digit() && first.is_ascii_digit();
        match match_length(rest, pattern).filter(|_| !splits_number) {
            Some(len) => {
                out.push_str(word);
                rest = &rest[len..];
                previous = ' ';
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
                previous = first;
            }
        }
    }
    out
}

/// Bytes of `text` that `pattern` matches at its start.
fn match_length(text: &str, pattern: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut pattern = pattern.bytes();
    while let Some(wanted) = pattern.next() {
        let found = *bytes.get(at)?;
        let fits = match wanted {
            b'A' => found.is_ascii_uppercase(),
            b'a' => found.is_ascii_lowercase(),
            b'9' | b'#' => found.is_ascii_digit(),
            b'_' => found.is_ascii_digit() || found == b' ',
            b'\\' => Some(found) == pattern.next(),
            literal => found == literal,
        };
        if !fits {
            return None;
        }
        at += 1;
        if wanted == b'#' {
            at += bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        }
    }
    // Not in the middle of a longer number either.
    let ends_inside_number =
        bytes[at - 1].is_ascii_digit() && bytes.get(at).is_some_and(u8::is_ascii_digit);
    (!ends_inside_number).then_some(at)
}

fn replace_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blanks = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ' ' {
            blanks += 1;
            continue;
        }
        let number = character.is_ascii_digit();
        // The blanks that right-align a number say only how long it is.
        let kept = if number { blanks.min(1) } else { blanks };
        out.extend(std::iter::repeat_n(' ', kept));
        blanks = 0;
        if number {
            while characters.next_if(char::is_ascii_digit).is_some() {}
            out.push_str("<n>");
        } else {
            out.push(character);
        }
    }
    out.extend(std::iter::repeat_n(' ', blanks));
    out
}

fn sort_lines(text: &str) -> String {
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        normalise(text, &Place::default(), &[])
    }

    #[test]
    fn an_address_keeps_the_column_behind_it() {
        let place = Place {
            directory: PathBuf::new(),
            addresses: vec![IpAddr::from([127, 115, 12, 1]), IpAddr::from([127, 5, 2, 2])],
        };
        let long = "pnn:0 127.115.12.1     OK (THIS NODE)\n";
        let short = "pnn:1 127.5.2.2        OK\n";
        assert_eq!(normalise(long, &place, &[]), "pnn:0 127.0.0.1        OK (THIS NODE)\n");
        assert_eq!(normalise(short, &place, &[]), "pnn:1 127.0.0.2        OK\n");
        assert_eq!(normalise("|127.5.2.2|127.5.2.21|", &place, &[]), "|127.0.0.2|127.5.2.21|");
    }

    #[test]
    fn times_and_durations_become_words() {
        let cases = [
            (
                "Ctdbd start time              : (000 00:14:38) Fri Nov 20 02:35:59 2026",
                "Ctdbd start time              : <duration> <time>",
            ),
            (
                "00.ctdb              OK         0.007 Fri Nov  2 02:50:40 2026",
                "00.ctdb              OK        <duration> <time>",
            ),
            (
                "response from 0 time=0.000689 sec  (2 clients)",
                "response from 0 time=<seconds> sec  (<count> clients)",
            ),
            ("backup @ 2026/11/20 02:50:46", "backup @ <time>"),
            (
                "2026-11-20T04:45:48.511573+00:00 node.0 ctdbd[7470]: x",
                "<timestamp>+00:00 node.0 ctdbd[<pid>]: x",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn what_does_not_vary_is_left_alone() {
        for text in
            ["dbid:0x900f773e name:vol.tdb\n", "rsn: 3", "1.2.3.4", "Size:3\nhash:0 lmaster:0"]
        {
            assert_eq!(plain(text), text);
        }
        assert_eq!(plain("Generation:1056965605\nSize:3"), "Generation:<generation>\nSize:3");
        assert_eq!(plain("Generation:INVALID"), "Generation:INVALID");
    }

    #[test]
    fn paths_of_the_run_become_those_of_any_run() {
        let place = Place { directory: PathBuf::from("/tmp/rc.1.0"), addresses: Vec::new() };
        let text = "path:/tmp/rc.1.0/node.2/db/volatile/a.tdb.2";
        assert_eq!(normalise(text, &place, &[]), "path:<cluster>/node.2/db/volatile/a.tdb.2");
    }

    #[test]
    fn numbers_lose_their_alignment_only_when_asked() {
        let text = " num_clients                        2\n";
        assert_eq!(plain(text), text);
        let numbers = normalise(text, &Place::default(), &[Extra::Numbers]);
        assert_eq!(numbers, " num_clients <n>\n");
    }

    #[test]
    fn sorted_output_has_no_order_of_its_own() {
        let sorted = |text| normalise(text, &Place::default(), &[Extra::Sort]);
        assert_eq!(sorted("b\na\n"), sorted("a\nb\n"));
    }
}
