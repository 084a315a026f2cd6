//! Arguments as the C tool reads them.
//!
//! Role: words to numbers, node lists and addresses; pure.
//! Invariant: leniency is C's, not ours: digits may be followed by anything, and what cannot be a
//! number is refused without a word (exit status 22).
//!
//! Origin: `docs/spec/admin-interface.md` 1.2 (argument parsing); tried with the 4.17 tool.

use std::ffi::{OsStr, OsString};

use ringmaster_protocol::SockAddr;
use ringmaster_protocol::node::{NodeFlags, NodeMap};

use crate::command::Failure;

/// The word at `index`, for messages and comparisons.
#[must_use]
pub fn text(arguments: &[OsString], index: usize) -> String {
    arguments.get(index).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An unsigned number in C's notations (`10`, `0x10`, `010`) with blanks before and anything
/// behind it. `None`: no digit, a minus sign, or too large for 64 bits.
#[must_use]
pub fn unsigned(word: &OsStr) -> Option<u64> {
    let word = word.to_string_lossy();
    let word = word.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let word = word.strip_prefix('+').unwrap_or(word);
    let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, hex),
        _ if word.starts_with('0') => (8, word),
        _ => (10, word),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], radix).ok()
}

/// An unsigned number of 32 bits; larger ones lose their upper half, as in C.
#[must_use]
pub fn unsigned32(word: &OsStr) -> Option<u32> {
    let number = unsigned(word)?;
    let low = number & u64::from(u32::MAX);
    u32::try_from(low).ok()
}

/// As [`unsigned32`], but only decimal digits count: `0x10` is 0.
#[must_use]
pub fn decimal32(word: &OsStr) -> Option<u32> {
    let word = word.to_string_lossy();
    let word = word.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let word = word.strip_prefix('+').unwrap_or(word);
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let number: u64 = word[..end].parse().ok()?;
    u32::try_from(number & u64::from(u32::MAX)).ok()
}

/// C's `atoi`: decimal digits, 0 without any, cut to 32 bits.
#[must_use]
pub fn atoi(word: &OsStr) -> i32 {
    let word = word.to_string_lossy();
    let word = word.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let mut number: i64 = 0;
    for digit in digits.chars().map_while(|c| c.to_digit(10)) {
        number = number.saturating_mul(10).saturating_add(digit.into());
    }
    let number = if negative { -number } else { number };
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// An address without a port.
///
/// # Errors
/// `Invalid IP address WORD`.
pub fn address(word: &OsStr) -> Result<SockAddr, Failure> {
    let word = word.to_string_lossy();
    SockAddr::parse_ip(&word).map_err(|_| Failure::new(format_args!("Invalid IP address {word}")))
}

/// Nodes a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeList {
    /// The word `all`: every node that is not deleted.
    All(Vec<u32>),
    /// Those named, in that order, twice if named twice.
    Some(Vec<u32>),
}

impl NodeList {
    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[u32] {
        match self {
            Self::All(nodes) | Self::Some(nodes) => nodes,
        }
    }
}

/// Reads `all` or a list of numbers between commas; no word means `target`.
///
/// # Errors
/// A word that is no number; a number beyond the node map.
pub fn node_list(word: Option<&OsStr>, map: &NodeMap, target: u32) -> Result<NodeList, Failure> {
    let Some(word) = word else {
        return Ok(NodeList::Some(vec![target]));
    };
    let word = word.to_string_lossy();
    if word == "all" {
        let alive = map.0.iter().filter(|node| !node.flags.contains(NodeFlags::DELETED));
        return Ok(NodeList::All(alive.map(|node| node.pnn.get()).collect()));
    }
    let mut nodes = Vec::new();
    for word in word.split(',').filter(|word| !word.is_empty()) {
        let number = unsigned32(OsStr::new(word))
            .ok_or_else(|| Failure::new(format_args!("Invalid node {word}")))?;
        if usize::try_from(number).is_ok_and(|number| number >= map.0.len()) {
            return Err(Failure::new(format_args!("Node {number} does not exist")));
        }
        nodes.push(number);
    }
    Ok(NodeList::Some(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::Pnn;
    use ringmaster_protocol::node::NodeAndFlags;

    fn number(word: &str) -> Option<u64> {
        unsigned(OsStr::new(word))
    }

    #[test]
    fn numbers_may_carry_a_tail_but_no_minus_sign() {
        assert_eq!(number("0x10"), Some(16));
        assert_eq!(number("010"), Some(8));
        assert_eq!(number(" 22x"), Some(22));
        assert_eq!(number("0xg"), Some(0), "the digit before the x counts");
        assert_eq!((number(""), number("x"), number("-1")), (None, None, None));
        assert_eq!(decimal32(OsStr::new("010x")), Some(10));
        assert_eq!(decimal32(OsStr::new("0x10")), Some(0));
        assert_eq!(decimal32(OsStr::new("x")), None);
    }

    #[test]
    fn atoi_takes_what_it_can_and_cuts_the_rest() {
        let read = |word: &str| atoi(OsStr::new(word));
        assert_eq!((read("1x"), read(""), read("-7")), (1, 0, -7));
        assert_eq!(read("99999999999"), 1_215_752_191);
    }

    fn map() -> NodeMap {
        let node =
            |pnn, flags| NodeAndFlags { pnn: Pnn::new(pnn).unwrap(), flags, addr: SockAddr::ZERO };
        let (ok, deleted) = (NodeFlags::NONE, NodeFlags::DELETED);
        NodeMap(vec![node(0, ok), node(1, deleted), node(2, ok)])
    }

    fn list(word: &str) -> Result<NodeList, String> {
        node_list(Some(OsStr::new(word)), &map(), 0).map_err(|failure| failure.to_string())
    }

    #[test]
    fn node_lists_keep_order_and_repetition() {
        assert_eq!(list("2,0x0,2"), Ok(NodeList::Some(vec![2, 0, 2])));
        assert_eq!(list("0,"), Ok(NodeList::Some(vec![0])));
        assert_eq!(list("all"), Ok(NodeList::All(vec![0, 2])));
        assert_eq!(node_list(None, &map(), 2).unwrap(), NodeList::Some(vec![2]));
    }

    #[test]
    fn node_lists_refuse_words_and_unknown_numbers() {
        assert_eq!(list("0,all"), Err("Invalid node all".into()));
        assert_eq!(list("ALL"), Err("Invalid node ALL".into()));
        assert_eq!(list("9"), Err("Node 9 does not exist".into()));
    }
}
