//! A table whose names are never reused.

/// Names one descriptor of a reactor: a place and how often it has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    slot: u32,
    generation: u32,
}

/// Generations have 24 bits, so that a token and an operation fit into the ring's user data. A
/// place is retired when its generations are used up.
const GENERATION_MAX: u32 = (1 << 24) - 1;

impl Token {
    /// 56 bits: place below, generation above.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.slot) | (u64::from(self.generation) << 32)
    }

    /// Inverse of [`Token::to_bits`]; the upper 8 bits are ignored.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: ((bits >> 32) as u32) & GENERATION_MAX }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Token {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.value = Some(value);
            return Token { slot, generation: entry.generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer descriptors than 2^32");
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Token { slot, generation: 0 }
    }

    pub(super) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.slot as usize)?;
        if slot.generation == token.generation { slot.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation == token.generation { slot.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation != token.generation {
            return None;
        }
        let value = slot.value.take()?;
        if slot.generation < GENERATION_MAX {
            slot.generation += 1;
            self.free.push(token.slot);
        }
        Some(value)
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        used.filter_map(|(index, slot)| {
            Some(Token { slot: u32::try_from(index).ok()?, generation: slot.generation })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_removed_value_finds_nothing() {
        let mut slots = Slots::new();
        let old = slots.insert('a');
        assert_eq!(slots.remove(old), Some('a'));
        let new = slots.insert('b');
        assert_eq!(new.slot, old.slot);
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&'b'));
        assert_eq!(slots.tokens(), [new]);
    }

    #[test]
    fn a_place_is_retired_when_its_generations_are_used_up() {
        let mut slots = Slots::new();
        let token = slots.insert(1);
        slots.slots[0].generation = GENERATION_MAX;
        let last = Token { generation: GENERATION_MAX, ..token };
        assert_eq!(slots.remove(last), Some(1));
        assert_eq!(slots.insert(2).slot, 1);
        assert_eq!(slots.get(last), None);
    }

    #[test]
    fn tokens_survive_user_data() {
        let token = Token { slot: 0xFFFF_FFFE, generation: GENERATION_MAX };
        assert_eq!(Token::from_bits(token.to_bits() | (7 << 56)), token);
    }
}
