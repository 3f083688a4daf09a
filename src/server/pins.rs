//! Why a server connection cannot leave its client: state that cannot be taken to another one.
//!
//! It knows words, and no connection.

use super::hints::Hints;

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pin {
    /// Statements of SQL `PREPARE`.
    Prepared,
    /// Channels that are listened to.
    Listen,
    /// Something in the temporary schema.
    Temp,
    /// Cursors `WITH HOLD`.
    Cursor,
    /// Advisory locks of the session.
    Lock,
    /// What only the end of the session takes away: a library that was loaded, a connection of dblink.
    Load,
    /// Something that nobody can be asked about.
    Unknown,
}

impl Pin {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Prepared,
        Self::Listen,
        Self::Temp,
        Self::Cursor,
        Self::Lock,
        Self::Load,
        Self::Unknown,
    ];

    /// The word for it, in metrics and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Listen => "listen",
            Self::Temp => "temp",
            Self::Cursor => "cursor",
            Self::Lock => "lock",
            Self::Load => "load",
            Self::Unknown => "unknown",
        }
    }

    fn from_word(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|pin| pin.as_str().as_bytes() == word)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pins(u8);

impl Pins {
    /// Whether there is no reason.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `pin` is one of them.
    pub fn contains(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number, and back.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set that this number stands for.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Adds a reason.
    pub fn insert(&mut self, pin: Pin) {
        self.0 |= pin.bit();
    }

    /// Takes a reason away.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !pin.bit();
    }

    /// The reasons one by one.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |&pin| self.contains(pin))
    }

    /// What an answer leaves of these: of the kinds that were asked about those that were found, and the others as
    /// they are.
    #[must_use]
    pub fn after(self, asked: Hints, found: Self) -> Self {
        let mut pins = Self(self.0 | found.0);
        for (kind, pin) in ASKED {
            if asked.contains(kind) && !found.contains(pin) {
                pins.remove(pin);
            }
        }
        pins
    }

    /// What follows from hints that need no answer: nobody can be asked about these.
    pub fn without_asking(hints: Hints) -> Self {
        let mut pins = Self::default();
        for (kind, pin) in [(Hints::LOAD, Pin::Load), (Hints::OPAQUE, Pin::Unknown)] {
            if hints.contains(kind) {
                pins.insert(pin);
            }
        }
        pins
    }

    /// Adds the reason that an answer names; whether it is one.
    pub(super) fn insert_word(&mut self, word: &[u8]) -> bool {
        let pin = Pin::from_word(word);
        pin.into_iter().for_each(|pin| self.insert(pin));
        pin.is_some()
    }
}

impl std::fmt::Display for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, pin) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", pin.as_str())?;
        }
        Ok(())
    }
}

/// The kinds of state that a server is asked about and that keep a connection.
pub(super) const ASKED: [(Hints, Pin); 5] = [
    (Hints::PREPARED, Pin::Prepared),
    (Hints::LISTEN, Pin::Listen),
    (Hints::TEMP, Pin::Temp),
    (Hints::CURSOR, Pin::Cursor),
    (Hints::LOCKS, Pin::Lock),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(pins: &[Pin]) -> Pins {
        let mut set = Pins::default();
        pins.iter().for_each(|&pin| set.insert(pin));
        set
    }

    #[test]
    fn words_are_read_back() {
        for pin in Pin::ALL {
            let mut set = Pins::default();
            assert!(set.insert_word(pin.as_str().as_bytes()));
            assert_eq!(set.iter().collect::<Vec<_>>(), [pin]);
        }
        assert!(!Pins::default().insert_word(b"x"));
    }

    #[test]
    fn an_answer_says_only_what_was_asked() {
        let before = pins(&[Pin::Listen, Pin::Temp, Pin::Load]);
        let after = before.after(Hints::TEMP.union(Hints::LOCKS), pins(&[Pin::Lock]));
        assert_eq!(after, pins(&[Pin::Listen, Pin::Load, Pin::Lock]));
        assert_eq!(after.after(Hints::ASKABLE, Pins::default()), pins(&[Pin::Load]));
    }

    #[test]
    fn what_nobody_can_be_asked_about() {
        assert_eq!(Pins::without_asking(Hints::ASKABLE), Pins::default());
        let both = Hints::LOAD.union(Hints::OPAQUE);
        assert_eq!(Pins::without_asking(both), pins(&[Pin::Load, Pin::Unknown]));
    }
}
