//! What replicas tell each other of the server connections that they hold, as values and as text.

use std::fmt;

/// Which replica: a number that a process makes up when it starts. One that starts again is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64);

/// What one replica tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it holds, by its own account.
    pub own: Held,
    /// The last number that it has heard of the one that it speaks to; zero is none.
    pub heard: u64,
    /// It ends, and is not to be counted any more.
    pub leaves: bool,
    /// What it has heard from others themselves.
    pub others: Vec<Held>,
}

/// What a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub id: Id,
    /// Of two words of one replica the one with the greater number is the later.
    pub number: u64,
    /// Server connections that it has, or may open without asking anybody.
    pub count: usize,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.number, self.count)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stays = if self.leaves { "leaves" } else { "stays" };
        writeln!(f, "{} {} {stays}", self.own, self.heard)?;
        self.others.iter().try_for_each(|other| writeln!(f, "{other}"))
    }
}

impl Word {
    /// Reads what [`fmt::Display`] writes. More on a line is for those who know what it means.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(text).ok()?.lines();
        let mut words = lines.next()?.split(' ');
        let own = Held::read(&mut words)?;
        let heard = words.next()?.parse().ok()?;
        let leaves = match words.next()? {
            "leaves" => true,
            "stays" => false,
            _ => return None,
        };
        let others = lines.map(|line| Held::read(&mut line.split(' ')));
        Some(Self {
            own,
            heard,
            leaves,
            others: others.collect::<Option<_>>()?,
        })
    }
}

impl Held {
    fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        Some(Self {
            id: Id(u64::from_str_radix(words.next()?, 16).ok()?),
            number: words.next()?.parse().ok()?,
            count: words.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held() -> impl Strategy<Value = Held> {
        (any::<u64>(), any::<u64>(), any::<usize>()).prop_map(|(id, number, count)| Held {
            id: Id(id),
            number,
            count,
        })
    }

    proptest! {
        #[test]
        fn a_word_is_read_as_it_is_written(
            own in held(), heard: u64, leaves: bool, others in prop::collection::vec(held(), 0..5),
        ) {
            let word = Word { own, heard, leaves, others };
            prop_assert_eq!(Word::read(word.to_string().as_bytes()), Some(word));
        }

        #[test]
        fn any_text_is_survived(text in any::<Vec<u8>>()) {
            let _ = Word::read(&text);
        }
    }

    #[test]
    fn what_is_no_word_is_none() {
        for text in [
            "",
            "1",
            "a 1 2 0",
            "a 1 2 0 hides",
            "x 1 2 0 stays",
            "a 1 -2 0 stays",
            "a 1 2 0 stays\nb",
        ] {
            assert_eq!(Word::read(text.as_bytes()), None, "{text}");
        }
    }
}
