//! What clients were told, and whether the databases still say so.
//!
//! Role: pure. A counter's value is written by exactly one acknowledged increment, so the values of
//! all acknowledgements are 1, 2, … without gap or repetition; a token stands in a record from the
//! one operation that put it there to the one that took it out.
//! Invariants: a loss, a repetition and a resurrection each break one of the rules, also when they
//! come in pairs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

/// An acknowledged increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Increment {
    /// Which counter.
    pub key: u32,
    /// Its value since then.
    pub value: u32,
    /// The node whose client did it.
    pub node: usize,
}

/// The value that each counter must have, if `increments` are all there were.
///
/// # Errors
/// A value is missing or was written twice: an increment was lost.
pub fn totals(increments: &[Increment]) -> Result<BTreeMap<u32, u32>> {
    let mut by_key: BTreeMap<u32, Vec<Increment>> = BTreeMap::new();
    for increment in increments {
        by_key.entry(increment.key).or_default().push(*increment);
    }
    let mut totals = BTreeMap::new();
    for (key, mut values) in by_key {
        values.sort_by_key(|increment| increment.value);
        for (position, increment) in values.iter().enumerate() {
            let expected = u32::try_from(position + 1).expect("a test counts to few millions");
            if increment.value == expected {
                continue;
            }
            let first = position.saturating_sub(3);
            let last = (position + 4).min(values.len());
            let around: Vec<_> = values[first..last].iter().map(|i| (i.value, i.node)).collect();
            bail!("counter {key}: {expected} is followed or missed by (value, node) {around:?}");
        }
        totals.insert(key, u32::try_from(values.len()).expect("as above"));
    }
    Ok(totals)
}

/// A value that is like no other: who put it there, and his how manyeth it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// The `sequence`th token of a worker.
    #[must_use]
    pub const fn new(worker: u16, sequence: u32) -> Self {
        Self((worker as u64) << 32 | sequence as u64)
    }

    /// As stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// From a stored value.
    ///
    /// # Errors
    /// The value is not one that a token's owner stored.
    pub fn from_bytes(value: &[u8]) -> Result<Self> {
        let Ok(bytes) = value.try_into() else {
            bail!("a record holds {} bytes instead of a token: {value:?}", value.len());
        };
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

/// What was done to one record that comes and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coming {
    /// Tokens stored where nothing was.
    pub created: Vec<Token>,
    /// Tokens found and deleted.
    pub deleted: Vec<Token>,
}

impl Coming {
    /// Whether the record may hold `left` now.
    ///
    /// # Errors
    /// A record was lost, or came back.
    pub fn check(&self, left: Option<Token>) -> Result<()> {
        let created: BTreeSet<_> = self.created.iter().copied().collect();
        let deleted: BTreeSet<_> = self.deleted.iter().copied().collect();
        ensure!(created.len() == self.created.len(), "a token was created twice");
        if deleted.len() != self.deleted.len() {
            let again = self
                .deleted
                .iter()
                .filter(|token| self.deleted.iter().filter(|other| other == token).count() > 1);
            let again: BTreeSet<_> = again.collect();
            bail!("deleted records came back: {again:x?}");
        }
        let strange: Vec<_> = deleted.difference(&created).collect();
        ensure!(strange.is_empty(), "tokens nobody created were deleted: {strange:x?}");
        let still: Vec<_> = created.difference(&deleted).copied().collect();
        ensure!(
            still == left.into_iter().collect::<Vec<_>>(),
            "{still:x?} were created and not deleted, the record holds {left:x?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn increments(values: &[u32]) -> Vec<Increment> {
        values.iter().map(|value| Increment { key: 0, value: *value, node: 1 }).collect()
    }

    #[test]
    fn values_in_any_order_without_gap_are_the_total() {
        assert_eq!(totals(&increments(&[3, 1, 2])).unwrap(), BTreeMap::from([(0, 3)]));
    }

    #[test]
    fn a_lost_or_repeated_increment_is_found() {
        assert!(totals(&increments(&[1, 2, 2, 3])).is_err());
        assert!(totals(&increments(&[1, 3])).is_err());
        assert!(totals(&increments(&[2])).is_err());
    }

    #[test]
    fn a_record_that_came_back_or_went_is_found() {
        let [a, b] = [Token::new(1, 1), Token::new(1, 2)];
        let coming = |created: &[Token], deleted: &[Token]| Coming {
            created: created.to_vec(),
            deleted: deleted.to_vec(),
        };
        assert!(coming(&[a, b], &[a]).check(Some(b)).is_ok());
        assert!(coming(&[a, b], &[a, b]).check(None).is_ok());
        assert!(coming(&[a, b], &[a]).check(None).is_err(), "lost at the end");
        assert!(coming(&[a, b], &[]).check(Some(b)).is_err(), "lost in between");
        assert!(coming(&[a], &[a, a]).check(None).is_err(), "came back");
        assert!(coming(&[a], &[a]).check(Some(a)).is_err(), "came back at the end");
    }
}
