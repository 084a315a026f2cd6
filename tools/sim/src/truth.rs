//! What every record's value must be, as an observer who sees everything knows it.
//!
//! Clients change a value only under its chain lock at its dmaster, and every written value is
//! unique. So the history of a key must be one line: each change starts from the last one. That is
//! linearizability, checked at each step instead of afterwards.

/// One key's line of values. An empty value is a record that is not there.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    history: Vec<(u64, Vec<u8>)>,
    /// Who wrote last: node and its life.
    pub(crate) writer: Option<(usize, u32)>,
}

impl Truth {
    pub(crate) fn new() -> Self {
        Self { history: vec![(0, Vec::new())], writer: None }
    }

    /// The value that everybody has to see now.
    pub(crate) fn value(&self) -> &[u8] {
        self.history.last().map_or(&[], |(_, value)| value)
    }

    /// A client has written.
    pub(crate) fn write(&mut self, now: u64, value: Vec<u8>, writer: (usize, u32)) {
        self.history.push((now, value));
        self.writer = Some(writer);
    }

    /// Whether a read that took from `begun` until now may have seen `value`.
    pub(crate) fn was(&self, begun: u64, value: &[u8]) -> bool {
        let first = self.history.iter().rposition(|(at, _)| *at <= begun).unwrap_or(0);
        self.history[first..].iter().any(|(_, known)| known == value)
    }

    /// A recovery has lost the last writes with the nodes that had them: back to `value`, which
    /// must have been there once. `false` when it never was.
    pub(crate) fn roll_back(&mut self, now: u64, value: &[u8]) -> bool {
        let known = self.history.iter().any(|(_, old)| old == value);
        self.history.push((now, value.to_vec()));
        self.writer = None;
        known
    }
}
